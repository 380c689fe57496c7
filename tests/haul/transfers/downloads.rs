//! Downloads: ranges, digests, versions, and files that change during a get.

use haul::protocol::Algorithm;
use serde_json::json;

use crate::harness::{Received, TestServer};
use crate::test_files::patterned_bytes;
use crate::transfers::digest;

#[tokio::test]
async fn a_file_is_returned_as_it_was_put_with_its_digest() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    for length in [0, 1, 131_071, 131_072, 131_073, 3_000_000] {
        let bytes = patterned_bytes(length);
        let put = client.put("a.bin", &bytes).await;
        let blake3 = digest(Algorithm::Blake3, &bytes);
        assert_eq!(
            (&put["ok"]["path"], &put["ok"]["digest"]),
            (&json!("/a.bin"), &blake3)
        );
        let (got, end) = client
            .get(json!({"id": 6, "cmd": "get", "path": "a.bin"}))
            .await;
        assert!(got == bytes, "{length} bytes came back different");
        assert_eq!(
            end,
            json!({"id": 6, "ok": {"size": length, "digest": blake3}})
        );
    }
}

#[tokio::test]
async fn the_begin_frame_of_a_get_describes_the_download() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.put("a.bin", &patterned_bytes(1000)).await;
    let stat = client.ok(json!({"cmd": "stat", "path": "a.bin"})).await;
    client
        .send(json!({"id": 6, "cmd": "get", "path": "a.bin", "offset": 400}))
        .await;
    let begin = client.reply().await["begin"].take();
    assert_eq!(
        (&begin["size"], &begin["offset"], &begin["length"]),
        (&json!(1000), &json!(400), &json!(600))
    );
    assert_eq!(
        (&begin["version"], &begin["modified"]),
        (&stat["version"], &stat["modified"])
    );
}

#[tokio::test]
async fn a_get_with_an_offset_has_the_digest_of_the_complete_file() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    let bytes = patterned_bytes(500_000);
    client.put("a.bin", &bytes).await;
    for algorithm in Algorithm::ALL {
        let request =
            json!({"cmd": "get", "path": "a.bin", "offset": 300_000, "digest": algorithm});
        let (got, end) = client.get(request).await;
        assert!(got == bytes[300_000..]);
        assert_eq!(end["ok"]["digest"], digest(algorithm, &bytes));
    }
}

#[tokio::test]
async fn a_get_with_a_length_has_the_digest_of_the_sent_bytes_or_none_on_request() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    let bytes = patterned_bytes(1000);
    client.put("a.bin", &bytes).await;
    let request =
        json!({"cmd": "get", "path": "a.bin", "offset": 10, "length": 20, "digest": "sha256"});
    let (got, end) = client.get(request).await;
    assert_eq!(got, bytes[10..30]);
    assert_eq!(
        end["ok"]["digest"],
        digest(Algorithm::Sha256, &bytes[10..30])
    );
    let (got, end) = client
        .get(json!({"cmd": "get", "path": "a.bin", "digest": "none"}))
        .await;
    assert_eq!(got, bytes);
    assert_eq!(end["ok"], json!({"size": 1000}));
}

#[tokio::test]
async fn a_range_past_the_end_is_refused_with_the_size_of_the_file() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.put("a.bin", &patterned_bytes(1000)).await;
    let (got, _) = client
        .get(json!({"cmd": "get", "path": "a.bin", "offset": 1000}))
        .await;
    assert_eq!(got, b"");
    let (code, error) = client
        .error(json!({"cmd": "get", "path": "a.bin", "offset": 1001}))
        .await;
    assert_eq!(
        (code.as_str(), &error["offset"]),
        ("bad_request", &json!(1000))
    );
}

#[tokio::test]
async fn a_get_of_another_version_is_refused_as_changed() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.put("a", b"one").await;
    let version = client.ok(json!({"cmd": "stat", "path": "a"})).await["version"].take();
    let request = json!({"cmd": "get", "path": "a", "version": version});
    assert_eq!(client.get(request.clone()).await.0, b"one");
    client.put("a", b"two").await;
    client.fails(request, "changed").await;
}

#[tokio::test]
async fn a_get_of_a_file_that_is_replaced_or_removed_sends_the_old_content() {
    let server = TestServer::start().await;
    let mut reader = server.log_in("alice").await;
    let mut writer = server.log_in("alice").await;
    let old = patterned_bytes(32 << 20);
    for change in [
        json!({"cmd": "rm", "path": "a"}),
        json!({"cmd": "mv", "from": "a", "to": "b"}),
    ] {
        std::fs::write(server.home("alice").join("a"), &old).expect("written");
        reader
            .send(json!({"id": 6, "cmd": "get", "path": "a"}))
            .await;
        assert!(reader.reply().await["begin"].is_object());
        writer.ok(change).await;
        writer.put("a", b"new").await;
        let mut got = Vec::new();
        let end = loop {
            match reader.receive().await {
                Received::Data { chunk, .. } => got.extend(chunk),
                Received::Control(reply) => break reply,
                Received::Closed => panic!("closed"),
            }
        };
        assert_eq!(
            end["ok"]["digest"],
            digest(Algorithm::Blake3, &old),
            "{end}"
        );
        assert!(got == old);
    }
}

#[tokio::test]
async fn a_get_of_a_file_that_is_truncated_fails_and_the_session_continues() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    let path = server.home("alice").join("a");
    std::fs::write(&path, patterned_bytes(64 << 20)).expect("written");
    client
        .send(json!({"id": 6, "cmd": "get", "path": "a"}))
        .await;
    assert!(client.reply().await["begin"].is_object());
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("open")
        .set_len(1000)
        .expect("truncated");
    let error = loop {
        match client.receive().await {
            Received::Control(reply) => break reply,
            Received::Data { .. } => {}
            Received::Closed => panic!("closed"),
        }
    };
    assert_eq!(error["error"]["code"], "changed", "{error}");
    client.ok(json!({"cmd": "pwd"})).await;
}
