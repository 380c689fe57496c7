//! Installation: an entry gets its name in one atomic step, as `if_exists` says.
//!
//! Uploads, copies and moves end here. The caller holds the lock on the names of the space, and syncs the
//! name after it has released the lock: see [`Published::sync`].

use std::cell::OnceCell;
use std::io;
use std::sync::Arc;

use crate::protocol::{IfExists, numbered_name};
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::change_log::PendingChange;
use crate::storage::local::fs::metadata::{EntryKind, Metadata};
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::fs::tree::{Reach, count_of};
use crate::storage::local::fs::unsynced::UnsyncedName;
use crate::storage::local::record_change::{NamedEntry, record_named};
use crate::storage::local::space::LockedNames;
use crate::storage::local::space_count::SpaceCount;
use crate::storage::path::VirtualPath;
use crate::storage::rights::Right;

/// Numbered names that are tried before `rename` fails.
const MAX_NAME_ATTEMPTS: u32 = 1000;

/// The entry to install: a name in an open directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InstallSource<'a> {
    pub(crate) dir: &'a OpenDir,
    pub(crate) name: &'a str,
    pub(crate) is_dir: bool,
    /// The path of the entry, if it moves. `None` if it is staged: then an entry that it displaces may
    /// get its name in staging.
    pub(crate) path: Option<&'a ResolvedPath>,
    /// How far a directory reaches below itself, which limits how deep it may be installed.
    pub(crate) reach: Reach,
}

impl InstallSource<'_> {
    /// Refuses a path below which entries of it would have paths that are too long or too deep.
    fn check_reach(&self, path: &VirtualPath) -> Result<(), StorageError> {
        Ok(path.check_descendants(self.reach.levels, self.reach.bytes)?)
    }
}

/// The fate of the entry that had the name before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DisplacedEntry {
    /// No entry had the name.
    Nothing,
    /// It has the name that the source had.
    Exchanged,
    /// It is deleted.
    Replaced,
}

/// An installed entry. It is visible, and survives a power cut once [`Self::sync`] succeeds.
#[derive(Debug)]
#[must_use]
pub(crate) struct Published {
    /// The path that it got.
    pub(crate) path: VirtualPath,
    /// The bytes and entries of the file that it displaced.
    pub(crate) displaced: SpaceCount,
    /// The fate of that file.
    pub(crate) displaced_entry: DisplacedEntry,
    /// To be published once the name is synced.
    pub(crate) change: PendingChange,
    /// The directory to sync, which holds the name; `None` if `unsynced` covers the name.
    pub(crate) dir: Option<Arc<OpenDir>>,
    /// Unsynced names of directories: of those above it, and its own if it is a directory.
    pub(crate) unsynced: Vec<Arc<UnsyncedName>>,
    /// The directories among them that were made for it.
    made_dirs: Vec<Arc<UnsyncedName>>,
}

/// The directory that an entry is installed in. It serves further entries while the names stay locked.
#[derive(Debug)]
pub(crate) struct InstallParent {
    dir: Arc<OpenDir>,
    /// Directories that were made above and for the first entry. The first installed entry takes them.
    made: Vec<Arc<UnsyncedName>>,
    /// Directories whose names are not synced, from this one upwards.
    unsynced: Vec<Arc<UnsyncedName>>,
    true_path: OnceCell<VirtualPath>,
}

impl InstallParent {
    /// Opens the parent of `to` as it is now; with `parents`, makes missing directories.
    pub(crate) fn open(
        names: &LockedNames<'_>,
        to: &ResolvedPath,
        parents: bool,
    ) -> Result<Self, StorageError> {
        let (dir, made) = if parents {
            to.make_parent(names)?
        } else {
            (to.open_parent()?.0, Vec::new())
        };
        Ok(Self {
            unsynced: names.unsynced_above(&dir).context("open", &to.full)?,
            dir: Arc::new(dir),
            made,
            true_path: OnceCell::new(),
        })
    }

    /// Removes the directories that were made for an entry if none was installed.
    pub(crate) fn undo_unused(&mut self, names: &LockedNames<'_>) {
        names.undo_make_dirs(&std::mem::take(&mut self.made));
    }

