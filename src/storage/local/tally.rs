//! Tallies: what walks find in a space whose names go on changing.
//!
//! A walk holds no lock while it reads, and is exact all the same. A tally knows which directories
//! its walk has begun. A change of a name in one of them is added to the tally by the one who makes
//! the change; a change anywhere else is left for the walk to find. In the directory that is being
//! read, a name is counted before it changes, unless the walk has counted it already, and the walk
//! counts each name once. A walk begins a directory, and a change is made and added, with the names
//! locked.
//!
//! A directory that moves or goes takes with it what a walk has begun below it. So that has to wait
//! for the count of the whole space, and makes void the measure of a part.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::hash::BuildHasher;
use std::io;

use rustix::io::Errno;

use crate::storage::error::StorageError;
use crate::storage::local::fs::metadata::{EntryKind, Identity, Metadata};
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::fs::tree::{Reach, Visitor, Walk, count_of, is_empty};
use crate::storage::local::quota::SpaceCount;
use crate::storage::local::space::{Names, Space};
use crate::storage::path::VirtualPath;

/// How often the measure of a tree catches up with directories that are made in it meanwhile.
const MAX_ROUNDS: usize = 100;

/// Trees that come into a space while it is walked, and are kept open to be walked as well.
const MAX_MORE: usize = 64;

/// What the walks of a space have found.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    next: u64,
    active: Vec<Tally>,
    hasher: RandomState,
}

/// What one walk has found.
#[derive(Debug)]
struct Tally {
    number: u64,
    count: SpaceCount,
    reach: Reach,
    /// The directories that the walk has begun, and how far below its top they are.
    begun: HashMap<Identity, Reach>,
    /// The directory that is being read, and the names in it that are counted.
    reading: Option<(Identity, HashSet<u64>)>,
    /// Directories, not empty, that have come to be in some that were begun.
    more: Vec<(OpenDir, Reach)>,
    /// A directory that was begun has moved or gone, or too many have come.
    is_void: bool,
}

/// An entry that is about to change.
struct Touched {
    dir: Identity,
    before: Option<Metadata>,
}

impl Tallies {
    /// Begins a tally. The names of the space are locked.
    fn begin(&mut self) -> u64 {
        self.next += 1;
        self.active.push(Tally {
            number: self.next,
            count: SpaceCount::default(),
            reach: Reach::default(),
            begun: HashMap::new(),
            reading: None,
            more: Vec::new(),
            is_void: false,
        });
        self.next
    }

    fn get(&mut self, number: u64) -> io::Result<&mut Tally> {
        let mut active = self.active.iter_mut();
        let tally = active.find(|tally| tally.number == number && !tally.is_void);
        tally.ok_or_else(|| Errno::STALE.into())
    }

    fn end(&mut self, number: u64) {
        self.active.retain(|tally| tally.number != number);
    }

    fn touch(&mut self, dir: &OpenDir, name: &str) -> io::Result<Touched> {
        let touched = Touched {
            dir: dir.own_meta()?.identity,
            before: dir.meta(name)?,
        };
        let hash = self.hasher.hash_one(name.as_bytes());
        for tally in &mut self.active {
            tally.count_once(touched.dir, hash, touched.before.as_ref());
        }
        Ok(touched)
    }

    fn changed(&mut self, dir: &OpenDir, name: &str, touched: &Touched) -> io::Result<()> {
        let after = dir.meta(name)?;
        let as_c = CString::new(name)?;
        for tally in &mut self.active {
            tally.changed(dir, &as_c, touched, after.as_ref())?;
        }
        Ok(())
    }
}

impl Tally {
    /// Counts a name of the directory that is being read, if that is `dir`, unless it is counted.
    fn count_once(&mut self, dir: Identity, hash: u64, meta: Option<&Metadata>) -> bool {
        let is_new = match &mut self.reading {
            Some((reading, counted)) if *reading == dir => counted.insert(hash),
            _ => false,
        };
        if is_new && let Some(meta) = meta {
            self.count += count_of(meta);
        }
        is_new
    }

    fn changed(
        &mut self,
        dir: &OpenDir,
        name: &CStr,
        Touched { dir: id, before }: &Touched,
        after: Option<&Metadata>,
    ) -> io::Result<()> {
        let Some(at) = self.begun.get(id).map(|at| at.join(name)) else {
            return Ok(());
        };
        let is_same = |one: &Metadata| after.is_some_and(|after| after.identity == one.identity);
        if let Some(before) = before {
            self.count -= count_of(before);
            if before.what == EntryKind::Dir && !is_same(before) {
                self.begun.remove(&before.identity);
            }
        }
        if let Some(after) = after {
            self.count += count_of(after);
            self.reach = self.reach.max(at);
            let was_there = before.as_ref().is_some_and(is_same);
            if after.what == EntryKind::Dir && !was_there {
                let new = dir.open_dir(name)?;
                if is_empty(&new)? {
                    // There is nothing to walk; what comes into it is a change like any other.
                    self.begun.insert(after.identity, at);
                } else if self.more.len() < MAX_MORE {
                    self.more.push((new, at));
                } else {
                    self.is_void = true;
                }
            }
        }
        Ok(())
    }
}

