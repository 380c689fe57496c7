//! Users: added, listed, changed and removed.

use jiff::Timestamp;
use sqlx::FromRow as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use crate::accounts::database;
use crate::accounts::database::{changing, reading};
use crate::accounts::{Accounts, AccountsError, Limit, UserName};
use crate::protocol::Secret;
use crate::storage;
use crate::storage::SpaceLimits;

/// What a new user may do and take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NewUser {
    /// Whether it may do what only admins may.
    pub admin: bool,
    /// Limits of its home.
    pub limits: SpaceLimits,
}

/// A user as those who run the server see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user's name.
    pub name: UserName,
    /// Whether it may do what only admins may.
    pub admin: bool,
    /// Whether it is kept from logging in.
    pub disabled: bool,
    /// Limits of its home.
    pub limits: SpaceLimits,
    /// When it was added.
    pub created: Timestamp,
}

/// What to change of a user; what is `None` stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UserChange {
    /// Whether it may do what only admins may.
    pub admin: Option<bool>,
    /// Whether it is kept from logging in.
    pub disabled: Option<bool>,
    /// Bytes in its home.
    pub bytes: Option<Limit>,
    /// Files in its home.
    pub files: Option<Limit>,
}

impl Accounts {
    /// Adds a user. Files that an earlier user of that name left in its home are set aside.
    ///
    /// # Errors
    /// [`AccountsError::UserExists`], [`AccountsError::EmptyPassword`] and
    /// [`AccountsError::PasswordTooLong`], or what the disk says.
    pub async fn add_user(
        &self,
        name: &UserName,
        password: &Secret,
        new: NewUser,
    ) -> Result<(), AccountsError> {
        let hash = self.hashing.hash(password).await?;
        let mut transaction = self.database.write().await?;
        let insert = "INSERT INTO users (name, password, admin, bytes, files, created) \
                      VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO NOTHING";
        let inserted = sqlx::query(insert)
            .bind(name.as_str())
            .bind(hash)
            .bind(new.admin)
            .bind(new.limits.bytes.map(database::integer))
            .bind(new.limits.files.map(database::integer))
            .bind(Timestamp::now().as_second())
            .execute(&mut *transaction)
            .await
            .map_err(changing)?;
        if inserted.rows_affected() == 0 {
            return Err(AccountsError::UserExists(name.clone()));
        }
        // Before the user is there for anyone. If the commit fails, what was set aside belonged
        // to nobody all the same.
        self.set_aside(storage::set_home_aside, name.as_str())
            .await?;
        transaction.commit().await.map_err(changing)
    }

    /// Every user, by name.
    ///
    /// # Errors
    /// [`AccountsError::Database`].
    pub async fn users(&self) -> Result<Vec<User>, AccountsError> {
        let mut transaction = self.database.read().await?;
        let select = "SELECT name, admin, disabled, bytes, files, created FROM users ORDER BY name";
        let users = sqlx::query(select).try_map(|row| user_of_row(&row));
        let users = users.fetch_all(&mut *transaction).await.map_err(reading)?;
        transaction.commit().await.map_err(reading)?;
        Ok(users)
    }

    /// Changes a user. It holds for its sessions within two seconds.
    ///
    /// # Errors
    /// [`AccountsError::NoSuchUser`] or [`AccountsError::Database`].
    pub async fn set_user(&self, name: &UserName, change: UserChange) -> Result<(), AccountsError> {
        let update = "UPDATE users SET \
                      admin = coalesce(?, admin), \
                      disabled = coalesce(?, disabled), \
                      bytes = CASE WHEN ? THEN ? ELSE bytes END, \
                      files = CASE WHEN ? THEN ? ELSE files END \
                      WHERE name = ?";
        let update = sqlx::query(update)
            .bind(change.admin)
            .bind(change.disabled)
            .bind(change.bytes.is_some())
            .bind(change.bytes.and_then(Limit::integer))
            .bind(change.files.is_some())
            .bind(change.files.and_then(Limit::integer))
            .bind(name.as_str());
        let mut transaction = self.database.write().await?;
        let updated = update.execute(&mut *transaction).await.map_err(changing)?;
        if updated.rows_affected() == 0 {
            return Err(AccountsError::NoSuchUser(name.clone()));
        }
        transaction.commit().await.map_err(changing)
    }

