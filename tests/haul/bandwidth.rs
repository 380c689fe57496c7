//! The bandwidth limit of a user: transfers wait for it, other requests do not.

use haul::config::Config;
use serde_json::json;

use crate::harness::{Received, TestServer, control, data};

/// A rate so low that no transfer ends during a test.
fn lowest_rate(config: &mut Config) {
    config.limits.bandwidth_per_user = Some(1024);
}

#[tokio::test]
async fn a_throttled_download_delays_nothing_else_and_can_be_cancelled() {
    let server = TestServer::start_with(lowest_rate).await;
    let mut alice = server.log_in("alice").await;
    std::fs::write(server.home("alice").join("a"), vec![b'a'; 8 << 20]).expect("written");
    let mut bytes = control(&json!({"id": 1, "cmd": "get", "path": "a"}));
    bytes.extend(control(&json!({"id": 2, "cmd": "get", "path": "a"})));
    alice.send_bytes(&bytes).await;
    // One chunk passes, and uses up the bandwidth of two minutes.
    let (mut begun, mut stream) = (0, None);
    while begun < 2 || stream.is_none() {
        match alice.receive().await {
            Received::Control(json) if json.get("begin").is_some() => begun += 1,
            Received::Data { stream: id, chunk } if stream.is_none() => {
                assert!(chunk.len() <= 128 * 1024);
                stream = Some(id);
            }
            _ => panic!("more than two begins and one chunk"),
        }
    }
    let stream = stream.expect("seen");
    alice.ok(json!({"id": 3, "cmd": "stat", "path": "a"})).await;
    let mut again = server.log_in("alice").await;
    again.ok(json!({"cmd": "ping"})).await;
    for id in [3 - stream, stream] {
        alice
            .send(json!({"id": 9, "cmd": "cancel", "target": id}))
            .await;
        let replies = [alice.reply().await, alice.reply().await];
        let cancelled = replies.iter().find(|reply| reply["id"] == id);
        let cancelled = cancelled.expect("a final reply");
        assert_eq!(cancelled["error"]["code"], "cancelled", "{cancelled}");
    }
}

#[tokio::test]
async fn uploads_of_two_sessions_share_the_bandwidth_and_can_be_cancelled() {
    let server = TestServer::start_with(lowest_rate).await;
    let mut first = server.log_in("alice").await;
    let mut second = server.log_in("alice").await;
    let stored = first.put("whole", &vec![b'w'; 100_000]).await;
    assert!(stored["ok"].is_object(), "the first chunk passes: {stored}");
    let mut bytes = control(&json!({"id": 4, "cmd": "put", "path": "a", "size": 100_000}));
    bytes.extend(data(4, &vec![b'a'; 100_000]));
    bytes.extend(control(&json!({"id": 4, "cmd": "end"})));
    second.send_bytes(&bytes).await;
    assert!(second.reply().await["begin"].is_object());
    second.ok(json!({"id": 5, "cmd": "ping"})).await;
    second
        .ok(json!({"id": 6, "cmd": "cancel", "target": 4}))
        .await;
    let reply = second.final_reply(4).await;
    assert_eq!(reply["error"]["code"], "cancelled", "{reply}");
    let mut bob = server.log_in("bob").await;
    let other = bob.put("whole", &vec![b'w'; 100_000]).await;
    assert!(other["ok"].is_object(), "{other}");
}
