//! Deltas: content chunks, puts with a base, and gets of ranges.

use haul::protocol::{Algorithm, CUTTING, ContentChunk, ContentChunker, Digest};
use haul::storage::SpaceLimits;
use serde_json::{Value, json};

use crate::harness::{RawClient, Received, TestServer, control, data, soon};
use crate::random::Chance;

const MIB: usize = 1024 * 1024;

pub(crate) fn random_bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut chance = Chance::new(seed);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend(chance.next().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn cut(bytes: &[u8]) -> Vec<ContentChunk> {
    let (mut chunker, mut chunks) = (ContentChunker::default(), Vec::new());
    chunker.update(bytes, |chunk, _| chunks.push(chunk));
    chunker.finish(|chunk, _| chunks.push(chunk));
    chunks
}

fn chunks_of_records(records: &[u8]) -> Vec<ContentChunk> {
    let (records, rest) = records.as_chunks();
    assert!(rest.is_empty(), "{} bytes of a record", rest.len());
    let parsed = records.iter().map(ContentChunk::from_record);
    parsed.collect()
}

async fn version_of(client: &mut RawClient, path: &str) -> Value {
    client.ok(json!({"cmd": "stat", "path": path})).await["version"].take()
}

#[tokio::test]
async fn chunks_lists_the_content_chunks_of_the_file() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    for length in [0, 1, 5000, 17 * MIB + 1] {
        let content = random_bytes(1, length);
        client.put("a", &content).await;
        let version = version_of(&mut client, "a").await;
        client
            .send(json!({"id": 6, "cmd": "chunks", "path": "a", "version": version}))
            .await;
        let begin = client.reply().await;
        let expected = json!({"size": length, "version": version, "cutting": CUTTING});
        assert_eq!(begin["begin"], expected, "{begin}");
        let mut records = Vec::new();
        let reply = loop {
            match client.receive().await {
                Received::Data { stream: 6, chunk } => records.extend(chunk),
                Received::Control(reply) => break reply,
                other => panic!("{other:?}"),
            }
        };
        let expected = cut(&content);
        assert_eq!(
            reply["ok"],
            json!({"count": expected.len(), "size": length, "version": version}),
            "{reply}"
        );
        assert!(chunks_of_records(&records) == expected, "{length} bytes");
    }
}

#[tokio::test]
async fn chunks_of_another_version_a_directory_or_no_file_are_refused() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.put("a", b"one").await;
    let version = version_of(&mut client, "a").await;
    client.put("a", b"two").await;
    let pinned = json!({"cmd": "chunks", "path": "a", "version": version});
    client.fails(pinned, "changed").await;
    client
        .fails(json!({"cmd": "chunks", "path": "/"}), "is_a_directory")
        .await;
    client
        .fails(json!({"cmd": "chunks", "path": "b"}), "not_found")
        .await;
}

#[tokio::test]
async fn chunks_can_be_cancelled_and_the_session_continues() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.put("a", &random_bytes(2, 4 * MIB)).await;
    let mut burst = control(&json!({"id": 6, "cmd": "chunks", "path": "a"}));
    burst.extend(control(&json!({"id": 6, "cmd": "chunks", "path": "a"})));
    burst.extend(control(&json!({"id": 7, "cmd": "cancel", "target": 6})));
    burst.extend(control(&json!({"id": 8, "cmd": "ping"})));
    client.send_bytes(&burst).await;
    let mut codes = Vec::new();
    let mut is_pinged = false;
    while codes.len() < 2 || !is_pinged {
        if let Received::Control(reply) = client.receive().await {
            is_pinged |= reply["id"] == 8;
            if reply["id"] == 6 && reply.get("begin").is_none() {
                codes.push(reply["error"]["code"].clone());
            }
        }
    }
    codes.sort_by_key(Value::to_string);
    assert_eq!(codes[0], "bad_request", "an id in use");
    assert!(codes[1] == "cancelled" || codes[1].is_null(), "{codes:?}");
}