    /// Gives a user another password. Its tokens stay.
    ///
    /// # Errors
    /// [`AccountsError::NoSuchUser`], [`AccountsError::EmptyPassword`],
    /// [`AccountsError::PasswordTooLong`] or [`AccountsError::Database`].
    pub async fn set_password(
        &self,
        name: &UserName,
        password: &Secret,
    ) -> Result<(), AccountsError> {
        let hash = self.hashing.hash(password).await?;
        let mut transaction = self.database.write().await?;
        let updated = sqlx::query("UPDATE users SET password = ? WHERE name = ?")
            .bind(hash)
            .bind(name.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(changing)?;
        if updated.rows_affected() == 0 {
            return Err(AccountsError::NoSuchUser(name.clone()));
        }
        transaction.commit().await.map_err(changing)?;
        self.forget_first_password(name).await
    }

    /// Removes a user with its tokens and rights. Its home is set aside, under `removed/` in the
    /// data directory; `false` if it never had one.
    ///
    /// # Errors
    /// [`AccountsError::NoSuchUser`]; [`AccountsError::LeftBehind`] if it is removed but its files
    /// could not be set aside.
    pub async fn remove_user(&self, name: &UserName) -> Result<bool, AccountsError> {
        let mut transaction = self.database.write().await?;
        let deleted = sqlx::query("DELETE FROM users WHERE name = ?")
            .bind(name.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(changing)?;
        if deleted.rows_affected() == 0 {
            return Err(AccountsError::NoSuchUser(name.clone()));
        }
        transaction.commit().await.map_err(changing)?;
        let forgotten = self.forget_first_password(name).await;
        let there = "SELECT id FROM users WHERE name = ?";
        let had_files = self
            .set_removed_aside(there, storage::set_home_aside, name.as_str())
            .await
            .map_err(|error| AccountsError::LeftBehind {
                what: "user",
                name: name.to_string(),
                source: Box::new(error),
            })?;
        forgotten?;
        Ok(had_files)
    }
}

/// The number of the user `name`.
pub(super) async fn id_of(
    connection: &mut SqliteConnection,
    name: &UserName,
) -> Result<i64, AccountsError> {
    sqlx::query_scalar("SELECT id FROM users WHERE name = ?")
        .bind(name.as_str())
        .fetch_optional(connection)
        .await
        .map_err(reading)?
        .ok_or_else(|| AccountsError::NoSuchUser(name.clone()))
}

fn user_of_row(row: &SqliteRow) -> Result<User, sqlx::Error> {
    let (name, admin, disabled, bytes, files, created) = <_>::from_row(row)?;
    Ok(User {
        name: database::name(name)?,
        admin,
        disabled,
        limits: database::limits(bytes, files)?,
        created: database::time(created)?,
    })
}

#[cfg(test)]
mod tests {
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
            "there is a user alice already; \
             choose another name, or change it with `haul user set`"
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
    async fn who_is_not_there_can_not_be_changed_or_removed() {
        let (_directory, accounts) = accounts().await;
        let bob = user("bob");
        for result in [
            accounts.set_user(&bob, UserChange::default()).await,
            accounts.set_password(&bob, &secret("x")).await,
            accounts.remove_user(&bob).await.map(|_| ()),
        ] {
            assert_eq!(
                result.expect_err("refused").to_string(),
                "there is no user bob; `haul user list` shows who there is"
            );
        }
    }

    #[tokio::test]
    async fn what_root_does_leaves_nothing_that_the_owner_of_the_data_can_not_use() {
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
    async fn a_removal_that_can_not_be_committed_leaves_the_user_its_home() {
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
        let aside = accounts.set_removed_aside(there, storage::set_home_aside, "alice");
        aside.await.expect("nothing to do");
        assert!(home.join("new").exists());
    }

    #[tokio::test]
    async fn files_that_could_not_be_set_aside_are_told_of_and_still_not_inherited() {
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
            message.starts_with("user alice is removed, but its files are not set aside: "),
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
}
