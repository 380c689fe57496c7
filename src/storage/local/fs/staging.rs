//! Staging: the directory of everything unfinished, on the file system of the homes and outside
//! all of them.
//!
//! A staged file or tree is in no view. It gets its name by one rename, or is deleted, at the
//! latest after the start of the next server, unless it is a partial upload. Leftovers that cannot
//! be deleted are tried again from time to time. Staging also reserves bytes of the disk, and
//! records every failed sync.

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
use crate::storage::local::fs::sandbox::{MountInfo, OpenDir};
use crate::storage::local::fs::tree;
use crate::storage::local::fs::tree::Deletion;
use crate::storage::local::space_count::SpaceCount;
use crate::storage::path::VirtualPath;

/// Bytes of the disk that uploads leave free by default, for the server's own records.
pub(crate) const DEFAULT_FLOOR: u64 = 64 * 1024 * 1024;

/// Entries of a leftover that one call of [`Staging::delete_leftover`] tries to delete at first. The
/// server checks between two calls whether it stops.
const MIN_DELETE_BUDGET: u64 = 10_000;

/// The same after calls in which many entries could not be deleted.
const MAX_DELETE_BUDGET: u64 = 1 << 40;

/// Inodes that uploads leave free for the server's own records, or a hundredth of all if that is
/// less. All threads together make fewer between their checks and their use.
const INODE_FLOOR: u64 = 10_000;

/// The number of files from which one sync of the file system costs less than one sync of each.
const MIN_FILES_FOR_FILE_SYSTEM_SYNC: usize = 4;

/// The staging directory, locked against other servers for as long as anything may be in it.
#[derive(Debug)]
pub(crate) struct Staging {
    pub(crate) dir: OpenDir,
    /// The mount of the directory. A staged file cannot be renamed to another mount.
    mount: MountInfo,
    /// Bytes of the disk that uploads leave free.
    floor_bytes: AtomicU64,
    /// Bytes of the disk that are reserved by operations under way and not written yet.
    reserved_bytes: AtomicU64,
    has_failed_sync: AtomicBool,
    failure_log: SyncFailureLog,
    /// Whether a sync of the whole file system fails if any write to it has failed.
    reports_all_errors: bool,
    leftovers: Mutex<VecDeque<Leftover>>,
    #[cfg(test)]
    pub(crate) sync_hook: SyncHook,
}

/// An entry of staging that is to be deleted in the background.
#[derive(Debug)]
struct Leftover {
    name: CString,
    /// Entries of it that the next call tries to delete.
    budget: u64,
    /// Whether its failure is in the log already.
    is_logged: bool,
}

/// When a failed sync was logged last. Without a limit each upload would log the same failure.
#[derive(Debug, Default)]
struct SyncFailureLog(Mutex<Option<Instant>>);

impl SyncFailureLog {
    const MIN_INTERVAL: Duration = Duration::from_mins(1);

    /// Whether a failure at `now` must be logged; if so, it counts as logged.
    fn is_due(&self, now: Instant) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = logged.is_none_or(|logged| now.duration_since(logged) >= Self::MIN_INTERVAL);
        if is_due {
            *logged = Some(now);
        }
        is_due
    }
}

/// Events that tests insert at the next syncs, in order: no test can make a disk fail.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct SyncHook(Mutex<VecDeque<SyncEvent>>);

#[cfg(test)]
type SyncEvent = Box<dyn FnOnce() -> io::Result<()> + Send>;

#[cfg(test)]
impl SyncHook {
    pub(crate) fn then(&self, event: impl FnOnce() -> io::Result<()> + Send + 'static) -> &Self {
        let mut events = self.0.lock().expect("no panic");
        events.push_back(Box::new(event));
        self
    }

    /// Discards the remaining events.
    pub(crate) fn clear(&self) {
        self.0.lock().expect("no panic").clear();
    }

    fn run_next(&self) -> io::Result<()> {
        let event = self.0.lock().expect("no panic").pop_front();
        event.map_or(Ok(()), |event| event())
    }
}

