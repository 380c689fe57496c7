//! Moves: one rename, within a space or from one space to another.
//!
//! The quota of a tree moves with it, and no part of it may get a path that is too long. A tree is
//! therefore measured first, without a lock, and moves only if it is still as it was measured.

use std::io;

use rustix::io::Errno;

use crate::protocol::IfExists;
use crate::storage::denied_reason::DeniedReason;
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::change_log::PendingChange;
use crate::storage::local::fs::attributes::keep_derived_version;
use crate::storage::local::fs::install::{InstallSource, Published, install};
use crate::storage::local::fs::metadata::{EntryKind, Metadata};
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::fs::tree;
use crate::storage::local::fs::tree::Reach;
use crate::storage::local::record_change::{NamedEntry, record_named};
use crate::storage::local::reservation::Reservation;
use crate::storage::local::space::LockedNames;
use crate::storage::local::space_count::SpaceCount;
use crate::storage::local::space_walk::TreeMeasurement;
use crate::storage::path::{InvalidPath, InvalidPathReason, VirtualPath};
use crate::storage::rights::Right;

/// Attempts to move a tree in which others move directories meanwhile.
const MAX_ATTEMPTS: usize = 3;

/// The most bytes that a name grows by to be free.
const MAX_NUMBER_BYTES: usize = " (1000)".len();

/// Moves the entry at `from` to `to`, and returns its path.
pub(crate) fn rename(
    from: &ResolvedPath,
    to: &ResolvedPath,
    if_exists: IfExists,
) -> Result<VirtualPath, StorageError> {
    from.require(Right::Delete)?;
    from.require_not_root()?;
    to.require(Right::Write)?;
    to.require_not_root()?;
    let same_space = std::ptr::eq(&raw const *from.space, &raw const *to.space);
    if !same_space {
        // Otherwise a member could read a file by moving it to the home.
        from.require(Right::Read)?;
    }
    let mut attempts = 1..=MAX_ATTEMPTS;
    let (landed, source) = loop {
        let moved = if same_space {
            rename_within(from, to, if_exists)
        } else {
            rename_across(from, to, if_exists)
        };
        match moved {
            Err(StorageError::Counting { end, path }) => {
                let space = if from.space.counting().is_some() {
                    &from.space
                } else {
                    &to.space
                };
                space.await_count(end, &path)?;
            }
            Err(error) if is_stale(&error) => {
                if attempts.next().is_none() {
                    return Err(StorageError::changed(&from.full));
                }
            }
            moved => break moved?,
        }
    };
    let synced = landed.sync(to);
    let staging = &to.space.staging;
    let synced = synced.and_then(|()| {
        staging
            .record_sync(source.sync())
            .context("sync", &from.full)
    });
    // Everyone sees that it has moved, also if that may not last.
    landed.change.publish();
    synced?;
    to.check_attached()?;
    Ok(landed.path)
}

fn rename_within(
    from: &ResolvedPath,
    to: &ResolvedPath,
    if_exists: IfExists,
) -> Result<(Published, OpenDir), StorageError> {
    let mut measure = None;
    if may_be_too_deep(from, to, if_exists) {
        measure = measure_source(from)?;
    }
    let lock = || from.space.lock_names();
    let (names, reach) = match &mut measure {
        Some(measure) => {
            let (names, _, reach) = measure
                .lock(lock, |names| names)
                .context("measure", &from.full)?;
            (names, reach)
        }
        None => (lock(), Reach::default()),
    };
    let (dir, name, meta) = open_source(from, to)?;
    let is_dir = meta.kind == EntryKind::Dir;
    if is_dir && may_be_too_deep(from, to, if_exists) {
        check_measured(measure.as_ref(), &meta, from)?;
    }
    if is_dir {
        let (above, _) = to.open_parent()?;
        names.prepare_tree_move(&[&dir, &above], &from.full)?;
    }
    let source = InstallSource {
        dir: &dir,
        name,
        is_dir,
        path: Some(from),
        reach,
    };
    if if_exists == IfExists::Replace
        && let Some(landed) = replace_itself(&names, source, &meta, to)?
    {
        names.account_removed(landed.displaced);
        return Ok((landed, dir));
    }
    let landed =
        install(&names, source, to, if_exists, false).map_err(|error| rename_error(error, to))?;
    names.account_removed(landed.displaced);
    Ok((landed, dir))
}

fn rename_across(
    from: &ResolvedPath,
    to: &ResolvedPath,
    if_exists: IfExists,
) -> Result<(Published, OpenDir), StorageError> {
    to.space.count_if_limited(&to.full)?;
    let mut measure = measure_source(from)?;
    let lock = || from.space.lock_both(&to.space);
    let ((from_names, to_names), tree, reach) = match &mut measure {
        Some(measure) => measure
            .lock(lock, |(from_names, _)| from_names)
            .context("measure", &from.full)?,
        None => (lock(), SpaceCount::default(), Reach::default()),
    };
    from.require(Right::Read)?;
    let (dir, name, meta) = open_source(from, to)?;
    let is_dir = meta.kind == EntryKind::Dir;
    let mut count = tree::count_of(&meta);
    if is_dir {
        check_measured(measure.as_ref(), &meta, from)?;
        from_names.prepare_tree_move(&[&dir], &from.full)?;
        count += tree;
    }
    let source = InstallSource {
        dir: &dir,
        name,
        is_dir,
        path: Some(from),
        reach,
    };
    let mut reservation = Reservation::new(&to.space);
    let grown = reservation.reserve_quota_locked(count, &to_names, &to.full);
    grown.map_err(|error| to.redact_quota(error))?;
    let landed = from_names.change(&[(&dir, name)], || {
        install(&to_names, source, to, if_exists, false)
    })?;
    drop(reservation.commit(&to_names, landed.displaced));
    from_names.account_removed(count);
    Ok((landed, dir))
}

