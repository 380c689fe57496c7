//! Uploads: digests, sizes, replacement of existing files, and lost connections.

use haul::protocol::Algorithm;
use serde_json::json;

use crate::harness::{Received, TestServer, data};
use crate::test_files::patterned_bytes;
use crate::transfers::{begin_put, digest};

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
    client.send_bytes(&data(7, &patterned_bytes(500_000))).await;
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
