//! Messages by datagram.

use serde_json::json;

use crate::datagrams::raw_client::RawDatagrams;
use crate::datagrams::{ack, next_event, say};
use crate::harness::TestServer;

#[tokio::test]
async fn a_repeated_message_by_datagram_is_delivered_once() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let mut bob = server.log_in("bob").await;
    let client = RawDatagrams::new(&mut alice, server.address).await;
    let datagram = client.datagram(say(1, "bob", "hello"), 0);
    for _ in 0..10 {
        client.send(&datagram).await;
    }
    let reply = client.receive().await;
    let sent = client.open(&reply);
    assert!(sent["id"] == 1 && sent["ok"]["seq"].is_u64(), "{sent}");
    client.send(&datagram).await;
    assert_eq!(client.receive().await, reply);
    let second = client.call(say(2, "bob", "again")).await;
    assert!(second["ok"]["seq"].as_u64() > sent["ok"]["seq"].as_u64());
    for (text, reply) in [("hello", sent), ("again", second)] {
        let event = next_event(&mut bob).await;
        assert_eq!(
            (&event["from"], &event["text"]),
            (&json!("alice"), &json!(text))
        );
        assert_eq!(event["seq"], reply["ok"]["seq"]);
    }
    let history = bob.ok(json!({"cmd": "history", "with": "alice"})).await;
    assert_eq!(history["messages"].as_array().map(Vec::len), Some(2));
    server.stop().await;
}

#[tokio::test]
async fn a_say_by_datagram_is_refused_with_the_same_codes_as_over_the_connection() {
    let server = TestServer::start_with(|config| config.limits.messages_per_user = 1).await;
    let mut alice = server.log_in("alice").await;
    let client = RawDatagrams::new(&mut alice, server.address).await;
    let nobody = client.call(say(1, "nobody", "hello")).await;
    assert_eq!(nobody["error"]["code"], "not_found");
    let elsewhere = client.call(say(2, "#ops", "hello")).await;
    assert_eq!(elsewhere["error"]["code"], "not_found");
    // The message rate counts datagrams and connections of a user together.
    let mut id = 2;
    let limited = loop {
        id += 1;
        let reply = client.call(say(id, "bob", "hello")).await;
        if reply.get("error").is_some() {
            break reply;
        }
    };
    assert_eq!(limited["error"]["code"], "limited");
    assert!(limited["error"]["retry_after_ms"].is_u64());
    let over_the_connection = json!({"cmd": "say", "to": "bob", "text": "hello"});
    alice.fails(over_the_connection, "limited").await;
    server.stop().await;
}

#[tokio::test]
async fn a_message_is_sent_to_the_last_address_of_the_holder_until_it_is_acknowledged() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let mut bob = server.log_in("bob").await;
    let client = RawDatagrams::new(&mut alice, server.address).await;
    // The address of the holder is unknown before its first datagram.
    bob.ok(json!({"cmd": "say", "to": "alice", "text": "too early"}))
        .await;
    assert_eq!(next_event(&mut alice).await["text"], "too early");
    for id in 1..=4 {
        assert!(client.call(ack(id, 1)).await["ok"].is_object());
    }
    let sent = json!({"cmd": "say", "to": "alice", "text": "hello"});
    let seq = bob.ok(sent).await["seq"].as_u64().expect("a seq");
    let first = client.receive().await;
    let event = client.open(&first);
    assert_eq!(
        (&event["event"], &event["seq"]),
        (&json!("message"), &json!(seq))
    );
    assert_eq!(
        (&event["from"], &event["text"]),
        (&json!("bob"), &json!("hello"))
    );
    assert_eq!(client.receive().await, first, "it was not acknowledged");
    assert_eq!(
        next_event(&mut alice).await["text"],
        "hello",
        "the session has it, too"
    );
    let request = client.datagram(ack(5, seq), 600);
    client.send(&request).await;
    // Copies sent before the acknowledgement may arrive after it.
    while client.receive().await == first {}
    let more = json!({"cmd": "say", "to": "alice", "text": "more"});
    bob.ok(more).await;
    let next = client.open(&client.receive().await);
    assert_eq!(next["text"], "more", "the other one is not sent again");
    server.stop().await;
}

#[tokio::test]
async fn a_replayed_datagram_does_not_redirect_messages() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let mut bob = server.log_in("bob").await;
    let home = RawDatagrams::new(&mut alice, server.address).await;
    let mut away = RawDatagrams::stranger(server.address).await;
    away.ticket.clone_from(&home.ticket);
    away.secret.clone_from(&home.secret);
    assert!(home.call(ack(1, 1)).await["ok"].is_object());
    let spoken = away.datagram(ack(2, 1), 1200);
    away.send(&spoken).await;
    away.receive().await;
    // An eavesdropper replays a datagram from another address.
    let thief = RawDatagrams::stranger(server.address).await;
    thief.send(&spoken).await;
    thief.receive().await;
    bob.ok(json!({"cmd": "say", "to": "alice", "text": "hello"}))
        .await;
    assert_eq!(away.open(&away.receive().await)["text"], "hello");
    let mut buffer = [0; 2000];
    for other in [&home, &thief] {
        let nothing = other.socket.try_recv_from(&mut buffer);
        assert!(nothing.is_err(), "{nothing:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_server_sends_an_address_no_more_bytes_than_it_received() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let mut bob = server.log_in("bob").await;
    let client = RawDatagrams::new(&mut alice, server.address).await;
    let request = client.datagram(ack(1, 1), 500);
    client.send(&request).await;
    let mut received = client.receive().await.len();
    for _ in 0..10 {
        let text = "x".repeat(200);
        bob.ok(json!({"cmd": "say", "to": "alice", "text": text}))
            .await;
    }
    received += client.receive().await.len();
    // After everything sent before; the messages wait for their next transmission.
    let last = client.datagram(ack(2, 1), 0);
    client.send(&last).await;
    loop {
        let datagram = client.receive().await;
        received += datagram.len();
        if client.open(&datagram)["id"] == 2 {
            break;
        }
    }
    assert!(received <= request.len() + last.len(), "{received}");
    server.stop().await;
}

#[tokio::test]
async fn a_message_too_long_for_a_datagram_is_sent_over_the_connection_only() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let mut bob = server.log_in("bob").await;
    let client = RawDatagrams::new(&mut alice, server.address).await;
    for id in 1..=3 {
        client.call(ack(id, 1)).await;
    }
    for text in ["x".repeat(1200), "short".into()] {
        bob.ok(json!({"cmd": "say", "to": "alice", "text": text}))
            .await;
        assert_eq!(next_event(&mut alice).await["text"], text);
    }
    assert_eq!(client.open(&client.receive().await)["text"], "short");
    server.stop().await;
}
