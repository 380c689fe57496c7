//! Copies of the accounts for a backup.

use std::collections::BTreeMap;
use std::path::Path;

use sqlx::sqlite::SqliteConnection;

use crate::accounts::database::read_error;
use crate::accounts::error::AccountsError;
use crate::database;

/// The numbers of all users and shared folders by name. A backup uses them to detect that a name
/// has got a new owner. Numbers are never reused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owners {
    /// Users.
    pub users: BTreeMap<String, i64>,
    /// Shared folders.
    pub folders: BTreeMap<String, i64>,
}

impl Owners {
    /// Reads them from the database `file`, which may be of another version of haul.
    ///
    /// # Errors
    /// [`AccountsError::Database`] if it cannot be read.
    pub async fn read(file: &Path) -> Result<Self, AccountsError> {
        let mut connection = database::connect(file).await.map_err(read_error)?;
        Ok(Self {
            users: names(&mut connection, "SELECT name, id FROM users").await?,
            folders: names(&mut connection, "SELECT name, id FROM folders").await?,
        })
    }
}

async fn names(
    connection: &mut SqliteConnection,
    query: &'static str,
) -> Result<BTreeMap<String, i64>, AccountsError> {
    let rows = sqlx::query_as(query).fetch_all(connection).await;
    Ok(rows.map_err(read_error)?.into_iter().collect())
}

/// Copies the accounts of the data directory `data`, as they are at one moment, to the new file
/// `to`.
///
/// # Errors
/// [`AccountsError::Io`] and [`AccountsError::Database`] if they cannot be read or written.
pub async fn copy(data: &Path, to: &Path) -> Result<(), AccountsError> {
    Ok(database::copy(data, "haul.db", to).await?)
}
