//! The uploads that run in all sessions of the server, by user, path and size.
//!
//! A client that lost its connection comes back before the server can know that the old one is
//! dead. The old session may still look alive. The server watches its upload; if no data comes, it
//! ends that upload and resumes from its bytes.
//!
//! One lock guards the table of all users. It is never held over I/O or an await.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::storage::VirtualPath;

/// How long no data may come for an upload before another session may take it over.
pub(crate) const SILENCE_BEFORE_TAKEOVER: Duration = Duration::from_secs(1);

/// The number of such intervals in a row in which data must arrive before a takeover is given up.
const MAX_WATCHED_INTERVALS: u32 = 10;

/// How long [`LiveUploads::wait_for_interrupted`] waits at most.
const MAX_INTERRUPTED_WAIT: Duration = Duration::from_secs(1);

/// The key that two attempts at the same upload share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct UploadKey {
    account: i64,
    path: String,
    size: Option<u64>,
}

impl UploadKey {
    pub(crate) fn new(account: i64, path: &VirtualPath, size: Option<u64>) -> Self {
        Self {
            account,
            path: path.to_string(),
            size,
        }
    }
}

/// The uploads that run now.
#[derive(Debug, Default)]
pub(crate) struct LiveUploads(Mutex<HashMap<UploadKey, Vec<Arc<LiveUploadState>>>>);

#[derive(Debug)]
struct LiveUploadState {
    session: Arc<str>,
    /// Cancelled once the client of the upload may have left.
    peer_left: CancellationToken,
    /// Grows whenever the client shows that it is alive.
    activity: AtomicU64,
    /// Cancelled once another session takes the upload over.
    taken_over: CancellationToken,
    /// Cancelled once the files of the upload do not change any more.
    finished: CancellationToken,
}

impl LiveUploadState {
    fn activity(&self) -> u64 {
        self.activity.load(Ordering::Relaxed)
    }

    fn is_active_since(&self, earlier_activity: u64) -> bool {
        let is_ending = self.peer_left.is_cancelled() || self.finished.is_cancelled();
        !is_ending && self.activity() != earlier_activity
    }
}

impl LiveUploads {
    /// Adds an upload of `session`; it stays until the guard is dropped.
    pub(crate) fn register(
        self: &Arc<Self>,
        key: UploadKey,
        session: &Arc<str>,
        peer_left: &CancellationToken,
    ) -> LiveUpload {
        let state = Arc::new(LiveUploadState {
            session: Arc::clone(session),
            peer_left: peer_left.clone(),
            activity: AtomicU64::new(0),
            taken_over: CancellationToken::new(),
            finished: CancellationToken::new(),
        });
        let mut uploads = self.lock();
        uploads.entry(key.clone()).or_default().push(state.clone());
        LiveUpload {
            uploads: Arc::clone(self),
            key,
            state,
        }
    }

    /// Ends other sessions' attempts at the same upload and waits until their bytes are kept; `false` if
    /// one of them stays alive.
    ///
    /// Data of a lost connection may still arrive from buffers, slowly if the bandwidth is limited. The
    /// server waits for it, because data that arrives need not be sent again.
    pub(crate) async fn take_over(&self, key: &UploadKey, session: &Arc<str>) -> bool {
        let others: Vec<_> = match self.lock().get(key) {
            Some(uploads) => {
                let others = uploads.iter().filter(|upload| upload.session != *session);
                others.cloned().collect()
            }
            None => return true,
        };
        let all_finished = || join_all(others.iter().map(|upload| upload.finished.cancelled()));
        for _ in 0..MAX_WATCHED_INTERVALS {
            let before: Vec<_> = others.iter().map(|upload| upload.activity()).collect();
            if timeout(SILENCE_BEFORE_TAKEOVER, all_finished())
                .await
                .is_ok()
            {
                return true;
            }
            let mut watched = others.iter().zip(before);
            if !watched.any(|(upload, before)| upload.is_active_since(before)) {
                for upload in &others {
                    upload.taken_over.cancel();
                }
                all_finished().await;
                return true;
            }
        }
        false
    }

