//! Moving: one rename, within a space or from one into another.

use super::attributes::keep_derived_version;
use super::changes::{self, Noted};
use super::error::{At, StorageError};
use super::jail::OpenDir;
use super::landing::{Landed, Source, land};
use super::meta::{Meta, What};
use super::path::{InvalidPath, InvalidPathReason, VirtualPath};
use super::place::Place;
use super::quota::{Count, Reservation};
use super::tree;
use crate::protocol::IfExists;

/// Moves what is at `from` to `to` and says which path it got.
pub(super) fn rename(
    from: &Place,
    to: &Place,
    if_exists: IfExists,
) -> Result<VirtualPath, StorageError> {
    from.require(|rights| rights.delete && !from.is_root())?;
    to.require(|rights| rights.write && !to.is_root())?;
    check_reach(from, to)?;
    let same_space = std::ptr::eq(&raw const *from.space, &raw const *to.space);
    let (landed, source) = if same_space {
        rename_within(from, to, if_exists)?
    } else {
        // Otherwise moving a file into one's home would be a way to read it.
        from.require(|rights| rights.read)?;
        rename_across(from, to, if_exists)?
    };
    let staging = &to.space.staging;
    landed.sync(staging)?;
    staging.synced(source.sync()).at("sync", &from.full)?;
    to.check_attached()?;
    landed.noted.tell();
    Ok(landed.path)
}

fn rename_within(
    from: &Place,
    to: &Place,
    if_exists: IfExists,
) -> Result<(Landed, OpenDir), StorageError> {
    let names = from.space.lock_names();
    let (dir, name, meta) = find(from, to)?;
    let source = Source {
        dir: &dir,
        name,
        is_dir: meta.what == What::Dir,
        place: Some(from),
    };
    if if_exists == IfExists::Replace
        && let Some(landed) = land_on_itself(source, &meta, to)?
    {
        names.freed(landed.displaced);
        return Ok((landed, dir));
    }
    let landed = land(&names, source, to, if_exists, false).map_err(|error| loops(error, to))?;
    names.freed(landed.displaced);
    Ok((landed, dir))
}

fn rename_across(
    from: &Place,
    to: &Place,
    if_exists: IfExists,
) -> Result<(Landed, OpenDir), StorageError> {
    // A first count takes its time: not while both are locked.
    to.space.count_if_limited(&to.full)?;
    let (from_names, to_names) = from.space.lock_both(&to.space);
    from.require(|rights| rights.read)?;
    let (dir, name, meta) = find(from, to)?;
    let source = Source {
        dir: &dir,
        name,
        is_dir: meta.what == What::Dir,
        place: Some(from),
    };
    let mut count = Count::of(&meta);
    if meta.what == What::Dir {
        count += count_tree(&dir, name, from)?;
    }
    let mut reservation = Reservation::new(&to.space);
    let grown = reservation.grow_locked(count, &to_names, &to.full);
    grown.map_err(|error| to.conceal(error))?;
    let landed = land(&to_names, source, to, if_exists, false)?;
    drop(reservation.settle(&to_names, landed.displaced));
    from_names.freed(count);
    Ok((landed, dir))
}

/// The source as it is now, with the names locked.
fn find<'a>(from: &'a Place, to: &Place) -> Result<(OpenDir, &'a str, Meta), StorageError> {
    from.require(|rights| rights.delete)?;
    to.require(|rights| rights.write)?;
    let (dir, name) = from.open_parent()?;
    let meta = dir.meta(name).at("look at", &from.full)?;
    let meta = meta.ok_or_else(|| StorageError::not_found(&from.full))?;
    match meta.what {
        What::Dir if from.full != to.full && to.full.starts_with(&from.full) => {
            return Err(into_itself(to));
        }
        What::Dir => {}
        What::File | What::Link => {
            from.full.as_file()?;
            to.full.as_file()?;
            keep_derived_version(&dir, name);
        }
        What::Special => return Err(StorageError::denied(&from.full)),
    }
    Ok((dir, name, meta))
}

fn count_tree(dir: &OpenDir, name: &str, from: &Place) -> Result<Count, StorageError> {
    let tree = dir.open_dir(name);
    tree.and_then(|tree| tree::count(&tree))
        .at("count", &from.full)
}

/// Where source and target are the same file already, a rename would do nothing, not even for two
/// hard links of different names.
fn land_on_itself(
    source: Source<'_>,
    meta: &Meta,
    to: &Place,
) -> Result<Option<Landed>, StorageError> {
    let (dir, name) = to.open_parent()?;
    let there = dir.meta(name).at("look at", &to.full)?;
    if there.is_none_or(|there| there.identity != meta.identity) {
        return Ok(None);
    }
    let own = |dir: &OpenDir| dir.own_meta().at("look at", &to.full);
    let same_name = source.name == name && own(source.dir)?.identity == own(&dir)?.identity;
    let mut displaced = Count::default();
    let mut noted = Noted::default();
    if !same_name {
        to.require(|rights| rights.overwrite)?;
        source.dir.remove_file(source.name).at("rename", &to.full)?;
        displaced = Count::file(meta.size);
        let moved = source.place.map(|place| (place, source.dir));
        let above = || changes::true_path(to, &dir);
        noted = changes::landed(to, (above, name), 0, false, moved);
    }
    Ok(Some(Landed::in_place(to.full.clone(), displaced, noted)))
}

/// Refuses to move a tree to where parts of it could not be named any more.
fn check_reach(from: &Place, to: &Place) -> Result<(), StorageError> {
    let (old, new) = (&from.full, &to.full);
    let no_deeper = new.components().count() <= old.components().count();
    if no_deeper && new.as_str().len() <= old.as_str().len() {
        return Ok(());
    }
    // Only a directory opens as one; what else is wrong with the source shows soon enough.
    let Ok(tree) = from.space.jail.open_dir(&from.inner) else {
        return Ok(());
    };
    let reach = tree::reach(&tree).at("measure", old)?;
    Ok(new.check_room(reach.levels, reach.bytes)?)
}

/// A path through a link can lead into the tree that is to be moved; the system notices.
fn loops(error: StorageError, to: &Place) -> StorageError {
    match error {
        StorageError::Io { source, .. } if source.kind() == std::io::ErrorKind::InvalidInput => {
            into_itself(to)
        }
        error => error,
    }
}

pub(super) fn into_itself(to: &Place) -> StorageError {
    InvalidPath::new(to.full.as_str(), InvalidPathReason::IntoItself).into()
}
