//! The plan: which actions make the destination equal to the source.
//!
//! A [`Planner`] receives the merged listings pair by pair and returns the actions in that order. It
//! does no I/O and holds one record for each directory between the root and the current path.
//!
//! The plan names the content of a directory that is deleted before the directory.

use crate::client::sync::action::{PlannedAction, SkipReason, SyncAction, SyncStage};
use crate::client::sync::entry::{ListedItem, SyncEntry, WithheldReason, is_within};
use crate::client::sync::merge::PathPair;
use crate::client::sync::rules::{FileComparison, MetadataChange, SyncRules, TransferReason};
use crate::client::sync::staged_paths::is_staged;

/// Plans a sync from its merged listings.
pub(crate) struct Planner {
    rules: SyncRules,
    /// The directories that contain the current path, outermost first.
    open: Vec<OpenDirectory>,
    /// At and below this path nothing is done.
    withheld: Option<String>,
    actions: Vec<PlannedAction>,
    unchanged: UnchangedFiles,
}

/// Files of equal content on both sides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct UnchangedFiles {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// A directory whose content is being planned.
struct OpenDirectory {
    path: String,
    state: DirectoryState,
    /// The stage of what is created in it.
    stage: SyncStage,
    /// The destination has entries in it that stay although the source does not have them.
    holds_kept: bool,
    /// An action changes which names are in it, and so its modification time.
    is_changed: bool,
}

/// What becomes of an open directory.
enum DirectoryState {
    /// It is made, or exists on both sides with this difference.
    Mirrored(SyncEntry, MetadataChange),
    /// Only the destination has it.
    Surplus(SyncEntry),
    /// The source has this file in its place.
    Replaced(SyncEntry, SyncEntry),
}

impl Planner {
    pub(crate) fn new(rules: SyncRules) -> Self {
        Self {
            rules,
            open: Vec::new(),
            withheld: None,
            actions: Vec::new(),
            unchanged: UnchangedFiles::default(),
        }
    }

    /// The files so far that need no transfer.
    pub(crate) fn unchanged(&self) -> UnchangedFiles {
        self.unchanged
    }

