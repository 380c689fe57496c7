//! Watching: the receivers of each change, the order of changes, and receivers that are too slow.

use std::time::Duration;

use haul::storage::SpaceLimits;
use serde_json::{Value, json};
use tokio::net::TcpSocket;

use crate::harness::{PASSWORD, RawClient, Received, TestServer, soon};

/// A server with the folder `team`, in which alice and bob have the given rights, and their
/// sessions.
async fn with_team(alice: &str, bob: &str) -> (TestServer, RawClient, RawClient) {
    let server = TestServer::start().await;
    let team = "team".parse().expect("a name");
    let added = server
        .accounts
        .add_folder(&team, SpaceLimits::default())
        .await;
    added.expect("a folder");
    grant(&server, "alice", alice).await;
    grant(&server, "bob", bob).await;
    let (alice, bob) = (server.log_in("alice").await, server.log_in("bob").await);
    (server, alice, bob)
}

async fn grant(server: &TestServer, user: &str, rights: &str) {
    let team = "team".parse().expect("a name");
    let user = user.parse().expect("a name");
    let rights = rights.parse().expect("rights");
    let granted = server.accounts.grant(&team, &user, rights).await;
    granted.expect("granted");
}

/// Watches a path; returns the number of the watch and the `seq` after which it reports changes.
async fn watch(client: &mut RawClient, path: &str) -> (u64, u64) {
    let begun = client.ok(json!({"cmd": "watch", "path": path})).await;
    let number = |field: &str| begun[field].as_u64().expect("a number");
    (number("watch"), number("seq"))
}

async fn watch_since(client: &mut RawClient, path: &str, since: u64) {
    let request = json!({"cmd": "watch", "path": path, "since": since});
    client.ok(request).await;
}

async fn put(client: &mut RawClient, path: &str) {
    let reply = client.put(path, b"content").await;
    assert!(reply["ok"].is_object(), "{path}: {reply}");
}

async fn mkdir(client: &mut RawClient, path: &str) {
    client.ok(json!({"cmd": "mkdir", "path": path})).await;
}

async fn mv(client: &mut RawClient, from: &str, to: &str) {
    let request = json!({"cmd": "mv", "from": from, "to": to});
    client.ok(request).await;
}

async fn rm(client: &mut RawClient, path: &str) {
    let request = json!({"cmd": "rm", "path": path, "recursive": true});
    client.ok(request).await;
}

/// A short form of an event: kind, path, old path and user.
fn format_event(event: &Value) -> String {
    assert_eq!(event["event"], "changed", "{event}");
    let text = |field: &str| event[field].as_str().unwrap_or_default();
    let part = |word: &str, field: &str| match event.get(field) {
        Some(_) => format!(" {word} {}", text(field)),
        None => String::new(),
    };
    let (from, by) = (part("<", "from"), part("by", "by"));
    format!("{} {}{from}{by}", text("kind"), text("path"))
}

/// The events before the one whose short form begins with `last`.
async fn events_until(client: &mut RawClient, last: &str) -> Vec<Value> {
    let mut events: Vec<Value> = Vec::new();
    loop {
        let event = client.event().await;
        if format_event(&event).starts_with(last) {
            assert!(events.is_sorted_by_key(|event| event["seq"].as_u64()));
            return events;
        }
        events.push(event);
    }
}

async fn until(client: &mut RawClient, last: &str) -> Vec<String> {
    events_until(client, last)
        .await
        .iter()
        .map(format_event)
        .collect()
}

/// All events up to now, for a session that watches its home.
async fn events(client: &mut RawClient) -> Vec<String> {
    mkdir(client, "/marker").await;
    rm(client, "/marker").await;
    let lines = until(client, "made /marker").await;
    assert!(until(client, "removed /marker").await.is_empty());
    lines
}

