//! Moving: one rename, within a space or from one into another.

use std::io;

use rustix::io::Errno;

use crate::protocol::IfExists;
use crate::storage::changes;
use crate::storage::changes::PendingChange;
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::fs::attributes::keep_derived_version;
use crate::storage::local::fs::install::{Published, Source, land};
use crate::storage::local::fs::metadata::{EntryKind, Metadata};
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::fs::tree;
use crate::storage::local::fs::tree::Reach;
use crate::storage::local::quota::{Reservation, SpaceCount};
use crate::storage::local::space::Names;
use crate::storage::local::tally::Measure;
use crate::storage::path::{InvalidPath, InvalidPathReason, VirtualPath};

/// How often a tree is measured that others move directories about in.
const MAX_TRIES: usize = 3;

/// Bytes that a name may grow by where the path is taken.
const NUMBER: usize = " (1000)".len();

/// Moves what is at `from` to `to` and says which path it got.
///
/// A tree is measured with nothing locked, as far as it has to be. The measure holds when the tree
/// moves, or the tree does not move.
pub(crate) fn rename(
    from: &ResolvedPath,
    to: &ResolvedPath,
    if_exists: IfExists,
) -> Result<VirtualPath, StorageError> {
    from.require(|rights| rights.delete && !from.is_root())?;
    to.require(|rights| rights.write && !to.is_root())?;
    let same_space = std::ptr::eq(&raw const *from.space, &raw const *to.space);
    if !same_space {
        // Otherwise moving a file into one's home would be a way to read it.
        from.require(|rights| rights.read)?;
    }
    let mut tries = 1..=MAX_TRIES;
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
                space.wait(end, &path)?;
            }
            Err(error) if is_stale(&error) => {
                if tries.next().is_none() {
                    return Err(StorageError::changed(&from.full));
                }
            }
            moved => break moved?,
        }
    };
    let synced = landed.sync(to);
    let staging = &to.space.staging;
    let synced = synced.and_then(|()| staging.synced(source.sync()).at("sync", &from.full));
    // Everyone sees that it has moved, also if that may not last.
    landed.noted.tell();
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
                .at("measure", &from.full)?;
            (names, reach)
        }
        None => (lock(), Reach::default()),
    };
    let (dir, name, meta) = find(from, to)?;
    let is_dir = meta.what == EntryKind::Dir;
    if is_dir && may_be_too_deep(from, to, if_exists) {
        check_measured(measure.as_ref(), &meta, from)?;
    }
    if is_dir {
        let (above, _) = to.open_parent()?;
        names.release_tree(&[&dir, &above], &from.full)?;
    }
    let source = Source {
        dir: &dir,
        name,
        is_dir,
        place: Some(from),
        reach,
    };
    if if_exists == IfExists::Replace
        && let Some(landed) = land_on_itself(&names, source, &meta, to)?
    {
        names.freed(landed.displaced);
        return Ok((landed, dir));
    }
    let landed = land(&names, source, to, if_exists, false).map_err(|error| loops(error, to))?;
    names.freed(landed.displaced);
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
            .at("measure", &from.full)?,
        None => (lock(), SpaceCount::default(), Reach::default()),
    };
    from.require(|rights| rights.read)?;
    let (dir, name, meta) = find(from, to)?;
    let is_dir = meta.what == EntryKind::Dir;
    let mut count = tree::count_of(&meta);
    if is_dir {
        check_measured(measure.as_ref(), &meta, from)?;
        from_names.release_tree(&[&dir], &from.full)?;
        count += tree;
    }
    let source = Source {
        dir: &dir,
        name,
        is_dir,
        place: Some(from),
        reach,
    };
    let mut reservation = Reservation::new(&to.space);
    let grown = reservation.grow_locked(count, &to_names, &to.full);
    grown.map_err(|error| to.conceal(error))?;
    let landed = from_names.change(&[(&dir, name)], || {
        land(&to_names, source, to, if_exists, false)
    })?;
    drop(reservation.settle(&to_names, landed.displaced));
    from_names.freed(count);
    Ok((landed, dir))
}

