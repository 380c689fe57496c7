//! Staging: where everything unfinished is, on the same file system as the homes and outside all.
//!
//! What is here belongs to nobody's view. It leaves by one rename or is deleted, at the latest
//! behind the start of the next server, unless it is an upload that can be gone on with. What can
//! not be deleted is tried again from time to time.

use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use rustix::fs::{FlockOperation, flock};
use rustix::system::uname;

use crate::storage::error::{DiskUse, ErrorContext, StorageError};
use crate::storage::local::count::Counts;
use crate::storage::local::fs::sandbox::{MountInfo, OpenDir};
use crate::storage::local::fs::tree;
use crate::storage::local::fs::tree::Deleted;
use crate::storage::local::fs::unsynced::NewName;
use crate::storage::local::quota::SpaceCount;
use crate::storage::path::VirtualPath;

/// What the disk keeps free for the server's own records, unless set otherwise.
pub(crate) const DEFAULT_FLOOR: u64 = 64 * 1024 * 1024;

/// Entries of something left that are tried before it is looked whether the server stops.
const MIN_BUDGET: u64 = 10_000;

/// The same where so many of them can not be deleted.
const MAX_BUDGET: u64 = 1 << 40;

/// Inodes that the disk keeps free for the server's own records, or a hundredth of all if that is
/// less. It is more than all threads together can make between their checks and their use.
const INODE_FLOOR: u64 = 10_000;

/// From so many files on, one sync of the file system costs less than one of each.
const TOGETHER: usize = 4;

/// The staging directory, locked against other servers for as long as anything may be in it.
#[derive(Debug)]
pub(crate) struct Staging {
    pub(crate) dir: OpenDir,
    /// The mount that it is on, and what is moved out of it has to be on as well.
    mount: MountInfo,
    /// Bytes of the disk that no upload may fill.
    floor: AtomicU64,
    /// Bytes that are reserved on the disk and not written yet, of everything under way.
    promised: AtomicU64,
    degraded: AtomicBool,
    told: Told,
    /// A sync of the whole file system fails if any write to it has.
    tells_all: bool,
    /// What is to be deleted behind the work of the server.
    left: Mutex<VecDeque<Left>>,
    /// The counts under way.
    pub(crate) counts: Arc<Counts>,
    #[cfg(test)]
    pub(crate) at_sync: AtSync,
}

/// Something in staging that could not be deleted yet.
#[derive(Debug)]
struct Left {
    name: CString,
    /// Entries of it that are tried at a time.
    budget: u64,
    /// The log has been told: each further try would tell it again.
    is_told: bool,
}

/// When the log was told last that the disk fails: each upload would tell it again.
#[derive(Debug, Default)]
struct Told(Mutex<Option<Instant>>);

impl Told {
    const AGAIN_AFTER: Duration = Duration::from_mins(1);

    /// Whether it is to be told at `now`; if so, it counts as told.
    fn is_due(&self, now: Instant) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = told.is_none_or(|told| now.duration_since(told) >= Self::AGAIN_AFTER);
        if due {
            *told = Some(now);
        }
        due
    }
}

/// What tests have happen at the next syncs, one after the other: no test can make a disk fail.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct AtSync(Mutex<VecDeque<Event>>);

#[cfg(test)]
type Event = Box<dyn FnOnce() -> io::Result<()> + Send>;

#[cfg(test)]
impl AtSync {
    pub(crate) fn then(&self, event: impl FnOnce() -> io::Result<()> + Send + 'static) -> &Self {
        let mut events = self.0.lock().expect("no panic");
        events.push_back(Box::new(event));
        self
    }

    /// Nothing more happens.
    pub(crate) fn clear(&self) {
        self.0.lock().expect("no panic").clear();
    }

    fn happen(&self) -> io::Result<()> {
        let event = self.0.lock().expect("no panic").pop_front();
        event.map_or(Ok(()), |event| event())
    }
}

#[cfg(test)]
impl std::fmt::Debug for AtSync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AtSync").finish_non_exhaustive()
    }
}