    /// Waits, for a bounded time, until the account's interrupted uploads are kept as partial uploads.
    pub(crate) async fn wait_for_interrupted(&self, account: i64) {
        let interrupted: Vec<_> = {
            let uploads = self.lock();
            let own = uploads.iter().filter(|(key, _)| key.account == account);
            let own = own.flat_map(|(_, uploads)| uploads);
            let interrupted = own.filter(|upload| {
                upload.peer_left.is_cancelled() || upload.taken_over.is_cancelled()
            });
            interrupted.cloned().collect()
        };
        let all_finished = join_all(interrupted.iter().map(|upload| upload.finished.cancelled()));
        let _ = timeout(MAX_INTERRUPTED_WAIT, all_finished).await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UploadKey, Vec<Arc<LiveUploadState>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An upload that runs. Dropping it removes its entry.
#[derive(Debug)]
pub(crate) struct LiveUpload {
    uploads: Arc<LiveUploads>,
    key: UploadKey,
    state: Arc<LiveUploadState>,
}

impl LiveUpload {
    /// Notes that its client is alive.
    pub(crate) fn record_activity(&self) {
        self.state.activity.fetch_add(1, Ordering::Relaxed);
    }

    /// Resolves once another session takes it over.
    pub(crate) async fn taken_over(&self) {
        self.state.taken_over.cancelled().await;
    }

    pub(crate) fn is_taken_over(&self) -> bool {
        self.state.taken_over.is_cancelled()
    }
}

impl Drop for LiveUpload {
    fn drop(&mut self) {
        let mut uploads = self.uploads.lock();
        if let Some(same) = uploads.get_mut(&self.key) {
            same.retain(|upload| !Arc::ptr_eq(upload, &self.state));
            if same.is_empty() {
                uploads.remove(&self.key);
            }
        }
        drop(uploads);
        self.state.finished.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> UploadKey {
        let path = VirtualPath::parse("/a").expect("a path");
        UploadKey::new(1, &path, Some(9))
    }

    fn register(uploads: &Arc<LiveUploads>, session: &str) -> LiveUpload {
        uploads.register(key(), &session.into(), &CancellationToken::new())
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_upload_of_another_session_is_taken_over_once_it_is_finished() {
        let uploads = Arc::new(LiveUploads::default());
        let old = register(&uploads, "old");
        let taker = tokio::spawn({
            let uploads = uploads.clone();
            async move { uploads.take_over(&key(), &"new".into()).await }
        });
        old.taken_over().await;
        assert!(!taker.is_finished(), "it is not kept yet");
        drop(old);
        assert!(taker.await.expect("no panic"));
        assert!(uploads.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_active_upload_is_not_taken_over() {
        let uploads = Arc::new(LiveUploads::default());
        let old = register(&uploads, "old");
        let new = "new".into();
        let activity = async {
            loop {
                tokio::time::sleep(SILENCE_BEFORE_TAKEOVER / 2).await;
                old.record_activity();
            }
        };
        let key = key();
        let taken = tokio::select! {
            taken = uploads.take_over(&key, &new) => taken,
            () = activity => unreachable!("it never ends"),
        };
        assert!(!taken && !old.is_taken_over());
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_is_taken_over_once_its_data_stops_coming() {
        let uploads = Arc::new(LiveUploads::default());
        let old = register(&uploads, "old");
        let (key, new) = (key(), "new".into());
        let buffered = async move {
            for _ in 0..8 {
                tokio::time::sleep(SILENCE_BEFORE_TAKEOVER / 2).await;
                old.record_activity();
            }
            old.taken_over().await;
        };
        let (taken, ()) = tokio::join!(uploads.take_over(&key, &new), buffered);
        assert!(taken);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_whose_client_left_is_taken_over_although_it_is_active() {
        let uploads = Arc::new(LiveUploads::default());
        let peer_left = CancellationToken::new();
        let old = uploads.register(key(), &"old".into(), &peer_left);
        peer_left.cancel();
        let (key, new) = (key(), "new".into());
        let started = tokio::time::Instant::now();
        let busy = async move {
            loop {
                tokio::select! {
                    () = old.taken_over() => break,
                    () = tokio::time::sleep(SILENCE_BEFORE_TAKEOVER / 4) => old.record_activity(),
                }
            }
        };
        let (taken, ()) = tokio::join!(uploads.take_over(&key, &new), busy);
        assert!(taken && started.elapsed() <= SILENCE_BEFORE_TAKEOVER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_takeover_returns_as_soon_as_the_other_upload_ends() {
        let uploads = Arc::new(LiveUploads::default());
        let old = register(&uploads, "old");
        let started = tokio::time::Instant::now();
        let (key, new) = (key(), "new".into());
        let (taken, ()) = tokio::join!(uploads.take_over(&key, &new), async { drop(old) });
        assert!(taken && started.elapsed() < SILENCE_BEFORE_TAKEOVER);
    }

    #[tokio::test(start_paused = true)]
    async fn uploads_of_the_same_session_of_other_users_and_of_other_sizes_are_others() {
        let uploads = Arc::new(LiveUploads::default());
        let own = register(&uploads, "own");
        let path = VirtualPath::parse("/a").expect("a path");
        let others = [(1, None), (1, Some(8)), (2, Some(9))];
        for (account, size) in others {
            let key = UploadKey::new(account, &path, size);
            assert!(uploads.take_over(&key, &"new".into()).await);
        }
        assert!(uploads.take_over(&key(), &"own".into()).await);
        assert!(!own.is_taken_over());
    }
}
