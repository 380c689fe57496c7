//! What a file operation can answer instead of its result, ready for the wire.

use std::io;

use bytesize::ByteSize;
use rustix::io::Errno;

use crate::protocol::Digest;
use crate::storage::local::count::CountEnd;
use crate::storage::path::{InvalidPath, VirtualPath};

/// Why a file operation was not done. Each variant is one code on the wire.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// There is nothing of that name that the member may see.
    #[error("no such {what}: {path}")]
    NotFound {
        /// `file`, `directory` or `file or directory`.
        what: &'static str,
        /// Where it was looked for.
        path: VirtualPath,
    },
    /// There is something of that name already.
    #[error("it exists already: {path}")]
    Exists {
        /// What is there.
        path: VirtualPath,
    },
    /// A directory was needed, here or on the way.
    #[error("not a directory: {path}")]
    NotADirectory {
        /// What is, or leads through, something else.
        path: VirtualPath,
    },
    /// A file was needed.
    #[error("it is a directory: {path}")]
    IsADirectory {
        /// The directory.
        path: VirtualPath,
    },
    /// The directory still holds something.
    #[error("the directory is not empty: {path}")]
    NotEmpty {
        /// The directory.
        path: VirtualPath,
    },
    /// The member may know of it, but not do this to it.
    #[error("not allowed: {path}")]
    Denied {
        /// What it was to be done to.
        path: VirtualPath,
    },
    /// What the member may do is not known at the moment.
    #[error(
        "the server cannot read the accounts, or cannot open a home or folder of yours, so it does not \
         know what you may do; try again in a moment: {path}"
    )]
    Suspended {
        /// What it was to be done to.
        path: VirtualPath,
    },
    /// The path can not be, or can not be that of such a thing.
    #[error(transparent)]
    InvalidPath(#[from] InvalidPath),
    /// The text is no cursor that a listing gave.
    #[error("not a cursor of a listing: {path}")]
    BadCursor {
        /// The directory to be listed.
        path: VirtualPath,
    },
    /// The file is not the one that was asked for, or changed while it was read.
    #[error("the file has changed: {path}")]
    Changed {
        /// The file.
        path: VirtualPath,
    },
    /// The quota around the path does not allow it.
    #[error("the quota leaves no room ({used} of {limit} {} are used): {path}", if *.files { "files and directories" } else { "bytes" })]
    QuotaExceeded {
        /// What was to be written.
        path: VirtualPath,
        /// Bytes or entries in use, with what is reserved.
        used: u64,
        /// Bytes or entries allowed.
        limit: u64,
        /// Whether it is the number of files and directories, not of bytes, that is exceeded.
        files: bool,
    },
    /// The same for who may not know how much is in use.
    #[error("the quota leaves no room: {path}")]
    QuotaReached {
        /// What was to be written.
        path: VirtualPath,
    },
    /// The disk is full, or would be.
    #[error("no space left on the server{}: {path}", room_text(*.room))]
    NoSpace {
        /// What was to be written.
        path: VirtualPath,
        /// How full the disk is, where that was looked at.
        room: Option<DiskUse>,
    },
    /// The bytes that came are not as many as were declared.
    #[error("{received} bytes came where {declared} were declared: {path}")]
    SizeMismatch {
        /// What was to be written.
        path: VirtualPath,
        /// Bytes declared.
        declared: u64,
        /// Bytes that came; at least so many if they were too many.
        received: u64,
    },
    /// The bytes are not those that the digest was taken of.
    #[error("the digest is {actual}, not {expected}: {path}")]
    DigestMismatch {
        /// What was to be written.
        path: VirtualPath,
        /// The digest given.
        expected: Digest,
        /// The digest of the bytes.
        actual: Digest,
    },
    /// The range does not lie within the file.
    #[error("out of range, the file has {size} bytes: {path}")]
    OffsetOutOfRange {
        /// The file.
        path: VirtualPath,
        /// Bytes in the file.
        size: u64,
    },
    /// What is there is on another file system than the data directory, so that nothing finished
    /// can be moved there.
    #[error(
        "{path} is on another file system than the server's data directory, so the server cannot \
         move files there; its operator has to mount one file system over the whole data directory"
    )]
    OtherFileSystem {
        /// What was to be moved or written.
        path: VirtualPath,
    },
    /// The system does not let the server write a file of that size.
    #[error(
        "the file is larger than the server's system allows: {path}; its operator can raise the \
         limit of file sizes (LimitFSIZE, ulimit -f) or use a file system without one"
    )]
    FileTooLarge {
        /// What was to be written.
        path: VirtualPath,
    },
    /// The caller's `stop` said so.
    #[error("cancelled: {path}")]
    Cancelled {
        /// What it was to be done to.
        path: VirtualPath,
    },
    /// The home or folder is being counted, and this needs the count, or would disturb it.
    #[error(
        "the server is still counting what this home or folder holds; \
         try again in a moment: {path}"
    )]
    Counting {
        /// What it was to be done to.
        path: VirtualPath,
        /// When to try again.
        end: CountEnd,
    },
    /// Another process serves this data directory.
    #[error(
        "another server is using the data directory: {path}; \
         stop it first, or name another directory"
    )]
    InUse {
        /// The data directory, on the server's disk.
        path: String,
    },
    /// No server can work with this data directory as it is.
    #[error("can not use the data directory {path}: {reason}")]
    Unusable {
        /// The data directory, on the server's disk.
        path: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The server's disk or system failed.
    #[error("could not {doing} {path}: {source}")]
    Io {
        /// What was being done, such as `read`.
        doing: &'static str,
        /// What it was being done to.
        path: String,
        /// What the system said.
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
        /// Bytes of these that are not for new files: the server keeps them for its own records,
        /// or has promised them to uploads under way.
        kept_free: u64,
    },
    /// Its inodes are used up: it can hold no more files and directories.
    Inodes {
        /// Inodes free on it.
        free: u64,
        /// Inodes of these that the server keeps for its own records.
        kept_free: u64,
    },
}

