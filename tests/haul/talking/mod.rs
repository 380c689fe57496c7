//! Messages from the command line, in a chat and in the shell.

mod chat;
mod offers;
mod proxy;
mod say;
mod scripted_server;
mod talker;
mod watch;

use serde_json::json;

use crate::harness::{RawClient, soon};

async fn say(client: &mut RawClient, to: &str, text: &str) {
    client
        .ok(json!({"cmd": "say", "to": to, "text": text}))
        .await;
}

/// Sends `text` to a user with one live session.
async fn say_to_live_session(client: &mut RawClient, to: &str, text: &str) {
    let reply = client
        .ok(json!({"cmd": "say", "to": to, "text": text}))
        .await;
    assert_eq!(reply["delivered"], 1, "{to} receives {text}");
}

/// Waits until a session of `to` is live.
async fn wait_until_live(client: &mut RawClient, to: &str) {
    soon("a live session", async || {
        let reply = client
            .ok(json!({"cmd": "say", "to": to, "text": "knock"}))
            .await;
        (reply["delivered"] == 1).then_some(())
    })
    .await;
}