#[tokio::test]
async fn every_command_that_changes_files_is_reported_with_its_user() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    watch(&mut alice, "/").await;
    put(&mut alice, "/a").await;
    assert_eq!(events(&mut alice).await, ["written /a by alice"]);
    alice
        .ok(json!({"cmd": "mkdir", "path": "/d/e", "parents": true}))
        .await;
    let made = ["made /d by alice", "made /d/e by alice"];
    assert_eq!(events(&mut alice).await, made);
    let into = json!({"id": 7, "cmd": "put", "path": "/f/g", "size": 0, "parents": true});
    alice.send(into).await;
    alice.send(json!({"id": 7, "cmd": "end"})).await;
    alice.final_reply(7).await;
    let made = ["made /f by alice", "written /f/g by alice"];
    assert_eq!(events(&mut alice).await, made);
    for (cmd, to, line) in [
        ("cp", "/d/b", "written /d/b by alice"),
        ("cp", "/a", "written /a (1) by alice"),
        ("mv", "/c", "moved /c < /a by alice"),
    ] {
        let request = json!({"cmd": cmd, "from": "/a", "to": to, "if_exists": "rename"});
        alice.ok(request).await;
        assert_eq!(events(&mut alice).await, [line]);
    }
    alice
        .ok(json!({"cmd": "cp", "from": "/d", "to": "/h"}))
        .await;
    assert_eq!(events(&mut alice).await, ["made /h by alice"]);
    mv(&mut alice, "/h", "/d/h").await;
    assert_eq!(events(&mut alice).await, ["moved /d/h < /h by alice"]);
    alice.ok(json!({"cmd": "rm", "path": "/c"})).await;
    rm(&mut alice, "/d").await;
    let removed = ["removed /c by alice", "removed /d by alice"];
    assert_eq!(events(&mut alice).await, removed);
    alice
        .fails(json!({"cmd": "rm", "path": "/none"}), "not_found")
        .await;
    assert!(events(&mut alice).await.is_empty());
}

#[tokio::test]
async fn a_change_event_is_as_the_protocol_document_shows_it() {
    let (_server, mut alice, mut bob) = with_team("rw", "rw").await;
    let (_, seq) = watch(&mut alice, "/team").await;
    put(&mut bob, "/team/a.csv").await;
    let mut event = alice.event().await;
    assert!(event["seq"].take().as_u64().expect("a number") > seq);
    let expected = json!({"event": "changed", "seq": null, "path": "/team/a.csv", "kind": "written", "by": "bob"});
    assert_eq!(event, expected);
    mv(&mut bob, "/team/a.csv", "/team/b.csv").await;
    let mut event = alice.event().await;
    event["seq"].take();
    let expected = json!({"event": "changed", "seq": null, "path": "/team/b.csv", "kind": "moved", "from": "/team/a.csv", "by": "bob"});
    assert_eq!(event, expected);
}

#[tokio::test]
async fn changes_in_a_shared_folder_are_reported_to_watching_members() {
    let (_server, mut alice, mut bob) = with_team("rw", "rw").await;
    mkdir(&mut alice, "/team/sub").await;
    watch(&mut alice, "/").await;
    watch(&mut bob, "/team/sub").await;
    put(&mut bob, "/team/a").await;
    put(&mut bob, "/team/sub/b").await;
    put(&mut bob, "/own").await;
    mv(&mut bob, "/own", "/team/sub/c").await;
    mv(&mut bob, "/team/sub/b", "/mine").await;
    rm(&mut alice, "/team/sub/c").await;
    let lines = [
        "written /team/a by bob",
        "written /team/sub/b by bob",
        "moved /team/sub/c by bob",
        "removed /team/sub/b by bob",
        "removed /team/sub/c by alice",
    ];
    assert_eq!(events(&mut alice).await, lines);
    put(&mut alice, "/team/sub/last").await;
    let own_lines = until(&mut bob, "written /team/sub/last").await;
    assert_eq!(own_lines, lines[1..], "its own changes too");
}

