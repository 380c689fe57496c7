//! Offers of files to other users.

use std::time::Duration;

use haul::accounts::UserChange;
use haul::storage::{Rights, SpaceLimits};
use serde_json::{Value, json};

use crate::harness::{RawClient, TestServer, control, soon};

async fn send(client: &mut RawClient, to: &str, path: &str) -> String {
    let sent = client
        .ok(json!({"cmd": "send", "to": to, "path": path}))
        .await;
    sent["offer"].as_str().expect("an identifier").to_owned()
}

fn accept(offer: &str) -> Value {
    json!({"cmd": "accept", "offer": offer})
}

fn decline(offer: &str) -> Value {
    json!({"cmd": "decline", "offer": offer})
}

async fn open(client: &mut RawClient) -> Vec<Value> {
    let mut reply = client.ok(json!({"cmd": "offers"})).await;
    reply["offers"].as_array_mut().expect("a list").split_off(0)
}

async fn content(client: &mut RawClient, path: &str) -> Vec<u8> {
    let (bytes, reply) = client.get(json!({"cmd": "get", "path": path})).await;
    assert!(reply["ok"].is_object(), "{reply}");
    bytes
}

async fn used(client: &mut RawClient) -> Value {
    client.ok(json!({"cmd": "df"})).await["used"].take()
}

/// Alice and bob, and a file of alice.
async fn log_in_both(server: &TestServer, path: &str) -> (RawClient, RawClient) {
    let mut alice = server.log_in("alice").await;
    alice.put(path, b"content").await;
    (alice, server.log_in("bob").await)
}

#[tokio::test]
async fn an_accepted_offer_is_a_copy_in_the_home_of_the_receiver() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let mut bob = server.log_in("bob").await;
    alice.ok(json!({"cmd": "mkdir", "path": "secret"})).await;
    alice.put("secret/年度 报告.txt", b"content").await;
    alice.ok(json!({"cmd": "cd", "path": "secret"})).await;
    let offer = send(&mut alice, "bob", "年度 报告.txt").await;
    let mut event = bob.event().await;
    let expires = event["expires"].take();
    let expires: jiff::Timestamp = expires.as_str().expect("text").parse().expect("a time");
    assert!(expires > jiff::Timestamp::now());
    let seq = event["seq"].clone();
    assert_eq!(
        event,
        json!({"event": "offer", "seq": seq, "from": "alice", "path": "年度 报告.txt", "size": 7, "offer": offer, "expires": null})
    );
    let mut listed = open(&mut bob).await;
    listed[0]["expires"].take();
    assert_eq!(
        listed,
        [
            json!({"seq": seq, "from": "alice", "path": "年度 报告.txt", "size": 7, "offer": offer, "expires": null})
        ]
    );
    let accepted = bob.ok(accept(&offer)).await;
    assert_eq!(accepted, json!({"path": "/年度 报告.txt"}));
    assert_eq!(content(&mut bob, "/年度 报告.txt").await, b"content");
    assert_eq!(open(&mut bob).await, Vec::<Value>::new());
    bob.fails(accept(&offer), "not_found").await;
    let (alices_home, bobs_home) = (server.home("alice"), server.home("bob"));
    let inode = |path| {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::metadata(path).expect("there");
        (meta.ino(), meta.nlink())
    };
    let original = inode(alices_home.join("secret/年度 报告.txt"));
    let copy = inode(bobs_home.join("年度 报告.txt"));
    assert!(original.0 != copy.0 && original.1 == 1 && copy.1 == 1);
    assert_eq!(used(&mut alice).await, 7);
    assert_eq!(used(&mut bob).await, 7);
}

#[tokio::test]
async fn an_absent_user_gets_the_open_offers_at_the_next_login_once_and_in_order() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    alice.put("a", b"1").await;
    let say = json!({"cmd": "say", "to": "bob", "text": "look:"});
    alice.ok(say.clone()).await;
    let first = send(&mut alice, "bob", "a").await;
    let withdrawn = send(&mut alice, "bob", "a").await;
    alice.ok(say).await;
    alice.ok(decline(&withdrawn)).await;
    let server = server.restart().await;
    let mut bob = server.log_in("bob").await;
    let events = [bob.event().await, bob.event().await, bob.event().await];
    assert_eq!(events[0]["event"], "message");
    assert_eq!(events[1]["offer"], *first);
    assert_eq!(events[2]["event"], "message");
    bob.fails(accept(&withdrawn), "not_found").await;
    bob.ok(json!({"cmd": "quit"})).await;
    let mut bob = server.log_in("bob").await;
    bob.ok(accept(&first)).await;
    let to_self = json!({"cmd": "say", "to": "bob", "text": "end"});
    bob.ok(to_self).await;
    assert_eq!(bob.event().await["text"], "end");
    assert_eq!(content(&mut bob, "/a").await, b"1");
}

