//! Uploads at the limit of a quota.

use haul::storage::SpaceLimits;
use serde_json::json;

use crate::harness::{TestServer, control, data};
use crate::test_files::patterned_bytes;

#[tokio::test]
async fn a_put_that_fills_the_quota_succeeds_and_one_byte_more_is_refused_with_the_figures() {
    let server = TestServer::start().await;
    let limits = SpaceLimits {
        bytes: Some(1000),
        files: Some(3),
    };
    server.add_user("carol", limits).await;
    let mut client = server.log_in("carol").await;
    assert!(client.put("full", &patterned_bytes(1000)).await["ok"].is_object());
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
