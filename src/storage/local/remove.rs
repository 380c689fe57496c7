//! Removal: a file by its name, a tree by a move out of sight and a deletion there.
//!
//! A removal is answered once a power cut would not undo it.

use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::change_log::PendingChange;
use crate::storage::local::fs::metadata::{EntryKind, Metadata};
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::fs::tree::count_of;
use crate::storage::local::record_change::record_removed;
use crate::storage::local::space::LockedNames;
use crate::storage::local::space_count::SpaceCount;
use crate::storage::rights::Right;

/// The result of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// Entries that are deleted: files, directories and all else.
    pub entries: u64,
    /// Entries that are out of every view but could not be deleted. The server tries again from
    /// time to time.
    pub left: u64,
}

/// Removes the entry at `place`.
///
/// A tree disappears as a whole before its first file is deleted. `stop` is asked until then. The
/// quota of the tree is free once all of it is deleted.
pub(crate) fn remove(
    place: &ResolvedPath,
    recursive: bool,
    stop: &dyn Fn() -> bool,
) -> Result<Removed, StorageError> {
    place.require(Right::Delete)?;
    place.require_not_root()?;
    loop {
        if stop() {
            let path = place.full.clone();
            return Err(StorageError::Cancelled { path });
        }
        match try_remove(place, recursive) {
            Err(StorageError::Counting { end, path }) => place.space.await_count(end, &path)?,
            removed => return removed,
        }
    }
}

fn try_remove(place: &ResolvedPath, recursive: bool) -> Result<Removed, StorageError> {
    let names = place.space.lock_names();
    place.require(Right::Delete)?;
    let (parent, name) = place.open_parent()?;
    let meta = parent.meta(name).context("look at", &place.full)?;
    let meta = meta.ok_or_else(|| StorageError::not_found(&place.full))?;
    match meta.kind {
        EntryKind::Dir if recursive => remove_tree(place, names, &parent, name),
        _ => remove_entry(place, names, &parent, name, &meta),
    }
}

/// Removes a file or an empty directory.
fn remove_entry(
    place: &ResolvedPath,
    names: LockedNames<'_>,
    parent: &OpenDir,
    name: &str,
    meta: &Metadata,
) -> Result<Removed, StorageError> {
    let is_dir = meta.kind == EntryKind::Dir;
    if !is_dir {
        place.full.as_file()?;
    }
    let removed = names.change(&[(parent, name)], || {
        if is_dir {
            parent.remove_dir(name)
        } else {
            parent.remove_file(name)
        }
    });
    removed.context("remove", &place.full)?;
    names.account_removed(count_of(meta));
    let change = record_removed(place, parent);
    drop(names);
    sync_removal(parent, place, change)?;
    Ok(Removed {
        entries: 1,
        left: 0,
    })
}

/// Moves a tree to staging and deletes it there.
fn remove_tree(
    place: &ResolvedPath,
    names: LockedNames<'_>,
    parent: &OpenDir,
    name: &str,
) -> Result<Removed, StorageError> {
    let space = &place.space;
    names.prepare_tree_move(&[parent], &place.full)?;
    let mut staged = space
        .staging
        .reserve_name()
        .context("remove", &place.full)?;
    let moved = names.change(&[(parent, name)], || {
        parent.rename_new(name, staged.dir(), staged.name())
    });
    moved.context("remove", &place.full)?;
    let generation = space.ledger().generation();
    let change = record_removed(place, parent);
    drop(names);
    // After a power cut the tree must be complete or gone, so nothing in it is deleted before this.
    if let Err(error) = sync_removal(parent, place, change) {
        // A power cut may restore the tree. If not, the next start deletes it.
        staged.release();
        release_quota(place, generation, staged.count());
        return Err(error);
    }
    let deleted = staged.delete();
    release_quota(place, generation, deleted.freed);
    if deleted.left > 0 {
        // The remains are in no view, so they are in no quota.
        release_quota(place, generation, staged.count());
    }
    Ok(Removed {
        entries: deleted.entries,
        left: deleted.left,
    })
}

/// Syncs the directory that has lost a name, and publishes the change. The change is published even
/// if the sync fails, since every view shows it.
fn sync_removal(
    parent: &OpenDir,
    place: &ResolvedPath,
    change: PendingChange,
) -> Result<(), StorageError> {
    let synced = place.space.staging.record_sync(parent.sync());
    change.publish();
    synced.context("sync", &place.full)
}

/// Releases the quota of files that the count of that generation includes. A later count does not.
fn release_quota(place: &ResolvedPath, generation: u64, count: SpaceCount) {
    let mut ledger = place.space.ledger();
    if ledger.generation() == generation {
        ledger.remove(count);
    }
}
