//! A space: one home or one shared folder, with its root, its quota ledger and the lock on its
//! names.
//!
//! A change of a name and the change of the ledger that follows from it happen under one lock, so
//! that a count is exact at any moment. The lock is held for a bounded number of system calls,
//! never while bytes are written and never while a tree is walked. The methods that count and that
//! change names are in [`count`](crate::storage::local::count),
//! [`space_walk`](crate::storage::local::space_walk) and
//! [`directories`](crate::storage::local::fs::directories).

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde::{Deserialize, Serialize};

use crate::storage::count_end::CountEnd;
use crate::storage::local::change_log::ChangeLog;
use crate::storage::local::count_queue::CountQueue;
use crate::storage::local::fs::metadata::{EntryKind, FileId, Identity};
use crate::storage::local::fs::sandbox::{OpenDir, Sandbox};
use crate::storage::local::fs::staging::Staging;
use crate::storage::local::fs::unsynced::UnsyncedNames;
use crate::storage::local::quota::QuotaLedger;
use crate::storage::local::space_count::SpaceCount;
use crate::storage::local::tally::Tallies;
use crate::storage::rights::SpaceLimits;

/// Identifies a space. A later space of the same name has another identifier.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpaceId {
    pub(crate) area: Area,
    pub(crate) name: String,
    #[serde(rename = "mark")]
    pub(crate) root_id: FileId,
}

impl fmt::Display for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let area = match self.area {
            Area::Homes => "homes",
            Area::Folders => "folders",
        };
        write!(f, "{area}/{}/{}", self.name, self.root_id)
    }
}

/// The kind of a space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Area {
    /// The home of a user.
    Homes,
    /// A shared folder.
    Folders,
}

/// Frees quota by giving up partial uploads.
pub(crate) trait EvictPartialUploads: fmt::Debug + Send + Sync {
    /// Whether the partial uploads of `space` take up so much together.
    fn can_evict(&self, space: &Space, wanted: SpaceCount) -> bool;

    /// Gives up the oldest partial uploads of `space` that take up so much together; `None` if all of them
    /// take up less.
    fn evict(&self, space: &Space, wanted: SpaceCount) -> Option<Box<dyn EvictedUploads>>;
}

/// Partial uploads that were given up. Dropping it deletes their files, and then frees their quota.
pub(crate) trait EvictedUploads: fmt::Debug {
    /// Frees their quota now, for a caller that must not delete files yet.
    fn release_quota(&mut self);
}

/// The state that all spaces of a store share.
#[derive(Debug, Clone)]
pub(crate) struct SpaceContext {
    pub(crate) staging: Arc<Staging>,
    pub(crate) counts: Arc<CountQueue>,
    pub(crate) changes: Arc<ChangeLog>,
    /// Weak, because a partial upload holds its space.
    pub(crate) partial_uploads: Weak<dyn EvictPartialUploads>,
}

/// A home or a shared folder: a tree that no path leads out of, with a quota of its own.
#[derive(Debug)]
pub struct Space {
    pub(crate) sandbox: Sandbox,
    pub(crate) staging: Arc<Staging>,
    pub(crate) counts: Arc<CountQueue>,
    pub(crate) changes: Arc<ChangeLog>,
    partial_uploads: Weak<dyn EvictPartialUploads>,
    /// The identifier as text; see [`Self::key`].
    pub(crate) key: Arc<str>,
    /// The directories whose names may not be on the disk yet.
    pub(crate) unsynced: UnsyncedNames,
    id: SpaceId,
    identity: Identity,
    /// The directory that holds the root.
    area_dir: Arc<OpenDir>,
    names: Mutex<()>,
    /// The results of the walks under way. Locked after `names` if both are needed.
    tallies: Mutex<Tallies>,
    /// The count of the space, while it is under way.
    counting: Mutex<Option<CountEnd>>,
    /// Locked after `names` if both are needed, and never over I/O.
    ledger: Mutex<QuotaLedger>,
}

