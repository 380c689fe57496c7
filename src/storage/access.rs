//! Access: what one member may reach now.
//!
//! One such object is shared by everything that works for the member. It can be changed, suspended
//! and revoked at any time, and each of these gives it another epoch. Work keeps a [`Permission`],
//! which is what it looked up when it began, and asks it again before it does something that lasts
//! or shows anything: while the epoch is the same that is one atomic load, else the space is looked
//! up again. A permission belongs to a space, not to its name.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use crate::storage::error::StorageError;
use crate::storage::local::space::Space;
use crate::storage::local::view::{Mount, View};
use crate::storage::path::VirtualPath;
use crate::storage::rights::Rights;

/// The mounts of a view, by name.
pub(crate) type AccessMounts = BTreeMap<String, Mount>;

/// The spaces that a member may reach.
#[derive(Debug)]
pub(crate) struct AccessSpaces {
    pub(crate) home: Arc<Space>,
    pub(crate) mounts: AccessMounts,
}

impl AccessSpaces {
    /// The home, and folders that are mounted into it.
    pub(crate) fn new(home: Arc<Space>, folders: Vec<Mount>) -> Arc<Self> {
        let mounts = folders.into_iter();
        Arc::new(Self {
            home,
            mounts: mounts.map(|mount| (mount.name.clone(), mount)).collect(),
        })
    }

    /// What the member may do in `space`; absent if it is none of theirs.
    fn rights_in(&self, space: &Arc<Space>) -> Option<Rights> {
        if Arc::ptr_eq(&self.home, space) {
            return Some(Rights::ALL);
        }
        let mut mounts = self.mounts.values();
        let mount = mounts.find(|mount| Arc::ptr_eq(&mount.space, space))?;
        Some(mount.rights)
    }
}

/// What one member may reach, for as long as nothing changes it.
#[derive(Debug)]
pub(crate) struct Access {
    /// Another one after each change. It is written while the state is locked.
    epoch: AtomicU64,
    state: RwLock<State>,
}

#[derive(Debug)]
enum State {
    Open(Arc<AccessSpaces>),
    /// Nobody knows what the member may do now, so they may do nothing.
    Suspended,
    /// The member may do nothing any more.
    Revoked,
}

impl Access {
    pub(crate) fn open(reach: Arc<AccessSpaces>) -> Self {
        Self::new(State::Open(reach))
    }

    pub(crate) fn suspended() -> Self {
        Self::new(State::Suspended)
    }

    fn new(state: State) -> Self {
        Self {
            epoch: AtomicU64::new(0),
            state: RwLock::new(state),
        }
    }

    /// From now on the member may reach this and nothing else, unless it was revoked.
    pub(crate) fn set(&self, reach: Arc<AccessSpaces>) {
        self.change(State::Open(reach));
    }

    pub(crate) fn suspend(&self) {
        self.change(State::Suspended);
    }

    pub(crate) fn revoke(&self) {
        self.change(State::Revoked);
    }

    fn change(&self, new: State) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*state, State::Revoked) {
            *state = new;
            self.epoch.fetch_add(1, Ordering::Release);
        }
    }

    /// What the member may reach, and in which epoch.
    ///
    /// # Errors
    /// [`StorageError::Suspended`], [`StorageError::Denied`] if it was revoked.
    pub(crate) fn reach(
        &self,
        path: &VirtualPath,
    ) -> Result<(u64, Arc<AccessSpaces>), StorageError> {
        let state = self.state();
        let reach = state.reach(path)?;
        Ok((self.epoch.load(Ordering::Acquire), Arc::clone(reach)))
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn reach(&self, path: &VirtualPath) -> Result<&Arc<AccessSpaces>, StorageError> {
        match self {
            Self::Open(reach) => Ok(reach),
            Self::Suspended => Err(StorageError::Suspended { path: path.clone() }),
            Self::Revoked => Err(StorageError::denied(path)),
        }
    }
}

/// What a member may do in a space, as it was when it was looked up.
#[derive(Debug, Clone)]
pub(crate) struct Permission {
    /// Whose access it comes from.
    pub(crate) view: View,
    pub(crate) epoch: u64,
    pub(crate) rights: Rights,
}

impl Permission {
    /// What the member may do in `space` now.
    ///
    /// # Errors
    /// [`StorageError::Suspended`], [`StorageError::Denied`] if the space is none of the member's
    /// any more.
    pub(crate) fn rights(
        &self,
        space: &Arc<Space>,
        path: &VirtualPath,
    ) -> Result<Rights, StorageError> {
        let access = self.view.access();
        if access.epoch.load(Ordering::Acquire) == self.epoch {
            return Ok(self.rights);
        }
        let rights = access.state().reach(path)?.rights_in(space);
        rights.ok_or_else(|| StorageError::denied(path))
    }
}
