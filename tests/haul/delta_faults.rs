//! Deltas while connections are lost, servers are killed and files change.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use haul::client::{
    Client, DeltaBytes, FileOptions, Progress, RetryPolicy, ServerUrl, Session, Trust,
};
use haul::protocol::{Algorithm, Digest, Secret};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use crate::daemon::ServerProcess;
use crate::deltas::random_bytes;
use crate::harness::{RawClient, Received, TestServer, control, data};
use crate::reconnecting::cutting_proxy::{Cut, CuttingProxy};
use crate::reconnecting::session;

const MIB: usize = 1024 * 1024;

/// The overhead of a delta per connection: lists of chunks, and chunks around the edits.
const OVERHEAD: u64 = 600_000;

/// An old version of 8 MiB, and a new one with 4 MiB of new bytes in four places.
fn versions() -> (Vec<u8>, Vec<u8>) {
    let (old, added) = (random_bytes(8, 8 * MIB), random_bytes(9, 4 * MIB));
    let mut new = Vec::new();
    for part in 0..4 {
        new.extend_from_slice(&added[part * MIB..(part + 1) * MIB]);
        new.extend_from_slice(&old[2 * part * MIB..(2 * part + 1) * MIB]);
    }
    (old, new)
}

fn local(content: &[u8]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a");
    fs::write(&path, content).expect("written");
    (directory, path)
}

fn entries(directory: &Path) -> usize {
    directory.read_dir().expect("readable").count()
}