impl Staging {
    /// Takes the directory over; `WouldBlock` if another server has it.
    pub(crate) fn take(dir: OpenDir) -> io::Result<Self> {
        flock(&dir, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self {
            mount: dir.mount()?,
            dir,
            floor: AtomicU64::new(DEFAULT_FLOOR),
            promised: AtomicU64::new(0),
            degraded: AtomicBool::new(false),
            told: Told::default(),
            tells_all: syncfs_tells_errors(uname().release().to_str().unwrap_or_default()),
            left: Mutex::default(),
            counts: Arc::default(),
            #[cfg(test)]
            at_sync: AtSync::default(),
        })
    }

    /// A new, empty file.
    pub(crate) fn file(self: &Arc<Self>) -> io::Result<(Staged, File)> {
        let staged = self.reserve_name()?;
        let file = self.dir.create_file(staged.name())?;
        Ok((staged, file))
    }

    /// A new, empty directory.
    pub(crate) fn directory(self: &Arc<Self>) -> io::Result<(Staged, OpenDir)> {
        let staged = self.reserve_name()?;
        self.dir.make_dir(staged.name())?;
        let dir = self.dir.open_dir(staged.name())?;
        Ok((staged, dir))
    }

    /// A name that nothing has, to move something to.
    pub(crate) fn reserve_name(self: &Arc<Self>) -> io::Result<Staged> {
        Ok(self.adopt(random_name()?))
    }

    /// What is staged under `name` already.
    pub(crate) fn adopt(self: &Arc<Self>, name: String) -> Staged {
        Staged {
            staging: Arc::clone(self),
            name,
            left: false,
        }
    }

    /// Notes what is in staging, but for what `keep` wants by its name, to be deleted later.
    pub(crate) fn leave_others(&self, keep: impl Fn(&str) -> bool) -> io::Result<()> {
        tree::for_each(&self.dir, |entry| {
            let name = entry.file_name();
            if !name.to_str().is_ok_and(&keep) {
                self.leave(name.to_owned(), false);
            }
            Ok(())
        })
    }

    fn leave(&self, name: CString, is_told: bool) {
        self.lock_left().push_back(Left {
            name,
            budget: MIN_BUDGET,
            is_told,
        });
    }

    /// Tries to delete a bounded part of one thing that is left here; whether it is worth going on
    /// with that at once.
    pub(crate) fn delete_left(&self) -> bool {
        let Some(mut left) = self.lock_left().pop_front() else {
            return false;
        };
        let deleted = tree::delete_within(&self.dir, &left.name, &mut left.budget.clone());
        if !left.is_told {
            log_failure(&deleted);
            left.is_told = deleted.failed.is_some();
        }
        if deleted.is_cut_short && deleted.entries > 0 {
            self.lock_left().push_front(left);
            return true;
        }
        if deleted.is_cut_short || deleted.failed.is_some() {
            // What can not be deleted must not use up the budget of what can.
            left.budget = left.budget.saturating_mul(2).min(MAX_BUDGET);
            self.lock_left().push_back(left);
        }
        false
    }

    /// How many things are left here to be deleted.
    pub(crate) fn left(&self) -> usize {
        self.lock_left().len()
    }

