//! Walks over a space whose names change, and changes of names that walks account for.
//!
//! Every change of a name goes through [`LockedNames::change`], and every move or removal of a tree
//! first through [`LockedNames::prepare_tree_move`]. The count of a space and the measurement of a
//! tree are walks with a tally; see [`tally`](crate::storage::local::tally) for why they are exact.

use std::ffi::CStr;
use std::io;

use rustix::io::Errno;

use crate::storage::error::StorageError;
use crate::storage::local::fs::metadata::{Identity, Metadata};
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::fs::tree::{Reach, TreeVisitor, TreeWalk};
use crate::storage::local::space::{LockedNames, Space};
use crate::storage::local::space_count::SpaceCount;
use crate::storage::path::VirtualPath;

/// Attempts to measure a tree in which others make directories meanwhile.
const MAX_ROUNDS: usize = 100;

impl LockedNames<'_> {
    /// Makes a `change` of these entries, and adds it to the tallies of the walks under way.
    pub(crate) fn change<T>(&self, entries: &[(&OpenDir, &str)], change: impl FnOnce() -> T) -> T {
        // No walk begins while the names are locked.
        if self.space.tallies().is_empty() {
            return change();
        }
        let before: io::Result<Vec<_>> = entries
            .iter()
            .map(|(dir, name)| self.space.tallies().before_change(dir, name))
            .collect();
        let result = change();
        let added = before.and_then(|before| {
            let mut changed = entries.iter().zip(&before);
            changed.try_for_each(|((dir, name), before)| {
                self.space.tallies().after_change(dir, name, before)
            })
        });
        if added.is_err() {
            self.space.tallies().invalidate_all();
        }
        result
    }

    /// Prepares the move or removal of a tree from, or into, these directories. Invalidates the
    /// measurements that have walked one of them.
    ///
    /// # Errors
    /// [`StorageError::Counting`] if the space is being counted.
    pub(crate) fn prepare_tree_move(
        &self,
        dirs: &[&OpenDir],
        path: &VirtualPath,
    ) -> Result<(), StorageError> {
        if let Some(end) = self.space.counting() {
            let path = path.clone();
            return Err(StorageError::Counting { path, end });
        }
        self.space.tallies().invalidate_begun(dirs);
        Ok(())
    }
}

/// A walk with a tally.
pub(crate) struct SpaceWalk {
    tally_number: u64,
    walk: TreeWalk,
}

impl SpaceWalk {
    /// Begins to count the whole space.
    pub(crate) fn begin_space(names: &LockedNames<'_>) -> io::Result<Self> {
        let root = names.space.sandbox.open_dir(&VirtualPath::root())?;
        Self::begin(names, &root)
    }

    fn begin(names: &LockedNames<'_>, top: &OpenDir) -> io::Result<Self> {
        let walk = TreeWalk::new(top, Reach::default())?;
        Ok(Self {
            tally_number: names.space.tallies().begin(),
            walk,
        })
    }

    /// Walks at most `budget` entries; `true` once everything is walked that exists so far.
    pub(crate) fn advance(&mut self, space: &Space, budget: &mut u64) -> io::Result<bool> {
        let number = self.tally_number;
        while self
            .walk
            .advance(&mut TallyVisitor { space, number }, budget)?
        {
            let Some((top, depth)) = space.tallies().next_new_tree(number)? else {
                return Ok(true);
            };
            self.walk = TreeWalk::new(&top, depth)?;
        }
        Ok(false)
    }

    /// The result of the walk; absent if there is more to walk.
    pub(crate) fn result(
        &self,
        names: &LockedNames<'_>,
    ) -> io::Result<Option<(SpaceCount, Reach)>> {
        names.space.tallies().result(self.tally_number)
    }

    /// Discards the tally.
    pub(crate) fn end(&self, space: &Space) {
        space.tallies().end(self.tally_number);
    }
}

/// Adds what a walk finds to its tally.
struct TallyVisitor<'a> {
    space: &'a Space,
    number: u64,
}

impl TreeVisitor for TallyVisitor<'_> {
    fn begin_dir(&mut self, dir: &OpenDir, depth: Reach) -> io::Result<bool> {
        let identity = dir.own_meta()?.identity;
        let _names = self.space.lock_names();
        self.space.tallies().begin_dir(self.number, identity, depth)
    }

    fn visit_entry(&mut self, name: &CStr, meta: &Metadata, depth: Reach) {
        self.space
            .tallies()
            .add_entry(self.number, name, meta, depth);
    }

    fn end_dir(&mut self) {
        self.space.tallies().end_dir(self.number);
    }
}

/// The measurement of a tree in which others may work meanwhile.
pub(crate) struct TreeMeasurement<'a> {
    space: &'a Space,
    walk: SpaceWalk,
    top: Identity,
}

impl<'a> TreeMeasurement<'a> {
    /// Measures the tree below `top`.
    pub(crate) fn measure(space: &'a Space, top: &OpenDir) -> io::Result<Self> {
        let identity = top.own_meta()?.identity;
        let walk = SpaceWalk::begin(&space.lock_names(), top)?;
        let mut measurement = Self {
            space,
            walk,
            top: identity,
        };
        measurement.catch_up()?;
        Ok(measurement)
    }

    /// Measures the directories that have appeared in the tree meanwhile.
    fn catch_up(&mut self) -> io::Result<()> {
        while !self.walk.advance(self.space, &mut u64::MAX.clone())? {}
        Ok(())
    }

    /// Locks the names with `lock`, again until the tree is as it was measured. Returns the lock
    /// with the count and the reach of the tree.
    ///
    /// # Errors
    /// `STALE` if the tree does not stop changing.
    pub(crate) fn lock<L>(
        &mut self,
        lock: impl Fn() -> L,
        names: impl Fn(&L) -> &LockedNames<'_>,
    ) -> io::Result<(L, SpaceCount, Reach)> {
        for _ in 0..MAX_ROUNDS {
            let locked = lock();
            if let Some((count, reach)) = self.walk.result(names(&locked))? {
                return Ok((locked, count, reach));
            }
            drop(locked);
            self.catch_up()?;
        }
        Err(Errno::STALE.into())
    }

    /// Whether the entry that `meta` describes is the top of the measured tree.
    pub(crate) fn is_of(&self, meta: &Metadata) -> bool {
        self.top == meta.identity
    }
}

impl Drop for TreeMeasurement<'_> {
    fn drop(&mut self) {
        self.walk.end(self.space);
    }
}
