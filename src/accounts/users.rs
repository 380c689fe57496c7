//! Users: adding, listing, changing and removing them.

use jiff::Timestamp;
use sqlx::FromRow as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use crate::accounts::account::Accounts;
use crate::accounts::database;
use crate::accounts::database::{read_error, write_error};
use crate::accounts::error::AccountsError;
use crate::accounts::limit::Limit;
use crate::accounts::name::UserName;
use crate::protocol::Secret;
use crate::storage;
use crate::storage::SpaceLimits;

/// The rights and limits of a new user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NewUser {
    /// Whether the user is an administrator.
    pub admin: bool,
    /// The limits of the user's home.
    pub limits: SpaceLimits,
}

/// A user as administrators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user's name.
    pub name: UserName,
    /// Whether the user is an administrator.
    pub admin: bool,
    /// Whether the user cannot log in.
    pub disabled: bool,
    /// The limits of the user's home.
    pub limits: SpaceLimits,
    /// When the user was added.
    pub created: Timestamp,
}

/// A change of a user. Fields that are `None` stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UserChange {
    /// Whether the user is an administrator.
    pub admin: Option<bool>,
    /// Whether the user cannot log in.
    pub disabled: Option<bool>,
    /// The most bytes in the home.
    pub bytes: Option<Limit>,
    /// The most files in the home.
    pub files: Option<Limit>,
}

impl Accounts {
    /// Adds a user. Sets aside the files of an earlier user with this name.
    ///
    /// # Errors
    /// [`AccountsError::UserExists`], [`AccountsError::EmptyPassword`] and
    /// [`AccountsError::PasswordTooLong`], [`AccountsError::Files`] or [`AccountsError::Database`].
    pub async fn add_user(
        &self,
        name: &UserName,
        password: &Secret,
        new: NewUser,
    ) -> Result<(), AccountsError> {
        let hash = self.hashing.hash(password).await?;
        let mut transaction = self.database.write().await?;
        let insert = "INSERT INTO users (name, password, admin, bytes, files, created) \
                      VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO NOTHING";
        let inserted = sqlx::query(insert)
            .bind(name.as_str())
            .bind(hash)
            .bind(new.admin)
            .bind(new.limits.bytes.map(database::to_column))
            .bind(new.limits.files.map(database::to_column))
            .bind(Timestamp::now().as_second())
            .execute(&mut *transaction)
            .await
            .map_err(write_error)?;
        if inserted.rows_affected() == 0 {
            return Err(AccountsError::UserExists(name.clone()));
        }
        // Before the commit, so that the new user never sees the old files. They belong to nobody,
        // so a failed commit does no harm.
        self.set_aside(storage::set_home_aside, name.as_str())
            .await?;
        transaction.commit().await.map_err(write_error)
    }

    /// All users by name.
    ///
    /// # Errors
    /// [`AccountsError::Database`].
    pub async fn users(&self) -> Result<Vec<User>, AccountsError> {
        let mut transaction = self.database.read().await?;
        let select = "SELECT name, admin, disabled, bytes, files, created FROM users ORDER BY name";
        let users = sqlx::query(select).try_map(|row| user_of_row(&row));
        let users = users
            .fetch_all(&mut *transaction)
            .await
            .map_err(read_error)?;
        transaction.commit().await.map_err(read_error)?;
        Ok(users)
    }

    /// Changes a user. The change takes effect for its sessions within two seconds.
    ///
    /// # Errors
    /// [`AccountsError::NoSuchUser`] or [`AccountsError::Database`].
    pub async fn set_user(&self, name: &UserName, change: UserChange) -> Result<(), AccountsError> {
        let update = "UPDATE users SET \
                      admin = coalesce(?, admin), \
                      disabled = coalesce(?, disabled), \
                      bytes = CASE WHEN ? THEN ? ELSE bytes END, \
                      files = CASE WHEN ? THEN ? ELSE files END \
                      WHERE name = ?";
        let update = sqlx::query(update)
            .bind(change.admin)
            .bind(change.disabled)
            .bind(change.bytes.is_some())
            .bind(change.bytes.and_then(Limit::to_column))
            .bind(change.files.is_some())
            .bind(change.files.and_then(Limit::to_column))
            .bind(name.as_str());
        let mut transaction = self.database.write().await?;
        let updated = update
            .execute(&mut *transaction)
            .await
            .map_err(write_error)?;
        if updated.rows_affected() == 0 {
            return Err(AccountsError::NoSuchUser(name.clone()));
        }
        transaction.commit().await.map_err(write_error)
    }

    /// Sets the password of a user. Tokens stay valid.
    ///
    /// # Errors
    /// [`AccountsError::NoSuchUser`], [`AccountsError::EmptyPassword`],
    /// [`AccountsError::PasswordTooLong`] or [`AccountsError::Database`].
    pub async fn set_password(
        &self,
        name: &UserName,
        password: &Secret,
    ) -> Result<(), AccountsError> {
        let hash = self.hashing.hash(password).await?;
        let mut transaction = self.database.write().await?;
        let updated = sqlx::query("UPDATE users SET password = ? WHERE name = ?")
            .bind(hash)
            .bind(name.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(write_error)?;
        if updated.rows_affected() == 0 {
            return Err(AccountsError::NoSuchUser(name.clone()));
        }
        transaction.commit().await.map_err(write_error)?;
        self.forget_first_password(name).await
    }

    /// Removes a user with its tokens and rights, and moves its home to `removed/` in the data
    /// directory. Returns `false` if the user had no home.
    ///
    /// # Errors
    /// [`AccountsError::NoSuchUser`]; [`AccountsError::FilesLeftBehind`] if it is removed but its files
    /// could not be set aside.
    pub async fn remove_user(&self, name: &UserName) -> Result<bool, AccountsError> {
        let mut transaction = self.database.write().await?;
        let deleted = sqlx::query("DELETE FROM users WHERE name = ?")
            .bind(name.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(write_error)?;
        if deleted.rows_affected() == 0 {
            return Err(AccountsError::NoSuchUser(name.clone()));
        }
        transaction.commit().await.map_err(write_error)?;
        let forgotten = self.forget_first_password(name).await;
        let select = "SELECT id FROM users WHERE name = ?";
        let had_files = self
            .set_aside_removed(select, storage::set_home_aside, name.as_str())
            .await
            .map_err(|error| AccountsError::FilesLeftBehind {
                what: "user",
                name: name.to_string(),
                source: Box::new(error),
            })?;
        forgotten?;
        Ok(had_files)
    }
}

/// The number of the user `name`.
pub(crate) async fn id_of(
    connection: &mut SqliteConnection,
    name: &UserName,
) -> Result<i64, AccountsError> {
    sqlx::query_scalar("SELECT id FROM users WHERE name = ?")
        .bind(name.as_str())
        .fetch_optional(connection)
        .await
        .map_err(read_error)?
        .ok_or_else(|| AccountsError::NoSuchUser(name.clone()))
}

fn user_of_row(row: &SqliteRow) -> Result<User, sqlx::Error> {
    let (name, admin, disabled, bytes, files, created) = <_>::from_row(row)?;
    Ok(User {
        name: database::parse_name(name)?,
        admin,
        disabled,
        limits: database::to_limits(bytes, files)?,
        created: database::timestamp(created)?,
    })
}

#[cfg(test)]
mod tests;
