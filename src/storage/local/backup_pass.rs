//! The passes of a backup: each copies what has changed since the pass before.
//!
//! A pass knows an entry that an earlier pass has copied by its state: device, inode, change time,
//! size and modification time. Size and modification time alone do not distinguish two files that
//! have swapped their names.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::hash::BuildHasher as _;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    Timespec, Timestamps, UTIME_OMIT, XattrFlags, fgetxattr, flistxattr, fsetxattr, futimens,
    ioctl_ficlone, readlinkat, symlinkat,
};
use rustix::io::Errno;

use crate::io_error::describe_io_error;
use crate::storage::local::fs::attributes::Attributes;
use crate::storage::local::fs::metadata::{EntryKind, Metadata};
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::fs::tree;
use crate::storage::local::fs::tree::Descent;

/// The most passes over all trees, and the most copies of a file that changes meanwhile.
pub(crate) const MAX_PASSES: usize = 5;

/// Bytes copied between two calls of the watcher.
const COPY_STEP_BYTES: u64 = 4 * 1024 * 1024;

/// More bytes than any list of attributes, and any attribute, that Linux keeps.
const MAX_ATTRIBUTE_BYTES: usize = 64 * 1024;

/// Bytes that are read at a time after a failure, to find out whether the source is at fault.
const PROBE_BYTES: usize = 128 * 1024;

/// Reads of [`PROBE_BYTES`] after a failure.
const MAX_PROBES: usize = 1024;

/// The progress of a backup.
#[derive(Debug)]
pub enum BackupStep {
    /// The copy of a file of so many bytes begins.
    File(u64),
    /// So many bytes more are copied.
    Bytes(u64),
    /// The file is copied.
    Done,
    /// The entry at this path cannot be read and is left out.
    LeftOut(PathBuf, io::Error),
    /// The file at this path changed during each copy. The copy may be a mixture of contents.
    Changing(PathBuf),
}

/// Receives the progress of a backup and returns whether it continues.
pub type BackupWatcher<'a> = &'a mut dyn FnMut(BackupStep) -> bool;

/// The state of the passes of a backup.
pub(crate) struct BackupPass<'a> {
    watcher: BackupWatcher<'a>,
    /// The entry that is being copied, in the data directory.
    path: PathBuf,
    /// Whether something has changed since the pass before.
    has_changes: bool,
    /// The state in which each file was copied and each directory was read, by a hash of its path.
    copied_states: HashMap<u64, [u8; 16]>,
    path_hasher: RandomState,
    /// Entries that were reported as unreadable.
    left_out: HashSet<PathBuf>,
    /// Files that changed during each copy in this pass.
    changing: HashSet<PathBuf>,
}

impl<'a> BackupPass<'a> {
    pub(crate) fn new(watcher: BackupWatcher<'a>) -> Self {
        Self {
            watcher,
            path: PathBuf::new(),
            has_changes: false,
            copied_states: HashMap::new(),
            path_hasher: RandomState::new(),
            left_out: HashSet::new(),
            changing: HashSet::new(),
        }
    }

    /// Begins the next pass.
    pub(crate) fn begin(&mut self) {
        self.has_changes = false;
        self.changing.clear();
    }

    pub(crate) fn has_changes(&self) -> bool {
        self.has_changes
    }

    /// Reports the files that changed during each copy in the last pass.
    pub(crate) fn report_changing(&mut self) -> io::Result<()> {
        for path in std::mem::take(&mut self.changing) {
            self.report(BackupStep::Changing(path))?;
        }
        Ok(())
    }

    /// Copies the tree `from`, which is at `path` of the data directory.
    ///
    /// # Errors
    /// The system's error with the path that it concerns; see also [`is_stopped`].
    pub(crate) fn copy_tree(
        &mut self,
        path: &Path,
        from: &OpenDir,
        to: &OpenDir,
    ) -> io::Result<()> {
        path.clone_into(&mut self.path);
        let copied = self.copy_levels(from, to);
        copied.map_err(|error| match error {
            error if is_stopped(&error) => error,
            error => {
                let message = format!("{}: {}", self.path.display(), describe_io_error(&error));
                io::Error::new(error.kind(), message)
            }
        })
    }

