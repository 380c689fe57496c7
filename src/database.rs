//! An `SQLite` database in the data directory: made, opened and brought up to date, and the
//! transactions on it.
//!
//! A connection is used again only after a transaction on it was committed. A transaction that ends
//! in any other way (a statement failed, the commit failed, its future was dropped) closes its
//! connection: `SQLite` may have rolled back by itself, or not at all, and a transaction that is
//! still open would show everyone who comes later what was there before.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rustix::fs::statvfs;
use sqlx::migrate::{AppliedMigration, Migrate as _, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection as _, SqlSafeStr as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::ownership::hand_over;

/// How long a write waits for one of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a transaction waits for a connection that others use.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

/// What `SQLite` says of a full disk, and of one that fails.
const FULL: u32 = 13;
const IO_ERROR: u32 = 10;

/// Why a database could not be opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The directory or the file could not be made.
    Make {
        path: PathBuf,
        source: io::Error,
    },
    Open(sqlx::Error),
}

impl From<sqlx::Error> for OpenError {
    fn from(error: sqlx::Error) -> Self {
        Self::Open(error)
    }
}

/// Connections to one database, opened as they are needed. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionPool {
    options: SqliteConnectOptions,
    idle: Arc<IdleConnections>,
    permits: Arc<Semaphore>,
}

/// Connections without a transaction.
#[derive(Debug, Default)]
struct IdleConnections(std::sync::Mutex<Vec<SqliteConnection>>);