    /// The actions that are certain once this pair is known. Pairs come in the order of the
    /// listings.
    pub(crate) fn push(&mut self, pair: PathPair) -> std::vec::Drain<'_, PlannedAction> {
        let first = pair.source.as_ref().or(pair.destination.as_ref());
        if let Some(path) = first.map(|item| item.path().to_owned()) {
            self.close_until(&path);
            let is_withheld = |withheld: &String| is_within(&path, withheld);
            if !self.withheld.as_ref().is_some_and(is_withheld) {
                self.withheld = None;
                self.plan(path, pair);
            }
        }
        self.actions.drain(..)
    }

    /// The actions that remain at the end of both listings.
    pub(crate) fn finish(&mut self) -> std::vec::Drain<'_, PlannedAction> {
        while let Some(directory) = self.open.pop() {
            self.close(directory);
        }
        self.actions.drain(..)
    }

    fn plan(&mut self, path: String, mut pair: PathPair) {
        if is_staged(&path) {
            // What a killed run has left is deleted at a destination, and not transferred.
            pair.source = None;
        }
        match (pair.source, pair.destination) {
            (None, None) => {}
            (Some(ListedItem::Entry(source)), None) => self.plan_new(source),
            (None, Some(ListedItem::Entry(destination))) => self.plan_surplus(destination),
            (Some(ListedItem::Entry(source)), Some(ListedItem::Entry(destination))) => {
                match (source.is_dir(), destination.is_dir()) {
                    (false, false) => self.plan_file(source, destination),
                    (true, true) => {
                        let change = self.rules.metadata_change(&source, &destination);
                        self.enter(path, DirectoryState::Mirrored(source, change));
                    }
                    (false, true) => self.replace_directory(source, destination),
                    (true, false) => self.replace_file(source, destination),
                }
            }
            (Some(ListedItem::Withheld { reason, .. }), destination) => {
                if destination.is_some() {
                    self.keep_ancestors();
                }
                if !matches!(reason, WithheldReason::Excluded) {
                    self.skip(path.clone(), SkipReason::Withheld(reason));
                }
                self.withheld = Some(path);
            }
            (source, Some(ListedItem::Withheld { reason, .. })) => {
                self.keep_ancestors();
                match source {
                    Some(_) if !reason.is_requested() => {
                        self.skip(path.clone(), SkipReason::InTheWay(reason));
                    }
                    None if matches!(
                        reason,
                        WithheldReason::Excluded | WithheldReason::BackupDirectory
                    ) => {}
                    _ => self.skip(path.clone(), SkipReason::Withheld(reason)),
                }
                self.withheld = Some(path);
            }
        }
    }

    fn plan_new(&mut self, source: SyncEntry) {
        if self.rules.existing {
            self.skip_tree(source, SkipReason::NotExisting);
            return;
        }
        let stage = self.stage();
        self.change_parent();
        if source.is_dir() {
            let path = source.path.clone();
            self.act(stage, SyncAction::MakeDirectory(source.clone()));
            self.enter_made(path, source, stage);
        } else {
            let action = SyncAction::Transfer {
                entry: source,
                replaces: None,
                reason: TransferReason::New,
            };
            self.act(stage, action);
        }
    }

    fn plan_surplus(&mut self, destination: SyncEntry) {
        if destination.is_dir() {
            let path = destination.path.clone();
            self.enter(path, DirectoryState::Surplus(destination));
        } else if self.rules.delete {
            self.change_parent();
            self.act(SyncStage::Deletion, SyncAction::Delete(destination));
        } else {
            self.keep_ancestors();
            self.act(SyncStage::Transfer, SyncAction::Keep(destination));
        }
    }

    fn plan_file(&mut self, source: SyncEntry, destination: SyncEntry) {
        let stage = self.stage();
        match self.rules.compare(&source, &destination) {
            FileComparison::Equal(change) => {
                self.unchanged.files += 1;
                self.unchanged.bytes += source.size;
                if change.is_any() {
                    let entry = source;
                    self.act(stage, SyncAction::SetMetadata { entry, change });
                }
            }
            FileComparison::Different(reason) => {
                self.change_parent();
                let action = SyncAction::Transfer {
                    entry: source,
                    replaces: Some(destination),
                    reason,
                };
                self.act(stage, action);
            }
            FileComparison::KeptExisting => self.skip(source.path, SkipReason::Existing),
            FileComparison::KeptNewer => self.skip(source.path, SkipReason::Newer),
        }
    }

    /// The source has a file where the destination has a directory.
    fn replace_directory(&mut self, source: SyncEntry, destination: SyncEntry) {
        if self.rules.ignore_existing {
            self.skip_tree(destination, SkipReason::Existing);
        } else if self.rules.delete {
            let path = source.path.clone();
            self.enter(path, DirectoryState::Replaced(destination, source));
        } else {
            self.skip_tree(destination, SkipReason::DirectoryInTheWay);
        }
    }

    /// The source has a directory where the destination has a file.
    fn replace_file(&mut self, source: SyncEntry, destination: SyncEntry) {
        if self.rules.existing {
            self.skip_tree(source, SkipReason::NotExisting);
        } else if self.rules.ignore_existing {
            self.skip_tree(source, SkipReason::Existing);
        } else if self.rules.delete {
            let path = source.path.clone();
            self.change_parent();
            self.act(SyncStage::Deletion, SyncAction::Delete(destination));
            let stage = SyncStage::Replacement;
            self.act(stage, SyncAction::MakeDirectory(source.clone()));
            self.enter_made(path, source, stage);
        } else {
            self.skip_tree(source, SkipReason::FileInTheWay);
        }
    }

    fn close_until(&mut self, path: &str) {
        while let Some(directory) = self.open.pop_if(|top| !is_within(path, &top.path)) {
            self.close(directory);
        }
    }

    fn close(&mut self, directory: OpenDirectory) {
        let OpenDirectory {
            path,
            state,
            holds_kept,
            is_changed,
            ..
        } = directory;
        match state {
            DirectoryState::Mirrored(entry, mut change) => {
                change.modified |= is_changed;
                if change.is_any() {
                    let action = SyncAction::SetMetadata { entry, change };
                    self.act(SyncStage::DirectoryMetadata, action);
                }
            }
            // Its files were reported.
            DirectoryState::Surplus(_) if !self.rules.delete => {}
            DirectoryState::Surplus(_) if holds_kept => {
                self.keep_ancestors();
                self.skip(path, SkipReason::HoldsKeptEntries);
            }
            DirectoryState::Surplus(destination) => {
                self.change_parent();
                self.act(SyncStage::Deletion, SyncAction::Delete(destination));
            }
            DirectoryState::Replaced(..) if holds_kept => {
                self.skip(path, SkipReason::KeptDirectoryInTheWay);
            }
            DirectoryState::Replaced(destination, entry) => {
                self.change_parent();
                self.act(SyncStage::Deletion, SyncAction::Delete(destination));
                let action = SyncAction::Transfer {
                    entry,
                    replaces: None,
                    reason: TransferReason::Kind,
                };
                self.act(SyncStage::Replacement, action);
            }
        }
    }

    fn enter(&mut self, path: String, state: DirectoryState) {
        let inherited = self.stage();
        self.open.push(OpenDirectory {
            path,
            state,
            stage: inherited,
            holds_kept: false,
            is_changed: false,
        });
    }

    fn enter_made(&mut self, path: String, source: SyncEntry, stage: SyncStage) {
        let change = MetadataChange {
            modified: true,
            mode: self.rules.modes && source.mode.is_some(),
        };
        self.open.push(OpenDirectory {
            path,
            state: DirectoryState::Mirrored(source, change),
            stage,
            holds_kept: false,
            is_changed: true,
        });
    }

    /// The stage of what is created at the current path.
    fn stage(&self) -> SyncStage {
        self.open
            .last()
            .map_or(SyncStage::Transfer, |parent| parent.stage)
    }

    fn act(&mut self, stage: SyncStage, action: SyncAction) {
        self.actions.push(PlannedAction { stage, action });
    }

    fn skip(&mut self, path: String, reason: SkipReason) {
        self.act(SyncStage::Transfer, SyncAction::Skip { path, reason });
    }

    /// Skips an entry and all below it.
    fn skip_tree(&mut self, entry: SyncEntry, reason: SkipReason) {
        self.skip(entry.path.clone(), reason);
        if entry.is_dir() {
            self.withheld = Some(entry.path);
        }
    }

    fn change_parent(&mut self) {
        if let Some(parent) = self.open.last_mut() {
            parent.is_changed = true;
        }
    }

    fn keep_ancestors(&mut self) {
        for directory in &mut self.open {
            directory.holds_kept = true;
        }
    }
}

#[cfg(test)]
mod tests;
