//! A file in the place of a directory and the reverse: the old one stays until the new one is complete.

use std::fs;
use std::path::Path;

use haul::client::sync::{DeletionsLeftOut, SyncOptions, SyncOutcome};
use haul::storage::SpaceLimits;

use super::{Run, deleting, down, local, sync, up, write};
use crate::client::log_in;
use crate::harness::TestServer;

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = names
        .map(|name| name.into_string().expect("UTF-8"))
        .collect();
    names.sort_unstable();
    names
}

fn deletions_left_out(run: &Run) -> Option<DeletionsLeftOut> {
    run.events.iter().find_map(|event| match event {
        SyncOutcome::DeletionsLeftOut { reason, .. } => Some(*reason),
        _ => None,
    })
}

/// Writes other content of the same length, and sets the time back: the digest that is kept with the
/// file differs then.
fn damage(path: &Path) {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    let length = fs::metadata(path).expect("there").len();
    let file = fs::File::options().write(true).open(path).expect("opened");
    std::io::Write::write_all(
        &mut &file,
        &vec![b'?'; usize::try_from(length).expect("small")],
    )
    .expect("written");
    file.set_modified(modified.expect("a time")).expect("set");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_another_kind_are_replaced_in_both_directions() {
    let server = TestServer::start().await;
    let client = log_in(&server, "alice").await;
    let home = server.home("alice").join("tree");
    write(&home, "a/old", "1");
    write(&home, "b", "2");
    let tree = local(&[("a", "file"), ("b/c/new", "3")]);
    let run = sync(&client, up(tree.path(), &deleting())).await;
    assert_eq!(
        (run.summary.failed, run.summary.deleted),
        (0, 3),
        "{:?}",
        run.events
    );
    assert_eq!(names(&home), ["a", "b"]);
    assert_eq!(fs::read_to_string(home.join("a")).expect("there"), "file");
    assert_eq!(
        fs::read_to_string(home.join("b/c/new")).expect("there"),
        "3"
    );
    let other = local(&[("a/old", "1"), ("b", "2")]);
    let run = sync(&client, down(other.path(), &deleting())).await;
    assert_eq!(
        (run.summary.failed, run.summary.deleted),
        (0, 3),
        "{:?}",
        run.events
    );
    assert_eq!(names(other.path()), ["a", "b"]);
    assert_eq!(
        fs::read_to_string(other.path().join("a")).expect("there"),
        "file"
    );
    let again = sync(&client, down(other.path(), &deleting())).await;
    assert_eq!(again.actions(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_stays_if_the_file_in_its_place_does_not_fit() {
    let server = TestServer::start().await;
    let limits = SpaceLimits {
        bytes: Some(100_000),
        ..SpaceLimits::default()
    };
    server.add_user("carol", limits).await;
    let client = log_in(&server, "carol").await;
    let home = server.home("carol").join("tree");
    write(&home, "a/old", "1");
    write(&home, "b", "2");
    let tree = local(&[("b/new", "3")]);
    write(tree.path(), "a", vec![0; 200_000]);
    let run = sync(&client, up(tree.path(), &deleting())).await;
    assert_eq!(
        deletions_left_out(&run),
        Some(DeletionsLeftOut::AfterFailure)
    );
    assert!(run.summary.failed > 0);
    assert_eq!(names(&home), ["a", "b"], "nothing temporary is left");
    assert_eq!(fs::read_to_string(home.join("a/old")).expect("there"), "1");
    assert_eq!(fs::read_to_string(home.join("b")).expect("there"), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn local_entries_stay_if_what_replaces_them_cannot_be_read() {
    let server = TestServer::start().await;
    let client = log_in(&server, "alice").await;
    let source = local(&[("a", "file"), ("b/new", "3"), ("b/damaged", "4")]);
    sync(&client, up(source.path(), &SyncOptions::default())).await;
    damage(&server.home("alice").join("tree/b/damaged"));
    let tree = local(&[("a/old", "1"), ("b", "2")]);
    let run = sync(&client, down(tree.path(), &deleting())).await;
    assert_eq!(
        deletions_left_out(&run),
        Some(DeletionsLeftOut::AfterFailure)
    );
    assert_eq!(names(tree.path()), ["a", "b"], "nothing temporary is left");
    let read = |path: &str| fs::read_to_string(tree.path().join(path)).expect("there");
    assert_eq!((read("a/old"), read("b")), ("1".into(), "2".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_directory_keeps_what_is_replaced_and_what_is_renamed() {
    let server = TestServer::start().await;
    let client = log_in(&server, "alice").await;
    let home = server.home("alice");
    write(&home, "tree/changed", "old");
    write(&home, "tree/before", "the same");
    let tree = local(&[("changed", "newer"), ("after", "the same")]);
    let mut options = deleting();
    options.backup_directory = Some("/backup".into());
    let run = sync(&client, up(tree.path(), &options)).await;
    assert_eq!(run.summary.failed, 0, "{:?}", run.events);
    assert_eq!(names(&home.join("tree")), ["after", "changed"]);
    assert_eq!(names(&home.join("backup")), ["before", "changed"]);
    let read = |path: &str| fs::read_to_string(home.join(path)).expect("there");
    assert_eq!(
        (read("tree/changed"), read("backup/changed")),
        ("newer".into(), "old".into())
    );

    let other = local(&[("changed", "local"), ("before", "the same")]);
    let kept = tempfile::tempdir().expect("a directory");
    options.backup_directory = Some(kept.path().display().to_string());
    let run = sync(&client, down(other.path(), &options)).await;
    assert_eq!(run.summary.failed, 0, "{:?}", run.events);
    assert_eq!(names(other.path()), ["after", "changed"]);
    assert_eq!(names(kept.path()), ["before", "changed"]);
    let read = |path: &Path| fs::read_to_string(path.join("changed")).expect("there");
    assert_eq!(
        (read(other.path()), read(kept.path())),
        ("newer".into(), "local".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn renames_count_as_deletions() {
    let server = TestServer::start().await;
    let client = log_in(&server, "alice").await;
    let home = server.home("alice").join("tree");
    write(&home, "before", "the same");
    let tree = local(&[("after", "the same")]);
    let mut options = deleting();
    options.max_deletions = Some(0);
    let run = sync(&client, up(tree.path(), &options)).await;
    assert_eq!(deletions_left_out(&run), Some(DeletionsLeftOut::TooMany));
    assert_eq!(names(&home), ["after", "before"]);
    options.max_deletions = Some(1);
    let run = sync(&client, up(tree.path(), &options)).await;
    assert_eq!((run.summary.failed, run.summary.deleted), (0, 1));
    assert_eq!(names(&home), ["after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_the_way_is_a_failure_and_a_missing_source_makes_no_directory() {
    let server = TestServer::start().await;
    let client = log_in(&server, "alice").await;
    let source = local(&[("a", "new"), ("b", "new")]);
    sync(&client, up(source.path(), &SyncOptions::default())).await;
    let tree = local(&[("b", "old")]);
    std::os::unix::fs::symlink("b", tree.path().join("a")).expect("linked");
    let run = sync(&client, down(tree.path(), &deleting())).await;
    assert_eq!(run.summary.failed, 1, "{:?}", run.events);
    assert!(tree.path().join("a").is_symlink());
    assert_eq!(
        fs::read_to_string(tree.path().join("b")).expect("there"),
        "new"
    );
    let target = tree.path().join("made");
    let mut job = down(&target, &SyncOptions::default());
    job.remote = "/nothing".into();
    super::try_sync(&client, job)
        .await
        .err()
        .expect("no source");
    assert!(!target.exists());
}