    fn true_path(&self, to: &ResolvedPath) -> VirtualPath {
        let path = || to.true_parent(&self.dir);
        self.true_path.get_or_init(path).clone()
    }
}

impl Published {
    /// An entry that had the name already and has lost a second one.
    pub(crate) fn in_place(
        path: VirtualPath,
        displaced: SpaceCount,
        change: PendingChange,
    ) -> Self {
        Self {
            path,
            displaced,
            displaced_entry: DisplacedEntry::Replaced,
            change,
            dir: None,
            unsynced: Vec::new(),
            made_dirs: Vec::new(),
        }
    }

    /// Syncs the new name. The caller holds no lock.
    pub(crate) fn sync(&self, to: &ResolvedPath) -> Result<(), StorageError> {
        let staging = &to.space.staging;
        let mut unsynced = self.unsynced.iter();
        let synced = unsynced.try_for_each(|name| name.sync(staging));
        let synced = synced.and_then(|()| match &self.dir {
            Some(dir) => staging.record_sync(dir.sync()),
            None => Ok(()),
        });
        to.space.unsynced.remove_synced(&self.unsynced);
        synced.context("sync", &self.path)
    }

    /// Removes the directories that were made for it, once it is withdrawn itself.
    pub(crate) fn undo_make_dirs(&self, names: &LockedNames<'_>) {
        names.undo_make_dirs(&self.made_dirs);
    }

    /// The metadata of the file that has the name now.
    pub(crate) fn meta(&self) -> Option<Metadata> {
        self.dir.as_ref()?.meta(self.path.name()?).ok()?
    }
}

/// Gives `source` the name `to`, whose parent directory is opened as it is now.
pub(crate) fn install(
    names: &LockedNames<'_>,
    source: InstallSource<'_>,
    to: &ResolvedPath,
    if_exists: IfExists,
    parents: bool,
) -> Result<Published, StorageError> {
    to.require(Right::Write)?;
    let mut parent = InstallParent::open(names, to, parents)?;
    let installed = install_in(names, &mut parent, source, to, if_exists);
    parent.undo_unused(names);
    installed
}

/// As [`install`], in a directory that was opened since the names were locked.
pub(crate) fn install_in(
    names: &LockedNames<'_>,
    parent: &mut InstallParent,
    source: InstallSource<'_>,
    to: &ResolvedPath,
    if_exists: IfExists,
) -> Result<Published, StorageError> {
    // The user may have lost the right since the operation began.
    to.require(Right::Write)?;
    let mut published = Published {
        path: to.full.clone(),
        displaced: SpaceCount::default(),
        displaced_entry: DisplacedEntry::Nothing,
        change: PendingChange::default(),
        dir: None,
        unsynced: parent.unsynced.clone(),
        made_dirs: Vec::new(),
    };
    let dir = Arc::clone(&parent.dir);
    rename_entry(names, &dir, source, to, if_exists, &mut published)?;
    published.made_dirs = std::mem::take(&mut parent.made);
    let name = match published.path.name() {
        Some(name) => name,
        None => to.name()?,
    };
    let entry = NamedEntry {
        name,
        is_dir: source.is_dir,
        made_dirs: published.made_dirs.len(),
        moved_from: source.path.map(|path| (path, source.dir)),
    };
    published.change = record_named(to, || parent.true_path(to), &entry);
    // Files that others put into a directory last no longer than its name.
    let own = source.is_dir.then(|| names.register_unsynced(&dir, name));
    match own.transpose() {
        Ok(Some(own)) => published.unsynced.push(own),
        Ok(None) | Err(_) => published.dir = Some(dir),
    }
    Ok(published)
}

