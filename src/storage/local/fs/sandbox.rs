//! The sandbox: the one resolver through which every path becomes an open file.
//!
//! Only cap-std opens a path of several components: with `openat2` beneath an open root if the kernel
//! has it, else component by component, in either case immune to links that are swapped in meanwhile.
//! An [`OpenDir`] works on one name in an open directory and never follows a link.

use std::fs::File;
use std::io;
use std::iter;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use rustix::fs::{
    AtFlags, CWD, Dir as Entries, Mode, OFlags, RenameFlags, StatxFlags, fstatvfs, fsync, mkdirat,
    openat, readlinkat, renameat, renameat_with, statx, syncfs, unlinkat,
};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::storage::local::fs::metadata::Metadata;
use crate::storage::path::VirtualPath;

/// Only the server may read the files of members.
const DIR_MODE: Mode = Mode::RWXU;
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A root that no path leads out of.
#[derive(Debug)]
pub(crate) struct Sandbox {
    root: Dir,
}

impl Sandbox {
    pub(crate) fn new(root: OpenDir) -> Self {
        Self {
            root: Dir::from_std_file(root.file),
        }
    }

    /// Opens the entry at `path` for reading, following links that stay inside. Never blocks, even on
    /// a FIFO.
    pub(crate) fn open(&self, path: &VirtualPath) -> io::Result<(File, Metadata)> {
        let file = self.open_with(path, OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let meta = Metadata::of_open(&file)?;
        Ok((file, meta))
    }

    /// The metadata of the entry at `path`, following links that stay inside.
    pub(crate) fn look(&self, path: &VirtualPath) -> io::Result<Metadata> {
        Metadata::of_open(self.open_with(path, OFlags::PATH)?)
    }

    pub(crate) fn open_dir(&self, path: &VirtualPath) -> io::Result<OpenDir> {
        let file = self.open_with(path, OFlags::DIRECTORY)?;
        Ok(OpenDir { file })
    }

    /// The number of missing directories on the way to `path`, itself included.
    pub(crate) fn missing_dirs(&self, path: &VirtualPath) -> io::Result<u64> {
        let mut missing = 0;
        for dir in iter::successors(Some(path.clone()), VirtualPath::parent) {
            match self.open_dir(&dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => missing += 1,
                opened => return opened.map(|_| missing),
            }
        }
        Ok(missing)
    }

    /// Calls `make` for each missing directory on the way to `path`, with the directory above it, and
    /// opens the last.
    pub(crate) fn make_dirs(
        &self,
        path: &VirtualPath,
        mut make: impl FnMut(&OpenDir, &str) -> io::Result<()>,
    ) -> io::Result<OpenDir> {
        let mut path_so_far = VirtualPath::root();
        let mut dir = self.open_dir(&path_so_far)?;
        for name in path.components() {
            let next = path_so_far.join_name(name).map_err(io::Error::other)?;
            let opened = match self.open_dir(&next) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    make(&dir, name)?;
                    dir.open_dir(name)?
                }
                opened => opened?,
            };
            (path_so_far, dir) = (next, opened);
        }
        Ok(dir)
    }

    /// The path of an open directory below the root, if it has one, from the system's names of the two
    /// handles; no path is looked up.
    pub(crate) fn path_of(&self, dir: &OpenDir) -> Option<VirtualPath> {
        let name = |fd: BorrowedFd<'_>| {
            let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
            readlinkat(CWD, link, Vec::new()).ok()
        };
        let (root, dir) = (name(self.root.as_fd())?, name(dir.as_fd())?);
        let inner = dir.to_str().ok()?.strip_prefix(root.to_str().ok()?)?;
        let path = VirtualPath::parse(&format!("/{inner}")).ok()?;
        let is_it = inner.is_empty() || path.as_str() == inner;
        is_it.then_some(path)
    }

    fn open_with(&self, path: &VirtualPath, flags: OFlags) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(flags.bits().cast_signed());
        let file = self.root.open_with(path.relative(), &options)?;
        Ok(file.into_std())
    }
}

/// An open directory. It stays the same one, whatever happens to its name.
#[derive(Debug)]
pub(crate) struct OpenDir {
    file: File,
}

impl OpenDir {
    /// Opens a directory by its path on the server's disk. For paths of the operator only.
    pub(crate) fn open_ambient(path: &std::path::Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self::from(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Opens the directory `name`; a link is refused.
    pub(crate) fn open_dir(&self, name: impl Arg) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self::from(openat(&self.file, name, flags, Mode::empty())?))
    }