impl Space {
    /// The space `name` whose root, in `area_dir`, is open.
    pub(crate) fn new(
        area: Area,
        name: &str,
        area_dir: &Arc<OpenDir>,
        root: OpenDir,
        context: SpaceContext,
    ) -> io::Result<Self> {
        let meta = root.own_meta()?;
        let id = SpaceId {
            area,
            name: name.to_owned(),
            root_id: meta.file_id(),
        };
        Ok(Self {
            key: id.to_string().into(),
            id,
            identity: meta.identity,
            area_dir: Arc::clone(area_dir),
            sandbox: Sandbox::new(root),
            staging: context.staging,
            counts: context.counts,
            changes: context.changes,
            partial_uploads: context.partial_uploads,
            unsynced: UnsyncedNames::default(),
            names: Mutex::default(),
            tallies: Mutex::default(),
            counting: Mutex::default(),
            ledger: Mutex::default(),
        })
    }

    /// Identifies the space, after a restart too.
    pub(crate) fn id(&self) -> &SpaceId {
        &self.id
    }

    /// The identifier of the space as text, as [`FileChange`](crate::storage::FileChange) has it.
    #[must_use]
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// The directory of the root. A new account of an old name gets another one.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether the root still has its name in the data directory. It has not once an operator has
    /// set the home or folder aside with its account.
    pub(crate) fn is_attached(&self) -> io::Result<bool> {
        let meta = self.area_dir.meta(self.id.name.as_str())?;
        Ok(meta
            .is_some_and(|meta| meta.kind == EntryKind::Dir && meta.file_id() == self.id.root_id))
    }

    /// Sets the limits, unless those of a later snapshot of the accounts are set. Snapshots are
    /// numbered in the order in which reading them begins.
    pub fn set_limits(&self, limits: SpaceLimits, snapshot_number: u64) {
        self.ledger().set_limits(limits, snapshot_number);
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, QuotaLedger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The partial uploads of all spaces; absent once the store is closed.
    pub(crate) fn partial_uploads(&self) -> Option<Arc<dyn EvictPartialUploads>> {
        self.partial_uploads.upgrade()
    }

    /// Locks every name in the space against changes by others.
    pub(crate) fn lock_names(&self) -> LockedNames<'_> {
        LockedNames {
            space: self,
            _guard: self.names.lock().unwrap_or_else(PoisonError::into_inner),
            evicted: RefCell::default(),
        }
    }

    /// Locks the names of two different spaces, in an order that all callers share.
    pub(crate) fn lock_both<'a>(&'a self, other: &'a Self) -> (LockedNames<'a>, LockedNames<'a>) {
        if std::ptr::from_ref(self) < std::ptr::from_ref(other) {
            let own = self.lock_names();
            (own, other.lock_names())
        } else {
            let others = other.lock_names();
            (self.lock_names(), others)
        }
    }

    pub(crate) fn tallies(&self) -> MutexGuard<'_, Tallies> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of the count that is under way.
    pub(crate) fn counting(&self) -> Option<CountEnd> {
        let counting = self.counting.lock();
        let counting = counting.unwrap_or_else(PoisonError::into_inner);
        counting.clone().filter(|end| !end.is_abandoned())
    }

    pub(crate) fn set_counting(&self, end: Option<CountEnd>) {
        let counting = self.counting.lock();
        *counting.unwrap_or_else(PoisonError::into_inner) = end;
    }
}

/// The lock on the names of a space.
#[derive(Debug)]
pub(crate) struct LockedNames<'a> {
    pub(crate) space: &'a Space,
    _guard: MutexGuard<'a, ()>,
    /// Declared after the guard, so that their files are deleted once the lock is released.
    evicted: RefCell<Vec<Box<dyn EvictedUploads>>>,
}

impl LockedNames<'_> {
    /// Whether the names of this space are locked.
    pub(crate) fn is_of(&self, space: &Space) -> bool {
        std::ptr::eq(self.space, space)
    }

    /// Frees the quota of evicted uploads, whose files are deleted once the lock is released.
    pub(crate) fn delete_after_unlock(&self, mut evicted: Box<dyn EvictedUploads>) {
        evicted.release_quota();
        self.evicted.borrow_mut().push(evicted);
    }

    /// Accounts for files that have got their names back.
    pub(crate) fn account_restored(&self, count: SpaceCount) {
        self.space.ledger().add(count);
    }

    /// Accounts for files that have lost their names here.
    pub(crate) fn account_removed(&self, count: SpaceCount) {
        self.space.ledger().remove(count);
    }
}