/// The source as it is now, with the names locked.
fn find<'a>(
    from: &'a ResolvedPath,
    to: &ResolvedPath,
) -> Result<(OpenDir, &'a str, Metadata), StorageError> {
    from.require(|rights| rights.delete)?;
    to.require(|rights| rights.write)?;
    let (dir, name) = from.open_parent()?;
    let meta = dir.meta(name).at("look at", &from.full)?;
    let meta = meta.ok_or_else(|| StorageError::not_found(&from.full))?;
    match meta.what {
        EntryKind::Dir if from.full != to.full && to.full.starts_with(&from.full) => {
            return Err(into_itself(to));
        }
        EntryKind::Dir => {}
        EntryKind::File | EntryKind::Link => {
            from.full.as_file()?;
            to.full.as_file()?;
            keep_derived_version(&dir, name);
        }
        EntryKind::Special => return Err(StorageError::denied(&from.full)),
    }
    Ok((dir, name, meta))
}

/// Whether parts of a tree that moves could come to lie too deep to be named.
fn may_be_too_deep(from: &ResolvedPath, to: &ResolvedPath, if_exists: IfExists) -> bool {
    let (old, new) = (&from.full, &to.full);
    let number = if if_exists == IfExists::Rename {
        NUMBER
    } else {
        0
    };
    new.components().count() > old.components().count()
        || new.as_str().len() + number > old.as_str().len()
}

/// Measures the source, if it is a directory. What else is wrong with it shows soon enough.
fn measure_source(from: &ResolvedPath) -> Result<Option<Measure<'_>>, StorageError> {
    let Ok((dir, name)) = from.open_parent() else {
        return Ok(None);
    };
    let Ok(tree) = dir.open_dir(name) else {
        return Ok(None);
    };
    Measure::of(&from.space, &tree)
        .at("measure", &from.full)
        .map(Some)
}

/// Makes sure that the tree with that `meta` is the one that was measured.
fn check_measured(
    measure: Option<&Measure<'_>>,
    meta: &Metadata,
    from: &ResolvedPath,
) -> Result<(), StorageError> {
    if measure.is_some_and(|measure| measure.is_of(meta)) {
        return Ok(());
    }
    Err(io::Error::from(Errno::STALE)).at("measure", &from.full)
}

/// Something has changed that was looked at without a lock: it can be tried again.
fn is_stale(error: &StorageError) -> bool {
    matches!(error, StorageError::Io { source, .. }
        if Errno::from_io_error(source) == Some(Errno::STALE))
}

/// Where source and target are the same file already, a rename would do nothing, not even for two
/// hard links of different names.
fn land_on_itself(
    names: &Names<'_>,
    source: Source<'_>,
    meta: &Metadata,
    to: &ResolvedPath,
) -> Result<Option<Published>, StorageError> {
    let (dir, name) = to.open_parent()?;
    let there = dir.meta(name).at("look at", &to.full)?;
    if there.is_none_or(|there| there.identity != meta.identity) {
        return Ok(None);
    }
    let own = |dir: &OpenDir| dir.own_meta().at("look at", &to.full);
    let same_name = source.name == name && own(source.dir)?.identity == own(&dir)?.identity;
    let mut displaced = SpaceCount::default();
    let mut noted = PendingChange::default();
    if !same_name {
        to.require(|rights| rights.overwrite)?;
        let removed = names.change(&[(source.dir, source.name)], || {
            source.dir.remove_file(source.name)
        });
        removed.at("rename", &to.full)?;
        displaced = tree::count_of(meta);
        let moved = source.place.map(|place| (place, source.dir));
        let above = || changes::true_path(to, &dir);
        noted = changes::landed(to, (above, name), 0, false, moved);
    }
    Ok(Some(Published::in_place(to.full.clone(), displaced, noted)))
}

/// A path through a link can lead into the tree that is to be moved; the system notices.
fn loops(error: StorageError, to: &ResolvedPath) -> StorageError {
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
