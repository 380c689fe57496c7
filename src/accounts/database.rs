//! The database: opened and brought up to date, its transactions, and word of what changed in it.

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

use crate::accounts::{AccountsError, InvalidName};
use crate::database;
use crate::database::{ConnectionPool, OpenError, Transaction};
use crate::storage::{Rights, SpaceLimits};

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    database::migrator(&[(1, "accounts", include_str!("migrations/0001_accounts.sql"))])
});

/// Connections at once; each is a thread.
const CONNECTIONS: usize = 4;

/// Connections for what must not wait for those: they may all wait for the right to change the database.
const CONNECTIONS_APART: usize = 2;

/// How often the database is asked whether another process changed it.
const POLL: Duration = Duration::from_millis(500);

/// How long it may take to answer that.
const PATIENCE: Duration = Duration::from_millis(500);

/// An open database. Clones share its connections and the one task that watches it.
#[derive(Debug, Clone)]
pub(super) struct Database {
    pool: ConnectionPool,
    /// For reads that keep up to date what users may do.
    apart: ConnectionPool,
    data: Arc<Path>,
    changes: watch::Receiver<u64>,
    _watching: Arc<AbortOnDropHandle<()>>,
}

impl Database {
    pub(super) async fn open(data: &Path) -> Result<Self, AccountsError> {
        let (options, mut connection) = database::open(data, "haul.db", &MIGRATIONS).await?;
        let version = data_version(&mut connection).await.map_err(opening)?;
        let (sender, changes) = watch::channel(0);
        let watching = tokio::spawn(watch_changes(options.clone(), connection, version, sender));
        Ok(Self {
            pool: ConnectionPool::new(options.clone(), CONNECTIONS),
            apart: ConnectionPool::new(options, CONNECTIONS_APART),
            data: data.into(),
            changes,
            _watching: Arc::new(AbortOnDropHandle::new(watching)),
        })
    }

    pub(super) async fn check(data: &Path) -> Result<(), AccountsError> {
        Ok(database::check(data, "haul.db", &MIGRATIONS).await?)
    }

    /// The data directory.
    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        let mut changes = self.changes.clone();
        changes.mark_unchanged();
        changes
    }

    /// A view of the database at one moment. Commit it once all is read.
    pub(super) async fn read(&self) -> Result<Transaction, AccountsError> {
        self.pool.read().await.map_err(reading)
    }

    /// As [`Self::read`], on connections that no change takes.
    pub(super) async fn read_apart(&self) -> Result<Transaction, AccountsError> {
        self.apart.read().await.map_err(reading)
    }

    /// The right to change it, once no other process has it. What is not committed is undone.
    pub(super) async fn write(&self) -> Result<Transaction, AccountsError> {
        self.pool.write().await.map_err(changing)
    }
}

impl From<OpenError> for AccountsError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Make { path, source } => Self::Io {
                doing: "make",
                path,
                source,
            },
            OpenError::Open(source) => opening(source),
        }
    }
}

fn opening(source: sqlx::Error) -> AccountsError {
    AccountsError::Database {
        doing: "open",
        source,
    }
}

pub(super) fn reading(source: sqlx::Error) -> AccountsError {
    AccountsError::Database {
        doing: "read",
        source,
    }
}

pub(super) fn changing(source: sqlx::Error) -> AccountsError {
    AccountsError::Database {
        doing: "change",
        source,
    }
}

