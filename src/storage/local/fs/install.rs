//! Landing: how something finished gets its name, at once and whole.

use std::cell::OnceCell;
use std::io;
use std::sync::Arc;

use crate::protocol::IfExists;
use crate::storage::changes;
use crate::storage::changes::PendingChange;
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::fs::metadata::{EntryKind, Metadata};
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::fs::tree::{Reach, count_of};
use crate::storage::local::fs::unsynced::NewName;
use crate::storage::local::quota::SpaceCount;
use crate::storage::local::space::Names;
use crate::storage::path::VirtualPath;

/// How many names are tried before `rename` gives up.
const MAX_TRIES: u32 = 1000;

/// The longest name a file system takes, in bytes.
const MAX_NAME: usize = 255;

/// What is to land: an entry of an open directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) dir: &'a OpenDir,
    pub(crate) name: &'a str,
    pub(crate) is_dir: bool,
    /// The place that it is; nothing if it is in staging, where what it displaces may be kept for a
    /// while under its name.
    pub(crate) place: Option<&'a ResolvedPath>,
    /// How far it reaches below itself, if it could come to lie too deep.
    pub(crate) reach: Reach,
}

impl Source<'_> {
    /// Refuses to give it a path below which parts of it could not be named.
    fn check_reach(&self, path: &VirtualPath) -> Result<(), StorageError> {
        Ok(path.check_room(self.reach.levels, self.reach.bytes)?)
    }
}

/// What has become of what had the name before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    /// There was nothing.
    Nothing,
    /// It has the name now that the source had.
    Exchanged,
    /// It is gone.
    Replaced,
}

/// What has landed. It is visible, and lasts once [`Landed::sync`] is done.
#[derive(Debug)]
#[must_use]
pub(crate) struct Published {
    /// The path it got.
    pub(crate) path: VirtualPath,
    /// What the file in whose place it came had taken up.
    pub(crate) displaced: SpaceCount,
    /// Where that file is now.
    pub(crate) before: Before,
    /// To be told once it lasts.
    pub(crate) noted: PendingChange,
    /// The directory that holds the name, to be synced for it.
    pub(crate) dir: Option<Arc<OpenDir>>,
    /// Directories whose names are to be synced for it: its own if it is one, and those on the way.
    pub(crate) unsynced: Vec<Arc<NewName>>,
    /// Those among them that were made for it.
    made: Vec<Arc<NewName>>,
}

/// The directory that something lands in. It can be kept for what lands there next, for as long as
/// the names stay locked.
#[derive(Debug)]
pub(crate) struct Parent {
    dir: Arc<OpenDir>,
    /// Directories on the way there that were made for what lands there first.
    made: Vec<Arc<NewName>>,
    /// Directories on the way there whose names may not last.
    unsynced: Vec<Arc<NewName>>,
    true_path: OnceCell<VirtualPath>,
}

impl Parent {
    /// Looks it up anew; with `parents` it makes what is missing.
    pub(crate) fn of(
        names: &Names<'_>,
        to: &ResolvedPath,
        parents: bool,
    ) -> Result<Self, StorageError> {
        let (dir, made) = if parents {
            to.make_parent(names)?
        } else {
            (to.open_parent()?.0, Vec::new())
        };
        Ok(Self {
            unsynced: names.unsynced_above(&dir).at("open", &to.full)?,
            dir: Arc::new(dir),
            made,
            true_path: OnceCell::new(),
        })
    }

    fn true_path(&self, to: &ResolvedPath) -> VirtualPath {
        let path = || changes::true_path(to, &self.dir);
        self.true_path.get_or_init(path).clone()
    }
}

impl Published {
    /// It is where it should be already, but for a second name that it has lost.
    pub(crate) fn in_place(path: VirtualPath, displaced: SpaceCount, noted: PendingChange) -> Self {
        Self {
            path,
            displaced,
            before: Before::Replaced,
            noted,
            dir: None,
            unsynced: Vec::new(),
            made: Vec::new(),
        }
    }

    /// Makes the new name survive a power cut. No lock is needed for this.
    pub(crate) fn sync(&self, to: &ResolvedPath) -> Result<(), StorageError> {
        let staging = &to.space.staging;
        let mut unsynced = self.unsynced.iter();
        let synced = unsynced.try_for_each(|name| name.sync(staging));
        let synced = synced.and_then(|()| match &self.dir {
            Some(dir) => staging.synced(dir.sync()),
            None => Ok(()),
        });
        to.space.unsynced.settle(&self.unsynced);
        synced.at("sync", &self.path)
    }

