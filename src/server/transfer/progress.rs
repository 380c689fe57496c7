//! The progress of transfers, and the counters of the bytes that all of them have moved.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::protocol::TransferEntry;

/// Stands for a size that is not known yet.
const UNKNOWN: u64 = u64::MAX;

/// Bytes of files that a server has moved since its start, and the transfers that run. Bytes of
/// unfinished transfers count.
#[derive(Debug, Default)]
pub(crate) struct TrafficCounters {
    /// From clients.
    pub(crate) received: AtomicU64,
    /// To clients.
    pub(crate) sent: AtomicU64,
    /// Gets that are not answered yet, and `chunks`.
    pub(crate) gets: AtomicUsize,
    /// Puts that are not answered yet.
    pub(crate) puts: AtomicUsize,
    /// Listings of trees that are not answered yet.
    pub(crate) listings: AtomicUsize,
    /// Requests that send the log.
    pub(crate) logs: AtomicUsize,
}

impl TrafficCounters {
    fn running(&self, kind: TransferKind) -> &AtomicUsize {
        match kind {
            TransferKind::Get | TransferKind::Chunks => &self.gets,
            TransferKind::Put => &self.puts,
            TransferKind::Listing => &self.listings,
            TransferKind::Logs => &self.logs,
        }
    }
}

/// The kind of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TransferKind {
    Get,
    Put,
    /// Entries of a tree, to the client.
    Listing,
    /// Records of content chunks, to the client.
    Chunks,
    /// Lines of the log, to the client.
    Logs,
}

/// The description of a transfer.
#[derive(Debug)]
pub(crate) struct TransferSubject {
    pub(crate) kind: TransferKind,
    /// Absolute.
    pub(crate) path: String,
    /// Bytes of the whole file, if they were declared.
    pub(crate) size: Option<u64>,
    pub(crate) traffic: Arc<TrafficCounters>,
}

/// The progress of a transfer that is not answered yet.
#[derive(Debug)]
pub(crate) struct TransferProgress {
    kind: TransferKind,
    path: Box<str>,
    since: Timestamp,
    size: AtomicU64,
    /// The offset in the file at which it began.
    start: AtomicU64,
    moved: AtomicU64,
    /// Whether nothing is to be kept of it.
    discarded_on_stop: AtomicBool,
    rate: Mutex<TransferRate>,
    traffic: Arc<TrafficCounters>,
}

impl TransferProgress {
    pub(crate) fn new(subject: TransferSubject) -> Self {
        let running = subject.traffic.running(subject.kind);
        running.fetch_add(1, Ordering::Relaxed);
        Self {
            kind: subject.kind,
            path: subject.path.into(),
            since: Timestamp::now(),
            size: AtomicU64::new(subject.size.unwrap_or(UNKNOWN)),
            start: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            discarded_on_stop: AtomicBool::new(false),
            rate: Mutex::new(TransferRate::new(Instant::now())),
            traffic: subject.traffic,
        }
    }

    /// Sets the size of the file, and the offset before which nothing is moved.
    pub(crate) fn set_start(&self, size: Option<u64>, start: u64) {
        self.size.store(size.unwrap_or(UNKNOWN), Ordering::Relaxed);
        self.start.store(start, Ordering::Relaxed);
    }

    /// Adds moved bytes.
    pub(crate) fn add_moved(&self, bytes: u64) {
        let before = self.moved.fetch_add(bytes, Ordering::Relaxed);
        self.rate().moves(before + bytes, Instant::now());
        let all = match self.kind {
            TransferKind::Get | TransferKind::Chunks => &self.traffic.sent,
            TransferKind::Put => &self.traffic.received,
            TransferKind::Listing | TransferKind::Logs => return,
        };
        all.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Passes over bytes of the file that did not cross the network.
    pub(crate) fn skips(&self, bytes: u64) {
        self.start.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes that nothing is to be kept of it.
    pub(crate) fn discard_on_stop(&self) {
        self.discarded_on_stop.store(true, Ordering::Relaxed);
    }

    /// Whether nothing is to be kept of it.
    pub(crate) fn is_discarded_on_stop(&self) -> bool {
        self.discarded_on_stop.load(Ordering::Relaxed)
    }

    /// Whether it shows the log, and no file.
    pub(crate) fn is_log_request(&self) -> bool {
        self.kind == TransferKind::Logs
    }

    fn rate(&self) -> MutexGuard<'_, TransferRate> {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its progress now.
    pub(crate) fn entry(&self, id: u32) -> TransferEntry {
        let size = self.size.load(Ordering::Relaxed);
        let moved = self.moved.load(Ordering::Relaxed);
        TransferEntry {
            id,
            cmd: match self.kind {
                TransferKind::Get => "get",
                TransferKind::Put => "put",
                TransferKind::Listing => "ls",
                TransferKind::Chunks => "chunks",
                TransferKind::Logs => "logs",
            }
            .into(),
            path: self.path.to_string(),
            size: (size != UNKNOWN).then_some(size),
            offset: self.start.load(Ordering::Relaxed).saturating_add(moved),
            moved,
            rate: self.rate().rate(moved, Instant::now()),
            since: self.since,
        }
    }
}

/// A rate covers between one and two of these windows.
const WINDOW: Duration = Duration::from_secs(2);

/// Two points of time with the bytes that were moved by then, from which a rate is computed.
#[derive(Debug)]
struct TransferRate {
    /// The point that the rate is measured from.
    from: (Instant, u64),
    /// The next such point, once it is a window old.
    then: (Instant, u64),
}

impl TransferRate {
    fn new(now: Instant) -> Self {
        Self {
            from: (now, 0),
            then: (now, 0),
        }
    }

    fn moves(&mut self, moved: u64, now: Instant) {
        if now - self.then.0 >= WINDOW {
            self.from = self.then;
            self.then = (now, moved);
        }
    }

    /// Bytes per second in the last windows, if `moved` is the total. The rate of a stalled transfer
    /// decreases with time.
    fn rate(&self, moved: u64, now: Instant) -> u64 {
        let (since, before) = self.from;
        let ms = (now - since).as_millis().max(1);
        let rate = u128::from(moved.saturating_sub(before)) * 1000 / ms;
        u64::try_from(rate).unwrap_or(u64::MAX)
    }
}

impl Drop for TransferProgress {
    fn drop(&mut self) {
        let running = self.traffic.running(self.kind);
        running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
impl TransferSubject {
    /// A get of no file, for tests of what is not about files.
    pub(crate) fn of_nothing() -> Self {
        Self {
            kind: TransferKind::Get,
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
    fn a_rate_is_that_of_the_last_seconds() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut transfer_rate = TransferRate::new(start);
        let mut moved = 0;
        for ms in (100..=10_000).step_by(100) {
            moved += if ms <= 5000 { 1000 } else { 100 };
            transfer_rate.moves(moved, at(ms));
            if ms == 5000 {
                assert_eq!(transfer_rate.rate(moved, at(ms)), 10_000);
            }
        }
        assert_eq!(transfer_rate.rate(moved, at(10_000)), 1000);
        assert!(transfer_rate.rate(moved, at(100_000)) < 100, "it stalls");
    }

    #[test]
    fn what_was_there_before_counts_for_the_offset_and_not_for_the_traffic() {
        let subject = TransferSubject::of_nothing();
        let traffic = Arc::clone(&subject.traffic);
        let progress = TransferProgress::new(subject);
        assert_eq!(progress.entry(7).size, None);
        progress.set_start(Some(100), 30);
        progress.add_moved(20);
        progress.add_moved(5);
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
