//! The puts that are under way in all sessions.
//!
//! A client that lost its connection comes back before the server can know that the old one is
//! dead. The old session may still look alive. The server watches its upload; if no data comes, it
//! ends that upload and resumes from its bytes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::storage::VirtualPath;

/// A put for which nothing has come for so long is given to a session that wants to resume it.
pub(crate) const SILENCE: Duration = Duration::from_secs(1);

/// The number of intervals in a row in which data must arrive before a takeover is given up.
const WATCHED: u32 = 10;

/// The key by which two attempts at the same upload are recognised.
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

/// The puts that are under way.
#[derive(Debug, Default)]
pub(crate) struct UploadRegistry(Mutex<HashMap<UploadKey, Vec<Arc<UploadRegistryState>>>>);

#[derive(Debug)]
struct UploadRegistryState {
    session: Arc<str>,
    /// Cancelled once the session of the put is ending.
    ending: CancellationToken,
    /// Goes up with each sign of life.
    signs: AtomicU64,
    /// Cancelled once another session is to have it.
    taken: CancellationToken,
    /// Cancelled once nothing more happens to its files.
    over: CancellationToken,
}

impl UploadRegistryState {
    fn signs(&self) -> u64 {
        self.signs.load(Ordering::Relaxed)
    }

    fn is_alive_since(&self, signs: u64) -> bool {
        let is_ending = self.ending.is_cancelled() || self.over.is_cancelled();
        !is_ending && self.signs() != signs
    }
}

impl UploadRegistry {
    /// Enters a put of `session`; it stays until what is returned is dropped.
    pub(crate) fn register(
        self: &Arc<Self>,
        key: UploadKey,
        session: &Arc<str>,
        ending: &CancellationToken,
    ) -> ActiveUpload {
        let state = Arc::new(UploadRegistryState {
            session: Arc::clone(session),
            ending: ending.clone(),
            signs: AtomicU64::new(0),
            taken: CancellationToken::new(),
            over: CancellationToken::new(),
        });
        let mut puts = self.lock();
        puts.entry(key.clone()).or_default().push(state.clone());
        ActiveUpload {
            puts: Arc::clone(self),
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
            Some(puts) => {
                let others = puts.iter().filter(|put| put.session != *session);
                others.cloned().collect()
            }
            None => return true,
        };
        let all_over = || join_all(others.iter().map(|put| put.over.cancelled()));
        for _ in 0..WATCHED {
            let before: Vec<_> = others.iter().map(|put| put.signs()).collect();
            if timeout(SILENCE, all_over()).await.is_ok() {
                return true;
            }
            let mut watched = others.iter().zip(before);
            if !watched.any(|(put, signs)| put.is_alive_since(signs)) {
                for put in &others {
                    put.taken.cancel();
                }
                all_over().await;
                return true;
            }
        }
        false
    }

