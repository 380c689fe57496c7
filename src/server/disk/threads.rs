//! A thread pool for blocking work of users. Threads start on demand and end after an idle time, all but one:
//! work with an open upload must find a thread even if the system can start none, since the bytes of an
//! upload are lost if work with it is refused.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

/// A thread without a job ends after this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

type DiskJob = Box<dyn FnOnce() + Send>;

/// A handle of the pool. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct DiskThreads(Arc<DiskThreadPool>);

#[derive(Debug)]
struct DiskThreadPool {
    max_threads: usize,
    state: Mutex<DiskThreadPoolState>,
    /// A job was queued.
    work_available: Condvar,
}

#[derive(Default)]
struct DiskThreadPoolState {
    jobs: VecDeque<DiskJob>,
    threads: usize,
    idle: usize,
}

impl std::fmt::Debug for DiskThreadPoolState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ThreadsState")
            .field("jobs", &self.jobs.len())
            .field("threads", &self.threads)
            .field("idle", &self.idle)
            .finish()
    }
}

impl DiskThreads {
    /// A pool of at most `max_threads` threads.
    pub(crate) fn new(max_threads: usize) -> Self {
        Self(Arc::new(DiskThreadPool {
            max_threads,
            state: Mutex::default(),
            work_available: Condvar::new(),
        }))
    }

    /// Runs `job` on the next free thread. A job that panics does not affect others.
    ///
    /// # Errors
    /// If the pool has no thread and cannot start one.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut state = self.0.lock();
        state.jobs.push_back(Box::new(job));
        if state.jobs.len() <= state.idle {
            self.0.work_available.notify_one();
            return Ok(());
        }
        if state.threads >= self.0.max_threads {
            return Ok(());
        }
        let pool = Arc::clone(&self.0);
        let started = thread::Builder::new()
            .name("disk".into())
            .spawn(move || pool.run_worker());
        match started {
            Ok(_) => state.threads += 1,
            Err(error) if state.threads == 0 => {
                state.jobs.pop_back();
                return Err(error);
            }
            // One of the running threads takes the job.
            Err(_) => {}
        }
        Ok(())
    }
}

impl DiskThreadPool {
    fn lock(&self) -> MutexGuard<'_, DiskThreadPoolState> {
        self.state.lock()
    }

    /// Runs jobs until the pool was idle for [`IDLE_TIMEOUT`]. The last thread stays while the pool is in use.
    fn run_worker(self: &Arc<Self>) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                // The caller notices that the result never arrives.
                let _ = catch_unwind(AssertUnwindSafe(job));
                state = self.lock();
                continue;
            }
            state.idle += 1;
            let waited = self.work_available.wait_for(&mut state, IDLE_TIMEOUT);
            state.idle -= 1;
            let is_last_needed = state.threads == 1 && Arc::strong_count(self) > 1;
            if waited.timed_out() && state.jobs.is_empty() && !is_last_needed {
                state.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn the_number_of_threads_is_bounded_and_a_panic_ends_none() {
        let threads = DiskThreads::new(2);
        let (done, all) = mpsc::channel();
        for number in 0..20 {
            let done = done.clone();
            let job = move || {
                let sent = done.send(thread::current().id());
                assert!(number % 2 == 0 && sent.is_ok(), "a defect");
            };
            threads.run(job).expect("a thread");
        }
        drop(done);
        let ids: std::collections::HashSet<_> = all.iter().collect();
        assert!((1..=2).contains(&ids.len()), "{ids:?}");
        assert!(threads.0.lock().threads <= 2);
    }

    #[test]
    fn a_job_that_waits_for_another_one_does_not_block_it() {
        let threads = DiskThreads::new(2);
        let (send, receive) = mpsc::channel();
        let (done, all) = mpsc::channel();
        let first = move || {
            let got: u32 = receive.recv().expect("the other runs");
            done.send(got).expect("the test waits");
        };
        threads.run(first).expect("a thread");
        threads
            .run(move || send.send(7).expect("the first waits"))
            .expect("a thread");
        assert_eq!(all.recv(), Ok(7));
    }
}
