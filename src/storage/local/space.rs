//! A space: one home or one shared folder, with its root, its ledger and the lock on its names.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde::{Deserialize, Serialize};

use crate::storage::changes::ChangeLog;
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::count::CountEnd;
use crate::storage::local::fs::metadata::{FileId, Identity};
use crate::storage::local::fs::sandbox::{OpenDir, Sandbox};
use crate::storage::local::fs::staging::Staging;
use crate::storage::local::fs::unsynced::Unsynced;
use crate::storage::local::quota::{QuotaLedger, SpaceCount};
use crate::storage::local::tally::Tallies;
use crate::storage::local::upload::partial::PartialUploads;
use crate::storage::path::VirtualPath;
use crate::storage::rights::{SpaceLimits, SpaceUsage};

/// What tells a space from every other, one that gets its name later too.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpaceId {
    pub(crate) area: Area,
    pub(crate) name: String,
    pub(crate) mark: FileId,
}

impl fmt::Display for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let area = match self.area {
            Area::Homes => "homes",
            Area::Folders => "folders",
        };
        write!(f, "{area}/{}/{}", self.name, self.mark)
    }
}

/// What a space is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Area {
    /// The home of a user.
    Homes,
    /// A shared folder.
    Folders,
}

/// A home or a shared folder: a tree that no path leads out of, with a quota of its own.
#[derive(Debug)]
pub struct Space {
    pub(crate) jail: Sandbox,
    pub(crate) staging: Arc<Staging>,
    /// Weak, because a kept upload holds its space.
    kept: Weak<PartialUploads>,
    pub(crate) changes: Arc<ChangeLog>,
    /// Its identifier in one word, for those who hear of changes.
    pub(crate) key: Arc<str>,
    /// Its directories whose names may not be on the disk.
    pub(crate) unsynced: Unsynced,
    id: SpaceId,
    identity: Identity,
    /// Held while a name changes and the ledger with it, for a bounded number of system calls: never
    /// while bytes move, and never while a tree is walked.
    names: Mutex<()>,
    /// What is found by the walks under way. Taken after `names`, if both are needed.
    tallies: Mutex<Tallies>,
    /// The count of the space, while it is under way.
    counting: Mutex<Option<CountEnd>>,
    /// Taken after `names`, if both are needed, and held for a moment only.
    ledger: Mutex<QuotaLedger>,
}

impl Space {
    /// The space of that name whose root is open.
    pub(crate) fn new(
        area: Area,
        name: &str,
        root: OpenDir,
        kept: &Arc<PartialUploads>,
        changes: Arc<ChangeLog>,
    ) -> std::io::Result<Self> {
        let meta = root.own_meta()?;
        let id = SpaceId {
            area,
            name: name.to_owned(),
            mark: meta.birthmark(),
        };
        Ok(Self {
            key: id.to_string().into(),
            id,
            identity: meta.identity,
            jail: Sandbox::new(root),
            staging: Arc::clone(&kept.staging),
            kept: Arc::downgrade(kept),
            changes,
            unsynced: Unsynced::default(),
            names: Mutex::default(),
            tallies: Mutex::default(),
            counting: Mutex::default(),
            ledger: Mutex::default(),
        })
    }

    /// What tells it from every other, after a restart too.
    pub(crate) fn id(&self) -> &SpaceId {
        &self.id
    }

    /// Its identifier in one word, as changes name it.
    #[must_use]
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// Which directory it is: a new account of an old name gets a new one.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Limits that hold from now on, unless a later reading of the accounts has set others: readings
    /// are numbered in the order in which they begin.
    pub fn set_limits(&self, limits: SpaceLimits, reading: u64) {
        self.ledger().set_limits(limits, reading);
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, QuotaLedger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The uploads that are kept, of all spaces; absent once nobody serves them any more.
    pub(crate) fn kept(&self) -> Option<Arc<PartialUploads>> {
        self.kept.upgrade()
    }

    /// Keeps every name in the space as it is, but for the caller.
    pub(crate) fn lock_names(&self) -> Names<'_> {
        Names {
            space: self,
            _guard: self.names.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Locks the names of two different spaces, in an order that all callers share.
    pub(crate) fn lock_both<'a>(&'a self, other: &'a Self) -> (Names<'a>, Names<'a>) {
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

    /// The count that is under way.
    pub(crate) fn counting(&self) -> Option<CountEnd> {
        let counting = self.counting.lock();
        let counting = counting.unwrap_or_else(PoisonError::into_inner);
        counting.clone().filter(|end| !end.is_given_up())
    }

    pub(crate) fn set_counting(&self, end: Option<CountEnd>) {
        let counting = self.counting.lock();
        *counting.unwrap_or_else(PoisonError::into_inner) = end;
    }

    /// Makes sure that the space is counted if a reservation needs that. Not for a caller that has
    /// locked its names.
    ///
    /// # Errors
    /// As [`Self::require_count`].
    pub(crate) fn count_if_limited(
        self: &Arc<Self>,
        path: &VirtualPath,
    ) -> Result<(), StorageError> {
        if self.ledger().needs_count() {
            self.require_count(path)?;
        }
        Ok(())
    }

    /// What is used and allowed here, and free on the disk.
    pub(crate) fn usage(self: &Arc<Self>, path: &VirtualPath) -> Result<SpaceUsage, StorageError> {
        let root = self.jail.open_dir(&VirtualPath::root());
        let disk = root.and_then(|root| root.disk()).at("ask for", path)?;
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

/// The lock on the names of a space, in hand.
#[derive(Debug)]
pub(crate) struct Names<'a> {
    pub(crate) space: &'a Space,
    _guard: MutexGuard<'a, ()>,
}

impl Names<'_> {
    /// Whether it is this space whose names are locked.
    pub(crate) fn is_of(&self, space: &Space) -> bool {
        std::ptr::eq(self.space, space)
    }

    /// Notes that files have got their names back.
    pub(crate) fn restored(&self, count: SpaceCount) {
        self.space.ledger().add(count);
    }

    /// Notes that files have lost their names here.
    pub(crate) fn freed(&self, count: SpaceCount) {
        self.space.ledger().remove(count);
    }
}
