//! The actions that wait for a later stage, in compact form.
//!
//! A sync with many deletions or new files holds one record for each, and nothing else of the trees.

use std::collections::BTreeMap;

use crate::client::sync::action::{PlannedAction, SyncAction, SyncStage};
use crate::client::sync::entry::{SyncEntry, is_within};
use crate::client::sync::renames::SurplusFile;
use crate::client::sync::rules::TransferReason;

/// New files that wait until all surplus files are known, and surplus files that are kept only to be
/// copied. The others are not looked at: to send a file is always right.
const MAX_RENAME_FILES: usize = 200_000;

/// What the plan defers.
#[derive(Debug, Default)]
pub(crate) struct DeferredActions {
    /// New files that may be renamed ones.
    pub(crate) new_files: Vec<SyncEntry>,
    /// Files that only the destination has.
    pub(crate) surplus: Vec<SurplusFile>,
    /// Directories to be deleted, the deepest first.
    surplus_directories: BTreeMap<std::cmp::Reverse<usize>, Vec<Box<str>>>,
    /// Entries that replace one of another kind.
    pub(crate) replacements: Vec<SyncAction>,
    /// The metadata of directories, a directory after those that it contains.
    pub(crate) directories: Vec<SyncAction>,
    /// The surplus files are to be deleted.
    deletes: bool,
    /// New files may be renamed ones.
    detects_renames: bool,
}

impl DeferredActions {
    /// With `deletes`, surplus files are deleted; with `detects_renames`, new files wait for them.
    pub(crate) fn new(deletes: bool, detects_renames: bool) -> Self {
        Self {
            deletes,
            detects_renames,
            ..Self::default()
        }
    }

    /// Returns the action if it is to run now, and keeps it otherwise.
    pub(crate) fn defer(&mut self, planned: PlannedAction) -> Option<SyncAction> {
        let PlannedAction { stage, action } = planned;
        match (stage, action) {
            (SyncStage::Deletion, SyncAction::Delete(entry)) => {
                if entry.is_dir() {
                    let depth = entry.path.split('/').count();
                    let directories = self.surplus_directories.entry(std::cmp::Reverse(depth));
                    directories.or_default().push(entry.path.into());
                } else {
                    self.surplus.push(SurplusFile::from(&entry));
                }
                None
            }
            (SyncStage::Replacement, action) => {
                self.replacements.push(action);
                None
            }
            (SyncStage::DirectoryMetadata, action) => {
                self.directories.push(action);
                None
            }
            (_, SyncAction::Keep(entry)) => {
                if self.detects_renames && self.surplus.len() < MAX_RENAME_FILES {
                    self.surplus.push(SurplusFile::from(&entry));
                }
                None
            }
            (
                _,
                SyncAction::Transfer {
                    entry,
                    replaces: None,
                    reason: TransferReason::New,
                },
            ) if self.detects_renames
                && entry.size > 0
                && self.new_files.len() < MAX_RENAME_FILES =>
            {
                self.new_files.push(entry);
                None
            }
            (_, action) => Some(action),
        }
    }

    /// Leaves out the deletions below `path`, a directory that stays.
    pub(crate) fn forget_deletions(&mut self, path: &str) {
        self.surplus.retain(|file| !is_within(&file.path, path));
        for directories in self.surplus_directories.values_mut() {
            directories.retain(|directory| !is_within(directory, path));
        }
        self.surplus_directories
            .retain(|_, directories| !directories.is_empty());
    }

    /// Leaves out the metadata of directories at and below `path`.
    pub(crate) fn forget_directories(&mut self, path: &str) {
        self.directories
            .retain(|action| !is_within(action.path(), path));
    }

    /// How many entries are to be deleted.
    pub(crate) fn deletions(&self) -> u64 {
        if !self.deletes {
            return 0;
        }
        let directories: usize = self.surplus_directories.values().map(Vec::len).sum();
        (self.surplus.len() + directories) as u64
    }

    /// The files to be deleted.
    pub(crate) fn take_surplus_files(&mut self) -> Vec<SurplusFile> {
        let surplus = std::mem::take(&mut self.surplus);
        if self.deletes { surplus } else { Vec::new() }
    }

    /// The directories of one depth to be deleted, the deepest first. `None` if none are left.
    pub(crate) fn take_surplus_directories(&mut self) -> Option<Vec<Box<str>>> {
        self.surplus_directories
            .pop_first()
            .map(|(_, directories)| directories)
    }
}