    /// Waits until what was cut off of the account's puts is kept, but not for long.
    pub(crate) async fn settle(&self, account: i64) {
        let ending: Vec<_> = {
            let puts = self.lock();
            let own = puts.iter().filter(|(key, _)| key.account == account);
            let own = own.flat_map(|(_, puts)| puts);
            let ending = own.filter(|put| put.ending.is_cancelled() || put.taken.is_cancelled());
            ending.cloned().collect()
        };
        let all_over = join_all(ending.iter().map(|put| put.over.cancelled()));
        let _ = timeout(SILENCE, all_over).await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UploadKey, Vec<Arc<UploadRegistryState>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A put that is under way.
#[derive(Debug)]
pub(crate) struct ActiveUpload {
    puts: Arc<UploadRegistry>,
    key: UploadKey,
    state: Arc<UploadRegistryState>,
}

impl ActiveUpload {
    /// Notes that its client is alive.
    pub(crate) fn sign_of_life(&self) {
        self.state.signs.fetch_add(1, Ordering::Relaxed);
    }

    /// Resolves once another session is to have it.
    pub(crate) async fn taken(&self) {
        self.state.taken.cancelled().await;
    }

    pub(crate) fn is_taken(&self) -> bool {
        self.state.taken.is_cancelled()
    }
}

impl Drop for ActiveUpload {
    fn drop(&mut self) {
        let mut puts = self.puts.lock();
        if let Some(same) = puts.get_mut(&self.key) {
            same.retain(|put| !Arc::ptr_eq(put, &self.state));
            if same.is_empty() {
                puts.remove(&self.key);
            }
        }
        drop(puts);
        self.state.over.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> UploadKey {
        let path = VirtualPath::parse("/a").expect("a path");
        UploadKey::new(1, &path, Some(9))
    }

    fn enter(puts: &Arc<UploadRegistry>, session: &str) -> ActiveUpload {
        puts.register(key(), &session.into(), &CancellationToken::new())
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_put_of_another_session_is_taken_once_it_is_over() {
        let puts = Arc::new(UploadRegistry::default());
        let old = enter(&puts, "old");
        let taker = tokio::spawn({
            let puts = puts.clone();
            async move { puts.take_over(&key(), &"new".into()).await }
        });
        old.taken().await;
        assert!(!taker.is_finished(), "it is not kept yet");
        drop(old);
        assert!(taker.await.expect("no panic"));
        assert!(puts.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_put_that_shows_a_sign_of_life_is_left_alone() {
        let puts = Arc::new(UploadRegistry::default());
        let old = enter(&puts, "old");
        let new = "new".into();
        let signs = async {
            loop {
                tokio::time::sleep(SILENCE / 2).await;
                old.sign_of_life();
            }
        };
        let key = key();
        let taken = tokio::select! {
            taken = puts.take_over(&key, &new) => taken,
            () = signs => unreachable!("it never ends"),
        };
        assert!(!taken && !old.is_taken());
    }

    #[tokio::test(start_paused = true)]
    async fn a_put_for_which_something_came_for_a_while_is_taken_when_nothing_more_does() {
        let puts = Arc::new(UploadRegistry::default());
        let old = enter(&puts, "old");
        let (key, new) = (key(), "new".into());
        let buffered = async move {
            for _ in 0..8 {
                tokio::time::sleep(SILENCE / 2).await;
                old.sign_of_life();
            }
            old.taken().await;
        };
        let (taken, ()) = tokio::join!(puts.take_over(&key, &new), buffered);
        assert!(taken);
    }

    #[tokio::test(start_paused = true)]
    async fn a_put_whose_session_ends_is_not_alive_whatever_it_still_does() {
        let puts = Arc::new(UploadRegistry::default());
        let ending = CancellationToken::new();
        let old = puts.register(key(), &"old".into(), &ending);
        ending.cancel();
        let (key, new) = (key(), "new".into());
        let started = tokio::time::Instant::now();
        let busy = async move {
            loop {
                tokio::select! {
                    () = old.taken() => break,
                    () = tokio::time::sleep(SILENCE / 4) => old.sign_of_life(),
                }
            }
        };
        let (taken, ()) = tokio::join!(puts.take_over(&key, &new), busy);
        assert!(taken && started.elapsed() <= SILENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_put_that_ends_by_itself_is_not_waited_for_any_longer() {
        let puts = Arc::new(UploadRegistry::default());
        let old = enter(&puts, "old");
        let started = tokio::time::Instant::now();
        let (key, new) = (key(), "new".into());
        let (taken, ()) = tokio::join!(puts.take_over(&key, &new), async { drop(old) });
        assert!(taken && started.elapsed() < SILENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn puts_of_the_same_session_of_other_users_and_of_other_sizes_are_others() {
        let puts = Arc::new(UploadRegistry::default());
        let own = enter(&puts, "own");
        let path = VirtualPath::parse("/a").expect("a path");
        let others = [(1, None), (1, Some(8)), (2, Some(9))];
        for (account, size) in others {
            let key = UploadKey::new(account, &path, size);
            assert!(puts.take_over(&key, &"new".into()).await);
        }
        assert!(puts.take_over(&key(), &"own".into()).await);
        assert!(!own.is_taken());
    }
}
