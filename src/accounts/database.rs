//! The accounts database: opening, transactions, conversions of columns, and notice of changes.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use jiff::Timestamp;
use sqlx::Connection as _;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::accounts::error::AccountsError;
use crate::accounts::name::InvalidName;
use crate::database;
use crate::database::{ConnectionPool, DatabaseOpenError, Transaction};
use crate::storage::{Rights, SpaceLimits};

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    database::migrator(&[(1, "accounts", include_str!("migrations/0001_accounts.sql"))])
});

/// The most connections at once; each is a thread.
const MAX_CONNECTIONS: usize = 4;

/// The most connections for reads that must not wait for the others, which may all wait for the write
/// lock.
const MAX_RESERVED_CONNECTIONS: usize = 2;

/// How often the database is polled for changes by other processes.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The timeout of a poll.
const POLL_TIMEOUT: Duration = Duration::from_millis(500);

/// An open database. Clones share its connections and the task that polls it.
#[derive(Debug, Clone)]
pub(crate) struct AccountsDatabase {
    pool: ConnectionPool,
    /// For the reads that refresh the rights of sessions.
    reserved: ConnectionPool,
    data: Arc<Path>,
    /// The number of the administrator for whom changes are made, if not for the operator.
    admin: Option<i64>,
    changes: watch::Receiver<u64>,
    _watching: Arc<AbortOnDropHandle<()>>,
}

impl AccountsDatabase {
    pub(crate) async fn open(data: &Path) -> Result<Self, AccountsError> {
        let (options, mut connection) = database::open(data, "haul.db", &MIGRATIONS).await?;
        let version = data_version(&mut connection).await.map_err(open_error)?;
        let (sender, changes) = watch::channel(0);
        let watching = tokio::spawn(watch_changes(options.clone(), connection, version, sender));
        Ok(Self {
            pool: ConnectionPool::new(options.clone(), MAX_CONNECTIONS),
            reserved: ConnectionPool::new(options, MAX_RESERVED_CONNECTIONS),
            data: data.into(),
            admin: None,
            changes,
            _watching: Arc::new(AbortOnDropHandle::new(watching)),
        })
    }

    pub(crate) async fn check(data: &Path) -> Result<(), AccountsError> {
        Ok(database::check(data, "haul.db", &MIGRATIONS).await?)
    }

    /// The data directory.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        let mut changes = self.changes.clone();
        changes.mark_unchanged();
        changes
    }

    /// Starts a transaction that reads one state of the database. Commit it after the last read.
    pub(crate) async fn read(&self) -> Result<Transaction, AccountsError> {
        self.pool.read().await.map_err(read_error)
    }

    /// As [`Self::read`], on connections that no change uses.
    pub(crate) async fn read_reserved(&self) -> Result<Transaction, AccountsError> {
        self.reserved.read().await.map_err(read_error)
    }

    /// A handle whose changes need the admin right of the account `admin`.
    pub(crate) fn for_admin(self, admin: i64) -> Self {
        Self {
            admin: Some(admin),
            ..self
        }
    }

    /// Starts a transaction that writes, once no other process does. Dropping it rolls it back.
    ///
    /// # Errors
    /// [`AccountsError::NotAdmin`] if it is for an administrator who has lost the right.
    pub(crate) async fn write(&self) -> Result<Transaction, AccountsError> {
        let mut transaction = self.pool.write().await.map_err(write_error)?;
        if let Some(admin) = self.admin {
            let select = "SELECT 1 FROM users WHERE id = ? AND admin AND NOT disabled";
            let found: Option<i64> = sqlx::query_scalar(select)
                .bind(admin)
                .fetch_optional(&mut *transaction)
                .await
                .map_err(read_error)?;
            found.ok_or(AccountsError::NotAdmin)?;
        }
        Ok(transaction)
    }
}

