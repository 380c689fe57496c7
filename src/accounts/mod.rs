//! Accounts: users, password hashes, shared folders with the rights in them, and tokens.
//!
//! They live in `haul.db`, an `SQLite` database in the data directory. The daemon and the command
//! line may both work on it at any time; each sees what the other changed.

mod backup;
mod database;
mod first_admin;
mod folders;
mod hashing;
mod limit;
mod login;
mod name;
mod tokens;
mod users;

use std::path::{Path, PathBuf};

use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::accounts::database::Database;
use crate::accounts::hashing::Hashing;
use crate::storage::{Rights, SpaceLimits, StorageError};

pub use crate::accounts::backup::{Owners, UNFINISHED, copy};
pub use crate::accounts::first_admin::{FIRST_USER, first_password_file};
pub use crate::accounts::folders::{Folder, FolderMember};
pub use crate::accounts::hashing::HashingCost;
pub use crate::accounts::limit::Limit;
pub use crate::accounts::login::{Credential, CredentialStatus};
pub use crate::accounts::name::{FolderName, InvalidName, UserName};
pub use crate::accounts::tokens::Token;
pub use crate::accounts::users::{NewUser, User, UserChange};

/// The accounts of one data directory. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub struct Accounts {
    database: Database,
    hashing: Hashing,
}

/// A user as a session needs it: who it is, what it may take and where it may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Never given to another user, not even to a later one of the same name.
    pub id: i64,
    /// The user's name.
    pub name: UserName,
    /// Whether it may do what only admins may.
    pub admin: bool,
    /// Limits of its home.
    pub limits: SpaceLimits,
    /// The shared folders that it sees, by name.
    pub folders: Vec<Grant>,
}

/// A shared folder that a user sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Never given to another folder, not even to a later one of the same name.
    pub folder: i64,
    /// The folder's name, and the name it is mounted under.
    pub name: FolderName,
    /// What the user may do in it.
    pub rights: Rights,
    /// Limits of the folder, shared by all who write to it.
    pub limits: SpaceLimits,
}

impl Accounts {
    /// Opens the accounts of the data directory `data`. Directory and database are made where they
    /// are missing, and a database of an older version is brought up to date.
    ///
    /// # Errors
    /// [`AccountsError::Io`] and [`AccountsError::Database`] if they can not be made, read or
    /// written, or if a later version of haul wrote them; [`AccountsError::Unfinished`].
    pub async fn open(data: &Path) -> Result<Self, AccountsError> {
        refuse_unfinished(data)?;
        Ok(Self {
            database: Database::open(data).await?,
            hashing: Hashing::default(),
        })
    }

    /// Makes sure that [`Self::open`] will not refuse the data directory `data` for what it is. Changes
    /// nothing in it.
    ///
    /// # Errors
    /// [`AccountsError::Unfinished`], and [`AccountsError::Database`] if the accounts cannot be read
    /// or if a later version of haul wrote them.
    pub async fn check(data: &Path) -> Result<(), AccountsError> {
        refuse_unfinished(data)?;
        Database::check(data).await
    }

    /// Hashes at most `slots` passwords at once, at least one.
    #[must_use]
    pub fn with_hashing_slots(self, slots: usize) -> Self {
        Self {
            hashing: self.hashing.with_slots(slots),
            ..self
        }
    }

    /// Hashes new passwords at this cost.
    #[must_use]
    pub fn with_hashing_cost(self, cost: HashingCost) -> Self {
        Self {
            hashing: self.hashing.with_cost(cost),
            ..self
        }
    }

