//! A server with scripted replies.

use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::harness::{RawClient, Received};

/// A server that accepts every login and answers other requests with the frames of `answer`. The
/// reply among them gets the id of the request. Closes the connection after a goodbye.
pub(super) async fn start_scripted_server(
    answer: impl Fn(usize, &Value) -> Vec<Value> + Send + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let login = json!({"ok": {"user": "bob", "home": "/", "server": "s", "session": "1"}});
    tokio::spawn(async move {
        for connection in 0.. {
            let (stream, _) = listener.accept().await.expect("a connection");
            let mut peer = RawClient::new(stream);
            'connection: while let Received::Control(request) = peer.receive().await {
                let frames = match request["cmd"].as_str() {
                    Some("login") => vec![login.clone()],
                    Some("quit") => vec![json!({"ok": {}})],
                    _ => answer(connection, &request),
                };
                if frames.is_empty() {
                    break 'connection;
                }
                for mut frame in frames {
                    if frame.get("event").is_none() {
                        frame["id"] = request["id"].clone();
                    }
                    let is_last = frame["event"] == "goodbye";
                    peer.send(frame).await;
                    if is_last {
                        break 'connection;
                    }
                }
            }
        }
    });
    address.to_string()
}

pub(super) fn changed(seq: u64, fields: &Value) -> Value {
    let mut event = json!({"event": "changed", "seq": seq, "by": "alice"});
    for (field, value) in fields.as_object().expect("fields") {
        event[field] = value.clone();
    }
    event
}
