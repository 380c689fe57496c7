//! The queue of counts: walks over whole spaces, a slice at a time.
//!
//! A server counts in at most [`MAX_THREADS`] threads, which start with the first job and end with
//! the last. The job that has walked the fewest entries goes first, so that a small space does not
//! wait for a large one. Without [`CountQueue::set_in_background`], for example in a tool, the
//! caller that needs a count runs the jobs. The queue knows nothing about spaces; see
//! [`count`](crate::storage::local::count).

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::storage::count_end::CountEnd;

/// Threads that count at the same time.
const MAX_THREADS: usize = 2;

/// A count that runs in slices.
pub(crate) trait CountJob: Send {
    /// Entries walked so far.
    fn walked_entries(&self) -> u64;

    /// Runs one slice; `true` once the count has ended, with or without an error.
    fn run_slice(&mut self) -> bool;

    /// Ends the count with `error`.
    fn fail(&mut self, error: io::Error);
}

/// The counts under way, in all spaces.
#[derive(Debug, Default)]
pub(crate) struct CountQueue {
    in_background: AtomicBool,
    jobs: Mutex<CountJobs>,
    /// Notified when a count ends.
    ended: Condvar,
}

#[derive(Default)]
struct CountJobs {
    waiting: Vec<Box<dyn CountJob>>,
    threads: usize,
}

impl fmt::Debug for CountJobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CountJobs")
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

impl CountQueue {
    /// Runs counts in threads from now on: a caller that needs one gets an error instead of
    /// waiting.
    pub(crate) fn set_in_background(&self) {
        self.in_background.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_in_background(&self) -> bool {
        self.in_background.load(Ordering::Relaxed)
    }

    /// Adds a job, and starts a thread for it if fewer than [`MAX_THREADS`] run.
    pub(crate) fn add(self: &Arc<Self>, job: Box<dyn CountJob>) {
        let mut jobs = self.lock();
        jobs.waiting.push(job);
        if !self.is_in_background() || jobs.threads == MAX_THREADS {
            return;
        }
        let queue = Arc::clone(self);
        let thread = thread::Builder::new().name("count".into());
        match thread.spawn(move || queue.run_all()) {
            Ok(_) => jobs.threads += 1,
            // A thread that runs already gets to this job as well.
            Err(_) if jobs.threads > 0 => {}
            Err(error) => {
                let job = jobs.waiting.pop();
                drop(jobs);
                if let Some(mut job) = job {
                    job.fail(error);
                    self.notify_ended();
                }
            }
        }
    }

    /// Runs jobs in the caller's thread, or waits for other callers that do, until the count of
    /// `end` has ended.
    pub(crate) fn run_until(&self, end: &CountEnd) -> io::Result<()> {
        loop {
            let mut jobs = self.lock();
            if let Some(outcome) = end.outcome() {
                return outcome;
            }
            if let Some(job) = jobs.next() {
                drop(jobs);
                self.run_slice(job);
            } else {
                let waited = self.ended.wait(jobs);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    fn run_all(&self) {
        loop {
            let mut jobs = self.lock();
            let Some(job) = jobs.next() else {
                jobs.threads -= 1;
                return;
            };
            drop(jobs);
            self.run_slice(job);
        }
    }

    fn run_slice(&self, mut job: Box<dyn CountJob>) {
        if job.run_slice() {
            self.notify_ended();
        } else {
            self.lock().waiting.push(job);
        }
    }

    fn notify_ended(&self) {
        // A caller that has just found the count under way is waiting once the lock is free.
        drop(self.lock());
        self.ended.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, CountJobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CountJobs {
    /// The job that has walked the fewest entries.
    fn next(&mut self) -> Option<Box<dyn CountJob>> {
        let jobs = self.waiting.iter().enumerate();
        let (index, _) = jobs.min_by_key(|(_, job)| job.walked_entries())?;
        Some(self.waiting.swap_remove(index))
    }
}