#[cfg(test)]
impl std::fmt::Debug for SyncHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SyncHook").finish_non_exhaustive()
    }
}

impl Staging {
    /// Locks the directory against other servers.
    ///
    /// # Errors
    /// `WouldBlock` if another server has locked it.
    pub(crate) fn lock(dir: OpenDir) -> io::Result<Self> {
        flock(&dir, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self {
            mount: dir.mount()?,
            dir,
            floor_bytes: AtomicU64::new(DEFAULT_FLOOR),
            reserved_bytes: AtomicU64::new(0),
            has_failed_sync: AtomicBool::new(false),
            failure_log: SyncFailureLog::default(),
            reports_all_errors: syncfs_reports_errors(
                uname().release().to_str().unwrap_or_default(),
            ),
            leftovers: Mutex::default(),
            #[cfg(test)]
            sync_hook: SyncHook::default(),
        })
    }

    /// Makes an empty file.
    pub(crate) fn create_file(self: &Arc<Self>) -> io::Result<(Staged, File)> {
        let staged = self.reserve_name()?;
        let file = self.dir.create_file(staged.name())?;
        Ok((staged, file))
    }

    /// Makes an empty directory.
    pub(crate) fn create_dir(self: &Arc<Self>) -> io::Result<(Staged, OpenDir)> {
        let staged = self.reserve_name()?;
        self.dir.make_dir(staged.name())?;
        let dir = self.dir.open_dir(staged.name())?;
        Ok((staged, dir))
    }

    /// An unused name, for an entry that is moved to staging.
    pub(crate) fn reserve_name(self: &Arc<Self>) -> io::Result<Staged> {
        Ok(self.adopt(random_name()?))
    }

    /// The entry that is staged as `name` already.
    pub(crate) fn adopt(self: &Arc<Self>, name: String) -> Staged {
        Staged {
            staging: Arc::clone(self),
            name,
            is_released: false,
        }
    }

    /// Queues all entries of staging for deletion, except those whose name `keep` accepts.
    pub(crate) fn queue_leftovers(&self, keep: impl Fn(&str) -> bool) -> io::Result<()> {
        tree::for_each(&self.dir, |entry| {
            let name = entry.file_name();
            if !name.to_str().is_ok_and(&keep) {
                self.queue_leftover(name.to_owned(), false);
            }
            Ok(())
        })
    }

    fn queue_leftover(&self, name: CString, is_logged: bool) {
        self.lock_leftovers().push_back(Leftover {
            name,
            budget: MIN_DELETE_BUDGET,
            is_logged,
        });
    }

    /// Deletes a bounded part of one leftover; `true` if the next call can delete more of it.
    pub(crate) fn delete_leftover(&self) -> bool {
        let Some(mut leftover) = self.lock_leftovers().pop_front() else {
            return false;
        };
        let deleted = tree::delete_within(&self.dir, &leftover.name, &mut leftover.budget.clone());
        if !leftover.is_logged {
            log_failure(&deleted);
            leftover.is_logged = deleted.failed.is_some();
        }
        if deleted.is_cut_short && deleted.entries > 0 {
            self.lock_leftovers().push_front(leftover);
            return true;
        }
        if deleted.is_cut_short || deleted.failed.is_some() {
            // Entries that cannot be deleted must not use up the budget of the others.
            leftover.budget = leftover.budget.saturating_mul(2).min(MAX_DELETE_BUDGET);
            self.lock_leftovers().push_back(leftover);
        }
        false
    }

    /// The number of entries that are to be deleted in the background.
    pub(crate) fn leftover_count(&self) -> usize {
        self.lock_leftovers().len()
    }

