//! Copying: staged like an upload, a whole tree too, so that it appears at once or not at all.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{copy_file_range, ioctl_ficlone};
use rustix::io::Errno;

use crate::protocol::IfExists;
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::file::StoredFile;
use crate::storage::local::fs::install::check;
use crate::storage::local::fs::metadata::{EntryKind, Metadata};
use crate::storage::local::fs::publish::Publishing;
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::fs::staging::Staged;
use crate::storage::local::fs::tree::{Reach, open_child};
use crate::storage::local::quota::{Reservation, SpaceCount};
use crate::storage::local::rename::into_itself;
use crate::storage::local::upload::single::keep_new_version;
use crate::storage::path::{VirtualPath, is_valid_name};

/// Bytes copied at a time; whether to stop is asked once for each.
const PIECE: u64 = 4 * 1024 * 1024;

/// Bytes copied at a time where they pass through memory.
const BUFFER: usize = 256 * 1024;

/// Copies the file or tree at `from` to `to` and says which path it got. The copy is as new as
/// the call and has versions of its own; kept digests come along.
///
/// Links to files are copied as the files. Links to directories, and all that a listing leaves
/// out, are left out.
pub(crate) fn copy(
    from: &ResolvedPath,
    to: &ResolvedPath,
    if_exists: IfExists,
    stop: &dyn Fn() -> bool,
) -> Result<VirtualPath, StorageError> {
    from.require(|rights| rights.read)?;
    to.require(|rights| rights.write && !to.is_root())?;
    let (file, meta) = from.space.jail.open(&from.inner).at("open", &from.full)?;
    let is_dir = meta.what == EntryKind::Dir;
    if is_dir && to.full.starts_with(&from.full) && to.full != from.full {
        return Err(into_itself(to));
    }
    check(to, is_dir, if_exists, false)?;
    let mut copying = Copying::begin(from, to, stop);
    let staged = if is_dir {
        from.require(|rights| rights.list)?;
        copying.stage_tree(from, &OwnedFd::from(file).into())?
    } else {
        copying.stage_file(&StoredFile::of(from, file, meta)?)?
    };
    copying.publish(staged, if_exists)
}

/// Copies the file at `from`, which is to be that `version`, from another member's view to `to`.
/// Never by a second name of the same file: what one of them does to it is not the other's.
pub(crate) fn receive(
    from: &ResolvedPath,
    version: &str,
    to: &ResolvedPath,
    if_exists: IfExists,
    stop: &dyn Fn() -> bool,
) -> Result<VirtualPath, StorageError> {
    to.require(|rights| rights.write && !to.is_root())?;
    let source = StoredFile::open(from)?;
    if source.info().version.as_deref() != Some(version) {
        return Err(StorageError::changed(&from.full));
    }
    check(to, false, if_exists, false)?;
    let mut copying = Copying::begin(from, to, stop);
    let staged = copying.stage_file(&source)?;
    copying.publish(staged, if_exists)
}

struct Copying<'a> {
    from: &'a ResolvedPath,
    to: &'a ResolvedPath,
    reservation: Reservation,
    /// How far what is copied reaches below its top.
    reach: Reach,
    /// Each part of a tree is brought to the disk by itself.
    syncs_each: bool,
    stop: &'a dyn Fn() -> bool,
}

