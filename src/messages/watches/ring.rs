//! The changes that happened last.

use std::collections::VecDeque;

use crate::messages::watches::WatchedChange;

/// A bounded number of changes, the last ones.
#[derive(Debug)]
pub(super) struct Ring {
    changes: VecDeque<(u64, WatchedChange)>,
    bytes: usize,
    most: usize,
    most_bytes: usize,
    /// What happened up to this `seq` is not here.
    forgotten: u64,
}

impl Ring {
    pub(super) fn new(most: usize, most_bytes: usize, seq: u64) -> Self {
        Self {
            changes: VecDeque::new(),
            bytes: 0,
            most,
            most_bytes,
            forgotten: seq,
        }
    }

    pub(super) fn push(&mut self, seq: u64, change: WatchedChange) {
        self.bytes += cost(&change);
        self.changes.push_back((seq, change));
        while self.changes.len() > self.most || self.bytes > self.most_bytes {
            let Some((seq, oldest)) = self.changes.pop_front() else {
                return;
            };
            self.bytes -= cost(&oldest);
            self.forgotten = seq;
        }
    }

    /// What happened up to `seq` is not known.
    pub(super) fn forget(&mut self, seq: u64) {
        self.changes = VecDeque::new();
        self.bytes = 0;
        self.forgotten = seq;
    }

    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// What is known to have happened after `seq`.
    pub(super) fn after(&self, seq: u64) -> impl Iterator<Item = &(u64, WatchedChange)> {
        let first = self.changes.partition_point(|(known, _)| *known <= seq);
        self.changes.range(first..)
    }
}

/// Bytes that a change takes up. The names of spaces are shared.
fn cost(change: &WatchedChange) -> usize {
    let from = change.from.as_ref().map_or(0, |(_, path)| path.len());
    size_of::<(u64, WatchedChange)>() + change.path.len() + from + change.by.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ChangeKind;

    fn change(path: &str) -> WatchedChange {
        WatchedChange {
            space: "homes/alice".into(),
            path: path.to_owned(),
            kind: ChangeKind::Written,
            from: None,
            by: "alice".into(),
        }
    }

    fn known(ring: &Ring, after: u64) -> Vec<u64> {
        ring.after(after).map(|(seq, _)| *seq).collect()
    }

    #[test]
    fn the_last_changes_are_known_and_what_is_not_is_known_too() {
        let mut ring = Ring::new(3, usize::MAX, 10);
        assert_eq!((known(&ring, 0), ring.forgotten()), (vec![], 10));
        for seq in [11, 13, 17, 19] {
            ring.push(seq, change("/a"));
        }
        assert_eq!((known(&ring, 0), ring.forgotten()), (vec![13, 17, 19], 11));
        assert_eq!(known(&ring, 14), [17, 19]);
        assert_eq!(known(&ring, 17), [19]);
        assert!(known(&ring, 19).is_empty());
        ring.forget(23);
        assert_eq!((known(&ring, 0), ring.forgotten()), (vec![], 23));
    }

    #[test]
    fn long_paths_make_it_remember_fewer() {
        let long = change(&format!("/{}", "x".repeat(1000)));
        let mut ring = Ring::new(100, 4 * cost(&long), 0);
        for seq in 1..=10 {
            ring.push(seq, long.clone());
        }
        assert_eq!((known(&ring, 0), ring.forgotten()), (vec![7, 8, 9, 10], 6));
        ring.push(11, change(&format!("/{}", "x".repeat(10_000))));
        assert_eq!((known(&ring, 0), ring.forgotten()), (vec![], 11));
        assert_eq!(ring.bytes, 0);
    }
}
