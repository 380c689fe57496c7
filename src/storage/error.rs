//! Errors of file operations. Each variant is one error code on the wire.

use std::io;

use bytesize::ByteSize;
use rustix::io::Errno;

use crate::io_error::describe_io_error;
use crate::protocol::Digest;
use crate::storage::count_end::CountEnd;
use crate::storage::denied_reason::DeniedReason;
use crate::storage::path::{InvalidPath, VirtualPath};
use crate::storage::rights::{Right, Rights};

/// Why a file operation failed. Each variant is one error code on the wire.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// No entry of that name exists, or the member may not know of it.
    #[error("no such {what}: {path}")]
    NotFound {
        /// `file`, `directory` or `file or directory`.
        what: &'static str,
        /// The path that was looked up.
        path: VirtualPath,
    },
    /// An entry of that name exists already.
    #[error("{path} already exists")]
    Exists {
        /// The existing entry.
        path: VirtualPath,
    },
    /// The path must be a directory and is a file, or something else.
    #[error("{path} is a file, not a directory")]
    NotADirectory {
        /// The path of the file.
        path: VirtualPath,
    },
    /// The path must be a file and is a directory.
    #[error("{path} is a directory")]
    IsADirectory {
        /// The directory.
        path: VirtualPath,
    },
    /// The directory is not empty.
    #[error("the directory {path} is not empty")]
    NotEmpty {
        /// The directory.
        path: VirtualPath,
    },
    /// The member has no right to this operation.
    #[error("{}", reason.message(path))]
    Denied {
        /// The path of the operation.
        path: VirtualPath,
        /// Why it is denied.
        reason: DeniedReason,
    },
    /// The member's rights are unknown at the moment.
    #[error(
        "cannot check your rights for {path}: the server cannot read its accounts or cannot open one \
         of your folders; try again in a moment"
    )]
    Suspended {
        /// The path of the operation.
        path: VirtualPath,
    },
    /// The text is not a path, or not one of such an entry.
    #[error(transparent)]
    InvalidPath(#[from] InvalidPath),
    /// The cursor is not one that a listing has returned.
    #[error("the cursor does not belong to a listing of {path}")]
    BadCursor {
        /// The directory of the listing.
        path: VirtualPath,
    },
    /// The file is not the requested version, or changed while it was read.
    #[error("the file {path} has changed")]
    Changed {
        /// The file.
        path: VirtualPath,
    },
    /// The quota of the home or folder does not allow it.
    #[error("{path} does not fit in the quota: {}", quota_text(*.used, *.reserved, *.limit, *.files))]
    QuotaExceeded {
        /// The file or directory that was to be written.
        path: VirtualPath,
        /// Bytes or entries in use, with what is reserved.
        used: u64,
        /// The part of `used` that is reserved for operations that are not finished.
        reserved: u64,
        /// Bytes or entries allowed.
        limit: u64,
        /// Whether it is the number of files and directories, not of bytes, that is exceeded.
        files: bool,
    },
    /// As [`Self::QuotaExceeded`], for a member who may not know how much is in use.
    #[error("{path} does not fit in the quota of its folder")]
    QuotaReached {
        /// The file or directory that was to be written.
        path: VirtualPath,
    },
    /// The disk is full, or would be.
    #[error("no space left on the server for {path}{}", disk_use_text(*.disk_use))]
    NoSpace {
        /// The file or directory that was to be written.
        path: VirtualPath,
        /// How full the disk is, if that is known.
        disk_use: Option<DiskUse>,
    },
    /// The number of bytes received differs from the declared size.
    #[error("received {received} bytes for {path}, but {declared} were declared")]
    SizeMismatch {
        /// The file or directory that was to be written.
        path: VirtualPath,
        /// Bytes declared.
        declared: u64,
        /// Bytes received; a lower bound if they exceed the declared size.
        received: u64,
    },
    /// The content does not have the expected digest.
    #[error("the digest of {path} is {actual}, but {expected} was expected")]
    DigestMismatch {
        /// The file or directory that was to be written.
        path: VirtualPath,
        /// The digest that the sender computed.
        expected: Digest,
        /// The digest of the bytes received.
        actual: Digest,
    },
    /// The range is not within the file.
    #[error("the range is outside {path}, which has {size} bytes")]
    OffsetOutOfRange {
        /// The file.
        path: VirtualPath,
        /// Bytes in the file.
        size: u64,
    },
    /// The path is on another file system than the data directory, so the server cannot move files
    /// there.
    #[error(
        "cannot move files to {path}: it is on another file system than the server's data directory; \
         the server's operator must keep the whole data directory on one file system"
    )]
    OtherFileSystem {
        /// The file that was to be moved or written.
        path: VirtualPath,
    },
    /// The operating system limits the size of files.
    #[error(
        "{path} is larger than the server's system allows; the server's operator can raise the limit \
         of file sizes (LimitFSIZE, ulimit -f) or use a file system without one"
    )]
    FileTooLarge {
        /// The file or directory that was to be written.
        path: VirtualPath,
    },
    /// The caller has stopped the operation.
    #[error("the operation on {path} was cancelled")]
    Cancelled {
        /// The path of the operation.
        path: VirtualPath,
    },
    /// The home or folder is being counted, and the operation needs the count or would disturb it.
    #[error(
        "cannot check the quota for {path}: the server is still counting the files of this home or \
         folder; try again in a moment"
    )]
    Counting {
        /// The path of the operation.
        path: VirtualPath,
        /// The end of the count; the operation can be tried again then.
        end: CountEnd,
    },
    /// Another process serves this data directory.
    #[error(
        "another server is using the data directory {path}; \
         stop that server, or use another directory"
    )]
    InUse {
        /// The data directory, on the server's disk.
        path: String,
    },
    /// No server can use this data directory as it is.
    #[error("cannot use the data directory {path}: {reason}")]
    Unusable {
        /// The data directory, on the server's disk.
        path: String,
        /// The problem, and what to do.
        reason: String,
    },
    /// The disk or the operating system failed.
    #[error("cannot {doing} {path}: {}", describe_io_error(source))]
    Io {
        /// The operation, such as `read`.
        doing: &'static str,
        /// The path of the operation.
        path: String,
        /// The system's error.
        source: io::Error,
    },
}