impl<'a> Copying<'a> {
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
        let publishing = Publishing {
            staged,
            reservation: self.reservation,
            to: self.to,
            reach: self.reach,
        };
        let published = publishing.publish(if_exists, false);
        published.map_err(|unpublished| unpublished.error)
    }

    fn stage_file(&mut self, source: &StoredFile) -> Result<Staged, StorageError> {
        let staging = &self.to.space.staging;
        self.reserve_file(source)?;
        let (staged, file) = staging.file().at("stage", &self.to.full)?;
        self.copy_file(source, &file)?;
        staging.synced(file.sync_all()).at("sync", &self.to.full)?;
        Ok(staged)
    }

    fn stage_tree(
        &mut self,
        from: &ResolvedPath,
        source: &OpenDir,
    ) -> Result<Staged, StorageError> {
        let staging = &self.to.space.staging;
        self.reservation
            .grow(SpaceCount::entries(1), &self.to.full)?;
        let witness = staging.tree_witness().at("stage", &self.to.full)?;
        self.syncs_each = witness.is_none();
        let (staged, target) = staging.directory().at("stage", &self.to.full)?;
        self.copy_tree(from, source, &self.to.full, &target)?;
        if let Some(witness) = witness {
            let synced = staging.synced(witness.sync_disk());
            synced.at("sync", &self.to.full)?;
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
        let mut entries = source.entries().at("list", &from.full)?;
        while let Some(entry) = entries.read() {
            self.check_stop()?;
            let entry = entry.at("list", &from.full)?;
            let name = entry.file_name().to_str().ok();
            let Some(name) = name.filter(|name| is_valid_name(name)) else {
                continue;
            };
            // What is deeper than a path can be has no name here, and a copy would be missing it.
            let child = child(from, name)?;
            let to = to.join_name(name)?;
            self.reach = self.reach.max(Reach::between(&self.to.full, &to));
            let there = source.meta(name).at("look at", &child.full)?;
            match there.map(|meta| meta.what) {
                Some(EntryKind::Dir) => {
                    let opened = open_child(source, entry.file_name()).at("open", &child.full)?;
                    if let Some(opened) = opened {
                        self.reservation
                            .grow(SpaceCount::entries(1), &self.to.full)?;
                        target.make_dir(name).at("stage", &to)?;
                        let made = target.open_dir(name).at("stage", &to)?;
                        self.copy_tree(&child, &opened, &to, &made)?;
                    }
                }
                Some(EntryKind::File) => {
                    self.copy_child(&child, source.open_file(name), &to, target)?
                }
                // Looked at first: opening what is no file may be refused, and it is left out.
                Some(EntryKind::Link) => match child.space.jail.look(&child.inner) {
                    Ok(meta) if meta.what != EntryKind::File => {}
                    Ok(_) => {
                        let opened = child.space.jail.open(&child.inner);
                        self.copy_child(&child, opened, &to, target)?;
                    }
                    Err(error) => self.copy_child(&child, Err(error), &to, target)?,
                },
                Some(EntryKind::Special) | None => {}
            }
        }
        self.sync_each(to, || target.sync())
    }

    /// Brings one of a tree to the disk, where one sync of all would not tell that it failed.
    fn sync_each(
        &self,
        path: &VirtualPath,
        sync: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), StorageError> {
        if !self.syncs_each {
            return Ok(());
        }
        self.to.space.staging.synced(sync()).at("sync", path)
    }

    /// Copies what was opened, if it is a file still. One that may not be opened fails the copy,
    /// which would be missing it without a word.
    fn copy_child(
        &mut self,
        child: &ResolvedPath,
        opened: io::Result<(File, Metadata)>,
        to: &VirtualPath,
        target: &OpenDir,
    ) -> Result<(), StorageError> {
        let (file, meta) = match opened.at("open", &child.full) {
            Ok((file, meta)) if meta.what == EntryKind::File => (file, meta),
            Ok(_) | Err(StorageError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let name = to.name().unwrap_or_default();
        let source = StoredFile::of(child, file, meta)?;
        self.reserve_file(&source)?;
        let made = target.create_file(name).at("stage", to)?;
        self.copy_file(&source, &made)?;
        self.sync_each(to, || made.sync_all())
    }

    fn reserve_file(&mut self, source: &StoredFile) -> Result<(), StorageError> {
        let (count, path) = (SpaceCount::file(source.info().size), &self.to.full);
        self.to
            .space
            .staging
            .check_room(SpaceCount::entries(1), path)?;
        self.reservation.grow_stored(count, path)
    }

    fn copy_file(&mut self, source: &StoredFile, target: &File) -> Result<(), StorageError> {
        let size = source.info().size;
        let path = source.path();
        self.copy_bytes(source, target, size)?;
        self.reservation.written(u64::MAX);
        source.check_unchanged()?;
        let meta = Metadata::of(target).at("look at", &self.to.full)?;
        if meta.size != size {
            return Err(StorageError::changed(path));
        }
        keep_new_version(target, &meta, self.to, source.kept_digests())
            .at("write", &self.to.full)
            .map(drop)
    }

    /// Shares the blocks where the file system can, else lets the kernel copy, else copies.
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
            .will_write(SpaceCount::bytes(size), &self.to.full)?;
        let (mut read, mut written) = (0, 0);
        while written < size {
            self.check_stop()?;
            let length = usize::try_from(PIECE.min(size - written)).unwrap_or(BUFFER);
            let (input, output) = (Some(&mut read), Some(&mut written));
            match copy_file_range(source.handle(), input, target, output, length) {
                Ok(0) => return Err(StorageError::changed(source.path())),
                Ok(copied) => self.reservation.written(copied as u64),
                Err(Errno::INTR) => {}
                Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM) => {
                    return self.copy_through_memory(source, target, written, size);
                }
                Err(error) => return Err(error).at("copy", &self.to.full),
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
            let length = usize::try_from(size - offset).map_or(BUFFER, |left| left.min(BUFFER));
            let bytes = source.read_at(offset, length)?;
            target
                .write_all_at(&bytes, offset)
                .at("copy", &self.to.full)?;
            self.reservation.written(length as u64);
            offset += length as u64;
        }
        Ok(())
    }

    fn check_stop(&self) -> Result<(), StorageError> {
        if (self.stop)() {
            let path = self.to.full.clone();
            return Err(StorageError::Cancelled { path });
        }
        self.from.require(|rights| rights.read)?;
        self.to.require(|rights| rights.write)
    }
}

/// The place of `name` in a directory, unless it is too deep to be named.
fn child(dir: &ResolvedPath, name: &str) -> Result<ResolvedPath, StorageError> {
    Ok(ResolvedPath {
        inner: dir.inner.join_name(name)?,
        full: dir.full.join_name(name)?,
        ..dir.clone()
    })
}