#[tokio::test]
async fn a_watch_reports_nothing_that_its_user_may_not_see() {
    let (_server, mut alice, mut bob) = with_team("rw", "drop").await;
    watch(&mut bob, "/").await;
    put(&mut alice, "/team/a").await;
    put(&mut alice, "/home").await;
    put(&mut bob, "/team/dropped").await;
    mkdir(&mut bob, "/own").await;
    mv(&mut alice, "/team/a", "/b").await;
    put(&mut bob, "/gift").await;
    mv(&mut bob, "/gift", "/team/gift").await;
    let lines = [
        "made /own by bob",
        "written /gift by bob",
        "removed /gift by bob",
    ];
    assert_eq!(events(&mut bob).await, lines);
    let watch = |path: &str| json!({"cmd": "watch", "path": path});
    bob.fails(watch("/team"), "denied").await;
    bob.fails(watch("/team/dropped"), "denied").await;
    bob.fails(watch("/none"), "not_found").await;
    bob.fails(watch("/own/none"), "not_found").await;
    bob.fails(watch(""), "invalid_path").await;
}

#[tokio::test]
async fn a_change_of_rights_takes_effect_in_open_watches() {
    let (server, mut alice, mut bob) = with_team("rw", "rw").await;
    watch(&mut bob, "/").await;
    watch(&mut bob, "/team").await;
    put(&mut alice, "/team/a").await;
    assert_eq!(events(&mut bob).await, ["written /team/a by alice"]);
    let team = "team".parse().expect("a name");
    let bobs = "bob".parse().expect("a name");
    let revoked = server.accounts.revoke(&team, &bobs).await;
    revoked.expect("revoked");
    let is_gone = async || {
        let reply = bob.call(json!({"cmd": "ls", "path": "/team"})).await;
        reply.get("error").map(|_| ())
    };
    soon("the right to be gone", is_gone).await;
    put(&mut alice, "/team/b").await;
    mv(&mut alice, "/team/b", "/team/c").await;
    // Once when the right is lost, and again once the paths are resolved again.
    let mut heard_then = events(&mut bob).await;
    heard_then.sort();
    heard_then.dedup();
    assert_eq!(heard_then, ["overflow /", "overflow /team"]);
    put(&mut alice, "/team/d").await;
    assert!(events(&mut bob).await.is_empty());
    grant(&server, "bob", "r").await;
    let is_back = async || {
        let reply = bob.call(json!({"cmd": "ls", "path": "/team"})).await;
        reply.get("ok").map(|_| ())
    };
    soon("the right to be back", is_back).await;
    put(&mut alice, "/team/e").await;
    let lines = ["overflow /", "overflow /team", "written /team/e by alice"];
    assert_eq!(events(&mut bob).await, lines);
}

#[tokio::test]
async fn a_resumed_watch_reports_the_missed_changes_once_and_in_order() {
    let (server, mut alice, mut bob) = with_team("rw", "rw").await;
    watch(&mut bob, "/").await;
    put(&mut alice, "/team/first").await;
    let since = bob.event().await["seq"].as_u64().expect("a number");
    drop(bob);
    let mut expected = Vec::new();
    for number in 0..300 {
        mkdir(&mut alice, &format!("/team/{number}")).await;
        expected.push(format!("made /team/{number} by alice"));
    }
    let mut bob = server.log_in("bob").await;
    watch_since(&mut bob, "/", since).await;
    put(&mut alice, "/team/last").await;
    expected.push("written /team/last by alice".into());
    assert_eq!(events(&mut bob).await, expected);
    // Also from the `seq` at which a watch began.
    let (_, seq) = watch(&mut alice, "/team").await;
    put(&mut bob, "/team/more").await;
    let mut again = server.log_in("bob").await;
    watch_since(&mut again, "/team", seq).await;
    assert_eq!(
        format_event(&again.event().await),
        "written /team/more by bob"
    );
}

