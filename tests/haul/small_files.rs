//! Pipelined puts of small files: committed together, each with its own reply.

use std::collections::BTreeMap;
use std::path::Path;

use haul::client::{Client, FileOptions, Progress, TreeEvent};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::client::log_in;
use crate::harness::{RawClient, TestServer, control, data};

/// The frames of a complete put.
fn put(id: u32, path: &str, content: &[u8], more: &Value) -> Vec<u8> {
    let mut request = json!({"id": id, "cmd": "put", "path": path, "size": content.len()});
    let mut end = json!({"id": id, "cmd": "end"});
    for (name, value) in more.as_object().expect("fields") {
        let of = if name == "end" {
            &mut end
        } else {
            &mut request
        };
        let name = if name == "end" { "digest" } else { name };
        of[name] = value.clone();
    }
    let mut bytes = control(&request);
    if !content.is_empty() {
        bytes.extend(data(id, content));
    }
    bytes.extend(control(&end));
    bytes
}

/// The final replies of `count` requests, each after its begin frame.
async fn replies(client: &mut RawClient, count: usize) -> BTreeMap<u64, Value> {
    let (mut begun, mut done) = (Vec::new(), BTreeMap::new());
    while done.len() < count {
        let reply = client.reply().await;
        let id = reply["id"].as_u64().expect("an id");
        if reply["begin"].is_object() {
            assert_eq!(reply["begin"]["offset"], 0);
            begun.push(id);
        } else {
            let is_put = reply["ok"]["path"].is_string();
            assert!(!is_put || begun.contains(&id), "{reply}");
            assert!(done.insert(id, reply).is_none(), "{id} is answered twice");
        }
    }
    done
}

#[tokio::test]
async fn each_small_put_of_a_burst_has_its_own_reply_and_a_bad_one_affects_no_other() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let wrong = blake3::hash(b"something else").to_hex();
    let right = blake3::hash(b"right").to_hex();
    let mut burst = put(1, "a", b"first", &json!({}));
    burst.extend(put(
        2,
        "wrong",
        b"wrong",
        &json!({"end": format!("blake3:{wrong}")}),
    ));
    burst.extend(put(
        3,
        "right",
        b"right",
        &json!({"end": format!("blake3:{right}")}),
    ));
    burst.extend(put(4, "a", b"second", &json!({"if_exists": "rename"})));
    burst.extend(put(5, "a", b"third", &json!({"if_exists": "fail"})));
    burst.extend(put(6, "new/dir/b", b"deep", &json!({"parents": true})));
    burst.extend(put(7, "none/c", b"nowhere", &json!({})));
    burst.extend(put(8, "empty", b"", &json!({})));
    burst.extend(put(9, "\u{1}", b"bad name", &json!({})));
    burst.extend(put(10, "short", b"abc", &json!({"size": 4})));
    burst.extend(put(11, "md5", b"right", &json!({"digest": "md5"})));
    alice.send_bytes(&burst).await;
    let done = replies(&mut alice, 11).await;
    let code = |id| done[&id]["error"]["code"].as_str();
    for id in [1, 3, 4, 6, 8, 11] {
        assert_eq!(code(id), None, "{}", done[&id]);
    }
    assert_eq!(code(2), Some("digest_mismatch"));
    assert_eq!(done[&3]["ok"]["digest"], format!("blake3:{right}"));
    assert_eq!(done[&4]["ok"]["path"], "/a (1)");
    assert_eq!(code(5), Some("exists"));
    assert_eq!(code(7), Some("not_found"));
    assert_eq!(code(9), Some("invalid_path"));
    assert_eq!(code(10), Some("size_mismatch"));
    assert!(
        done[&11]["ok"]["digest"]
            .as_str()
            .expect("text")
            .starts_with("md5:")
    );
    let home = server.home("alice");
    let read = |path| std::fs::read(home.join(path)).expect("there");
    assert_eq!(read("a"), b"first");
    assert_eq!(read("a (1)"), b"second");
    assert_eq!(read("new/dir/b"), b"deep");
    assert_eq!(read("empty"), b"");
    assert_eq!(server.staged(), 0);
}

#[tokio::test]
async fn a_small_put_whose_data_is_delayed_gets_its_begin_frame_first() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let mut bytes = put(1, "before", b"whole", &json!({}));
    bytes.extend(control(
        &json!({"id": 2, "cmd": "put", "path": "a", "size": 6}),
    ));
    alice.send_bytes(&bytes).await;
    let mut begun = false;
    let mut done = false;
    while !(begun && done) {
        let reply = alice.reply().await;
        begun |= reply["id"] == 2 && reply["begin"].is_object();
        done |= reply["id"] == 1 && reply["ok"].is_object();
    }
    alice.send_bytes(&data(2, b"abc")).await;
    alice.ok(json!({"id": 3, "cmd": "ping"})).await;
    alice.send_bytes(&data(2, b"def")).await;
    alice.send(json!({"id": 2, "cmd": "end"})).await;
    assert!(alice.final_reply(2).await["ok"].is_object());
    let stored = std::fs::read(server.home("alice").join("a")).expect("there");
    assert_eq!(stored, b"abcdef");
}

