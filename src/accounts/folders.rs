//! Shared folders and the rights in them.

use std::collections::HashMap;

use jiff::Timestamp;
use sqlx::FromRow as _;
use sqlx::sqlite::SqliteConnection;

use crate::accounts::account::{Accounts, Grant};
use crate::accounts::database;
use crate::accounts::database::{read_error, write_error};
use crate::accounts::error::AccountsError;
use crate::accounts::name::{FolderName, UserName};
use crate::accounts::users;
use crate::storage;
use crate::storage::{Rights, SpaceLimits};

/// A shared folder as administrators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// The name of the folder, which is also its path in its members' views.
    pub name: FolderName,
    /// The limits of the folder, shared by all its members.
    pub limits: SpaceLimits,
    /// When the folder was added.
    pub created: Timestamp,
    /// The users who see the folder, by name.
    pub members: Vec<FolderMember>,
}

/// A user who sees a shared folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderMember {
    /// The user's name.
    pub user: UserName,
    /// The user's rights in the folder.
    pub rights: Rights,
}

impl Accounts {
    /// Adds a folder without members. Sets aside the files of an earlier folder with this name.
    ///
    /// # Errors
    /// [`AccountsError::FolderExists`], [`AccountsError::Files`] or [`AccountsError::Database`].
    pub async fn add_folder(
        &self,
        name: &FolderName,
        limits: SpaceLimits,
    ) -> Result<(), AccountsError> {
        let mut transaction = self.database.write().await?;
        let insert = "INSERT INTO folders (name, bytes, files, created) \
                      VALUES (?, ?, ?, ?) ON CONFLICT (name) DO NOTHING";
        let inserted = sqlx::query(insert)
            .bind(name.as_str())
            .bind(limits.bytes.map(database::to_column))
            .bind(limits.files.map(database::to_column))
            .bind(Timestamp::now().as_second())
            .execute(&mut *transaction)
            .await
            .map_err(write_error)?;
        if inserted.rows_affected() == 0 {
            return Err(AccountsError::FolderExists(name.clone()));
        }
        // Before the commit, so that no member ever sees the old files. They belong to nobody, so a
        // failed commit does no harm.
        self.set_aside(storage::set_folder_aside, name.as_str())
            .await?;
        transaction.commit().await.map_err(write_error)
    }

    /// All folders with their members, by name.
    ///
    /// # Errors
    /// [`AccountsError::Database`].
    pub async fn folders(&self) -> Result<Vec<Folder>, AccountsError> {
        let mut transaction = self.database.read().await?;
        let select = "SELECT id, name, bytes, files, created FROM folders ORDER BY name";
        let rows = sqlx::query_as::<_, (i64, String, Option<i64>, Option<i64>, i64)>(select);
        let rows = rows
            .fetch_all(&mut *transaction)
            .await
            .map_err(read_error)?;
        let mut folders = Vec::with_capacity(rows.len());
        for (id, name, bytes, files, created) in rows {
            folders.push(Folder {
                name: database::parse_name(name).map_err(read_error)?,
                limits: database::to_limits(bytes, files).map_err(read_error)?,
                created: database::timestamp(created).map_err(read_error)?,
                members: members(&mut transaction, id).await.map_err(read_error)?,
            });
        }
        transaction.commit().await.map_err(read_error)?;
        Ok(folders)
    }

    /// Gives a user these rights in a folder, in place of earlier ones.
    ///
    /// # Errors
    /// [`AccountsError::NoSuchFolder`], [`AccountsError::NoSuchUser`] or
    /// [`AccountsError::Database`].
    pub async fn grant(
        &self,
        folder: &FolderName,
        user: &UserName,
        rights: Rights,
    ) -> Result<(), AccountsError> {
        let mut transaction = self.database.write().await?;
        let folder = id_of(&mut transaction, folder).await?;
        let user = users::id_of(&mut transaction, user).await?;
        let insert = "INSERT INTO grants (folder, user, rights) VALUES (?, ?, ?) \
                      ON CONFLICT (folder, user) DO UPDATE SET rights = excluded.rights";
        sqlx::query(insert)
            .bind(folder)
            .bind(user)
            // The rights themselves, not the name of a preset, which may change.
            .bind(rights.names().join(","))
            .execute(&mut *transaction)
            .await
            .map_err(write_error)?;
        transaction.commit().await.map_err(write_error)
    }

