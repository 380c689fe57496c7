//! `accept` and `send`.

use serde_json::json;

use crate::harness::TestServer;
use crate::talking::scripted_server::start_scripted_server;
use crate::talking::talker::Talker;

#[tokio::test]
async fn in_a_chat_an_offer_is_accepted_by_its_number() {
    let server = TestServer::start().await;
    let [alice, bob] = ["alice", "bob"].map(|user| Talker::new(&server, user));
    for name in ["a", "b"] {
        bob.0.write(name, name);
        bob.types(&["put", name], 0).await;
        bob.types(&["send", "alice", name], 0).await;
    }
    let script = "/accept 2 copy\n/accept 9\n";
    let (seen, why) = alice.types_into(&["chat", "bob"], script, 1).await;
    assert!(
        seen.contains("1. bob offers a") && seen.contains("2. bob offers b"),
        "{seen}"
    );
    assert_eq!(
        why,
        "saved as /copy on the server\nthere is no offer 9; `/offers` lists the offers\n"
    );
    assert_eq!(alice.types(&["get", "copy", "-"], 0).await.0, "b\n");
}

#[tokio::test]
async fn accept_without_a_name_takes_the_only_offer_or_lists_them() {
    let offer = |number: usize| {
        json!({"seq": number, "from": "alice", "path": format!("re\u{7}port {number}"), "size": 2048,
            "offer": number.to_string(), "expires": "2026-03-01T12:00:00Z"})
    };
    let address = start_scripted_server(move |connection, request| {
        let offers: Vec<_> = (7..7 + connection).map(offer).collect();
        match request["cmd"].as_str() {
            Some("offers") => vec![json!({"ok": {"offers": offers}})],
            Some("accept") => vec![json!({"ok": {"path": format!("/got {}", request["offer"])}})],
            _ => vec![json!({"error": {"code": "not_found", "message": "no", "retryable": false}})],
        }
    })
    .await;
    let bob = Talker::for_user(&address, "bob");
    let (_, why) = bob.types(&["accept"], 1).await;
    assert_eq!(why, "haul: accept: no file is offered to you\n");
    let (path, _) = bob.types(&["accept"], 0).await;
    assert_eq!(path, "/got \"7\"\n");
    let table = "OFFER  FROM   SIZE     UNTIL             FILE\n\
        7      alice  2.0 KiB  2026-03-01 12:00  re\\u{7}port 7\n\
        8      alice  2.0 KiB  2026-03-01 12:00  re\\u{7}port 8\n";
    let (seen, why) = bob.types(&["accept"], 1).await;
    assert_eq!(seen, table);
    assert_eq!(
        why,
        "haul: accept: several files are offered; name one of them: `haul accept OFFER`\n"
    );
    bob.0.write("here.txt", "on this machine");
    let (_, why) = bob.types(&["send", "alice", "here.txt"], 1).await;
    assert_eq!(
        why,
        "haul: send: here.txt is on this machine but not on the server; \
         upload it first with `haul put here.txt`\n"
    );
}
