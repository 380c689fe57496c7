//! The metadata of one entry, from one system call.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use rustix::fs::{
    AtFlags, FileType, Statx, StatxFlags, StatxTimestamp, Timespec, Timestamps, UTIME_OMIT,
    futimens, statx,
};
use rustix::path::Arg;
use serde::{Deserialize, Serialize};

/// The kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    Dir,
    Link,
    /// A FIFO, a socket or a device: never touched.
    Special,
}

/// Identifies a file on the disk, whatever its name, while it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    device: (u32, u32),
    inode: u64,
}

/// Identifies a file or directory, after a restart too. A later one with the same inode has another
/// identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileId {
    inode: u64,
    /// The time of its creation, if the file system stores it.
    born: Option<(i64, u32)>,
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanoseconds) = self.born.unwrap_or_default();
        write!(f, "{}@{seconds}.{nanoseconds}", self.inode)
    }
}

/// The metadata of an entry.
#[derive(Debug, Clone)]
pub(crate) struct Metadata {
    pub(crate) kind: EntryKind,
    pub(crate) size: u64,
    /// Seconds since 1970 and nanoseconds, as the file system stores them.
    pub(crate) modified: (i64, u32),
    /// When content or metadata last changed. No program can set it.
    changed: (i64, u32),
    pub(crate) identity: Identity,
    born: Option<(i64, u32)>,
}

impl Metadata {
    /// The metadata of an open file or directory.
    pub(crate) fn of_open(file: impl AsFd) -> io::Result<Self> {
        Self::query(file, c"", AtFlags::EMPTY_PATH)
    }

    /// The metadata of `name` in an open directory, without following a link.
    pub(crate) fn of_name(dir: impl AsFd, name: impl Arg) -> io::Result<Self> {
        Self::query(dir, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn query(dir: impl AsFd, name: impl Arg, flags: AtFlags) -> io::Result<Self> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        Ok(Self::from(statx(dir, name, flags, wanted)?))
    }

    /// The modification time, clamped to the range of a timestamp.
    pub(crate) fn timestamp(&self) -> Timestamp {
        let (seconds, nanoseconds) = self.modified;
        Timestamp::new(seconds, nanoseconds.cast_signed()).unwrap_or(if seconds < 0 {
            Timestamp::MIN
        } else {
            Timestamp::MAX
        })
    }

    /// The identifier of the entry, which does not change.
    pub(crate) fn file_id(&self) -> FileId {
        FileId {
            inode: self.identity.inode,
            born: self.born,
        }
    }

    /// Whether it is the same entry with the same content. Its name, its attributes and its mode may
    /// have changed.
    pub(crate) fn is_same_content(&self, other: &Self) -> bool {
        let fields = |meta: &Self| {
            (
                (meta.kind, meta.identity, meta.born),
                (meta.size, meta.modified),
            )
        };
        fields(self) == fields(other)
    }

    /// The version of a file that stores none.
    pub(crate) fn derived_version(&self) -> String {
        HEXLOWER.encode(&self.state())
    }

    /// Identifies one state of one entry. It differs after any change: of the content or, for a
    /// directory, of the names in it, and of the entry's own name, mode or attributes.
    pub(crate) fn state(&self) -> [u8; 16] {
        let (major, minor) = self.identity.device;
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(&major.to_le_bytes())
            .update(&minor.to_le_bytes())
            .update(&self.identity.inode.to_le_bytes())
            .update(&self.size.to_le_bytes());
        for (seconds, nanoseconds) in [self.modified, self.changed] {
            hasher
                .update(&seconds.to_le_bytes())
                .update(&nanoseconds.to_le_bytes());
        }
        let mut state = [0; 16];
        hasher.finalize_xof().fill(&mut state);
        state
    }
}

impl From<Statx> for Metadata {
    fn from(stat: Statx) -> Self {
        let time = |time: StatxTimestamp| (time.tv_sec, time.tv_nsec);
        Self {
            kind: match FileType::from_raw_mode(stat.stx_mode.into()) {
                FileType::RegularFile => EntryKind::File,
                FileType::Directory => EntryKind::Dir,
                FileType::Symlink => EntryKind::Link,
                _ => EntryKind::Special,
            },
            size: stat.stx_size,
            modified: time(stat.stx_mtime),
            changed: time(stat.stx_ctime),
            identity: Identity {
                device: (stat.stx_dev_major, stat.stx_dev_minor),
                inode: stat.stx_ino,
            },
            born: (stat.stx_mask & StatxFlags::BTIME.bits() != 0).then(|| time(stat.stx_btime)),
        }
    }
}

/// Sets the modification time of an open file or directory.
pub(crate) fn set_modification_time(file: &File, modified: Timestamp) -> io::Result<()> {
    let last_modification = timespec(modified);
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification,
    };
    Ok(futimens(file, &times)?)
}

/// A timestamp for the file system, in which nanoseconds count forwards before 1970 too.
fn timespec(time: Timestamp) -> Timespec {
    let (mut seconds, mut nanoseconds) = (time.as_second(), time.subsec_nanosecond());
    if nanoseconds < 0 {
        seconds -= 1;
        nanoseconds += 1_000_000_000;
    }
    Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.into(),
    }
}
