//! `SQLite` databases in the data directory: creation, migration, connection pools and transactions.
//!
//! A connection returns to its pool only after a commit. A transaction that ends in any other way (a
//! statement or the commit fails, or its future is dropped) closes its connection: `SQLite` may or
//! may not have rolled back, and later readers of a transaction that is still open would see old
//! data.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::statvfs;
use sqlx::migrate::{AppliedMigration, Migrate as _, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection as _, SqlSafeStr as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::ownership::give_to_owner_of;

/// How long a write waits for the write of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a transaction waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

/// The result codes of `SQLite` for a full disk and for an I/O error:
/// <https://sqlite.org/rescode.html>.
const SQLITE_FULL: u32 = 13;
const SQLITE_IOERR: u32 = 10;

/// An error of opening a database.
#[derive(Debug)]
pub(crate) enum DatabaseOpenError {
    /// The directory or the file could not be created.
    Create { path: PathBuf, source: io::Error },
    /// `SQLite` could not open or migrate the database.
    Open(sqlx::Error),
}

impl From<sqlx::Error> for DatabaseOpenError {
    fn from(error: sqlx::Error) -> Self {
        Self::Open(error)
    }
}

/// Connections to one database, which are opened on demand. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionPool {
    options: SqliteConnectOptions,
    idle: Arc<IdleConnections>,
    permits: Arc<Semaphore>,
}

/// The open connections without a transaction.
#[derive(Debug, Default)]
struct IdleConnections(Mutex<Vec<SqliteConnection>>);

/// A transaction on its own connection. It reads one state of the database. Dropping it rolls it back
/// and closes the connection.
#[derive(Debug)]
pub(crate) struct Transaction {
    connection: SqliteConnection,
    idle: Arc<IdleConnections>,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionPool {
    /// A pool of at most `max_connections`; each is a thread.
    pub(crate) fn new(options: SqliteConnectOptions, max_connections: usize) -> Self {
        Self {
            options,
            idle: Arc::default(),
            permits: Arc::new(Semaphore::new(max_connections)),
        }
    }

    /// Starts a transaction that only reads. Commit it too, so that its connection is reused.
    pub(crate) async fn read(&self) -> Result<Transaction, sqlx::Error> {
        self.begin("BEGIN").await
    }

    /// Starts a transaction that may write, once no other one writes.
    pub(crate) async fn write(&self) -> Result<Transaction, sqlx::Error> {
        self.begin("BEGIN IMMEDIATE").await
    }

    async fn begin(&self, statement: &'static str) -> Result<Transaction, sqlx::Error> {
        let permit = timeout(ACQUIRE_TIMEOUT, Arc::clone(&self.permits).acquire_owned());
        let permit = permit.await.map_err(|_| sqlx::Error::PoolTimedOut)?;
        let permit = permit.map_err(|_| sqlx::Error::PoolClosed)?;
        let mut connection = match self.idle.pop() {
            Some(connection) => connection,
            None => SqliteConnection::connect_with(&self.options).await?,
        };
        sqlx::query(statement).execute(&mut connection).await?;
        Ok(Transaction {
            connection,
            idle: Arc::clone(&self.idle),
            _permit: permit,
        })
    }
}

impl IdleConnections {
    fn pop(&self) -> Option<SqliteConnection> {
        self.0.lock().pop()
    }

    fn push(&self, connection: SqliteConnection) {
        self.0.lock().push(connection);
    }
}

impl Transaction {
    /// Commits the changes, and returns the connection to the pool.
    pub(crate) async fn commit(mut self) -> Result<(), sqlx::Error> {
        sqlx::query("COMMIT").execute(&mut self.connection).await?;
        self.idle.push(self.connection);
        Ok(())
    }
}

impl Deref for Transaction {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}

/// The migrations of a database, embedded in the program: version, description and SQL. A database
/// records the checksum of each SQL text, so a released text must never change.
pub(crate) fn migrator(migrations: &[(i64, &'static str, &'static str)]) -> Migrator {
    let migrations = migrations.iter().map(|&(version, description, sql)| {
        let sql = sqlx::AssertSqlSafe(sql).into_sql_str();
        Migration::new(
            version,
            description.into(),
            MigrationType::Simple,
            sql,
            false,
        )
    });
    Migrator::with_migrations(migrations.collect())
}

/// Opens the database `name` in the directory `data`. Creates both if they do not exist, and applies
/// the migrations. What is committed on such a connection survives a power cut.
pub(crate) async fn open(
    data: &Path,
    name: &'static str,
    migrations: &Migrator,
) -> Result<(SqliteConnectOptions, SqliteConnection), DatabaseOpenError> {
    let file = create_file(data.to_owned(), name).await?;
    let options = SqliteConnectOptions::new()
        .filename(&file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT);
    let opened = async {
        let mut connection = SqliteConnection::connect_with(&options).await?;
        if let Err(error) = migrate(&mut connection, migrations).await {
            // A dropped connection closes later, and may leave its write-ahead log behind.
            let _ = connection.close().await;
            return Err(error);
        }
        Ok(connection)
    };
    match opened.await {
        Ok(connection) => Ok((options, connection)),
        Err(error) => Err(explain(error, file, data).await),
    }
}

/// Checks that [`open`] will accept the version of the database. Changes nothing in it.
pub(crate) async fn check(
    data: &Path,
    name: &str,
    migrations: &Migrator,
) -> Result<(), DatabaseOpenError> {
    let file = data.join(name);
    let (database, log) = (file.clone(), data.join(format!("{name}-wal")));
    let exist = spawn_blocking(move || (database.exists(), log.exists()));
    let (is_there, has_log) = exist.await.map_err(|error| sqlx::Error::Io(error.into()))?;
    if !is_there {
        return Ok(());
    }
    // The last connection that closes moves the write-ahead log into the database and removes it,
    // unless the connection is read-only. Without a log, a read-only connection would leave a new one.
    let options = existing(&file).read_only(has_log);
    let checked = async {
        let mut connection = SqliteConnection::connect_with(&options).await?;
        let applied = applied(&mut connection, &migrations.table_name).await;
        // Close it also after an error: a connection that is dropped leaves files behind.
        let closed = connection.close().await;
        reject_later_version(&applied?, migrations)?;
        closed
    };
    match checked.await {
        Ok(()) => Ok(()),
        Err(error) => Err(explain(error, file, data).await),
    }
}

/// Turns an error into one that says so if the disk is full.
async fn explain(error: sqlx::Error, file: PathBuf, data: &Path) -> DatabaseOpenError {
    if is_out_of_room(&error, data).await {
        let advice = "the disk is full; free some space";
        return DatabaseOpenError::Create {
            path: file,
            source: io::Error::new(ErrorKind::StorageFull, advice),
        };
    }
    error.into()
}

/// The migrations that were applied to a database; none if it is new.
async fn applied(
    connection: &mut SqliteConnection,
    table: &str,
) -> Result<Vec<AppliedMigration>, sqlx::Error> {
    let query = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?)";
    let is_there: bool = sqlx::query_scalar(query)
        .bind(table)
        .fetch_one(&mut *connection)
        .await?;
    if !is_there {
        return Ok(Vec::new());
    }
    Ok(connection.list_applied_migrations(table).await?)
}