    /// Opens the file `name` for reading; a link is refused, and nothing blocks.
    pub(crate) fn open_file(&self, name: impl Arg) -> io::Result<(File, Metadata)> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(openat(&self.file, name, flags, Mode::empty())?);
        let meta = Metadata::of_open(&file)?;
        Ok((file, meta))
    }

    /// Opens the file `name` for writing and for reading it back; a link is refused.
    pub(crate) fn open_file_to_write(&self, name: impl Arg) -> io::Result<(File, Metadata)> {
        let flags =
            OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(openat(&self.file, name, flags, Mode::empty())?);
        let meta = Metadata::of_open(&file)?;
        Ok((file, meta))
    }

    /// Makes the file `name`, open for writing and for reading it back.
    pub(crate) fn create_file(&self, name: impl Arg) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        Ok(File::from(openat(&self.file, name, flags, FILE_MODE)?))
    }

    pub(crate) fn make_dir(&self, name: impl Arg) -> io::Result<()> {
        Ok(mkdirat(&self.file, name, DIR_MODE)?)
    }

    /// The metadata of `name`, if it exists.
    pub(crate) fn meta(&self, name: impl Arg) -> io::Result<Option<Metadata>> {
        match Metadata::of_name(&self.file, name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            meta => meta.map(Some),
        }
    }

    /// The metadata of the directory itself.
    pub(crate) fn own_meta(&self) -> io::Result<Metadata> {
        Metadata::of_open(&self.file)
    }

    /// Removes `name`, unless it is a directory.
    pub(crate) fn remove_file(&self, name: impl Arg) -> io::Result<()> {
        Ok(unlinkat(&self.file, name, AtFlags::empty())?)
    }

    /// Removes the directory `name` if it is empty.
    pub(crate) fn remove_dir(&self, name: impl Arg) -> io::Result<()> {
        Ok(unlinkat(&self.file, name, AtFlags::REMOVEDIR)?)
    }

    /// Moves `name` to a free name. The caller holds the lock on the names and has checked it.
    pub(crate) fn rename_new(&self, name: &str, dir: &Self, to: &str) -> io::Result<()> {
        match renameat_with(&self.file, name, &dir.file, to, RenameFlags::NOREPLACE) {
            // The file system does not support it.
            Err(Errno::INVAL | Errno::NOSYS) => self.rename_over(name, dir, to),
            renamed => Ok(renamed?),
        }
    }

    /// Moves `name` if `to` is free; `false`, and nothing is moved, if it is not or the file system
    /// cannot tell.
    pub(crate) fn rename_if_free(&self, name: &str, dir: &Self, to: &str) -> io::Result<bool> {
        match renameat_with(&self.file, name, &dir.file, to, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST | Errno::INVAL | Errno::NOSYS) => Ok(false),
            renamed => Ok(renamed.map(|()| true)?),
        }
    }

    /// Moves `name`, and replaces an entry at `to` in the same step.
    pub(crate) fn rename_over(&self, name: &str, dir: &Self, to: &str) -> io::Result<()> {
        Ok(renameat(&self.file, name, &dir.file, to)?)
    }

    /// Swaps `name` with the entry at `to` in one step; `false`, and nothing is moved, if the file
    /// system does not support it.
    pub(crate) fn exchange(&self, name: &str, dir: &Self, to: &str) -> io::Result<bool> {
        match renameat_with(&self.file, name, &dir.file, to, RenameFlags::EXCHANGE) {
            Err(Errno::INVAL | Errno::NOSYS) => Ok(false),
            swapped => Ok(swapped.map(|()| true)?),
        }
    }

    /// The entries, in the order of the file system.
    pub(crate) fn entries(&self) -> io::Result<Entries> {
        Ok(Entries::read_from(&self.file)?)
    }

    /// Syncs the names in the directory, so that they survive a power cut.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(fsync(&self.file)?)
    }

    /// Syncs everything written to the file system so far.
    pub(crate) fn sync_file_system(&self) -> io::Result<()> {
        Ok(syncfs(&self.file)?)
    }

    /// The usage of its disk.
    pub(crate) fn disk(&self) -> io::Result<DiskUsage> {
        let disk = fstatvfs(&self.file)?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Ok(DiskUsage {
            free_bytes: bytes(disk.f_bavail),
            bytes: bytes(disk.f_blocks),
            free_inodes: disk.f_favail,
            inodes: disk.f_files,
        })
    }

    /// The mount of the directory. No file can be renamed from one mount to another.
    pub(crate) fn mount(&self) -> io::Result<MountInfo> {
        let flags = AtFlags::EMPTY_PATH;
        let stat = statx(&self.file, c"", flags, StatxFlags::MNT_ID)?;
        Ok(MountInfo {
            id: stat.stx_mnt_id,
            device: (stat.stx_dev_major, stat.stx_dev_minor),
        })
    }
}

/// The usage of a disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DiskUsage {
    /// Bytes that may still be written.
    pub(crate) free_bytes: u64,
    pub(crate) bytes: u64,
    /// Inodes that may still be made.
    pub(crate) free_inodes: u64,
    /// 0 if the file system has no fixed number of them.
    pub(crate) inodes: u64,
}

/// A mount. Two mounts of one file system differ in `id`, two subvolumes of one mount in `device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MountInfo {
    id: u64,
    device: (u32, u32),
}

impl From<OwnedFd> for OpenDir {
    fn from(fd: OwnedFd) -> Self {
        Self { file: fd.into() }
    }
}

impl AsFd for OpenDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