    /// Takes back what was made for it on the way, once it is taken back itself.
    pub(crate) fn take_back_dirs(&self, names: &Names<'_>) {
        names.take_back_dirs(&self.made);
    }

    /// What is at the new name of a file now.
    pub(crate) fn meta(&self) -> Option<Metadata> {
        self.dir.as_ref()?.meta(self.path.name()?).ok()?
    }
}

/// Gives `source` the name `to`, whose space's names are locked: the parent is looked up anew,
/// whatever it was when the work began.
pub(crate) fn land(
    names: &Names<'_>,
    source: Source<'_>,
    to: &ResolvedPath,
    if_exists: IfExists,
    parents: bool,
) -> Result<Published, StorageError> {
    to.require(|rights| rights.write)?;
    let mut parent = Parent::of(names, to, parents)?;
    land_in(names, &mut parent, source, to, if_exists)
}

/// As [`land`], in a directory that was opened since the names were locked.
pub(crate) fn land_in(
    names: &Names<'_>,
    parent: &mut Parent,
    source: Source<'_>,
    to: &ResolvedPath,
    if_exists: IfExists,
) -> Result<Published, StorageError> {
    // Since the work began the member may have lost the right to it.
    to.require(|rights| rights.write)?;
    let dir = Arc::clone(&parent.dir);
    let name = to.name()?;
    let mut landed = Published {
        path: to.full.clone(),
        displaced: SpaceCount::default(),
        before: Before::Nothing,
        noted: PendingChange::default(),
        dir: None,
        unsynced: parent.unsynced.clone(),
        made: Vec::new(),
    };
    let from = source.place.filter(|place| names.is_of(&place.space));
    let change = |name: &str, rename: &mut dyn FnMut() -> io::Result<bool>| {
        let entries = [(&*dir, name), (source.dir, source.name)];
        let entries = if from.is_some() {
            &entries[..]
        } else {
            &entries[..1]
        };
        names.change(entries, rename)
    };
    source.check_reach(&landed.path)?;
    // Most often nothing is there, and the file system can tell while it renames.
    let is_new = change(name, &mut || {
        source.dir.rename_if_free(source.name, &dir, name)
    });
    let is_new = is_new.at("rename", &to.full)?;
    let there = if is_new {
        None
    } else {
        dir.meta(name).at("look at", &to.full)?
    };
    let done = match (there, if_exists) {
        (None, _) if is_new => Ok(true),
        (None, _) => change(name, &mut || {
            source.dir.rename_new(source.name, &dir, name)?;
            Ok(true)
        }),
        (Some(_), IfExists::Fail) => return Err(StorageError::exists(&to.full)),
        (Some(_), IfExists::Rename) => {
            let free = free_name(&dir, name, source.is_dir, &to.full)?;
            landed.path = beside(&to.full, &free)?;
            source.check_reach(&landed.path)?;
            change(&free, &mut || {
                source.dir.rename_new(source.name, &dir, &free)?;
                Ok(true)
            })
        }
        (Some(there), IfExists::Replace) => {
            may_replace(there.what, source.is_dir, to)?;
            landed.displaced = count_of(&there);
            change(name, &mut || {
                landed.before = replace(source, &dir, name)?;
                Ok(true)
            })
        }
    };
    done.at("rename", &to.full)?;
    let name = landed.path.name().unwrap_or(name);
    let moved = source.place.map(|place| (place, source.dir));
    landed.made = std::mem::take(&mut parent.made);
    let (made, is_dir) = (landed.made.len(), source.is_dir);
    let above = || parent.true_path(to);
    landed.noted = changes::landed(to, (above, name), made, is_dir, moved);
    // What others put into a directory lasts no longer than its name.
    let own = is_dir.then(|| names.note_new(&dir, name));
    match own.transpose() {
        Ok(Some(own)) => landed.unsynced.push(own),
        Ok(None) | Err(_) => landed.dir = Some(dir),
    }
    Ok(landed)
}

