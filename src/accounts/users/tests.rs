use std::os::unix::fs::{MetadataExt as _, chown};

use super::*;
use crate::accounts::tests::{accounts, add, refuse_commits_without, secret, user};

const LIMITS: SpaceLimits = SpaceLimits {
    bytes: Some(10),
    files: Some(20),
};

#[tokio::test]
async fn a_user_is_added_once_and_the_second_time_says_so() {
    let (_directory, accounts) = accounts().await;
    let new = NewUser {
        admin: true,
        limits: LIMITS,
    };
    let added = accounts
        .add_user(&user("alice"), &secret("hunter2"), new)
        .await;
    added.expect("added");
    let again = accounts
        .add_user(&user("alice"), &secret("other"), NewUser::default())
        .await;
    assert_eq!(
        again.expect_err("refused").to_string(),
        "user alice already exists; \
         choose another name, or change the user with `haul user set`"
    );
    let users = accounts.users().await.expect("readable");
    assert_eq!(users.len(), 1);
    assert!(users[0].admin && !users[0].disabled);
    assert_eq!(users[0].limits, LIMITS);
    let age = Timestamp::now().duration_since(users[0].created);
    assert!(age.as_secs() < 60, "{age:?}");
}

#[tokio::test]
async fn a_change_leaves_alone_what_it_does_not_name() {
    let (_directory, accounts) = accounts().await;
    let alice = user("alice");
    let new = NewUser {
        admin: true,
        limits: LIMITS,
    };
    accounts
        .add_user(&alice, &secret("hunter2"), new)
        .await
        .expect("added");
    let change = UserChange {
        bytes: Some(Limit::AtMost(u64::MAX)),
        ..UserChange::default()
    };
    accounts.set_user(&alice, change).await.expect("changed");
    let account = accounts
        .account(&alice)
        .await
        .expect("readable")
        .expect("there");
    assert!(account.admin);
    assert_eq!(account.limits.files, Some(20));
    assert!(
        account.limits.bytes > Some(1 << 60),
        "as many as can be kept"
    );
    let change = UserChange {
        admin: Some(false),
        bytes: Some(Limit::Unlimited),
        files: Some(Limit::AtMost(0)),
        disabled: Some(true),
    };
    accounts.set_user(&alice, change).await.expect("changed");
    let users = accounts.users().await.expect("readable");
    assert!(!users[0].admin && users[0].disabled);
    assert_eq!(
        users[0].limits,
        SpaceLimits {
            bytes: None,
            files: Some(0)
        }
    );
}

#[tokio::test]
async fn an_unknown_user_cannot_be_changed_or_removed() {
    let (_directory, accounts) = accounts().await;
    let bob = user("bob");
    for result in [
        accounts.set_user(&bob, UserChange::default()).await,
        accounts.set_password(&bob, &secret("x")).await,
        accounts.remove_user(&bob).await.map(|_| ()),
    ] {
        assert_eq!(
            result.expect_err("refused").to_string(),
            "there is no user bob; `haul user list` shows all users"
        );
    }
}

#[tokio::test]
async fn files_that_root_creates_are_usable_by_the_owner_of_the_data() {
    let directory = tempfile::tempdir().expect("a directory");
    if rustix::process::geteuid().is_root() {
        chown(directory.path(), Some(12_345), Some(54_321)).expect("root may");
    }
    let accounts = Accounts::open(directory.path()).await.expect("accounts");
    add(&accounts, "alice").await;
    let home = directory.path().join("homes/alice");
    std::fs::create_dir_all(&home).expect("made");
    accounts.remove_user(&user("alice")).await.expect("removed");
    let owner = |name: &str| {
        let there = directory.path().join(name).metadata().expect(name);
        (there.uid(), there.gid())
    };
    for name in ["haul.db", "haul.db-wal", "removed"] {
        assert_eq!(owner(name), owner("."), "{name}");
    }
}

#[tokio::test]
async fn the_files_of_a_removed_user_are_set_aside_and_not_inherited() {
    let (directory, accounts) = accounts().await;
    let (home, removed) = (
        directory.path().join("homes/alice"),
        directory.path().join("removed"),
    );
    let alice = user("alice");
    add(&accounts, "alice").await;
    let old = accounts
        .account(&alice)
        .await
        .expect("readable")
        .expect("there");
    std::fs::create_dir_all(&home).expect("made");
    std::fs::write(home.join("diary"), "secret").expect("written");
    assert!(accounts.remove_user(&alice).await.expect("removed"));
    let mut places = removed.read_dir().expect("made");
    let place = places.next().expect("set aside").expect("readable").path();
    assert_eq!(
        std::fs::read_to_string(place.join("diary")).expect("kept"),
        "secret"
    );
    assert!(!home.exists());
    assert!(accounts.account(&alice).await.expect("readable").is_none());

    // A write that was under way may come late.
    std::fs::create_dir_all(&home).expect("made");
    std::fs::write(home.join("late"), "secret").expect("written");
    add(&accounts, "alice").await;
    assert!(!home.exists());
    assert_eq!(removed.read_dir().expect("made").count(), 2);
    let new = accounts
        .account(&alice)
        .await
        .expect("readable")
        .expect("there");
    assert_ne!(new.id, old.id);
}

#[tokio::test]
async fn a_removal_that_cannot_be_committed_leaves_the_user_its_home() {
    let (directory, accounts) = accounts().await;
    add(&accounts, "alice").await;
    let home = directory.path().join("homes/alice");
    std::fs::create_dir_all(home.join("x")).expect("made");
    refuse_commits_without(&accounts, "users", "alice").await;
    let error = accounts.remove_user(&user("alice")).await;
    let error = error.expect_err("not committed");
    assert!(matches!(error, AccountsError::Database { .. }), "{error}");
    assert!(home.join("x").exists());
    let account = accounts.account(&user("alice")).await.expect("readable");
    assert!(account.is_some());
}

#[tokio::test]
async fn a_late_removal_leaves_alone_what_a_new_user_of_that_name_has() {
    let (directory, accounts) = accounts().await;
    add(&accounts, "alice").await;
    let home = directory.path().join("homes/alice");
    std::fs::create_dir_all(home.join("new")).expect("made");
    let there = "SELECT id FROM users WHERE name = ?";
    let aside = accounts.set_aside_removed(there, storage::set_home_aside, "alice");
    aside.await.expect("nothing to do");
    assert!(home.join("new").exists());
}

#[tokio::test]
async fn files_that_cannot_be_set_aside_are_reported_and_not_inherited() {
    let (directory, accounts) = accounts().await;
    add(&accounts, "alice").await;
    let home = directory.path().join("homes/alice");
    std::fs::create_dir_all(home.join("x")).expect("made");
    let removed = directory.path().join("removed");
    std::fs::remove_dir(&removed).expect("empty");
    std::fs::write(&removed, "in the way").expect("written");
    let error = accounts
        .remove_user(&user("alice"))
        .await
        .expect_err("in the way");
    let message = error.to_string();
    assert!(
        message.starts_with("user alice is removed, but its files could not be set aside: "),
        "{message}"
    );
    assert!(home.join("x").exists());
    let again = accounts
        .add_user(&user("alice"), &secret("x"), NewUser::default())
        .await;
    again.expect_err("still in the way");
    let account = accounts.account(&user("alice")).await.expect("readable");
    assert!(account.is_none());
    std::fs::remove_file(&removed).expect("out of the way");
    add(&accounts, "alice").await;
    assert!(!home.exists());
    assert_eq!(removed.read_dir().expect("made").count(), 1);
}
