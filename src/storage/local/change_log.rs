//! The change log: publishes changes of names in the order in which they were made.
//!
//! An operation that changes a name registers the change while it holds the lock on the names, then
//! waits for the disk. The change is published once it survives a power cut and every change before
//! it is published or has failed. An observer therefore never learns of a file that a power cut may
//! undo, and never learns last of the change that was made first.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::storage::changes::FileChange;

/// Changes that may wait for one whose disk does not answer. Beyond that they are published before
/// it.
const MAX_WAITING_CHANGES: usize = 10_000;

/// The observer of changes, and the changes that are not published yet.
#[derive(Debug, Default)]
pub(crate) struct ChangeLog {
    observer: OnceLock<ChangeObserver>,
    queue: Mutex<ChangeLogQueue>,
}

struct ChangeObserver(Box<dyn Fn(FileChange) + Send + Sync>);

impl fmt::Debug for ChangeObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeObserver").finish_non_exhaustive()
    }
}

/// Changes in the order in which they were made.
#[derive(Debug, Default)]
struct ChangeLogQueue {
    /// The number of the first entry.
    first_number: u64,
    entries: VecDeque<ChangeLogEntry>,
}

#[derive(Debug)]
enum ChangeLogEntry {
    /// The disk has not answered yet.
    Pending,
    /// The changes are on the disk; none if they failed.
    Complete(Vec<FileChange>),
}

impl ChangeLogQueue {
    /// Removes the first entry, if it is complete or too many wait for it.
    fn pop_ready(&mut self) -> Option<ChangeLogEntry> {
        let is_pending = matches!(self.entries.front()?, ChangeLogEntry::Pending);
        if is_pending && self.entries.len() <= MAX_WAITING_CHANGES {
            return None;
        }
        self.first_number += 1;
        self.entries.pop_front()
    }
}

impl ChangeLog {
    /// Publishes changes to `observer` from now on. A log has one observer; `false` for a second.
    pub(crate) fn observe(&self, observer: Box<dyn Fn(FileChange) + Send + Sync>) -> bool {
        self.observer.set(ChangeObserver(observer)).is_ok()
    }

    /// Registers changes that were made just now. The caller holds the lock on the names. Without
    /// an observer, `changes` is not called.
    pub(crate) fn register(
        self: &Arc<Self>,
        changes: impl FnOnce() -> Vec<FileChange>,
    ) -> PendingChange {
        if self.observer.get().is_none() {
            return PendingChange(None);
        }
        let changes = changes();
        if changes.is_empty() {
            return PendingChange(None);
        }
        let mut queue = self.lock_queue();
        queue.entries.push_back(ChangeLogEntry::Pending);
        let number = queue.first_number + queue.entries.len() as u64 - 1;
        drop(queue);
        PendingChange(Some(Box::new(RegisteredChange {
            log: Arc::clone(self),
            number,
            changes,
        })))
    }

    /// Completes an entry, and publishes all that waited for it alone.
    fn complete(&self, number: u64, changes: Vec<FileChange>) {
        let mut queue = self.lock_queue();
        let index = number.checked_sub(queue.first_number);
        let index = index.and_then(|index| usize::try_from(index).ok());
        match index.and_then(|index| queue.entries.get_mut(index)) {
            Some(entry) => *entry = ChangeLogEntry::Complete(changes),
            None => self.publish(changes),
        }
        while let Some(entry) = queue.pop_ready() {
            if let ChangeLogEntry::Complete(changes) = entry {
                self.publish(changes);
            }
        }
    }

    fn publish(&self, changes: Vec<FileChange>) {
        if let Some(observer) = self.observer.get() {
            changes.into_iter().for_each(&observer.0);
        }
    }

    fn lock_queue(&self) -> MutexGuard<'_, ChangeLogQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A change that may not survive a power cut yet. It is never published if this is dropped.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct PendingChange(Option<Box<RegisteredChange>>);

#[derive(Debug)]
struct RegisteredChange {
    log: Arc<ChangeLog>,
    number: u64,
    changes: Vec<FileChange>,
}

impl PendingChange {
    /// Publishes the change, now that it survives a power cut.
    pub(crate) fn publish(mut self) {
        if let Some(registered) = self.0.take() {
            let RegisteredChange {
                log,
                number,
                changes,
            } = *registered;
            log.complete(number, changes);
        }
    }
}

impl Drop for PendingChange {
    fn drop(&mut self) {
        if let Some(registered) = self.0.take() {
            registered.log.complete(registered.number, Vec::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ChangeKind;
    use crate::storage::path::VirtualPath;

    fn numbered(number: usize) -> Vec<FileChange> {
        vec![FileChange {
            space: "homes/alice".into(),
            path: VirtualPath::parse(&format!("/{number}")).expect("a path"),
            kind: ChangeKind::Made,
            from: None,
            by: "alice".into(),
        }]
    }

    #[test]
    fn a_change_that_never_completes_delays_a_bounded_number_of_others() {
        let published = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::new(ChangeLog::default());
        let sink = published.clone();
        log.observe(Box::new(move |change| {
            sink.lock().expect("no panic").push(change.path.to_string());
        }));
        let stuck = log.register(|| numbered(0));
        for number in 1..MAX_WAITING_CHANGES {
            log.register(|| numbered(number)).publish();
        }
        assert!(published.lock().expect("no panic").is_empty());
        log.register(|| numbered(MAX_WAITING_CHANGES)).publish();
        stuck.publish();
        let published = published.lock().expect("no panic");
        assert_eq!(published.len(), MAX_WAITING_CHANGES + 1);
        let ends = (&*published[0], published.last());
        assert_eq!(ends, ("/1", Some(&"/0".to_owned())));
        assert!(log.lock_queue().entries.is_empty());
    }
}
