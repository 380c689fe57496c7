//! The handle to the accounts, and the account of one user.

use std::path::Path;

use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::accounts::database;
use crate::accounts::database::AccountsDatabase;
use crate::accounts::error::{AccountsError, UNFINISHED_BACKUP};
use crate::accounts::hashing::{HashingCost, PasswordHashing};
use crate::accounts::name::{FolderName, UserName};
use crate::storage::{Rights, SpaceLimits, StorageError};

/// The accounts of one data directory. Clones are cheap and share everything.
#[derive(Debug, Clone)]
pub struct Accounts {
    pub(crate) database: AccountsDatabase,
    pub(crate) hashing: PasswordHashing,
}

/// A user with the limits and rights that a session needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The account's number. It is never reused, not even for a later user with the same name.
    pub id: i64,
    /// The user's name.
    pub name: UserName,
    /// Whether the user is an administrator.
    pub admin: bool,
    /// The limits of the user's home.
    pub limits: SpaceLimits,
    /// The shared folders that the user sees, by name.
    pub folders: Vec<Grant>,
}

/// A shared folder that a user sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The folder's number. It is never reused, not even for a later folder with the same name.
    pub folder: i64,
    /// The name of the folder, which is also its path in the user's view.
    pub name: FolderName,
    /// The user's rights in the folder.
    pub rights: Rights,
    /// The limits of the folder, shared by all its members.
    pub limits: SpaceLimits,
}

impl Accounts {
    /// Opens the accounts of the data directory `data`. Creates the directory and the database if
    /// they do not exist, and migrates a database of an earlier version.
    ///
    /// # Errors
    /// [`AccountsError::Io`] and [`AccountsError::Database`] if they cannot be created, read or
    /// written, or if a later version of haul wrote them; [`AccountsError::UnfinishedBackup`].
    pub async fn open(data: &Path) -> Result<Self, AccountsError> {
        reject_unfinished_backup(data)?;
        Ok(Self {
            database: AccountsDatabase::open(data).await?,
            hashing: PasswordHashing::default(),
        })
    }

    /// Checks that [`Self::open`] will accept the data directory `data`. Changes nothing in it.
    ///
    /// # Errors
    /// [`AccountsError::UnfinishedBackup`], and [`AccountsError::Database`] if the accounts cannot be read
    /// or if a later version of haul wrote them.
    pub async fn check(data: &Path) -> Result<(), AccountsError> {
        reject_unfinished_backup(data)?;
        AccountsDatabase::check(data).await
    }

    /// Sets the number of passwords that are hashed at once, at least one.
    #[must_use]
    pub fn with_hashing_slots(self, slots: usize) -> Self {
        Self {
            hashing: self.hashing.with_slots(slots),
            ..self
        }
    }

    /// The accounts, for changes by the administrator with the number `admin`. Each change looks the
    /// right up in its own transaction, so that of two administrators who demote each other one
    /// remains.
    #[must_use]
    pub fn for_admin(self, admin: i64) -> Self {
        Self {
            database: self.database.for_admin(admin),
            ..self
        }
    }

    /// Sets the cost of hashing new passwords.
    #[must_use]
    pub fn with_hashing_cost(self, cost: HashingCost) -> Self {
        Self {
            hashing: self.hashing.with_cost(cost),
            ..self
        }
    }

    /// A counter that changes within about half a second after any process changes the accounts. It
    /// also changes every half second while the database cannot say whether it changed. Subscribe
    /// before you read the data to keep up to date. The channel closes with the last clone.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.database.changes()
    }

    /// Sets aside the files of a user or folder whose removal is committed. Before the commit, a
    /// failure would take the files from an account that still exists. After a crash in between, the
    /// files stay until the next user or folder with this name is added, which sets them aside first.
    ///
    /// Holds the write lock of the database, and does nothing if `select` finds an account: one that
    /// was added meanwhile has set the old files aside, and the present files are its own.
    pub(crate) async fn set_aside_removed(
        &self,
        select: &'static str,
        set_aside: fn(&Path, &str) -> Result<bool, StorageError>,
        name: &str,
    ) -> Result<bool, AccountsError> {
        let mut transaction = self.database.write().await?;
        let found = sqlx::query(select)
            .bind(name)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(database::read_error)?;
        if found.is_some() {
            return Ok(true);
        }
        self.set_aside(set_aside, name).await
    }

    /// Sets aside the files of an earlier user or folder with this name, so that no other inherits
    /// them.
    pub(crate) async fn set_aside(
        &self,
        set_aside: fn(&Path, &str) -> Result<bool, StorageError>,
        name: &str,
    ) -> Result<bool, AccountsError> {
        let (data, name) = (self.database.data().to_owned(), name.to_owned());
        let moving = spawn_blocking(move || set_aside(&data, &name));
        let moved = moving.await.map_err(|panicked| AccountsError::Io {
            doing: "set files aside in",
            path: self.database.data().into(),
            source: panicked.into(),
        })?;
        Ok(moved?)
    }
}

fn reject_unfinished_backup(data: &Path) -> Result<(), AccountsError> {
    if data.join(UNFINISHED_BACKUP).exists() {
        return Err(AccountsError::UnfinishedBackup(data.into()));
    }
    Ok(())
}
