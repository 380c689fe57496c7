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
    sqlx::raw_sql("CREATE TABLE numbers (number INTEGER NOT NULL); INSERT INTO numbers VALUES (1)")
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
    let idle = || pool.idle.0.lock().len();
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
