//! Counts: what a space holds, found out by one walk at a time and by threads of their own.
//!
//! Nobody holds a lock while a space is counted, and nobody who works on the disk for a client
//! waits for it: such a caller is told what to wait for and comes again. The walk that has come
//! least far goes on first, so that a small space does not wait for a large one.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use rustix::io::Errno;
use tokio::sync::watch;

use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::space::{Names, Space};
use crate::storage::local::tally::Tallied;
use crate::storage::path::VirtualPath;

/// Threads that count.
const MAX_THREADS: usize = 2;

/// Entries that a walk comes to before another may go on.
const SLICE: u64 = 20_000;

/// How often a count begins anew if somebody moves directories about on the server's own machine.
const MAX_TRIES: usize = 3;

/// How a count ended: nothing while it has not.
type Outcome = Option<Result<(), Failure>>;

/// Why a count failed.
#[derive(Debug, Clone)]
struct Failure(Arc<io::Error>);

/// The counts under way, in all spaces.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    in_background: AtomicBool,
    queue: Mutex<Queue>,
    /// A count has ended.
    ended: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Job>,
    threads: usize,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Queue");
        debug
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

/// The count of one space.
struct Job {
    space: Weak<Space>,
    tallied: Tallied,
    walked: u64,
    tries: usize,
    outcome: watch::Sender<Outcome>,
}

/// The end of a count, to be waited for.
#[derive(Debug, Clone)]
pub struct CountEnd(watch::Receiver<Outcome>);

impl CountEnd {
    /// Waits for it. What needed the count can be tried again then.
    ///
    /// # Errors
    /// What the system said, if the space could not be counted.
    ///
    /// # Cancel safety
    /// Nothing is lost if this is dropped.
    pub async fn wait(mut self, path: &VirtualPath) -> Result<(), StorageError> {
        // If nobody is there to tell, the space is gone or its count was given up.
        let ended = self.0.wait_for(Option::is_some).await;
        let outcome = ended.map_or(None, |outcome| outcome.clone());
        outcome.map_or(Ok(()), |outcome| outcome.map_err(|why| why.at(path)))
    }

    /// The end of a count that goes on as long as the first value lives.
    #[cfg(test)]
    pub(crate) fn pending() -> (impl Sized, Self) {
        let (outcome, end) = watch::channel(None);
        (outcome, Self(end))
    }

    /// Nobody counts any more, and nobody has said how it ended.
    pub(crate) fn is_given_up(&self) -> bool {
        self.0.has_changed().is_err() && self.0.borrow().is_none()
    }

    fn outcome(&self, path: &VirtualPath) -> Option<Result<(), StorageError>> {
        if self.is_given_up() {
            return Some(Ok(()));
        }
        let outcome = self.0.borrow().clone();
        outcome.map(|outcome| outcome.map_err(|why| why.at(path)))
    }
}

impl Failure {
    fn at(&self, path: &VirtualPath) -> StorageError {
        let same = match self.0.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(self.0.kind(), self.0.to_string()),
        };
        StorageError::from_io(same, "count", path)
    }
}

impl Counts {
    /// From now on threads of their own count, and who needs a count is sent away until it ends.
    pub(crate) fn set_in_background(&self) {
        self.in_background.store(true, Ordering::Relaxed);
    }