    fn lock_leftovers(&self) -> MutexGuard<'_, VecDeque<Leftover>> {
        self.leftovers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_floor(&self, bytes: u64) {
        self.floor_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Makes sure that `path`, an entry of `dir`, is on the mount of staging: a staged file cannot
    /// be moved to another.
    pub(crate) fn check_mount(
        &self,
        dir: &OpenDir,
        path: &VirtualPath,
    ) -> Result<(), StorageError> {
        if dir.mount().context("look at", path)? == self.mount {
            return Ok(());
        }
        Err(StorageError::OtherFileSystem { path: path.clone() })
    }

    /// Reserves bytes of the disk, to be [released](Self::release) as they are written. The free
    /// bytes that nobody has reserved must leave the floor, or a hundredth of the disk if that is
    /// less.
    ///
    /// The sum is taken before the disk is asked, so that of two operations that race for the last
    /// bytes one gets them. Inodes are checked and not reserved: the caller makes them at once.
    pub(crate) fn reserve(&self, more: SpaceCount, path: &VirtualPath) -> Result<(), StorageError> {
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        let add = |reserved: u64| reserved.checked_add(more.bytes);
        let Ok(others) = self.reserved_bytes.fetch_update(success, failure, add) else {
            let path = path.clone();
            return Err(StorageError::NoSpace {
                path,
                disk_use: None,
            });
        };
        let reserved = self.check(others, more, path);
        if reserved.is_err() {
            self.release(more.bytes);
        }
        reserved
    }

    /// Releases bytes that are written now, or never will be.
    pub(crate) fn release(&self, bytes: u64) {
        self.reserved_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Makes sure that `more` fits, without reserving it.
    pub(crate) fn check_free(
        &self,
        more: SpaceCount,
        path: &VirtualPath,
    ) -> Result<(), StorageError> {
        self.check(self.reserved_bytes.load(Ordering::Relaxed), more, path)
    }

    /// As [`Self::check_free`], as if no operation had reserved anything.
    pub(crate) fn check_floor(
        &self,
        more: SpaceCount,
        path: &VirtualPath,
    ) -> Result<(), StorageError> {
        self.check(0, more, path)
    }

    /// Free bytes of the disk beyond half of the floor. Files leave the floor to the server's
    /// records, and the second half of it is for the accounts alone.
    pub(crate) fn free_bytes_for_messages(&self) -> io::Result<u64> {
        let disk = self.dir.disk()?;
        let floor = self
            .floor_bytes
            .load(Ordering::Relaxed)
            .min(disk.bytes / 100);
        Ok(disk.free_bytes.saturating_sub(floor / 2))
    }

    fn check(
        &self,
        reserved_bytes: u64,
        more: SpaceCount,
        path: &VirtualPath,
    ) -> Result<(), StorageError> {
        let disk = self.dir.disk().context("ask for", path)?;
        let floor = self
            .floor_bytes
            .load(Ordering::Relaxed)
            .min(disk.bytes / 100);
        let kept_free = floor.saturating_add(reserved_bytes);
        let inode_floor = INODE_FLOOR.min(disk.inodes / 100);
        let disk_use = if more.bytes.saturating_add(kept_free) > disk.free_bytes {
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
            disk_use: Some(disk_use),
        })
    }

    /// Records and logs the failure of a sync, and returns its result. The kernel marks pages that
    /// could not be written as clean, so a second sync would succeed without them: the caller must
    /// discard what it has written.
    pub(crate) fn record_sync(&self, result: io::Result<()>) -> io::Result<()> {
        #[cfg(test)]
        let result = result.and_then(|()| self.sync_hook.run_next());
        if let Err(error) = &result {
            self.has_failed_sync.store(true, Ordering::Relaxed);
            if self.failure_log.is_due(Instant::now()) {
                tracing::error!(
                    name: "sync_failed",
                    %error,
                    "the disk failed to keep what was written"
                );
            }
        }
        result
    }

    /// A handle on which a sync reports every write to the file system that fails from now on. The
    /// kernel reports a failure to each open handle once.
    pub(crate) fn sync_handle(&self) -> io::Result<OpenDir> {
        self.dir.open_dir(c".")
    }

    /// Whether so many files are synced by one sync of the file system, so that they need not stay
    /// open.
    pub(crate) fn syncs_file_system(&self, files: usize) -> bool {
        files >= MIN_FILES_FOR_FILE_SYSTEM_SYNC && self.reports_all_errors
    }

    /// Syncs files: each by itself or, with a `sync_handle` from before they were written, the whole
    /// file system if that costs less and reports every failure.
    pub(crate) fn sync_files(
        &self,
        files: &[Arc<File>],
        sync_handle: Option<&OpenDir>,
    ) -> io::Result<()> {
        match sync_handle {
            Some(handle) if self.syncs_file_system(files.len()) => {
                self.record_sync(handle.sync_file_system())
            }
            _ => self.record_sync(files.iter().try_for_each(|file| file.sync_all())),
        }
    }

    /// The sync handle for a tree that is written from now on; absent if each part of the tree must
    /// be synced by itself, because a sync of the file system does not report every failure.
    pub(crate) fn tree_sync_handle(&self) -> io::Result<Option<OpenDir>> {
        self.reports_all_errors
            .then(|| self.sync_handle())
            .transpose()
    }

    /// Whether a sync has failed since the start.
    pub(crate) fn is_degraded(&self) -> bool {
        self.has_failed_sync.load(Ordering::Relaxed)
    }
}

/// Whether `syncfs` reports failed writes in this release of Linux: since 5.8.
fn syncfs_reports_errors(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    number().zip(number()) >= Some((5, 8))
}

/// An unused name: random, hexadecimal.
pub(crate) fn random_name() -> io::Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(HEXLOWER.encode(&random))
}

