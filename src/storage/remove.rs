//! Removing: a file by its name, a tree by moving it out of sight at once and deleting it there.
//! Either way the answer waits until a power cut would not bring it back.

use super::changes::{Noted, removed};
use super::error::{At, StorageError};
use super::jail::OpenDir;
use super::meta::What;
use super::place::Place;
use super::quota::Count;
use super::staging::Staged;

/// Removes what is at `place` and says how many entries went.
///
/// A tree disappears as a whole before its first file is deleted; from then on it is beyond
/// `stop`, and its room is given back when all of it is gone.
pub(super) fn remove(
    place: &Place,
    recursive: bool,
    stop: &dyn Fn() -> bool,
) -> Result<u64, StorageError> {
    place.require(|rights| rights.delete && !place.is_root())?;
    if stop() {
        let path = place.full.clone();
        return Err(StorageError::Cancelled { path });
    }
    let space = &place.space;
    let names = space.lock_names();
    place.require(|rights| rights.delete)?;
    let (dir, name) = place.open_parent()?;
    let meta = dir.meta(name).at("look at", &place.full)?;
    let meta = meta.ok_or_else(|| StorageError::not_found(&place.full))?;
    if meta.what != What::Dir {
        place.full.as_file()?;
        dir.remove_file(name).at("remove", &place.full)?;
        names.freed(Count::of(&meta));
        let noted = removed(place, &dir);
        drop(names);
        return last(&dir, place, noted).map(|()| 1);
    }
    if !recursive {
        dir.remove_dir(name).at("remove", &place.full)?;
        names.freed(Count::of(&meta));
        let noted = removed(place, &dir);
        drop(names);
        return last(&dir, place, noted).map(|()| 1);
    }
    let mut staged = space.staging.reserve_name().at("remove", &place.full)?;
    dir.rename_new(name, staged.dir(), staged.name())
        .at("remove", &place.full)?;
    let generation = space.ledger().generation();
    let noted = removed(place, &dir);
    drop(names);
    // Before anything in it is deleted: after a power cut the tree is whole or gone.
    if let Err(error) = last(&dir, place, noted) {
        // A power cut may yet bring it back, whole; if not, the next start deletes it.
        staged.set_left();
        let mut ledger = space.ledger();
        if ledger.generation() == generation {
            ledger.forget_count();
        }
        return Err(error);
    }
    Ok(delete(&mut staged, place, generation))
}

/// Brings to the disk that the name is gone, and tells it.
fn last(parent: &OpenDir, place: &Place, noted: Noted) -> Result<(), StorageError> {
    let synced = place.space.staging.synced(parent.sync());
    synced.at("sync", &place.full)?;
    noted.tell();
    Ok(())
}

/// Deletes a tree that was in the space when its count had that generation.
fn delete(staged: &mut Staged, place: &Place, generation: u64) -> u64 {
    let deleted = staged.delete();
    let mut ledger = place.space.ledger();
    if ledger.generation() != generation {
        // A later count has not seen the tree.
    } else if deleted.failed.is_some() {
        ledger.forget_count();
    } else {
        ledger.remove(deleted.freed);
    }
    deleted.entries
}
