//! The one way from the async threads to the disk.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::CommandError;
use crate::connection::{MayBlock, Step};
use crate::storage::{StorageError, StoredFile};

/// One user holds at most one in so many of the disk threads, in all of their sessions: whatever
/// their files wait for, others find a thread.
const SHARE: usize = 4;

/// The threads that may wait for the disk, divided among the users.
#[derive(Debug)]
pub(super) struct Disks {
    threads: usize,
    users: Mutex<HashMap<i64, Weak<Semaphore>>>,
    load: Arc<Load>,
}

/// How much work there is for the disk.
#[derive(Debug, Default)]
struct Load {
    waiting: AtomicUsize,
    running: AtomicUsize,
}

/// One piece of work, counted as waiting or running until it is dropped.
#[derive(Debug)]
struct Piece {
    load: Arc<Load>,
    runs: bool,
}

impl Piece {
    fn waits(load: &Arc<Load>) -> Self {
        load.waiting.fetch_add(1, Ordering::Relaxed);
        Self {
            load: Arc::clone(load),
            runs: false,
        }
    }

    fn run(&mut self) {
        self.runs = true;
        self.load.waiting.fetch_sub(1, Ordering::Relaxed);
        self.load.running.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let Load { waiting, running } = &*self.load;
        let counted = if self.runs { running } else { waiting };
        counted.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Disks {
    /// For a runtime with so many blocking threads.
    pub(super) fn new(threads: usize) -> Self {
        Self {
            threads,
            users: Mutex::default(),
            load: Arc::default(),
        }
    }

    /// The threads that there are, the pieces of work that run on them, and those that wait.
    pub(super) fn load(&self) -> (usize, usize, usize) {
        let Load { waiting, running } = &*self.load;
        let load = |number: &AtomicUsize| number.load(Ordering::Relaxed);
        (self.threads, load(running), load(waiting))
    }

    /// The part of the user of this number, the same for all of their sessions.
    pub(super) fn of(&self, user: i64) -> Disk {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.retain(|_, turns| turns.strong_count() > 0);
        let known = users.get(&user).and_then(Weak::upgrade);
        let turns = known.unwrap_or_else(|| {
            let turns = Arc::new(Semaphore::new((self.threads / SHARE).max(1)));
            users.insert(user, Arc::downgrade(&turns));
            turns
        });
        Disk {
            turns,
            load: Arc::clone(&self.load),
        }
    }
}

/// One user's way to the disk. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    turns: Arc<Semaphore>,
    load: Arc<Load>,
}

impl Disk {
    /// Runs `work` on a thread that may block.
    ///
    /// If the future is dropped, work that has begun still runs to its end; what it returns is then
    /// dropped on its own thread.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, CommandError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, StorageError> + Send + 'static,
    {
        let mut piece = Piece::waits(&self.load);
        let turn = self.turns.clone().acquire_owned().await;
        let work = spawn_blocking(move || {
            piece.run();
            let result = work();
            drop((turn, piece));
            result
        });
        match work.await {
            Ok(result) => result.map_err(CommandError::Storage),
            Err(error) if error.is_cancelled() => Err(CommandError::ShuttingDown),
            Err(_) => Err(CommandError::Panicked),
        }
    }
}

impl MayBlock for Disk {
    fn run(&self, work: Box<dyn FnOnce() -> Step + Send>) -> BoxFuture<'static, Option<Step>> {
        let disk = self.clone();
        Box::pin(async move { disk.run(move || Ok(work())).await.ok() })
    }
}

/// An open file, whose end may block: it is dropped where that is allowed.
#[derive(Debug)]
pub(super) struct Opened(Arc<StoredFile>);

impl Opened {
    pub(super) fn new(file: StoredFile) -> Self {
        Self(Arc::new(file))
    }

    /// A handle for work on the disk.
    pub(super) fn share(&self) -> Arc<StoredFile> {
        Arc::clone(&self.0)
    }
}

impl Deref for Opened {
    type Target = StoredFile;

    fn deref(&self) -> &StoredFile {
        &self.0
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let file = self.share();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn_blocking(move || drop(file));
        }
    }
}