fn room_text(room: Option<DiskUse>) -> String {
    let (free, kept_free) = match room {
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
        " ({free} are free on its disk, {kept_free} of them are reserved; \
         its operator has to make room, or users to remove files)"
    )
}

impl StorageError {
    pub(crate) fn not_found(path: &VirtualPath) -> Self {
        Self::NotFound {
            what: "file or directory",
            path: path.clone(),
        }
    }

    /// Says that a directory, or a file, was looked for.
    pub(crate) fn looking_for(self, what: &'static str) -> Self {
        match self {
            Self::NotFound { path, .. } => Self::NotFound { what, path },
            other => other,
        }
    }

    pub(crate) fn denied(path: &VirtualPath) -> Self {
        Self::Denied { path: path.clone() }
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
            // The resolver's own word for a path that leads out, which is as if absent.
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
            // Opening a socket, or a device that is not there, says NXIO.
            Errno::ACCESS | Errno::PERM | Errno::NXIO | Errno::NODEV => Self::Denied { path },
            Errno::NOSPC | Errno::DQUOT => Self::NoSpace { path, room: None },
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

/// Turns what the system said into what the member is told.
pub(crate) trait ErrorContext<T> {
    /// Says what was being done, and to which virtual path.
    fn at(self, doing: &'static str, path: &VirtualPath) -> Result<T, StorageError>;
}

impl<T, E: Into<io::Error>> ErrorContext<T> for Result<T, E> {
    fn at(self, doing: &'static str, path: &VirtualPath) -> Result<T, StorageError> {
        self.map_err(|error| StorageError::from_io(error.into(), doing, path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_path(error: io::Error) -> StorageError {
        let path = VirtualPath::parse("/a/b").expect("sound");
        Err::<(), _>(error).at("write", &path).expect_err("failed")
    }

    #[test]
    fn a_full_disk_and_a_full_disk_quota_are_no_space() {
        for errno in [Errno::NOSPC, Errno::DQUOT] {
            let error = at_path(errno.into());
            assert!(matches!(error, StorageError::NoSpace { .. }));
            assert_eq!(error.to_string(), "no space left on the server: /a/b");
        }
    }

    #[test]
    fn a_failing_disk_is_told_with_what_was_being_done() {
        let error = at_path(Errno::IO.into());
        assert!(matches!(error, StorageError::Io { doing: "write", .. }));
        assert!(error.to_string().starts_with("could not write /a/b: "));
    }

    #[test]
    fn a_path_that_leads_out_is_as_if_absent() {
        let escape = io::Error::new(io::ErrorKind::PermissionDenied, "it leads out");
        assert!(matches!(at_path(escape), StorageError::NotFound { .. }));
        let denied = at_path(Errno::ACCESS.into());
        assert!(matches!(denied, StorageError::Denied { .. }));
    }

    #[test]
    fn a_quota_is_told_in_its_unit() {
        let exceeded = |files| StorageError::QuotaExceeded {
            path: VirtualPath::root(),
            used: 3,
            limit: 4,
            files,
        };
        let entries = exceeded(true).to_string();
        assert!(entries.contains("3 of 4 files and directories"));
        assert!(exceeded(false).to_string().contains("3 of 4 bytes"));
    }
}
