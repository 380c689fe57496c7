//! Copies: a file or a tree is staged like an upload, so that it appears complete or not at all.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{copy_file_range, ioctl_ficlone};
use rustix::io::Errno;

use crate::protocol::{FileMode, IfExists};
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::file::StoredFile;
use crate::storage::local::fs::attributes::keep_new_version;
use crate::storage::local::fs::install::check;
use crate::storage::local::fs::metadata::{EntryKind, Metadata};
use crate::storage::local::fs::mode::{keep_mode, read_mode};
use crate::storage::local::fs::publish::publish_synced;
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::fs::staging::Staged;
use crate::storage::local::fs::tree::{Reach, open_child};
use crate::storage::local::rename::into_itself;
use crate::storage::local::reservation::Reservation;
use crate::storage::local::space_count::SpaceCount;
use crate::storage::path::{VirtualPath, is_valid_name};
use crate::storage::rights::Right;

/// Bytes copied between two checks of whether to stop.
const COPY_STEP_BYTES: u64 = 4 * 1024 * 1024;

/// Bytes copied at a time if they pass through memory.
const BUFFER_BYTES: usize = 256 * 1024;

/// Copies the file or tree at `from` to `to`, and returns its path. The copy has the time of the call
/// and versions of its own; stored digests and modes are copied.
///
/// A link to a file is copied as the file. Links to directories, and entries that a listing does not
/// show, are left out.
pub(crate) fn copy(
    from: &ResolvedPath,
    to: &ResolvedPath,
    if_exists: IfExists,
    stop: &dyn Fn() -> bool,
) -> Result<VirtualPath, StorageError> {
    from.require(Right::Read)?;
    to.require(Right::Write)?;
    to.require_not_root()?;
    let (file, meta) = from
        .space
        .sandbox
        .open(&from.inner)
        .context("open", &from.full)?;
    let is_dir = meta.kind == EntryKind::Dir;
    if is_dir && to.full.starts_with(&from.full) && to.full != from.full {
        return Err(into_itself(to));
    }
    check(to, is_dir, if_exists, false)?;
    let mut copying = StagedCopy::begin(from, to, stop);
    let staged = if is_dir {
        from.require(Right::List)?;
        copying.stage_tree(from, &OwnedFd::from(file).into())?
    } else {
        copying.stage_file(&StoredFile::from_open(from, file, meta)?)?
    };
    copying.publish(staged, if_exists)
}

/// Copies the file at `from`, which must have that `version`, from another member's view to `to`. The
/// copy is a file of its own, never a hard link: what one member does to it does not affect the other.
pub(crate) fn receive(
    from: &ResolvedPath,
    version: &str,
    to: &ResolvedPath,
    if_exists: IfExists,
    stop: &dyn Fn() -> bool,
) -> Result<VirtualPath, StorageError> {
    to.require(Right::Write)?;
    to.require_not_root()?;
    let source = StoredFile::open(from)?;
    if source.info().version.as_deref() != Some(version) {
        return Err(StorageError::changed(&from.full));
    }
    check(to, false, if_exists, false)?;
    let mut copying = StagedCopy::begin(from, to, stop);
    let staged = copying.stage_file(&source)?;
    copying.publish(staged, if_exists)
}

struct StagedCopy<'a> {
    from: &'a ResolvedPath,
    to: &'a ResolvedPath,
    reservation: Reservation,
    /// How far the copied tree reaches below its top.
    reach: Reach,
    /// Whether each part of a tree is synced by itself.
    syncs_each: bool,
    stop: &'a dyn Fn() -> bool,
}

impl<'a> StagedCopy<'a> {
    fn begin(from: &'a ResolvedPath, to: &'a ResolvedPath, stop: &'a dyn Fn() -> bool) -> Self {
        Self {
            from,
            to,
            reservation: Reservation::new(&to.space),
            reach: Reach::default(),
            syncs_each: false,
            stop,
        }
    }