fn replace(source: Source<'_>, dir: &OpenDir, name: &str) -> io::Result<Before> {
    if source.place.is_none() && source.dir.exchange(source.name, dir, name)? {
        return Ok(Before::Exchanged);
    }
    source.dir.rename_over(source.name, dir, name)?;
    Ok(Before::Replaced)
}

/// Refuses at once what could not land as things are.
pub(crate) fn check(
    to: &ResolvedPath,
    is_dir: bool,
    if_exists: IfExists,
    parents: bool,
) -> Result<(), StorageError> {
    to.require(|rights| rights.write)?;
    if !is_dir {
        to.full.as_file()?;
    }
    let (dir, name) = match to.open_parent() {
        Err(StorageError::NotFound { .. }) if parents => return Ok(()),
        parent => parent?,
    };
    to.space.staging.check_mount(&dir, &to.full)?;
    check_in(&dir, name, to, is_dir, if_exists)
}

/// As [`check`], of a name in a directory that is open.
pub(crate) fn check_in(
    dir: &OpenDir,
    name: &str,
    to: &ResolvedPath,
    is_dir: bool,
    if_exists: IfExists,
) -> Result<(), StorageError> {
    match (dir.meta(name).at("look at", &to.full)?, if_exists) {
        (Some(_), IfExists::Fail) => Err(StorageError::exists(&to.full)),
        (Some(there), IfExists::Replace) => may_replace(there.what, is_dir, to),
        (None, _) | (Some(_), IfExists::Rename) => Ok(()),
    }
}

/// A file comes in the place of anything but a directory, a directory in the place of nothing.
fn may_replace(there: EntryKind, is_dir: bool, to: &ResolvedPath) -> Result<(), StorageError> {
    match (there, is_dir) {
        (EntryKind::Dir, false) => Err(StorageError::is_a_directory(&to.full)),
        (EntryKind::Dir, true) => Err(StorageError::exists(&to.full)),
        (_, true) => Err(StorageError::NotADirectory {
            path: to.full.clone(),
        }),
        (_, false) => to.require(|rights| rights.overwrite),
    }
}

fn beside(path: &VirtualPath, name: &str) -> Result<VirtualPath, StorageError> {
    let parent = path.parent().unwrap_or_else(VirtualPath::root);
    Ok(parent.join_name(name)?)
}

fn free_name(
    dir: &OpenDir,
    name: &str,
    is_dir: bool,
    path: &VirtualPath,
) -> Result<String, StorageError> {
    for number in 1..=MAX_TRIES {
        let candidate = numbered(name, is_dir, number);
        if dir.meta(&*candidate).at("look at", path)?.is_none() {
            return Ok(candidate);
        }
    }
    Err(StorageError::exists(path))
}

/// `name (1).ext`, cut where it would be too long. A directory has no extension, and neither has
/// a name that begins with its only dot.
fn numbered(name: &str, is_dir: bool, number: u32) -> String {
    let (stem, extension) = match name.rfind('.') {
        Some(dot) if dot > 0 && !is_dir => name.split_at(dot),
        _ => (name, ""),
    };
    let suffix = format!(" ({number}){extension}");
    let (stem, suffix) = if suffix.len() < MAX_NAME {
        (stem, suffix)
    } else {
        (name, format!(" ({number})"))
    };
    let mut cut = stem.len().min(MAX_NAME - suffix.len());
    while !stem.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}{suffix}", &stem[..cut])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_goes_before_the_extension() {
        assert_eq!(numbered("a.txt", false, 1), "a (1).txt");
        assert_eq!(numbered("a.tar.gz", false, 2), "a.tar (2).gz");
        assert_eq!(numbered(".profile", false, 3), ".profile (3)");
        assert_eq!(numbered("v1.2", true, 4), "v1.2 (4)");
        assert_eq!(numbered("plain", false, 5), "plain (5)");
    }

    #[test]
    fn a_long_name_is_cut_between_characters_to_make_room() {
        let name = format!("{}.txt", "ä".repeat(125));
        let candidate = numbered(&name, false, 10);
        assert!(candidate.len() <= MAX_NAME && candidate.ends_with("ä (10).txt"));
        let candidate = numbered(&format!("a.{}", "x".repeat(253)), false, 10);
        assert!(candidate.len() <= MAX_NAME && candidate.ends_with(" (10)"));
    }
}
