//! Stored bytes that change without a write by the server.

use serde_json::json;

use crate::harness::TestServer;
use crate::test_files::patterned_bytes;

#[tokio::test]
async fn bit_rot_is_detected_even_if_another_digest_is_requested() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.put("a", &patterned_bytes(300_000)).await;
    flip_a_bit(&server.home("alice").join("a"));
    for request in [
        json!({"cmd": "get", "path": "a", "digest": "sha256"}),
        json!({"cmd": "get", "path": "a", "digest": "sha256", "offset": 200_000}),
        json!({"cmd": "hash", "path": "a", "digest": "md5"}),
    ] {
        let (_, end) = client.get(request.clone()).await;
        assert_eq!(end["error"]["code"], "digest_mismatch", "{request}: {end}");
    }
}

/// Flips one bit, and keeps the modification time.
pub(crate) fn flip_a_bit(path: &std::path::Path) {
    let times = std::fs::metadata(path).and_then(|meta| meta.modified());
    let mut bytes = std::fs::read(path).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, &bytes).expect("written");
    let file = std::fs::File::options()
        .write(true)
        .open(path)
        .expect("there");
    file.set_modified(times.expect("a time")).expect("set");
}

#[tokio::test]
async fn bit_rot_is_reported_as_an_error() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.put("a", &patterned_bytes(300_000)).await;
    flip_a_bit(&server.home("alice").join("a"));
    let (_, end) = client.get(json!({"cmd": "get", "path": "a"})).await;
    assert_eq!(end["error"]["code"], "digest_mismatch", "{end}");
}