    fn is_in_background(&self) -> bool {
        self.in_background.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(self: &Arc<Self>, job: Job) {
        let mut queue = self.lock();
        queue.waiting.push(job);
        if !self.is_in_background() || queue.threads == MAX_THREADS {
            return;
        }
        let counts = Arc::clone(self);
        let thread = thread::Builder::new().name("count".into());
        match thread.spawn(move || counts.work()) {
            Ok(_) => queue.threads += 1,
            // As long as there is another it comes to the job, too.
            Err(_) if queue.threads > 0 => {}
            Err(error) => {
                let job = queue.waiting.pop();
                drop(queue);
                if let Some(job) = job {
                    self.end(&job, Err(error));
                }
            }
        }
    }

    fn work(&self) {
        loop {
            let mut queue = self.lock();
            let Some(job) = queue.next() else {
                queue.threads -= 1;
                return;
            };
            drop(queue);
            self.go_on(job);
        }
    }

    /// Goes on with a count for a while.
    fn go_on(&self, mut job: Job) {
        let Some(space) = job.space.upgrade() else {
            return;
        };
        let mut budget = SLICE;
        let went_on = job.tallied.go_on(&space, &mut budget);
        job.walked += SLICE - budget;
        let result = match went_on {
            Ok(true) => space.take_count(&job.tallied),
            Ok(false) => Ok(false),
            Err(error) => Err(error),
        };
        match result {
            Ok(true) => self.end(&job, Ok(())),
            Ok(false) => self.lock().waiting.push(job),
            Err(error) if is_stale(&error) && job.tries < MAX_TRIES => {
                job.tallied.end(&space);
                match Tallied::whole(&space.lock_names()) {
                    Ok(tallied) => {
                        job.tallied = tallied;
                        job.tries += 1;
                        self.lock().waiting.push(job);
                    }
                    Err(error) => self.end(&job, Err(error)),
                }
            }
            Err(error) => self.end(&job, Err(error)),
        }
    }

    fn end(&self, job: &Job, result: io::Result<()>) {
        if let Some(space) = job.space.upgrade() {
            job.tallied.end(&space);
            space.set_counting(None);
        }
        let result = result.map_err(|error| Failure(Arc::new(error)));
        job.outcome.send_replace(Some(result));
        drop(self.lock());
        self.ended.notify_all();
    }

    /// Counts, or waits for those who do, until that count has ended.
    fn help(&self, end: &CountEnd, path: &VirtualPath) -> Result<(), StorageError> {
        loop {
            let mut queue = self.lock();
            if let Some(outcome) = end.outcome(path) {
                return outcome;
            }
            if let Some(job) = queue.next() {
                drop(queue);
                self.go_on(job);
            } else {
                let waited = self.ended.wait(queue);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
            }
        }
    }
}

impl Queue {
    /// The one that has come least far.
    fn next(&mut self) -> Option<Job> {
        let jobs = self.waiting.iter().enumerate();
        let (index, _) = jobs.min_by_key(|(_, job)| job.walked)?;
        Some(self.waiting.swap_remove(index))
    }
}

fn is_stale(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::STALE)
}

impl Space {
    /// Makes sure that the space is counted. Not for a caller that has locked its names.
    ///
    /// # Errors
    /// [`StorageError::Counting`] where others count, else what the system says.
    pub(crate) fn require_count(self: &Arc<Self>, path: &VirtualPath) -> Result<(), StorageError> {
        let end = self.begin_count().at("count", path)?;
        end.map_or(Ok(()), |end| self.wait(end, path))
    }

    /// Waits for the end of a count, unless others count.
    pub(crate) fn wait(&self, end: CountEnd, path: &VirtualPath) -> Result<(), StorageError> {
        let counts = &self.staging.counts;
        if !counts.is_in_background() {
            return counts.help(&end, path);
        }
        match end.outcome(path) {
            Some(outcome) => outcome,
            None => Err(StorageError::Counting {
                path: path.clone(),
                end,
            }),
        }
    }

    /// What is to be waited for until the space is counted; nothing if it is.
    fn begin_count(self: &Arc<Self>) -> io::Result<Option<CountEnd>> {
        if self.ledger().is_counted() {
            return Ok(None);
        }
        let names = self.lock_names();
        if self.ledger().is_counted() {
            return Ok(None);
        }
        self.begin_count_locked(&names).map(Some)
    }

    /// What is to be waited for until the space is counted, which it is not, once its names are no
    /// longer locked.
    pub(crate) fn begin_count_locked(self: &Arc<Self>, names: &Names<'_>) -> io::Result<CountEnd> {
        if let Some(end) = self.counting() {
            return Ok(end);
        }
        let tallied = Tallied::whole(names)?;
        let (outcome, end) = watch::channel(None);
        let end = CountEnd(end);
        self.set_counting(Some(end.clone()));
        self.staging.counts.add(Job {
            space: Arc::downgrade(self),
            tallied,
            walked: 0,
            tries: 1,
            outcome,
        });
        Ok(end)
    }

    /// Takes over what a walk has found; `false` if there is more to walk.
    fn take_count(&self, tallied: &Tallied) -> io::Result<bool> {
        let names = self.lock_names();
        let Some((count, _)) = tallied.found(&names)? else {
            return Ok(false);
        };
        self.ledger().set_counted(count);
        // From here on changes are the ledger's.
        tallied.end(self);
        Ok(true)
    }
}
