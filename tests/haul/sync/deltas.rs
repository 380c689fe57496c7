//! Changed files that are transferred by their changes.

use super::*;
use crate::deltas::random_bytes;

const MIB: usize = 1024 * 1024;

/// Changes a file of the source twice, and syncs it by its changes and then whole.
async fn sync_twice(direction: SyncDirection) {
    let server = TestServer::start().await;
    let client = log_in(&server, "alice").await;
    let here = tempfile::tempdir().expect("a directory");
    let there = server.home("alice").join("tree");
    let old = random_bytes(8, 6 * MIB);
    write(here.path(), "changed", &old);
    write(here.path(), "new", &old[..5 * MIB]);
    write(&there, "changed", &old);
    let (source, destination) = match direction {
        SyncDirection::Up => (here.path(), &*there),
        SyncDirection::Down => (&*there, here.path()),
    };
    for (whole_files, added) in [(false, "a few bytes"), (true, "and a few more bytes")] {
        let mut new = fs::read(source.join("changed")).expect("there");
        new.splice(3 * MIB..3 * MIB, added.bytes());
        write(source, "changed", &new);
        let options = SyncOptions {
            whole_files,
            ..SyncOptions::default()
        };
        let run = sync(&client, job(direction, here.path(), &options)).await;
        let summary = run.summary;
        assert_eq!(summary.failed, 0, "{:?}", run.events);
        let saved = summary.delta_saved_bytes;
        if whole_files {
            assert_eq!(saved, 0, "{summary:?}");
        } else {
            assert!(
                saved > 5 * MIB as u64 && saved < new.len() as u64,
                "{summary:?}"
            );
            assert_eq!(summary.sent_bytes() + saved, summary.transferred_bytes);
        }
        assert!(fs::read(destination.join("changed")).expect("there") == new);
        assert_eq!(server.staged(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_sent_by_its_changes_unless_whole_files_are_wanted() {
    sync_twice(SyncDirection::Up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_received_by_its_changes_unless_whole_files_are_wanted() {
    sync_twice(SyncDirection::Down).await;
}