    /// Copies a tree of any depth, without recursion.
    fn copy_levels(&mut self, from: &OpenDir, to: &OpenDir) -> io::Result<()> {
        let (mut from, mut to) = (Descent::new(from)?, Descent::new(to)?);
        let mut pending = vec![self.copy_level(from.dir(), to.dir())?];
        while let Some(names) = pending.last_mut() {
            if let Some(name) = names.pop() {
                self.path.push(OsStr::from_bytes(name.to_bytes()));
                if self.enter(&mut from, &mut to, &name)? {
                    pending.push(self.copy_level(from.dir(), to.dir())?);
                } else {
                    self.path.pop();
                }
                continue;
            }
            copy_attributes(from.dir(), to.dir())?;
            // The entries are copied by now; each copy has changed the time.
            set_modified(to.dir(), &from.dir().own_meta()?)?;
            pending.pop();
            match from.leave() {
                // The directory was moved meanwhile. The next pass finds it at its new path.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::STALE) => {
                    self.has_changes = true;
                    return Ok(());
                }
                left => left?,
            };
            if to.leave()? {
                self.path.pop();
            }
        }
        Ok(())
    }

    /// Goes down to the directory `name`; `false` if it is gone or cannot be read.
    fn enter(&mut self, from: &mut Descent, to: &mut Descent, name: &CStr) -> io::Result<bool> {
        match from.enter(name) {
            Ok(true) => {
                open_or_make_dir(to.dir(), name)?;
                if !to.enter(name)? {
                    return Err(Errno::NOTDIR.into());
                }
                Ok(true)
            }
            Ok(false) => {
                self.has_changes = true;
                Ok(false)
            }
            Err(error) => self.leave_out(error).map(|()| false),
        }
    }

    /// Copies the entries of a directory, except for directories, whose names it returns.
    fn copy_level(&mut self, from: &OpenDir, to: &OpenDir) -> io::Result<Vec<CString>> {
        let mut dirs = Vec::new();
        // The state from before it is read: the next pass sees every later change.
        let meta = from.own_meta()?;
        let before = self.record_copied(&meta);
        self.has_changes |= before != Some(meta.state());
        tree::for_each(from, |entry| {
            let name = entry.file_name();
            self.path.push(OsStr::from_bytes(name.to_bytes()));
            if self.copy_entry(from, to, name)? {
                dirs.push(name.to_owned());
            }
            // After an error the path stays, for the message.
            self.path.pop();
            Ok(())
        })?;
        Ok(dirs)
    }

    /// Records the state in which the current path is copied, and returns the one before.
    fn record_copied(&mut self, meta: &Metadata) -> Option<[u8; 16]> {
        let key = self.path_hasher.hash_one(&self.path);
        self.copied_states.insert(key, meta.state())
    }

    fn is_copied(&self, meta: &Metadata) -> bool {
        let key = self.path_hasher.hash_one(&self.path);
        self.copied_states.get(&key) == Some(&meta.state())
    }

    /// Copies an entry, unless it is a directory; `true` if it is one.
    fn copy_entry(&mut self, from: &OpenDir, to: &OpenDir, name: &CStr) -> io::Result<bool> {
        let Some(meta) = from.meta(name)? else {
            // It was removed or moved since its directory was read, perhaps to one that this pass
            // has copied already.
            self.has_changes = true;
            return Ok(false);
        };
        let copy = to.meta(name)?;
        if copy.as_ref().is_some_and(|copy| copy.kind != meta.kind)
            && let Some(error) = tree::delete(to, name).failed
        {
            return Err(error);
        }
        match meta.kind {
            EntryKind::Dir => return Ok(true),
            _ if copy.is_some() && self.is_copied(&meta) => {}
            EntryKind::File => self.copy_file(from, to, name)?,
            EntryKind::Link => self.copy_link(from, to, name, &meta)?,
            EntryKind::Special => {}
        }
        Ok(false)
    }

    fn copy_link(
        &mut self,
        from: &OpenDir,
        to: &OpenDir,
        name: &CStr,
        meta: &Metadata,
    ) -> io::Result<()> {
        self.has_changes = true;
        match readlinkat(from, name, Vec::new()) {
            // The name belongs to another entry by now, or to none.
            Err(Errno::NOENT | Errno::INVAL) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(target) => {
                remove_file(to, name)?;
                symlinkat(target, to, name)?;
                self.record_copied(meta);
                Ok(())
            }
        }
    }

    /// Copies the file `name`, again if it was written to meanwhile.
    fn copy_file(&mut self, from: &OpenDir, to: &OpenDir, name: &CStr) -> io::Result<()> {
        for _ in 0..MAX_PASSES {
            let (source, meta) = match from.open_file(name) {
                Ok((source, meta)) if meta.kind == EntryKind::File => (source, meta),
                Ok(_) => {
                    self.has_changes = true;
                    return Ok(());
                }
                Err(error) => return self.leave_out(error),
            };
            remove_file(to, name)?;
            let target = to.create_file(name)?;
            self.report(BackupStep::File(meta.size))?;
            if let Err(error) = self.copy_bytes(&source, &target, meta.size) {
                if is_unreadable(&error) {
                    to.remove_file(name)?;
                }
                return self.leave_out(error);
            }
            copy_attributes(&source, &target)?;
            if Attributes::read(&source, &meta).is_none() {
                // The version is derived from metadata that the copy does not have. On a file
                // system without attributes the copy has another version.
                let _ = Attributes::of(&source, &meta).keep(&target, &meta);
            }
            set_modified(&target, &meta)?;
            self.has_changes = true;
            self.record_copied(&meta);
            if Metadata::of_open(&source)?.state() == meta.state() {
                self.changing.remove(&self.path);
                return self.report(BackupStep::Done);
            }
        }
        self.changing.insert(self.path.clone());
        self.report(BackupStep::Done)
    }

    /// Shares the blocks if the file system can, else lets the kernel copy.
    fn copy_bytes(&mut self, mut source: &File, mut target: &File, size: u64) -> io::Result<()> {
        if ioctl_ficlone(target, source).is_ok() {
            return self.report(BackupStep::Bytes(size));
        }
        loop {
            match io::copy(&mut source.by_ref().take(COPY_STEP_BYTES), &mut target) {
                Ok(0) => return Ok(()),
                Ok(copied) => self.report(BackupStep::Bytes(copied))?,
                Err(error) => return Err(copy_error(error, source)),
            }
        }
    }

    fn report(&mut self, step: BackupStep) -> io::Result<()> {
        if (self.watcher)(step) {
            Ok(())
        } else {
            Err(Errno::CANCELED.into())
        }
    }

    /// Continues without an entry that cannot be read. An error of writing ends the backup.
    fn leave_out(&mut self, error: io::Error) -> io::Result<()> {
        if error.kind() == io::ErrorKind::NotFound {
            self.has_changes = true;
            return Ok(());
        }
        if !is_unreadable(&error) {
            return Err(error);
        }
        // Each pass comes to the entry again, and it is reported once.
        if self.left_out.insert(self.path.clone()) {
            return self.report(BackupStep::LeftOut(self.path.clone(), error));
        }
        Ok(())
    }
}