#[tokio::test]
async fn small_puts_with_interleaved_frames_each_store_their_own_bytes() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let mut bytes = Vec::new();
    for id in 1..=20 {
        let request = json!({"id": id, "cmd": "put", "path": format!("f{id}"), "size": 4});
        bytes.extend(control(&request));
        bytes.extend(data(id, b"ab"));
    }
    for id in 1..=20_u32 {
        bytes.extend(data(id, &[b'0', u8::try_from(id).expect("few")]));
        bytes.extend(control(&json!({"id": id, "cmd": "end"})));
    }
    alice.send_bytes(&bytes).await;
    let done = replies(&mut alice, 20).await;
    assert!(done.values().all(|reply| reply["ok"].is_object()));
    for id in 1..=20 {
        let stored = std::fs::read(server.home("alice").join(format!("f{id}"))).expect("there");
        assert_eq!(stored, [b'a', b'b', b'0', id]);
    }
}

#[tokio::test]
async fn excess_data_in_a_burst_is_a_bad_frame_and_leaves_nothing_of_that_put() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let mut bytes = control(&json!({"id": 1, "cmd": "put", "path": "a", "size": 3}));
    bytes.extend(data(1, b"abcd"));
    alice.send_bytes(&bytes).await;
    alice.refuses("bad_frame").await;
    assert!(!server.home("alice").join("a").exists());
}

#[tokio::test]
async fn a_small_put_that_is_complete_when_the_client_stops_sending_is_committed() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let mut bytes = Vec::new();
    for id in 1..=100 {
        bytes.extend(put(id, &format!("f{id}"), b"content", &json!({})));
    }
    bytes.extend(control(&json!({"id": 101, "cmd": "quit"})));
    alice.send_bytes(&bytes).await;
    let done = replies(&mut alice, 101).await;
    assert!(done.values().all(|reply| reply["ok"].is_object()));
    let files = std::fs::read_dir(server.home("alice")).expect("readable");
    assert_eq!(files.count(), 100);
}

fn tree(root: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    let below = walkdir::WalkDir::new(root).min_depth(1).into_iter();
    let each = below.map(|entry| {
        let entry = entry.expect("readable");
        let name = entry.path().strip_prefix(root).expect("below");
        let content = entry.file_type().is_file();
        let content = content.then(|| std::fs::read(entry.path()).expect("readable"));
        (name.display().to_string(), content)
    });
    each.collect()
}

async fn put_tree(
    client: &Client,
    from: &Path,
    options: FileOptions,
) -> (haul::client::TreeSummary, Vec<String>) {
    let (notes, mut received) = mpsc::channel(16);
    let roots = vec![(from.to_owned(), "/up".to_owned())];
    let progress = Progress::new();
    let putting = client.put_trees(roots, options, &progress, notes);
    let listening = async {
        let mut failed = Vec::new();
        while let Some(note) = received.recv().await {
            if let TreeEvent::Failed { error, .. } = note {
                failed.push(error.to_string());
            }
        }
        failed
    };
    let (summary, failed) = tokio::join!(putting, listening);
    let summary = summary.expect("put");
    assert_eq!(progress.files(), summary.files);
    if failed.is_empty() {
        assert_eq!(progress.bytes(), progress.total_bytes());
    }
    (summary, failed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_of_two_thousand_files_is_stored_unchanged_twice() {
    let server = TestServer::start().await;
    let here = tempfile::tempdir().expect("a directory");
    for number in 0..2000_usize {
        let dir = here.path().join(format!("d{}/e{}", number % 7, number % 3));
        std::fs::create_dir_all(&dir).expect("made");
        let content = number.to_string().repeat(number % 500);
        std::fs::write(dir.join(format!("f{number}")), content).expect("written");
    }
    std::fs::create_dir(here.path().join("empty")).expect("made");
    std::fs::write(here.path().join("large"), vec![b'l'; 300_000]).expect("written");
    let client = log_in(&server, "alice").await;
    for _ in 0..2 {
        let (summary, failed) = put_tree(&client, here.path(), FileOptions::default()).await;
        assert_eq!((summary.files, summary.failed), (2001, 0), "{failed:?}");
        assert_eq!(tree(&server.home("alice").join("up")), tree(here.path()));
    }
    let keep = FileOptions {
        if_exists: Some(haul::protocol::IfExists::Fail),
        ..FileOptions::default()
    };
    let (summary, failed) = put_tree(&client, here.path(), keep).await;
    assert_eq!((summary.files, failed.len()), (0, 2001));
    assert_eq!(server.staged(), 0);
}
