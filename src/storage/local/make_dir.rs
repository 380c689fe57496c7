//! Making a directory, with the missing directories on the way if the caller wants them.

use std::io;
use std::sync::Arc;

use crate::protocol::FileMode;
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::change_log::PendingChange;
use crate::storage::local::fs::mode::keep_mode;
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::fs::unsynced::UnsyncedName;
use crate::storage::local::record_change::{NamedEntry, record_made_dirs, record_named};
use crate::storage::local::reservation::Reservation;
use crate::storage::local::space::LockedNames;
use crate::storage::local::space_count::SpaceCount;
use crate::storage::rights::Right;

/// Bytes that a directory takes up on most disks.
const DIR_BYTES: u64 = 4096;

/// A directory that was made, or that existed already.
struct MadeDir {
    /// The directory itself, or the one above it.
    dir: OpenDir,
    /// The directories that were made, the outermost first.
    made: Vec<Arc<UnsyncedName>>,
    change: PendingChange,
}

/// Makes the directory at `place`. With `parents` it also makes those on the way, and a directory
/// that exists already is no error, and stays as it is. The caller has checked that `place` is no root.
pub(crate) fn make_dir(
    place: &ResolvedPath,
    parents: bool,
    mode: Option<FileMode>,
) -> Result<(), StorageError> {
    let (space, path) = (&place.space, &place.full);
    space
        .staging
        .check_free(SpaceCount::file(DIR_BYTES), path)?;
    // A first count may take long, so it must not happen while the names are locked.
    space.count_if_limited(path)?;
    let names = space.lock_names();
    place.require(Right::Write)?;
    let MadeDir { dir, made, change } = if parents {
        make_with_parents(place, &names)?
    } else {
        make_one(place, &names)?
    };
    let with_mode = match keep_mode_of(made.last(), mode) {
        Err(error) => {
            names.undo_make_dirs(&made);
            return Err(error).context("make", path);
        }
        Ok(with_mode) => with_mode,
    };
    let mut unsynced = names.unsynced_above(&dir).context("open", path)?;
    drop(names);
    unsynced.extend(made.iter().cloned());
    let mut unsynced_names = unsynced.iter();
    let synced = match with_mode {
        Some(dir) => space.staging.record_sync(dir.sync()),
        None => Ok(()),
    };
    let synced =
        synced.and_then(|()| unsynced_names.try_for_each(|name| name.sync(&space.staging)));
    space.unsynced.remove_synced(&unsynced);
    if synced.is_err() {
        space.lock_names().undo_make_dirs(&made);
    }
    synced.context("sync", path)?;
    place.check_attached()?;
    change.publish();
    Ok(())
}

/// Keeps the mode of a directory that was made now, if it has one, and opens the directory.
fn keep_mode_of(
    new: Option<&Arc<UnsyncedName>>,
    mode: Option<FileMode>,
) -> io::Result<Option<OpenDir>> {
    let (Some(new), Some(mode)) = (new, mode) else {
        return Ok(None);
    };
    let dir = new.parent.open_dir(&*new.name)?;
    keep_mode(&dir, mode)?;
    Ok(Some(dir))
}

fn make_with_parents(
    place: &ResolvedPath,
    names: &LockedNames<'_>,
) -> Result<MadeDir, StorageError> {
    let (dir, made) = place.make_dir(names)?;
    let change = record_made_dirs(place, &dir, made.len());
    Ok(MadeDir { dir, made, change })
}

fn make_one(place: &ResolvedPath, names: &LockedNames<'_>) -> Result<MadeDir, StorageError> {
    let (parent, name) = place.open_parent()?;
    if parent.meta(name).context("look at", &place.full)?.is_some() {
        return Err(StorageError::exists(&place.full));
    }
    let mut reservation = Reservation::new(&place.space);
    reservation
        .reserve_quota_locked(SpaceCount::entries(1), names, &place.full)
        .map_err(|error| place.redact_quota(error))?;
    let made = names.make_dir(&parent, name).context("make", &place.full)?;
    drop(reservation.commit(names, SpaceCount::default()));
    let entry = NamedEntry {
        name,
        is_dir: true,
        made_dirs: 0,
        moved_from: None,
    };
    let change = record_named(place, || place.true_parent(&parent), &entry);
    Ok(MadeDir {
        dir: parent,
        made: vec![made],
        change,
    })
}