#[tokio::test]
async fn the_example_of_chunks_is_the_output_of_the_server() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.ok(json!({"cmd": "mkdir", "path": "notes"})).await;
    client.put("/notes/hello.txt", b"Hello, haul!\n").await;
    client
        .send(json!({"id": 6, "cmd": "chunks", "path": "/notes/hello.txt"}))
        .await;
    client.reply().await;
    let Received::Data { stream, chunk } = client.receive().await else {
        panic!("no data");
    };
    let bytes = data(stream, &chunk);
    let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let shown = format!("← {}  {}\n", hex[..4].join(" "), hex[4..].join(" "));
    let document = include_str!("../../docs/PROTOCOL.md");
    assert!(document.contains(&shown), "the document needs:\n{shown}");
}

/// A server with a file of 3 MiB, a session, the content and its version.
async fn with_base() -> (TestServer, RawClient, Vec<u8>, Value) {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    let old = random_bytes(3, 3 * MIB);
    client.put("a", &old).await;
    let version = version_of(&mut client, "a").await;
    (server, client, old, version)
}

fn digest(bytes: &[u8]) -> String {
    Digest::compute(Algorithm::Blake3, bytes).to_string()
}

fn copy(offset: usize, length: usize) -> Vec<u8> {
    control(&json!({"id": 7, "cmd": "copy", "offset": offset, "length": length}))
}

fn end(content: &[u8]) -> Vec<u8> {
    control(&json!({"id": 7, "cmd": "end", "digest": digest(content)}))
}

async fn content_of(client: &mut RawClient) -> Vec<u8> {
    client.get(json!({"cmd": "get", "path": "a"})).await.0
}

async fn used(client: &mut RawClient) -> Value {
    client.ok(json!({"cmd": "df"})).await["used"].take()
}

#[tokio::test]
async fn a_put_with_copies_stores_the_described_file() {
    let (server, mut client, old, version) = with_base().await;
    let new = [&old[MIB..], b"new", &old[..MIB + 5], &old[7..8]].concat();
    let mut burst = control(&json!({
        "id": 7, "cmd": "put", "path": "a", "size": new.len(), "base": version,
    }));
    burst.extend(copy(MIB, 2 * MIB));
    burst.extend(data(7, b"new"));
    burst.extend(copy(0, MIB + 5));
    burst.extend(copy(7, 1));
    burst.extend(end(&new));
    client.send_bytes(&burst).await;
    let reply = client.final_reply(7).await;
    assert_eq!(reply["ok"]["digest"], digest(&new), "{reply}");
    assert!(content_of(&mut client).await == new);
    assert_eq!(used(&mut client).await, new.len(), "the quota is exact");
    assert_eq!(server.staged(), 0);
}

#[tokio::test]
async fn a_put_without_a_size_may_copy_too() {
    let (_server, mut client, old, version) = with_base().await;
    let mut burst = control(&json!({"id": 7, "cmd": "put", "path": "a", "base": version}));
    burst.extend(copy(10, 20));
    burst.extend(data(7, b""));
    client.send_bytes(&burst).await;
    let reply = client.final_reply(7).await;
    assert_eq!(reply["ok"]["size"], 20, "{reply}");
    assert!(content_of(&mut client).await == old[10..30]);
}

#[tokio::test]
async fn a_put_with_a_missing_or_changed_base_is_refused_at_its_start() {
    let (server, mut client, old, version) = with_base().await;
    client.put("a", b"other").await;
    for path in ["a", "b"] {
        let put = json!({"id": 7, "cmd": "put", "path": path, "size": old.len(), "base": version});
        client.fails(put, "changed").await;
        // Further data for the put is discarded.
        let mut burst = copy(0, MIB);
        burst.extend(data(7, b"x"));
        burst.extend(end(&old));
        client.send_bytes(&burst).await;
        client.ok(json!({"id": 8, "cmd": "ping"})).await;
    }
    assert_eq!(content_of(&mut client).await, b"other");
    assert_eq!(server.staged(), 0);
}

