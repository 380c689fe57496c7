//! RELIABILITY, Transfers: a stored file is complete, and an incomplete upload changes nothing.

use haul::protocol::{Algorithm, Digest};
use haul::storage::SpaceLimits;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::harness::{RawClient, Received, TestServer, control, data};

/// Bytes that depend on their position.
fn content(length: usize) -> Vec<u8> {
    let places = (0_u32..).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]);
    places.take(length).collect()
}

fn digest(algorithm: Algorithm, bytes: &[u8]) -> Value {
    json!(Digest::compute(algorithm, bytes))
}

async fn begin_put(client: &mut RawClient, id: u32, request: Value) {
    client.send(request).await;
    let reply = client.reply().await;
    assert!(
        reply["id"] == id && reply["begin"]["upload"].is_string(),
        "{reply}"
    );
}

#[tokio::test]
async fn a_file_is_returned_as_it_was_put_with_its_digest() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    for length in [0, 1, 131_071, 131_072, 131_073, 3_000_000] {
        let bytes = content(length);
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
    client.put("a.bin", &content(1000)).await;
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
    let bytes = content(500_000);
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
    let bytes = content(1000);
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
    client.put("a.bin", &content(1000)).await;
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
async fn a_wrong_digest_is_refused_and_the_old_file_remains() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.put("a", b"old").await;
    for algorithm in Algorithm::ALL {
        begin_put(
            &mut client,
            7,
            json!({"id": 7, "cmd": "put", "path": "a", "size": 3}),
        )
        .await;
        client.send_bytes(&data(7, b"new")).await;
        let wrong = digest(algorithm, b"something else");
        client
            .send(json!({"id": 7, "cmd": "end", "digest": wrong}))
            .await;
        let reply = client.final_reply(7).await;
        assert_eq!(reply["error"]["code"], "digest_mismatch", "{reply}");
    }
    assert_eq!(
        client.get(json!({"cmd": "get", "path": "a"})).await.0,
        b"old"
    );
    assert_eq!(server.staged(), 0);
    assert_eq!(client.ok(json!({"cmd": "df"})).await["used"], 3);
}

#[tokio::test]
async fn a_correct_digest_of_any_algorithm_is_accepted_and_returned() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    for algorithm in Algorithm::ALL {
        let right = digest(algorithm, b"new");
        let put = json!({"id": 7, "cmd": "put", "path": "a", "digest": algorithm});
        begin_put(&mut client, 7, put).await;
        client.send_bytes(&data(7, b"new")).await;
        client
            .send(json!({"id": 7, "cmd": "end", "digest": right}))
            .await;
        assert_eq!(client.final_reply(7).await["ok"]["digest"], right);
        begin_put(&mut client, 8, json!({"id": 8, "cmd": "put", "path": "b"})).await;
        client.send_bytes(&data(8, b"new")).await;
        client
            .send(json!({"id": 8, "cmd": "end", "digest": right}))
            .await;
        assert_eq!(client.final_reply(8).await["ok"]["digest"], right);
    }
}

#[tokio::test]
async fn fewer_bytes_than_declared_are_not_committed() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.put("a", b"old").await;
    begin_put(
        &mut client,
        7,
        json!({"id": 7, "cmd": "put", "path": "a", "size": 10}),
    )
    .await;
    client.send_bytes(&data(7, b"nine byte")).await;
    client.send(json!({"id": 7, "cmd": "end"})).await;
    assert_eq!(
        client.final_reply(7).await["error"]["code"],
        "size_mismatch"
    );
    assert_eq!(
        client.get(json!({"cmd": "get", "path": "a"})).await.0,
        b"old"
    );
}

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
async fn an_empty_data_frame_ends_a_put_of_unknown_size() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    begin_put(
        &mut client,
        7,
        json!({"id": 7, "cmd": "put", "path": "pipe"}),
    )
    .await;
    client.send_bytes(&data(7, b"from a ")).await;
    client.send_bytes(&data(7, b"pipe")).await;
    client.send_bytes(&data(7, b"")).await;
    assert_eq!(client.final_reply(7).await["ok"]["size"], 11);
}

