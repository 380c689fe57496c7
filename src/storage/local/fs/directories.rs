//! Making and removing directories while the names of a space are locked.

use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use crate::storage::local::fs::metadata::Metadata;
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::fs::tree::count_of;
use crate::storage::local::fs::unsynced::UnsyncedName;
use crate::storage::local::space::LockedNames;
use crate::storage::path::VirtualPath;

/// More levels than a directory that a path leads to can be below the root of its space.
const MAX_LEVELS: usize = 1000;

impl LockedNames<'_> {
    /// Registers the name that a directory in `parent` has got just now as unsynced.
    pub(crate) fn register_unsynced(
        &self,
        parent: &OpenDir,
        name: &str,
    ) -> io::Result<Arc<UnsyncedName>> {
        let meta = parent.meta(name)?.ok_or(Errno::NOENT)?;
        let new = Arc::new(UnsyncedName::new(parent, name, &meta)?);
        self.space.unsynced.insert(&new);
        Ok(new)
    }

    /// Makes the missing directories on the way to `path` and opens the last. Adds those that it
    /// makes to `made`, the outermost first, even if it fails.
    pub(crate) fn make_dirs(
        &self,
        path: &VirtualPath,
        made: &mut Vec<Arc<UnsyncedName>>,
    ) -> io::Result<OpenDir> {
        self.space.sandbox.make_dirs(path, |dir, name| {
            made.push(self.make_dir(dir, name)?);
            Ok(())
        })
    }

    /// Makes the directory `name`. The caller accounts for it and syncs it. Nothing exists after an
    /// error.
    pub(crate) fn make_dir(&self, dir: &OpenDir, name: &str) -> io::Result<Arc<UnsyncedName>> {
        self.change(&[(dir, name)], || dir.make_dir(name))?;
        let unsynced = self.register_unsynced(dir, name);
        if unsynced.is_err() {
            let _ = self.change(&[(dir, name)], || dir.remove_dir(name));
        }
        unsynced
    }

    /// The unsynced names on the way to `dir`, its own included.
    pub(crate) fn unsynced_above(&self, dir: &OpenDir) -> io::Result<Vec<Arc<UnsyncedName>>> {
        let mut found = Vec::new();
        if self.space.unsynced.is_empty() {
            return Ok(found);
        }
        let mut meta = dir.own_meta()?;
        let mut upwards = String::new();
        for _ in 0..MAX_LEVELS {
            if meta.identity == self.space.identity() {
                break;
            }
            found.extend(self.space.unsynced.get(&meta));
            upwards.push_str("../");
            meta = Metadata::of_name(dir, &*upwards)?;
        }
        Ok(found)
    }

    /// Removes directories that were made and accounted for but may not survive a power cut, the
    /// last first, unless another operation has put something into them.
    pub(crate) fn undo_make_dirs(&self, made: &[Arc<UnsyncedName>]) {
        for unsynced in made.iter().rev() {
            let (parent, name) = (&unsynced.parent, &*unsynced.name);
            let meta = parent.meta(name).ok().flatten();
            let Some(meta) = meta.filter(|meta| unsynced.is_of(meta)) else {
                continue;
            };
            let removed = self.change(&[(parent, name)], || parent.remove_dir(name));
            if removed.is_ok() {
                self.account_removed(count_of(&meta));
                self.space.unsynced.remove(unsynced);
            }
        }
    }
}
