//! Figures of the store for operators: partial uploads, usage of spaces and disk, and whether the
//! disk can be written.

use std::io::{self, Write};

use rustix::io::Errno;

use crate::storage::error::StorageError;
use crate::storage::local::space::Area;
use crate::storage::local::space_count::SpaceCount;
use crate::storage::local::store::Store;
use crate::storage::path::VirtualPath;

/// The content of the file that checks whether the disk can be written.
const PROBE_CONTENT: [u8; 4096] = [0; 4096];

/// The usage of a space with a limit of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpaceUse {
    /// Whether it is a shared folder, not a home.
    pub is_folder: bool,
    /// The name of the folder, or of the user.
    pub name: String,
    /// Bytes in files, and reserved.
    pub used: u64,
    /// The limit of bytes.
    pub limit: u64,
}

impl Store {
    /// The number of partial uploads, and their bytes.
    #[must_use]
    pub fn kept_uploads(&self) -> (usize, u64) {
        self.partial_uploads().total()
    }

    /// At most `limit` of the open spaces with a limit of bytes, the fullest first. Spaces that are not
    /// counted yet are left out. Does not use the disk.
    #[must_use]
    pub fn fullest(&self, limit: usize) -> Vec<SpaceUse> {
        let spaces = self.open_spaces();
        let uses = spaces.iter().filter_map(|space| {
            let ledger = space.ledger();
            let (used, limit) = (ledger.used()?.bytes, ledger.limits.bytes?);
            let id = space.id();
            Some(SpaceUse {
                is_folder: id.area == Area::Folders,
                name: id.name.clone(),
                used,
                limit,
            })
        });
        let mut uses: Vec<_> = uses.collect();
        // The order of used / limit, without division, so that it is exact.
        let times = |a: u64, b: u64| u128::from(a) * u128::from(b);
        uses.sort_by(|a, b| {
            let fuller = times(b.used, a.limit).cmp(&times(a.used, b.limit));
            fuller.then_with(|| (a.is_folder, &a.name).cmp(&(b.is_folder, &b.name)))
        });
        uses.truncate(limit);
        uses
    }

    /// Bytes and entries in the home of that name, if it is open and counted. Does not use the disk.
    #[must_use]
    pub fn counted_home(&self, name: &str) -> Option<(u64, u64)> {
        let spaces = self.open_spaces();
        let home = spaces.iter().find(|space| {
            let id = space.id();
            id.area == Area::Homes && id.name == name
        })?;
        let used = home.ledger().used()?;
        Some((used.bytes, used.entries))
    }

    /// The free bytes of the disk, and its size. May block on the disk.
    ///
    /// # Errors
    /// The system's error.
    pub fn disk_space(&self) -> io::Result<(u64, u64)> {
        let disk = self.partial_uploads().staging.dir.disk()?;
        Ok((disk.free_bytes, disk.bytes))
    }

    /// Checks that an upload would succeed now: makes a small file in staging, syncs it and removes it.
    /// May block on the disk.
    ///
    /// # Errors
    /// The system's error, and [`io::ErrorKind::StorageFull`] if the file would not leave the disk its
    /// floor.
    pub fn try_write(&self) -> io::Result<()> {
        let staging = &self.partial_uploads().staging;
        let room = staging.check_floor(
            SpaceCount::file(PROBE_CONTENT.len() as u64),
            &VirtualPath::root(),
        );
        match room {
            Err(StorageError::NoSpace { .. }) => return Err(Errno::NOSPC.into()),
            Err(StorageError::Io { source, .. }) => return Err(source),
            _ => {}
        }
        let (mut staged, mut file) = staging.create_file()?;
        let written = file
            .write_all(&PROBE_CONTENT)
            .and_then(|()| staging.record_sync(file.sync_all()));
        let deleted = staged.delete();
        written?;
        deleted.failed.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::local::upload::partial::StoreSettings;
    use crate::storage::rights::SpaceLimits;

    fn test_store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("a store");
        (dir, store)
    }

    #[test]
    fn a_store_that_can_be_written_says_so_and_leaves_nothing_behind() {
        let (dir, store) = test_store();
        store.try_write().expect("there is room");
        let staged = std::fs::read_dir(dir.path().join("staging")).expect("staging");
        assert_eq!(staged.count(), 0);
        let (free, size) = store.disk_space().expect("a disk");
        assert!(free <= size && size > 0);
    }

    #[test]
    fn a_store_whose_staging_is_gone_says_so() {
        let (dir, store) = test_store();
        std::fs::remove_dir(dir.path().join("staging")).expect("removed");
        assert!(store.try_write().is_err());
    }

    #[test]
    fn the_fullest_spaces_come_first_and_those_without_a_limit_do_not() {
        let (_dir, store) = test_store();
        store.set(StoreSettings::default());
        let limited = |bytes| SpaceLimits {
            bytes: Some(bytes),
            files: None,
        };
        let spaces = [
            store.home("alice", limited(100)).expect("a home"),
            store.home("bob", SpaceLimits::default()).expect("a home"),
            store.folder("team", limited(50)).expect("a folder"),
        ];
        for space in &spaces {
            space.require_count(&VirtualPath::root()).expect("counted");
            space.lock_names().account_restored(SpaceCount::file(40));
        }
        let names = |most| -> Vec<_> {
            let fullest = store.fullest(most).into_iter();
            fullest
                .map(|one| (one.is_folder, one.name, one.used, one.limit))
                .collect()
        };
        let team = (true, "team".to_owned(), 40, 50);
        assert_eq!(
            names(9),
            [team.clone(), (false, "alice".to_owned(), 40, 100)]
        );
        assert_eq!(names(1), [team]);
    }
}