impl Names<'_> {
    /// Makes a `change` of these names, and adds it to what walks have found.
    pub(crate) fn change<T>(&self, entries: &[(&OpenDir, &str)], change: impl FnOnce() -> T) -> T {
        // None begins while the names are locked.
        if self.space.tallies().active.is_empty() {
            return change();
        }
        let touch = |(dir, name): &(&OpenDir, &str)| self.space.tallies().touch(dir, name);
        let touched: io::Result<Vec<_>> = entries.iter().map(touch).collect();
        let result = change();
        let added = touched.and_then(|touched| {
            let mut each = entries.iter().zip(&touched);
            each.try_for_each(|((dir, name), touched)| {
                self.space.tallies().changed(dir, name, touched)
            })
        });
        if added.is_err() {
            let mut tallies = self.space.tallies();
            tallies
                .active
                .iter_mut()
                .for_each(|tally| tally.is_void = true);
        }
        result
    }

    /// Must come before a tree moves or goes that is, or comes to be, in one of these directories.
    ///
    /// # Errors
    /// [`StorageError::Counting`] if it has to wait.
    pub(crate) fn release_tree(
        &self,
        dirs: &[&OpenDir],
        path: &VirtualPath,
    ) -> Result<(), StorageError> {
        if let Some(end) = self.space.counting() {
            let path = path.clone();
            return Err(StorageError::Counting { path, end });
        }
        let mut tallies = self.space.tallies();
        for tally in &mut tallies.active {
            let has_begun = |dir: &&OpenDir| {
                let meta = dir.own_meta();
                meta.is_ok_and(|meta| tally.begun.contains_key(&meta.identity))
            };
            tally.is_void |= dirs.iter().any(has_begun);
        }
        Ok(())
    }
}

/// A walk with a tally.
pub(crate) struct Tallied {
    number: u64,
    walk: Walk,
}

impl Tallied {
    /// Begins to count the whole space. The names are locked.
    pub(crate) fn whole(names: &Names<'_>) -> io::Result<Self> {
        let root = names.space.jail.open_dir(&VirtualPath::root())?;
        Self::begin(names, &root)
    }

    fn begin(names: &Names<'_>, top: &OpenDir) -> io::Result<Self> {
        let walk = Walk::new(top, Reach::default())?;
        let number = names.space.tallies().begin();
        Ok(Self { number, walk })
    }

    /// Goes on for at most so many entries; `true` once all has been walked that was there so far.
    pub(crate) fn go_on(&mut self, space: &Space, budget: &mut u64) -> io::Result<bool> {
        let number = self.number;
        while self.walk.go_on(&mut Teller { space, number }, budget)? {
            let more = space.tallies().get(number)?.more.pop();
            let Some((top, at)) = more else {
                return Ok(true);
            };
            self.walk = Walk::new(&top, at)?;
        }
        Ok(false)
    }

    /// What has been found; nothing if there is more to walk. The names are locked.
    pub(crate) fn found(&self, names: &Names<'_>) -> io::Result<Option<(SpaceCount, Reach)>> {
        let mut tallies = names.space.tallies();
        let tally = tallies.get(self.number)?;
        let is_all = tally.more.is_empty();
        Ok(is_all.then_some((tally.count, tally.reach)))
    }

    /// Forgets the tally.
    pub(crate) fn end(&self, space: &Space) {
        space.tallies().end(self.number);
    }
}

/// Tells the tally what its walk comes to.
struct Teller<'a> {
    space: &'a Space,
    number: u64,
}

impl Visitor for Teller<'_> {
    fn begin(&mut self, dir: &OpenDir, at: Reach) -> io::Result<bool> {
        let identity = dir.own_meta()?.identity;
        let _names = self.space.lock_names();
        let mut tallies = self.space.tallies();
        let tally = tallies.get(self.number)?;
        let Entry::Vacant(entry) = tally.begun.entry(identity) else {
            return Ok(false);
        };
        entry.insert(at);
        tally.reading = Some((identity, HashSet::new()));
        Ok(true)
    }

    fn entry(&mut self, name: &CStr, meta: &Metadata, at: Reach) {
        let mut tallies = self.space.tallies();
        let hash = tallies.hasher.hash_one(name.to_bytes());
        if let Ok(tally) = tallies.get(self.number)
            && let Some((dir, _)) = tally.reading
            && tally.count_once(dir, hash, Some(meta))
        {
            tally.reach = tally.reach.max(at.join(name));
        }
    }

    fn end(&mut self) {
        if let Ok(tally) = self.space.tallies().get(self.number) {
            tally.reading = None;
        }
    }
}

/// A tree that is measured without keeping anybody from working in it.
pub(crate) struct Measure<'a> {
    space: &'a Space,
    tallied: Tallied,
    top: Identity,
}

impl<'a> Measure<'a> {
    /// Measures the tree below `top`.
    pub(crate) fn of(space: &'a Space, top: &OpenDir) -> io::Result<Self> {
        let identity = top.own_meta()?.identity;
        let tallied = Tallied::begin(&space.lock_names(), top)?;
        let mut measure = Self {
            space,
            tallied,
            top: identity,
        };
        measure.catch_up()?;
        Ok(measure)
    }

    /// Measures what has been made in the tree meanwhile.
    fn catch_up(&mut self) -> io::Result<()> {
        while !self.tallied.go_on(self.space, &mut u64::MAX.clone())? {}
        Ok(())
    }

    /// Has `lock` lock the names, until they stay as they were measured.
    pub(crate) fn lock<L>(
        &mut self,
        lock: impl Fn() -> L,
        names: impl Fn(&L) -> &Names<'_>,
    ) -> io::Result<(L, SpaceCount, Reach)> {
        for _ in 0..MAX_ROUNDS {
            let locked = lock();
            if let Some((count, reach)) = self.tallied.found(names(&locked))? {
                return Ok((locked, count, reach));
            }
            drop(locked);
            self.catch_up()?;
        }
        Err(Errno::STALE.into())
    }

    pub(crate) fn is_of(&self, meta: &Metadata) -> bool {
        self.top == meta.identity
    }
}

impl Drop for Measure<'_> {
    fn drop(&mut self) {
        self.tallied.end(self.space);
    }
}
