//! Datagrams, with a client made of a socket, HMAC-SHA256 and `serde_json`.

mod clients;
mod discovery;
mod messages;
pub(crate) mod raw_client;
mod requests;
mod tickets;

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{RawClient, Received, TestServer, soon};

const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until the server has dropped `number` datagrams.
async fn dropped(server: &TestServer, number: u64) {
    let look = async || (server.server.dropped_datagrams() >= number).then_some(());
    soon("a datagram that is dropped", look).await;
    assert_eq!(server.server.dropped_datagrams(), number);
}

fn ack(id: u32, seq: u64) -> Value {
    json!({"id": id, "cmd": "ack", "seq": seq})
}

fn say(id: u32, to: &str, text: &str) -> Value {
    json!({"id": id, "cmd": "say", "to": to, "text": text})
}

/// The next message event of a session.
async fn next_event(session: &mut RawClient) -> Value {
    if !session.events.is_empty() {
        return session.events.remove(0);
    }
    match session.receive().await {
        Received::Control(event) if event["event"] == "message" => event,
        other => panic!("expected a message, not {other:?}"),
    }
}
