//! The progress of a job: counters of files and bytes, and the reason for which it waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

/// The counters of one job. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    bytes: AtomicU64,
    sent_bytes: AtomicU64,
    saved_bytes: AtomicU64,
    files: AtomicU64,
    total_bytes: AtomicU64,
    total_files: AtomicU64,
    complete: AtomicBool,
    waiting: watch::Sender<Option<Waiting>>,
    /// The files that are under way by themselves, in the order in which they began.
    current: Mutex<Vec<Arc<str>>>,
}

/// The reason for which a job waits, and the end of the wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The error.
    pub why: String,
    /// The connection is lost; otherwise a request must be repeated later.
    pub connection_lost: bool,
    /// The number of the next attempt, from 1.
    pub attempt: u32,
    /// The largest number of attempts.
    pub attempts: u32,
    /// The start of the next attempt.
    pub until: Instant,
}

impl Progress {
    /// The progress of a job that has not begun.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of the found files that the receiving side has, moved by this job or there before.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Bytes that this job has moved over its connections, those that it had to move again included. It never
    /// decreases.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.0.sent_bytes.load(Ordering::Relaxed)
    }

    /// The name of the file that began last of those that are under way by themselves; small files that are
    /// moved together have none.
    #[must_use]
    pub fn current_file(&self) -> Option<Arc<str>> {
        self.0.current.lock().last().cloned()
    }

    /// Those of [`bytes`](Self::bytes) that the receiving side had already, in an older version of a
    /// finished file.
    #[must_use]
    pub fn saved_bytes(&self) -> u64 {
        self.0.saved_bytes.load(Ordering::Relaxed)
    }

    /// Files finished so far.
    #[must_use]
    pub fn files(&self) -> u64 {
        self.0.files.load(Ordering::Relaxed)
    }

    /// Bytes of all files that were found so far.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.0.total_bytes.load(Ordering::Relaxed)
    }

    /// All files that were found so far.
    #[must_use]
    pub fn total_files(&self) -> u64 {
        self.0.total_files.load(Ordering::Relaxed)
    }

    /// Whether all files were found.
    #[must_use]
    pub fn totals_are_final(&self) -> bool {
        self.0.complete.load(Ordering::Relaxed)
    }

    /// The current reason for which the job waits, and later ones.
    #[must_use]
    pub fn waiting(&self) -> watch::Receiver<Option<Waiting>> {
        self.0.waiting.subscribe()
    }

    /// Publishes the reason of a wait, until the returned value is dropped.
    pub(crate) fn wait(&self, waiting: Waiting) -> StopWaiting<'_> {
        self.0.waiting.send_replace(Some(waiting.clone()));
        StopWaiting(self, waiting)
    }

    /// Counts the bytes of one file that was found with `expected` bytes.
    pub(crate) fn file(&self, expected: u64) -> FileProgress {
        FileProgress {
            progress: self.clone(),
            at: 0,
            expected,
            name: None,
        }
    }

    /// Counts bytes that were transferred.
    pub(crate) fn moved(&self, bytes: u64) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.0.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes of a finished file that the receiving side had already.
    pub(crate) fn saved(&self, bytes: u64) {
        self.0.saved_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn finished_file(&self) {
        self.0.files.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a file that the receiving side has already.
    pub(crate) fn skipped_file(&self, bytes: u64) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.finished_file();
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
        // Another part of the job may have begun to wait.
        self.0.0.waiting.send_if_modified(|current| {
            let is_mine = current.as_ref() == Some(&self.1);
            if is_mine {
                *current = None;
            }
            is_mine
        });
    }
}

/// The progress of one file. It may have to go back; no byte is counted twice.
#[derive(Debug)]
pub(crate) struct FileProgress {
    progress: Progress,
    at: u64,
    expected: u64,
    name: Option<Arc<str>>,
}

impl FileProgress {
    /// Shows `name` while this is the file that began last.
    pub(crate) fn named(mut self, name: &str) -> Self {
        let name: Arc<str> = name.into();
        self.progress.0.current.lock().push(Arc::clone(&name));
        self.name = Some(name);
        self
    }

    /// The next bytes were transferred.
    pub(crate) fn moved(&mut self, bytes: usize) {
        let sent = &self.progress.0.sent_bytes;
        sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.go_to(self.at + bytes as u64);
    }

    /// Sets the number of bytes that the receiving side has.
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

impl Drop for FileProgress {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let mut current = self.progress.0.current.lock();
            current.retain(|other| !Arc::ptr_eq(other, name));
        }
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
        assert_eq!(
            progress.sent_bytes(),
            70,
            "what went back was sent, the rest was there"
        );
    }

    #[test]
    fn the_file_that_began_last_is_named_until_it_ends() {
        let progress = Progress::new();
        let first = progress.file(0).named("first");
        let second = progress.file(0).named("second");
        assert_eq!(progress.current_file().as_deref(), Some("second"));
        drop(second);
        assert_eq!(progress.current_file().as_deref(), Some("first"));
        drop(first);
        assert_eq!(progress.current_file(), None);
    }

    #[test]
    fn the_reason_of_a_wait_is_visible_until_the_wait_ends() {
        let progress = Progress::new();
        let mut reason = progress.waiting();
        assert!(reason.borrow().is_none());
        let waiting = Waiting {
            why: "the server closed the connection".into(),
            connection_lost: true,
            attempt: 1,
            attempts: 10,
            until: Instant::now(),
        };
        let first = progress.wait(waiting.clone());
        assert_eq!(*reason.borrow_and_update(), Some(waiting.clone()));
        let longer = Waiting {
            attempt: 2,
            ..waiting
        };
        let other = progress.wait(longer.clone());
        drop(first);
        assert_eq!(*reason.borrow_and_update(), Some(longer));
        drop(other);
        assert!(reason.has_changed().expect("alive") && reason.borrow().is_none());
    }
}
