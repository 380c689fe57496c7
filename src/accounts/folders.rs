//! Shared folders, and who may do what in them.

use std::collections::HashMap;

use jiff::Timestamp;
use sqlx::FromRow as _;
use sqlx::sqlite::SqliteConnection;

use crate::accounts::database;
use crate::accounts::database::{changing, reading};
use crate::accounts::{Accounts, AccountsError, FolderName, Grant, UserName, users};
use crate::storage;
use crate::storage::{Rights, SpaceLimits};

/// A shared folder as those who run the server see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// The folder's name, and the name it is mounted under.
    pub name: FolderName,
    /// Limits of the folder, shared by all who write to it.
    pub limits: SpaceLimits,
    /// When it was added.
    pub created: Timestamp,
    /// Who sees it, by name.
    pub members: Vec<FolderMember>,
}

/// A user who sees a shared folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderMember {
    /// The user's name.
    pub user: UserName,
    /// What the user may do in the folder.
    pub rights: Rights,
}

impl Accounts {
    /// Adds a folder that nobody sees yet. Files that an earlier folder of that name left are set
    /// aside.
    ///
    /// # Errors
    /// [`AccountsError::FolderExists`], or what the disk says.
    pub async fn add_folder(
        &self,
        name: &FolderName,
        limits: SpaceLimits,
    ) -> Result<(), AccountsError> {
        let mut transaction = self.database.write().await?;
        let insert = "INSERT INTO folders (name, bytes, files, created) \
                      VALUES (?, ?, ?, ?) ON CONFLICT (name) DO NOTHING";
        let inserted = sqlx::query(insert)
            .bind(name.as_str())
            .bind(limits.bytes.map(database::integer))
            .bind(limits.files.map(database::integer))
            .bind(Timestamp::now().as_second())
            .execute(&mut *transaction)
            .await
            .map_err(changing)?;
        if inserted.rows_affected() == 0 {
            return Err(AccountsError::FolderExists(name.clone()));
        }
        // Before the folder is there for anyone. If the commit fails, what was set aside belonged
        // to nobody all the same.
        self.set_aside(storage::set_folder_aside, name.as_str())
            .await?;
        transaction.commit().await.map_err(changing)
    }

    /// Every folder with its members, by name.
    ///
    /// # Errors
    /// [`AccountsError::Database`].
    pub async fn folders(&self) -> Result<Vec<Folder>, AccountsError> {
        let mut transaction = self.database.read().await?;
        let select = "SELECT id, name, bytes, files, created FROM folders ORDER BY name";
        let rows = sqlx::query_as::<_, (i64, String, Option<i64>, Option<i64>, i64)>(select);
        let rows = rows.fetch_all(&mut *transaction).await.map_err(reading)?;
        let mut folders = Vec::with_capacity(rows.len());
        for (id, name, bytes, files, created) in rows {
            folders.push(Folder {
                name: database::name(name).map_err(reading)?,
                limits: database::limits(bytes, files).map_err(reading)?,
                created: database::time(created).map_err(reading)?,
                members: members(&mut transaction, id).await.map_err(reading)?,
            });
        }
        transaction.commit().await.map_err(reading)?;
        Ok(folders)
    }

    /// Lets a user see a folder, with these rights in place of any that it had.
    ///
    /// # Errors
    /// [`AccountsError::NoSuchFolder`], [`AccountsError::NoSuchUser`] or
    /// [`AccountsError::Database`].
    pub async fn grant(
        &self,
        folder: &FolderName,
        user: &UserName,
        rights: Rights,
    ) -> Result<(), AccountsError> {
        let mut transaction = self.database.write().await?;
        let folder = id_of(&mut transaction, folder).await?;
        let user = users::id_of(&mut transaction, user).await?;
        let insert = "INSERT INTO grants (folder, user, rights) VALUES (?, ?, ?) \
                      ON CONFLICT (folder, user) DO UPDATE SET rights = excluded.rights";
        sqlx::query(insert)
            .bind(folder)
            .bind(user)
            // Not a preset's name: what was granted stays what it is, should presets change.
            .bind(rights.names().join(","))
            .execute(&mut *transaction)
            .await
            .map_err(changing)?;
        transaction.commit().await.map_err(changing)
    }

    /// Takes a folder out of a user's sight.
    ///
    /// # Errors
    /// [`AccountsError::NoSuchFolder`], [`AccountsError::NoSuchUser`],
    /// [`AccountsError::NoSuchGrant`] or [`AccountsError::Database`].
    pub async fn revoke(&self, folder: &FolderName, user: &UserName) -> Result<(), AccountsError> {
        let mut transaction = self.database.write().await?;
        let deleted = sqlx::query("DELETE FROM grants WHERE folder = ? AND user = ?")
            .bind(id_of(&mut transaction, folder).await?)
            .bind(users::id_of(&mut transaction, user).await?)
            .execute(&mut *transaction)
            .await
            .map_err(changing)?;
        if deleted.rows_affected() == 0 {
            return Err(AccountsError::NoSuchGrant {
                folder: folder.clone(),
                user: user.clone(),
            });
        }
        transaction.commit().await.map_err(changing)
    }

