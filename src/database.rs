//! An `SQLite` database in the data directory: made, opened and brought up to date.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::migrate::{Migrate as _, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use tokio::task::spawn_blocking;

/// How long a write waits for one of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a database could not be opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The directory or the file could not be made.
    Make {
        path: PathBuf,
        source: std::io::Error,
    },
    Open(sqlx::Error),
}

impl From<sqlx::Error> for OpenError {
    fn from(error: sqlx::Error) -> Self {
        Self::Open(error)
    }
}

/// Opens the database `name` in the directory `data`, both made where they are missing, with its
/// tables brought up to date. What is committed on such a connection survives a power cut.
pub(crate) async fn open(
    data: &Path,
    name: &'static str,
    migrations: &Migrator,
) -> Result<(SqliteConnectOptions, SqliteConnection), OpenError> {
    let file = make_file(data.to_owned(), name).await?;
    let options = SqliteConnectOptions::new()
        .filename(&file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT);
    let mut connection = SqliteConnection::connect_with(&options).await?;
    migrate(&mut connection, migrations).await?;
    Ok((options, connection))
}

/// Makes the directory and an empty database in it, which only the owner can read, where they are
/// missing.
///
/// The file gets its name after it was closed: closing a file would drop the locks that `SQLite`
/// holds on it elsewhere in this process.
async fn make_file(data: PathBuf, name: &'static str) -> Result<PathBuf, OpenError> {
    let make = move || {
        let failed = |path: &Path, source| OpenError::Make {
            path: path.into(),
            source,
        };
        let mut directory = DirBuilder::new();
        let made = directory.recursive(true).mode(0o700).create(&data);
        made.map_err(|error| failed(&data, error))?;
        let file = data.join(name);
        if file.exists() {
            return Ok(file);
        }
        let empty = tempfile::NamedTempFile::new_in(&data).map_err(|error| failed(&file, error))?;
        match empty.into_temp_path().persist_noclobber(&file) {
            Err(error) if error.error.kind() != ErrorKind::AlreadyExists => {
                Err(failed(&file, error.error))
            }
            _ => Ok(file),
        }
    };
    spawn_blocking(make)
        .await
        .map_err(|error| OpenError::Open(sqlx::Error::Io(error.into())))?
}

/// Brings the tables up to date within one transaction, so that of two processes that open a new
/// database at once, the second finds the work done.
async fn migrate(
    connection: &mut SqliteConnection,
    migrations: &Migrator,
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    transaction.ensure_migrations_table().await?;
    let applied = transaction.list_applied_migrations().await?;
    if applied
        .iter()
        .any(|applied| !migrations.version_exists(applied.version))
    {
        let message = "it was written by a later version of haul; start that one";
        return Err(sqlx::Error::Configuration(message.into()));
    }
    for migration in migrations.iter() {
        if !applied
            .iter()
            .any(|applied| applied.version == migration.version)
        {
            transaction.apply(migration).await?;
        }
    }
    transaction.commit().await
}