    /// A number that changes within about half a second of any change to the accounts, whichever
    /// process made it, and as often while nobody can tell whether they changed: read them then, to
    /// find out. Take it before reading what it is to keep up to date. It ends with the last clone.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.database.changes()
    }

    /// Sets aside what a user or folder left whose removal is committed. Never before: were the
    /// commit to fail then, a live account would have lost its files. After a crash in between
    /// they lie where they lay, nobody's, until they are set aside for the next of that name,
    /// before it can be used.
    ///
    /// Under the lock on changes, and only if `there` finds no account: one that was added
    /// meanwhile has set the old files aside, and what is there now is its own.
    async fn set_removed_aside(
        &self,
        there: &'static str,
        set_aside: fn(&Path, &str) -> Result<bool, StorageError>,
        name: &str,
    ) -> Result<bool, AccountsError> {
        let mut transaction = self.database.write().await?;
        let found = sqlx::query(there)
            .bind(name)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(database::reading)?;
        if found.is_some() {
            return Ok(true);
        }
        self.set_aside(set_aside, name).await
    }

    /// Has storage set aside what a user or a folder of this name left, so that no other inherits
    /// it.
    async fn set_aside(
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

fn refuse_unfinished(data: &Path) -> Result<(), AccountsError> {
    if data.join(UNFINISHED).exists() {
        return Err(AccountsError::Unfinished(data.into()));
    }
    Ok(())
}

/// Why accounts could not be read or changed. The text names the thing and what can be done.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// Unknown user, wrong password or token, expired token, or a disabled account; on purpose
    /// not which.
    #[error("the login is not right: unknown user, wrong password or token, or disabled account")]
    LoginFailed,
    /// The password that was to be changed is another.
    #[error("the old password is wrong")]
    WrongPassword,
    /// A new password is empty.
    #[error("the password is empty; choose one of at least one character")]
    EmptyPassword,
    /// A new password is longer than any that could ever log in.
    #[error(
        "the password is longer than {} bytes; choose a shorter one",
        hashing::LONGEST_PASSWORD
    )]
    PasswordTooLong,
    /// The name is taken.
    #[error("there is a user {0} already; choose another name, or change it with `haul user set`")]
    UserExists(UserName),
    /// The name is not known.
    #[error("there is no user {0}; `haul user list` shows who there is")]
    NoSuchUser(UserName),
    /// The name is taken.
    #[error("there is a folder {0} already; choose another name")]
    FolderExists(FolderName),
    /// The name is not known.
    #[error("there is no folder {0}; `haul folder list` shows which there are")]
    NoSuchFolder(FolderName),
    /// Nothing to revoke.
    #[error("user {user} has no rights in folder {folder}; `haul folder list` shows who has")]
    NoSuchGrant {
        /// The folder.
        folder: FolderName,
        /// The user.
        user: UserName,
    },
    /// The user has no token of that number.
    #[error("user {user} has no token {id}; `haul token list {user}` shows which there are")]
    NoSuchToken {
        /// The user.
        user: UserName,
        /// The token's number.
        id: i64,
    },
    /// A password could not be hashed or compared.
    #[error("can not check passwords: {reason}")]
    Hashing {
        /// What failed.
        reason: String,
    },
    /// What a removed user or folder left could not be set aside.
    #[error(transparent)]
    Files(#[from] StorageError),
    /// A user or folder is removed, but its files still lie where they lay.
    #[error(
        "{what} {name} is removed, but its files are not set aside: {source}; \
         they will be when another {what} of that name is added"
    )]
    LeftBehind {
        /// `user` or `folder`.
        what: &'static str,
        /// Whose files.
        name: String,
        /// Why.
        source: Box<AccountsError>,
    },
    /// A token could not be made.
    #[error("the system gives no random bytes: {reason}")]
    NoRandomness {
        /// What the system says.
        reason: String,
    },
    /// The directory holds what a backup has come to that was cut off.
    #[error(
        "{} is a backup that was cut off, with {UNFINISHED} in it; use another one",
        .0.display()
    )]
    Unfinished(PathBuf),
    /// The file system failed.
    #[error("can not {doing} {}: {source}", path.display())]
    Io {
        /// What was to be done, such as `make`.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The database failed.
    #[error("can not {doing} the accounts in haul.db: {source}")]
    Database {
        /// What was to be done: `open`, `read` or `change`.
        doing: &'static str,
        /// What `SQLite` says.
        source: sqlx::Error,
    },
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::protocol::Secret;

    /// Accounts in a directory that lives as long as they do, quick to log in to.
    pub(crate) async fn accounts() -> (tempfile::TempDir, Accounts) {
        let directory = tempfile::tempdir().expect("a directory");
        let accounts = reopen(&directory).await;
        (directory, accounts)
    }

    /// What another process would see.
    pub(crate) async fn reopen(directory: &tempfile::TempDir) -> Accounts {
        let accounts = Accounts::open(directory.path()).await.expect("opens");
        accounts.with_hashing_cost(HashingCost::LEAST)
    }

    pub(crate) fn user(name: &str) -> UserName {
        name.parse().expect("a name")
    }

    pub(crate) fn folder(name: &str) -> FolderName {
        name.parse().expect("a name")
    }

    pub(crate) fn secret(text: &str) -> Secret {
        Secret::new(text.into())
    }

    /// Adds a user whose password is `hunter2`.
    pub(crate) async fn add(accounts: &Accounts, name: &str) {
        let (name, password) = (user(name), secret("hunter2"));
        let added = accounts.add_user(&name, &password, NewUser::default());
        added.await.expect("added");
    }

    /// Makes every commit fail from now on after which the row of this name is gone.
    pub(crate) async fn refuse_commits_without(accounts: &Accounts, table: &str, name: &str) {
        let mut transaction = accounts.database.write().await.expect("writable");
        let statement = format!(
            "CREATE TABLE needs (name TEXT REFERENCES {table} (name) DEFERRABLE INITIALLY DEFERRED); \
             INSERT INTO needs VALUES ('{name}')"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
            .execute(&mut *transaction)
            .await
            .expect("made");
        transaction.commit().await.expect("committed");
    }
}