    /// Removes all rights of a user in a folder.
    ///
    /// # Errors
    /// [`AccountsError::NoSuchFolder`], [`AccountsError::NoSuchUser`],
    /// [`AccountsError::NoSuchGrant`] or [`AccountsError::Database`].
    pub async fn revoke(&self, folder: &FolderName, user: &UserName) -> Result<(), AccountsError> {
        let mut transaction = self.database.write().await?;
        let deleted = sqlx::query("DELETE FROM grants WHERE folder = ? AND user = ?")
            .bind(id_of(&mut transaction, folder).await?)
            .bind(users::id_of(&mut transaction, user).await?)
            .execute(&mut *transaction)
            .await
            .map_err(write_error)?;
        if deleted.rows_affected() == 0 {
            return Err(AccountsError::NoSuchGrant {
                folder: folder.clone(),
                user: user.clone(),
            });
        }
        transaction.commit().await.map_err(write_error)
    }

    /// Removes a folder, and moves its files to `removed/` in the data directory. Returns `false` if
    /// it had none.
    ///
    /// # Errors
    /// [`AccountsError::NoSuchFolder`]; [`AccountsError::FilesLeftBehind`] if it is removed but its
    /// files could not be set aside.
    pub async fn remove_folder(&self, name: &FolderName) -> Result<bool, AccountsError> {
        let mut transaction = self.database.write().await?;
        let deleted = sqlx::query("DELETE FROM folders WHERE name = ?")
            .bind(name.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(write_error)?;
        if deleted.rows_affected() == 0 {
            return Err(AccountsError::NoSuchFolder(name.clone()));
        }
        transaction.commit().await.map_err(write_error)?;
        let select = "SELECT id FROM folders WHERE name = ?";
        self.set_aside_removed(select, storage::set_folder_aside, name.as_str())
            .await
            .map_err(|error| AccountsError::FilesLeftBehind {
                what: "folder",
                name: name.to_string(),
                source: Box::new(error),
            })
    }
}

/// The folders that users see, by name, for the users whose numbers are in `users`, a JSON list.
pub(crate) async fn grants(
    connection: &mut SqliteConnection,
    users: &str,
) -> Result<HashMap<i64, Vec<Grant>>, sqlx::Error> {
    let select = "SELECT grants.user, folders.id, folders.name, grants.rights, \
                  folders.bytes, folders.files \
                  FROM grants JOIN folders ON folders.id = grants.folder \
                  WHERE grants.user IN (SELECT value FROM json_each(?)) ORDER BY folders.name";
    let rows = sqlx::query(select)
        .bind(users)
        .fetch_all(connection)
        .await?;
    let mut grants = HashMap::<_, Vec<_>>::new();
    for row in &rows {
        let (user, folder, name, rights, bytes, files) =
            <(i64, i64, String, String, _, _)>::from_row(row)?;
        grants.entry(user).or_default().push(Grant {
            folder,
            name: database::parse_name(name)?,
            rights: database::parse_rights(&rights)?,
            limits: database::to_limits(bytes, files)?,
        });
    }
    Ok(grants)
}

async fn members(
    connection: &mut SqliteConnection,
    folder: i64,
) -> Result<Vec<FolderMember>, sqlx::Error> {
    let select = "SELECT users.name, grants.rights \
                  FROM grants JOIN users ON users.id = grants.user \
                  WHERE grants.folder = ? ORDER BY users.name";
    let members = sqlx::query(select).bind(folder).try_map(|row| {
        let (user, rights) = <(String, String)>::from_row(&row)?;
        Ok(FolderMember {
            user: database::parse_name(user)?,
            rights: database::parse_rights(&rights)?,
        })
    });
    members.fetch_all(connection).await
}

async fn id_of(connection: &mut SqliteConnection, name: &FolderName) -> Result<i64, AccountsError> {
    sqlx::query_scalar("SELECT id FROM folders WHERE name = ?")
        .bind(name.as_str())
        .fetch_optional(connection)
        .await
        .map_err(read_error)?
        .ok_or_else(|| AccountsError::NoSuchFolder(name.clone()))
}

#[cfg(test)]
mod tests;