#[tokio::test]
async fn an_invalid_copy_ends_its_put_with_one_reply_and_the_session_continues() {
    let (server, mut client, old, version) = with_base().await;
    let bad = [
        (copy(3 * MIB, 1), "offset"),
        (copy(3 * MIB - 1, 2), "offset"),
        (copy(9_007_199_254_740_990, 1), "offset"),
        (copy(0, 0), "length"),
        (copy(0, 17 * MIB), "length"),
        (copy(0, 2 * MIB + 1), "length"),
        (
            control(&json!({"id": 7, "cmd": "copy", "offset": -1, "length": 1})),
            "offset",
        ),
        (
            control(&json!({"id": 7, "cmd": "copy", "offset": null, "length": 1})),
            "offset",
        ),
        (
            control(&json!({"id": 7, "cmd": "copy", "offset": 1})),
            "length",
        ),
        (
            control(&json!({"id": 7, "cmd": "copy", "offset": 1, "length": 1, "to": 1})),
            "to",
        ),
    ];
    for (frame, field) in bad {
        let put = json!({"id": 7, "cmd": "put", "path": "a", "size": 2 * MIB, "base": version});
        let mut burst = control(&put);
        burst.extend(frame);
        // All further data is discarded.
        burst.extend(data(7, b"more"));
        burst.extend(copy(0, 1));
        burst.extend(end(b""));
        burst.extend(control(&json!({"id": 8, "cmd": "ping"})));
        client.send_bytes(&burst).await;
        let (mut finals, mut is_pinged) = (Vec::new(), false);
        while finals.is_empty() || !is_pinged {
            let reply = client.reply().await;
            is_pinged |= reply["id"] == 8;
            if reply["id"] == 7 && reply.get("begin").is_none() {
                finals.push(reply);
            }
        }
        assert_eq!(finals[0]["error"]["code"], "bad_request", "{finals:?}");
        assert_eq!(finals[0]["error"]["field"], field, "{finals:?}");
    }
    assert_eq!(client.reply_to_ping().await, 9, "no second reply came");
    assert!(content_of(&mut client).await == old);
    assert_eq!(server.staged(), 0);
}

#[tokio::test]
async fn a_copy_without_a_base_or_without_a_put_is_refused() {
    let (server, mut client, old, _) = with_base().await;
    for size in [5, MIB] {
        let mut burst = control(&json!({"id": 7, "cmd": "put", "path": "a", "size": size}));
        burst.extend(copy(0, 5));
        burst.extend(end(&old[..5]));
        client.send_bytes(&burst).await;
        let reply = client.final_reply(7).await;
        assert_eq!(reply["error"]["field"], "base", "{reply}");
    }
    let unknown = json!({"id": 70, "cmd": "copy", "offset": 0, "length": 5});
    let (code, error) = client.error(unknown).await;
    assert_eq!((&*code, &error["field"]), ("bad_request", &json!("id")));
    assert!(content_of(&mut client).await == old);
    assert_eq!(server.staged(), 0);
}

#[tokio::test]
async fn copies_over_the_quota_are_refused_and_leave_nothing() {
    let server = TestServer::start().await;
    let limits = SpaceLimits {
        bytes: Some(5 * MIB as u64),
        ..SpaceLimits::default()
    };
    server.add_user("carol", limits).await;
    let mut client = server.log_in("carol").await;
    client.put("a", &random_bytes(3, 3 * MIB)).await;
    let version = version_of(&mut client, "a").await;
    let mut burst = control(&json!({"id": 7, "cmd": "put", "path": "a", "base": version}));
    burst.extend(copy(0, 3 * MIB));
    burst.extend(end(b""));
    client.send_bytes(&burst).await;
    let reply = client.final_reply(7).await;
    assert_eq!(reply["error"]["code"], "quota_exceeded", "{reply}");
    assert_eq!(used(&mut client).await, 3 * MIB);
    assert_eq!(server.staged(), 0);
}

#[tokio::test]
async fn an_interrupted_put_resumes_after_its_copied_bytes() {
    let (server, mut client, old, version) = with_base().await;
    let new = [b"new", &old[..]].concat();
    let put = json!({
        "id": 7, "cmd": "put", "path": "a", "size": new.len(), "base": version, "resume": true,
    });
    let mut burst = control(&put);
    burst.extend(data(7, b"new"));
    burst.extend(copy(0, 2 * MIB));
    client.send_bytes(&burst).await;
    let begun = client.reply().await;
    assert_eq!(begun["begin"]["offset"], 0, "{begun}");
    let upload = begun["begin"]["upload"].as_str().expect("a name");
    let staged = server.data().join("staging").join(upload);
    soon("the copy on the disk", async || {
        let length = std::fs::metadata(&staged).map_or(0, |meta| meta.len());
        (length == 2 * MIB as u64 + 3).then_some(())
    })
    .await;
    drop(client);
    let mut client = server.log_in("alice").await;
    let begun = soon("the upload", async || {
        let uploads = client.ok(json!({"cmd": "uploads"})).await;
        (uploads["uploads"][0]["offset"] == 2 * MIB + 3).then_some(())
    });
    begun.await;
    client.send(put).await;
    let begun = client.reply().await;
    assert_eq!(begun["begin"]["offset"], 2 * MIB + 3, "{begun}");
    assert_eq!(begun["begin"]["prefix"], digest(&new[..2 * MIB + 3]));
    let mut burst = copy(2 * MIB, MIB);
    burst.extend(end(&new));
    client.send_bytes(&burst).await;
    let reply = client.final_reply(7).await;
    assert_eq!(reply["ok"]["digest"], digest(&new), "{reply}");
    assert!(content_of(&mut client).await == new);
    assert_eq!(used(&mut client).await, new.len());
}