/// Opens the directory `name`, and makes it if it is missing.
pub(crate) fn open_or_make_dir(
    parent: &OpenDir,
    name: impl rustix::path::Arg + Copy,
) -> io::Result<OpenDir> {
    match parent.make_dir(name) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => parent.open_dir(name),
    }
}

/// Whether the watcher has stopped the backup.
pub(crate) fn is_stopped(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::CANCELED)
}

fn remove_file(dir: &OpenDir, name: &CStr) -> io::Result<()> {
    match dir.remove_file(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether the error concerns one entry: a bad sector, or an entry that others have put there.
fn is_unreadable(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::IO | Errno::ACCESS | Errno::PERM | Errno::LOOP | Errno::NOTDIR)
    )
}

/// The error of a copy. If it came from writing, it is no longer one of [`is_unreadable`]: the
/// kernel reports both sides alike, so the source is read once more.
fn copy_error(error: io::Error, mut source: &File) -> io::Error {
    // The position shows how far the copy has come.
    let position = source.stream_position();
    match position.and_then(|position| probe_source(source, position)) {
        Ok(()) if is_unreadable(&error) => io::Error::other(format!(
            "cannot write the copy: {}",
            describe_io_error(&error)
        )),
        _ => error,
    }
}

/// Reads what one step of a copy may have tried to read.
fn probe_source(source: &File, mut offset: u64) -> io::Result<()> {
    let mut block = vec![0; PROBE_BYTES];
    for _ in 0..MAX_PROBES {
        match source.read_at(&mut block, offset)? {
            0 => break,
            read => offset += read as u64,
        }
    }
    Ok(())
}

/// Copies the attributes that programs give to files and directories, digests and modes among them,
/// unless the target file system keeps none.
fn copy_attributes(source: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let mut names = vec![0; MAX_ATTRIBUTE_BYTES];
    let length = match flistxattr(&source, &mut names) {
        Err(Errno::NOTSUP) => return Ok(()),
        length => length?,
    };
    let mut value = Vec::new();
    for name in names[..length].split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        if !name.to_bytes().starts_with(b"user.") {
            continue;
        }
        value.resize(MAX_ATTRIBUTE_BYTES, 0);
        let length = match fgetxattr(&source, name, &mut *value) {
            // A server has removed it as stale.
            Err(Errno::NODATA) => continue,
            length => length?,
        };
        match fsetxattr(&target, name, &value[..length], XattrFlags::empty()) {
            Err(Errno::NOTSUP) => return Ok(()),
            set => set?,
        }
    }
    Ok(())
}

/// Sets the modification time of an open entry to that of `meta`.
fn set_modified(open: impl AsFd, meta: &Metadata) -> io::Result<()> {
    let (seconds, nanoseconds) = meta.modified;
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds.into(),
        },
    };
    Ok(futimens(open, &times)?)
}
