//! Frames of transfers in an invalid order or with invalid content.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::harness::{Received, TestServer, control, data};
use crate::test_files::patterned_bytes;
use crate::transfers::begin_put;

#[tokio::test]
async fn more_bytes_than_declared_close_the_connection_and_leave_nothing() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    begin_put(
        &mut client,
        7,
        json!({"id": 7, "cmd": "put", "path": "a", "size": 3}),
    )
    .await;
    client.send_bytes(&data(7, b"four")).await;
    client.refuses("bad_frame").await;
    let mut again = server.log_in("alice").await;
    again
        .fails(json!({"cmd": "stat", "path": "a"}), "not_found")
        .await;
    assert_eq!(server.staged(), 0);
}

#[tokio::test]
async fn the_data_of_a_refused_put_is_discarded_and_the_session_continues() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.ok(json!({"cmd": "mkdir", "path": "d"})).await;
    for (put, code) in [
        (
            json!({"id": 7, "cmd": "put", "path": "no/such/dir", "size": 4}),
            "not_found",
        ),
        (
            json!({"id": 7, "cmd": "put", "path": "d", "size": 4}),
            "is_a_directory",
        ),
        (
            json!({"id": 7, "cmd": "put", "path": "a\u{0}b", "size": 4}),
            "invalid_path",
        ),
        (
            json!({"id": 7, "cmd": "put", "path": "a", "colour": "red"}),
            "bad_request",
        ),
    ] {
        let mut burst = control(&put);
        burst.extend(data(7, b"data"));
        burst.extend(control(&json!({"id": 7, "cmd": "end"})));
        burst.extend(control(&json!({"id": 8, "cmd": "pwd"})));
        client.send_bytes(&burst).await;
        let (mut refused, mut alive) = (false, false);
        while !(refused && alive) {
            let reply = client.reply().await;
            refused |= reply["id"] == 7 && reply["error"]["code"] == code;
            alive |= reply["id"] == 8 && reply["ok"]["cwd"] == "/";
        }
    }
    assert_eq!(server.staged(), 0);
}

#[tokio::test]
async fn an_end_without_a_put_is_a_bad_request() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client
        .fails(json!({"id": 7, "cmd": "end"}), "bad_request")
        .await;
}

/// Sends a put of `content` with a malformed `end`, which must have one final reply and leave no
/// file.
async fn malformed_end_is_refused_once(server: &TestServer, content: &[u8], size: Value) {
    let mut client = server.log_in("alice").await;
    let mut put = json!({"id": 7, "cmd": "put", "path": "a"});
    if !size.is_null() {
        put["size"] = size;
    }
    let mut burst = control(&put);
    for chunk in content.chunks(100_000) {
        burst.extend(data(7, chunk));
    }
    burst.extend(control(
        &json!({"id": 7, "cmd": "end", "digest": "md5:xyz"}),
    ));
    client.send_bytes(&burst).await;
    let refused = client.final_reply(7).await;
    let error = &refused["error"];
    assert_eq!(
        (&error["code"], &error["field"]),
        (&json!("bad_request"), &json!("digest"))
    );
    // The put has ended: a second `end` belongs to no put, and further data is a bad frame.
    let end = json!({"id": 7, "cmd": "end", "colour": "red"});
    client.fails(end, "bad_request").await;
    client
        .fails(json!({"id": 8, "cmd": "stat", "path": "a"}), "not_found")
        .await;
    let uploads = client.ok(json!({"id": 9, "cmd": "uploads"})).await;
    assert_eq!(uploads["uploads"], json!([]));
    client.send_bytes(&data(7, b"late")).await;
    client.refuses("bad_frame").await;
    assert_eq!(server.staged(), 0);
}

#[tokio::test]
async fn a_malformed_end_ends_its_put_with_one_final_reply() {
    let server = TestServer::start().await;
    let bytes = patterned_bytes(300_000);
    malformed_end_is_refused_once(&server, &bytes, json!(bytes.len())).await;
    malformed_end_is_refused_once(&server, &bytes, Value::Null).await;
    malformed_end_is_refused_once(&server, b"small", json!(5)).await;
    malformed_end_is_refused_once(&server, b"", json!(0)).await;
}

#[tokio::test]
async fn late_data_of_one_of_many_refused_puts_is_discarded() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    let last = 1100;
    let mut burst = Vec::new();
    for id in 1..=last {
        burst.extend(control(&json!({"id": id, "cmd": "put", "colour": "red"})));
    }
    client.send_bytes(&burst).await;
    for id in 1..=last {
        let refused = client.final_reply(id).await;
        assert_eq!(refused["error"]["code"], "bad_request");
    }
    let mut late = Vec::new();
    for id in last - 1000..=last {
        late.extend(data(id, b"late"));
    }
    client.send_bytes(&late).await;
    client.ok(json!({"cmd": "pwd"})).await;
}

#[tokio::test]
async fn a_second_put_on_the_stream_of_an_open_one_closes_the_connection() {
    let server = TestServer::start().await;
    for second in [
        json!({"id": 7, "cmd": "put", "path": "b"}),
        json!({"id": 7, "cmd": "put", "path": "b", "colour": "red"}),
    ] {
        let mut client = server.log_in("alice").await;
        begin_put(&mut client, 7, json!({"id": 7, "cmd": "put", "path": "a"})).await;
        client.send(second).await;
        client.refuses("bad_frame").await;
    }
    assert_eq!(server.staged(), 0);
}

#[tokio::test]
async fn a_client_that_closes_its_sending_half_gets_its_replies() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.put("a", &patterned_bytes(3 << 20)).await;
    let mut burst = control(&json!({"id": 6, "cmd": "get", "path": "a"}));
    burst.extend(control(&json!({"id": 7, "cmd": "put", "path": "b"})));
    burst.extend(data(7, b"data"));
    burst.extend(control(&json!({"id": 7, "cmd": "end"})));
    client.send_bytes(&burst).await;
    client.stream.shutdown().await.expect("open");
    let (mut received, mut ended) = (0, 0);
    loop {
        match client.receive().await {
            Received::Data { chunk, .. } => received += chunk.len(),
            Received::Control(reply) => ended += usize::from(reply["ok"].is_object()),
            Received::Closed => break,
        }
    }
    assert_eq!((received, ended), (3 << 20, 2));
}

#[tokio::test]
async fn a_put_with_the_id_of_a_running_get_is_refused() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    let size = 64 << 20;
    let large = std::fs::File::create(server.home("alice").join("large")).expect("a file");
    large.set_len(size).expect("a sparse file");
    client
        .send(json!({"id": 7, "cmd": "get", "path": "large", "digest": "none"}))
        .await;
    assert!(client.reply().await["begin"].is_object());
    let mut burst = control(&json!({"id": 7, "cmd": "put", "path": "b"}));
    burst.extend(data(7, b"thrown away"));
    burst.extend(control(&json!({"id": 7, "cmd": "end"})));
    client.send_bytes(&burst).await;
    let (mut received, mut refused) = (0, false);
    loop {
        match client.receive().await {
            Received::Data { chunk, .. } => received += chunk.len() as u64,
            Received::Control(reply) if reply["error"]["field"] == "id" => refused = true,
            Received::Control(reply) => break assert_eq!(reply["ok"]["size"], size, "{reply}"),
            Received::Closed => panic!("closed"),
        }
    }
    assert!(refused && received == size);
}