/// Whether the cause is a full disk. `SQLite` sometimes reports it as an I/O error.
async fn is_out_of_room(error: &sqlx::Error, data: &Path) -> bool {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    let code: Option<u32> = code.and_then(|code| code.parse().ok());
    match code.map(|code| code & 0xff) {
        Some(SQLITE_FULL) => true,
        Some(SQLITE_IOERR) => {
            let data = data.to_owned();
            let room = spawn_blocking(move || statvfs(&data).map(|disk| disk.f_bavail));
            matches!(room.await, Ok(Ok(0)))
        }
        _ => false,
    }
}

/// Creates the directory and an empty database in it, unless they exist. Only the owner can read them.
///
/// The file gets its name after it is closed, because closing a file drops the locks that `SQLite`
/// holds on it elsewhere in this process.
async fn create_file(data: PathBuf, name: &'static str) -> Result<PathBuf, DatabaseOpenError> {
    let make = move || {
        let failed = |path: &Path, source| DatabaseOpenError::Create {
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
        if let Ok(data) = File::open(&data) {
            give_to_owner_of(empty.as_file(), data);
        }
        match empty.into_temp_path().persist_noclobber(&file) {
            Err(error) if error.error.kind() != ErrorKind::AlreadyExists => {
                Err(failed(&file, error.error))
            }
            _ => Ok(file),
        }
    };
    spawn_blocking(make)
        .await
        .map_err(|error| DatabaseOpenError::Open(sqlx::Error::Io(error.into())))?
}

/// Copies the database `name` in the directory `data`, as it is at one moment, to the new file `to`,
/// which only its owner can read. The database may be in use. It is not migrated.
pub(crate) async fn copy(data: &Path, name: &str, to: &Path) -> Result<(), DatabaseOpenError> {
    let file = to.to_owned();
    let made = spawn_blocking(move || {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).open(file)
    });
    let made = made.await.map_err(io::Error::other).flatten();
    made.map_err(|source| DatabaseOpenError::Create {
        path: to.into(),
        source,
    })?;
    // `SQLite` could take a relative path for a URI.
    let path = std::path::absolute(to).ok();
    let path = path
        .as_deref()
        .and_then(Path::to_str)
        .ok_or_else(|| sqlx::Error::Configuration("the path of the copy is not UTF-8".into()))?;
    let mut connection = connect(&data.join(name)).await?;
    // `VACUUM INTO` accepts an empty file: <https://sqlite.org/lang_vacuum.html#vacuuminto>.
    sqlx::query("VACUUM INTO ?")
        .bind(path)
        .execute(&mut connection)
        .await?;
    connection.close().await?;
    Ok(())
}

/// Connects to an existing database of any version of haul.
pub(crate) async fn connect(file: &Path) -> Result<SqliteConnection, sqlx::Error> {
    SqliteConnection::connect_with(&existing(file)).await
}

fn existing(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .busy_timeout(BUSY_TIMEOUT)
}

/// Applies the missing migrations in one transaction, so that two processes can open a new database
/// at the same time.
async fn migrate(
    connection: &mut SqliteConnection,
    migrations: &Migrator,
) -> Result<(), sqlx::Error> {
    let table = &*migrations.table_name;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    transaction.ensure_migrations_table(table).await?;
    let applied = transaction.list_applied_migrations(table).await?;
    reject_later_version(&applied, migrations)?;
    for migration in migrations.iter() {
        if !applied
            .iter()
            .any(|applied| applied.version == migration.version)
        {
            transaction.apply(table, migration).await?;
        }
    }
    transaction.commit().await
}

fn reject_later_version(
    applied: &[AppliedMigration],
    migrations: &Migrator,
) -> Result<(), sqlx::Error> {
    let is_known = |applied: &AppliedMigration| migrations.version_exists(applied.version);
    if applied.iter().all(is_known) {
        return Ok(());
    }
    let message = "it was written by a later version of haul; use that version";
    Err(sqlx::Error::Configuration(message.into()))
}

#[cfg(test)]
pub(crate) mod tests;
