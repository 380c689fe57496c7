//! The size of files: bytes and entries.

use std::ops::{AddAssign, SubAssign};

/// Bytes in regular files, and the number of entries: files, directories, links and all else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SpaceCount {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
}

impl SpaceCount {
    /// One file of so many bytes.
    pub(crate) fn file(bytes: u64) -> Self {
        Self { bytes, entries: 1 }
    }

    /// Entries without bytes, such as directories.
    pub(crate) fn entries(entries: u64) -> Self {
        Self { bytes: 0, entries }
    }

    /// Bytes of a file that is counted as an entry already.
    pub(crate) fn bytes(bytes: u64) -> Self {
        Self { bytes, entries: 0 }
    }

    pub(crate) fn checked_add(self, other: Self) -> Option<Self> {
        Some(Self {
            bytes: self.bytes.checked_add(other.bytes)?,
            entries: self.entries.checked_add(other.entries)?,
        })
    }
}

impl AddAssign for SpaceCount {
    fn add_assign(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.entries = self.entries.saturating_add(other.entries);
    }
}

impl SubAssign for SpaceCount {
    fn sub_assign(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_sub(other.bytes);
        self.entries = self.entries.saturating_sub(other.entries);
    }
}
