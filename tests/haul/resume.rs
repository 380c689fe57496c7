//! RELIABILITY, Transfers: interrupted transfers are resumed, and a lost reply is repeated.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use haul::protocol::{Algorithm, Digest};
use haul::storage::SpaceLimits;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::time::sleep;

use crate::daemon::ServerProcess;
use crate::harness::{RawClient, Received, TestServer, data, soon};
use crate::test_files::patterned_bytes;

const SIZE: usize = 1_000_000;
const PART: usize = 600_000;
const CHUNK: usize = 100_000;

fn digest(bytes: &[u8]) -> Value {
    json!(Digest::compute(Algorithm::Blake3, bytes))
}

fn put(path: &str, resume: bool) -> Value {
    json!({"id": 7, "cmd": "put", "path": path, "size": SIZE, "resume": resume})
}

async fn begin(client: &mut RawClient, request: Value) -> Value {
    client.send(request).await;
    let mut reply = client.reply().await;
    assert!(reply["begin"]["upload"].is_string(), "{reply}");
    reply["begin"].take()
}

/// Sends data, and waits until the server has read it.
async fn send(client: &mut RawClient, bytes: &[u8]) {
    for chunk in bytes.chunks(CHUNK) {
        client.send_bytes(&data(7, chunk)).await;
    }
    client.ok(json!({"id": 1, "cmd": "ping"})).await;
}

/// Begins to put `path`, then closes the connection.
async fn cut_off(server: &TestServer, path: &str, bytes: &[u8]) {
    let mut client = server.log_in("alice").await;
    begin(&mut client, put(path, false)).await;
    send(&mut client, bytes).await;
}

async fn end(client: &mut RawClient, digest: &Value) -> Value {
    client
        .send(json!({"id": 7, "cmd": "end", "digest": digest}))
        .await;
    client.final_reply(7).await
}

/// Resumes the upload of `path` at the offset of the server.
async fn finish(client: &mut RawClient, path: &str, content: &[u8]) -> (usize, Value) {
    let begun = begin(client, put(path, true)).await;
    let offset = usize::try_from(begun["offset"].as_u64().expect("a number")).expect("small");
    let prefix = begun.get("prefix").cloned();
    let expected = (offset > 0).then(|| digest(&content[..offset]));
    assert_eq!(prefix, expected);
    send(client, &content[offset..]).await;
    (offset, end(client, &digest(content)).await)
}

/// Waits until the server has written `bytes` bytes of upload `id` to its disk.
async fn written(data: &Path, upload: &Value, bytes: usize) -> PathBuf {
    let staged = data.join("staging").join(upload.as_str().expect("a name"));
    soon("bytes on the disk", async || {
        let length = std::fs::metadata(&staged).map_or(0, |meta| meta.len());
        (length >= bytes as u64).then_some(())
    })
    .await;
    staged
}

/// The list of `uploads`, once it has `count` entries.
async fn uploads(client: &mut RawClient, count: usize) -> Vec<Value> {
    soon("uploads", async || {
        let mut reply = client.ok(json!({"cmd": "uploads"})).await;
        match reply["uploads"].take() {
            Value::Array(uploads) if uploads.len() == count => Some(uploads),
            _ => None,
        }
    })
    .await
}

#[tokio::test]
async fn an_interrupted_put_is_resumed_and_has_the_digest_of_the_complete_file() {
    let server = TestServer::start().await;
    let all = patterned_bytes(SIZE);
    cut_off(&server, "a", &all[..PART]).await;
    let mut client = server.log_in("alice").await;
    let (offset, reply) = finish(&mut client, "a", &all).await;
    assert_eq!(offset, PART);
    assert_eq!(reply["ok"]["digest"], digest(&all), "{reply}");
    assert!(client.get(json!({"cmd": "get", "path": "a"})).await.0 == all);
    assert_eq!(server.staged(), 0);
}