/// A number as `SQLite` keeps it. It has no larger ones; no disk holds as much.
pub(super) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Numbers, for `json_each`.
pub(super) fn json(numbers: &[i64]) -> Result<String, sqlx::Error> {
    serde_json::to_string(numbers).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// A name that was kept, of a user or of a folder.
pub(super) fn name<N: TryFrom<String, Error = InvalidName>>(
    text: String,
) -> Result<N, sqlx::Error> {
    text.try_into().map_err(damaged)
}

/// Limits that were kept.
pub(super) fn limits(bytes: Option<i64>, files: Option<i64>) -> Result<SpaceLimits, sqlx::Error> {
    let limit = |number: Option<i64>| number.map(u64::try_from).transpose().map_err(damaged);
    Ok(SpaceLimits {
        bytes: limit(bytes)?,
        files: limit(files)?,
    })
}

/// Rights that were kept.
pub(super) fn rights(text: &str) -> Result<Rights, sqlx::Error> {
    text.parse().map_err(damaged)
}

/// A time that was kept.
pub(super) fn time(seconds: i64) -> Result<Timestamp, sqlx::Error> {
    Timestamp::from_second(seconds).map_err(damaged)
}

/// Someone else wrote this to the database.
fn damaged(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

/// A number that `SQLite` changes, for this connection, when another one has changed the database:
/// <https://sqlite.org/pragma.html#pragma_data_version>.
async fn data_version(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("PRAGMA data_version")
        .fetch_one(connection)
        .await
}

/// Counts the changes. While the database does not say whether it changed, each look counts as one,
/// and each begins with a new connection: one that has failed may go on failing, and where it was
/// between two connections nobody knows.
async fn watch_changes(
    options: SqliteConnectOptions,
    connection: SqliteConnection,
    version: i64,
    sender: watch::Sender<u64>,
) {
    let mut known = Some((connection, version));
    let mut ticks = interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let was_known = known.is_some();
        match timeout(PATIENCE, look(&options, known.take())).await {
            Ok(Ok((connection, version, changed))) => {
                if !was_known {
                    tracing::info!(name: "accounts_readable", "can read the accounts again");
                }
                known = Some((connection, version));
                if !changed {
                    continue;
                }
            }
            Ok(Err(error)) if was_known => unreadable(&error),
            Err(_) if was_known => unreadable(&"the database does not answer"),
            Ok(Err(_)) | Err(_) => {}
        }
        sender.send_modify(|count| *count += 1);
    }
}

/// Whether the database has changed since it was known, with what to ask it by the next time.
async fn look(
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

fn unreadable(error: &dyn std::fmt::Display) {
    tracing::warn!(
        name: "accounts_unreadable",
        %error,
        "cannot see whether the accounts changed"
    );
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::accounts::tests::{accounts, add, folder, reopen, user};
    use crate::accounts::{Accounts, Credential, UserChange};

    #[test]
    fn released_migrations_keep_the_checksums_that_databases_have_recorded() {
        assert_eq!(
            database::tests::checksums(&MIGRATIONS),
            [
                "bfe6b158f32835975c3615989dee8ecfea3fe28eae5ece674e0c4d4b0c33ef91d2f6837ab05504b9f805d8cd39897129"
            ]
        );
    }

    #[tokio::test]
    async fn what_is_missing_is_made_and_only_its_owner_can_read_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let data = directory.path().join("new/data");
        let accounts = Accounts::open(&data).await.expect("opens");
        assert!(accounts.users().await.expect("readable").is_empty());
        let mode = |path: &Path| {
            let metadata = std::fs::metadata(path).expect("it is there");
            metadata.permissions().mode() & 0o777
        };
        assert_eq!(mode(&data), 0o700);
        for entry in data.read_dir().expect("readable") {
            let path = entry.expect("an entry").path();
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    }

    #[tokio::test]
    async fn a_directory_that_can_not_be_made_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        std::fs::write(&file, "").expect("written");
        let error = Accounts::open(&file.join("data"))
            .await
            .expect_err("no directory");
        let message = error.to_string();
        assert!(
            message.starts_with("can not make ") && message.contains("file/data: "),
            "{message}"
        );
    }

    #[tokio::test]
    async fn a_change_by_another_process_is_noticed() {
        let (directory, accounts) = accounts().await;
        let mut changes = accounts.changes();
        let other = reopen(&directory).await;
        add(&other, "alice").await;
        changes.changed().await.expect("the accounts are open");
        let account = accounts.account(&user("alice")).await.expect("readable");
        assert!(account.is_some());
    }

    #[tokio::test]
    async fn what_users_may_do_is_read_while_every_connection_for_all_else_is_taken() {
        let (_directory, accounts) = accounts().await;
        add(&accounts, "alice").await;
        let alice = accounts.account(&user("alice")).await.expect("readable");
        let mut taken = Vec::new();
        for _ in 0..CONNECTIONS {
            taken.push(accounts.database.read().await.expect("readable"));
        }
        let credential = Credential {
            account: alice.expect("added").id,
            token: None,
        };
        let current = accounts.current(&[credential]).await.expect("readable");
        assert!(current[0].is_some());
    }

    #[tokio::test]
    async fn a_change_by_this_process_is_noticed() {
        let (_directory, accounts) = accounts().await;
        let mut changes = accounts.changes();
        add(&accounts, "alice").await;
        changes.changed().await.expect("the accounts are open");
    }

    #[tokio::test]
    async fn after_a_change_that_failed_nobody_is_let_in_who_is_disabled_later() {
        let (directory, accounts) = accounts().await;
        add(&accounts, "alice").await;
        let mut transaction = accounts.database.write().await.expect("writable");
        // SQLite rolls back by itself, as it does when the disk is full.
        sqlx::raw_sql(
            "CREATE TRIGGER full BEFORE INSERT ON folders \
             BEGIN SELECT RAISE(ROLLBACK, 'the disk is full'); END",
        )
        .execute(&mut *transaction)
        .await
        .expect("made");
        transaction.commit().await.expect("committed");
        accounts
            .add_folder(&folder("team"), SpaceLimits::default())
            .await
            .expect_err("full");
        let alice = accounts.account(&user("alice")).await.expect("readable");
        assert!(alice.is_some());
        let other = reopen(&directory).await;
        let disabled = UserChange {
            disabled: Some(true),
            ..UserChange::default()
        };
        other
            .set_user(&user("alice"), disabled)
            .await
            .expect("disabled");
        let alice = accounts.account(&user("alice")).await.expect("readable");
        assert!(alice.is_none());
    }

    #[tokio::test]
    async fn while_the_database_says_nothing_every_look_counts_as_a_change_and_then_it_is_seen_again()
     {
        let directory = tempfile::tempdir().expect("a directory");
        // Without a write-ahead log, one who writes locks out those who read.
        let options = SqliteConnectOptions::new()
            .filename(directory.path().join("locked.db"))
            .create_if_missing(true)
            .busy_timeout(Duration::ZERO);
        let mut other = SqliteConnection::connect_with(&options)
            .await
            .expect("opens");
        let mut watching = SqliteConnection::connect_with(&options)
            .await
            .expect("opens");
        let run = async |statement: &'static str, connection: &mut SqliteConnection| {
            let done = sqlx::raw_sql(statement).execute(connection).await;
            done.expect("done");
        };
        run("CREATE TABLE numbers (number INTEGER)", &mut other).await;
        let version = data_version(&mut watching).await.expect("readable");
        run("BEGIN EXCLUSIVE", &mut other).await;
        let (sender, mut changes) = watch::channel(0);
        let _watching = AbortOnDropHandle::new(tokio::spawn(watch_changes(
            options, watching, version, sender,
        )));
        for _ in 0..2 {
            changes.changed().await.expect("it looks on");
        }
        run("COMMIT", &mut other).await;
        // The first may be seen because the look is by a new connection, the second only as a change.
        for _ in 0..2 {
            let insert = async |other: &mut SqliteConnection| {
                let insert = sqlx::query("INSERT INTO numbers VALUES (1)");
                insert.execute(other).await
            };
            // A look may be under way, which locks out those who write.
            while insert(&mut other).await.is_err() {
                tokio::task::yield_now().await;
            }
            changes.changed().await.expect("it looks on");
        }
    }

    #[tokio::test]
    async fn watching_ends_with_the_last_clone() {
        let (_directory, accounts) = accounts().await;
        let mut changes = accounts.changes();
        let clone = accounts.clone();
        drop(accounts);
        assert!(!changes.has_changed().expect("a clone is left"));
        drop(clone);
        assert!(changes.changed().await.is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn processes_may_open_a_new_directory_and_write_to_it_at_once() {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let directory = Arc::clone(&directory);
                tokio::spawn(async move {
                    let accounts = reopen(&directory).await;
                    for number in 0..5 {
                        add(&accounts, &format!("user-{writer}-{number}")).await;
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.expect("no panic");
        }
        let users = reopen(&directory).await.users().await.expect("readable");
        assert_eq!(users.len(), 40);
    }

    #[tokio::test]
    async fn a_database_of_a_later_version_is_left_alone() {
        let (directory, accounts) = accounts().await;
        let later = "INSERT INTO _sqlx_migrations \
                     VALUES (9999, 'later', CURRENT_TIMESTAMP, TRUE, x'00', 0)";
        let mut transaction = accounts.database.write().await.expect("writable");
        sqlx::query(later)
            .execute(&mut *transaction)
            .await
            .expect("inserted");
        transaction.commit().await.expect("committed");
        let error = Accounts::open(directory.path()).await.expect_err("later");
        let message = error.to_string();
        assert!(
            message.contains("written by a later version of haul"),
            "{message}"
        );
    }
}
