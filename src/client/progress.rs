//! How far a job is: counters that the job adds to and that anyone may look at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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

    pub(super) fn moved(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn finished_file(&self) {
        self.0.files.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn found_file(&self, bytes: u64) {
        self.0.total_files.fetch_add(1, Ordering::Relaxed);
        self.0.total_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn found_all(&self) {
        self.0.complete.store(true, Ordering::Relaxed);
    }
}
