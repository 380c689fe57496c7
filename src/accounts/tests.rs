use crate::accounts::*;
use crate::protocol::Secret;

/// Accounts in a directory that lives as long as they do, quick to log in to.
pub(crate) async fn accounts() -> (tempfile::TempDir, Accounts) {
    let directory = tempfile::tempdir().expect("a directory");
    let accounts = reopen(&directory).await;
    (directory, accounts)
}

/// What another process would see.
pub(crate) async fn reopen(directory: &tempfile::TempDir) -> Accounts {
    let accounts = Accounts::open(directory.path()).await.expect("opens");
    accounts.with_hashing_cost(HashingCost::MIN)
}

pub(crate) fn user(name: &str) -> UserName {
    name.parse().expect("a name")
}

pub(crate) fn folder(name: &str) -> FolderName {
    name.parse().expect("a name")
}

pub(crate) fn secret(text: &str) -> Secret {
    Secret::new(text.into())
}

/// Adds a user whose password is `hunter2`.
pub(crate) async fn add(accounts: &Accounts, name: &str) {
    let (name, password) = (user(name), secret("hunter2"));
    let added = accounts.add_user(&name, &password, NewUser::default());
    added.await.expect("added");
}

/// Makes every commit fail from now on after which the row of this name is gone.
pub(crate) async fn refuse_commits_without(accounts: &Accounts, table: &str, name: &str) {
    let mut transaction = accounts.database.write().await.expect("writable");
    let statement = format!(
        "CREATE TABLE needs (name TEXT REFERENCES {table} (name) DEFERRABLE INITIALLY DEFERRED); \
         INSERT INTO needs VALUES ('{name}')"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
        .execute(&mut *transaction)
        .await
        .expect("made");
    transaction.commit().await.expect("committed");
}
