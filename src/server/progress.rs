//! How far a get or put is, and what all of them move.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use jiff::Timestamp;

use crate::protocol::TransferEntry;

/// Stands for a size that nobody knows yet.
const UNKNOWN: u64 = u64::MAX;

/// Bytes of files that a server has moved since its start, finished or not, and what moves them.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// From clients.
    pub(super) received: AtomicU64,
    /// To clients.
    pub(super) sent: AtomicU64,
    /// Gets that are not answered yet.
    pub(super) gets: AtomicUsize,
    /// Puts that are not answered yet.
    pub(super) puts: AtomicUsize,
}

impl Traffic {
    /// Those of this kind that are not answered yet, where they are counted.
    fn running(&self, direction: Direction) -> Option<&AtomicUsize> {
        match direction {
            Direction::Get => Some(&self.gets),
            Direction::Put => Some(&self.puts),
            Direction::Logs => None,
        }
    }
}

/// Which way a transfer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Get,
    Put,
    /// Lines of the log, to the client.
    Logs,
}

/// What a transfer is about.
#[derive(Debug)]
pub(super) struct What {
    pub(super) direction: Direction,
    /// Absolute.
    pub(super) path: String,
    /// Bytes of the whole file, if they were declared.
    pub(super) size: Option<u64>,
    pub(super) traffic: Arc<Traffic>,
}

/// A get or put that is not answered yet, as far as others can see it.
#[derive(Debug)]
pub(super) struct Progress {
    direction: Direction,
    path: Box<str>,
    since: Timestamp,
    size: AtomicU64,
    /// Where in the file it began.
    start: AtomicU64,
    moved: AtomicU64,
    /// Nothing is to be kept of it.
    unwanted: AtomicBool,
    traffic: Arc<Traffic>,
}

impl Progress {
    pub(super) fn of(what: What) -> Self {
        if let Some(running) = what.traffic.running(what.direction) {
            running.fetch_add(1, Ordering::Relaxed);
        }
        Self {
            direction: what.direction,
            path: what.path.into(),
            since: Timestamp::now(),
            size: AtomicU64::new(what.size.unwrap_or(UNKNOWN)),
            start: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            unwanted: AtomicBool::new(false),
            traffic: what.traffic,
        }
    }

    /// Its file turned out to have `size` bytes, of which those before `start` need not be moved.
    pub(super) fn begins(&self, size: Option<u64>, start: u64) {
        self.size.store(size.unwrap_or(UNKNOWN), Ordering::Relaxed);
        self.start.store(start, Ordering::Relaxed);
    }

    /// So many bytes more were moved.
    pub(super) fn moves(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
        let all = match self.direction {
            Direction::Get => &self.traffic.sent,
            Direction::Put => &self.traffic.received,
            Direction::Logs => return,
        };
        all.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes that nothing is to be kept of it.
    pub(super) fn reject(&self) {
        self.unwanted.store(true, Ordering::Relaxed);
    }

    /// Whether nothing is to be kept of it.
    pub(super) fn is_unwanted(&self) -> bool {
        self.unwanted.load(Ordering::Relaxed)
    }

    /// How far it is now.
    pub(super) fn entry(&self, id: u32) -> TransferEntry {
        let size = self.size.load(Ordering::Relaxed);
        let moved = self.moved.load(Ordering::Relaxed);
        TransferEntry {
            id,
            cmd: match self.direction {
                Direction::Get => "get",
                Direction::Put => "put",
                Direction::Logs => "logs",
            }
            .into(),
            path: self.path.to_string(),
            size: (size != UNKNOWN).then_some(size),
            offset: self.start.load(Ordering::Relaxed).saturating_add(moved),
            moved,
            since: self.since,
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(running) = self.traffic.running(self.direction) {
            running.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
impl What {
    /// A get of no file, for tests of what is not about files.
    pub(super) fn of_nothing() -> Self {
        Self {
            direction: Direction::Get,
            path: "/".into(),
            size: None,
            traffic: Arc::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_before_counts_for_the_offset_and_not_for_the_traffic() {
        let what = What::of_nothing();
        let traffic = Arc::clone(&what.traffic);
        let progress = Progress::of(what);
        assert_eq!(progress.entry(7).size, None);
        progress.begins(Some(100), 30);
        progress.moves(20);
        progress.moves(5);
        let entry = progress.entry(7);
        assert_eq!((entry.size, entry.offset, entry.moved), (Some(100), 55, 25));
        assert_eq!(traffic.sent.load(Ordering::Relaxed), 25);
        assert_eq!(traffic.received.load(Ordering::Relaxed), 0);
        let gets = || traffic.gets.load(Ordering::Relaxed);
        assert_eq!(gets(), 1);
        drop(progress);
        assert_eq!(gets(), 0);
    }
}
