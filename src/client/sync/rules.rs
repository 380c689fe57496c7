//! The rules by which a file at the destination is equal to that of the source.

use crate::client::sync::entry::{SyncEntry, is_same_time};

/// What a sync compares, creates, replaces and deletes.
#[derive(Debug, Clone, Copy, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent options of the user"
)]
pub struct SyncRules {
    /// How files of the same path are compared.
    pub comparison: Comparison,
    /// Keep a file of the destination that is newer than that of the source.
    pub update: bool,
    /// Create nothing at the destination.
    pub existing: bool,
    /// Replace no file of the destination.
    pub ignore_existing: bool,
    /// Delete what the source does not have.
    pub delete: bool,
    /// Compare and set permission bits.
    pub modes: bool,
}

/// How files of the same path are compared. Files of different sizes always differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Comparison {
    /// By size and modification time.
    #[default]
    Time,
    /// By size and digest.
    Checksum,
    /// By size alone.
    SizeOnly,
}

/// Why a file is transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferReason {
    /// The destination has no such file.
    New,
    /// The sizes differ.
    Size,
    /// The modification times differ.
    Time,
    /// The digests differ, or one of them is not known.
    Content,
    /// A directory of that name is deleted first.
    Kind,
}

/// What differs between two entries of equal content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MetadataChange {
    /// The modification time.
    pub modified: bool,
    /// The permission bits.
    pub mode: bool,
}

impl MetadataChange {
    /// Whether anything differs.
    #[must_use]
    pub fn is_any(self) -> bool {
        self.modified || self.mode
    }
}

/// The result of a comparison of two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileComparison {
    /// The content is equal.
    Equal(MetadataChange),
    /// The file is to be transferred.
    Different(TransferReason),
    /// `--ignore-existing` keeps the file of the destination.
    KeptExisting,
    /// `--update` keeps the file of the destination.
    KeptNewer,
}

impl SyncRules {
    /// Compares a file of the source with that of the destination.
    pub(crate) fn compare(self, source: &SyncEntry, destination: &SyncEntry) -> FileComparison {
        let is_same_time = is_same_time(source.modified, destination.modified);
        if self.ignore_existing {
            return FileComparison::KeptExisting;
        }
        if self.update && !is_same_time && destination.modified > source.modified {
            return FileComparison::KeptNewer;
        }
        if source.size != destination.size {
            return FileComparison::Different(TransferReason::Size);
        }
        let difference = match self.comparison {
            Comparison::SizeOnly => None,
            Comparison::Time => (!is_same_time).then_some(TransferReason::Time),
            Comparison::Checksum => {
                let is_equal = source.digest.is_some() && source.digest == destination.digest;
                (!is_equal).then_some(TransferReason::Content)
            }
        };
        match difference {
            Some(reason) => FileComparison::Different(reason),
            None => FileComparison::Equal(self.metadata_change(source, destination)),
        }
    }

    /// The metadata of `source` that `destination` lacks.
    pub(crate) fn metadata_change(
        self,
        source: &SyncEntry,
        destination: &SyncEntry,
    ) -> MetadataChange {
        MetadataChange {
            modified: !is_same_time(source.modified, destination.modified),
            mode: self.modes && source.mode.is_some() && source.mode != destination.mode,
        }
    }

    /// Whether the comparison of these files needs their digests.
    pub(crate) fn needs_digests(self, source: &SyncEntry, destination: &SyncEntry) -> bool {
        self.comparison == Comparison::Checksum
            && !source.is_dir()
            && !destination.is_dir()
            && source.size == destination.size
            && !self.ignore_existing
    }
}