#[tokio::test]
async fn a_user_whose_only_offer_was_withdrawn_gets_later_events() {
    let server = TestServer::start().await;
    let (mut alice, mut bob) = log_in_both(&server, "a").await;
    for _ in 0..3 {
        let offer = send(&mut alice, "bob", "a").await;
        alice.ok(decline(&offer)).await;
        bob.ok(json!({"cmd": "quit"})).await;
        bob = server.log_in("bob").await;
    }
    alice
        .ok(json!({"cmd": "say", "to": "bob", "text": "still there?"}))
        .await;
    let mut event = bob.event().await;
    while event["event"] == "offer" {
        event = bob.event().await;
    }
    assert_eq!(event["text"], "still there?");
}

#[tokio::test]
async fn an_offer_can_be_declined_by_its_receiver_and_withdrawn_by_its_sender_and_nobody_else() {
    let server = TestServer::start().await;
    server.add_user("carol", SpaceLimits::default()).await;
    let (mut alice, mut bob) = log_in_both(&server, "a").await;
    let mut carol = server.log_in("carol").await;
    let declined = send(&mut alice, "bob", "a").await;
    let withdrawn = send(&mut alice, "bob", "a").await;
    for offer in [&declined, &withdrawn] {
        carol.fails(accept(offer), "not_found").await;
        carol.fails(decline(offer), "not_found").await;
        alice.fails(accept(offer), "not_found").await;
    }
    bob.ok(decline(&declined)).await;
    alice.ok(decline(&withdrawn)).await;
    for offer in [&*declined, &*withdrawn, "", "no such"] {
        bob.fails(accept(offer), "not_found").await;
        bob.fails(decline(offer), "not_found").await;
    }
    assert!(!server.home("bob").join("a").exists());
}

#[tokio::test]
async fn an_accept_replaces_no_file_unless_it_names_the_path() {
    let server = TestServer::start().await;
    let (mut alice, mut bob) = log_in_both(&server, "a b.txt").await;
    bob.put("a b.txt", b"mine").await;
    bob.ok(json!({"cmd": "mkdir", "path": "dir"})).await;
    let offer = send(&mut alice, "bob", "a b.txt").await;
    let at = |path: &str| json!({"cmd": "accept", "offer": offer, "path": path});
    bob.fails(at("a b.txt"), "exists").await;
    bob.fails(at("dir"), "exists").await;
    bob.fails(at("dir/"), "invalid_path").await;
    bob.fails(at("nowhere/a"), "not_found").await;
    assert_eq!(bob.ok(at("dir/c d")).await["path"], "/dir/c d");
    let offer = send(&mut alice, "bob", "a b.txt").await;
    assert_eq!(bob.ok(accept(&offer)).await["path"], "/a b (1).txt");
    bob.ok(json!({"cmd": "cd", "path": "dir"})).await;
    let offer = send(&mut alice, "bob", "a b.txt").await;
    assert_eq!(bob.ok(accept(&offer)).await["path"], "/dir/a b.txt");
    assert_eq!(content(&mut bob, "/a b.txt").await, b"mine");
}

#[tokio::test]
async fn a_replaced_or_removed_file_is_not_accepted_and_no_error_reveals_its_path() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    alice.ok(json!({"cmd": "mkdir", "path": "secret"})).await;
    alice.put("secret/a", b"content").await;
    let mut bob = server.log_in("bob").await;
    let offer = send(&mut alice, "bob", "secret/a").await;
    alice.put("secret/a", b"another").await;
    let (code, changed) = bob.error(accept(&offer)).await;
    assert_eq!(code, "changed");
    alice.ok(json!({"cmd": "rm", "path": "secret/a"})).await;
    let (code, removed) = bob.error(accept(&offer)).await;
    assert_eq!(code, "not_found");
    alice.ok(json!({"cmd": "mkdir", "path": "secret/a"})).await;
    let (code, directory) = bob.error(accept(&offer)).await;
    assert_eq!(code, "is_a_directory");
    for error in [changed, removed, directory] {
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    assert_eq!(open(&mut bob).await.len(), 1, "it is open still");
    assert_eq!(server.staged(), 0);
}

