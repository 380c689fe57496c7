//! The threads that users' work on the disk runs on, and nothing else. They are made when there is
//! work and end when there was none for a while.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// A thread without work ends after this time.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct DiskThreads(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    most: usize,
    state: Mutex<State>,
    /// There is work.
    news: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("jobs", &self.jobs.len())
            .field("threads", &self.threads)
            .field("idle", &self.idle)
            .finish()
    }
}

impl DiskThreads {
    /// So many at most.
    pub(crate) fn new(most: usize) -> Self {
        Self(Arc::new(Pool {
            most,
            state: Mutex::default(),
            news: Condvar::new(),
        }))
    }

    /// Has a thread do `job`, the next one that is free. One that panics harms no other.
    ///
    /// # Errors
    /// If there is no thread, and none can be made.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut state = self.0.lock();
        state.jobs.push_back(Box::new(job));
        if state.jobs.len() <= state.idle {
            self.0.news.notify_one();
            return Ok(());
        }
        if state.threads >= self.0.most {
            return Ok(());
        }
        let pool = Arc::clone(&self.0);
        let made = thread::Builder::new()
            .name("disk".into())
            .spawn(move || pool.work());
        match made {
            Ok(_) => state.threads += 1,
            Err(error) if state.threads == 0 => {
                state.jobs.pop_back();
                return Err(error);
            }
            // Another thread comes to it.
            Err(_) => {}
        }
        Ok(())
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until there was nothing to do for a while.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                // Who waits for it notices.
                let _ = catch_unwind(AssertUnwindSafe(job));
                state = self.lock();
                continue;
            }
            state.idle += 1;
            let waited = self.news.wait_timeout(state, KEEP_ALIVE);
            let waited = waited.unwrap_or_else(PoisonError::into_inner);
            state = waited.0;
            state.idle -= 1;
            if waited.1.timed_out() && state.jobs.is_empty() {
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
    fn work_runs_on_no_more_threads_than_there_may_be_and_a_panic_ends_none() {
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
    fn work_that_waits_for_other_work_finds_a_thread_beside_it() {
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
