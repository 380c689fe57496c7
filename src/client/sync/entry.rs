//! The entries of the two trees, and the order in which both sides list them.

use std::cmp::Ordering;

use jiff::Timestamp;

use crate::client::ClientError;
use crate::protocol::{Digest, FileMode, Kind};

/// A file or directory of either tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncEntry {
    /// Its path relative to the tree's root, with `/` between its components.
    pub path: String,
    /// Its kind.
    pub kind: Kind,
    /// Bytes of a file; 0 for a directory.
    pub size: u64,
    /// When its content last changed.
    pub modified: Timestamp,
    /// Its permission bits, if they are known.
    pub mode: Option<FileMode>,
    /// The server's identifier of its content; local entries have none.
    pub version: Option<String>,
    /// The digest of its content, if it was asked for and is known.
    pub digest: Option<Digest>,
}

impl SyncEntry {
    /// Whether this is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.kind == Kind::Dir
    }
}

/// One item of a listing of a tree.
#[derive(Debug)]
pub(crate) enum ListedItem {
    /// An entry that takes part.
    Entry(SyncEntry),
    /// A path at and below which nothing is transferred, changed or deleted on either side.
    Withheld {
        path: String,
        reason: WithheldReason,
    },
}

impl ListedItem {
    pub(crate) fn path(&self) -> &str {
        match self {
            Self::Entry(entry) => &entry.path,
            Self::Withheld { path, .. } => path,
        }
    }
}

/// Why a path takes no part.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WithheldReason {
    /// A filter excludes it.
    #[error("excluded")]
    Excluded,
    /// It exceeds `--max-size`.
    #[error("larger than --max-size")]
    TooLarge,
    /// It is below `--min-size`.
    #[error("smaller than --min-size")]
    TooSmall,
    /// A symbolic link that is not followed.
    #[error("a symbolic link")]
    Link,
    /// A symbolic link to one of the directories that contain it.
    #[error("a symbolic link to a directory that contains it")]
    LinkLoop,
    /// A symbolic link without a target.
    #[error("a symbolic link to nothing")]
    DanglingLink,
    /// The server does not list what is in it.
    #[error("a directory that the server does not list, such as a symbolic link")]
    Unlisted,
    /// A folder that others share, and that the source does not have.
    #[error("a shared folder, which is not deleted")]
    SharedFolder,
    /// It is the backup directory, or in it.
    #[error("the backup directory is there")]
    BackupDirectory,
    /// Neither file nor directory.
    #[error("neither file nor directory")]
    Special,
    /// It belongs to another file system than the root.
    #[error("on another file system")]
    OtherFileSystem,
    /// The other side cannot have an entry of its name.
    #[error("its name is not allowed on both sides")]
    Name,
    /// It cannot be read.
    #[error(transparent)]
    Failed(ClientError),
}

impl WithheldReason {
    /// Whether the user asked for it, so that no message is needed.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        matches!(self, Self::Excluded | Self::TooLarge | Self::TooSmall)
    }

    /// Whether it is an error, after which the mirror is incomplete.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Name | Self::BackupDirectory | Self::Failed(_))
    }
}

/// The order of both listings: bytewise by path component, a directory before its content.
pub(crate) fn compare_paths(a: &str, b: &str) -> Ordering {
    a.split('/').cmp(b.split('/'))
}

/// Whether `path` is `ancestor` or is below it. The empty path is the root.
pub(crate) fn is_within(path: &str, ancestor: &str) -> bool {
    ancestor.is_empty()
        || path
            .strip_prefix(ancestor)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The directory that contains `path`; the empty path for an entry of the root.
pub(crate) fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// Whether two times are equal at the coarser of their precisions. A file system that keeps fewer
/// digits of a second returns zeros for the others.
pub(crate) fn is_same_time(a: Timestamp, b: Timestamp) -> bool {
    let unit = precision(a).max(precision(b));
    a.as_nanosecond().div_euclid(unit) == b.as_nanosecond().div_euclid(unit)
}

/// The unit of the last decimal digit of a time that is not zero, in nanoseconds; at most a second.
fn precision(time: Timestamp) -> i128 {
    let nanoseconds = time.as_nanosecond();
    let mut unit = 1;
    while unit < 1_000_000_000 && nanoseconds % (unit * 10) == 0 {
        unit *= 10;
    }
    unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_and_its_content_come_before_a_longer_name() {
        let mut paths = ["a.b", "a/x", "a", "b", "a!", "a/x/y", "a/x.y", ""];
        paths.sort_by(|a, b| compare_paths(a, b));
        assert_eq!(paths, ["", "a", "a/x", "a/x/y", "a/x.y", "a!", "a.b", "b"]);
    }

    #[test]
    fn a_path_is_within_its_ancestors_and_the_root() {
        assert!(is_within("a/b", "a") && is_within("a", "a") && is_within("a", ""));
        assert!(!is_within("ab", "a") && !is_within("a", "a/b"));
    }

    #[test]
    fn times_are_compared_at_the_precision_that_both_sides_keep() {
        let time = |nanoseconds: i128| Timestamp::from_nanosecond(nanoseconds).expect("in range");
        let exact = time(1_700_000_000_123_456_789);
        for kept in [
            1_700_000_000_123_456_789,
            1_700_000_000_123_456_700,
            1_700_000_000_123_456_000,
            1_700_000_000_123_000_000,
            1_700_000_000_000_000_000,
        ] {
            assert!(is_same_time(exact, time(kept)), "{kept}");
            assert!(is_same_time(time(kept), exact), "{kept}");
        }
        for other in [
            1_700_000_000_123_456_788,
            1_700_000_001_000_000_000,
            1_700_000_000_124_000_000,
            1_699_999_999_000_000_000,
        ] {
            assert!(!is_same_time(exact, time(other)), "{other}");
        }
        assert!(is_same_time(time(-1_500_000_000), time(-2_000_000_000)));
    }
}