#[tokio::test]
async fn an_accept_observes_the_quotas_of_sender_and_receiver() {
    let server = TestServer::start().await;
    let bytes = |bytes| SpaceLimits {
        bytes: Some(bytes),
        files: None,
    };
    server.add_user("full", bytes(10)).await;
    let (mut alice, _) = log_in_both(&server, "a").await;
    let mut full = server.log_in("full").await;
    full.put("mine", b"1234").await;
    let offer = send(&mut alice, "full", "a").await;
    let (code, error) = full.error(accept(&offer)).await;
    assert_eq!((&*code, &error["limit"]), ("quota_exceeded", &json!(10)));
    assert_eq!(used(&mut full).await, 4);
    full.ok(json!({"cmd": "rm", "path": "mine"})).await;
    full.ok(accept(&offer)).await;
    assert_eq!(used(&mut full).await, 7);
    assert_eq!(used(&mut alice).await, 7);
}

#[tokio::test]
async fn only_a_readable_file_can_be_offered_and_only_to_a_user() {
    let server = TestServer::start().await;
    let folder = "team".parse().expect("a name");
    let name = "alice".parse().expect("a name");
    server
        .accounts
        .add_folder(&folder, SpaceLimits::default())
        .await
        .expect("a folder");
    let blind = Rights {
        read: false,
        ..Rights::ALL
    };
    let grant = server.accounts.grant(&folder, &name, blind).await;
    grant.expect("granted");
    let (mut alice, _) = log_in_both(&server, "a").await;
    alice.put("/team/a", b"x").await;
    alice.ok(json!({"cmd": "mkdir", "path": "dir"})).await;
    let send = |to: &str, path: &str| json!({"cmd": "send", "to": to, "path": path});
    for (to, path, code) in [
        ("bob", "/team/a", "denied"),
        ("bob", "dir", "is_a_directory"),
        ("bob", "/", "is_a_directory"),
        ("bob", "nothing", "not_found"),
        ("carol", "a", "not_found"),
        ("\u{1b}[2J", "a", "not_found"),
        ("#room", "a", "bad_request"),
    ] {
        alice.fails(send(to, path), code).await;
    }
}

#[tokio::test]
async fn an_offer_cannot_be_accepted_after_its_sender_lost_the_right_or_the_account() {
    let server = TestServer::start().await;
    let folder = "team".parse().expect("a name");
    let name = "alice".parse().expect("a name");
    let bob_name = "bob".parse().expect("a name");
    let accounts = &server.accounts;
    let added = accounts.add_folder(&folder, SpaceLimits::default()).await;
    added.expect("a folder");
    for user in [&name, &bob_name] {
        let granted = accounts.grant(&folder, user, Rights::ALL).await;
        granted.expect("granted");
    }
    let (mut alice, mut bob) = log_in_both(&server, "mine").await;
    alice.put("/team/shared", b"shared").await;
    let shared = send(&mut alice, "bob", "/team/shared").await;
    let own_offer = send(&mut alice, "bob", "mine").await;
    let into = |offer: &str, path: &str| json!({"cmd": "accept", "offer": offer, "path": path});
    let blind = Rights {
        read: false,
        ..Rights::ALL
    };
    accounts.grant(&folder, &name, blind).await.expect("less");
    bob.fails(into(&shared, "/b"), "denied").await;
    accounts.revoke(&folder, &name).await.expect("revoked");
    bob.fails(into(&shared, "/b"), "not_found").await;
    let disabled = |disabled| UserChange {
        disabled: Some(disabled),
        ..UserChange::default()
    };
    let set = accounts.set_user(&name, disabled(true)).await;
    set.expect("disabled");
    bob.fails(accept(&own_offer), "not_found").await;
    let set = accounts.set_user(&name, disabled(false)).await;
    set.expect("enabled");
    assert_eq!(
        bob.ok(into(&own_offer, "/team/got")).await["path"],
        "/team/got"
    );
    let mut alice = server.log_in("alice").await;
    let own_offer = send(&mut alice, "bob", "mine").await;
    accounts.remove_user(&name).await.expect("removed");
    server.add_user("alice", SpaceLimits::default()).await;
    let mut another = server.log_in("alice").await;
    another.put("mine", b"content").await;
    bob.fails(accept(&own_offer), "not_found").await;
    another.fails(decline(&own_offer), "not_found").await;
}

