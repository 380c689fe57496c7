//! `Client::sync` against a server, whose files are compared on its disk.

mod checker;
mod deltas;
mod kept_entries;
mod killed;
mod model;
mod program;
mod replacements;
mod watching;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use haul::client::sync::{
    DeletionsLeftOut, FilterOptions, SyncAction, SyncDirection, SyncJob, SyncOptions, SyncOutcome,
    SyncRules, SyncSummary,
};
use haul::client::{Client, ClientError, Progress};
use haul::storage::SpaceLimits;
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::client::log_in;
use crate::harness::TestServer;

/// A sync and its reports.
struct Run {
    summary: SyncSummary,
    events: Vec<SyncOutcome>,
}

impl Run {
    /// The actions, each as its kind and path.
    fn actions(&self) -> Vec<String> {
        let actions = self.events.iter().filter_map(|event| match event {
            SyncOutcome::Done(action) => Some(named(action)),
            _ => None,
        });
        actions.collect()
    }
}

fn named(action: &SyncAction) -> String {
    let kind = match action {
        SyncAction::MakeDirectory(_) => "make",
        SyncAction::Transfer { .. } => "transfer",
        SyncAction::SetMetadata { .. } => "set",
        SyncAction::Move { .. } => "move",
        SyncAction::Copy { .. } => "copy",
        SyncAction::Delete(_) => "delete",
        SyncAction::Skip { .. } => "skip",
        _ => "other",
    };
    format!("{kind} {}", action.path())
}

async fn try_sync(client: &Client, job: SyncJob) -> Result<Run, ClientError> {
    let progress = Progress::new();
    let (sender, mut receiver) = mpsc::channel(16);
    let collect = async {
        let mut events = Vec::new();
        while let Some(event) = receiver.recv().await {
            events.push(event);
        }
        events
    };
    let (summary, events) = tokio::join!(client.sync(job, &progress, sender), collect);
    summary.map(|summary| Run { summary, events })
}

async fn sync(client: &Client, job: SyncJob) -> Run {
    try_sync(client, job).await.expect("a connection")
}

fn job(direction: SyncDirection, local: &Path, options: &SyncOptions) -> SyncJob {
    SyncJob {
        direction,
        local: local.to_owned(),
        remote: "/tree".into(),
        options: options.clone(),
    }
}

fn up(local: &Path, options: &SyncOptions) -> SyncJob {
    job(SyncDirection::Up, local, options)
}

fn down(local: &Path, options: &SyncOptions) -> SyncJob {
    job(SyncDirection::Down, local, options)
}

fn deleting() -> SyncOptions {
    SyncOptions {
        rules: SyncRules {
            delete: true,
            ..SyncOptions::default().rules
        },
        ..SyncOptions::default()
    }
}

fn write(root: &Path, path: &str, content: impl AsRef<[u8]>) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("made");
    fs::write(path, content).expect("written");
}

