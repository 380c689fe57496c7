//! The most recent file changes.

use std::collections::VecDeque;

use crate::storage::FileChange;

/// The most recent changes, bounded in number and memory.
#[derive(Debug)]
pub(crate) struct RecentChanges {
    changes: VecDeque<(u64, FileChange)>,
    bytes: usize,
    max_changes: usize,
    max_bytes: usize,
    /// Changes up to this `seq` are not remembered.
    forgotten: u64,
}

impl RecentChanges {
    pub(crate) fn new(most: usize, most_bytes: usize, seq: u64) -> Self {
        Self {
            changes: VecDeque::new(),
            bytes: 0,
            max_changes: most,
            max_bytes: most_bytes,
            forgotten: seq,
        }
    }

    pub(crate) fn push(&mut self, seq: u64, change: FileChange) {
        self.bytes += memory_bytes(&change);
        self.changes.push_back((seq, change));
        while self.changes.len() > self.max_changes || self.bytes > self.max_bytes {
            let Some((seq, oldest)) = self.changes.pop_front() else {
                return;
            };
            self.bytes -= memory_bytes(&oldest);
            self.forgotten = seq;
        }
    }

    /// Forgets everything, because changes up to `seq` were lost.
    pub(crate) fn clear_up_to(&mut self, seq: u64) {
        self.changes = VecDeque::new();
        self.bytes = 0;
        self.forgotten = seq;
    }

    pub(crate) fn forgotten_up_to(&self) -> u64 {
        self.forgotten
    }

    /// The remembered changes after `seq`, in order.
    pub(crate) fn after(&self, seq: u64) -> impl Iterator<Item = &(u64, FileChange)> {
        let first = self.changes.partition_point(|(known, _)| *known <= seq);
        self.changes.range(first..)
    }
}

/// The memory that a change needs. The names of spaces are shared.
fn memory_bytes(change: &FileChange) -> usize {
    let from = change
        .from
        .as_ref()
        .map_or(0, |(_, path)| path.as_str().len());
    size_of::<(u64, FileChange)>() + change.path.as_str().len() + from + change.by.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ChangeKind;
    use crate::storage::VirtualPath;

    fn change(path: &str) -> FileChange {
        FileChange {
            space: "homes/alice".into(),
            path: VirtualPath::parse(path).expect("a path"),
            kind: ChangeKind::Written,
            from: None,
            by: "alice".into(),
        }
    }

    fn known(ring: &RecentChanges, after: u64) -> Vec<u64> {
        ring.after(after).map(|(seq, _)| *seq).collect()
    }

    #[test]
    fn the_most_recent_changes_are_remembered_with_the_seq_of_the_forgotten_ones() {
        let mut ring = RecentChanges::new(3, usize::MAX, 10);
        assert_eq!((known(&ring, 0), ring.forgotten_up_to()), (vec![], 10));
        for seq in [11, 13, 17, 19] {
            ring.push(seq, change("/a"));
        }
        assert_eq!(
            (known(&ring, 0), ring.forgotten_up_to()),
            (vec![13, 17, 19], 11)
        );
        assert_eq!(known(&ring, 14), [17, 19]);
        assert_eq!(known(&ring, 17), [19]);
        assert!(known(&ring, 19).is_empty());
        ring.clear_up_to(23);
        assert_eq!((known(&ring, 0), ring.forgotten_up_to()), (vec![], 23));
    }

    #[test]
    fn long_paths_reduce_the_number_of_remembered_changes() {
        let long = change(&format!("/{}", vec!["x".repeat(100); 5].join("/")));
        let mut ring = RecentChanges::new(100, 4 * memory_bytes(&long), 0);
        for seq in 1..=10 {
            ring.push(seq, long.clone());
        }
        assert_eq!(
            (known(&ring, 0), ring.forgotten_up_to()),
            (vec![7, 8, 9, 10], 6)
        );
        ring.push(
            11,
            change(&format!("/{}", vec!["x".repeat(100); 38].join("/"))),
        );
        assert_eq!((known(&ring, 0), ring.forgotten_up_to()), (vec![], 11));
        assert_eq!(ring.bytes, 0);
    }
}