#[tokio::test]
async fn changes_before_the_start_of_the_server_are_an_overflow() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let (_, begun) = watch(&mut alice, "/").await;
    put(&mut alice, "/a").await;
    let seen = alice.event().await["seq"].as_u64().expect("a number");
    let server = server.restart().await;
    for since in [0, begun, seen, 1 << 50] {
        let mut alice = server.log_in("alice").await;
        watch_since(&mut alice, "/", since).await;
        let event = alice.event().await;
        assert_eq!(format_event(&event), "overflow /", "{since}");
        let now = event["seq"].as_u64().expect("a number");
        put(&mut alice, "/b").await;
        let event = alice.event().await;
        assert_eq!(format_event(&event), "written /b by alice");
        assert!(event["seq"].as_u64() > Some(now.max(seen)));
    }
}

#[tokio::test]
async fn a_session_that_reads_too_slowly_gets_an_overflow() {
    let patient = Duration::from_mins(10);
    let server = TestServer::start_with(|config| config.limits.write_timeout = patient).await;
    let mut alice = server.log_in("alice").await;
    // Long paths, so that few changes exceed the memory for recent changes.
    let deep = format!("/{}", ["d".repeat(250).as_str(); 14].join("/"));
    let parents = json!({"cmd": "mkdir", "path": deep, "parents": true});
    alice.ok(parents).await;
    let (one, other) = (format!("{deep}/one"), format!("{deep}/other"));
    put(&mut alice, &one).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let stream = socket.connect(server.address).await.expect("connects");
    let mut slow = RawClient::new(stream);
    let login = json!({"cmd": "login", "user": "alice", "password": PASSWORD});
    slow.ok(login).await;
    watch(&mut slow, "/").await;
    for _ in 0..400 {
        mv(&mut alice, &one, &other).await;
        mv(&mut alice, &other, &one).await;
    }
    put(&mut alice, "/last").await;
    let events = events_until(&mut slow, "written /last").await;
    let overflows: Vec<_> = events
        .iter()
        .filter(|event| event["kind"] == "overflow")
        .collect();
    assert!(!overflows.is_empty(), "{} events", events.len());
    assert!(overflows.iter().all(|event| event["path"] == "/"));
    // The reported changes are complete, except after an overflow.
    let places: Vec<_> = events
        .iter()
        .map(|event| (event["seq"].as_u64().expect("a number"), event))
        .collect();
    for pair in places.windows(2) {
        let follows = pair[1].0 == pair[0].0 + 1;
        assert!(follows || pair[1].1["kind"] == "overflow", "{pair:?}");
    }
    mkdir(&mut alice, "/more").await;
    assert_eq!(format_event(&slow.event().await), "made /more by alice");
}

#[tokio::test]
async fn changes_and_messages_are_sent_in_the_order_of_their_seq() {
    let (_server, mut alice, mut bob) = with_team("rw", "rw").await;
    watch(&mut bob, "/team").await;
    let say = json!({"cmd": "say", "to": "bob", "text": "hello"});
    let is_live = async || {
        let reply = alice.ok(say.clone()).await;
        (reply["delivered"] == 1).then_some(())
    };
    soon("bob to hear at once", is_live).await;
    for number in 0..50 {
        alice.ok(say.clone()).await;
        mkdir(&mut alice, &format!("/team/{number}")).await;
    }
    let mut places = Vec::new();
    loop {
        let event = bob.event().await;
        places.push(event["seq"].as_u64().expect("a number"));
        if event["path"] == "/team/49" {
            break;
        }
    }
    assert!(places.len() > 100 && places.is_sorted(), "{places:?}");
}

#[tokio::test]
async fn unwatch_ends_its_watch_and_no_other() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    mkdir(&mut alice, "/a").await;
    mkdir(&mut alice, "/b").await;
    let (first, _) = watch(&mut alice, "/a").await;
    let (second, _) = watch(&mut alice, "/b").await;
    assert_ne!(first, second);
    let unwatch = json!({"cmd": "unwatch", "watch": first});
    alice.ok(unwatch.clone()).await;
    alice.fails(unwatch, "not_found").await;
    put(&mut alice, "/a/x").await;
    put(&mut alice, "/b/x").await;
    assert_eq!(format_event(&alice.event().await), "written /b/x by alice");
    // A session cannot end a watch of another session.
    let mut other = server.log_in("alice").await;
    let unwatch = json!({"cmd": "unwatch", "watch": second});
    other.fails(unwatch, "not_found").await;
}

