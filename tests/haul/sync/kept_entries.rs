//! What a sync must leave as it is, and what it must not take along.

use std::fs;

use haul::client::sync::{FilterOptions, SyncJob, SyncOptions};
use haul::storage::SpaceLimits;

use super::{deleting, down, local, sync, up, write};
use crate::client::log_in;
use crate::harness::TestServer;

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_with_excluded_entries_stays_whole_if_a_file_has_its_name() {
    let server = TestServer::start().await;
    let client = log_in(&server, "alice").await;
    let home = server.home("alice").join("tree");
    write(&home, "a/keep.tmp", "1");
    write(&home, "a/old/x", "2");
    write(&home, "surplus", "3");
    let tree = local(&[("a", "file")]);
    let options = SyncOptions {
        filter: FilterOptions {
            exclude: vec!["*.tmp".into()],
            ..FilterOptions::default()
        },
        ..deleting()
    };
    let run = sync(&client, up(tree.path(), &options)).await;
    assert_eq!((run.summary.failed, run.summary.deleted), (1, 1));
    assert!(home.join("a/keep.tmp").exists() && home.join("a/old/x").exists());
    assert!(!home.join("surplus").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_directory_is_made_in_the_place_of_a_file_if_nothing_may_be_made() {
    let server = TestServer::start().await;
    let client = log_in(&server, "alice").await;
    let home = server.home("alice").join("tree");
    write(&home, "a", "file");
    let tree = local(&[("a/inner", "1")]);
    let mut options = deleting();
    options.rules.existing = true;
    let run = sync(&client, up(tree.path(), &options)).await;
    assert_eq!((run.summary.failed, run.summary.deleted), (0, 0));
    assert_eq!(fs::read_to_string(home.join("a")).expect("there"), "file");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_sizes_is_for_the_source() {
    let server = TestServer::start().await;
    let client = log_in(&server, "alice").await;
    let home = server.home("alice").join("tree");
    write(&home, "f", "x".repeat(1000));
    write(&home, "g", "old");
    write(&home, "surplus", "x".repeat(1000));
    let tree = local(&[("f", "new"), ("g", "larger than the limit")]);
    let options = SyncOptions {
        filter: FilterOptions {
            max_size: Some(10),
            ..FilterOptions::default()
        },
        ..deleting()
    };
    sync(&client, up(tree.path(), &options)).await;
    assert_eq!(fs::read_to_string(home.join("f")).expect("there"), "new");
    assert_eq!(fs::read_to_string(home.join("g")).expect("kept"), "old");
    assert!(home.join("surplus").exists(), "excluded");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_sync_has_left_is_not_transferred_and_is_deleted_at_the_destination() {
    let server = TestServer::start().await;
    let client = log_in(&server, "alice").await;
    let home = server.home("alice").join("tree");
    let leftover = ".haul-sync-0123456789abcdef-0/x";
    write(&home, leftover, "1");
    write(&home, "a", "2");
    let tree = local(&[("a", "2"), (leftover, "1")]);
    let run = sync(&client, up(tree.path(), &deleting())).await;
    assert_eq!((run.summary.transferred, run.summary.deleted), (1, 2));
    assert!(!home.join(leftover).exists());
    write(&home, leftover, "1");
    let run = sync(&client, down(tree.path(), &deleting())).await;
    assert_eq!((run.summary.transferred, run.summary.deleted), (0, 2));
    assert!(!tree.path().join(leftover).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_does_not_list_is_not_taken_for_deleted() {
    let server = TestServer::start().await;
    let client = log_in(&server, "alice").await;
    let home = server.home("alice").join("tree");
    write(&home, "real/x", "1");
    std::os::unix::fs::symlink("real", home.join("link")).expect("linked");
    let tree = local(&[("real/x", "1"), ("link/x", "1")]);
    let run = sync(&client, down(tree.path(), &deleting())).await;
    assert_eq!((run.summary.deleted, run.summary.skipped), (0, 1));
    assert!(tree.path().join("link/x").exists());
    let run = sync(&client, up(tree.path(), &deleting())).await;
    assert_eq!((run.summary.deleted, run.summary.failed), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_file_keeps_its_old_name_if_a_transfer_fails() {
    let server = TestServer::start().await;
    let limits = SpaceLimits {
        bytes: Some(100_000),
        ..SpaceLimits::default()
    };
    server.add_user("carol", limits).await;
    let client = log_in(&server, "carol").await;
    let home = server.home("carol").join("tree");
    let tree = local(&[("old", "moved content")]);
    assert_eq!(
        sync(&client, up(tree.path(), &deleting()))
            .await
            .summary
            .failed,
        0
    );
    fs::rename(tree.path().join("old"), tree.path().join("new")).expect("renamed");
    write(tree.path(), "large", "x".repeat(200_000));
    let run = sync(&client, up(tree.path(), &deleting())).await;
    assert!(run.summary.failed > 0);
    assert!(home.join("old").exists() && home.join("new").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_the_source_in_the_place_of_the_backups_is_a_failure() {
    let server = TestServer::start().await;
    let client = log_in(&server, "alice").await;
    let tree = local(&[("a", "1"), ("backup/x", "2")]);
    let options = SyncOptions {
        backup_directory: Some("/tree/backup".into()),
        ..deleting()
    };
    let run = sync(&client, up(tree.path(), &options)).await;
    assert_eq!((run.summary.transferred, run.summary.failed), (1, 1));
    let again = sync(&client, up(local(&[("a", "1")]).path(), &options)).await;
    assert_eq!(again.summary.failed, 0, "{:?}", again.events);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_folder_that_the_source_lacks_stays() {
    let server = TestServer::start().await;
    let team = "team".parse().expect("a name");
    let added = server.accounts.add_folder(&team, SpaceLimits::default());
    added.await.expect("a folder");
    let alice = "alice".parse().expect("a name");
    let rights = "rw".parse().expect("rights");
    let granted = server.accounts.grant(&team, &alice, rights);
    granted.await.expect("granted");
    let client = log_in(&server, "alice").await;
    let team = server.data().join("folders/team");
    write(&team, "precious", "1");
    let tree = local(&[("a", "1")]);
    let job = |tree: &std::path::Path| SyncJob {
        remote: "/".into(),
        ..up(tree, &deleting())
    };
    let run = sync(&client, job(tree.path())).await;
    assert_eq!(
        (run.summary.deleted, run.summary.failed, run.summary.skipped),
        (0, 0, 1)
    );
    assert!(team.join("precious").exists());
    write(tree.path(), "team/other", "2");
    let run = sync(&client, job(tree.path())).await;
    assert_eq!(
        (run.summary.deleted, run.summary.failed),
        (1, 0),
        "named in the source"
    );
}
