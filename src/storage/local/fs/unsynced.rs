//! Directories whose names a power cut may still undo.
//!
//! An operation that makes or moves a directory syncs the name of it after it has released the lock
//! on the names. Until then other operations can put files into the directory already. Those files
//! are safe only once the name is, so each operation syncs the names above its file as well, or
//! learns that the disk has failed to keep one.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::storage::local::fs::metadata::{EntryKind, FileId, Metadata};
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::fs::staging::Staging;

/// Names that are remembered after the disk has failed to keep them.
const MAX_FAILED_NAMES: usize = 4096;

/// The directories of a space whose names may not be on the disk, by the directory.
#[derive(Debug, Default)]
pub(crate) struct UnsyncedNames(Mutex<HashMap<FileId, Arc<UnsyncedName>>>);

/// The name that a directory got when it was made or moved.
#[derive(Debug)]
pub(crate) struct UnsyncedName {
    dir: FileId,
    pub(crate) name: String,
    pub(crate) parent: OpenDir,
    /// Locked while the disk is asked: every operation that waits for the lock needs the answer.
    state: Mutex<NameState>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NameState {
    New,
    Synced,
    /// The disk must not be asked again: a second sync succeeds although the data is lost.
    Failed,
}

impl UnsyncedName {
    /// The name that `meta`, a directory in `parent`, has got just now.
    pub(crate) fn new(parent: &OpenDir, name: &str, meta: &Metadata) -> io::Result<Self> {
        Ok(Self {
            dir: meta.file_id(),
            name: name.to_owned(),
            parent: parent.open_dir(c".")?,
            state: Mutex::new(NameState::New),
        })
    }

    /// Whether `meta` describes the directory.
    pub(crate) fn is_of(&self, meta: &Metadata) -> bool {
        meta.kind == EntryKind::Dir && meta.file_id() == self.dir
    }

    /// Syncs the name, unless another operation has.
    pub(crate) fn sync(&self, staging: &Staging) -> io::Result<()> {
        let mut state = self.state();
        match *state {
            NameState::Synced => Ok(()),
            NameState::Failed => Err(Errno::IO.into()),
            NameState::New => {
                let synced = staging.record_sync(self.parent.sync());
                *state = if synced.is_ok() {
                    NameState::Synced
                } else {
                    NameState::Failed
                };
                synced
            }
        }
    }

    /// Records the result of a sync of the whole file system.
    fn set_synced(&self, is_synced: bool) -> io::Result<()> {
        let mut state = self.state();
        match *state {
            NameState::New if is_synced => *state = NameState::Synced,
            NameState::New => *state = NameState::Failed,
            NameState::Synced => {}
            NameState::Failed => return Err(Errno::IO.into()),
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, NameState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_failed(&self) -> bool {
        self.state_if_known() == Some(NameState::Failed)
    }

    fn is_synced(&self) -> bool {
        self.state_if_known() == Some(NameState::Synced)
    }

    /// The state, unless the disk is being asked: callers hold the lock on all names, under which nothing
    /// may wait for the disk.
    fn state_if_known(&self) -> Option<NameState> {
        self.state.try_lock().ok().map(|state| *state)
    }
}

impl UnsyncedNames {
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// The unsynced name of the directory that `meta` describes.
    pub(crate) fn get(&self, meta: &Metadata) -> Option<Arc<UnsyncedName>> {
        self.lock().get(&meta.file_id()).cloned()
    }

    pub(crate) fn insert(&self, name: &Arc<UnsyncedName>) {
        let mut names = self.lock();
        if names.len() >= MAX_FAILED_NAMES {
            names.retain(|_, known| !known.has_failed());
        }
        names.insert(name.dir, Arc::clone(name));
    }

    pub(crate) fn remove(&self, name: &UnsyncedName) {
        self.lock().remove(&name.dir);
    }

    /// Removes those of `names` that are on the disk. A name that is being synced stays for the operation
    /// that syncs it.
    pub(crate) fn remove_synced(&self, names: &[Arc<UnsyncedName>]) {
        if names.is_empty() {
            return;
        }
        let mut all = self.lock();
        for name in names {
            let is_current = |known: &Arc<UnsyncedName>| Arc::ptr_eq(known, name);
            if name.is_synced() && all.get(&name.dir).is_some_and(is_current) {
                all.remove(&name.dir);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<FileId, Arc<UnsyncedName>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Syncs the names in directories: each directory by itself or, with a `sync_handle` from before the
/// names changed, the whole file system if that costs less and reports every failure.
pub(crate) fn sync_names(
    staging: &Staging,
    dirs: &[&Arc<OpenDir>],
    unsynced: &[&Arc<UnsyncedName>],
    sync_handle: Option<&OpenDir>,
) -> io::Result<()> {
    if let Some(handle) = sync_handle
        && staging.syncs_file_system(dirs.len() + unsynced.len())
    {
        let synced = staging.record_sync(handle.sync_file_system());
        let recorded = record_result(unsynced, synced.is_ok());
        return synced.and(recorded);
    }
    unsynced.iter().try_for_each(|name| name.sync(staging))?;
    staging.record_sync(dirs.iter().try_for_each(|dir| dir.sync()))
}

/// Records the result of a sync of the whole file system for every name, also for those after one that
/// has failed before: a later sync of a name that stays new would succeed although its data is lost.
fn record_result(unsynced: &[&Arc<UnsyncedName>], is_synced: bool) -> io::Result<()> {
    let results = unsynced.iter().map(|name| name.set_synced(is_synced));
    results.fold(Ok(()), Result::and)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_name(parent: &OpenDir, name: &str) -> Arc<UnsyncedName> {
        parent.make_dir(name).expect("made");
        let meta = parent.meta(name).expect("readable").expect("present");
        Arc::new(UnsyncedName::new(parent, name, &meta).expect("opened"))
    }

    #[test]
    fn a_failed_sync_of_the_file_system_fails_every_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let parent = OpenDir::open_ambient(directory.path()).expect("opened");
        let (first, second) = (new_name(&parent, "first"), new_name(&parent, "second"));
        first.set_synced(false).expect("it was new");
        assert!(record_result(&[&first, &second], false).is_err());
        assert!(second.has_failed());
    }

    #[test]
    fn a_name_that_is_being_synced_does_not_delay_the_removal_of_others() {
        let directory = tempfile::tempdir().expect("a directory");
        let parent = OpenDir::open_ambient(directory.path()).expect("opened");
        let (busy, synced) = (new_name(&parent, "busy"), new_name(&parent, "synced"));
        let names = UnsyncedNames::default();
        names.insert(&busy);
        names.insert(&synced);
        synced.set_synced(true).expect("it was new");
        let syncing = busy.state();
        names.remove_synced(&[Arc::clone(&busy), Arc::clone(&synced)]);
        drop(syncing);
        let known = names.lock();
        assert_eq!(known.keys().collect::<Vec<_>>(), [&busy.dir]);
    }
}
