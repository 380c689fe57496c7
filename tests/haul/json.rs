//! RELIABILITY, JSON: a bad request is answered with an error, and the session lives.

use serde_json::{Value, json};

use crate::harness::{RawClient, TestServer, data, frame};

async fn refused(client: &mut RawClient, payload: &[u8]) -> Value {
    client.send_bytes(&frame(payload)).await;
    let mut reply = client.reply().await;
    assert_eq!(reply["error"]["code"], "bad_request", "{reply}");
    assert_eq!(
        client.ok(json!({"cmd": "pwd"})).await["cwd"],
        "/",
        "the session lives"
    );
    reply.take()
}

#[tokio::test]
async fn a_request_that_is_not_a_json_object_is_a_bad_request_and_the_session_continues() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    let deep = format!(r#"{{"cmd":{}"#, "[".repeat(60_000));
    let payloads: [&[u8]; 9] = [
        b"{",
        b"{}",
        b"{\"cmd\":\"pwd\"}x",
        b"{\"cmd\":\"pwd\"}{\"cmd\":\"pwd\"}",
        b"{\"cmd\":\"cd\",\"path\":\"\xff\"}",
        b"{\"cmd\":\"cd\",\"path\":\"\xc0\xaf\"}",
        b"{\"cmd\":\"cd\",\"path\":\"\\ud800\"}",
        b"{\"cmd\":null}",
        deep.as_bytes(),
    ];
    for payload in payloads {
        refused(&mut client, payload).await;
    }
}

#[tokio::test]
async fn a_bad_request_is_answered_with_its_id_and_names_the_field() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    for (payload, field) in [
        // This comes before the puts, because an `end` after a refused put belongs to it and has no
        // reply.
        (&br#"{"id":9,"cmd":"end","digest":"md5:xyz"}"#[..], "digest"),
        (br#"{"id":9,"cmd":"fly"}"#, "cmd"),
        (br#"{"id":9,"cmd":"cd"}"#, "path"),
        (br#"{"id":9,"cmd":"cd","path":7}"#, "path"),
        (br#"{"id":9,"cmd":"cd","path":"a","path":"b"}"#, "path"),
        (br#"{"id":9,"cmd":"pwd","colour":"red"}"#, "colour"),
        (br#"{"id":9,"cmd":"get","path":"a","offset":-1}"#, "offset"),
        (br#"{"id":9,"cmd":"get","path":"a","offset":1e3}"#, "offset"),
        (
            br#"{"id":9,"cmd":"get","path":"a","offset":18446744073709551616}"#,
            "offset",
        ),
        (
            br#"{"id":9,"cmd":"put","path":"a","size":9223372036854775808}"#,
            "size",
        ),
        (
            br#"{"id":9,"cmd":"put","path":"a","modified":"yesterday"}"#,
            "modified",
        ),
        (br#"{"id":9,"path":"a"}"#, "cmd"),
        (br#"{"id":9,"cmd":7}"#, "cmd"),
        (br#"{"cmd":"cd","cmd":"cd","id":9}"#, "cmd"),
    ] {
        let reply = refused(&mut client, payload).await;
        assert_eq!(
            (&reply["id"], &reply["error"]["field"]),
            (&json!(9), &json!(field))
        );
    }
}

#[tokio::test]
async fn a_bad_request_with_the_id_of_an_open_put_is_not_taken_for_its_reply() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client
        .send(json!({"id": 7, "cmd": "put", "path": "a", "size": 4}))
        .await;
    for payload in [
        &br#"{"id":7}"#[..],
        br#"{"id":7,"cmd":"cd","cmd":"cd","path":"/"}"#,
        br#"{"id":7,"cmd":"fly"}"#,
        br#"{"id":7,"cmd":"cancel"}"#,
        br#"{"id":7,"cmd":"user_add"}"#,
    ] {
        client.send_bytes(&frame(payload)).await;
        let refused = client.final_reply(0).await;
        assert!(refused["error"].is_object(), "{refused}");
    }
    client.send_bytes(&data(7, b"text")).await;
    client.send(json!({"id": 7, "cmd": "end"})).await;
    assert_eq!(client.final_reply(7).await["ok"]["size"], 4);
}

#[tokio::test]
async fn a_bad_request_before_login_is_answered_and_the_connection_lives() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    client
        .fails(json!({"id": 1, "cmd": "fly"}), "bad_request")
        .await;
    client
        .fails(json!({"id": 2, "cmd": "ls"}), "not_logged_in")
        .await;
    client.ok(json!({"id": 3, "cmd": "hello"})).await;
}

#[tokio::test]
async fn a_command_that_this_server_does_not_offer_is_unsupported() {
    let server = TestServer::start_with(|config| config.server.datagrams = false).await;
    let mut client = server.log_in("alice").await;
    client.fails(json!({"cmd": "ticket"}), "unsupported").await;
    client.ok(json!({"cmd": "pwd"})).await;
}