impl From<DatabaseOpenError> for AccountsError {
    fn from(error: DatabaseOpenError) -> Self {
        match error {
            DatabaseOpenError::Create { path, source } => Self::Io {
                doing: "create",
                path,
                source,
            },
            DatabaseOpenError::Open(source) => open_error(source),
        }
    }
}

fn open_error(source: sqlx::Error) -> AccountsError {
    AccountsError::Database {
        doing: "open",
        source,
    }
}

pub(crate) fn read_error(source: sqlx::Error) -> AccountsError {
    AccountsError::Database {
        doing: "read",
        source,
    }
}

pub(crate) fn write_error(source: sqlx::Error) -> AccountsError {
    AccountsError::Database {
        doing: "change",
        source,
    }
}

/// A number as a column. `SQLite` has no larger ones, and no disk holds as much.
pub(crate) fn to_column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A JSON list for `json_each`.
pub(crate) fn json_list(numbers: &[i64]) -> Result<String, sqlx::Error> {
    serde_json::to_string(numbers).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// The name of a user or folder in a column.
pub(crate) fn parse_name<N: TryFrom<String, Error = InvalidName>>(
    text: String,
) -> Result<N, sqlx::Error> {
    text.try_into().map_err(damaged)
}

/// The limits in two columns.
pub(crate) fn to_limits(
    bytes: Option<i64>,
    files: Option<i64>,
) -> Result<SpaceLimits, sqlx::Error> {
    let limit = |number: Option<i64>| number.map(u64::try_from).transpose().map_err(damaged);
    Ok(SpaceLimits {
        bytes: limit(bytes)?,
        files: limit(files)?,
    })
}

/// The rights in a column.
pub(crate) fn parse_rights(text: &str) -> Result<Rights, sqlx::Error> {
    text.parse().map_err(damaged)
}

/// The time in a column.
pub(crate) fn timestamp(seconds: i64) -> Result<Timestamp, sqlx::Error> {
    Timestamp::from_second(seconds).map_err(damaged)
}

/// A column has a value that haul did not write.
fn damaged(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

/// A number that `SQLite` changes for this connection when another one has changed the database:
/// <https://sqlite.org/pragma.html#pragma_data_version>.
async fn data_version(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("PRAGMA data_version")
        .fetch_one(connection)
        .await
}

/// Counts the changes of the database. While a poll fails, each attempt counts as a change, and each
/// uses a new connection: the old one may fail forever, and changes between two connections cannot be
/// detected.
async fn watch_changes(
    options: SqliteConnectOptions,
    connection: SqliteConnection,
    version: i64,
    sender: watch::Sender<u64>,
) {
    let mut known = Some((connection, version));
    let mut ticks = interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let was_known = known.is_some();
        match timeout(POLL_TIMEOUT, check_version(&options, known.take())).await {
            Ok(Ok((connection, version, changed))) => {
                if !was_known {
                    tracing::info!(name: "accounts_readable", "can read the accounts again");
                }
                known = Some((connection, version));
                if !changed {
                    continue;
                }
            }
            Ok(Err(error)) if was_known => warn_unreadable(&error),
            Err(_) if was_known => warn_unreadable(&"the database does not answer"),
            Ok(Err(_)) | Err(_) => {}
        }
        sender.send_modify(|count| *count += 1);
    }
}

/// Whether the database has changed since `known`, with the connection and version for the next poll.
async fn check_version(
    options: &SqliteConnectOptions,
    known: Option<(SqliteConnection, i64)>,
) -> Result<(SqliteConnection, i64, bool), sqlx::Error> {
    if let Some((mut connection, before)) = known {
        let now = data_version(&mut connection).await?;
        return Ok((connection, now, now != before));
    }
    let mut connection = SqliteConnection::connect_with(options).await?;
    let now = data_version(&mut connection).await?;
    Ok((connection, now, true))
}

fn warn_unreadable(error: &dyn std::fmt::Display) {
    tracing::warn!(
        name: "accounts_unreadable",
        %error,
        "cannot see whether the accounts changed"
    );
}

#[cfg(test)]
mod tests;
