//! Delta transfers by haul's client library.

use std::fs;
use std::path::PathBuf;

use haul::client::{DeltaBytes, FileOptions, Progress, Session};
use tempfile::TempDir;

use crate::client::log_in;
use crate::deltas::random_bytes;
use crate::harness::TestServer;

const MIB: usize = 1024 * 1024;

/// The overhead of a delta: the list of chunks of 8 MiB, and the chunks around a few edits.
const OVERHEAD: u64 = 512 * 1024;

struct Setup {
    server: TestServer,
    session: Session,
    directory: TempDir,
}

impl Setup {
    /// A server on which alice has the file `a`, and a local copy of it.
    async fn start(content: &[u8]) -> Self {
        let server = TestServer::start().await;
        let session = Session::from(log_in(&server, "alice").await);
        fs::write(server.home("alice").join("a"), content).expect("written");
        let directory = tempfile::tempdir().expect("a directory");
        let setup = Self {
            server,
            session,
            directory,
        };
        fs::write(setup.local(), content).expect("written");
        setup
    }

    fn local(&self) -> PathBuf {
        self.directory.path().join("a")
    }

    fn remote(&self) -> PathBuf {
        self.server.home("alice").join("a")
    }

    async fn put(&self) -> DeltaBytes {
        let progress = Progress::new();
        let (local, options) = (self.local(), FileOptions::default());
        let put = self.session.put_delta(&local, "a", options, &progress);
        let (reply, bytes) = put.await.expect("put");
        assert_eq!(
            (progress.bytes(), progress.total_bytes()),
            (reply.size, reply.size)
        );
        assert_eq!(progress.files(), 1);
        assert_eq!(self.server.staged(), 0);
        bytes
    }

    async fn get(&self) -> DeltaBytes {
        let progress = Progress::new();
        let (local, options) = (self.local(), FileOptions::default());
        let get = self.session.get_delta("a", &local, options, &progress);
        let (fetched, bytes) = get.await.expect("got");
        assert_eq!(
            (progress.bytes(), progress.total_bytes()),
            (fetched.size, fetched.size)
        );
        assert_eq!(fetched.path, self.local());
        let left = self.directory.path().read_dir().expect("readable").count();
        assert_eq!(left, 1, "no part file is left");
        bytes
    }
}

/// Edited versions of a file, each with the number of added bytes.
fn edits(old: &[u8]) -> Vec<(Vec<u8>, u64)> {
    let inserted = random_bytes(9, MIB);
    let mut scattered = old.to_vec();
    for position in (0..old.len()).step_by(2 * MIB) {
        scattered[position] ^= 1;
    }
    vec![
        (old.to_vec(), 0),
        ([&inserted[..], old].concat(), MIB as u64),
        ([old, &inserted[..]].concat(), MIB as u64),
        (scattered, 0),
        (old[2 * MIB + 1..].to_vec(), 0),
        ([&old[4 * MIB..], &old[..4 * MIB]].concat(), 0),
    ]
}

fn check(bytes: DeltaBytes, size: usize, added: u64) {
    let most = added + OVERHEAD;
    assert!(bytes.transferred <= most, "{bytes:?} of {size}");
    assert!(bytes.saved + most >= size as u64, "{bytes:?} of {size}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_of_a_changed_file_sends_the_changes_only() {
    let old = random_bytes(8, 8 * MIB);
    for (new, added) in edits(&old) {
        let setup = Setup::start(&old).await;
        fs::write(setup.local(), &new).expect("written");
        let bytes = setup.put().await;
        check(bytes, new.len(), added);
        assert!(fs::read(setup.remote()).expect("stored") == new);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_of_a_changed_file_receives_the_changes_only() {
    let old = random_bytes(8, 8 * MIB);
    for (new, added) in edits(&old) {
        let setup = Setup::start(&new).await;
        fs::write(setup.local(), &old).expect("written");
        let bytes = setup.get().await;
        check(bytes, new.len(), added);
        assert!(fs::read(setup.local()).expect("stored") == new);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_or_new_file_is_transferred_completely() {
    let (small, large) = (random_bytes(1, 4 * MIB), random_bytes(2, 5 * MIB));
    for (local, remote_content) in [
        (&small, Some(&large)),
        (&large, Some(&small)),
        (&large, None),
    ] {
        let setup = Setup::start(remote_content.unwrap_or(&small)).await;
        if remote_content.is_none() {
            fs::remove_file(setup.remote()).expect("removed");
        }
        fs::write(setup.local(), local).expect("written");
        assert_eq!(setup.put().await.saved, 0);
        assert!(&fs::read(setup.remote()).expect("stored") == local);
        let content = remote_content.unwrap_or(&large);
        fs::write(setup.remote(), content).expect("written");
        match remote_content {
            Some(_) => fs::write(setup.local(), local).expect("written"),
            None => fs::remove_file(setup.local()).expect("removed"),
        }
        assert_eq!(setup.get().await.saved, 0);
        assert!(&fs::read(setup.local()).expect("stored") == content);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_link_is_replaced_by_the_complete_file() {
    let setup = Setup::start(&random_bytes(3, 5 * MIB)).await;
    let other = tempfile::NamedTempFile::new().expect("a file");
    fs::copy(setup.local(), other.path()).expect("copied");
    fs::remove_file(setup.local()).expect("removed");
    std::os::unix::fs::symlink(other.path(), setup.local()).expect("linked");
    assert_eq!(setup.get().await.saved, 0);
    assert!(setup.local().symlink_metadata().expect("there").is_file());
}
