//! The spaces that a member may reach, and the permission of one operation in one of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::storage::access::Access;
use crate::storage::denied_reason::DeniedReason;
use crate::storage::error::StorageError;
use crate::storage::local::space::Space;
use crate::storage::path::VirtualPath;
use crate::storage::rights::Rights;

/// A shared folder in a view.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Its name in the root. It hides an entry of the home with the same name.
    pub name: String,
    /// The folder.
    pub space: Arc<Space>,
    /// The member's rights there.
    pub rights: Rights,
}

/// The mounts of a view, by name.
pub(crate) type AccessMounts = BTreeMap<String, Mount>;

/// The spaces that a member may reach.
#[derive(Debug)]
pub(crate) struct AccessSpaces {
    pub(crate) home: Arc<Space>,
    pub(crate) mounts: AccessMounts,
}

impl AccessSpaces {
    /// The home, and the folders that are mounted into it.
    pub(crate) fn new(home: Arc<Space>, folders: Vec<Mount>) -> Arc<Self> {
        let mounts = folders.into_iter();
        Arc::new(Self {
            home,
            mounts: mounts.map(|mount| (mount.name.clone(), mount)).collect(),
        })
    }

    /// The member's rights in `space`; `None` if the member may not reach it.
    fn rights_in(&self, space: &Arc<Space>) -> Option<Rights> {
        if Arc::ptr_eq(&self.home, space) {
            return Some(Rights::ALL);
        }
        let mut mounts = self.mounts.values();
        let mount = mounts.find(|mount| Arc::ptr_eq(&mount.space, space))?;
        Some(mount.rights)
    }
}

/// A member's rights in a space, as of the epoch in which they were looked up. They belong to the space,
/// not to its name.
#[derive(Debug, Clone)]
pub(crate) struct Permission {
    pub(crate) access: Arc<Access<AccessSpaces>>,
    pub(crate) epoch: u64,
    pub(crate) rights: Rights,
}

impl Permission {
    /// The member's current rights in `space`.
    ///
    /// # Errors
    /// [`StorageError::Suspended`], or [`StorageError::Denied`] if the member may no longer reach
    /// the space.
    pub(crate) fn rights(
        &self,
        space: &Arc<Space>,
        path: &VirtualPath,
    ) -> Result<Rights, StorageError> {
        if self.access.epoch() == self.epoch {
            return Ok(self.rights);
        }
        self.access
            .with_spaces(path, |spaces| spaces.rights_in(space))?
            .ok_or_else(|| StorageError::denied(path, DeniedReason::AccessLost))
    }
}
