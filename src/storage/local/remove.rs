//! Removing: a file by its name, a tree by moving it out of sight at once and deleting it there.
//! Either way the answer waits until a power cut would not bring it back.

use crate::storage::changes::{PendingChange, removed};
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::fs::metadata::EntryKind;
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::fs::tree::count_of;
use crate::storage::local::quota::SpaceCount;

/// What has become of what was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// Files, directories and all else that is deleted.
    pub entries: u64,
    /// Those that are in nobody's view any more and that the disk does not give up. They are tried
    /// again from time to time.
    pub left: u64,
}

/// Removes what is at `place` and says what has become of it.
///
/// A tree disappears as a whole before its first file is deleted; from then on it is beyond
/// `stop`, and its room is given back when all of it is gone.
pub(crate) fn remove(
    place: &ResolvedPath,
    recursive: bool,
    stop: &dyn Fn() -> bool,
) -> Result<Removed, StorageError> {
    place.require(|rights| rights.delete && !place.is_root())?;
    loop {
        if stop() {
            let path = place.full.clone();
            return Err(StorageError::Cancelled { path });
        }
        match remove_now(place, recursive) {
            Err(StorageError::Counting { end, path }) => place.space.wait(end, &path)?,
            removed => return removed,
        }
    }
}

fn remove_now(place: &ResolvedPath, recursive: bool) -> Result<Removed, StorageError> {
    let space = &place.space;
    let names = space.lock_names();
    place.require(|rights| rights.delete)?;
    let (dir, name) = place.open_parent()?;
    let meta = dir.meta(name).at("look at", &place.full)?;
    let meta = meta.ok_or_else(|| StorageError::not_found(&place.full))?;
    let one = Removed {
        entries: 1,
        left: 0,
    };
    if meta.what != EntryKind::Dir {
        place.full.as_file()?;
        let gone = names.change(&[(&dir, name)], || dir.remove_file(name));
        gone.at("remove", &place.full)?;
        names.freed(count_of(&meta));
        let noted = removed(place, &dir);
        drop(names);
        return last(&dir, place, noted).map(|()| one);
    }
    if !recursive {
        let gone = names.change(&[(&dir, name)], || dir.remove_dir(name));
        gone.at("remove", &place.full)?;
        names.freed(count_of(&meta));
        let noted = removed(place, &dir);
        drop(names);
        return last(&dir, place, noted).map(|()| one);
    }
    names.release_tree(&[&dir], &place.full)?;
    let mut staged = space.staging.reserve_name().at("remove", &place.full)?;
    let gone = names.change(&[(&dir, name)], || {
        dir.rename_new(name, staged.dir(), staged.name())
    });
    gone.at("remove", &place.full)?;
    let generation = space.ledger().generation();
    let noted = removed(place, &dir);
    drop(names);
    // Before anything in it is deleted: after a power cut the tree is whole or gone.
    if let Err(error) = last(&dir, place, noted) {
        // A power cut may yet bring it back, whole; if not, the next start deletes it.
        staged.set_left();
        uncharge(place, generation, staged.count());
        return Err(error);
    }
    let deleted = staged.delete();
    uncharge(place, generation, deleted.freed);
    if deleted.left > 0 {
        // It is in nobody's view, so it counts for nobody.
        uncharge(place, generation, staged.count());
    }
    Ok(Removed {
        entries: deleted.entries,
        left: deleted.left,
    })
}

/// Brings to the disk that the name is gone, and tells it. Everyone sees that it is gone: it is told
/// also if it may not last.
fn last(parent: &OpenDir, place: &ResolvedPath, noted: PendingChange) -> Result<(), StorageError> {
    let synced = place.space.staging.synced(parent.sync());
    noted.tell();
    synced.at("sync", &place.full)
}

/// Gives back the room of what was in the space when its count had that generation. A later count
/// has not seen it.
fn uncharge(place: &ResolvedPath, generation: u64, count: SpaceCount) {
    let mut ledger = place.space.ledger();
    if ledger.generation() == generation {
        ledger.remove(count);
    }
}
