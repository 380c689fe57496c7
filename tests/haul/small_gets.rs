//! Pipelined gets of small files: read together, each with its own reply.

use std::collections::BTreeMap;
use std::fs;

use haul::client::{ClientError, FileOptions, Progress};
use haul::connection::SHORT_CHUNK_BYTES;
use serde_json::json;
use tokio::sync::mpsc;

use crate::client::log_in;
use crate::harness::{Received, TestServer, control};

#[tokio::test]
async fn a_thousand_pipelined_gets_are_each_answered_once_with_complete_content() {
    const FILES: u64 = 50;
    const GETS: u64 = 1000;
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let content = |number: u64| {
        let times = usize::try_from(number * 40).expect("a few");
        format!("{number} ").repeat(times)
    };
    for number in 0..FILES {
        let path = server.home("alice").join(number.to_string());
        fs::write(path, content(number)).expect("written");
    }
    let mut burst = Vec::new();
    for id in 1..=GETS {
        let path = match id % (FILES + 1) {
            FILES => "missing".to_owned(),
            number => number.to_string(),
        };
        burst.extend(control(&json!({"id": id, "cmd": "get", "path": path})));
    }
    alice.send_bytes(&burst).await;
    let (mut bytes, mut done): (BTreeMap<u64, Vec<u8>>, _) = (BTreeMap::new(), BTreeMap::new());
    while done.len() as u64 != GETS {
        match alice.receive().await {
            Received::Data { stream, chunk } => {
                let all = bytes.get_mut(&u64::from(stream)).expect("it has begun");
                all.extend_from_slice(&chunk);
            }
            Received::Control(reply) => {
                let id = reply["id"].as_u64().expect("an id");
                if reply["begin"].is_object() {
                    assert!(bytes.insert(id, Vec::new()).is_none(), "{id} begins twice");
                } else {
                    assert!(done.insert(id, reply).is_none(), "{id} is answered twice");
                }
            }
            Received::Closed => panic!("it hung up"),
        }
    }
    for (id, reply) in done {
        match id % (FILES + 1) {
            FILES => assert_eq!(reply["error"]["code"], "not_found"),
            number => {
                let digest = blake3::hash(content(number).as_bytes()).to_hex();
                assert_eq!(reply["ok"]["digest"], format!("blake3:{digest}"));
                assert!(bytes[&id] == content(number).as_bytes(), "{id}");
            }
        }
    }
    alice.ok(json!({"cmd": "ping"})).await;
}

#[tokio::test]
async fn a_get_that_is_cancelled_before_its_read_is_answered_and_affects_no_other() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    fs::write(server.home("alice").join("a"), "content").expect("written");
    for round in 0..50_u32 {
        let (first, second, cancel) = (round * 3 + 1, round * 3 + 2, round * 3 + 3);
        let mut burst = control(&json!({"id": first, "cmd": "get", "path": "a"}));
        burst.extend(control(&json!({"id": second, "cmd": "get", "path": "a"})));
        burst.extend(control(
            &json!({"id": cancel, "cmd": "cancel", "target": first}),
        ));
        alice.send_bytes(&burst).await;
        let mut final_replies = BTreeMap::new();
        while final_replies.len() < 3 {
            if let Received::Control(reply) = alice.receive().await
                && !reply["begin"].is_object()
            {
                final_replies.insert(reply["id"].as_u64().expect("an id"), reply);
            }
        }
        let first = &final_replies[&u64::from(first)];
        // The file may have been read already.
        assert!(
            first["ok"].is_object() || first["error"]["code"] == "cancelled",
            "{first}"
        );
        assert!(final_replies[&u64::from(second)]["ok"].is_object());
    }
}

#[tokio::test]
async fn small_and_large_files_of_a_tree_all_arrive_with_their_content() {
    let server = TestServer::start().await;
    let home = server.home("alice").join("tree");
    fs::create_dir_all(home.join("deep")).expect("made");
    let mut files = BTreeMap::new();
    for number in 0..500_usize {
        let name = format!("deep/{number}");
        files.insert(name, vec![b'x'; number * 7]);
    }
    for (name, size) in [
        ("empty", 0),
        ("chunk", SHORT_CHUNK_BYTES),
        ("more", SHORT_CHUNK_BYTES + 1),
        ("large", 3_000_000),
    ] {
        files.insert(name.to_owned(), vec![b'y'; size]);
    }
    for (name, content) in &files {
        fs::write(home.join(name), content).expect("written");
    }
    let here = tempfile::tempdir().expect("a directory");
    let alice = log_in(&server, "alice").await;
    let (sender, notes) = mpsc::channel(1);
    drop(notes);
    let progress = Progress::new();
    let roots = vec![("/tree".to_owned(), here.path().join("tree"))];
    let summary = alice
        .get_trees(roots, FileOptions::default(), &progress, sender)
        .await
        .expect("got");
    assert_eq!((summary.files, summary.failed), (files.len() as u64, 0));
    assert_eq!(progress.bytes(), progress.total_bytes());
    assert_eq!(progress.files(), files.len() as u64);
    for (name, content) in &files {
        let got = fs::read(here.path().join("tree").join(name)).expect("there");
        assert!(got == *content, "{name}");
    }
    let left = walkdir::WalkDir::new(here.path()).into_iter().count();
    assert_eq!(left, files.len() + 3, "nothing else is left behind");
}

#[tokio::test]
async fn bit_rot_of_small_and_large_files_is_an_error_and_leaves_no_local_file() {
    let server = TestServer::start().await;
    let alice = log_in(&server, "alice").await;
    let here = tempfile::tempdir().expect("a directory");
    for (name, size) in [("small", 1000), ("large", 1_000_000)] {
        let local = here.path().join(name);
        fs::write(&local, vec![b'x'; size]).expect("written");
        let options = FileOptions::default();
        alice
            .put_file(&local, name, options, &Progress::new())
            .await
            .expect("put");
        crate::transfers::bit_rot::flip_a_bit(&server.home("alice").join(name));
        fs::remove_file(&local).expect("removed");
        let got = alice
            .get_file(name, &local, options, &Progress::new())
            .await;
        assert!(
            matches!(got, Err(ClientError::DigestMismatch { .. })),
            "{got:?}"
        );
        let (sender, notes) = mpsc::channel(1);
        drop(notes);
        let roots = vec![(format!("/{name}"), local.clone())];
        let summary = alice
            .get_trees(roots, options, &Progress::new(), sender)
            .await
            .expect("the others go on");
        assert_eq!((summary.files, summary.failed), (0, 1));
        assert!(!local.exists());
    }
    assert_eq!(here.path().read_dir().expect("there").count(), 0);
}