#[tokio::test]
async fn all_received_bytes_of_a_put_are_kept_if_the_connection_breaks_within_a_frame() {
    let server = TestServer::start_with(|config| {
        // The first chunk uses up the bandwidth of minutes, so all others wait.
        config.limits.bandwidth_per_user = Some(1024);
    })
    .await;
    let all = patterned_bytes(SIZE);
    let mut client = server.log_in("alice").await;
    begin(&mut client, put("a", false)).await;
    send(&mut client, &all[..PART]).await;
    let torn = data(7, &all[PART..PART + CHUNK]);
    client.send_bytes(&torn[..CHUNK / 2]).await;
    drop(client);
    let mut client = server.log_in("alice").await;
    assert_eq!(uploads(&mut client, 1).await[0]["offset"], PART);
    let begun = begin(&mut client, put("a", true)).await;
    assert_eq!(begun["prefix"], digest(&all[..PART]));
}

#[tokio::test]
async fn the_list_of_uploads_fits_a_frame_and_reports_whether_there_are_more() {
    let server = TestServer::start().await;
    let (longest, name) = ("d".repeat(200), "n".repeat(200));
    let dir = [&*longest; 4].join("/");
    let mut client = server.log_in("alice").await;
    client
        .ok(json!({"cmd": "mkdir", "path": dir, "parents": true}))
        .await;
    // Each needs about 1140 bytes.
    for (batch, expected) in [(0, (50, false)), (1, (57, true))] {
        for number in 0..(50 - 20 * batch) {
            let mut request = put(&format!("/{dir}/{name}{batch}-{number:02}"), false);
            let id = 100 + number;
            request["id"] = json!(id);
            client.send(request).await;
            assert!(client.reply().await["begin"].is_object());
            client.send_bytes(&data(id, &vec![7; PART / 6])).await;
            client.ok(json!({"id": 1, "cmd": "ping"})).await;
        }
        client.stream.shutdown().await.expect("open");
        while client.receive().await != Received::Closed {}
        client = server.log_in("alice").await;
        let reply = client.ok(json!({"cmd": "uploads"})).await;
        let uploads = reply["uploads"].as_array().expect("a list").len();
        assert_eq!((uploads, reply["more"] == true), expected);
    }
}

#[tokio::test]
async fn a_partial_upload_is_evicted_for_a_new_upload() {
    let server = TestServer::start().await;
    let limits = SpaceLimits {
        bytes: Some(1_500_000),
        files: None,
    };
    server.add_user("carol", limits).await;
    let mut client = server.log_in("carol").await;
    begin(&mut client, put("a", false)).await;
    send(&mut client, &patterned_bytes(SIZE)[..PART]).await;
    drop(client);
    let mut client = server.log_in("carol").await;
    uploads(&mut client, 1).await;
    let stored = client.put("b", &patterned_bytes(SIZE)).await;
    assert!(stored["ok"].is_object(), "{stored}");
    assert_eq!(uploads(&mut client, 0).await, [0; 0]);
    assert_eq!(client.ok(json!({"cmd": "df"})).await["used"], SIZE);
}

#[tokio::test]
async fn a_partial_upload_is_listed_charged_and_discarded() {
    let server = TestServer::start().await;
    let limits = SpaceLimits {
        bytes: Some(1_500_000),
        files: None,
    };
    server.add_user("carol", limits).await;
    let mut client = server.log_in("carol").await;
    let begun = begin(&mut client, put("a", false)).await;
    send(&mut client, &patterned_bytes(SIZE)[..PART]).await;
    drop(client);
    let mut client = server.log_in("carol").await;
    let listed = uploads(&mut client, 1).await;
    let expected = json!({
        "upload": begun["upload"], "path": "/a", "size": SIZE, "offset": PART,
        "expires": listed[0]["expires"],
    });
    assert_eq!(listed[0], expected);
    let df = client.ok(json!({"cmd": "df"})).await;
    assert_eq!((&df["used"], &df["files"]), (&json!(PART), &json!(1)));
    let upload = &begun["upload"];
    let discard = json!({"cmd": "discard", "upload": upload});
    let mut other = server.log_in("alice").await;
    other.fails(discard.clone(), "not_found").await;
    assert_eq!(client.ok(discard.clone()).await, json!({}));
    client.fails(discard, "not_found").await;
    assert_eq!(uploads(&mut client, 0).await, [0; 0]);
    assert_eq!(client.ok(json!({"cmd": "df"})).await["used"], 0);
    assert_eq!(server.staged(), 0);
    let (offset, reply) = finish(&mut client, "a", &patterned_bytes(SIZE)).await;
    assert_eq!((offset, &reply["ok"]["size"]), (0, &json!(SIZE)));
}