    fn publish(self, staged: Staged, if_exists: IfExists) -> Result<VirtualPath, StorageError> {
        self.check_stop()?;
        publish_synced(staged, self.reservation, self.to, self.reach, if_exists)
    }

    fn stage_file(&mut self, source: &StoredFile) -> Result<Staged, StorageError> {
        let staging = &self.to.space.staging;
        self.reserve_file(source)?;
        let (staged, file) = staging.create_file().context("stage", &self.to.full)?;
        self.copy_file(source, &file)?;
        staging
            .record_sync(file.sync_all())
            .context("sync", &self.to.full)?;
        Ok(staged)
    }

    fn stage_tree(
        &mut self,
        from: &ResolvedPath,
        source: &OpenDir,
    ) -> Result<Staged, StorageError> {
        let staging = &self.to.space.staging;
        self.reservation
            .reserve(SpaceCount::entries(1), &self.to.full)?;
        let sync_handle = staging.tree_sync_handle().context("stage", &self.to.full)?;
        self.syncs_each = sync_handle.is_none();
        let (staged, target) = staging.create_dir().context("stage", &self.to.full)?;
        self.copy_tree(from, source, &self.to.full, &target)?;
        if let Some(sync_handle) = sync_handle {
            let synced = staging.record_sync(sync_handle.sync_file_system());
            synced.context("sync", &self.to.full)?;
        }
        Ok(staged)
    }

    fn copy_tree(
        &mut self,
        from: &ResolvedPath,
        source: &OpenDir,
        to: &VirtualPath,
        target: &OpenDir,
    ) -> Result<(), StorageError> {
        self.copy_mode(read_mode(source), target)?;
        let mut entries = source.entries().context("list", &from.full)?;
        while let Some(entry) = entries.read() {
            self.check_stop()?;
            let entry = entry.context("list", &from.full)?;
            let name = entry.file_name().to_str().ok();
            let Some(name) = name.filter(|name| is_valid_name(name)) else {
                continue;
            };
            // An entry deeper than a path can be has no name here, and the copy would lack it.
            let child = from.child(name)?;
            let to = to.join_name(name)?;
            self.reach = self.reach.max(Reach::between(&self.to.full, &to));
            let there = source.meta(name).context("look at", &child.full)?;
            match there.map(|meta| meta.kind) {
                Some(EntryKind::Dir) => {
                    let opened =
                        open_child(source, entry.file_name()).context("open", &child.full)?;
                    if let Some(opened) = opened {
                        self.reservation
                            .reserve(SpaceCount::entries(1), &self.to.full)?;
                        target.make_dir(name).context("stage", &to)?;
                        let made = target.open_dir(name).context("stage", &to)?;
                        self.copy_tree(&child, &opened, &to, &made)?;
                    }
                }
                Some(EntryKind::File) => {
                    self.copy_child(&child, source.open_file(name), &to, target)?;
                }
                // The target is checked first: opening one that is not a file may fail.
                Some(EntryKind::Link) => match child.space.sandbox.look(&child.inner) {
                    Ok(meta) if meta.kind != EntryKind::File => {}
                    Ok(_) => {
                        let opened = child.space.sandbox.open(&child.inner);
                        self.copy_child(&child, opened, &to, target)?;
                    }
                    Err(error) => self.copy_child(&child, Err(error), &to, target)?,
                },
                Some(EntryKind::Special) | None => {}
            }
        }
        self.sync_each(to, || target.sync())
    }

    /// Syncs one part of a tree, if one sync of the file system would not report every failure.
    fn sync_each(
        &self,
        path: &VirtualPath,
        sync: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), StorageError> {
        if !self.syncs_each {
            return Ok(());
        }
        self.to
            .space
            .staging
            .record_sync(sync())
            .context("sync", path)
    }

