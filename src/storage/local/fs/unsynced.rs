//! Directories that have got their names and may yet lose them in a power cut.
//!
//! Who makes a directory, or moves one, brings its name to the disk after the names are unlocked.
//! Until then others can work in it already. What they put there is not safe before that name is,
//! so they bring it to the disk themselves, or learn that the disk has failed to keep it.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::storage::local::fs::metadata::{EntryKind, FileId, Metadata};
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::fs::staging::Staging;
use crate::storage::local::fs::tree::count_of;
use crate::storage::local::space::Names;
use crate::storage::path::VirtualPath;

/// Names that are kept in mind although the disk has failed to keep them.
const MAX_FAILED: usize = 4096;

/// More levels than any directory that a path leads to is below the root of its space.
const MAX_LEVELS: usize = 1000;

/// The directories of a space whose names may not last.
#[derive(Debug, Default)]
pub(crate) struct Unsynced(Mutex<HashMap<FileId, Arc<NewName>>>);

/// The name of a directory, since it was made or moved.
#[derive(Debug)]
pub(crate) struct NewName {
    dir: FileId,
    name: String,
    pub(crate) parent: OpenDir,
    /// Held while the disk is asked: who waits for it needs the answer.
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Synced,
    /// The disk must not be asked again: it would lie.
    Failed,
}

impl NewName {
    /// Brings it to the disk, unless somebody has.
    pub(crate) fn sync(&self, staging: &Staging) -> io::Result<()> {
        let mut state = self.state();
        match *state {
            State::Synced => Ok(()),
            State::Failed => Err(Errno::IO.into()),
            State::New => {
                let synced = staging.synced(self.parent.sync());
                *state = if synced.is_ok() {
                    State::Synced
                } else {
                    State::Failed
                };
                synced
            }
        }
    }

    /// Notes how it went for all that the file system holds.
    pub(crate) fn set_synced(&self, is_synced: bool) -> io::Result<()> {
        let mut state = self.state();
        match *state {
            State::New if is_synced => *state = State::Synced,
            State::New => *state = State::Failed,
            State::Synced => {}
            State::Failed => return Err(Errno::IO.into()),
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_failed(&self) -> bool {
        let state = self.state.try_lock();
        state.is_ok_and(|state| *state == State::Failed)
    }
}

impl Unsynced {
    fn lock(&self) -> MutexGuard<'_, HashMap<FileId, Arc<NewName>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets those that are on the disk.
    pub(crate) fn settle(&self, names: &[Arc<NewName>]) {
        if names.is_empty() {
            return;
        }
        let mut all = self.lock();
        for name in names {
            let is_it = |known: &Arc<NewName>| Arc::ptr_eq(known, name);
            if *name.state() == State::Synced && all.get(&name.dir).is_some_and(is_it) {
                all.remove(&name.dir);
            }
        }
    }

    fn forget(&self, name: &NewName) {
        self.lock().remove(&name.dir);
    }
}

impl Names<'_> {
    /// Notes that the directory `name` in `parent` has just got that name.
    pub(crate) fn note_new(&self, parent: &OpenDir, name: &str) -> io::Result<Arc<NewName>> {
        let meta = parent.meta(name)?.ok_or(Errno::NOENT)?;
        let new = Arc::new(NewName {
            dir: meta.birthmark(),
            name: name.to_owned(),
            parent: parent.open_dir(c".")?,
            state: Mutex::new(State::New),
        });
        let mut all = self.space.unsynced.lock();
        if all.len() >= MAX_FAILED {
            all.retain(|_, known| !known.has_failed());
        }
        all.insert(new.dir, Arc::clone(&new));
        Ok(new)
    }

    /// Makes the missing directories on the way to `path` and opens the last. Adds to `made` those
    /// that were made, the outermost first; after an error, too.
    pub(crate) fn make_dirs(
        &self,
        path: &VirtualPath,
        made: &mut Vec<Arc<NewName>>,
    ) -> io::Result<OpenDir> {
        self.space.jail.make_dirs(path, |dir, name| {
            made.push(self.make_dir(dir, name)?);
            Ok(())
        })
    }

    /// Makes the directory `name`, which is for the caller to count and to sync. Nothing is there
    /// after an error.
    pub(crate) fn make_dir(&self, dir: &OpenDir, name: &str) -> io::Result<Arc<NewName>> {
        self.change(&[(dir, name)], || dir.make_dir(name))?;
        let noted = self.note_new(dir, name);
        if noted.is_err() {
            let _ = self.change(&[(dir, name)], || dir.remove_dir(name));
        }
        noted
    }

    /// The names on the way to `dir`, its own too, that may not last.
    pub(crate) fn unsynced_above(&self, dir: &OpenDir) -> io::Result<Vec<Arc<NewName>>> {
        let mut found = Vec::new();
        if self.space.unsynced.lock().is_empty() {
            return Ok(found);
        }
        let mut meta = dir.own_meta()?;
        let mut way = String::new();
        for _ in 0..MAX_LEVELS {
            if meta.identity == self.space.identity() {
                break;
            }
            found.extend(self.space.unsynced.lock().get(&meta.birthmark()).cloned());
            way.push_str("../");
            meta = Metadata::at(dir, &*way)?;
        }
        Ok(found)
    }

    /// Takes back directories that were made and counted and may not last, the last one first, as far
    /// as nobody has put anything into them. What they took up is free again.
    pub(crate) fn take_back_dirs(&self, made: &[Arc<NewName>]) {
        for new in made.iter().rev() {
            let (parent, name) = (&new.parent, &*new.name);
            let is_own =
                |meta: &Metadata| meta.what == EntryKind::Dir && meta.birthmark() == new.dir;
            let there = parent.meta(name).ok().flatten().filter(is_own);
            let Some(meta) = there else {
                continue;
            };
            let taken = self.change(&[(parent, name)], || parent.remove_dir(name));
            if taken.is_ok() {
                self.freed(count_of(&meta));
                self.space.unsynced.forget(new);
            }
        }
    }
}
