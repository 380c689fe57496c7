//! Deltas: content chunks, puts with a base, and gets of ranges.

use haul::protocol::{CUTTING, ContentChunk, ContentChunker};
use serde_json::{Value, json};

use crate::harness::{RawClient, Received, TestServer, control};
use crate::random::Chance;

const MIB: usize = 1024 * 1024;

fn random_bytes(seed: u64, length: usize) -> Vec<u8> {
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
    chunker.update(bytes, |chunk| chunks.push(chunk));
    chunks.extend(chunker.finish());
    chunks
}

fn chunks_of_records(records: &[u8]) -> Vec<ContentChunk> {
    let (records, rest) = records.as_chunks();
    assert!(rest.is_empty(), "{} bytes of a record", rest.len());
    let parsed = records.iter().map(ContentChunk::from_record);
    parsed.map(|chunk| chunk.expect("a record")).collect()
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
async fn chunks_can_be_cancelled_and_the_session_goes_on() {
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
async fn the_example_of_chunks_is_what_the_server_sends() {
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
    let bytes = crate::harness::data(stream, &chunk);
    let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let shown = format!("← {}  {}\n", hex[..4].join(" "), hex[4..].join(" "));
    let document = include_str!("../../docs/PROTOCOL.md");
    assert!(document.contains(&shown), "the document needs:\n{shown}");
}
