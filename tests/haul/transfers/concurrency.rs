//! Cancellation, and concurrent transfers of one session.

use haul::protocol::Algorithm;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::harness::{Received, TestServer, data};
use crate::test_files::patterned_bytes;
use crate::transfers::{begin_put, digest};

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
    client.put("a", &patterned_bytes(8 << 20)).await;
    client.put("a2", &patterned_bytes(8 << 20)).await;
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
async fn quit_waits_for_earlier_gets() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.put("a", &patterned_bytes(2 << 20)).await;
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
    let chunk = patterned_bytes(1 << 20);
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
