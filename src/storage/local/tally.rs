//! Tallies: what walks find in a space while its names change.
//!
//! A walk holds no lock while it reads, and its result is exact all the same. A tally knows which
//! directories its walk has begun. A change of a name in one of them is added to the tally by the
//! caller that makes the change; a change anywhere else is left for the walk to find. In the
//! directory that is being read, a name is counted before it changes, unless the walk has counted
//! it already, and the walk counts each name once. A walk begins a directory, and a change is made
//! and added, with the names of the space locked.
//!
//! A directory that moves or goes removes what a walk has begun below it. Such a change therefore
//! waits for the count of the whole space, and invalidates the measurement of a part.
//!
//! [`space_walk`](crate::storage::local::space_walk) drives the walks and reports the changes.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::hash::BuildHasher;
use std::io;

use rustix::io::Errno;

use crate::storage::local::fs::metadata::{EntryKind, Identity, Metadata};
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::fs::tree::{Reach, count_of, is_empty};
use crate::storage::local::space_count::SpaceCount;

/// Directories that appear in a space while it is walked, and that a tally keeps open for its walk.
const MAX_NEW_TREES: usize = 64;

/// The tallies of the walks under way in a space.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    last_number: u64,
    active: Vec<Tally>,
    hasher: RandomState,
}

/// The result of one walk so far.
#[derive(Debug)]
struct Tally {
    number: u64,
    count: SpaceCount,
    reach: Reach,
    /// The directories that the walk has begun, and their depth below its top.
    begun: HashMap<Identity, Reach>,
    /// The directory that is being read, and the hashes of the names in it that are counted.
    current: Option<(Identity, HashSet<u64>)>,
    /// Directories with content that have appeared in directories that were begun.
    new_trees: Vec<(OpenDir, Reach)>,
    /// Whether a directory that was begun has moved or gone, or too many have appeared.
    is_invalid: bool,
}

/// An entry that is about to change.
pub(crate) struct EntryBefore {
    dir: Identity,
    meta: Option<Metadata>,
}

impl Tallies {
    /// Begins a tally and returns its number. The names of the space are locked.
    pub(crate) fn begin(&mut self) -> u64 {
        self.last_number += 1;
        self.active.push(Tally {
            number: self.last_number,
            count: SpaceCount::default(),
            reach: Reach::default(),
            begun: HashMap::new(),
            current: None,
            new_trees: Vec::new(),
            is_invalid: false,
        });
        self.last_number
    }

