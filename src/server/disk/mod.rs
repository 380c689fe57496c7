//! Schedules all blocking work on files.
//!
//! ```text
//! work of a user      ─►  ResourceShares: thread, digest and descriptors  ─►  limits.disk_threads
//! work of the server  ─►  a few at a time                                 ─►  SERVER_THREADS
//! ```
//!
//! Work of users runs on threads of its own. Work of the server itself (logins, readiness, housekeeping)
//! runs on the blocking threads of the runtime, so it never waits for work of users.

pub(crate) mod shares;
pub(crate) mod threads;

use std::ops::Deref;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::spawn_blocking;
use tracing::Instrument;

use crate::connection::{BlockingPool, SendProgress};
pub(crate) use crate::server::disk::shares::ResourceGrant;
use crate::server::disk::shares::{ResourceAmounts, ResourceRequest, ResourceShares};
use crate::server::disk::threads::DiskThreads;
use crate::server::error::CommandError;
use crate::server::limits::descriptors::DescriptorBudget;
use crate::storage::{MAX_BATCH_DESCRIPTORS, StorageError, StoredFile};

/// Blocking threads of the runtime, for logins, readiness, housekeeping and certificates. No work of
/// users runs on them.
pub const SERVER_THREADS: usize = 16;

/// Concurrent work of the server for sessions. The other threads serve callers that need one or two
/// each: the probes of the operators' address, housekeeping, the databases, certificates and settings.
const MAX_SERVER_WORK: usize = 4;

/// The most descriptors of an open file or upload: its own, and that of its record.
const DESCRIPTORS_PER_FILE: usize = 2;

/// Divides the disk threads and the descriptors for files among the users. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct DiskScheduler {
    shares: Arc<ResourceShares>,
    threads: DiskThreads,
    /// Permits for work of the server.
    server: Arc<Semaphore>,
}

/// The use of disk threads and descriptors at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DiskLoad {
    /// Threads for work of users.
    pub(crate) threads: usize,
    /// Threads that are busy.
    pub(crate) running: usize,
    /// Jobs that wait.
    pub(crate) waiting: usize,
    /// Further digests that could be computed concurrently.
    pub(crate) digests_free: usize,
    /// Descriptors for files: granted, and in total.
    pub(crate) descriptors: (usize, usize),
}

impl DiskScheduler {
    /// A scheduler with `threads` threads for users, `digests` concurrent digests, and the file
    /// descriptors of `budget`.
    pub(crate) fn new(threads: usize, digests: usize, budget: DescriptorBudget) -> Self {
        let total = ResourceAmounts {
            threads,
            digests,
            descriptors: (budget.files / 2).max(1),
            files: (budget.files / 2 / DESCRIPTORS_PER_FILE).max(1),
        };
        Self {
            shares: Arc::new(ResourceShares::new(total)),
            threads: DiskThreads::new(threads),
            server: Arc::new(Semaphore::new(MAX_SERVER_WORK)),
        }
    }

    pub(crate) fn load(&self) -> DiskLoad {
        let (total, free) = (self.shares.total(), self.shares.free());
        let descriptors =
            |amounts: ResourceAmounts| amounts.descriptors + amounts.files * DESCRIPTORS_PER_FILE;
        DiskLoad {
            threads: total.threads,
            running: total.threads - free.threads,
            waiting: self.shares.waiting(),
            digests_free: free.digests,
            descriptors: (descriptors(total) - descriptors(free), descriptors(total)),
        }
    }

    /// The handle of one user, by account number. All sessions of the user share the same limits.
    pub(crate) fn for_user(&self, user: i64) -> UserDisk {
        UserDisk {
            shares: Arc::clone(&self.shares),
            threads: self.threads.clone(),
            user,
        }
    }