/// Renames `source` into `dir`. Sets the path in `published`, and what became of a displaced entry.
fn rename_entry(
    names: &LockedNames<'_>,
    dir: &OpenDir,
    source: InstallSource<'_>,
    to: &ResolvedPath,
    if_exists: IfExists,
    published: &mut Published,
) -> Result<(), StorageError> {
    let is_move_within = source.path.is_some_and(|path| names.is_of(&path.space));
    let change = |name: &str, rename: &mut dyn FnMut() -> io::Result<bool>| {
        let entries = [(dir, name), (source.dir, source.name)];
        let changed = if is_move_within { 2 } else { 1 };
        names
            .change(&entries[..changed], rename)
            .context("rename", &to.full)
    };
    let name = to.name()?;
    source.check_reach(&published.path)?;
    // Usually the name is free, and the file system checks that in the same step.
    if change(name, &mut || {
        source.dir.rename_if_free(source.name, dir, name)
    })? {
        return Ok(());
    }
    match (dir.meta(name).context("look at", &to.full)?, if_exists) {
        (None, _) => change(name, &mut || {
            source.dir.rename_new(source.name, dir, name)?;
            Ok(true)
        }),
        (Some(_), IfExists::Fail) => Err(StorageError::exists(&to.full)),
        (Some(_), IfExists::Rename) => {
            let free = free_name(dir, name, source.is_dir, &to.full)?;
            published.path = sibling_path(&to.full, &free)?;
            source.check_reach(&published.path)?;
            change(&free, &mut || {
                source.dir.rename_new(source.name, dir, &free)?;
                Ok(true)
            })
        }
        (Some(found), IfExists::Replace) => {
            check_replace(found.kind, source.is_dir, to)?;
            published.displaced = count_of(&found);
            change(name, &mut || {
                published.displaced_entry = replace(source, dir, name)?;
                Ok(true)
            })
        }
    }?;
    Ok(())
}

fn replace(source: InstallSource<'_>, dir: &OpenDir, name: &str) -> io::Result<DisplacedEntry> {
    if source.path.is_none() && source.dir.exchange(source.name, dir, name)? {
        return Ok(DisplacedEntry::Exchanged);
    }
    source.dir.rename_over(source.name, dir, name)?;
    Ok(DisplacedEntry::Replaced)
}

/// Refuses an entry that could not be installed as things are.
pub(crate) fn check(
    to: &ResolvedPath,
    is_dir: bool,
    if_exists: IfExists,
    parents: bool,
) -> Result<(), StorageError> {
    to.require(Right::Write)?;
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

/// As [`check`], for a name in an open directory.
pub(crate) fn check_in(
    dir: &OpenDir,
    name: &str,
    to: &ResolvedPath,
    is_dir: bool,
    if_exists: IfExists,
) -> Result<(), StorageError> {
    match (dir.meta(name).context("look at", &to.full)?, if_exists) {
        (Some(_), IfExists::Fail) => Err(StorageError::exists(&to.full)),
        (Some(found), IfExists::Replace) => check_replace(found.kind, is_dir, to),
        (None, _) | (Some(_), IfExists::Rename) => Ok(()),
    }
}

/// A file may replace anything except a directory; a directory replaces nothing.
fn check_replace(existing: EntryKind, is_dir: bool, to: &ResolvedPath) -> Result<(), StorageError> {
    match (existing, is_dir) {
        (EntryKind::Dir, false) => Err(StorageError::is_a_directory(&to.full)),
        (EntryKind::Dir, true) => Err(StorageError::exists(&to.full)),
        (_, true) => Err(StorageError::NotADirectory {
            path: to.full.clone(),
        }),
        (_, false) => to.require(Right::Overwrite),
    }
}

fn sibling_path(path: &VirtualPath, name: &str) -> Result<VirtualPath, StorageError> {
    let parent = path.parent().unwrap_or_else(VirtualPath::root);
    Ok(parent.join_name(name)?)
}

fn free_name(
    dir: &OpenDir,
    name: &str,
    is_dir: bool,
    path: &VirtualPath,
) -> Result<String, StorageError> {
    for number in 1..=MAX_NAME_ATTEMPTS {
        let candidate = numbered_name(name, is_dir, number);
        if dir.meta(&*candidate).context("look at", path)?.is_none() {
            return Ok(candidate);
        }
    }
    Err(StorageError::exists(path))
}
