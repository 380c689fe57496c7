//! Counts of spaces: the bytes and entries that a space holds, found by one walk.
//!
//! A quota needs to know how much a space holds. The first operation that needs it begins a count,
//! and every operation that needs it until then waits for the same count. No lock is held while a
//! space is walked. In a server no operation waits either: it ends with
//! [`StorageError::Counting`], and its caller tries again when the count has ended.

use std::io;
use std::sync::{Arc, Weak};

use rustix::io::Errno;

use crate::storage::count_end::{CountEnd, CountOutcomeSender};
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::count_queue::CountJob;
use crate::storage::local::space::{LockedNames, Space};
use crate::storage::local::space_walk::SpaceWalk;
use crate::storage::path::VirtualPath;
use crate::storage::rights::SpaceUsage;

/// Entries that a count walks before another count may continue.
const SLICE_ENTRIES: u64 = 20_000;

/// Attempts to count a space in which somebody moves directories past the server.
const MAX_ATTEMPTS: usize = 3;

/// The count of one space.
struct SpaceCountJob {
    space: Weak<Space>,
    walk: SpaceWalk,
    walked_entries: u64,
    attempts: usize,
    outcome: CountOutcomeSender,
}

impl SpaceCountJob {
    /// Walks one slice; `true` once the ledger has the count.
    fn walk_slice(&mut self, space: &Space) -> io::Result<bool> {
        let mut budget = SLICE_ENTRIES;
        let walked = self.walk.advance(space, &mut budget);
        self.walked_entries += SLICE_ENTRIES - budget;
        Ok(walked? && space.store_count(&self.walk)?)
    }

    fn restart(&mut self, space: &Space) -> io::Result<()> {
        self.walk.end(space);
        self.walk = SpaceWalk::begin_space(&space.lock_names())?;
        self.attempts += 1;
        Ok(())
    }

    fn end(&self, result: io::Result<()>) {
        if let Some(space) = self.space.upgrade() {
            self.walk.end(&space);
            space.set_counting(None);
        }
        self.outcome.send(result);
    }
}

impl CountJob for SpaceCountJob {
    fn walked_entries(&self) -> u64 {
        self.walked_entries
    }

    fn run_slice(&mut self) -> bool {
        let Some(space) = self.space.upgrade() else {
            self.end(Ok(()));
            return true;
        };
        let mut result = self.walk_slice(&space);
        if let Err(error) = &result
            && Errno::from_io_error(error) == Some(Errno::STALE)
            && self.attempts < MAX_ATTEMPTS
        {
            result = self.restart(&space).map(|()| false);
        }
        if matches!(result, Ok(false)) {
            return false;
        }
        self.end(result.map(drop));
        true
    }

    fn fail(&mut self, error: io::Error) {
        self.end(Err(error));
    }
}

impl Space {
    /// Makes sure that the space is counted. The caller must not hold the lock on its names.
    ///
    /// # Errors
    /// [`StorageError::Counting`] if threads count in the background, else the system's error.
    pub(crate) fn require_count(self: &Arc<Self>, path: &VirtualPath) -> Result<(), StorageError> {
        let end = self.begin_count().context("count", path)?;
        end.map_or(Ok(()), |end| self.await_count(end, path))
    }

    /// As [`Self::require_count`], if the space has a limit.
    pub(crate) fn count_if_limited(
        self: &Arc<Self>,
        path: &VirtualPath,
    ) -> Result<(), StorageError> {
        if self.ledger().needs_count() {
            self.require_count(path)?;
        }
        Ok(())
    }

    /// Waits for the end of a count, unless threads count in the background.
    pub(crate) fn await_count(
        &self,
        end: CountEnd,
        path: &VirtualPath,
    ) -> Result<(), StorageError> {
        if !self.counts.is_in_background() {
            return self.counts.run_until(&end).context("count", path);
        }
        match end.outcome() {
            Some(outcome) => outcome.context("count", path),
            None => Err(StorageError::Counting {
                path: path.clone(),
                end,
            }),
        }
    }

    /// The end of the count that is under way from now on; absent if the space is counted.
    fn begin_count(self: &Arc<Self>) -> io::Result<Option<CountEnd>> {
        if self.ledger().is_counted() {
            return Ok(None);
        }
        let names = self.lock_names();
        if self.ledger().is_counted() {
            return Ok(None);
        }
        self.begin_count_locked(&names).map(Some)
    }

    /// As [`Self::begin_count`], for a caller that holds the lock on the names of the space, which
    /// is not counted. The count continues once the caller releases the lock.
    pub(crate) fn begin_count_locked(
        self: &Arc<Self>,
        names: &LockedNames<'_>,
    ) -> io::Result<CountEnd> {
        if let Some(end) = self.counting() {
            return Ok(end);
        }
        let walk = SpaceWalk::begin_space(names)?;
        let (outcome, end) = CountEnd::channel();
        self.set_counting(Some(end.clone()));
        self.counts.add(Box::new(SpaceCountJob {
            space: Arc::downgrade(self),
            walk,
            walked_entries: 0,
            attempts: 1,
            outcome,
        }));
        Ok(end)
    }

    /// Stores the result of a walk in the ledger; `false` if there is more to walk.
    fn store_count(&self, walk: &SpaceWalk) -> io::Result<bool> {
        let names = self.lock_names();
        let Some((count, _)) = walk.result(&names)? else {
            return Ok(false);
        };
        self.ledger().set_counted(count);
        // The ledger accounts for every change from here on.
        walk.end(self);
        Ok(true)
    }

    /// The bytes and entries used and allowed here, and the bytes free on the disk.
    pub(crate) fn usage(self: &Arc<Self>, path: &VirtualPath) -> Result<SpaceUsage, StorageError> {
        let root = self.sandbox.open_dir(&VirtualPath::root());
        let disk = root.and_then(|root| root.disk()).context("query", path)?;
        let used = loop {
            if let Some(used) = self.ledger().used() {
                break used;
            }
            self.require_count(path)?;
        };
        Ok(SpaceUsage {
            used: used.bytes,
            files: used.entries,
            limits: self.ledger().limits,
            free: disk.free_bytes,
        })
    }
}