/// Opens the source as it is now, with the names locked.
fn open_source<'a>(
    from: &'a ResolvedPath,
    to: &ResolvedPath,
) -> Result<(OpenDir, &'a str, Metadata), StorageError> {
    from.require(Right::Delete)?;
    to.require(Right::Write)?;
    let (dir, name) = from.open_parent()?;
    let meta = dir.meta(name).context("look at", &from.full)?;
    let meta = meta.ok_or_else(|| StorageError::not_found(&from.full))?;
    match meta.kind {
        EntryKind::Dir if from.full != to.full && to.full.starts_with(&from.full) => {
            return Err(into_itself(to));
        }
        EntryKind::Dir => {}
        EntryKind::File | EntryKind::Link => {
            from.full.as_file()?;
            to.full.as_file()?;
            keep_derived_version(&dir, name);
        }
        EntryKind::Special => {
            return Err(StorageError::denied(&from.full, DeniedReason::SpecialFile));
        }
    }
    Ok((dir, name, meta))
}

/// Whether a part of the tree could get a path that is too long or too deep.
fn may_be_too_deep(from: &ResolvedPath, to: &ResolvedPath, if_exists: IfExists) -> bool {
    let (old, new) = (&from.full, &to.full);
    let number = if if_exists == IfExists::Rename {
        MAX_NUMBER_BYTES
    } else {
        0
    };
    new.components().count() > old.components().count()
        || new.as_str().len() + number > old.as_str().len()
}

/// Measures the source, if it is a directory. Any other fault of it shows when it is opened.
fn measure_source(from: &ResolvedPath) -> Result<Option<TreeMeasurement<'_>>, StorageError> {
    let Ok((dir, name)) = from.open_parent() else {
        return Ok(None);
    };
    let Ok(tree) = dir.open_dir(name) else {
        return Ok(None);
    };
    TreeMeasurement::measure(&from.space, &tree)
        .context("measure", &from.full)
        .map(Some)
}

/// Makes sure that `meta` describes the tree that was measured.
fn check_measured(
    measure: Option<&TreeMeasurement<'_>>,
    meta: &Metadata,
    from: &ResolvedPath,
) -> Result<(), StorageError> {
    if measure.is_some_and(|measure| measure.is_of(meta)) {
        return Ok(());
    }
    Err(io::Error::from(Errno::STALE)).context("measure", &from.full)
}

/// Whether the tree has changed since it was measured, so that another attempt may succeed.
fn is_stale(error: &StorageError) -> bool {
    matches!(error, StorageError::Io { source, .. }
        if Errno::from_io_error(source) == Some(Errno::STALE))
}

/// Moves a file onto itself or onto another hard link of it, for which a rename does nothing. Absent if
/// the target is another file.
fn replace_itself(
    names: &LockedNames<'_>,
    source: InstallSource<'_>,
    meta: &Metadata,
    to: &ResolvedPath,
) -> Result<Option<Published>, StorageError> {
    let (dir, name) = to.open_parent()?;
    let target = dir.meta(name).context("look at", &to.full)?;
    if target.is_none_or(|target| target.identity != meta.identity) {
        return Ok(None);
    }
    let dir_meta = |dir: &OpenDir| dir.own_meta().context("look at", &to.full);
    let same_name =
        source.name == name && dir_meta(source.dir)?.identity == dir_meta(&dir)?.identity;
    let mut displaced = SpaceCount::default();
    let mut noted = PendingChange::default();
    if !same_name {
        to.require(Right::Overwrite)?;
        let removed = names.change(&[(source.dir, source.name)], || {
            source.dir.remove_file(source.name)
        });
        removed.context("rename", &to.full)?;
        displaced = tree::count_of(meta);
        let entry = NamedEntry {
            name,
            is_dir: false,
            made_dirs: 0,
            moved_from: source.path.map(|place| (place, source.dir)),
        };
        noted = record_named(to, || to.true_parent(&dir), &entry);
    }
    Ok(Some(Published::in_place(to.full.clone(), displaced, noted)))
}

/// The error of a rename. A target path may lead through a link into the tree itself, which only the
/// system notices.
fn rename_error(error: StorageError, to: &ResolvedPath) -> StorageError {
    match error {
        StorageError::Io { source, .. } if source.kind() == io::ErrorKind::InvalidInput => {
            into_itself(to)
        }
        error => error,
    }
}

pub(crate) fn into_itself(to: &ResolvedPath) -> StorageError {
    InvalidPath::new(to.full.as_str(), InvalidPathReason::IntoItself).into()
}
