//! Files that several sessions write concurrently, and the contents that they may have.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::model::TreeNode;

/// A write of a shared file; no node is a removal.
#[derive(Debug, Clone)]
struct Write {
    node: Option<TreeNode>,
    begun: u64,
    /// The time of its acknowledgement, if there was one.
    ended: Option<u64>,
}

#[derive(Debug, Default)]
struct RegisterHistory {
    clock: u64,
    writes: HashMap<String, Vec<Write>>,
}

impl RegisterHistory {
    fn now(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

/// The writes to the files that all sessions share, with their times.
#[derive(Debug, Default)]
pub(crate) struct Registers(Mutex<RegisterHistory>);

/// A write or a read that has begun.
#[derive(Debug)]
pub(crate) struct StartedOperation {
    path: String,
    at: u64,
}

impl Registers {
    fn lock(&self) -> std::sync::MutexGuard<'_, RegisterHistory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resets the history to the present contents, while no session writes.
    pub(crate) fn reset(&self, present: impl IntoIterator<Item = (String, TreeNode)>) {
        let mut history = self.lock();
        *history = RegisterHistory::default();
        for (path, node) in present {
            let write = Write {
                node: Some(node),
                begun: 0,
                ended: Some(0),
            };
            history.writes.insert(path, vec![write]);
        }
    }

    pub(crate) fn begin_write(&self, path: &str, node: Option<TreeNode>) -> StartedOperation {
        let mut history = self.lock();
        let at = history.now();
        let absent = Write {
            node: None,
            begun: 0,
            ended: Some(0),
        };
        let writes = history.writes.entry(path.to_owned());
        writes.or_insert_with(|| vec![absent]).push(Write {
            node,
            begun: at,
            ended: None,
        });
        StartedOperation {
            path: path.to_owned(),
            at,
        }
    }

    /// Records that a write was acknowledged, or else that it has changed nothing.
    pub(crate) fn end_write(&self, begun: &StartedOperation, acknowledged: bool) {
        let mut history = self.lock();
        let now = history.now();
        let writes = history.writes.get_mut(&begun.path).expect("begun");
        if acknowledged {
            let own = writes.iter_mut().find(|write| write.begun == begun.at);
            own.expect("begun").ended = Some(now);
        } else {
            writes.retain(|write| write.begun != begun.at);
        }
    }

    pub(crate) fn begin_read(&self, path: &str) -> StartedOperation {
        StartedOperation {
            path: path.to_owned(),
            at: self.lock().now(),
        }
    }

    /// Panics if no write explains the value that was read.
    pub(crate) fn end_read(&self, begun: &StartedOperation, found: Option<&TreeNode>) {
        let history = self.lock();
        let none = Vec::new();
        let writes = history.writes.get(&begun.path).unwrap_or(&none);
        let replaced_before = |ended: u64| {
            let mut later = writes.iter().filter(|write| write.begun > ended);
            later.any(|write| write.ended.is_some_and(|ended| ended < begun.at))
        };
        let mut possible = writes.iter().filter(|write| {
            let replaced = write.ended.is_some_and(replaced_before);
            !replaced
        });
        let is_possible = match found {
            None if writes.is_empty() => true,
            found => possible.any(|write| write.node.as_ref() == found),
        };
        assert!(
            is_possible,
            "{} holds {found:?} after {writes:#?}",
            begun.path
        );
    }

    /// Checks like [`Self::end_read`], after all operations have ended.
    pub(crate) fn check(&self, path: &str, found: Option<&TreeNode>) {
        self.end_read(&self.begin_read(path), found);
    }

    /// All paths that were ever written.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.lock().writes.keys().cloned().collect()
    }
}