#[tokio::test]
async fn changed_content_is_detected_by_the_prefix_and_sent_from_the_start() {
    let server = TestServer::start().await;
    let (old, mut new) = (patterned_bytes(SIZE), patterned_bytes(SIZE));
    new[10] ^= 1;
    cut_off(&server, "a", &old[..PART]).await;
    let mut client = server.log_in("alice").await;
    let begun = begin(&mut client, put("a", true)).await;
    assert_ne!(begun["prefix"], digest(&new[..PART]));
    // A client that does not read gets the error at the end.
    send(&mut client, &new[PART..]).await;
    let reply = end(&mut client, &digest(&new)).await;
    assert_eq!(reply["error"]["code"], "digest_mismatch", "{reply}");
    let (offset, reply) = finish(&mut client, "a", &new).await;
    assert_eq!((offset, &reply["ok"]["digest"]), (0, &digest(&new)));
}

#[tokio::test]
async fn excess_data_of_a_resumed_put_is_a_bad_frame_and_nothing_is_kept() {
    let server = TestServer::start().await;
    let all = patterned_bytes(SIZE);
    cut_off(&server, "a", &all[..PART]).await;
    let mut client = server.log_in("alice").await;
    begin(&mut client, put("a", true)).await;
    for chunk in all[PART..].chunks(100_000) {
        client.send_bytes(&data(7, chunk)).await;
    }
    client.send_bytes(&data(7, b"x")).await;
    client.refuses("bad_frame").await;
    let mut client = server.log_in("alice").await;
    uploads(&mut client, 0).await;
    assert_eq!(server.staged(), 0);
}

#[tokio::test]
async fn cancel_keeps_nothing_and_quit_does() {
    let server = TestServer::start().await;
    let all = patterned_bytes(SIZE);
    let mut client = server.log_in("alice").await;
    begin(&mut client, put("a", false)).await;
    send(&mut client, &all[..PART]).await;
    client
        .send(json!({"id": 8, "cmd": "cancel", "target": 7}))
        .await;
    let reply = client.final_reply(7).await;
    assert_eq!(reply["error"]["code"], "cancelled", "{reply}");
    assert_eq!(server.staged(), 0);
    begin(&mut client, put("b", false)).await;
    send(&mut client, &all[..PART]).await;
    client.send(json!({"id": 9, "cmd": "quit"})).await;
    assert_eq!(client.final_reply(9).await["ok"], json!({}));
    let mut client = server.log_in("alice").await;
    assert_eq!(uploads(&mut client, 1).await[0]["path"], "/b");
}

