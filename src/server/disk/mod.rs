//! The one way from the async threads to the disk.
//!
//! ```text
//! a user's work     ─►  Shares: thread, digest and descriptors at once  ─►  limits.disk_threads
//! the server's own  ─►  a few at a time                                 ─►  SERVER_THREADS
//! ```
//!
//! Users' work has threads of its own, and work of the server itself (logins, readiness, housekeeping)
//! those of the runtime, so it never waits behind that.

pub(crate) mod shares;
pub(crate) mod threads;

use std::ops::Deref;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::spawn_blocking;

use crate::connection::{BlockingPool, ReadProgress};
pub(crate) use crate::server::disk::shares::ResourceGrant;
use crate::server::disk::shares::{ResourceAmounts, ResourceRequest, Shares};
use crate::server::disk::threads::DiskThreads;
use crate::server::error::CommandError;
use crate::server::limits::descriptors::DescriptorBudget;
use crate::storage::{MAX_BATCH_DESCRIPTORS, StorageError, StoredFile};

/// Threads of the runtime that may block, on which no user's work runs: for logins, readiness,
/// housekeeping and certificates.
pub const SERVER_THREADS: usize = 16;

/// Pieces of the server's own work for sessions at once. The rest of its threads is for what asks for
/// one or two by itself: the probes of the operators' address, housekeeping, the databases, certificates
/// and settings.
const SERVER_WORK: usize = 4;

/// Descriptors that an open file or upload takes at most: its own, and that of its record.
const PER_FILE: usize = 2;

/// The threads that may wait for the disk and the descriptors for files, divided among the users.
#[derive(Debug)]
pub(crate) struct DiskScheduler {
    shares: Arc<Shares>,
    threads: DiskThreads,
    /// Turns of the server's own work.
    server: Arc<Semaphore>,
}

/// What the disk threads do at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DiskLoad {
    /// Threads that users' work may run on.
    pub(crate) threads: usize,
    /// Those that it runs on.
    pub(crate) running: usize,
    /// Pieces of work that wait.
    pub(crate) waiting: usize,
    /// Digests that could be computed at once in addition.
    pub(crate) digests_free: usize,
    /// Descriptors for files that are granted, and that there are.
    pub(crate) descriptors: (usize, usize),
}

impl DiskScheduler {
    /// For so many threads for users' work, so many digests at once, and the descriptors of `budget`.
    pub(crate) fn new(threads: usize, digests: usize, budget: DescriptorBudget) -> Self {
        let total = ResourceAmounts {
            threads,
            digests,
            descriptors: (budget.files / 2).max(1),
            files: (budget.files / 2 / PER_FILE).max(1),
        };
        Self {
            shares: Arc::new(Shares::new(total)),
            threads: DiskThreads::new(threads),
            server: Arc::new(Semaphore::new(SERVER_WORK)),
        }
    }

    pub(crate) fn load(&self) -> DiskLoad {
        let (total, free) = (self.shares.total(), self.shares.free());
        let of = |amounts: ResourceAmounts| amounts.descriptors + amounts.files * PER_FILE;
        DiskLoad {
            threads: total.threads,
            running: total.threads - free.threads,
            waiting: self.shares.waiting(),
            digests_free: free.digests,
            descriptors: (of(total) - of(free), of(total)),
        }
    }

    /// The part of the user of this number, the same for all of their sessions.
    pub(crate) fn for_user(&self, user: i64) -> UserDisk {
        UserDisk {
            shares: Arc::clone(&self.shares),
            threads: self.threads.clone(),
            user,
        }
    }

    /// Runs work of the server itself, which never waits behind that of users: what a login or a
    /// refresh of rights has to look at. Nothing in it may take long or wait for a user's work.
    pub(crate) async fn run_for_server<T, F>(&self, work: F) -> Result<T, CommandError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, StorageError> + Send + 'static,
    {
        let turn = Arc::clone(&self.server).acquire_owned().await;
        let turn = turn.map_err(|_| CommandError::ShuttingDown)?;
        // The turn ends with the work, not with who waits for it: that may be given up before.
        let work = move || {
            let result = work();
            drop(turn);
            result
        };
        match spawn_blocking(work).await {
            Ok(result) => result.map_err(CommandError::Storage),
            Err(error) if error.is_cancelled() => Err(CommandError::ShuttingDown),
            Err(_) => Err(CommandError::Panicked),
        }
    }
}

/// One user's way to the disk. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct UserDisk {
    shares: Arc<Shares>,
    threads: DiskThreads,
    /// The number of the account.
    user: i64,
}

impl UserDisk {
    /// Runs `work` on a thread that may block.
    ///
    /// If the future is dropped, work that has begun still runs to its end; what it returns is then
    /// dropped on its own thread.
    pub(crate) async fn run<T, F>(&self, work: F) -> Result<T, CommandError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, StorageError> + Send + 'static,
    {
        self.run_with(ResourceRequest::Thread, work).await
    }

    /// Waits for a thread to compute one of the digests on that are computed at once, for
    /// [`Self::run_in`].
    pub(crate) async fn digest(&self) -> Result<ResourceGrant, CommandError> {
        self.turn(ResourceRequest::Digest).await
    }

    /// As [`Self::run`], for so many files that come to the disk together.
    pub(crate) async fn run_batch<T, F>(&self, files: usize, work: F) -> Result<T, CommandError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, StorageError> + Send + 'static,
    {
        // Each has two directories and itself, but for what the batch bounds by itself.
        let needed = (files * 3 + 4).min(MAX_BATCH_DESCRIPTORS);
        let needed = needed.min(self.shares.total().descriptors);
        self.run_with(ResourceRequest::Batch(needed), work).await
    }