    fn lock_left(&self) -> MutexGuard<'_, VecDeque<Left>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_floor(&self, bytes: u64) {
        self.floor.store(bytes, Ordering::Relaxed);
    }

    /// Makes sure that `path` is on the mount of staging, where `dir` is the directory that holds
    /// it: what is staged could not be moved there otherwise.
    pub(crate) fn check_mount(
        &self,
        dir: &OpenDir,
        path: &VirtualPath,
    ) -> Result<(), StorageError> {
        if dir.mount().at("look at", path)? == self.mount {
            return Ok(());
        }
        Err(StorageError::OtherFileSystem { path: path.clone() })
    }

    /// Reserves bytes of the disk, to be [given back](Self::release) as they are written. What is free
    /// and not promised to others must leave the floor, or a hundredth of the disk if that is less.
    ///
    /// The sum is taken before the disk is asked, so that of two who race for the last bytes one
    /// gets them. Inodes are looked at and not reserved: whoever asks makes them at once.
    pub(crate) fn reserve(&self, more: SpaceCount, path: &VirtualPath) -> Result<(), StorageError> {
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        let add = |promised: u64| promised.checked_add(more.bytes);
        let Ok(others) = self.promised.fetch_update(success, failure, add) else {
            let path = path.clone();
            return Err(StorageError::NoSpace { path, room: None });
        };
        let reserved = self.check(others, more, path);
        if reserved.is_err() {
            self.release(more.bytes);
        }
        reserved
    }

    /// Gives back what was reserved and is written now, or never will be.
    pub(crate) fn release(&self, bytes: u64) {
        self.promised.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Makes sure that so much more would fit, without reserving it.
    pub(crate) fn check_room(
        &self,
        more: SpaceCount,
        path: &VirtualPath,
    ) -> Result<(), StorageError> {
        self.check(self.promised.load(Ordering::Relaxed), more, path)
    }

    /// Makes sure that so much more leaves the disk its floor, whatever is promised.
    pub(crate) fn check_floor(
        &self,
        more: SpaceCount,
        path: &VirtualPath,
    ) -> Result<(), StorageError> {
        self.check(0, more, path)
    }

    /// Bytes that are free on the disk beyond half of the floor: what files leave free is for the
    /// server's records, and the second half of it for the accounts alone.
    pub(crate) fn room_for_messages(&self) -> io::Result<u64> {
        let disk = self.dir.disk()?;
        let floor = self.floor.load(Ordering::Relaxed).min(disk.bytes / 100);
        Ok(disk.free_bytes.saturating_sub(floor / 2))
    }

    fn check(
        &self,
        promised: u64,
        more: SpaceCount,
        path: &VirtualPath,
    ) -> Result<(), StorageError> {
        let disk = self.dir.disk().at("ask for", path)?;
        let floor = self.floor.load(Ordering::Relaxed).min(disk.bytes / 100);
        let kept_free = floor.saturating_add(promised);
        let inode_floor = INODE_FLOOR.min(disk.inodes / 100);
        let room = if more.bytes.saturating_add(kept_free) > disk.free_bytes {
            DiskUse::Bytes {
                free: disk.free_bytes,
                kept_free,
            }
        } else if disk.inodes > 0
            && more.entries > 0
            && disk.free_inodes < inode_floor.saturating_add(more.entries)
        {
            DiskUse::Inodes {
                free: disk.free_inodes,
                kept_free: inode_floor,
            }
        } else {
            return Ok(());
        };
        Err(StorageError::NoSpace {
            path: path.clone(),
            room: Some(room),
        })
    }

    /// Passes on whether something is on the disk. After a failure the pages that could not be
    /// written count as clean, so asking again would lie: the caller gives up what it has.
    pub(crate) fn synced(&self, result: io::Result<()>) -> io::Result<()> {
        #[cfg(test)]
        let result = result.and_then(|()| self.at_sync.happen());
        if let Err(error) = &result {
            self.degraded.store(true, Ordering::Relaxed);
            if self.told.is_due(Instant::now()) {
                tracing::error!(
                    name: "sync_failed",
                    %error,
                    "the disk failed to keep what was written"
                );
            }
        }
        result
    }

    /// What is told of every write to the file system that fails from now on, whoever else is told
    /// of it: the kernel tells each open handle once.
    pub(crate) fn witness(&self) -> io::Result<OpenDir> {
        self.dir.open_dir(c".")
    }

    /// Whether one more file, beside so many, need not stay open until it is synced.
    pub(crate) fn syncs_together(&self, files: usize) -> bool {
        files >= TOGETHER && self.tells_all
    }

    /// Brings files to the disk: each by itself, or with all that the file system holds, where that
    /// fails if any of it does. The `witness` is from before they were written.
    pub(crate) fn sync_files(&self, files: &[File], witness: &OpenDir) -> io::Result<()> {
        if files.len() >= TOGETHER && self.tells_all {
            return self.synced(witness.sync_disk());
        }
        self.synced(files.iter().try_for_each(File::sync_all))
    }

    /// Makes the names in directories survive a power cut, as [`Self::sync_files`] does with content.
    pub(crate) fn sync_dirs(
        &self,
        dirs: &[&Arc<OpenDir>],
        unsynced: &[&Arc<NewName>],
        witness: &OpenDir,
    ) -> io::Result<()> {
        if dirs.len() + unsynced.len() >= TOGETHER && self.tells_all {
            let synced = self.synced(witness.sync_disk());
            let mut names = unsynced.iter();
            let noted = names.try_for_each(|name| name.set_synced(synced.is_ok()));
            return synced.and(noted);
        }
        unsynced.iter().try_for_each(|name| name.sync(self))?;
        self.synced(dirs.iter().try_for_each(|dir| dir.sync()))
    }

    /// What is told whether a tree that is written from now on is on the disk; absent where each part
    /// of it has to be asked for, since a sync of the whole file system does not tell.
    pub(crate) fn tree_witness(&self) -> io::Result<Option<OpenDir>> {
        self.tells_all.then(|| self.witness()).transpose()
    }

    pub(crate) fn is_degraded(&self) -> bool {
        self.degraded.load(Ordering::Relaxed)
    }
}