#[tokio::test]
async fn a_put_on_a_lost_connection_leaves_the_old_file_and_its_bytes_are_charged() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.put("a", b"old").await;
    begin_put(
        &mut client,
        7,
        json!({"id": 7, "cmd": "put", "path": "a", "size": 1_000_000}),
    )
    .await;
    client.send_bytes(&data(7, &content(500_000))).await;
    drop(client);
    let mut again = server.log_in("alice").await;
    assert_eq!(
        again.get(json!({"cmd": "get", "path": "a"})).await.0,
        b"old"
    );
    loop {
        let df = again.ok(json!({"cmd": "df"})).await;
        if df["used"] == 500_003 && df["files"] == 2 {
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn readers_see_the_old_file_until_a_put_is_committed() {
    let server = TestServer::start().await;
    let mut writer = server.log_in("alice").await;
    let mut reader = server.log_in("alice").await;
    writer.put("a", b"old").await;
    begin_put(
        &mut writer,
        7,
        json!({"id": 7, "cmd": "put", "path": "a", "size": 6}),
    )
    .await;
    writer.send_bytes(&data(7, b"new")).await;
    writer.ok(json!({"cmd": "ping"})).await;
    assert_eq!(
        reader.get(json!({"cmd": "get", "path": "a"})).await.0,
        b"old"
    );
    let names = reader.ok(json!({"cmd": "ls"})).await["entries"].take();
    assert_eq!(names.as_array().map(Vec::len), Some(1));
    writer.send_bytes(&data(7, b"est")).await;
    writer.send(json!({"id": 7, "cmd": "end"})).await;
    writer.final_reply(7).await;
    assert_eq!(
        reader.get(json!({"cmd": "get", "path": "a"})).await.0,
        b"newest"
    );
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
    let bytes = content(300_000);
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
async fn bit_rot_is_detected_even_if_another_digest_is_requested() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.put("a", &content(300_000)).await;
    rot(&server.home("alice").join("a"));
    for request in [
        json!({"cmd": "get", "path": "a", "digest": "sha256"}),
        json!({"cmd": "get", "path": "a", "digest": "sha256", "offset": 200_000}),
        json!({"cmd": "hash", "path": "a", "digest": "md5"}),
    ] {
        let (_, end) = client.get(request.clone()).await;
        assert_eq!(end["error"]["code"], "digest_mismatch", "{request}: {end}");
    }
}

#[tokio::test]
async fn a_client_that_closes_its_sending_half_gets_its_replies() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.put("a", &content(3 << 20)).await;
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

#[tokio::test]
async fn cancel_ends_a_put_and_leaves_nothing() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    begin_put(
        &mut client,
        7,
        json!({"id": 7, "cmd": "put", "path": "a", "size": 10}),
    )
    .await;
    client.send_bytes(&data(7, b"data")).await;
    client
        .send(json!({"id": 8, "cmd": "cancel", "target": 7}))
        .await;
    let (mut first, mut second) = (client.reply().await, client.reply().await);
    if first["id"] == 7 {
        std::mem::swap(&mut first, &mut second);
    }
    assert_eq!(first, json!({"id": 8, "ok": {}}));
    assert_eq!(second["error"]["code"], "cancelled");
    client.send_bytes(&data(7, b"what was on its way")).await;
    client
        .fails(json!({"cmd": "stat", "path": "a"}), "not_found")
        .await;
    assert_eq!(server.staged(), 0);
    client
        .fails(json!({"cmd": "cancel", "target": 7}), "not_found")
        .await;
}

#[tokio::test]
async fn cancel_ends_a_get_midway() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.put("a", &content(8 << 20)).await;
    client.put("a2", &content(8 << 20)).await;
    for id in [7, 8] {
        let path = if id == 7 { "a" } else { "a2" };
        client
            .send(json!({"id": id, "cmd": "get", "path": path}))
            .await;
        client
            .send(json!({"id": id + 10, "cmd": "cancel", "target": id}))
            .await;
    }
    let (mut gets, mut cancels) = (0, 0);
    while gets < 2 || cancels < 2 {
        match client.receive().await {
            Received::Control(reply) if reply.get("begin").is_some() => {}
            Received::Control(reply) if reply["id"].as_u64() > Some(10) => {
                assert_eq!(reply["ok"], json!({}));
                cancels += 1;
            }
            Received::Control(reply) => {
                assert_eq!(reply["error"]["code"], "cancelled", "{reply}");
                gets += 1;
            }
            Received::Data { .. } => {}
            Received::Closed => panic!("closed"),
        }
    }
}