#[tokio::test]
async fn a_session_has_at_most_32_watches() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    for _ in 0..32 {
        watch(&mut alice, "/").await;
    }
    let watch = json!({"cmd": "watch", "path": "/"});
    alice.fails(watch.clone(), "limited").await;
    put(&mut alice, "/a").await;
    assert_eq!(
        events(&mut alice).await,
        ["written /a by alice"],
        "once for all"
    );
    alice.ok(json!({"cmd": "unwatch", "watch": 5})).await;
    alice.ok(watch).await;
    server
        .log_in("alice")
        .await
        .ok(json!({"cmd": "whoami"}))
        .await;
}

#[tokio::test]
async fn a_watched_path_reports_its_own_removal_move_and_return() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let make = json!({"cmd": "mkdir", "path": "/a/b/c", "parents": true});
    alice.ok(make.clone()).await;
    let mut watching = server.log_in("alice").await;
    watch(&mut watching, "/a/b").await;
    rm(&mut alice, "/a/b").await;
    mkdir(&mut alice, "/a/b").await;
    put(&mut alice, "/a/b/x").await;
    put(&mut alice, "/a/y").await;
    mv(&mut alice, "/a", "/z").await;
    put(&mut alice, "/z/b/unseen").await;
    mv(&mut alice, "/z", "/a").await;
    rm(&mut alice, "/a").await;
    alice.ok(make).await;
    let lines = [
        "removed /a/b by alice",
        "made /a/b by alice",
        "written /a/b/x by alice",
        "removed /a by alice",
        "moved /a by alice",
        "removed /a by alice",
        "made /a by alice",
        "made /a/b by alice",
    ];
    assert_eq!(until(&mut watching, "made /a/b/c").await, lines);
}

#[tokio::test]
async fn a_single_file_can_be_watched() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    mkdir(&mut alice, "/dir").await;
    put(&mut alice, "/dir/a").await;
    alice.ok(json!({"cmd": "cd", "path": "/dir"})).await;
    watch(&mut alice, "a").await;
    put(&mut alice, "b").await;
    put(&mut alice, "a").await;
    mv(&mut alice, "a", "c").await;
    assert_eq!(
        format_event(&alice.event().await),
        "written /dir/a by alice"
    );
    assert_eq!(
        format_event(&alice.event().await),
        "removed /dir/a by alice"
    );
    assert!(alice.events.is_empty());
}

#[tokio::test]
async fn watches_end_with_their_session_and_with_the_account() {
    let (server, mut alice, mut bob) = with_team("rw", "rw").await;
    watch(&mut bob, "/team").await;
    let bobs = "bob".parse().expect("a name");
    let removed = server.accounts.remove_user(&bobs).await;
    removed.expect("removed");
    let goodbye = bob.event().await;
    assert_eq!(goodbye["reason"], "account_closed");
    assert_eq!(bob.receive().await, Received::Closed);
    put(&mut alice, "/team/a").await;
    let hello = alice.ok(json!({"cmd": "hello"})).await;
    let features = hello["features"].as_array().expect("a list");
    assert!(features.contains(&json!("watch")));
}

#[tokio::test]
async fn an_accepted_offer_is_a_change_by_the_receiver() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let mut bob = server.log_in("bob").await;
    alice.put("plan.txt", b"a plan").await;
    let send = json!({"cmd": "send", "to": "bob", "path": "plan.txt"});
    let offer = alice.ok(send).await["offer"].take();
    bob.ok(json!({"cmd": "watch", "path": "/"})).await;
    bob.ok(json!({"cmd": "accept", "offer": offer})).await;
    let mut change = bob.event().await;
    while change["event"] != "changed" {
        change = bob.event().await;
    }
    let change = (&change["path"], &change["kind"], &change["by"]);
    let written = (&json!("/plan.txt"), &json!("written"), &json!("bob"));
    assert_eq!(change, written);
}