/// Whether a Linux of this release passes on in `syncfs` that a write failed: since 5.8.
fn syncfs_tells_errors(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    number().zip(number()) >= Some((5, 8))
}

/// A name that nothing has: random, hex.
pub(crate) fn random_name() -> io::Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(HEXLOWER.encode(&random))
}

/// A staged file or tree; deleted when dropped, unless it has got its real name.
#[derive(Debug)]
pub(crate) struct Staged {
    staging: Arc<Staging>,
    name: String,
    left: bool,
}

impl Staged {
    /// Its name in staging: random, hex.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn dir(&self) -> &OpenDir {
        &self.staging.dir
    }

    /// Deletes it now, and says how that went. What can not be deleted is tried again later.
    pub(crate) fn delete(&mut self) -> Deleted {
        self.left = true;
        let deleted = tree::delete(&self.staging.dir, &self.c_name());
        log_failure(&deleted);
        if deleted.failed.is_some() {
            self.staging.leave(self.c_name(), true);
        }
        deleted
    }

    /// What it takes up, as far as that can be found out.
    pub(crate) fn count(&self) -> SpaceCount {
        let count = tree::count(&self.staging.dir, &self.c_name());
        count.unwrap_or_default()
    }

    fn c_name(&self) -> CString {
        CString::new(self.name.as_str()).unwrap_or_default()
    }

    /// Notes that it is no longer in staging.
    pub(crate) fn set_left(&mut self) {
        self.left = true;
    }

    /// Notes that it is in staging again, or still.
    pub(crate) fn set_back(&mut self) {
        self.left = false;
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.left {
            self.delete();
        }
    }
}

/// What stays behind is in nobody's view, and is tried again.
fn log_failure(deleted: &Deleted) {
    if let Some(error) = &deleted.failed {
        tracing::warn!(
            name: "staging_not_deleted",
            %error,
            left = deleted.left,
            "something could not be deleted from staging"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_fails_is_told_of_once_a_minute() {
        let (told, start) = (Told::default(), Instant::now());
        let due: Vec<_> = [0, 1, 59, 60, 61, 119, 120]
            .into_iter()
            .filter(|seconds| told.is_due(start + Duration::from_secs(*seconds)))
            .collect();
        assert_eq!(due, [0, 60, 120]);
    }

    #[test]
    fn only_newer_kernels_tell_in_one_sync_that_a_write_failed() {
        let tells = ["5.8.0", "5.10.0-28-amd64", "6.18.44-fc", "10.0"];
        assert!(tells.into_iter().all(syncfs_tells_errors));
        let silent = ["5.7.19", "4.19.0-26-amd64", "3.10", "", "5", "odd.9"];
        assert!(!silent.into_iter().any(syncfs_tells_errors));
    }

    #[test]
    fn a_failed_sync_is_passed_on_and_remembered() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = OpenDir::open_ambient(dir.path()).expect("there");
        let staging = Staging::take(dir).expect("nobody else's");
        staging.synced(Ok(())).expect("synced");
        assert!(!staging.is_degraded());
        let failed = staging.synced(Err(rustix::io::Errno::IO.into()));
        assert!(failed.is_err() && staging.is_degraded());
    }
}