#[tokio::test]
async fn several_transfers_of_a_session_run_concurrently() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    for id in 1..=10_u8 {
        let put = json!({"id": id, "cmd": "put", "path": format!("f{id}")});
        begin_put(&mut client, id.into(), put).await;
    }
    for round in 0..20_u8 {
        for id in 1..=10 {
            client
                .send_bytes(&data(id.into(), &vec![id ^ round; 10_000]))
                .await;
        }
    }
    for id in 1..=10 {
        client.send(json!({"id": id, "cmd": "end"})).await;
    }
    for _ in 1..=10 {
        assert_eq!(client.reply().await["ok"]["size"], 200_000);
    }
    for id in 1..=10 {
        client
            .send(json!({"id": id, "cmd": "get", "path": format!("f{id}")}))
            .await;
    }
    let mut files = vec![Vec::new(); 11];
    let mut ended = 0;
    while ended < 10 {
        match client.receive().await {
            Received::Data { stream, chunk } => files[stream as usize].extend(chunk),
            Received::Control(reply) => ended += usize::from(reply["ok"]["size"] == 200_000),
            Received::Closed => panic!("closed"),
        }
    }
    for id in 1..=10_u8 {
        let expected: Vec<u8> = (0..20).flat_map(|round| vec![id ^ round; 10_000]).collect();
        assert!(files[usize::from(id)] == expected, "file {id}");
    }
}

#[tokio::test]
async fn a_small_reply_overtakes_a_large_file() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    let size = 64 << 20;
    std::fs::write(server.home("alice").join("large"), vec![7; size]).expect("a large file");
    client
        .send(json!({"id": 6, "cmd": "get", "path": "large", "digest": "none"}))
        .await;
    assert!(client.reply().await["begin"].is_object());
    client.send(json!({"id": 1, "cmd": "ping"})).await;
    let mut before = 0;
    loop {
        match client.receive().await {
            Received::Data { chunk, .. } => before += chunk.len(),
            Received::Control(reply) if reply["id"] == 1 => break,
            other => panic!("{other:?} came before the reply to ping"),
        }
    }
    assert!(before < size, "the reply came behind the whole file");
}

#[tokio::test]
async fn a_get_of_a_file_that_is_replaced_or_removed_sends_the_old_content() {
    let server = TestServer::start().await;
    let mut reader = server.log_in("alice").await;
    let mut writer = server.log_in("alice").await;
    let old = content(32 << 20);
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
    std::fs::write(&path, content(64 << 20)).expect("written");
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

/// Flips one bit, and keeps the modification time.
pub(crate) fn rot(path: &std::path::Path) {
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
    client.put("a", &content(300_000)).await;
    rot(&server.home("alice").join("a"));
    let (_, end) = client.get(json!({"cmd": "get", "path": "a"})).await;
    assert_eq!(end["error"]["code"], "digest_mismatch", "{end}");
}

#[tokio::test]
async fn if_exists_decides_what_a_put_does_with_an_existing_file() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.put("a.txt", b"old").await;
    client
        .fails(
            json!({"id": 7, "cmd": "put", "path": "a.txt", "if_exists": "fail"}),
            "exists",
        )
        .await;
    begin_put(
        &mut client,
        8,
        json!({"id": 8, "cmd": "put", "path": "a.txt", "if_exists": "rename"}),
    )
    .await;
    client.send_bytes(&data(8, b"new")).await;
    client.send(json!({"id": 8, "cmd": "end"})).await;
    assert_eq!(client.final_reply(8).await["ok"]["path"], "/a (1).txt");
    assert_eq!(
        client.get(json!({"cmd": "get", "path": "a.txt"})).await.0,
        b"old"
    );
    assert_eq!(
        client
            .get(json!({"cmd": "get", "path": "a (1).txt"}))
            .await
            .0,
        b"new"
    );
}

#[tokio::test]
async fn a_put_creates_parents_and_sets_the_modification_time_on_request() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    let put = json!({"id": 7, "cmd": "put", "path": "x/y/z", "parents": true, "modified": "2001-02-03T04:05:06.789Z"});
    begin_put(&mut client, 7, put).await;
    client.send(json!({"id": 7, "cmd": "end"})).await;
    assert_eq!(client.final_reply(7).await["ok"]["size"], 0);
    let stat = client.ok(json!({"cmd": "stat", "path": "x/y/z"})).await;
    assert_eq!(stat["modified"], "2001-02-03T04:05:06.789Z");
}

#[tokio::test]
async fn of_two_puts_to_the_same_path_the_last_commit_wins() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    begin_put(&mut client, 1, json!({"id": 1, "cmd": "put", "path": "a"})).await;
    begin_put(&mut client, 2, json!({"id": 2, "cmd": "put", "path": "a"})).await;
    for _ in 0..10 {
        client.send_bytes(&data(1, &vec![b'1'; 50_000])).await;
        client.send_bytes(&data(2, &vec![b'2'; 50_000])).await;
    }
    client.send(json!({"id": 2, "cmd": "end"})).await;
    client.final_reply(2).await;
    client.send(json!({"id": 1, "cmd": "end"})).await;
    client.final_reply(1).await;
    assert!(client.get(json!({"cmd": "get", "path": "a"})).await.0 == vec![b'1'; 500_000]);
    assert_eq!(client.ok(json!({"cmd": "df"})).await["used"], 500_000);
}

