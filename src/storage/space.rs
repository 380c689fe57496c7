//! A space: one home or one shared folder, with its root, its ledger and the lock on its names.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde::{Deserialize, Serialize};

use super::changes::Changes;
use super::error::{At, StorageError};
use super::jail::{Jail, OpenDir};
use super::kept::KeptUploads;
use super::meta::{Birthmark, Identity};
use super::path::VirtualPath;
use super::quota::{Count, Ledger};
use super::rights::{Limits, Usage};
use super::staging::Staging;
use super::tree;

/// What tells a space from every other, one that gets its name later too.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SpaceId {
    pub(super) area: Area,
    pub(super) name: String,
    pub(super) mark: Birthmark,
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
pub(super) enum Area {
    /// The home of a user.
    Homes,
    /// A shared folder.
    Folders,
}

/// A home or a shared folder: a tree that no path leads out of, with a quota of its own.
#[derive(Debug)]
pub struct Space {
    pub(super) jail: Jail,
    pub(super) staging: Arc<Staging>,
    /// Weak, because a kept upload holds its space.
    kept: Weak<KeptUploads>,
    pub(super) changes: Arc<Changes>,
    /// Its identifier in one word, for those who hear of changes.
    pub(super) key: Arc<str>,
    id: SpaceId,
    identity: Identity,
    /// Held while a name changes and the ledger with it, and never while bytes move.
    names: Mutex<()>,
    /// Taken after `names`, if both are needed, and held for a moment only.
    ledger: Mutex<Ledger>,
}

impl Space {
    /// The space of that name whose root is open.
    pub(super) fn new(
        area: Area,
        name: &str,
        root: OpenDir,
        kept: &Arc<KeptUploads>,
        changes: Arc<Changes>,
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
            jail: Jail::new(root),
            staging: Arc::clone(&kept.staging),
            kept: Arc::downgrade(kept),
            changes,
            names: Mutex::default(),
            ledger: Mutex::default(),
        })
    }

    /// What tells it from every other, after a restart too.
    pub(super) fn id(&self) -> &SpaceId {
        &self.id
    }

    /// Its identifier in one word, as changes name it.
    #[must_use]
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// Which directory it is: a new account of an old name gets a new one.
    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// Limits that hold from now on, unless a later reading of the accounts has set others: readings
    /// are numbered in the order in which they begin.
    pub fn set_limits(&self, limits: Limits, reading: u64) {
        self.ledger().set_limits(limits, reading);
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The uploads that are kept, of all spaces; absent once nobody serves them any more.
    pub(super) fn kept(&self) -> Option<Arc<KeptUploads>> {
        self.kept.upgrade()
    }

    /// Keeps every name in the space as it is, but for the caller.
    pub(super) fn lock_names(&self) -> Names<'_> {
        Names {
            space: self,
            _guard: self.names.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Locks the names of two different spaces, in an order that all callers share.
    pub(super) fn lock_both<'a>(&'a self, other: &'a Self) -> (Names<'a>, Names<'a>) {
        if std::ptr::from_ref(self) < std::ptr::from_ref(other) {
            let own = self.lock_names();
            (own, other.lock_names())
        } else {
            let others = other.lock_names();
            (self.lock_names(), others)
        }
    }

    /// Walks the space if a reservation would have to.
    pub(super) fn count_if_limited(&self, path: &VirtualPath) -> Result<(), StorageError> {
        if self.ledger().limits == Limits::default() {
            return Ok(());
        }
        self.lock_names().count(path)
    }

    /// What is used and allowed here, and free on the disk.
    pub(super) fn usage(&self, path: &VirtualPath) -> Result<Usage, StorageError> {
        let root = self.jail.open_dir(&VirtualPath::root());
        let disk = root.and_then(|root| root.disk()).at("ask for", path)?;
        let used = loop {
            if let Some(used) = self.ledger().used() {
                break used;
            }
            self.lock_names().count(path)?;
        };
        Ok(Usage {
            used: used.bytes,
            files: used.entries,
            limits: self.ledger().limits,
            free: disk.free_bytes,
        })
    }
}

/// The lock on the names of a space, in hand.
#[derive(Debug)]
pub(super) struct Names<'a> {
    space: &'a Space,
    _guard: MutexGuard<'a, ()>,
}

impl Names<'_> {
    /// Walks the space unless it is counted. Only those wait who want to change names in this
    /// very space, or to know what it holds.
    pub(super) fn count(&self, path: &VirtualPath) -> Result<(), StorageError> {
        if !self.space.ledger().is_counted() {
            let root = self.space.jail.open_dir(&VirtualPath::root());
            let count = root.and_then(|root| tree::count(&root)).at("count", path)?;
            self.space.ledger().set_counted(count);
        }
        Ok(())
    }

    /// Notes that files have got their names back.
    pub(super) fn restored(&self, count: Count) {
        self.space.ledger().add(count);
    }

    /// Notes that files have lost their names here.
    pub(super) fn freed(&self, count: Count) {
        self.space.ledger().remove(count);
    }
}