    /// Runs work of the server itself, for logins and refreshes of rights. It never waits for work of
    /// users; it must be short.
    ///
    /// # Errors
    /// The error of `work`; [`CommandError::Internal`] if it panics.
    pub(crate) async fn run_for_server<T, F>(&self, work: F) -> Result<T, CommandError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, StorageError> + Send + 'static,
    {
        let permit = Arc::clone(&self.server).acquire_owned().await;
        let permit = permit.map_err(|_| CommandError::ShuttingDown)?;
        // The permit ends with the work, not with this future, which may be dropped before.
        let work = move || {
            let result = work();
            drop(permit);
            result
        };
        match spawn_blocking(work).await {
            Ok(result) => result.map_err(CommandError::Storage),
            Err(error) if error.is_cancelled() => Err(CommandError::ShuttingDown),
            Err(_) => Err(CommandError::Internal),
        }
    }
}

/// Runs blocking work for one user. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct UserDisk {
    shares: Arc<ResourceShares>,
    threads: DiskThreads,
    /// The number of the account.
    user: i64,
}

impl UserDisk {
    /// Runs `work` on a disk thread.
    ///
    /// # Errors
    /// The error of `work`; [`CommandError::Internal`] if it panics.
    ///
    /// # Cancel safety
    /// If the future is dropped, work that has started still runs to its end, and its result is dropped
    /// on the disk thread.
    pub(crate) async fn run<T, F>(&self, work: F) -> Result<T, CommandError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, StorageError> + Send + 'static,
    {
        self.run_after_acquiring(ResourceRequest::Thread, work)
            .await
    }

    /// Waits for a thread and a permit to compute a digest, for [`Self::run_with_grant`].
    pub(crate) async fn acquire_digest(&self) -> Result<ResourceGrant, CommandError> {
        self.acquire(ResourceRequest::Digest).await
    }

    /// As [`Self::run`], for a batch that needs so many `descriptors`. `work` gets the number that is granted.
    pub(crate) async fn run_batch<T, F>(
        &self,
        descriptors: usize,
        work: F,
    ) -> Result<T, CommandError>
    where
        T: Send + 'static,
        F: FnOnce(usize) -> Result<T, StorageError> + Send + 'static,
    {
        let granted = descriptors
            .min(MAX_BATCH_DESCRIPTORS)
            .min(self.shares.total().descriptors);
        self.run_after_acquiring(ResourceRequest::Batch(granted), move || work(granted))
            .await
    }

    /// Waits for the descriptors of one more file of the user that stays open.
    pub(crate) async fn acquire_file(&self) -> Result<ResourceGrant, CommandError> {
        self.acquire(ResourceRequest::File).await
    }

    /// As [`Self::acquire_file`], but does not wait.
    ///
    /// # Errors
    /// [`CommandError::TooManyFiles`] if the user may have no more open files now.
    pub(crate) fn try_acquire_file(&self) -> Result<ResourceGrant, CommandError> {
        let grant = self.shares.try_acquire(self.user, ResourceRequest::File);
        grant.ok_or(CommandError::TooManyFiles)
    }

    async fn run_after_acquiring<T, F>(
        &self,
        need: ResourceRequest,
        work: F,
    ) -> Result<T, CommandError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, StorageError> + Send + 'static,
    {
        self.run_with_grant(self.acquire(need).await?, work).await
    }

    /// As [`Self::run`], with resources that were granted before.
    pub(crate) async fn run_with_grant<T, F>(
        &self,
        grant: ResourceGrant,
        work: F,
    ) -> Result<T, CommandError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, StorageError> + Send + 'static,
    {
        let (sender, result) = oneshot::channel();
        let runtime = Handle::current();
        let work = move || {
            let _entered = runtime.enter();
            let result = work();
            drop(grant);
            // If the caller is gone, the result is dropped here.
            let _ = sender.send(result);
        };
        self.threads.run(work).map_err(|_| CommandError::Internal)?;
        let result = result.await.map_err(|_| CommandError::Internal)?;
        result.map_err(CommandError::Storage)
    }