#[tokio::test]
async fn a_put_that_fills_the_quota_succeeds_and_one_byte_more_is_refused_with_the_figures() {
    let server = TestServer::start().await;
    let limits = SpaceLimits {
        bytes: Some(1000),
        files: Some(3),
    };
    server.add_user("carol", limits).await;
    let mut client = server.log_in("carol").await;
    assert!(client.put("full", &content(1000)).await["ok"].is_object());
    assert!(client.put("empty", b"").await["ok"].is_object());
    let error = client.put("more", b"x").await["error"].take();
    assert_eq!(error["code"], "quota_exceeded");
    assert_eq!(
        (&error["used"], &error["limit"]),
        (&json!(1000), &json!(1000))
    );
    client.ok(json!({"cmd": "rm", "path": "full"})).await;
    assert!(client.put("more", b"x").await["ok"].is_object());
    assert!(client.put("third", b"x").await["ok"].is_object());
    let error = client.put("fourth", b"x").await["error"].take();
    assert_eq!(
        (&error["code"], &error["limit"]),
        (&json!("quota_exceeded"), &json!(3))
    );
}

#[tokio::test]
async fn eight_racing_sessions_never_exceed_the_quota() {
    let server = TestServer::start().await;
    let limits = SpaceLimits {
        bytes: Some(1_000_000),
        files: None,
    };
    server.add_user("carol", limits).await;
    let mut racers = Vec::new();
    for racer in 0..8 {
        let mut client = server.log_in("carol").await;
        racers.push(tokio::spawn(async move {
            let mut stored = 0_u64;
            for round in 0..10 {
                // Half of them do not declare their size.
                let name = format!("{racer}-{round}");
                let put = if racer % 2 == 0 {
                    json!({"id": 7, "cmd": "put", "path": name, "size": 30_000})
                } else {
                    json!({"id": 7, "cmd": "put", "path": name})
                };
                let mut burst = control(&put);
                burst.extend(data(7, &[0; 15_000]).repeat(2));
                burst.extend(control(&json!({"id": 7, "cmd": "end"})));
                client.send_bytes(&burst).await;
                let reply = client.final_reply(7).await;
                stored += reply["ok"]["size"].as_u64().unwrap_or(0);
            }
            stored
        }));
    }
    let mut stored = 0;
    for racer in racers {
        stored += racer.await.expect("no panic");
    }
    let df = server.log_in("carol").await.ok(json!({"cmd": "df"})).await;
    assert_eq!(df["used"], stored);
    assert!(stored <= 1_000_000 && stored > 900_000, "{stored}");
}

#[tokio::test]
async fn a_put_without_an_end_is_discarded_when_the_client_quits() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    begin_put(&mut client, 7, json!({"id": 7, "cmd": "put", "path": "a"})).await;
    client.send(json!({"id": 8, "cmd": "quit"})).await;
    assert_eq!(client.reply().await["error"]["code"], "cancelled");
    assert_eq!(client.reply().await, json!({"id": 8, "ok": {}}));
    assert_eq!(client.receive().await, Received::Closed);
    assert_eq!(server.staged(), 0);
}

#[tokio::test]
async fn quit_waits_for_earlier_gets() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.put("a", &content(2 << 20)).await;
    client
        .send(json!({"id": 6, "cmd": "get", "path": "a"}))
        .await;
    client.send(json!({"id": 7, "cmd": "quit"})).await;
    client.stream.flush().await.expect("open");
    let mut received = 0;
    let mut last = Value::Null;
    loop {
        match client.receive().await {
            Received::Data { chunk, .. } => received += chunk.len(),
            Received::Control(reply) => last = reply,
            Received::Closed => break,
        }
    }
    assert_eq!((received, &last["id"]), (2 << 20, &json!(7)));
}

#[tokio::test]
async fn a_transfer_may_be_far_larger_than_the_memory_budget() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client
        .send(json!({"id": 7, "cmd": "put", "path": "large"}))
        .await;
    let chunk = content(1 << 20);
    for _ in 0..64 {
        client.send_bytes(&data(7, &chunk)).await;
    }
    client.send(json!({"id": 7, "cmd": "end"})).await;
    assert_eq!(client.final_reply(7).await["ok"]["size"], 64 << 20);
    let hash = client
        .ok(json!({"cmd": "hash", "path": "large", "digest": "md5"}))
        .await;
    assert_eq!(hash["digest"], digest(Algorithm::Md5, &chunk.repeat(64)));
}