/// Checks that the new version reused bytes of the old one, and that nothing was transferred twice.
fn check(bytes: DeltaBytes, moved: u64, connections: u64) {
    assert!(bytes.saved > 0, "{bytes:?}");
    let most = 4 * MIB as u64 + connections * OVERHEAD;
    assert!(moved <= most, "{moved} bytes, {bytes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_put_over_breaking_connections_succeeds_and_sends_each_byte_once() {
    let (old, new) = versions();
    let server = TestServer::start().await;
    let cuts = [
        Cut::Up(1_300_000),
        Cut::Down(50_000),
        Cut::Up(1_000_000),
        Cut::Up(100),
    ];
    let proxy = CuttingProxy::start(&server.address.to_string(), &cuts).await;
    let session = session(proxy.address).await;
    let stored = server.home("alice").join("a");
    fs::write(&stored, &old).expect("written");
    let (_directory, path) = local(&new);
    let (options, progress) = (FileOptions::default(), Progress::new());
    let put = session.put_delta(&path, "a", options, &progress);
    let (reply, bytes) = put.await.expect("put");
    assert_eq!(reply.digest, Digest::compute(Algorithm::Blake3, &new));
    check(bytes, proxy.up(), 5);
    assert!(fs::read(stored).expect("there") == new);
    assert_eq!((progress.bytes(), server.staged()), (reply.size, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_get_over_breaking_connections_succeeds_and_receives_each_byte_once() {
    let (old, new) = versions();
    let server = TestServer::start().await;
    let cuts = [
        Cut::Down(1_300_000),
        Cut::Up(500),
        Cut::Down(1_000_000),
        Cut::Down(5000),
    ];
    let proxy = CuttingProxy::start(&server.address.to_string(), &cuts).await;
    let session = session(proxy.address).await;
    fs::write(server.home("alice").join("a"), &new).expect("written");
    let (directory, path) = local(&old);
    let (options, progress) = (FileOptions::default(), Progress::new());
    let get = session.get_delta("a", &path, options, &progress);
    let (fetched, bytes) = get.await.expect("got");
    assert_eq!(
        fetched.digest,
        Some(Digest::compute(Algorithm::Blake3, &new))
    );
    check(bytes, proxy.down(), 5);
    assert!(fs::read(&path).expect("there") == new);
    assert_eq!(entries(directory.path()), 1, "no part file is left");
    assert_eq!(progress.bytes(), fetched.size);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_put_survives_a_killed_and_restarted_server() {
    let (old, new) = versions();
    let temp_dir = tempfile::tempdir().expect("a directory");
    let data = temp_dir.path().join("data");
    let daemon = {
        let data = data.clone();
        let started = spawn_blocking(move || ServerProcess::start_on(&data));
        started.await.expect("started")
    };
    let proxy = CuttingProxy::start(&daemon.address, &[Cut::Stall(2_000_000)]).await;
    let token = Secret::new(daemon.token());
    let url: ServerUrl = format!("haul+plain://{}", proxy.address)
        .parse()
        .expect("an address");
    let connect = move || {
        let (url, token) = (url.clone(), token.clone());
        async move {
            let client = Client::connect(&url, &Trust::default()).await?;
            client.login_with_token(&token).await?;
            Ok(client)
        }
    };
    let policy = RetryPolicy {
        attempts: 1000,
        first: Duration::from_millis(10),
        longest: Duration::from_millis(100),
        ..RetryPolicy::default()
    };
    let client = connect().await.expect("logged in");
    let stored = daemon.data().join("homes/admin/a");
    fs::write(&stored, &old).expect("written");
    let session = Session::new(client, policy, connect);
    let (_directory, path) = local(&new);
    let (options, progress) = (FileOptions::default(), Progress::new());
    let put = session.put_delta(&path, "a", options, &progress);
    let kill = async {
        proxy.reaches(2_000_000).await;
        let before = fs::read(&stored).expect("there");
        assert!(
            before == old,
            "the old version is complete until the new one is"
        );
        let again = spawn_blocking(move || {
            drop(daemon);
            ServerProcess::start_on(&data)
        });
        let again = again.await.expect("started");
        *proxy.target.lock().expect("no panic") = again.address.clone();
        session.client().hang_up();
        again
    };
    let (put, _again) = tokio::join!(put, kill);
    let (reply, bytes) = put.expect("put");
    assert_eq!(reply.digest, Digest::compute(Algorithm::Blake3, &new));
    assert!(bytes.saved > 0, "{bytes:?}");
    assert!(fs::read(&stored).expect("there") == new);
}

/// A file of 3 MiB, and a put by alice that has begun with the file as its base.
async fn begun_put() -> (TestServer, RawClient, Vec<u8>) {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    let old = random_bytes(3, 3 * MIB);
    client.put("a", &old).await;
    let version = client.ok(json!({"cmd": "stat", "path": "a"})).await["version"].take();
    let put = json!({"id": 7, "cmd": "put", "path": "a", "size": 2 * MIB + 3, "base": version});
    client.send(put).await;
    assert!(client.reply().await.get("begin").is_some());
    (server, client, old)
}

/// Copies the first 2 MiB of the base, adds three bytes, and ends the put with the expected digest.
async fn finish_put(client: &mut RawClient, old: &[u8]) -> Value {
    let new = [&old[..2 * MIB], b"new"].concat();
    let digest = Digest::compute(Algorithm::Blake3, &new).to_string();
    let mut burst = control(&json!({"id": 7, "cmd": "copy", "offset": 0, "length": 2 * MIB}));
    burst.extend(data(7, b"new"));
    burst.extend(control(&json!({"id": 7, "cmd": "end", "digest": digest})));
    client.send_bytes(&burst).await;
    client.final_reply(7).await
}

#[tokio::test]
async fn a_base_that_is_replaced_or_removed_during_the_put_can_still_be_copied_from() {
    for change in ["replace", "remove"] {
        let (server, mut client, old) = begun_put().await;
        let mut other = server.log_in("alice").await;
        if change == "replace" {
            other.put("a", b"other").await;
        } else {
            other.ok(json!({"cmd": "rm", "path": "a"})).await;
        }
        let reply = finish_put(&mut client, &old).await;
        assert_eq!(reply["ok"]["size"], 2 * MIB + 3, "{change}: {reply}");
        let (content, _) = client.get(json!({"cmd": "get", "path": "a"})).await;
        assert!(content == [&old[..2 * MIB], b"new"].concat());
        let used = client.ok(json!({"cmd": "df"})).await["used"].take();
        assert_eq!(used, 2 * MIB + 3, "{change}: the quota is exact");
        assert_eq!(server.staged(), 0);
    }
}

#[tokio::test]
async fn a_base_that_is_modified_in_place_fails_the_put_and_nothing_else() {
    for content in [vec![b'x'; 3 * MIB], vec![b'x'; 5]] {
        let (server, mut client, old) = begun_put().await;
        fs::write(server.home("alice").join("a"), &content).expect("written");
        let reply = finish_put(&mut client, &old).await;
        assert_eq!(reply["error"]["code"], "changed", "{reply}");
        let stored = fs::read(server.home("alice").join("a")).expect("there");
        assert!(stored == content);
        client.ok(json!({"cmd": "ping"})).await;
        assert_eq!(server.staged(), 0);
    }
}

#[tokio::test]
async fn thousands_of_tiny_and_overlapping_copies_make_one_file() {
    let (server, mut client, old) = begun_put().await;
    // 20,000 copies of one byte, then overlapping copies of almost the complete base.
    let mut burst = Vec::new();
    let mut new = Vec::new();
    let mut copy = |offset: usize, length: usize| {
        let copy = json!({"id": 7, "cmd": "copy", "offset": offset, "length": length});
        burst.extend(control(&copy));
        new.extend_from_slice(&old[offset..offset + length]);
    };
    for number in 0..20_000 {
        copy(number * 7 % (3 * MIB), 1);
    }
    copy(5, MIB);
    copy(6, MIB + 3 - 20_000);
    let digest = Digest::compute(Algorithm::Blake3, &new).to_string();
    burst.extend(control(&json!({"id": 7, "cmd": "end", "digest": digest})));
    client.send_bytes(&burst).await;
    let reply = client.final_reply(7).await;
    assert_eq!(reply["ok"]["size"], 2 * MIB + 3, "{reply}");
    assert!(fs::read(server.home("alice").join("a")).expect("there") == new);
}

/// More bytes than the socket buffers hold.
const LONG: usize = 64 * MIB;

#[tokio::test]
async fn ranges_of_a_replaced_file_are_of_the_old_version_and_those_of_a_truncated_file_fail() {
    let ranges = json!([[1, 10], [MIB, LONG - MIB]]);
    for is_replaced in [true, false] {
        let server = TestServer::start().await;
        let mut client = server.log_in("alice").await;
        let path = server.home("alice").join("a");
        fs::File::create(&path)
            .and_then(|file| file.set_len(LONG as u64))
            .expect("made");
        let get = json!({
            "id": 6, "cmd": "get", "path": "a", "ranges": ranges, "digest": "none",
        });
        client.send(get).await;
        assert!(client.reply().await.get("begin").is_some());
        if is_replaced {
            server.log_in("alice").await.put("a", b"other").await;
        } else {
            fs::write(&path, "other").expect("written");
        }
        let mut received = 0;
        let reply = loop {
            match client.receive().await {
                Received::Data { stream: 6, chunk } => {
                    assert!(!is_replaced || chunk.iter().all(|byte| *byte == 0));
                    received += chunk.len();
                }
                Received::Control(reply) => break reply,
                other => panic!("{other:?}"),
            }
        };
        if is_replaced {
            assert_eq!(reply["ok"]["size"], LONG, "{reply}");
            assert_eq!(received, LONG - MIB + 10);
        } else {
            assert_eq!(reply["error"]["code"], "changed", "{reply}");
        }
        client.ok(json!({"cmd": "ping"})).await;
    }
}