    async fn acquire(&self, need: ResourceRequest) -> Result<ResourceGrant, CommandError> {
        let grant = self.shares.acquire(self.user, need).await;
        grant.ok_or(CommandError::ShuttingDown)
    }
}

impl BlockingPool for UserDisk {
    fn run(
        &self,
        work: Box<dyn FnOnce() -> SendProgress + Send>,
    ) -> BoxFuture<'static, Option<SendProgress>> {
        let disk = self.clone();
        Box::pin(async move { disk.run(move || Ok(work())).await.ok() })
    }
}

/// An open file. Closing may block, so dropping it closes the file on a disk thread of its user.
#[derive(Debug)]
pub(crate) struct OpenedFile {
    file: Arc<StoredFile>,
    disk: UserDisk,
    /// The grant of its descriptors, released when it is closed.
    descriptors: Option<ResourceGrant>,
}

impl OpenedFile {
    /// Takes an open file, with the grant of its descriptors.
    pub(crate) fn new(file: StoredFile, disk: UserDisk, descriptors: ResourceGrant) -> Self {
        Self {
            file: Arc::new(file),
            disk,
            descriptors: Some(descriptors),
        }
    }

    /// A handle for jobs.
    pub(crate) fn share(&self) -> Arc<StoredFile> {
        Arc::clone(&self.file)
    }
}

impl Deref for OpenedFile {
    type Target = StoredFile;

    fn deref(&self) -> &StoredFile {
        &self.file
    }
}

