//! A resolved path: a member's path as a space, a path within it, and the member's permission.

use std::iter;
use std::sync::Arc;

use crate::storage::changes::VisiblePath;
use crate::storage::denied_reason::DeniedReason;
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::access::Permission;
use crate::storage::local::fs::metadata::EntryKind;
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::fs::unsynced::UnsyncedName;
use crate::storage::local::reservation::Reservation;
use crate::storage::local::space::{LockedNames, Space};
use crate::storage::local::space_count::SpaceCount;
use crate::storage::path::VirtualPath;
use crate::storage::rights::{Right, Rights};

/// The space and the path within it that a path of a view leads to.
#[derive(Debug, Clone)]
pub(crate) struct ResolvedPath {
    pub(crate) space: Arc<Space>,
    /// Within the space.
    pub(crate) inner: VirtualPath,
    /// Within the view: the path in messages to the member.
    pub(crate) full: VirtualPath,
    pub(crate) permission: Permission,
    /// The home of the member, who is the author of changes here.
    pub(crate) author: Arc<Space>,
}

impl ResolvedPath {
    /// Whether it is the root of a home or a folder, whose name no member can change.
    pub(crate) fn is_root(&self) -> bool {
        self.inner.name().is_none()
    }

    /// The member's rights here now.
    pub(crate) fn rights(&self) -> Result<Rights, StorageError> {
        self.permission.rights(&self.space, &self.full)
    }

    /// Makes sure that the member has the right now. Long operations check again before each step
    /// that shows something, and under the lock on the names before they change one.
    pub(crate) fn require(&self, right: Right) -> Result<(), StorageError> {
        self.rights()?.require(right, &self.full)
    }

    /// Refuses to change the root of a home or a folder.
    pub(crate) fn require_not_root(&self) -> Result<(), StorageError> {
        if self.is_root() {
            return Err(StorageError::denied(&self.full, DeniedReason::Root));
        }
        Ok(())
    }

    /// Removes the usage and the limit from an error for a member who may not list the folder.
    pub(crate) fn redact_quota(&self, error: StorageError) -> StorageError {
        match error {
            StorageError::QuotaExceeded { path, .. }
                if !self.rights().is_ok_and(|rights| rights.list) =>
            {
                StorageError::QuotaReached { path }
            }
            error => error,
        }
    }

    /// Makes sure that the member may list the folder, or that this is its root, which is no secret.
    pub(crate) fn require_list(&self) -> Result<(), StorageError> {
        let rights = self.rights()?;
        if self.is_root() {
            return Ok(());
        }
        rights.require(Right::List, &self.full)
    }

    /// The entry `name` of this directory, unless its path is too deep or too long.
    pub(crate) fn child(&self, name: &str) -> Result<Self, StorageError> {
        Ok(Self {
            inner: self.inner.join_name(name)?,
            full: self.full.join_name(name)?,
            ..self.clone()
        })
    }

    /// Makes sure that the space still has its name in the data directory. A change in one that was
    /// set aside with its account is in no view, so it must not be acknowledged.
    pub(crate) fn check_attached(&self) -> Result<(), StorageError> {
        if self.space.is_attached().context("look at", &self.full)? {
            return Ok(());
        }
        Err(StorageError::not_found(&self.full))
    }

    /// Opens the directory of the entry, and returns it with the name there.
    pub(crate) fn open_parent(&self) -> Result<(OpenDir, &str), StorageError> {
        let (inner, full) = self.parents()?;
        let dir = self.space.sandbox.open_dir(&inner).context("open", &full);
        let dir = dir.map_err(|error| self.locate_file(error).looking_for("directory"))?;
        Ok((dir, self.name()?))
    }

    /// Sets the path of [`StorageError::NotADirectory`] to that of the file, which may lie on the way
    /// to this path.
    pub(crate) fn locate_file(&self, error: StorageError) -> StorageError {
        if !matches!(error, StorageError::NotADirectory { .. }) {
            return error;
        }
        let ancestors =
            |path: &VirtualPath| iter::successors(Some(path.clone()), VirtualPath::parent);
        let is_file = |inner: &VirtualPath| {
            let meta = self.space.sandbox.look(inner);
            meta.is_ok_and(|meta| meta.kind != EntryKind::Dir)
        };
        ancestors(&self.full)
            .zip(ancestors(&self.inner))
            .find(|(_, inner)| is_file(inner))
            .map_or(error, |(path, _)| StorageError::NotADirectory { path })
    }

