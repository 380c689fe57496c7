//! Access: what one member may reach now.
//!
//! Everything that works for a member shares one [`Access`]. It can be replaced, suspended and
//! revoked at any time, and each of these begins another epoch. An operation keeps the epoch in
//! which it looked up its rights and compares it, by one atomic load, before each step that lasts
//! or shows anything; only if it differs are the rights looked up again. The engine chooses the
//! type `S` of what a member may reach.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use crate::storage::denied_reason::DeniedReason;
use crate::storage::error::StorageError;
use crate::storage::path::VirtualPath;

/// The spaces that one member may reach.
#[derive(Debug)]
pub(crate) struct Access<S> {
    /// Changes with each change of the state, while the state is locked.
    epoch: AtomicU64,
    state: RwLock<AccessState<S>>,
}

#[derive(Debug)]
enum AccessState<S> {
    Granted(Arc<S>),
    /// The accounts cannot be read, so the member may do nothing for now.
    Suspended,
    /// The member may do nothing any more.
    Revoked,
}

impl<S> Access<S> {
    pub(crate) fn granted(spaces: Arc<S>) -> Self {
        Self::new(AccessState::Granted(spaces))
    }

    pub(crate) fn suspended() -> Self {
        Self::new(AccessState::Suspended)
    }

    fn new(state: AccessState<S>) -> Self {
        Self {
            epoch: AtomicU64::new(0),
            state: RwLock::new(state),
        }
    }

    /// Grants access to `spaces` and nothing else from now on, unless access was revoked.
    pub(crate) fn grant(&self, spaces: Arc<S>) {
        self.change(AccessState::Granted(spaces));
    }

    pub(crate) fn suspend(&self) {
        self.change(AccessState::Suspended);
    }

    pub(crate) fn revoke(&self) {
        self.change(AccessState::Revoked);
    }

    fn change(&self, new: AccessState<S>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*state, AccessState::Revoked) {
            *state = new;
            self.epoch.fetch_add(1, Ordering::Release);
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The spaces that the member may reach now, and the epoch of that answer.
    ///
    /// # Errors
    /// [`StorageError::Suspended`], or [`StorageError::Denied`] if access was revoked.
    pub(crate) fn spaces(&self, path: &VirtualPath) -> Result<(u64, Arc<S>), StorageError> {
        let state = self.state();
        let spaces = state.spaces(path)?;
        Ok((self.epoch(), Arc::clone(spaces)))
    }

    /// Calls `read` with what the member may reach now.
    ///
    /// # Errors
    /// As [`Self::spaces`].
    pub(crate) fn with_spaces<T>(
        &self,
        path: &VirtualPath,
        read: impl FnOnce(&S) -> T,
    ) -> Result<T, StorageError> {
        Ok(read(self.state().spaces(path)?))
    }

    fn state(&self) -> RwLockReadGuard<'_, AccessState<S>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> AccessState<S> {
    fn spaces(&self, path: &VirtualPath) -> Result<&Arc<S>, StorageError> {
        match self {
            Self::Granted(spaces) => Ok(spaces),
            Self::Suspended => Err(StorageError::Suspended { path: path.clone() }),
            Self::Revoked => Err(StorageError::denied(path, DeniedReason::AccessLost)),
        }
    }
}