fn local(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for (path, content) in files {
        write(directory.path(), path, content);
    }
    directory
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sync_sends_only_what_has_changed() {
    let server = TestServer::start().await;
    let client = log_in(&server, "alice").await;
    let tree = local(&[("a/1", "one"), ("a/b/2", "two"), ("c", "three")]);
    let options = SyncOptions::default();
    let first = sync(&client, up(tree.path(), &options)).await;
    assert_eq!((first.summary.transferred, first.summary.failed), (3, 0));
    assert_eq!(first.summary.directories, 2);
    let home = server.home("alice").join("tree");
    assert_eq!(fs::read(home.join("a/b/2")).expect("there"), b"two");
    let again = sync(&client, up(tree.path(), &options)).await;
    assert_eq!(again.actions(), [""; 0]);
    assert_eq!(
        (again.summary.unchanged, again.summary.unchanged_bytes),
        (3, 11)
    );
    write(tree.path(), "a/1", "another");
    let third = sync(&client, up(tree.path(), &options)).await;
    // The replacement changes the time of the directory.
    assert_eq!(third.actions(), ["transfer a/1", "set a"]);
    assert_eq!(fs::read(home.join("a/1")).expect("there"), b"another");
}

#[tokio::test(flavor = "multi_thread")]
async fn times_and_modes_survive_the_way_there_and_back() {
    let server = TestServer::start().await;
    let client = log_in(&server, "alice").await;
    let tree = local(&[("keys/private", "secret"), ("keys/tool", "#!")]);
    let set_mode = |path: &str, mode| {
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(tree.path().join(path), permissions).expect("set");
    };
    set_mode("keys/private", 0o600);
    set_mode("keys/tool", 0o755);
    set_mode("keys", 0o711);
    let options = SyncOptions::default();
    sync(&client, up(tree.path(), &options)).await;
    let back = tempfile::tempdir().expect("a directory");
    sync(&client, down(back.path(), &options)).await;
    for path in ["keys", "keys/private", "keys/tool"] {
        let look = |root: &Path| {
            let metadata = root.join(path).metadata().expect("there");
            (
                metadata.permissions().mode(),
                metadata.modified().expect("a time"),
            )
        };
        assert_eq!(look(tree.path()), look(back.path()), "{path}");
    }
    set_mode("keys/tool", 0o700);
    let again = sync(&client, up(tree.path(), &options)).await;
    assert_eq!(again.actions(), ["set keys/tool"]);
    sync(&client, down(back.path(), &options)).await;
    let mode = back.path().join("keys/tool").metadata().expect("there");
    assert_eq!(mode.permissions().mode() & 0o777, 0o700);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_shows_the_deletions_and_makes_none() {
    let server = TestServer::start().await;
    let client = log_in(&server, "alice").await;
    let tree = local(&[("keep", "1")]);
    let home = server.home("alice").join("tree");
    for (path, content) in [("old/x", "2"), ("old/y.bak", "3"), ("gone", "4")] {
        write(&home, path, content);
    }
    let options = SyncOptions {
        filter: FilterOptions {
            exclude: vec!["*.bak".into()],
            ..FilterOptions::default()
        },
        ..deleting()
    };
    let dry = SyncOptions {
        dry_run: true,
        ..options.clone()
    };
    let planned = sync(&client, up(tree.path(), &dry)).await;
    assert!(home.join("gone").exists() && !home.join("keep").exists());
    let done = sync(&client, up(tree.path(), &options)).await;
    // Deletions run concurrently and are reported in the order in which they end.
    let in_order = |mut actions: Vec<String>| {
        actions.sort();
        actions
    };
    assert_eq!(in_order(planned.actions()), in_order(done.actions()));
    assert_eq!(planned.summary, done.summary);
    assert_eq!(
        in_order(done.actions()),
        ["delete gone", "delete old/x", "skip old", "transfer keep"]
    );
    assert!(home.join("old/y.bak").exists() && !home.join("gone").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_file_is_moved_on_the_server_or_copied_if_nothing_is_deleted() {
    let server = TestServer::start().await;
    let client = log_in(&server, "alice").await;
    let tree = local(&[]);
    write(tree.path(), "a/film", vec![7; 300_000]);
    sync(&client, up(tree.path(), &SyncOptions::default())).await;
    fs::rename(tree.path().join("a/film"), tree.path().join("a/movie")).expect("renamed");
    let copied = sync(&client, up(tree.path(), &SyncOptions::default())).await;
    assert_eq!(copied.actions(), ["copy a/movie", "set a"]);
    assert_eq!(
        (copied.summary.transferred, copied.summary.renamed_bytes),
        (0, 300_000)
    );
    fs::rename(tree.path().join("a/movie"), tree.path().join("a/flick")).expect("renamed");
    let moved = sync(&client, up(tree.path(), &deleting())).await;
    let actions = moved.actions();
    assert_eq!(actions[0], "move a/flick");
    assert_eq!(moved.summary.transferred, 0);
    let home = server.home("alice").join("tree/a");
    let names: Vec<_> = fs::read_dir(home).expect("there").collect();
    assert_eq!(names.len(), 1, "{names:?}");
    let again = sync(&client, up(tree.path(), &deleting())).await;
    assert_eq!(again.actions(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_file_is_moved_locally_when_it_comes_down() {
    let server = TestServer::start().await;
    let client = log_in(&server, "alice").await;
    let home = server.home("alice").join("tree");
    write(&home, "film", vec![7; 300_000]);
    let tree = local(&[]);
    sync(&client, down(tree.path(), &SyncOptions::default())).await;
    fs::rename(home.join("film"), home.join("movie")).expect("renamed");
    let moved = sync(&client, down(tree.path(), &deleting())).await;
    assert_eq!(moved.actions(), ["move movie"]);
    assert_eq!(
        fs::read(tree.path().join("movie")).expect("there").len(),
        300_000
    );
    assert!(!tree.path().join("film").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_are_bounded_and_can_go_to_a_backup_directory() {
    let server = TestServer::start().await;
    let client = log_in(&server, "alice").await;
    let tree = local(&[("keep", "1")]);
    let home = server.home("alice").join("tree");
    write(&home, "old/x", "2");
    let bounded = SyncOptions {
        max_deletions: Some(1),
        ..deleting()
    };
    let refused = sync(&client, up(tree.path(), &bounded)).await;
    assert!(matches!(
        refused.events.last(),
        Some(SyncOutcome::DeletionsLeftOut {
            count: 2,
            reason: DeletionsLeftOut::TooMany
        })
    ));
    assert_eq!((refused.summary.failed, refused.summary.deleted), (1, 0));
    assert!(home.join("old/x").exists());
    let backup = SyncOptions {
        backup_directory: Some("/tree/attic".into()),
        ..deleting()
    };
    let done = sync(&client, up(tree.path(), &backup)).await;
    assert_eq!(done.actions(), ["delete old/x", "delete old"]);
    assert_eq!(fs::read(home.join("attic/old/x")).expect("there"), b"2");
    let again = sync(&client, up(tree.path(), &backup)).await;
    assert_eq!(again.actions(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_directories_replace_each_other_only_with_delete() {
    let server = TestServer::start().await;
    let client = log_in(&server, "alice").await;
    let tree = local(&[("a/inner", "1"), ("b", "2")]);
    let home = server.home("alice").join("tree");
    write(&home, "a", "file");
    write(&home, "b/inner", "file");
    let kept = sync(&client, up(tree.path(), &SyncOptions::default())).await;
    assert_eq!(kept.summary.failed, 2);
    assert!(home.join("a").is_file() && home.join("b").is_dir());
    let replaced = sync(&client, up(tree.path(), &deleting())).await;
    assert_eq!(replaced.summary.failed, 0);
    assert_eq!(fs::read(home.join("a/inner")).expect("there"), b"1");
    assert_eq!(fs::read(home.join("b")).expect("there"), b"2");
    let again = sync(&client, up(tree.path(), &deleting())).await;
    assert_eq!(again.actions(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_quota_keeps_what_fitted_lists_the_rest_and_deletes_nothing() {
    let server = TestServer::start().await;
    let limits = SpaceLimits {
        bytes: Some(100_000),
        ..SpaceLimits::default()
    };
    server.add_user("carol", limits).await;
    let client = log_in(&server, "carol").await;
    let home = server.home("carol").join("tree");
    write(&home, "surplus", "1");
    let tree = local(&[]);
    for number in 0..5 {
        write(tree.path(), &format!("{number}"), vec![number; 40_000]);
    }
    write(tree.path(), "z", "small");
    let run = sync(&client, up(tree.path(), &deleting())).await;
    assert_eq!((run.summary.transferred, run.summary.failed), (3, 4));
    assert!(home.join("surplus").exists(), "nothing is deleted");
    assert!(home.join("z").exists(), "a smaller file fits");
    let whole = fs::read_dir(&home).expect("there").map(|entry| {
        let size = entry
            .and_then(|entry| entry.metadata())
            .expect("there")
            .len();
        assert!([1, 5, 40_000].contains(&size), "{size}");
    });
    assert_eq!(whole.count(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn links_at_a_local_destination_are_neither_followed_nor_replaced() {
    let server = TestServer::start().await;
    let client = log_in(&server, "alice").await;
    let home = server.home("alice").join("tree");
    write(&home, "directory/file", "1");
    write(&home, "file", "2");
    let outside = local(&[("file", "outside")]);
    let tree = local(&[]);
    symlink(outside.path(), tree.path().join("directory")).expect("linked");
    symlink(outside.path().join("file"), tree.path().join("file")).expect("linked");
    let run = sync(&client, down(tree.path(), &deleting())).await;
    assert_eq!(run.actions(), ["skip directory", "skip file"]);
    assert_eq!(
        fs::read(outside.path().join("file")).expect("there"),
        b"outside"
    );
    assert_eq!(fs::read_dir(outside.path()).expect("there").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_does_not_exist_deletes_nothing() {
    let server = TestServer::start().await;
    let client = log_in(&server, "alice").await;
    let tree = local(&[("a", "1")]);
    let run = try_sync(&client, down(tree.path(), &deleting())).await;
    assert!(run.is_err());
    assert!(tree.path().join("a").exists());
    let home = server.home("alice").join("tree");
    write(&home, "a", "1");
    let missing = tree.path().join("missing");
    let run = try_sync(&client, up(&missing, &deleting())).await;
    assert!(run.is_err());
    assert!(home.join("a").exists());
}