/// How full the server's disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskUse {
    /// Its bytes are used up.
    Bytes {
        /// Bytes free on it.
        free: u64,
        /// Free bytes that are not for new files: the server keeps them for its own records, or they
        /// are reserved for uploads under way.
        kept_free: u64,
    },
    /// Its inodes are used up, so it can hold no more files and directories.
    Inodes {
        /// Inodes free on it.
        free: u64,
        /// Free inodes that the server keeps for its own records.
        kept_free: u64,
    },
}

/// `9.0 GiB of 10.0 GiB are used, 1.0 GiB of them reserved by unfinished uploads and copies`.
fn quota_text(used: u64, reserved: u64, limit: u64, is_entry_limit: bool) -> String {
    let amount = |count: u64| {
        if is_entry_limit {
            count.to_string()
        } else {
            ByteSize::b(count).to_string()
        }
    };
    let unit = if is_entry_limit {
        " files and directories"
    } else {
        ""
    };
    let used = format!("{} of {}{unit} are used", amount(used), amount(limit));
    if reserved == 0 {
        return used;
    }
    let reserved = amount(reserved);
    format!("{used}, {reserved} of them reserved by unfinished uploads and copies")
}

fn disk_use_text(disk_use: Option<DiskUse>) -> String {
    let (free, kept_free) = match disk_use {
        None => return String::new(),
        Some(DiskUse::Bytes { free, kept_free }) => {
            let [free, kept_free] = [free, kept_free].map(|bytes| ByteSize::b(bytes).to_string());
            (free, kept_free)
        }
        Some(DiskUse::Inodes { free, kept_free }) => {
            (format!("{free} inodes"), kept_free.to_string())
        }
    };
    format!(
        ": {free} are free on its disk, {kept_free} of them are reserved; \
         remove files, or ask the server's operator to free space"
    )
}

impl StorageError {
    pub(crate) fn not_found(path: &VirtualPath) -> Self {
        Self::NotFound {
            what: "file or directory",
            path: path.clone(),
        }
    }

    /// Replaces the kind of entry that was not found.
    pub(crate) fn looking_for(self, what: &'static str) -> Self {
        match self {
            Self::NotFound { path, .. } => Self::NotFound { what, path },
            other => other,
        }
    }

    pub(crate) fn denied(path: &VirtualPath, reason: DeniedReason) -> Self {
        let path = path.clone();
        Self::Denied { path, reason }
    }

    pub(crate) fn exists(path: &VirtualPath) -> Self {
        Self::Exists { path: path.clone() }
    }

    pub(crate) fn is_a_directory(path: &VirtualPath) -> Self {
        Self::IsADirectory { path: path.clone() }
    }

    pub(crate) fn changed(path: &VirtualPath) -> Self {
        Self::Changed { path: path.clone() }
    }

