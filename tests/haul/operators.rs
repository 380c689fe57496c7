//! What operators see and do over the wire, as users with the admin right.

use serde_json::json;

use crate::harness::{TestServer, control, data, soon};

#[tokio::test]
async fn an_operator_sees_the_sessions_and_how_far_their_transfers_are() {
    let server = TestServer::start().await;
    server.add_admin("root").await;
    let mut alice = server.log_in("alice").await;
    let mut burst = control(&json!({"id": 7, "cmd": "put", "path": "a.bin", "size": 500_000}));
    burst.extend(data(7, &vec![7; 200_000]));
    alice.send_bytes(&burst).await;
    let mut root = server.log_in("root").await;
    let session = soon("the put is seen half done", async || {
        let reply = root.ok(json!({"cmd": "sessions"})).await;
        let session = reply["sessions"][0].clone();
        (session["transfers"][0]["offset"] == 200_000).then_some(session)
    })
    .await;
    assert_eq!(session["user"], "alice");
    assert_eq!(session["secure"], false);
    assert_eq!(session["dialect"], "framed");
    assert_eq!(session["running"], 1);
    let transfer = &session["transfers"][0];
    assert_eq!(transfer["id"], 7);
    assert_eq!(transfer["cmd"], "put");
    assert_eq!(transfer["path"], "/a.bin");
    assert_eq!(transfer["size"], 500_000);
    assert_eq!(transfer["moved"], 200_000);
    assert_eq!(server.server.traffic(), (200_000, 0));
    let first = root.ok(json!({"cmd": "sessions", "limit": 1})).await;
    assert_eq!(first["sessions"][0]["user"], "alice");
    let next = json!({"cmd": "sessions", "limit": 1, "cursor": first["cursor"]});
    let second = root.ok(next).await;
    assert_eq!(second["sessions"][0]["user"], "root");
    assert!(second.get("cursor").is_none(), "{second}");
    root.fails(
        json!({"cmd": "sessions", "cursor": "elsewhere"}),
        "bad_request",
    )
    .await;
    drop(alice);
    soon("a session that has ended is not there", async || {
        (server.server.session_count() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_the_admin_right_nothing_is_told() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    alice.fails(json!({"cmd": "sessions"}), "denied").await;
}

#[tokio::test]
async fn whoever_is_kicked_is_told_and_what_they_sent_is_kept() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let put = json!({"id": 7, "cmd": "put", "path": "a.bin", "size": 500_000});
    let mut burst = control(&put);
    burst.extend(data(7, &vec![7; 200_000]));
    alice.send_bytes(&burst).await;
    assert!(alice.reply().await["begin"].is_object());
    soon("all is written that came", async || {
        (server.server.traffic() == (200_000, 0)).then_some(())
    })
    .await;
    assert_eq!(server.server.kick("nobody"), 0);
    assert_eq!(server.server.kick("alice"), 1);
    let goodbye = alice.closes().await.expect("a last word");
    assert_eq!(goodbye, json!({"event": "goodbye", "reason": "kicked"}));
    let mut again = server.log_in("alice").await;
    let uploads = again.ok(json!({"cmd": "uploads"})).await;
    assert_eq!(uploads["uploads"][0]["path"], "/a.bin");
}