/// A staged file or tree. It is deleted when dropped, unless it is published.
#[derive(Debug)]
pub(crate) struct Staged {
    staging: Arc<Staging>,
    name: String,
    is_released: bool,
}

impl Staged {
    /// The name in staging: random, hexadecimal.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn dir(&self) -> &OpenDir {
        &self.staging.dir
    }

    /// Deletes the entry now. A part that cannot be deleted becomes a leftover.
    pub(crate) fn delete(&mut self) -> Deletion {
        self.is_released = true;
        let deleted = tree::delete(&self.staging.dir, &self.c_name());
        log_failure(&deleted);
        if deleted.failed.is_some() {
            self.staging.queue_leftover(self.c_name(), true);
        }
        deleted
    }

    /// The size of the entry; zero if it cannot be read.
    pub(crate) fn count(&self) -> SpaceCount {
        let count = tree::count(&self.staging.dir, &self.c_name());
        count.unwrap_or_default()
    }

    fn c_name(&self) -> CString {
        CString::new(self.name.as_str()).unwrap_or_default()
    }

    /// Keeps the entry when this is dropped: it has left staging, or must stay there.
    pub(crate) fn release(&mut self) {
        self.is_released = true;
    }

    /// The entry is in staging again, and is deleted when this is dropped.
    pub(crate) fn reclaim(&mut self) {
        self.is_released = false;
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.is_released {
            self.delete();
        }
    }
}

/// Logs an incomplete deletion. The rest is in no view, and is tried again.
fn log_failure(deleted: &Deletion) {
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
    fn a_failing_disk_is_logged_once_a_minute() {
        let (log, start) = (SyncFailureLog::default(), Instant::now());
        let due: Vec<_> = [0, 1, 59, 60, 61, 119, 120]
            .into_iter()
            .filter(|seconds| log.is_due(start + Duration::from_secs(*seconds)))
            .collect();
        assert_eq!(due, [0, 60, 120]);
    }

    #[test]
    fn only_newer_kernels_report_failed_writes_in_syncfs() {
        let tells = ["5.8.0", "5.10.0-28-amd64", "6.18.44-fc", "10.0"];
        assert!(tells.into_iter().all(syncfs_reports_errors));
        let silent = ["5.7.19", "4.19.0-26-amd64", "3.10", "", "5", "odd.9"];
        assert!(!silent.into_iter().any(syncfs_reports_errors));
    }

    #[test]
    fn a_failed_sync_is_returned_and_recorded() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = OpenDir::open_ambient(dir.path()).expect("there");
        let staging = Staging::lock(dir).expect("nobody else's");
        staging.record_sync(Ok(())).expect("synced");
        assert!(!staging.is_degraded());
        let failed = staging.record_sync(Err(rustix::io::Errno::IO.into()));
        assert!(failed.is_err() && staging.is_degraded());
    }
}