    pub(crate) fn from_io(source: io::Error, doing: &'static str, at: &VirtualPath) -> Self {
        let path = at.clone();
        let Some(errno) = Errno::from_io_error(&source) else {
            // The resolver's error for a path that leads out of the space, which must look absent.
            if source.kind() == io::ErrorKind::PermissionDenied {
                return Self::not_found(at);
            }
            let path = path.to_string();
            return Self::Io {
                doing,
                path,
                source,
            };
        };
        match errno {
            Errno::NOENT | Errno::LOOP => Self::not_found(at),
            Errno::EXIST => Self::Exists { path },
            Errno::NOTDIR => Self::NotADirectory { path },
            Errno::ISDIR => Self::IsADirectory { path },
            Errno::NOTEMPTY => Self::NotEmpty { path },
            Errno::ACCESS | Errno::PERM => Self::denied(at, DeniedReason::System),
            // From opening a socket, or a device that does not exist.
            Errno::NXIO | Errno::NODEV => Self::denied(at, DeniedReason::SpecialFile),
            Errno::NOSPC | Errno::DQUOT => Self::NoSpace {
                path,
                disk_use: None,
            },
            Errno::XDEV => Self::OtherFileSystem { path },
            Errno::FBIG => Self::FileTooLarge { path },
            _ => Self::Io {
                doing,
                path: path.to_string(),
                source,
            },
        }
    }
}

impl Rights {
    /// Makes sure that these rights allow the operation on `path` that needs `right`.
    ///
    /// # Errors
    /// [`StorageError::Denied`].
    pub(crate) fn require(self, right: Right, path: &VirtualPath) -> Result<(), StorageError> {
        if self.contains(right) {
            return Ok(());
        }
        let rights = self;
        let reason = DeniedReason::MissingRight { right, rights };
        Err(StorageError::denied(path, reason))
    }
}

impl CountEnd {
    /// Waits for the end of the count. The operation that needs the count can be tried again then.
    ///
    /// # Errors
    /// The system's error, if the space could not be counted.
    ///
    /// # Cancel safety
    /// Nothing is lost if this is dropped.
    pub async fn wait(self, path: &VirtualPath) -> Result<(), StorageError> {
        self.finished().await.context("count", path)
    }
}

/// Turns errors of the system into errors of a file operation.
pub(crate) trait ErrorContext<T> {
    /// Adds the operation and the virtual path of it.
    fn context(self, doing: &'static str, path: &VirtualPath) -> Result<T, StorageError>;
}

impl<T, E: Into<io::Error>> ErrorContext<T> for Result<T, E> {
    fn context(self, doing: &'static str, path: &VirtualPath) -> Result<T, StorageError> {
        self.map_err(|error| StorageError::from_io(error.into(), doing, path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_at_path(error: io::Error) -> StorageError {
        let path = VirtualPath::parse("/a/b").expect("sound");
        Err::<(), _>(error)
            .context("write", &path)
            .expect_err("failed")
    }

    #[test]
    fn a_full_disk_and_a_full_disk_quota_are_no_space() {
        for errno in [Errno::NOSPC, Errno::DQUOT] {
            let error = error_at_path(errno.into());
            assert!(matches!(error, StorageError::NoSpace { .. }));
            assert_eq!(error.to_string(), "no space left on the server for /a/b");
        }
    }

    #[test]
    fn an_error_of_the_disk_names_the_operation() {
        let error = error_at_path(Errno::IO.into());
        assert!(matches!(error, StorageError::Io { doing: "write", .. }));
        assert_eq!(error.to_string(), "cannot write /a/b: input/output error");
    }

    #[test]
    fn a_path_that_leads_out_of_the_space_looks_absent() {
        let escape = io::Error::new(io::ErrorKind::PermissionDenied, "it leads out");
        assert!(matches!(
            error_at_path(escape),
            StorageError::NotFound { .. }
        ));
        let denied = error_at_path(Errno::ACCESS.into());
        assert!(matches!(denied, StorageError::Denied { .. }));
    }

    #[test]
    fn a_quota_error_names_its_unit_and_what_is_reserved() {
        let exceeded = |files, reserved| StorageError::QuotaExceeded {
            path: VirtualPath::parse("/a").expect("a path"),
            used: 3 << 30,
            reserved,
            limit: 4 << 30,
            files,
        };
        assert_eq!(
            exceeded(false, 0).to_string(),
            "/a does not fit in the quota: 3.0 GiB of 4.0 GiB are used"
        );
        assert_eq!(
            exceeded(false, 1 << 20).to_string(),
            "/a does not fit in the quota: 3.0 GiB of 4.0 GiB are used, 1.0 MiB of them reserved by \
             unfinished uploads and copies"
        );
        let entries = exceeded(true, 1).to_string();
        assert!(
            entries.contains("4294967296 files and directories are used, 1 of them"),
            "{entries}"
        );
    }
}
