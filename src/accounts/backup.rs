//! Copies of the accounts for a backup, and whose homes and folders go with them.

use std::collections::BTreeMap;
use std::path::Path;

use sqlx::sqlite::SqliteConnection;

use crate::accounts::AccountsError;
use crate::accounts::database::reading;
use crate::database;

/// The name of the accounts in a backup that is not whole yet. [`Accounts::open`](crate::accounts::Accounts)
/// opens none beside it: a new user would get the files of an old one.
pub const UNFINISHED: &str = "haul.db.unfinished";

/// Whose homes and which folders there are at one moment: numbers that are never given twice, by
/// name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owners {
    /// Users.
    pub users: BTreeMap<String, i64>,
    /// Shared folders.
    pub folders: BTreeMap<String, i64>,
}

impl Owners {
    /// Those in the database `file`, which may be of another version of haul.
    ///
    /// # Errors
    /// [`AccountsError::Database`] if it can not be read.
    pub async fn of(file: &Path) -> Result<Self, AccountsError> {
        let mut connection = database::connect(file).await.map_err(reading)?;
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
    Ok(rows.map_err(reading)?.into_iter().collect())
}

/// Copies the accounts of the data directory `data`, as they are at one moment, into the new file
/// `to`.
///
/// # Errors
/// [`AccountsError::Io`] and [`AccountsError::Database`] if they can not be read or written.
pub async fn copy(data: &Path, to: &Path) -> Result<(), AccountsError> {
    Ok(database::copy(data, "haul.db", to).await?)
}