    /// Copies an open child, if it is still a file. A file that cannot be opened fails the copy, which
    /// would lack it silently.
    fn copy_child(
        &mut self,
        child: &ResolvedPath,
        opened: io::Result<(File, Metadata)>,
        to: &VirtualPath,
        target: &OpenDir,
    ) -> Result<(), StorageError> {
        let (file, meta) = match opened.context("open", &child.full) {
            Ok((file, meta)) if meta.kind == EntryKind::File => (file, meta),
            Ok(_) | Err(StorageError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let name = to.name().unwrap_or_default();
        let source = StoredFile::from_open(child, file, meta)?;
        self.reserve_file(&source)?;
        let made = target.create_file(name).context("stage", to)?;
        self.copy_file(&source, &made)?;
        self.sync_each(to, || made.sync_all())
    }

    fn reserve_file(&mut self, source: &StoredFile) -> Result<(), StorageError> {
        let (count, path) = (SpaceCount::file(source.info().size), &self.to.full);
        self.to
            .space
            .staging
            .check_free(SpaceCount::entries(1), path)?;
        self.reservation.reserve_quota(count, path)
    }

    fn copy_file(&mut self, source: &StoredFile, target: &File) -> Result<(), StorageError> {
        let size = source.info().size;
        let path = source.path();
        self.copy_bytes(source, target, size)?;
        self.reservation.release_written(u64::MAX);
        source.check_unchanged()?;
        let meta = Metadata::of_open(target).context("look at", &self.to.full)?;
        if meta.size != size {
            return Err(StorageError::changed(path));
        }
        keep_new_version(target, &meta, &self.to.full, source.kept_digests())
            .context("write", &self.to.full)?;
        self.copy_mode(source.info().mode, target)
    }

    fn copy_mode(&self, mode: Option<FileMode>, target: impl AsFd) -> Result<(), StorageError> {
        if let Some(mode) = mode {
            keep_mode(target, mode).context("write", &self.to.full)?;
        }
        Ok(())
    }

    /// Shares the blocks if the file system can, else lets the kernel copy, else copies through
    /// memory.
    fn copy_bytes(
        &mut self,
        source: &StoredFile,
        target: &File,
        size: u64,
    ) -> Result<(), StorageError> {
        if ioctl_ficlone(target, source.handle()).is_ok() {
            return Ok(());
        }
        self.reservation
            .reserve_disk(SpaceCount::bytes(size), &self.to.full)?;
        let (mut read, mut written) = (0, 0);
        while written < size {
            self.check_stop()?;
            let length =
                usize::try_from(COPY_STEP_BYTES.min(size - written)).unwrap_or(BUFFER_BYTES);
            let (input, output) = (Some(&mut read), Some(&mut written));
            match copy_file_range(source.handle(), input, target, output, length) {
                Ok(0) => return Err(StorageError::changed(source.path())),
                Ok(copied) => self.reservation.release_written(copied as u64),
                Err(Errno::INTR) => {}
                Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM) => {
                    return self.copy_through_memory(source, target, written, size);
                }
                Err(error) => return Err(error).context("copy", &self.to.full),
            }
        }
        Ok(())
    }

    fn copy_through_memory(
        &mut self,
        source: &StoredFile,
        target: &File,
        mut offset: u64,
        size: u64,
    ) -> Result<(), StorageError> {
        while offset < size {
            self.check_stop()?;
            let length =
                usize::try_from(size - offset).map_or(BUFFER_BYTES, |rest| rest.min(BUFFER_BYTES));
            let bytes = source.read_at(offset, length)?;
            target
                .write_all_at(&bytes, offset)
                .context("copy", &self.to.full)?;
            self.reservation.release_written(length as u64);
            offset += length as u64;
        }
        Ok(())
    }

    fn check_stop(&self) -> Result<(), StorageError> {
        if (self.stop)() {
            let path = self.to.full.clone();
            return Err(StorageError::Cancelled { path });
        }
        self.from.require(Right::Read)?;
        self.to.require(Right::Write)
    }
}
