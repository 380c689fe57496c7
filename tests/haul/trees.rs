//! Recursive listings over the wire.

use haul::client::Session;
use haul::protocol::{ErrorCode, FileMode, SetStat};
use serde_json::{Value, json};

use crate::client::log_in;
use crate::harness::{RawClient, Received, TestServer};

/// The lines for these files have 16 MiB.
const FILES: usize = 10_000;

/// Requests a recursive listing; returns its `begin`, its lines and its final reply.
async fn tree(client: &mut RawClient, request: Value) -> (Value, Vec<Value>, Value) {
    client.send(request).await;
    let begin = client.reply().await;
    let mut lines = Vec::new();
    if begin["begin"].is_null() {
        return (Value::Null, lines, begin);
    }
    loop {
        match client.receive().await {
            Received::Data { chunk, .. } => {
                let text = String::from_utf8(chunk).expect("UTF-8");
                assert!(text.ends_with('\n'), "a frame has whole lines");
                lines.extend(
                    text.lines()
                        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")),
                );
            }
            Received::Control(reply) => return (begin, lines, reply),
            Received::Closed => panic!("closed in the middle of a listing"),
        }
    }
}

fn names(lines: &[Value]) -> Vec<&str> {
    let names = lines.iter().map(|line| line["name"].as_str());
    names.map(|name| name.expect("a name")).collect()
}

#[tokio::test]
async fn a_tree_is_listed_in_one_reply_and_continued_from_a_cursor() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    let hello = client.ok(json!({"cmd": "hello"})).await;
    let features = hello["features"].as_array().expect("features");
    assert!(features.contains(&json!("recursive")), "{hello}");
    for path in ["top/a/b", "top/a-b", "top/c"] {
        let put =
            json!({"id": 3, "cmd": "put", "path": path, "size": 0, "parents": true, "mode": 0o600});
        client.send(put).await;
        client.send(json!({"id": 3, "cmd": "end"})).await;
        assert!(client.final_reply(3).await["ok"].is_object());
    }
    let request = json!({"id": 4, "cmd": "ls", "path": "top", "recursive": true});
    let (begin, lines, reply) = tree(&mut client, request).await;
    assert_eq!(begin, json!({"id": 4, "begin": {"path": "/top"}}));
    assert_eq!(names(&lines), ["a", "a/b", "a-b", "c"]);
    assert_eq!(reply, json!({"id": 4, "ok": {"entries": []}}));
    let stat = client.ok(json!({"cmd": "stat", "path": "top/a/b"})).await;
    assert_eq!(
        lines[1],
        json!({"name": "a/b", "kind": "file", "size": 0, "modified": stat["modified"], "mode": 0o600})
    );
    assert_eq!(lines[0]["kind"], "dir");
    client.ok(json!({"cmd": "cd", "path": "top"})).await;
    let mut found = Vec::new();
    let mut request = json!({"cmd": "ls", "recursive": true, "digests": true, "limit": 1});
    loop {
        let (_, lines, reply) = tree(&mut client, request.clone()).await;
        found.extend(lines);
        request["cursor"] = match &reply["ok"]["cursor"] {
            Value::Null => break,
            cursor => cursor.clone(),
        };
        assert_eq!(request["cursor"], found[found.len() - 1]["name"]);
    }
    assert_eq!(names(&found), ["a", "a/b", "a-b", "c"]);
    for member in ["version", "digest"] {
        assert_eq!(found[1][member], stat[member]);
    }
}

#[tokio::test]
async fn a_tree_that_cannot_be_listed_is_refused_without_a_line() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.put("file", b"").await;
    for (fields, code) in [
        (json!({"path": "nowhere", "recursive": true}), "not_found"),
        (
            json!({"path": "file", "recursive": true}),
            "not_a_directory",
        ),
        (json!({"cursor": "../x", "recursive": true}), "bad_request"),
        (json!({"digests": true}), "bad_request"),
        (json!({"limit": 0, "recursive": true}), "bad_request"),
    ] {
        let mut request = fields;
        request["cmd"] = json!("ls");
        client.fails(request, code).await;
    }
}

#[tokio::test]
async fn an_unread_listing_can_be_cancelled_and_delays_no_other_session() {
    let server = TestServer::start().await;
    let home = server.home("alice");
    let mut client = server.log_in("alice").await;
    // The lines exceed the queues and buffers between server and client.
    let directory = ["x".repeat(250).as_str(); 6].join("/");
    std::fs::create_dir_all(home.join(&directory)).expect("made");
    for number in 0..FILES {
        std::fs::write(home.join(&directory).join(number.to_string()), "").expect("written");
    }
    let request = json!({"id": 5, "cmd": "ls", "recursive": true});
    client.send(request.clone()).await;
    let mut other = server.log_in("alice").await;
    other.ok(json!({"cmd": "ls"})).await;
    let (_, lines, reply) = tree(&mut other, request).await;
    assert_eq!(
        (lines.len(), &reply["ok"]),
        (6 + FILES, &json!({"entries": []}))
    );
    client
        .send(json!({"id": 6, "cmd": "cancel", "target": 5}))
        .await;
    let (mut is_cancelled, mut is_over) = (false, false);
    while !(is_cancelled && is_over) {
        match client.receive().await {
            Received::Control(reply) if reply["id"] == 6 => {
                assert!(reply["ok"].is_object(), "{reply}");
                is_cancelled = true;
            }
            Received::Control(reply) if reply.get("begin").is_none() => {
                assert_eq!(reply["error"]["code"], "cancelled", "{reply}");
                is_over = true;
            }
            Received::Closed => panic!("the session goes on"),
            _ => {}
        }
    }
    client.ok(json!({"cmd": "pwd"})).await;
}

#[tokio::test]
async fn the_client_reads_a_tree_entry_by_entry() {
    let server = TestServer::start().await;
    let client = log_in(&server, "alice").await;
    for feature in ["recursive", "mode"] {
        assert!(client.has_feature(feature), "{feature}");
    }
    assert!(!client.has_feature("flying"));
    for path in ["b", "a/c/d", "a-/e"] {
        let path = server.home("alice").join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, "text").expect("written");
    }
    let change = SetStat {
        path: "a".into(),
        modified: Some("2020-02-02T02:02:02Z".parse().expect("a time")),
        mode: Some(FileMode::from_st_mode(0o711)),
    };
    let stored = client.setstat(change.clone()).await.expect("set");
    assert_eq!(
        (stored.modified, stored.mode),
        (change.modified, change.mode)
    );
    let session = Session::from(client);
    let mut entries = session.tree_entries("/", true);
    let mut found = Vec::new();
    while let Some(entry) = entries.next().await.expect("listed") {
        found.push(entry);
    }
    assert!(entries.next().await.expect("at its end").is_none());
    let names: Vec<_> = found.iter().map(|entry| &*entry.name).collect();
    assert_eq!(names, ["a", "a/c", "a/c/d", "a-", "a-/e", "b"]);
    assert_eq!(Some(found[0].modified), change.modified);
    assert_eq!(found[0].mode, change.mode);
    let mut nowhere = session.tree_entries("nowhere", false);
    let error = nowhere.next().await.expect_err("no such directory");
    assert_eq!(error.code(), Some(ErrorCode::NotFound));
}
