//! A place: a member's path, taken apart into a space, a path within it, and rights.

use std::sync::Arc;

use crate::storage::access::Permission;
use crate::storage::changes::VisiblePath;
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::fs::unsynced::NewName;
use crate::storage::local::quota::{Reservation, SpaceCount};
use crate::storage::local::space::{Names, Space};
use crate::storage::path::VirtualPath;
use crate::storage::rights::Rights;

/// Where a path of a view leads.
#[derive(Debug, Clone)]
pub(crate) struct ResolvedPath {
    pub(crate) space: Arc<Space>,
    /// Within the space.
    pub(crate) inner: VirtualPath,
    /// Within the view: what the member is told.
    pub(crate) full: VirtualPath,
    pub(crate) permission: Permission,
    /// The home of the member, who is told to have done what is done here.
    pub(crate) by: Arc<Space>,
}

impl ResolvedPath {
    /// The root of a home or of a folder: it has no name that could be changed.
    pub(crate) fn is_root(&self) -> bool {
        self.inner.name().is_none()
    }

    /// What the member may do here now.
    pub(crate) fn rights(&self) -> Result<Rights, StorageError> {
        self.permission.rights(&self.space, &self.full)
    }

    /// Refuses what the member has no right to now. Work that lasts asks again before each step that
    /// shows something, and under the lock on the names before it changes one.
    pub(crate) fn require(
        &self,
        is_allowed: impl FnOnce(Rights) -> bool,
    ) -> Result<(), StorageError> {
        if is_allowed(self.rights()?) {
            Ok(())
        } else {
            Err(StorageError::denied(&self.full))
        }
    }

    /// Leaves out of an error what the member may not know: how much is in use, and allowed, where
    /// they may not list.
    pub(crate) fn conceal(&self, error: StorageError) -> StorageError {
        match error {
            StorageError::QuotaExceeded { path, .. }
                if !self.rights().is_ok_and(|rights| rights.list) =>
            {
                StorageError::QuotaReached { path }
            }
            error => error,
        }
    }

    /// Refuses to look below a mount that may not be listed. The mount itself is no secret.
    pub(crate) fn require_list(&self) -> Result<(), StorageError> {
        self.require(|rights| rights.list || self.is_root())
    }

    /// Makes sure that the space is still the one of its name in the data directory: what is done in
    /// one that was set aside with its account is seen by nobody, and not to be acknowledged.
    pub(crate) fn check_attached(&self) -> Result<(), StorageError> {
        let found = self.permission.view.store().look_for(self.space.id());
        if found.at("look at", &self.full)? {
            return Ok(());
        }
        Err(StorageError::not_found(&self.full))
    }

    /// The directory that holds it, open, and its name there.
    pub(crate) fn open_parent(&self) -> Result<(OpenDir, &str), StorageError> {
        let (inner, full) = self.parents()?;
        let dir = self.space.jail.open_dir(&inner).at("open", &full);
        Ok((
            dir.map_err(|error| error.looking_for("directory"))?,
            self.name()?,
        ))
    }

    /// The directory that holds it, open, with those on the way that were missing made; see
    /// [`make_dirs`].
    pub(crate) fn make_parent(
        &self,
        names: &Names<'_>,
    ) -> Result<(OpenDir, Vec<Arc<NewName>>), StorageError> {
        let (inner, full) = self.parents()?;
        // What lands there has come already.
        let reservation = Reservation::under_way(&self.space);
        let made = make_dirs(reservation, names, &inner, &full);
        made.map_err(|error| self.conceal(error))
    }

    /// The directory itself, open; it is made, and those on the way, if they are missing. See
    /// [`make_dirs`].
    pub(crate) fn make_dir(
        &self,
        names: &Names<'_>,
    ) -> Result<(OpenDir, Vec<Arc<NewName>>), StorageError> {
        let reservation = Reservation::new(&self.space);
        let made = make_dirs(reservation, names, &self.inner, &self.full);
        made.map_err(|error| self.conceal(error))
    }

    /// What is seen here: a directory wherever links lead to it, else the name itself.
    pub(crate) fn seen(&self) -> VisiblePath {
        let jail = &self.space.jail;
        let dir = jail.open_dir(&self.inner).ok();
        let inner = dir.and_then(|dir| jail.path_of(&dir)).or_else(|| {
            let dir = jail.open_dir(&self.inner.parent()?).ok()?;
            let parent = jail.path_of(&dir)?;
            parent.join_name(self.inner.name()?).ok()
        });
        VisiblePath {
            space: Arc::clone(&self.space.key),
            inner: inner.unwrap_or_else(|| self.inner.clone()),
            path: self.full.clone(),
            hidden: Vec::new(),
        }
    }

    /// The place beside it that `full` is the path of.
    pub(crate) fn renamed(&self, full: &VirtualPath) -> Result<Self, StorageError> {
        let name = full.name().unwrap_or_default();
        let parent = self.inner.parent().unwrap_or_else(VirtualPath::root);
        Ok(Self {
            space: Arc::clone(&self.space),
            inner: parent.join_name(name)?,
            full: full.clone(),
            permission: self.permission.clone(),
            by: Arc::clone(&self.by),
        })
    }

    pub(crate) fn name(&self) -> Result<&str, StorageError> {
        let name = self.inner.name();
        name.ok_or_else(|| StorageError::denied(&self.full))
    }

    fn parents(&self) -> Result<(VirtualPath, VirtualPath), StorageError> {
        let parents = self.inner.parent().zip(self.full.parent());
        parents.ok_or_else(|| StorageError::denied(&self.full))
    }
}

/// Makes the missing directories on the way to `inner`, which the `reservation` counts, and opens
/// the last. Those that were made are for the caller to sync, the outermost first.
fn make_dirs(
    mut reservation: Reservation,
    names: &Names<'_>,
    inner: &VirtualPath,
    full: &VirtualPath,
) -> Result<(OpenDir, Vec<Arc<NewName>>), StorageError> {
    let space = names.space;
    let missing = space.jail.missing_dirs(inner).at("make", full)?;
    if missing == 0 {
        let dir = space.jail.open_dir(inner).at("make", full)?;
        return Ok((dir, Vec::new()));
    }
    reservation.grow_locked(SpaceCount::entries(missing), names, full)?;
    let mut made = Vec::new();
    let opened = names.make_dirs(inner, &mut made);
    reservation.settle_part(names, SpaceCount::entries(made.len() as u64));
    if opened.is_err() {
        names.take_back_dirs(&made);
    }
    Ok((opened.at("make", full)?, made))
}