    pub(crate) fn end(&mut self, number: u64) {
        self.active.retain(|tally| tally.number != number);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// The count and the reach of a tally; absent if directories have appeared that are not walked.
    pub(crate) fn result(&mut self, number: u64) -> io::Result<Option<(SpaceCount, Reach)>> {
        let tally = self.get(number)?;
        let is_complete = tally.new_trees.is_empty();
        Ok(is_complete.then_some((tally.count, tally.reach)))
    }

    /// A directory that has appeared meanwhile and must be walked as well.
    pub(crate) fn next_new_tree(&mut self, number: u64) -> io::Result<Option<(OpenDir, Reach)>> {
        Ok(self.get(number)?.new_trees.pop())
    }

    /// The walk begins to read a directory; `false` if it has read it before. The names of the
    /// space are locked.
    pub(crate) fn begin_dir(
        &mut self,
        number: u64,
        dir: Identity,
        depth: Reach,
    ) -> io::Result<bool> {
        let tally = self.get(number)?;
        let Entry::Vacant(entry) = tally.begun.entry(dir) else {
            return Ok(false);
        };
        entry.insert(depth);
        tally.current = Some((dir, HashSet::new()));
        Ok(true)
    }

    /// The walk has read an entry of the directory that it began last.
    pub(crate) fn add_entry(&mut self, number: u64, name: &CStr, meta: &Metadata, depth: Reach) {
        let hash = self.hasher.hash_one(name.to_bytes());
        if let Ok(tally) = self.get(number)
            && let Some((dir, _)) = tally.current
            && tally.count_once(dir, hash, Some(meta))
        {
            tally.reach = tally.reach.max(depth.join(name));
        }
    }

    /// The walk has read the whole directory that it began last.
    pub(crate) fn end_dir(&mut self, number: u64) {
        if let Ok(tally) = self.get(number) {
            tally.current = None;
        }
    }

    /// Records an entry that is about to change, and counts it where a walk is about to read it.
    pub(crate) fn before_change(&mut self, dir: &OpenDir, name: &str) -> io::Result<EntryBefore> {
        let before = EntryBefore {
            dir: dir.own_meta()?.identity,
            meta: dir.meta(name)?,
        };
        let hash = self.hasher.hash_one(name.as_bytes());
        for tally in &mut self.active {
            tally.count_once(before.dir, hash, before.meta.as_ref());
        }
        Ok(before)
    }

    /// Adds the change of an entry to every tally whose walk does not find it.
    pub(crate) fn after_change(
        &mut self,
        dir: &OpenDir,
        name: &str,
        before: &EntryBefore,
    ) -> io::Result<()> {
        let after = dir.meta(name)?;
        let c_name = CString::new(name)?;
        for tally in &mut self.active {
            tally.add_change(dir, &c_name, before, after.as_ref())?;
        }
        Ok(())
    }

    /// Invalidates every tally: a change could not be added.
    pub(crate) fn invalidate_all(&mut self) {
        for tally in &mut self.active {
            tally.is_invalid = true;
        }
    }

    /// Invalidates the tallies that have begun one of these directories.
    pub(crate) fn invalidate_begun(&mut self, dirs: &[&OpenDir]) {
        for tally in &mut self.active {
            tally.is_invalid |= dirs.iter().any(|dir| {
                let meta = dir.own_meta();
                meta.is_ok_and(|meta| tally.begun.contains_key(&meta.identity))
            });
        }
    }

    /// The tally of that number.
    ///
    /// # Errors
    /// `STALE` if it is invalid.
    fn get(&mut self, number: u64) -> io::Result<&mut Tally> {
        let mut active = self.active.iter_mut();
        let tally = active.find(|tally| tally.number == number && !tally.is_invalid);
        tally.ok_or_else(|| Errno::STALE.into())
    }
}

impl Tally {
    /// Counts a name in `dir`, if that directory is being read and the name is not counted yet;
    /// `true` if it is counted now.
    fn count_once(&mut self, dir: Identity, hash: u64, meta: Option<&Metadata>) -> bool {
        let is_new = match &mut self.current {
            Some((current, counted)) if *current == dir => counted.insert(hash),
            _ => false,
        };
        if is_new && let Some(meta) = meta {
            self.count += count_of(meta);
        }
        is_new
    }

    fn add_change(
        &mut self,
        dir: &OpenDir,
        name: &CStr,
        before: &EntryBefore,
        after: Option<&Metadata>,
    ) -> io::Result<()> {
        let Some(depth) = self.begun.get(&before.dir).map(|depth| depth.join(name)) else {
            return Ok(());
        };
        let is_after = |meta: &Metadata| after.is_some_and(|after| after.identity == meta.identity);
        if let Some(meta) = &before.meta {
            self.count -= count_of(meta);
            if meta.kind == EntryKind::Dir && !is_after(meta) {
                self.begun.remove(&meta.identity);
            }
        }
        let Some(after) = after else {
            return Ok(());
        };
        self.count += count_of(after);
        self.reach = self.reach.max(depth);
        let is_same_entry = before.meta.as_ref().is_some_and(is_after);
        if after.kind == EntryKind::Dir && !is_same_entry {
            self.add_dir(dir.open_dir(name)?, after.identity, depth)?;
        }
        Ok(())
    }

    /// Notes a directory that has appeared in one that was begun.
    fn add_dir(&mut self, dir: OpenDir, identity: Identity, depth: Reach) -> io::Result<()> {
        if is_empty(&dir)? {
            // There is nothing to walk: later entries of it are changes of a begun directory.
            self.begun.insert(identity, depth);
        } else if self.new_trees.len() < MAX_NEW_TREES {
            self.new_trees.push((dir, depth));
        } else {
            self.is_invalid = true;
        }
        Ok(())
    }
}