    /// As [`Self::open_parent`], but makes the missing directories on the way; see [`make_dirs`].
    pub(crate) fn make_parent(
        &self,
        names: &LockedNames<'_>,
    ) -> Result<(OpenDir, Vec<Arc<UnsyncedName>>), StorageError> {
        let (inner, full) = self.parents()?;
        // The bytes of the upload have arrived already.
        let reservation = Reservation::for_upload(&self.space);
        let made = make_dirs(reservation, names, &inner, &full);
        made.map_err(|error| self.locate_file(self.redact_quota(error)))
    }

    /// Opens the directory itself, and makes it and those on the way if they are missing; see
    /// [`make_dirs`].
    pub(crate) fn make_dir(
        &self,
        names: &LockedNames<'_>,
    ) -> Result<(OpenDir, Vec<Arc<UnsyncedName>>), StorageError> {
        let reservation = Reservation::new(&self.space);
        let made = make_dirs(reservation, names, &self.inner, &self.full);
        made.map_err(|error| self.locate_file(self.redact_quota(error)))
    }

    /// The entry that the view shows here: the directory that the path leads to, else the name itself.
    pub(crate) fn visible_path(&self) -> VisiblePath {
        let sandbox = &self.space.sandbox;
        let dir = sandbox.open_dir(&self.inner).ok();
        let inner = dir.and_then(|dir| sandbox.path_of(&dir)).or_else(|| {
            let dir = sandbox.open_dir(&self.inner.parent()?).ok()?;
            let parent = sandbox.path_of(&dir)?;
            parent.join_name(self.inner.name()?).ok()
        });
        VisiblePath {
            space: Arc::clone(&self.space.key),
            inner: inner.unwrap_or_else(|| self.inner.clone()),
            path: self.full.clone(),
            hidden: Vec::new(),
        }
    }

    /// The path of `dir`, which holds the entry, within the space. The text of the path may lead
    /// through symbolic links.
    pub(crate) fn true_parent(&self, dir: &OpenDir) -> VirtualPath {
        let path = self.space.sandbox.path_of(dir);
        path.or_else(|| self.inner.parent())
            .unwrap_or_else(VirtualPath::root)
    }

    /// The entry of the same directory with the path `full`.
    pub(crate) fn renamed(&self, full: &VirtualPath) -> Result<Self, StorageError> {
        let name = full.name().unwrap_or_default();
        let parent = self.inner.parent().unwrap_or_else(VirtualPath::root);
        Ok(Self {
            space: Arc::clone(&self.space),
            inner: parent.join_name(name)?,
            full: full.clone(),
            permission: self.permission.clone(),
            author: Arc::clone(&self.author),
        })
    }

    pub(crate) fn name(&self) -> Result<&str, StorageError> {
        let name = self.inner.name();
        name.ok_or_else(|| StorageError::denied(&self.full, DeniedReason::Root))
    }

    fn parents(&self) -> Result<(VirtualPath, VirtualPath), StorageError> {
        let parents = self.inner.parent().zip(self.full.parent());
        parents.ok_or_else(|| StorageError::denied(&self.full, DeniedReason::Root))
    }
}

/// Makes the missing directories on the way to `inner`, accounts for them with the `reservation`, and
/// opens the last. The caller syncs those that were made, the outermost first.
fn make_dirs(
    mut reservation: Reservation,
    names: &LockedNames<'_>,
    inner: &VirtualPath,
    full: &VirtualPath,
) -> Result<(OpenDir, Vec<Arc<UnsyncedName>>), StorageError> {
    let space = names.space;
    let missing = space.sandbox.missing_dirs(inner).context("make", full)?;
    if missing == 0 {
        let dir = space.sandbox.open_dir(inner).context("make", full)?;
        return Ok((dir, Vec::new()));
    }
    reservation.reserve_quota_locked(SpaceCount::entries(missing), names, full)?;
    let mut made = Vec::new();
    let opened = names.make_dirs(inner, &mut made);
    reservation.commit_part(names, SpaceCount::entries(made.len() as u64));
    if opened.is_err() {
        names.undo_make_dirs(&made);
    }
    Ok((opened.context("make", full)?, made))
}
