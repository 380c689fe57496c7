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
async fn missing_files_are_created_and_only_their_owner_can_read_them() {
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
async fn a_directory_that_cannot_be_created_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    std::fs::write(&file, "").expect("written");
    let error = Accounts::open(&file.join("data"))
        .await
        .expect_err("no directory");
    let message = error.to_string();
    assert!(
        message.starts_with("cannot create ") && message.contains("file/data: "),
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
async fn rights_can_be_read_while_all_other_connections_are_taken() {
    let (_directory, accounts) = accounts().await;
    add(&accounts, "alice").await;
    let alice = accounts.account(&user("alice")).await.expect("readable");
    let mut taken = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        taken.push(accounts.database.read().await.expect("readable"));
    }
    let credential = Credential {
        account: alice.expect("added").id,
        token: None,
    };
    let current = accounts
        .credential_statuses(&[credential])
        .await
        .expect("readable");
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
async fn a_failed_change_does_not_hide_a_later_disabling() {
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
async fn while_the_database_does_not_answer_every_poll_counts_as_a_change() {
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
