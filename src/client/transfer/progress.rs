//! How far a job is: counters that the job adds to and that anyone may look at, and what it waits
//! for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::watch;
use tokio::time::Instant;

/// The counters of one job. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    bytes: AtomicU64,
    files: AtomicU64,
    total_bytes: AtomicU64,
    total_files: AtomicU64,
    complete: AtomicBool,
    waiting: watch::Sender<Option<Waiting>>,
}

/// Why a job stands still, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The error, in a few words.
    pub why: String,
    /// The connection is gone; otherwise the server wants something to be asked again later.
    pub connection_lost: bool,
    /// The number of the attempt that comes, from 1.
    pub attempt: u32,
    /// How many there are to be at most.
    pub attempts: u32,
    /// When it comes. It may take a while itself.
    pub until: Instant,
}

impl Progress {
    /// Nothing done, and nothing known to be done.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes moved so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Files finished so far.
    #[must_use]
    pub fn files(&self) -> u64 {
        self.0.files.load(Ordering::Relaxed)
    }

    /// Bytes of all files that are known so far.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.0.total_bytes.load(Ordering::Relaxed)
    }

    /// All files that are known so far.
    #[must_use]
    pub fn total_files(&self) -> u64 {
        self.0.total_files.load(Ordering::Relaxed)
    }

    /// Whether the totals will not grow any more.
    #[must_use]
    pub fn totals_are_final(&self) -> bool {
        self.0.complete.load(Ordering::Relaxed)
    }

    /// The reason for which the job waits now, and later ones.
    #[must_use]
    pub fn waiting(&self) -> watch::Receiver<Option<Waiting>> {
        self.0.waiting.subscribe()
    }

    /// Says what the job waits for, until what is returned is dropped.
    pub(crate) fn wait(&self, waiting: Waiting) -> StopWaiting<'_> {
        self.0.waiting.send_replace(Some(waiting.clone()));
        StopWaiting(self, waiting)
    }

    /// Counts the bytes of one file, of which `expected` were counted as found.
    pub(crate) fn file(&self, expected: u64) -> FileProgress {
        FileProgress {
            progress: self.clone(),
            at: 0,
            expected,
        }
    }

    /// Counts bytes that were moved.
    pub(crate) fn moved(&self, bytes: u64) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn finished_file(&self) {
        self.0.files.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn found_file(&self, bytes: u64) {
        self.0.total_files.fetch_add(1, Ordering::Relaxed);
        self.0.total_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn found_all(&self) {
        self.0.complete.store(true, Ordering::Relaxed);
    }
}

/// A wait of a job, see [`Progress::wait`].
pub(crate) struct StopWaiting<'a>(&'a Progress, Waiting);

impl Drop for StopWaiting<'_> {
    fn drop(&mut self) {
        // Another part of the job may wait by now.
        self.0.0.waiting.send_if_modified(|said| {
            let is_mine = said.as_ref() == Some(&self.1);
            if is_mine {
                *said = None;
            }
            is_mine
        });
    }
}

/// How far one file is. It may have to go back, and no byte is counted twice.
#[derive(Debug)]
pub(crate) struct FileProgress {
    progress: Progress,
    at: u64,
    expected: u64,
}

impl FileProgress {
    /// The next bytes were moved.
    pub(crate) fn moved(&mut self, bytes: usize) {
        self.go_to(self.at + bytes as u64);
    }

    /// So many bytes of the file are where they belong.
    pub(crate) fn go_to(&mut self, at: u64) {
        change(&self.progress.0.bytes, self.at, at);
        self.at = at;
    }

    /// The file has another size than it was found with.
    pub(crate) fn expect(&mut self, size: u64) {
        change(&self.progress.0.total_bytes, self.expected, size);
        self.expected = size;
    }
}

/// Replaces one summand of `sum`.
fn change(sum: &AtomicU64, from: u64, to: u64) {
    if to >= from {
        sum.fetch_add(to - from, Ordering::Relaxed);
    } else {
        sum.fetch_sub(from - to, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_goes_back_is_counted_once_beside_the_others() {
        let progress = Progress::new();
        let (mut one, mut other) = (progress.file(0), progress.file(100));
        progress.found_file(0);
        progress.found_file(100);
        one.expect(50);
        assert_eq!(progress.total_bytes(), 150);
        one.moved(40);
        other.moved(10);
        one.go_to(30);
        assert_eq!(progress.bytes(), 40);
        one.moved(20);
        other.go_to(100);
        assert_eq!(progress.bytes(), 150);
    }

    #[test]
    fn who_looks_sees_what_a_job_waits_for_until_it_goes_on() {
        let progress = Progress::new();
        let mut looking = progress.waiting();
        assert!(looking.borrow().is_none());
        let waiting = Waiting {
            why: "gone".into(),
            connection_lost: true,
            attempt: 1,
            attempts: 10,
            until: Instant::now(),
        };
        let said = progress.wait(waiting.clone());
        assert_eq!(*looking.borrow_and_update(), Some(waiting.clone()));
        let longer = Waiting {
            attempt: 2,
            ..waiting
        };
        let other = progress.wait(longer.clone());
        drop(said);
        assert_eq!(*looking.borrow_and_update(), Some(longer));
        drop(other);
        assert!(looking.has_changed().expect("alive") && looking.borrow().is_none());
    }
}
