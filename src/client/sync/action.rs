//! The actions of a plan.
//!
//! The order of the listings, in which a plan arises, is not the order in which its actions may run, so
//! each belongs to a [`SyncStage`]. Within a stage they run in the order of the plan, except that
//! transfers may run at the same time.

use crate::client::sync::entry::{SyncEntry, WithheldReason};
use crate::client::sync::rules::{MetadataChange, TransferReason};

/// One action of a plan.
#[derive(Debug)]
#[non_exhaustive]
pub enum SyncAction {
    /// Make a directory at the destination.
    MakeDirectory(SyncEntry),
    /// Transfer a file of the source.
    Transfer {
        /// The file of the source.
        entry: SyncEntry,
        /// The file of the destination that it replaces.
        replaces: Option<SyncEntry>,
        /// Why.
        reason: TransferReason,
    },
    /// Give an entry of the destination the metadata of the source.
    SetMetadata {
        /// The entry of the source.
        entry: SyncEntry,
        /// What differs. Of a directory whose content changes, the modification time.
        change: MetadataChange,
    },
    /// Rename a surplus file of the destination that equals a new file of the source.
    Move {
        /// The path of the surplus file.
        from: String,
        /// The file of the source.
        entry: SyncEntry,
    },
    /// Copy a file of the destination that equals a new file of the source.
    Copy {
        /// The path of the file that is copied.
        from: String,
        /// The file of the source.
        entry: SyncEntry,
    },
    /// Delete an entry that the source does not have; a directory is empty by then.
    Delete(SyncEntry),
    /// Keep a file that the source does not have.
    Keep(SyncEntry),
    /// Leave a path as it is.
    Skip {
        /// The path.
        path: String,
        /// Why.
        reason: SkipReason,
    },
}

impl SyncAction {
    /// The path that the action is about, relative to the roots.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::MakeDirectory(entry)
            | Self::Transfer { entry, .. }
            | Self::SetMetadata { entry, .. }
            | Self::Move { entry, .. }
            | Self::Copy { entry, .. }
            | Self::Delete(entry)
            | Self::Keep(entry) => &entry.path,
            Self::Skip { path, .. } => path,
        }
    }
}

/// Why a path is left as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SkipReason {
    /// It takes no part.
    #[error(transparent)]
    Withheld(WithheldReason),
    /// The destination has something else of that name.
    #[error("the destination has an entry of that name that is not replaced: {0}")]
    InTheWay(WithheldReason),
    /// `--existing` creates nothing.
    #[error("not at the destination")]
    NotExisting,
    /// `--ignore-existing` replaces nothing.
    #[error("at the destination already")]
    Existing,
    /// `--update` replaces nothing that is newer.
    #[error("newer at the destination")]
    Newer,
    /// A file cannot replace a directory without `--delete`.
    #[error("the destination has a directory of that name, which only --delete replaces")]
    DirectoryInTheWay,
    /// A directory cannot replace a file without `--delete`.
    #[error("the destination has a file of that name, which only --delete replaces")]
    FileInTheWay,
    /// A file cannot replace a directory that must be kept.
    #[error("the destination has a directory of that name with excluded or skipped entries")]
    KeptDirectoryInTheWay,
    /// A surplus directory holds entries that take no part.
    #[error("not deleted because it contains excluded or skipped entries")]
    HoldsKeptEntries,
}

impl SkipReason {
    /// Whether the mirror is incomplete because of it.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Withheld(reason) => reason.is_failure(),
            Self::InTheWay(_)
            | Self::DirectoryInTheWay
            | Self::FileInTheWay
            | Self::KeptDirectoryInTheWay => true,
            _ => false,
        }
    }

    /// Whether an option asked for it, so that it is mentioned only if every action is.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        match self {
            Self::Withheld(reason) => reason.is_requested(),
            Self::NotExisting | Self::Existing | Self::Newer => true,
            _ => false,
        }
    }
}

/// The stages of a sync, in the order in which they run. A stage from [`Deletion`](Self::Deletion)
/// on runs only if the ones before it succeeded, except the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SyncStage {
    /// Directories and files that need no deletion.
    Transfer,
    /// Deletions.
    Deletion,
    /// Entries that replace one of another kind: they are made beside it before the deletions, and named
    /// after them.
    Replacement,
    /// The metadata of directories, which the stages before change.
    DirectoryMetadata,
}

/// An action and its stage.
#[derive(Debug)]
pub(crate) struct PlannedAction {
    pub(crate) stage: SyncStage,
    pub(crate) action: SyncAction,
}