#[tokio::test]
async fn of_two_simultaneous_accepts_one_succeeds() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    alice.put("a", &vec![7; 1_000_000]).await;
    let mut bob = server.log_in("bob").await;
    for round in 0..10 {
        let offer = send(&mut alice, "bob", "a").await;
        let requests: Vec<u8> = (1..=4)
            .flat_map(|id| control(&json!({"id": id, "cmd": "accept", "offer": offer})))
            .collect();
        bob.send_bytes(&requests).await;
        let mut taken = 0;
        for _ in 0..4 {
            let reply = bob.reply().await;
            if reply["ok"].is_object() {
                taken += 1;
            } else {
                assert_eq!(reply["error"]["code"], "not_found", "{reply}");
            }
        }
        assert_eq!(taken, 1, "round {round}");
    }
    assert_eq!(used(&mut bob).await, 10_000_000);
}

#[tokio::test]
async fn an_offer_survives_a_restart_and_expires() {
    let server = TestServer::start().await;
    let (mut alice, _) = log_in_both(&server, "a").await;
    let offer = send(&mut alice, "bob", "a").await;
    let server = server.restart().await;
    let mut bob = server.log_in("bob").await;
    assert_eq!(bob.event().await["offer"], *offer);
    bob.ok(accept(&offer)).await;
    let mut short = (*server.server.config()).clone();
    short.limits.keep_offers = Duration::from_millis(1);
    let reload = server.server.reload(&short);
    assert_eq!(reload.changed[0].setting, "limits.keep_offers");
    let mut alice = server.log_in("alice").await;
    let offer = send(&mut alice, "bob", "a").await;
    soon("the offer ends", async || {
        open(&mut bob).await.is_empty().then_some(())
    })
    .await;
    bob.fails(accept(&offer), "not_found").await;
    alice.fails(decline(&offer), "not_found").await;
}

#[tokio::test]
async fn offers_count_for_the_message_rate_and_are_bounded_per_sender_and_receiver() {
    let server = TestServer::start_with(|config| config.limits.messages_per_user = 1).await;
    let (mut alice, _) = log_in_both(&server, "a").await;
    let request = json!({"cmd": "send", "to": "bob", "path": "a"});
    let mut wait = None;
    for _ in 0..50 {
        let reply = alice.call(request.clone()).await;
        if reply["error"]["code"] == "limited" {
            wait = reply["error"]["retry_after_ms"].as_u64();
            break;
        }
    }
    assert!(wait.is_some());
    let server = TestServer::start_with(|config| config.limits.messages_per_user = 0).await;
    server.add_user("carol", SpaceLimits::default()).await;
    let (mut alice, _) = log_in_both(&server, "a").await;
    let mut offers = Vec::new();
    for _ in 0..100 {
        offers.push(send(&mut alice, "bob", "a").await);
    }
    alice.fails(request.clone(), "limited").await;
    let to_carol = json!({"cmd": "send", "to": "carol", "path": "a"});
    alice.fails(to_carol, "limited").await;
    let mut carol = server.log_in("carol").await;
    carol.put("a", b"x").await;
    carol.fails(request, "limited").await;
    alice.ok(decline(&offers[0])).await;
    send(&mut carol, "bob", "a").await;
}

#[tokio::test]
async fn only_their_sender_lists_and_withdraws_sent_offers() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let mut bob = server.log_in("bob").await;
    alice.ok(json!({"cmd": "mkdir", "path": "d"})).await;
    alice.put("d/f", b"content").await;
    let offer = send(&mut alice, "bob", "d/f").await;
    let sent = json!({"cmd": "offers", "sent": true});
    let mut listed = alice.ok(sent.clone()).await;
    let listed = listed["offers"].as_array_mut().expect("a list");
    listed[0]["expires"].take();
    let seq = listed[0]["seq"].clone();
    assert_eq!(
        *listed,
        [
            json!({"seq": seq, "from": "alice", "to": "bob", "path": "/d/f", "size": 7, "offer": offer, "expires": null})
        ]
    );
    assert_eq!(open(&mut alice).await, Vec::<Value>::new());
    assert_eq!(bob.ok(sent.clone()).await["offers"], json!([]));
    server.add_user("carol", SpaceLimits::default()).await;
    let mut carol = server.log_in("carol").await;
    carol.fails(decline(&offer), "not_found").await;
    alice.ok(decline(&offer)).await;
    assert_eq!(alice.ok(sent).await["offers"], json!([]));
    bob.fails(accept(&offer), "not_found").await;
    alice.fails(decline(&offer), "not_found").await;
}
