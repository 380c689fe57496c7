//! The modification times and permission bits of files and directories.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use haul::client::{FileOptions, Progress};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::client::log_in;
use crate::harness::{RawClient, TestServer, control, data};

const TIME: &str = "2020-02-02T02:02:02.000000002Z";

async fn stat(client: &mut RawClient, path: &str) -> (Value, Value) {
    let mut stat = client.ok(json!({"cmd": "stat", "path": path})).await;
    (stat["modified"].take(), stat["mode"].take())
}

/// Puts a file of `size` bytes, with a time and a mode.
async fn put(client: &mut RawClient, path: &str, size: usize, mode: u32) {
    let put =
        json!({"id": 7, "cmd": "put", "path": path, "size": size, "modified": TIME, "mode": mode});
    let mut bytes = control(&put);
    bytes.extend(data(7, &vec![7; size]));
    bytes.extend(control(&json!({"id": 7, "cmd": "end"})));
    client.send_bytes(&bytes).await;
    let reply = client.final_reply(7).await;
    assert!(reply["ok"].is_object(), "{reply}");
}

#[tokio::test]
async fn a_mode_is_returned_as_it_was_put() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    let hello = client.ok(json!({"cmd": "hello"})).await;
    let features = hello["features"].as_array().expect("features");
    assert!(features.contains(&json!("mode")), "{hello}");
    put(&mut client, "small", 10, 0o600).await;
    put(&mut client, "large", 300_000, 0o755).await;
    client
        .ok(json!({"cmd": "mkdir", "path": "dir", "mode": 0o711}))
        .await;
    client.put("plain", b"text").await;
    let server = server.restart().await;
    let mut client = server.log_in("alice").await;
    assert_eq!(
        stat(&mut client, "small").await,
        (json!(TIME), json!(0o600))
    );
    assert_eq!(
        stat(&mut client, "large").await,
        (json!(TIME), json!(0o755))
    );
    assert_eq!(stat(&mut client, "dir").await.1, json!(0o711));
    assert_eq!(stat(&mut client, "plain").await.1, Value::Null);
    let listed = client.ok(json!({"cmd": "ls"})).await;
    let modes = listed["entries"].as_array().expect("entries").iter();
    let modes: Vec<_> = modes.map(|entry| entry["mode"].clone()).collect();
    let expected = [json!(0o711), json!(0o755), Value::Null, json!(0o600)];
    assert_eq!(modes, expected);
    for (path, mode) in [("small", json!(0o600)), ("plain", Value::Null)] {
        client
            .send(json!({"id": 9, "cmd": "get", "path": path}))
            .await;
        let begin = client.reply().await;
        assert_eq!(begin["begin"]["mode"], mode, "{begin}");
        client.receive().await;
        assert!(client.reply().await["ok"].is_object());
    }
}

#[tokio::test]
async fn time_and_mode_can_be_changed_without_the_content() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.put("file", b"text").await;
    client.ok(json!({"cmd": "mkdir", "path": "dir"})).await;
    let before = client.ok(json!({"cmd": "stat", "path": "file"})).await;
    for path in ["file", "dir", "/"] {
        let set = json!({"cmd": "setstat", "path": path, "modified": TIME, "mode": 0o750});
        let mut reply = client.ok(set).await;
        assert_eq!(reply["path"].take(), format!("/{}", path.trim_matches('/')));
        assert_eq!(
            reply,
            json!({"path": null, "modified": TIME, "mode": 0o750})
        );
        assert_eq!(stat(&mut client, path).await, (json!(TIME), json!(0o750)));
    }
    let set = json!({"cmd": "setstat", "path": "dir", "mode": 0});
    assert_eq!(client.ok(set).await, json!({"path": "/dir", "mode": 0}));
    assert_eq!(stat(&mut client, "dir").await, (json!(TIME), json!(0)));
    let after = client.ok(json!({"cmd": "stat", "path": "file"})).await;
    for member in ["version", "digest", "size"] {
        assert_eq!(after[member], before[member], "{member}");
    }
    let version = &before["version"];
    let get = json!({"cmd": "get", "path": "file", "version": version});
    assert_eq!(client.get(get).await.0, b"text");
}

