//! The homes and folders of an account: how they are named, opened, and mounted in its view.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::accounts::{Account, Grant};
use crate::storage::{Mount, Space, StorageError, Store};

/// A home or a folder: its number and its name. Neither ever changes, so the directory of that name
/// belongs to that number as long as the account or folder exists.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum SpaceKey {
    Home(i64, Arc<str>),
    Folder(i64, Arc<str>),
}

/// Open spaces by their keys.
pub(crate) type OpenSpaceCache = HashMap<SpaceKey, Arc<Space>>;

/// Opens a space; the second argument is the space as it was open before, if it was. May block.
pub(crate) type OpenSpaceFn =
    Arc<dyn Fn(&SpaceKey, Option<Arc<Space>>) -> Result<Arc<Space>, StorageError> + Send + Sync>;

impl SpaceKey {
    pub(crate) fn home(account: &Account) -> Self {
        Self::Home(account.id, account.name.as_str().into())
    }

    pub(crate) fn folder(grant: &Grant) -> Self {
        Self::Folder(grant.folder, grant.name.as_str().into())
    }

    /// All spaces that `account` may reach.
    pub(crate) fn all_for_account(account: &Account) -> impl Iterator<Item = Self> {
        let folders = account.folders.iter().map(Self::folder);
        folders.chain([Self::home(account)])
    }

    /// Opens the space, or returns `known` if its directory is still the same. May block.
    fn open(&self, store: &Store, known: Option<Arc<Space>>) -> Result<Arc<Space>, StorageError> {
        if let Some(known) = known.filter(|known| store.is_in_place(known)) {
            return Ok(known);
        }
        match self {
            Self::Home(_, name) => store.open_home(name),
            Self::Folder(_, name) => store.open_folder(name),
        }
    }
}

impl fmt::Display for SpaceKey {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Home(_, name) => write!(to, "the home of {name}"),
            Self::Folder(_, name) => write!(to, "the folder {name}"),
        }
    }
}

/// Returns the function that opens spaces of `store`.
pub(crate) fn open_space_fn(store: &Store) -> OpenSpaceFn {
    let store = store.clone();
    Arc::new(move |key, known| key.open(&store, known))
}

/// Opens all spaces that `account` may reach. May block.
pub(crate) fn open_all(store: &Store, account: &Account) -> Result<OpenSpaceCache, StorageError> {
    let open = |key: SpaceKey| Ok((key.clone(), key.open(store, None)?));
    SpaceKey::all_for_account(account).map(open).collect()
}

/// The open spaces of one account.
#[derive(Debug)]
pub(crate) struct AccountSpaces {
    pub(crate) home: Arc<Space>,
    pub(crate) mounts: Vec<Mount>,
}

impl AccountSpaces {
    /// Selects the spaces of `account` from `open`; `None` if one of them is missing.
    pub(crate) fn from_open(account: &Account, open: &OpenSpaceCache) -> Option<Self> {
        let home = Arc::clone(open.get(&SpaceKey::home(account))?);
        let mounts = account.folders.iter().map(|grant| {
            Some(Mount {
                name: grant.name.to_string(),
                space: Arc::clone(open.get(&SpaceKey::folder(grant))?),
                rights: grant.rights,
            })
        });
        let mounts = mounts.collect::<Option<_>>()?;
        Some(Self { home, mounts })
    }

    /// The keys of the spaces that the user may list, as change events name them.
    pub(crate) fn listable(&self) -> Vec<Arc<str>> {
        let mounts = self.mounts.iter().filter(|mount| mount.rights.list);
        let spaces = mounts.map(|mount| &mount.space).chain([&self.home]);
        spaces.map(|space| Arc::clone(space.key())).collect()
    }

    /// Sets the limits of all spaces. Nothing else sets limits, so the operator's latest values hold.
    pub(crate) fn set_limits(&self, reading: u64, account: &Account) {
        self.home.set_limits(account.limits, reading);
        for (mount, grant) in self.mounts.iter().zip(&account.folders) {
            mount.space.set_limits(grant.limits, reading);
        }
    }
}