#[tokio::test]
async fn an_interrupted_put_of_a_small_file_leaves_no_trace() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    for path in ["a", "b", "c"] {
        client.put(path, b"small").await;
        assert_eq!(server.staged(), 0);
    }
    begin(&mut client, put("d", false)).await;
    send(&mut client, &patterned_bytes(SIZE)[..10_000]).await;
    assert_eq!(server.staged(), 1, "the bytes, and no record");
    drop(client);
    soon("nothing staged", async || {
        (server.staged() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_repeated_put_after_a_lost_reply_gets_the_same_reply() {
    let server = TestServer::start().await;
    let all = patterned_bytes(SIZE);
    let mut client = server.log_in("alice").await;
    client.put("c", b"in the way").await;
    for (path, if_exists) in [("a", "replace"), ("b", "fail"), ("c", "rename")] {
        let request = json!({
            "id": 7, "cmd": "put", "path": path, "size": SIZE, "resume": true,
            "if_exists": if_exists, "modified": "2001-02-03T04:05:06Z",
        });
        let mut client = server.log_in("alice").await;
        assert_eq!(begin(&mut client, request.clone()).await["offset"], 0);
        send(&mut client, &all).await;
        let first = end(&mut client, &digest(&all)).await;
        drop(client);
        let mut again = server.log_in("alice").await;
        let begun = begin(&mut again, request).await;
        assert_eq!(
            (&begun["offset"], &begun["prefix"]),
            (&json!(SIZE), &digest(&all))
        );
        let second = end(&mut again, &digest(&all)).await;
        assert_eq!(first, second);
        assert!(first["ok"]["version"].is_string(), "{first}");
    }
    let entries = client.ok(json!({"cmd": "ls"})).await["entries"].take();
    assert_eq!(entries.as_array().map(Vec::len), Some(4), "{entries}");
}

#[tokio::test]
async fn data_for_a_file_that_is_already_committed_is_a_bad_frame() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.put("a", &patterned_bytes(SIZE)).await;
    assert_eq!(begin(&mut client, put("a", true)).await["offset"], SIZE);
    client.send_bytes(&data(7, b"x")).await;
    client.refuses("bad_frame").await;
}

#[tokio::test]
async fn a_put_takes_over_the_upload_of_a_silent_connection() {
    let server = TestServer::start().await;
    let all = patterned_bytes(SIZE);
    let mut old = server.log_in("alice").await;
    let begun = begin(&mut old, put("a", false)).await;
    send(&mut old, &all[..PART]).await;
    written(server.data(), &begun["upload"], PART).await;
    let mut new = server.log_in("alice").await;
    let (offset, reply) = finish(&mut new, "a", &all).await;
    assert_eq!((offset, &reply["ok"]["digest"]), (PART, &digest(&all)));
    let cancelled = old.final_reply(7).await;
    assert_eq!(cancelled["error"]["code"], "cancelled");
    let message = cancelled["error"]["message"].as_str().expect("text");
    assert!(message.contains("another session has resumed"), "{message}");
    // Data that the old client still sends is discarded.
    old.send_bytes(&data(7, b"late")).await;
    old.ok(json!({"cmd": "pwd"})).await;
    assert_eq!(server.staged(), 0);
}

#[tokio::test]
async fn two_active_puts_to_the_same_path_stay_separate() {
    let server = TestServer::start().await;
    let all = patterned_bytes(SIZE);
    let other: Vec<u8> = all.iter().map(|byte| !byte).collect();
    let mut first = server.log_in("alice").await;
    let mut second = server.log_in("alice").await;
    begin(&mut first, put("a", false)).await;
    second.send(put("a", true)).await;
    let mut sent = 0;
    let begun = {
        let mut reply = pin!(second.reply());
        loop {
            // The first upload continues during the check.
            tokio::select! {
                reply = &mut reply => break reply["begin"].clone(),
                () = sleep(Duration::from_millis(10)) => {
                    first.send_bytes(&data(7, &all[sent..sent + 10])).await;
                    sent += 10;
                }
            }
        }
    };
    assert_eq!((&begun["offset"], begun.get("prefix")), (&json!(0), None));
    send(&mut second, &other).await;
    assert_eq!(end(&mut second, &digest(&other)).await["ok"]["size"], SIZE);
    send(&mut first, &all[sent..]).await;
    assert_eq!(end(&mut first, &digest(&all)).await["ok"]["size"], SIZE);
    assert!(second.get(json!({"cmd": "get", "path": "a"})).await.0 == all);
    assert_eq!(server.staged(), 0);
}

#[tokio::test]
async fn a_put_that_receives_no_more_data_is_ended_and_kept() {
    let server = TestServer::start_with(|config| {
        config.limits.idle_timeout = Some(Duration::from_millis(300));
    })
    .await;
    let all = patterned_bytes(SIZE);
    let mut client = server.log_in("alice").await;
    begin(&mut client, put("a", false)).await;
    send(&mut client, &all[..PART]).await;
    let reply = client.reply().await;
    assert_eq!(reply["error"]["code"], "timed_out", "{reply}");
    let mut again = server.log_in("alice").await;
    let begun = begin(&mut again, put("a", true)).await;
    assert_eq!(begun["offset"], PART);
}

#[tokio::test]
async fn a_shutdown_keeps_the_uploads_that_it_interrupts() {
    let server = TestServer::start_with(|config| {
        config.limits.drain_timeout = Duration::from_millis(1);
    })
    .await;
    let all = patterned_bytes(SIZE);
    let mut client = server.log_in("alice").await;
    let begun = begin(&mut client, put("a", false)).await;
    send(&mut client, &all[..PART]).await;
    let staged = written(server.data(), &begun["upload"], PART).await;
    let _place = server.stop().await;
    while client.receive().await != Received::Closed {}
    assert_eq!(std::fs::metadata(&staged).expect("kept").len(), PART as u64);
    assert!(staged.with_extension("record").exists());
}

#[tokio::test]
async fn a_partial_upload_that_is_not_resumed_in_time_is_deleted() {
    let server = TestServer::start_with(|config| {
        config.limits.keep_uploads = Duration::from_millis(200);
    })
    .await;
    cut_off(&server, "a", &patterned_bytes(SIZE)[..PART]).await;
    let mut client = server.log_in("alice").await;
    soon("nothing kept", async || {
        let df = client.ok(json!({"cmd": "df"})).await;
        (df["used"] == 0 && server.staged() == 0).then_some(())
    })
    .await;
    let (offset, _) = finish(&mut client, "a", &patterned_bytes(SIZE)).await;
    assert_eq!(offset, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_survives_a_killed_server() {
    let temp_dir = tempfile::tempdir().expect("a temporary directory");
    let all = patterned_bytes(SIZE);
    let daemon = ServerProcess::start_on(temp_dir.path());
    let token = daemon.token();
    let mut client = daemon.log_in(&token).await;
    let begun = begin(&mut client, put("a", false)).await;
    send(&mut client, &all[..PART]).await;
    let staged = written(daemon.data(), &begun["upload"], PART).await;
    // The client stalls, and the server makes a checkpoint.
    let record = staged.with_extension("record");
    let safe = format!("{{\"offset\":{PART},");
    soon("the record of what is safe", async || {
        let record = std::fs::read_to_string(&record).ok()?;
        record.contains(&safe).then_some(())
    })
    .await;
    daemon.kill();
    let daemon = ServerProcess::start_on(temp_dir.path());
    let mut client = daemon.log_in(&token).await;
    let df = client.ok(json!({"cmd": "df"})).await;
    assert_eq!((&df["used"], &df["files"]), (&json!(PART), &json!(1)));
    let (offset, reply) = finish(&mut client, "a", &all).await;
    assert_eq!((offset, &reply["ok"]["digest"]), (PART, &digest(&all)));
    // The reply is lost, and the server is killed again.
    daemon.kill();
    let daemon = ServerProcess::start_on(temp_dir.path());
    let mut client = daemon.log_in(&token).await;
    let begun = begin(&mut client, put("a", true)).await;
    assert_eq!(
        (&begun["offset"], &begun["prefix"]),
        (&json!(SIZE), &digest(&all))
    );
    assert_eq!(end(&mut client, &digest(&all)).await, reply);
    let df = client.ok(json!({"cmd": "df"})).await;
    assert_eq!((&df["used"], &df["files"]), (&json!(SIZE), &json!(1)));
}