#[tokio::test]
async fn an_invalid_mode_and_an_empty_change_are_refused_with_their_field() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    for (request, field) in [
        (json!({"cmd": "mkdir", "path": "d", "mode": 512}), "mode"),
        (json!({"cmd": "mkdir", "path": "d", "mode": "755"}), "mode"),
        (json!({"cmd": "setstat", "path": "/", "mode": -1}), "mode"),
        (json!({"cmd": "setstat", "path": "/"}), "modified"),
        (json!({"cmd": "setstat", "mode": 0}), "path"),
    ] {
        let (code, error) = client.error(request.clone()).await;
        assert_eq!(code, "bad_request", "{request}");
        assert_eq!(error["field"], field, "{request}: {error}");
    }
    let set = json!({"cmd": "setstat", "path": "nothing", "mode": 0});
    client.fails(set, "not_found").await;
    assert!(client.ok(json!({"cmd": "ls"})).await["entries"] == json!([]));
}

/// The mode and the time of all entries in a directory, by path.
fn metadata(directory: &Path) -> BTreeMap<String, (u32, i64, i64)> {
    let entries = walkdir::WalkDir::new(directory).into_iter();
    entries
        .map(|entry| {
            let entry = entry.expect("readable");
            let path = entry.path().strip_prefix(directory).expect("in it");
            let meta = entry.metadata().expect("there");
            let found = (meta.mode() & 0o777, meta.mtime(), meta.mtime_nsec());
            (path.display().to_string(), found)
        })
        .collect()
}

#[tokio::test]
async fn a_tree_comes_back_with_the_modes_and_times_of_files_and_directories() {
    let server = TestServer::start().await;
    let client = log_in(&server, "alice").await;
    let temp_dir = tempfile::tempdir().expect("a directory");
    let tree = temp_dir.path().join("tree");
    fs::create_dir_all(tree.join("keys/old")).expect("made");
    fs::create_dir(tree.join("empty")).expect("made");
    fs::write(tree.join("keys/private.key"), "secret").expect("written");
    fs::write(tree.join("keys/old/large"), vec![7; 300_000]).expect("written");
    fs::write(tree.join("tool"), "text").expect("written");
    for (age, (path, mode)) in (1..).zip([
        ("keys/private.key", 0o600),
        ("keys/old/large", 0o400),
        ("tool", 0o755),
        ("keys/old", 0o711),
        ("keys", 0o700),
        ("empty", 0o500),
        ("", 0o750),
    ]) {
        let path = tree.join(path);
        let open = File::open(&path).expect("opened");
        let time = SystemTime::now() - Duration::from_secs(age * 1000);
        open.set_modified(time).expect("set");
        open.set_permissions(Permissions::from_mode(mode))
            .expect("set");
    }
    let (progress, options) = (Progress::new(), FileOptions::default());
    let (sender, notes) = mpsc::channel(1);
    drop(notes);
    let up = vec![(tree.clone(), "/copy".to_owned())];
    let up = client.put_trees(up, options, &progress, sender.clone());
    assert_eq!(up.await.expect("put").failed, 0);
    let back = temp_dir.path().join("back");
    let down = vec![("/copy".to_owned(), back.clone())];
    let down = client.get_trees(down, options, &progress, sender);
    assert_eq!(down.await.expect("got").failed, 0);
    assert_eq!(metadata(&back), metadata(&tree));
    let on_disk = server.home("alice").join("copy/keys/private.key");
    let mode = fs::metadata(on_disk).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let single = temp_dir.path().join("single.key");
    let got = client.get_file("/copy/keys/private.key", &single, options, &progress);
    got.await.expect("got");
    assert_eq!(fs::metadata(&single).expect("there").mode() & 0o777, 0o600);
    client
        .put_file(&single, "/single", options, &progress)
        .await
        .expect("put");
    let stat = client.stat("/single").await.expect("there");
    assert_eq!(
        stat.entry.mode.map(haul::protocol::FileMode::bits),
        Some(0o600)
    );
}