    /// Removes a folder. Its files are set aside, under `removed/` in the data directory; `false`
    /// if there never were any.
    ///
    /// # Errors
    /// [`AccountsError::NoSuchFolder`]; [`AccountsError::LeftBehind`] if it is removed but its
    /// files could not be set aside.
    pub async fn remove_folder(&self, name: &FolderName) -> Result<bool, AccountsError> {
        let mut transaction = self.database.write().await?;
        let deleted = sqlx::query("DELETE FROM folders WHERE name = ?")
            .bind(name.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(changing)?;
        if deleted.rows_affected() == 0 {
            return Err(AccountsError::NoSuchFolder(name.clone()));
        }
        transaction.commit().await.map_err(changing)?;
        let there = "SELECT id FROM folders WHERE name = ?";
        self.set_removed_aside(there, storage::set_folder_aside, name.as_str())
            .await
            .map_err(|error| AccountsError::LeftBehind {
                what: "folder",
                name: name.to_string(),
                source: Box::new(error),
            })
    }
}

/// The folders that users see, by name, for each of the users whose numbers are in `users`, a list
/// in JSON.
pub(super) async fn grants(
    connection: &mut SqliteConnection,
    users: &str,
) -> Result<HashMap<i64, Vec<Grant>>, sqlx::Error> {
    let select = "SELECT grants.user, folders.id, folders.name, grants.rights, \
                  folders.bytes, folders.files \
                  FROM grants JOIN folders ON folders.id = grants.folder \
                  WHERE grants.user IN (SELECT value FROM json_each(?)) ORDER BY folders.name";
    let rows = sqlx::query(select)
        .bind(users)
        .fetch_all(connection)
        .await?;
    let mut grants = HashMap::<_, Vec<_>>::new();
    for row in &rows {
        let (user, folder, name, rights, bytes, files) =
            <(i64, i64, String, String, _, _)>::from_row(row)?;
        grants.entry(user).or_default().push(Grant {
            folder,
            name: database::name(name)?,
            rights: database::rights(&rights)?,
            limits: database::limits(bytes, files)?,
        });
    }
    Ok(grants)
}

async fn members(
    connection: &mut SqliteConnection,
    folder: i64,
) -> Result<Vec<FolderMember>, sqlx::Error> {
    let select = "SELECT users.name, grants.rights \
                  FROM grants JOIN users ON users.id = grants.user \
                  WHERE grants.folder = ? ORDER BY users.name";
    let members = sqlx::query(select).bind(folder).try_map(|row| {
        let (user, rights) = <(String, String)>::from_row(&row)?;
        Ok(FolderMember {
            user: database::name(user)?,
            rights: database::rights(&rights)?,
        })
    });
    members.fetch_all(connection).await
}

async fn id_of(connection: &mut SqliteConnection, name: &FolderName) -> Result<i64, AccountsError> {
    sqlx::query_scalar("SELECT id FROM folders WHERE name = ?")
        .bind(name.as_str())
        .fetch_optional(connection)
        .await
        .map_err(reading)?
        .ok_or_else(|| AccountsError::NoSuchFolder(name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::tests::{accounts, add, folder, refuse_commits_without, user};

    async fn sees(accounts: &Accounts, name: &str) -> Vec<(String, String)> {
        let account = accounts.account(&user(name)).await.expect("readable");
        let folders = account.expect("there").folders.into_iter();
        folders
            .map(|grant| (grant.name.into(), grant.rights.to_string()))
            .collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, rights): &(&str, &str)| ((*name).into(), (*rights).into());
        pairs.iter().map(owned).collect()
    }

    #[tokio::test]
    async fn a_grant_mounts_a_folder_for_that_user_only() {
        let (_directory, accounts) = accounts().await;
        add(&accounts, "alice").await;
        add(&accounts, "bob").await;
        let limits = SpaceLimits {
            bytes: Some(7),
            files: None,
        };
        accounts
            .add_folder(&folder("team"), limits)
            .await
            .expect("added");
        accounts
            .add_folder(&folder("inbox"), SpaceLimits::default())
            .await
            .expect("added");
        assert_eq!(sees(&accounts, "alice").await, pairs(&[]));

        for (name, rights) in [("team", Rights::READ), ("inbox", Rights::DROP)] {
            accounts
                .grant(&folder(name), &user("alice"), rights)
                .await
                .expect("granted");
        }
        assert_eq!(
            sees(&accounts, "alice").await,
            pairs(&[("inbox", "drop"), ("team", "r")])
        );
        assert_eq!(sees(&accounts, "bob").await, pairs(&[]));
        let account = accounts.account(&user("alice")).await.expect("readable");
        assert_eq!(account.expect("there").folders[1].limits, limits);

        accounts
            .grant(&folder("team"), &user("alice"), Rights::ALL)
            .await
            .expect("granted");
        assert_eq!(
            sees(&accounts, "alice").await,
            pairs(&[("inbox", "drop"), ("team", "rw")])
        );
        accounts
            .revoke(&folder("inbox"), &user("alice"))
            .await
            .expect("revoked");
        assert_eq!(sees(&accounts, "alice").await, pairs(&[("team", "rw")]));
    }

    #[tokio::test]
    async fn folders_are_listed_with_their_members() {
        let (_directory, accounts) = accounts().await;
        add(&accounts, "bob").await;
        add(&accounts, "alice").await;
        accounts
            .add_folder(&folder("team"), SpaceLimits::default())
            .await
            .expect("added");
        for (name, rights) in [("bob", Rights::READ), ("alice", Rights::ALL)] {
            accounts
                .grant(&folder("team"), &user(name), rights)
                .await
                .expect("granted");
        }
        accounts
            .add_folder(&folder("empty"), SpaceLimits::default())
            .await
            .expect("added");
        let folders = accounts.folders().await.expect("readable");
        assert_eq!(folders.len(), 2);
        assert_eq!(
            (folders[0].name.as_str(), &*folders[0].members),
            ("empty", &[][..])
        );
        assert_eq!(folders[1].name.as_str(), "team");
        let members = [
            FolderMember {
                user: user("alice"),
                rights: Rights::ALL,
            },
            FolderMember {
                user: user("bob"),
                rights: Rights::READ,
            },
        ];
        assert_eq!(folders[1].members, members);

        accounts.remove_user(&user("bob")).await.expect("removed");
        let folders = accounts.folders().await.expect("readable");
        assert_eq!(folders[1].members, members[..1]);
    }

    #[tokio::test]
    async fn what_is_there_twice_or_not_at_all_is_named() {
        let (_directory, accounts) = accounts().await;
        add(&accounts, "alice").await;
        let (team, gone) = (folder("team"), folder("gone"));
        accounts
            .add_folder(&team, SpaceLimits::default())
            .await
            .expect("added");
        for (result, message) in [
            (
                accounts.add_folder(&team, SpaceLimits::default()).await,
                "there is a folder team already; choose another name",
            ),
            (
                accounts.grant(&gone, &user("alice"), Rights::ALL).await,
                "there is no folder gone; `haul folder list` shows which there are",
            ),
            (
                accounts.grant(&team, &user("bob"), Rights::ALL).await,
                "there is no user bob; `haul user list` shows who there is",
            ),
            (
                accounts.revoke(&team, &user("alice")).await,
                "user alice has no rights in folder team; `haul folder list` shows who has",
            ),
            (
                accounts.remove_folder(&gone).await.map(|_| ()),
                "there is no folder gone; `haul folder list` shows which there are",
            ),
        ] {
            assert_eq!(result.expect_err("refused").to_string(), message);
        }
    }

    #[tokio::test]
    async fn the_files_of_a_removed_folder_are_set_aside() {
        let (directory, accounts) = accounts().await;
        add(&accounts, "alice").await;
        let team = folder("team");
        accounts
            .add_folder(&team, SpaceLimits::default())
            .await
            .expect("added");
        accounts
            .grant(&team, &user("alice"), Rights::ALL)
            .await
            .expect("granted");
        let files = directory.path().join("folders/team");
        std::fs::create_dir_all(&files).expect("made");
        std::fs::write(files.join("plan"), "x").expect("written");
        assert!(accounts.remove_folder(&team).await.expect("removed"));
        let mut places = directory.path().join("removed").read_dir().expect("made");
        let place = places.next().expect("set aside").expect("readable").path();
        assert!(place.join("plan").exists() && !files.exists());
        assert_eq!(sees(&accounts, "alice").await, pairs(&[]));
    }

    #[tokio::test]
    async fn a_removal_that_can_not_be_committed_leaves_the_folder_its_files() {
        let (directory, accounts) = accounts().await;
        let team = folder("team");
        let added = accounts.add_folder(&team, SpaceLimits::default()).await;
        added.expect("added");
        let files = directory.path().join("folders/team");
        std::fs::create_dir_all(files.join("x")).expect("made");
        refuse_commits_without(&accounts, "folders", "team").await;
        let error = accounts.remove_folder(&team).await;
        let error = error.expect_err("not committed");
        assert!(matches!(error, AccountsError::Database { .. }), "{error}");
        assert!(files.join("x").exists());
        assert_eq!(accounts.folders().await.expect("readable").len(), 1);
    }
}