/// A transaction on a connection of its own. All that it reads is of one moment. Dropping it undoes
/// it and closes the connection.
#[derive(Debug)]
pub(crate) struct Transaction {
    connection: SqliteConnection,
    idle: Arc<IdleConnections>,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionPool {
    /// At most `max_connections` at once; each is a thread.
    pub(crate) fn new(options: SqliteConnectOptions, max_connections: usize) -> Self {
        Self {
            options,
            idle: Arc::default(),
            permits: Arc::new(Semaphore::new(max_connections)),
        }
    }

    /// Begins a transaction that only reads. Commit it as well, so that its connection stays.
    pub(crate) async fn read(&self) -> Result<Transaction, sqlx::Error> {
        self.begin("BEGIN").await
    }

    /// Begins a transaction that may change the database, once no other does.
    pub(crate) async fn write(&self) -> Result<Transaction, sqlx::Error> {
        self.begin("BEGIN IMMEDIATE").await
    }

    async fn begin(&self, statement: &'static str) -> Result<Transaction, sqlx::Error> {
        let permit = timeout(ACQUIRE_TIMEOUT, Arc::clone(&self.permits).acquire_owned());
        let permit = permit.await.map_err(|_| sqlx::Error::PoolTimedOut)?;
        let permit = permit.map_err(|_| sqlx::Error::PoolClosed)?;
        let mut connection = match self.idle.take() {
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
    fn take(&self) -> Option<SqliteConnection> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.pop()
    }

    fn put(&self, connection: SqliteConnection) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(connection);
    }
}

impl Transaction {
    /// Keeps what was changed, and the connection.
    pub(crate) async fn commit(mut self) -> Result<(), sqlx::Error> {
        sqlx::query("COMMIT").execute(&mut self.connection).await?;
        self.idle.put(self.connection);
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

/// The migrations of a database, embedded in the program: their version, description and SQL. A
/// database records the checksum of each SQL text, so a text that was released must never change.
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
    let opened = async {
        let mut connection = SqliteConnection::connect_with(&options).await?;
        migrate(&mut connection, migrations).await?;
        Ok(connection)
    };
    match opened.await {
        Ok(connection) => Ok((options, connection)),
        Err(error) => Err(explain(error, file, data).await),
    }
}

/// Makes sure that [`open`] will not refuse the database for its version. Changes nothing in it.
pub(crate) async fn check(data: &Path, name: &str, migrations: &Migrator) -> Result<(), OpenError> {
    let file = data.join(name);
    let (database, log) = (file.clone(), data.join(format!("{name}-wal")));
    let exist = spawn_blocking(move || (database.exists(), log.exists()));
    let (is_there, has_log) = exist.await.map_err(|error| sqlx::Error::Io(error.into()))?;
    if !is_there {
        return Ok(());
    }
    // The last connection to be closed brings what is in the log into the database and removes the
    // log, unless it only reads. Where there is no log, one that only reads would leave a new one.
    let options = existing(&file).read_only(has_log);
    let checked = async {
        let mut connection = SqliteConnection::connect_with(&options).await?;
        let applied = applied(&mut connection, &migrations.table_name).await;
        // Whatever came of it: a connection that is dropped leaves files behind.
        let closed = connection.close().await;
        refuse_later_version(&applied?, migrations)?;
        closed
    };
    match checked.await {
        Ok(()) => Ok(()),
        Err(error) => Err(explain(error, file, data).await),
    }
}

async fn explain(error: sqlx::Error, file: PathBuf, data: &Path) -> OpenError {
    if is_out_of_room(&error, data).await {
        let advice = "the disk has no room left; free some";
        return OpenError::Make {
            path: file,
            source: io::Error::new(ErrorKind::StorageFull, advice),
        };
    }
    error.into()
}

/// The migrations that were applied to a database, which may be new.
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

/// Whether the disk is full, which `SQLite` does not always tell from one that fails:
/// <https://sqlite.org/rescode.html>.
async fn is_out_of_room(error: &sqlx::Error, data: &Path) -> bool {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    let code: Option<u32> = code.and_then(|code| code.parse().ok());
    match code.map(|code| code & 0xff) {
        Some(FULL) => true,
        Some(IO_ERROR) => {
            let data = data.to_owned();
            let room = spawn_blocking(move || statvfs(&data).map(|disk| disk.f_bavail));
            matches!(room.await, Ok(Ok(0)))
        }
        _ => false,
    }
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
        if let Ok(data) = File::open(&data) {
            hand_over(empty.as_file(), data);
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
        .map_err(|error| OpenError::Open(sqlx::Error::Io(error.into())))?
}

/// Copies the database `name` in the directory `data` as it is at one moment, whoever works on it,
/// into the new file `to`, which only its owner can read. It is neither made nor brought up to date.
pub(crate) async fn copy(data: &Path, name: &str, to: &Path) -> Result<(), OpenError> {
    let file = to.to_owned();
    let made = spawn_blocking(move || {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).open(file)
    });
    let made = made.await.map_err(io::Error::other).flatten();
    made.map_err(|source| OpenError::Make {
        path: to.into(),
        source,
    })?;
    // Absolute, so that no name looks like a URI.
    let path = std::path::absolute(to).ok();
    let path = path.as_deref().and_then(Path::to_str).ok_or_else(|| {
        sqlx::Error::Configuration("its new place has a name that is not UTF-8".into())
    })?;
    let mut connection = connect(&data.join(name)).await?;
    // What SQLite offers for it: <https://sqlite.org/lang_vacuum.html#vacuuminto>. It takes an empty
    // file for none.
    sqlx::query("VACUUM INTO ?")
        .bind(path)
        .execute(&mut connection)
        .await?;
    connection.close().await?;
    Ok(())
}

/// A connection to a database that is there, whichever version of haul it is of.
pub(crate) async fn connect(file: &Path) -> Result<SqliteConnection, sqlx::Error> {
    SqliteConnection::connect_with(&existing(file)).await
}

fn existing(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .busy_timeout(BUSY_TIMEOUT)
}

/// Brings the tables up to date within one transaction, so that of two processes that open a new
/// database at once, the second finds the work done.
async fn migrate(
    connection: &mut SqliteConnection,
    migrations: &Migrator,
) -> Result<(), sqlx::Error> {
    let table = &*migrations.table_name;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    transaction.ensure_migrations_table(table).await?;
    let applied = transaction.list_applied_migrations(table).await?;
    refuse_later_version(&applied, migrations)?;
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

fn refuse_later_version(
    applied: &[AppliedMigration],
    migrations: &Migrator,
) -> Result<(), sqlx::Error> {
    let is_known = |applied: &AppliedMigration| migrations.version_exists(applied.version);
    if applied.iter().all(is_known) {
        return Ok(());
    }
    let message = "it was written by a later version of haul; start that one";
    Err(sqlx::Error::Configuration(message.into()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The SHA-384 checksums that databases record for these migrations, as hexadecimal text.
    pub(crate) fn checksums(migrations: &Migrator) -> Vec<String> {
        let migrations = migrations.iter();
        migrations
            .map(|migration| data_encoding::HEXLOWER.encode(&migration.checksum))
            .collect()
    }

    static NO_MIGRATIONS: Migrator = Migrator::DEFAULT;

    async fn pool(data: &Path, max_connections: usize) -> ConnectionPool {
        let (options, mut connection) = open(data, "test.db", &NO_MIGRATIONS).await.expect("opens");
        sqlx::raw_sql(
            "CREATE TABLE numbers (number INTEGER NOT NULL); INSERT INTO numbers VALUES (1)",
        )
        .execute(&mut connection)
        .await
        .expect("made");
        ConnectionPool::new(options, max_connections)
    }

    async fn number(pool: &ConnectionPool) -> i64 {
        let mut transaction = pool.read().await.expect("begins");
        let number = sqlx::query_scalar("SELECT number FROM numbers")
            .fetch_one(&mut *transaction)
            .await
            .expect("readable");
        transaction.commit().await.expect("ends");
        number
    }

    async fn set_number(pool: &ConnectionPool, number: i64) {
        let mut transaction = pool.write().await.expect("begins");
        sqlx::query("UPDATE numbers SET number = ?")
            .bind(number)
            .execute(&mut *transaction)
            .await
            .expect("updated");
        transaction.commit().await.expect("committed");
    }

    #[tokio::test]
    async fn a_connection_that_rolled_back_by_itself_shows_nobody_an_old_state() {
        let directory = tempfile::tempdir().expect("a directory");
        let pool = pool(directory.path(), 1).await;
        set_number(&pool, 2).await;
        let mut full = pool.write().await.expect("begins");
        // The disk is full: SQLite rolls the whole transaction back.
        let error = sqlx::raw_sql(
            "PRAGMA max_page_count = 1; \
             CREATE TABLE large (bytes BLOB); INSERT INTO large VALUES (zeroblob(1000000))",
        )
        .execute(&mut *full)
        .await
        .expect_err("full");
        let error = error.as_database_error().expect("of SQLite");
        assert_eq!(error.code().as_deref(), Some("13"), "{error}");
        drop(full);
        assert_eq!(number(&pool).await, 2);
        let other = ConnectionPool::new(pool.options.clone(), 1);
        set_number(&other, 3).await;
        assert_eq!(number(&pool).await, 3);
        set_number(&pool, 4).await;
        assert_eq!(number(&other).await, 4);
    }

    #[tokio::test]
    async fn only_a_committed_transaction_leaves_its_connection() {
        let directory = tempfile::tempdir().expect("a directory");
        let pool = pool(directory.path(), 1).await;
        let idle = || pool.idle.0.lock().expect("no panic").len();
        number(&pool).await;
        assert_eq!(idle(), 1);
        drop(pool.read().await.expect("begins"));
        assert_eq!(idle(), 0);
        let mut rolled_back = pool.write().await.expect("begins");
        sqlx::query("ROLLBACK")
            .execute(&mut *rolled_back)
            .await
            .expect("rolls back");
        rolled_back.commit().await.expect_err("nothing to commit");
        assert_eq!(idle(), 0);
        set_number(&pool, 5).await;
        assert_eq!(idle(), 1);
    }

    #[tokio::test]
    async fn a_read_is_of_one_moment() {
        let directory = tempfile::tempdir().expect("a directory");
        let pool = pool(directory.path(), 2).await;
        let mut before = pool.read().await.expect("begins");
        let query = "SELECT number FROM numbers";
        let first: i64 = sqlx::query_scalar(query)
            .fetch_one(&mut *before)
            .await
            .expect("readable");
        set_number(&pool, 6).await;
        let second: i64 = sqlx::query_scalar(query)
            .fetch_one(&mut *before)
            .await
            .expect("readable");
        assert_eq!((first, second), (1, 1));
        before.commit().await.expect("ends");
        assert_eq!(number(&pool).await, 6);
    }

    /// Older releases can lose what was committed while another connection checkpoints:
    /// <https://sqlite.org/wal.html#the_wal_reset_bug>.
    #[tokio::test]
    async fn the_linked_sqlite_has_the_fix_for_the_wal_reset_bug() {
        let mut connection = SqliteConnection::connect("sqlite::memory:")
            .await
            .expect("opens");
        let version: String = sqlx::query_scalar("SELECT sqlite_version()")
            .fetch_one(&mut connection)
            .await
            .expect("answers");
        let numbers: Vec<u32> = version.split('.').flat_map(str::parse).collect();
        assert!(numbers >= vec![3, 51, 3], "{version}");
    }
}
