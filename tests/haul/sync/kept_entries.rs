//! What a sync must leave as it is, and what it must not take along.

use std::fs;

use haul::client::sync::{FilterOptions, SyncOptions};

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