    /// Waits until one more file of the user may be open for long.
    pub(crate) async fn file(&self) -> Result<ResourceGrant, CommandError> {
        self.turn(ResourceRequest::File).await
    }

    /// As [`Self::file`], for a caller that cannot wait.
    ///
    /// # Errors
    /// [`CommandError::TooManyFiles`] if the user has as many open as they may have now.
    pub(crate) fn try_file(&self) -> Result<ResourceGrant, CommandError> {
        let turn = self.shares.try_acquire(self.user, ResourceRequest::File);
        turn.ok_or(CommandError::TooManyFiles)
    }

    async fn run_with<T, F>(&self, need: ResourceRequest, work: F) -> Result<T, CommandError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, StorageError> + Send + 'static,
    {
        self.run_in(self.turn(need).await?, work).await
    }

    /// As [`Self::run`], on the thread that was granted.
    pub(crate) async fn run_in<T, F>(&self, turn: ResourceGrant, work: F) -> Result<T, CommandError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, StorageError> + Send + 'static,
    {
        let (sender, result) = oneshot::channel();
        let runtime = Handle::current();
        let work = move || {
            let _entered = runtime.enter();
            let result = work();
            drop(turn);
            // What nobody waits for any more is dropped here.
            let _ = sender.send(result);
        };
        self.threads.run(work).map_err(|_| CommandError::Panicked)?;
        let result = result.await.map_err(|_| CommandError::Panicked)?;
        result.map_err(CommandError::Storage)
    }

    async fn turn(&self, need: ResourceRequest) -> Result<ResourceGrant, CommandError> {
        let turn = self.shares.acquire(self.user, need).await;
        turn.ok_or(CommandError::ShuttingDown)
    }
}

impl BlockingPool for UserDisk {
    fn run(
        &self,
        work: Box<dyn FnOnce() -> ReadProgress + Send>,
    ) -> BoxFuture<'static, Option<ReadProgress>> {
        let disk = self.clone();
        Box::pin(async move { disk.run(move || Ok(work())).await.ok() })
    }
}

/// An open file, whose end may block: it is closed as work of its user.
#[derive(Debug)]
pub(crate) struct Opened {
    file: Arc<StoredFile>,
    disk: UserDisk,
    /// Its descriptors, until it is closed.
    descriptors: Option<ResourceGrant>,
}

impl Opened {
    /// `descriptors` are those that it was opened with.
    pub(crate) fn new(file: StoredFile, disk: UserDisk, descriptors: ResourceGrant) -> Self {
        Self {
            file: Arc::new(file),
            disk,
            descriptors: Some(descriptors),
        }
    }

    /// A handle for work on the disk.
    pub(crate) fn share(&self) -> Arc<StoredFile> {
        Arc::clone(&self.file)
    }
}

impl Deref for Opened {
    type Target = StoredFile;

    fn deref(&self) -> &StoredFile {
        &self.file
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let last = (self.share(), self.descriptors.take());
        if let Ok(runtime) = Handle::try_current() {
            let disk = self.disk.clone();
            let close = move || {
                drop(last);
                Ok(())
            };
            runtime.spawn(async move { disk.run(close).await });
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

    /// As many turns as the user gets without waiting.
    fn take_all(disk: &UserDisk, need: ResourceRequest) -> Vec<ResourceGrant> {
        std::iter::from_fn(|| disk.shares.try_acquire(disk.user, need)).collect()
    }

    #[test]
    fn one_user_holds_a_quarter_of_the_threads_and_many_users_leave_some_for_the_next() {
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
    async fn a_hash_proceeds_while_all_turns_of_another_user_are_taken_and_their_hashes_wait() {
        let disks = disks(8, 1, 64);
        let (busy, other) = (disk(&disks, 0), disk(&disks, 1));
        let taken = take_all(&busy, ResourceRequest::Thread);
        let mut waiting = Box::pin(busy.shares.acquire(busy.user, ResourceRequest::Digest));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(disks.load().digests_free, 1, "who waits holds nothing");
        assert!(
            other
                .run_in(other.digest().await.expect("a turn"), || Ok(()))
                .await
                .is_ok()
        );
        drop(taken);
        assert!(waiting.await.is_some());
    }

    #[tokio::test]
    async fn users_are_served_in_turns_however_much_one_of_them_asks_for() {
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
    async fn who_gives_up_while_waiting_leaves_nothing_behind() {
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
    fn work_of_the_server_runs_while_every_thread_for_users_is_stuck() {
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
    async fn work_of_the_server_that_nobody_waits_for_any_more_keeps_its_turn_until_it_ends() {
        let disks = disks(4, 1, 64);
        let (end, stuck) = std::sync::mpsc::channel::<()>();
        let stuck = Arc::new(std::sync::Mutex::new(stuck));
        for _ in 0..SERVER_WORK {
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
        next.await.expect("a turn");
    }

    #[test]
    fn a_user_with_as_many_open_files_as_they_may_have_leaves_some_for_others() {
        let disks = disks(8, 1, 400);
        let greedy = disk(&disks, 0);
        let files = take_all(&greedy, ResourceRequest::File);
        assert_eq!(files.len(), 25, "a quarter of a hundred");
        assert!(matches!(greedy.try_file(), Err(CommandError::TooManyFiles)));
        assert!(disk(&disks, 1).try_file().is_ok());
        let batch = greedy
            .shares
            .try_acquire(greedy.user, ResourceRequest::Batch(200));
        assert!(
            batch.is_some(),
            "what ends by itself waits for no open file"
        );
    }
}
