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
async fn an_existing_or_unknown_name_is_named_in_the_error() {
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
            "folder team already exists; choose another name",
        ),
        (
            accounts.grant(&gone, &user("alice"), Rights::ALL).await,
            "there is no folder gone; `haul folder list` shows all folders",
        ),
        (
            accounts.grant(&team, &user("bob"), Rights::ALL).await,
            "there is no user bob; `haul user list` shows all users",
        ),
        (
            accounts.revoke(&team, &user("alice")).await,
            "user alice has no rights in folder team; `haul folder list` shows all rights",
        ),
        (
            accounts.remove_folder(&gone).await.map(|_| ()),
            "there is no folder gone; `haul folder list` shows all folders",
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
async fn a_removal_that_cannot_be_committed_leaves_the_folder_its_files() {
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