impl RawClient {
    /// Sends a `ping`; returns the id of the next reply, which is that of the `ping` if no other
    /// reply was outstanding.
    async fn reply_to_ping(&mut self) -> Value {
        self.call(json!({"id": 9, "cmd": "ping"})).await["id"].take()
    }
}

#[tokio::test]
async fn a_get_of_ranges_sends_exactly_their_bytes_in_order() {
    let (_server, mut client, old, version) = with_base().await;
    let ranges = [(0, 5), (5, 1), (1000, 2 * MIB), (3 * MIB - 1, 1)];
    let asked: Vec<_> = ranges
        .map(|(offset, length)| json!([offset, length]))
        .into();
    let expected: Vec<_> = ranges
        .iter()
        .flat_map(|(offset, length)| &old[*offset..offset + length])
        .copied()
        .collect();
    for algorithm in [json!("blake3"), json!("none")] {
        let get = json!({
            "id": 6, "cmd": "get", "path": "a", "ranges": asked, "digest": algorithm,
            "version": version,
        });
        client.send(get).await;
        let begin = client.reply().await;
        assert_eq!(begin["begin"]["size"], old.len(), "{begin}");
        assert_eq!(begin["begin"]["offset"], 0);
        assert_eq!(begin["begin"]["length"], expected.len());
        let mut bytes = Vec::new();
        let reply = loop {
            match client.receive().await {
                Received::Data { stream: 6, chunk } => bytes.extend(chunk),
                Received::Control(reply) => break reply,
                other => panic!("{other:?}"),
            }
        };
        assert!(bytes == expected, "{algorithm}");
        assert_eq!(reply["ok"]["size"], old.len(), "{reply}");
        let sent = (algorithm == "blake3").then(|| json!(digest(&expected)));
        assert_eq!(reply["ok"].get("digest"), sent.as_ref());
    }
}

#[tokio::test]
async fn invalid_ranges_are_refused_and_the_session_continues() {
    let (_server, mut client, _, version) = with_base().await;
    let end = 3 * MIB;
    for ranges in [
        json!([]),
        json!([[0, 0]]),
        json!([[0, 2], [1, 2]]),
        json!([[5, 2], [0, 2]]),
        json!([[0, 1], [0, 1]]),
        json!([[0]]),
        json!([[0, 1, 2]]),
        json!([[-1, 2]]),
        json!([[9_007_199_254_740_991_u64, 9_007_199_254_740_991_u64]]),
        json!([[u64::MAX, u64::MAX]]),
        json!(vec![json!([0, 1]); 1001]),
        json!("0-5"),
    ] {
        let get = json!({"id": 6, "cmd": "get", "path": "a", "ranges": ranges});
        let (code, error) = client.error(get).await;
        assert_eq!((&*code, &error["field"]), ("bad_request", &json!("ranges")));
    }
    for ranges in [json!([[end, 1]]), json!([[0, 1], [end - 1, 2]])] {
        let get = json!({"id": 6, "cmd": "get", "path": "a", "ranges": ranges});
        let (code, error) = client.error(get).await;
        assert_eq!((&*code, &error["offset"]), ("bad_request", &json!(end)));
    }
    for field in ["offset", "length"] {
        let get = json!({"id": 6, "cmd": "get", "path": "a", "ranges": [[0, 1]], field: 1});
        client.fails(get, "bad_request").await;
    }
    client.put("a", b"other").await;
    let get = json!({"cmd": "get", "path": "a", "ranges": [[0, 1]], "version": version});
    client.fails(get, "changed").await;
    assert_eq!(content_of(&mut client).await, b"other");
}