impl Drop for OpenedFile {
    fn drop(&mut self) {
        let last = (self.share(), self.descriptors.take());
        if let Ok(runtime) = Handle::try_current() {
            let disk = self.disk.clone();
            let close = move || {
                drop(last);
                Ok(())
            };
            runtime.spawn(async move { disk.run(close).await }.in_current_span());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn disks(threads: usize, digests: usize, files: usize) -> DiskScheduler {
        DiskScheduler::new(threads, digests, DescriptorBudget { files, sockets: 0 })
    }

    fn disk(disks: &DiskScheduler, number: i64) -> UserDisk {
        disks.for_user(number)
    }

    /// All grants that the user gets without waiting.
    fn take_all(disk: &UserDisk, need: ResourceRequest) -> Vec<ResourceGrant> {
        std::iter::from_fn(|| disk.shares.try_acquire(disk.user, need)).collect()
    }

    #[test]
    fn one_user_gets_a_quarter_of_the_threads_and_many_users_leave_some_for_the_next() {
        let disks = disks(64, 2, 64);
        let held: Vec<_> = (0..8)
            .map(|number| take_all(&disk(&disks, number), ResourceRequest::Thread))
            .collect();
        assert_eq!(held[0].len(), 16);
        assert!(held.iter().all(|turns| !turns.is_empty()));
        let last = take_all(&disk(&disks, 8), ResourceRequest::Thread);
        assert!(!last.is_empty(), "{} are free", disks.load().threads);
        drop((held, last));
        assert_eq!(disks.load().running, 0);
        assert!(disks.shares.is_idle(), "idle users are forgotten");
    }

    #[tokio::test]
    async fn a_hash_runs_although_another_user_has_used_up_their_threads() {
        let disks = disks(8, 1, 64);
        let (busy, other) = (disk(&disks, 0), disk(&disks, 1));
        let taken = take_all(&busy, ResourceRequest::Thread);
        let mut waiting = Box::pin(busy.shares.acquire(busy.user, ResourceRequest::Digest));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(disks.load().digests_free, 1, "a waiter holds nothing");
        assert!(
            other
                .run_with_grant(other.acquire_digest().await.expect("a grant"), || Ok(()))
                .await
                .is_ok()
        );
        drop(taken);
        assert!(waiting.await.is_some());
    }

    #[tokio::test]
    async fn users_are_served_in_turn_however_much_work_one_of_them_has() {
        let disks = disks(1, 1, 64);
        let (many, one) = (disk(&disks, 0), disk(&disks, 1));
        let running = many.shares.try_acquire(many.user, ResourceRequest::Thread);
        let mut queued: Vec<_> = (0..100)
            .map(|_| Box::pin(many.shares.acquire(many.user, ResourceRequest::Thread)))
            .collect();
        for waiting in &mut queued {
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        let mut other = Box::pin(one.shares.acquire(one.user, ResourceRequest::Thread));
        assert!(other.as_mut().now_or_never().is_none());
        assert_eq!(disks.load().waiting, 101);
        drop(running);
        let first = queued[0].as_mut().now_or_never();
        assert!(first.flatten().is_some(), "it had waited longest");
        assert!(other.now_or_never().flatten().is_some(), "then the other");
    }

    #[tokio::test]
    async fn cancelled_waiters_leave_no_memory_behind() {
        let disks = disks(1, 1, 64);
        let disk = disk(&disks, 0);
        let running = disk.shares.try_acquire(disk.user, ResourceRequest::Thread);
        for _ in 0..10_000 {
            let waiting = disk.shares.acquire(disk.user, ResourceRequest::Thread);
            assert!(waiting.now_or_never().is_none());
        }
        let kept = disk.shares.kept_waiters(disk.user);
        assert!(kept <= 4, "{kept} that are gone are kept");
        drop(running);
        assert_eq!(disks.load().running, 0);
        assert!(disks.shares.is_idle());
    }

    #[test]
    fn work_of_the_server_runs_while_all_threads_for_users_are_blocked() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .build()
            .expect("a runtime");
        let disks = disks(4, 1, 64);
        let (end, stuck) = std::sync::mpsc::channel::<()>();
        let stuck = Arc::new(std::sync::Mutex::new(stuck));
        runtime.block_on(async {
            let mut tasks = Vec::new();
            for number in 0..100 {
                let (disk, stuck) = (disk(&disks, number % 10), Arc::clone(&stuck));
                tasks.push(tokio::spawn(async move {
                    disk.run(move || {
                        let _ = stuck.lock().map(|stuck| stuck.recv());
                        Ok(())
                    })
                    .await
                }));
            }
            while disks.load().waiting < 96 {
                tokio::task::yield_now().await;
            }
            assert_eq!(disks.load().running, 4);
            assert!(disks.run_for_server(|| Ok(())).await.is_ok());
            drop(end);
            for task in tasks {
                assert!(task.await.expect("no panic").is_ok());
            }
        });
    }

    #[tokio::test]
    async fn cancelled_work_of_the_server_keeps_its_permit_until_it_ends() {
        let disks = disks(4, 1, 64);
        let (end, stuck) = std::sync::mpsc::channel::<()>();
        let stuck = Arc::new(std::sync::Mutex::new(stuck));
        for _ in 0..MAX_SERVER_WORK {
            let stuck = Arc::clone(&stuck);
            let work = move || {
                let _ = stuck.lock().map(|stuck| stuck.recv());
                Ok(())
            };
            let given_up = disks.run_for_server(work).now_or_never();
            assert!(given_up.is_none());
        }
        let mut next = Box::pin(disks.run_for_server(|| Ok(())));
        assert!(next.as_mut().now_or_never().is_none());
        assert_eq!(disks.server.available_permits(), 0);
        drop(end);
        next.await.expect("a grant");
    }

    #[test]
    fn a_user_at_their_limit_of_open_files_leaves_some_for_others() {
        let disks = disks(8, 1, 400);
        let greedy = disk(&disks, 0);
        let files = take_all(&greedy, ResourceRequest::File);
        assert_eq!(files.len(), 25, "a quarter of a hundred");
        assert!(matches!(
            greedy.try_acquire_file(),
            Err(CommandError::TooManyFiles)
        ));
        assert!(disk(&disks, 1).try_acquire_file().is_ok());
        let batch = greedy
            .shares
            .try_acquire(greedy.user, ResourceRequest::Batch(200));
        assert!(batch.is_some(), "short work does not wait for open files");
    }
}
