//! Messages to users and rooms: live and from the backlog, each once and in order.

use serde_json::{Value, json};

use crate::harness::{PASSWORD, RawClient, Received, TestServer, control};

/// Sends a message; returns its `seq` and the number of sessions that received it.
async fn say(client: &mut RawClient, to: &str, text: &str) -> (u64, u64) {
    let reply = client
        .ok(json!({"cmd": "say", "to": to, "text": text}))
        .await;
    let number = |field: &str| reply[field].as_u64().expect("a number");
    (number("seq"), number("delivered"))
}

async fn join(client: &mut RawClient, room: &str) -> Value {
    client.ok(json!({"cmd": "join", "room": room})).await["members"].take()
}

/// A live session; `events` has the backlog.
async fn log_in_live(server: &TestServer, user: &str) -> RawClient {
    let mut client = server.log_in(user).await;
    wait_until_live(&mut client, user).await;
    client
}

/// Waits until the session of `user` is live.
async fn wait_until_live(client: &mut RawClient, user: &str) {
    loop {
        let (seq, delivered) = say(client, user, "probe").await;
        if delivered > 0 {
            let is_probe = |event: &Value| event["seq"] == seq;
            while !client.events.iter().any(is_probe) {
                let event = client.receive().await;
                let Received::Control(event) = event else {
                    panic!("{event:?}");
                };
                client.events.push(event);
            }
            break;
        }
    }
    client.events.retain(|event| event["text"] != "probe");
}

/// All events that a session of `user` receives before a message that it sends itself.
async fn backlog_of(server: &TestServer, user: &str, since: Option<u64>) -> Vec<Value> {
    let mut client = server.connect().await;
    let mut login = json!({"cmd": "login", "user": user, "password": PASSWORD});
    if let Some(since) = since {
        login["since"] = since.into();
    }
    client.ok(login).await;
    wait_until_live(&mut client, user).await;
    client.ok(json!({"cmd": "quit"})).await;
    client.events
}

fn texts(events: &[Value]) -> Vec<&str> {
    let texts = events.iter().map(|event| event["text"].as_str());
    texts.collect::<Option<_>>().expect("messages")
}

#[tokio::test]
async fn a_message_is_delivered_at_once_to_connected_users() {
    let server = TestServer::start().await;
    let mut bob = log_in_live(&server, "bob").await;
    let mut alice = server.log_in("alice").await;
    let (seq, delivered) = say(&mut alice, "bob", "hello\n\"Böb\" 🎉").await;
    assert_eq!(delivered, 1);
    let mut event = bob.event().await;
    let time = event["time"].take();
    time.as_str()
        .expect("a time")
        .parse::<jiff::Timestamp>()
        .expect("RFC 3339");
    assert_eq!(
        event,
        json!({"event": "message", "seq": seq, "from": "alice", "to": "bob", "text": "hello\n\"Böb\" 🎉", "time": null})
    );
}

#[tokio::test]
async fn an_absent_user_gets_messages_at_the_next_login_once_and_in_order() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    for number in 0..300 {
        let (_, delivered) = say(&mut alice, "bob", &format!("{number}")).await;
        assert_eq!(delivered, 0);
    }
    let events = backlog_of(&server, "bob", None).await;
    let expected: Vec<_> = (0..300).map(|number| number.to_string()).collect();
    assert_eq!(texts(&events), expected);
    assert!(events.is_sorted_by_key(|event| event["seq"].as_u64()));
    assert_eq!(backlog_of(&server, "bob", None).await, Vec::<Value>::new());
}

#[tokio::test]
async fn events_after_since_are_sent_again() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let mut seqs = Vec::new();
    for text in ["one", "two", "three"] {
        seqs.push(say(&mut alice, "bob", text).await.0);
    }
    assert_eq!(
        texts(&backlog_of(&server, "bob", None).await),
        ["one", "two", "three"]
    );
    let again = backlog_of(&server, "bob", Some(seqs[0])).await;
    assert_eq!(texts(&again)[..2], ["two", "three"]);
    say(&mut alice, "bob", "four").await;
    say(&mut alice, "bob", "five").await;
    // A receiver that already has the message does not get it again.
    let (seq, _) = say(&mut alice, "bob", "six").await;
    assert_eq!(
        backlog_of(&server, "bob", Some(seq)).await,
        Vec::<Value>::new()
    );
    assert_eq!(backlog_of(&server, "bob", None).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_room_message_is_delivered_to_the_other_members() {
    let server = TestServer::start().await;
    let mut bob = log_in_live(&server, "bob").await;
    let mut alice = log_in_live(&server, "alice").await;
    assert_eq!(join(&mut alice, "#ops").await, json!(["alice"]));
    assert_eq!(join(&mut bob, "#ops").await, json!(["alice", "bob"]));
    assert_eq!(join(&mut bob, "#ops").await, json!(["alice", "bob"]));
    let (seq, delivered) = say(&mut alice, "#ops", "up").await;
    assert_eq!(delivered, 1);
    let event = bob.event().await;
    assert_eq!((&event["to"], &event["seq"]), (&json!("#ops"), &json!(seq)));
    let left = bob.ok(json!({"cmd": "leave", "room": "#ops"})).await;
    assert_eq!(left["members"], json!(["alice"]));
    assert_eq!(say(&mut alice, "#ops", "gone?").await.1, 0);
    bob.fails(json!({"cmd": "say", "to": "#ops", "text": "x"}), "denied")
        .await;
    bob.fails(json!({"cmd": "history", "with": "#ops"}), "denied")
        .await;
    bob.fails(json!({"cmd": "leave", "room": "#ops"}), "denied")
        .await;
    alice.ok(json!({"cmd": "leave", "room": "#ops"})).await;
    alice
        .fails(json!({"cmd": "leave", "room": "#ops"}), "not_found")
        .await;
    assert!(alice.events.is_empty(), "{:?}", alice.events);
}

#[tokio::test]
async fn absent_members_receive_the_messages_of_the_time_of_their_membership() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let mut bob = server.log_in("bob").await;
    join(&mut alice, "#a").await;
    join(&mut alice, "#b").await;
    say(&mut alice, "#a", "before").await;
    join(&mut bob, "#a").await;
    join(&mut bob, "#b").await;
    bob.ok(json!({"cmd": "quit"})).await;
    for text in ["1", "2", "3"] {
        say(&mut alice, "#a", text).await;
        say(&mut alice, "#b", text).await;
    }
    say(&mut alice, "bob", "4").await;
    let events = backlog_of(&server, "bob", None).await;
    assert_eq!(texts(&events), ["1", "1", "2", "2", "3", "3", "4"]);
    assert!(events.is_sorted_by_key(|event| event["seq"].as_u64()));
    assert_eq!(backlog_of(&server, "bob", None).await, Vec::<Value>::new());
}

#[tokio::test]
async fn pipelined_messages_keep_their_order_and_their_replies() {
    let server = TestServer::start_with(|config| config.limits.messages_per_user = 0).await;
    let mut bob = log_in_live(&server, "bob").await;
    let mut alice = log_in_live(&server, "alice").await;
    join(&mut alice, "#ops").await;
    join(&mut bob, "#ops").await;
    let mut requests = Vec::new();
    for id in 1..=2000 {
        let request = json!({"id": id, "cmd": "say", "to": "#ops", "text": id.to_string()});
        requests.extend(control(&request));
    }
    let (mut receiver, mut writer) = alice.split();
    let sending = async {
        use tokio::io::AsyncWriteExt;
        writer.write_all(&requests).await.expect("written");
    };
    let receiving = async {
        let mut seqs = vec![0; 2000];
        for _ in 0..2000 {
            let Received::Control(reply) = receiver.receive().await else {
                panic!("a reply");
            };
            let id = reply["id"].as_u64().expect("an id");
            let index = usize::try_from(id - 1).expect("small");
            seqs[index] = reply["ok"]["seq"].as_u64().expect("a seq");
        }
        seqs
    };
    let ((), seqs) = tokio::join!(sending, receiving);
    assert!(seqs.is_sorted());
    for (number, seq) in seqs.iter().enumerate() {
        let event = bob.event().await;
        assert_eq!(event["seq"], *seq);
        assert_eq!(event["text"], (number + 1).to_string());
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_delays_no_other_and_misses_nothing() {
    let server = TestServer::start_with(|config| config.limits.messages_per_user = 0).await;
    let mut slow = log_in_live(&server, "bob").await;
    let mut alice = server.log_in("alice").await;
    let text = "x".repeat(8000);
    let mut delivered = Vec::new();
    for number in 0..2000 {
        delivered.push(say(&mut alice, "bob", &format!("{number} {text}")).await.1);
    }
    assert_eq!(
        (delivered[0], delivered[1999]),
        (1, 0),
        "the message is delivered later"
    );
    for number in 0..2000 {
        let event = slow.event().await;
        let received = event["text"].as_str().expect("a text");
        assert!(
            received.starts_with(&format!("{number} ")),
            "{number}: {received:.20}"
        );
    }
    wait_until_live(&mut slow, "bob").await;
    assert!(slow.events.is_empty());
}

#[tokio::test]
async fn a_message_to_an_unknown_user_is_not_found_and_an_invalid_one_is_refused_with_its_field() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let say = |to: &str, text: &str| json!({"cmd": "say", "to": to, "text": text});
    for nobody in ["carol", "#nowhere", "no such user", "", "\u{1b}[2J"] {
        alice.fails(say(nobody, "x"), "not_found").await;
    }
    for (request, code, field) in [
        (say("#", "x"), "bad_request", "to"),
        (say("#No Room", "x"), "bad_request", "to"),
        (say("bob", ""), "bad_request", "text"),
        (say("bob", "a\0b"), "bad_request", "text"),
        (say("bob", &"x".repeat(8193)), "too_large", "text"),
        (json!({"cmd": "join", "room": "ops"}), "bad_request", "room"),
    ] {
        let (actual, error) = alice.error(request.clone()).await;
        assert_eq!(
            (&*actual, &error["field"]),
            (code, &json!(field)),
            "{request}"
        );
    }
    alice.ok(say("bob", &"x".repeat(8192))).await;
}

#[tokio::test]
async fn a_flood_of_messages_is_limited_and_affects_no_other_user() {
    let server = TestServer::start_with(|config| config.limits.messages_per_user = 2).await;
    let mut alice = server.log_in("alice").await;
    let say = json!({"cmd": "say", "to": "bob", "text": "x"});
    for _ in 0..10 {
        alice.ok(say.clone()).await;
    }
    // The rate applies to all sessions of a user together.
    let mut again = server.log_in("alice").await;
    let (code, error) = again.error(say.clone()).await;
    assert_eq!(code, "limited");
    assert!(
        error["retry_after_ms"]
            .as_u64()
            .is_some_and(|wait| (1..=500).contains(&wait))
    );
    server.log_in("bob").await.ok(say).await;
}

#[tokio::test]
async fn history_returns_the_messages_of_both_users_page_by_page() {
    let server = TestServer::start().await;
    let (mut alice, mut bob) = (server.log_in("alice").await, server.log_in("bob").await);
    for number in 0..5 {
        say(&mut alice, "bob", &format!("a{number}")).await;
        say(&mut bob, "alice", &format!("b{number}")).await;
    }
    server
        .add_user("carol", haul::storage::SpaceLimits::default())
        .await;
    say(&mut alice, "carol", "a secret").await;
    let mut before = json!(null);
    let mut all = Vec::new();
    loop {
        let mut request = json!({"cmd": "history", "with": "alice", "limit": 4});
        if !before.is_null() {
            request["before"] = before;
        }
        let page = bob.ok(request).await;
        let messages = page["messages"].as_array().expect("messages").clone();
        before = messages[0]["seq"].clone();
        all.splice(0..0, messages);
        if page["more"] == false {
            break;
        }
    }
    let expected = ["a0", "b0", "a1", "b1", "a2", "b2", "a3", "b3", "a4", "b4"];
    assert_eq!(texts(&all), expected);
    assert_eq!(all[1]["from"], "bob");
    assert_eq!(all[1]["to"], "alice");
}

#[tokio::test]
async fn a_page_of_history_always_fits_a_frame() {
    let server = TestServer::start().await;
    let (mut alice, mut bob) = (server.log_in("alice").await, server.log_in("bob").await);
    // Escaped characters need six times their length.
    let text = "\u{1}".repeat(8192);
    for _ in 0..5 {
        say(&mut alice, "bob", &text).await;
    }
    let page = bob.ok(json!({"cmd": "history", "with": "alice"})).await;
    assert_eq!(page["more"], true);
    assert_eq!(page["messages"].as_array().map(Vec::len), Some(1));
    assert_eq!(page["messages"][0]["text"], text);
}

#[tokio::test]
async fn who_lists_users_with_their_sessions_and_start_times() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let mut other = server.log_in("alice").await;
    let _bob = server.log_in("bob").await;
    let who = alice.ok(json!({"cmd": "who"})).await;
    let users = who["users"].as_array().expect("users");
    assert_eq!(
        (&users[0]["user"], &users[0]["sessions"]),
        (&json!("alice"), &json!(2))
    );
    assert_eq!(
        (&users[1]["user"], &users[1]["sessions"]),
        (&json!("bob"), &json!(1))
    );
    assert!(users[0]["since"].is_string());
    other.ok(json!({"cmd": "quit"})).await;
    crate::harness::soon("the session to be gone", async || {
        let who = alice.ok(json!({"cmd": "who"})).await;
        (who["users"][0]["sessions"] == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn all_sessions_of_a_user_receive_a_message() {
    let server = TestServer::start().await;
    let mut one = log_in_live(&server, "bob").await;
    let mut two = log_in_live(&server, "bob").await;
    one.events.clear();
    // The other session has received the message of the second session.
    let mut alice = server.log_in("alice").await;
    let (seq, delivered) = say(&mut alice, "bob", "both").await;
    assert_eq!(delivered, 2);
    for session in [&mut one, &mut two] {
        while session.event().await["seq"] != seq {}
    }
}

#[tokio::test]
async fn messages_and_room_members_survive_a_restart() {
    let server = TestServer::start().await;
    let (mut alice, mut bob) = (
        log_in_live(&server, "alice").await,
        log_in_live(&server, "bob").await,
    );
    join(&mut alice, "#ops").await;
    join(&mut bob, "#ops").await;
    let (first, _) = say(&mut alice, "bob", "received").await;
    assert_eq!(bob.event().await["text"], "received");
    bob.ok(json!({"cmd": "quit"})).await;
    crate::harness::soon("bob to be away", async || {
        let (_, delivered) = say(&mut alice, "bob", "later").await;
        (delivered == 0).then_some(())
    })
    .await;
    say(&mut alice, "#ops", "in the room").await;
    let received = bob.events.len();
    assert_eq!(received, 0);
    let server = server.restart().await;
    let received = backlog_of(&server, "bob", None).await;
    let received = texts(&received);
    assert_eq!(received.first(), Some(&"later"));
    assert_eq!(received.last(), Some(&"in the room"));
    let mut alice = server.log_in("alice").await;
    let (later, _) = say(&mut alice, "#ops", "again").await;
    assert!(later > first);
    assert_eq!(texts(&backlog_of(&server, "bob", None).await), ["again"]);
}

#[tokio::test]
async fn messages_over_the_limits_of_age_and_number_are_deleted_the_oldest_first() {
    let server = TestServer::start_with(|config| config.limits.messages_per_user = 0).await;
    let mut alice = server.log_in("alice").await;
    for number in 0..1300 {
        say(&mut alice, "bob", &number.to_string()).await;
    }
    let mut config = (*server.server.config()).clone();
    config.limits.kept_messages = 20;
    assert!(server.server.reload(&config).needs_restart.is_empty());
    let history = json!({"cmd": "history", "with": "bob"});
    let kept = crate::harness::soon("old messages to be dropped", async || {
        let page = alice.ok(history.clone()).await;
        let messages = page["messages"].as_array().expect("messages").clone();
        (messages.len() == 20).then_some(messages)
    })
    .await;
    assert_eq!(texts(&kept)[0], "1280");
    config.limits.keep_messages = std::time::Duration::from_millis(1);
    assert!(server.server.reload(&config).needs_restart.is_empty());
    crate::harness::soon("all messages to be dropped", async || {
        let page = alice.ok(history.clone()).await;
        page["messages"]
            .as_array()
            .expect("messages")
            .is_empty()
            .then_some(())
    })
    .await;
    assert_eq!(backlog_of(&server, "bob", None).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_session_without_the_inbox_leaves_it_to_another_session() {
    let server = TestServer::start().await;
    let mut bob = server.connect().await;
    let login = json!({"cmd": "login", "user": "bob", "password": PASSWORD, "inbox": false});
    bob.ok(login).await;
    let mut alice = server.log_in("alice").await;
    let (_, delivered) = say(&mut alice, "bob", "for your eyes").await;
    assert_eq!(delivered, 0);
    bob.ok(json!({"cmd": "quit"})).await;
    assert_eq!(bob.events, Vec::<Value>::new());
    assert_eq!(
        texts(&backlog_of(&server, "bob", None).await),
        ["for your eyes"]
    );
}

#[tokio::test]
async fn a_since_of_another_epoch_is_ignored() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    for text in ["one", "two"] {
        say(&mut alice, "bob", text).await;
    }
    let (last, _) = say(&mut alice, "bob", "three").await;
    let log_in_after = async |since: Value, epoch: Value| {
        let mut bob = server.connect().await;
        let mut login = json!({"cmd": "login", "user": "bob", "password": PASSWORD});
        for (field, value) in [("since", since), ("epoch", epoch)] {
            if !value.is_null() {
                login[field] = value;
            }
        }
        let reply = bob.ok(login).await;
        wait_until_live(&mut bob, "bob").await;
        bob.ok(json!({"cmd": "quit"})).await;
        let texts: Vec<_> = texts(&bob.events).into_iter().map(str::to_owned).collect();
        (reply, texts)
    };
    let all = ["one", "two", "three"];
    let (reply, received_events) = log_in_after(Value::Null, Value::Null).await;
    assert_eq!(received_events, all);
    assert_eq!(reply["resumed"], Value::Null);
    let epoch = reply["epoch"].clone();
    assert!(epoch.is_string());
    for (since, epoch) in [(json!(last), epoch.clone()), (json!(last), Value::Null)] {
        let (reply, received_events) = log_in_after(since, epoch).await;
        assert_eq!(
            (received_events.len(), &reply["resumed"]),
            (0, &json!(true))
        );
    }
    let future = json!(last + 1_000_000);
    for (since, epoch) in [
        (json!(last), json!("of another server")),
        (future.clone(), epoch.clone()),
        (future, Value::Null),
    ] {
        let (reply, received_events) = log_in_after(since, epoch).await;
        assert_eq!(received_events[..3], all);
        assert_eq!(reply["resumed"], json!(false));
    }
    // A restarted server knows the earlier epochs.
    let server = server.restart().await;
    let mut bob = server.connect().await;
    let mut login = json!({"cmd": "login", "user": "bob", "password": PASSWORD});
    login["since"] = json!(last);
    login["epoch"] = epoch.clone();
    let reply = bob.ok(login).await;
    assert_eq!(reply["resumed"], json!(true));
    assert_ne!(reply["epoch"], epoch);
    let watch = json!({"cmd": "watch", "path": "/", "since": 1, "epoch": "of another server"});
    bob.ok(watch).await;
    // The backlog may precede the overflow: it has the probes of the earlier sessions.
    let mut event = bob.event().await;
    while event["event"] == "message" {
        event = bob.event().await;
    }
    assert_eq!(
        (&event["kind"], &event["path"]),
        (&json!("overflow"), &json!("/"))
    );
}

#[tokio::test]
async fn after_the_reply_to_quit_no_message_is_sent_or_counted_as_delivered() {
    let server = TestServer::start_with(|config| config.limits.messages_per_user = 0).await;
    let mut alice = server.log_in("alice").await;
    let mut received: Vec<String> = Vec::new();
    let mut number = 0;
    for _ in 0..20 {
        let mut bob = server.log_in("bob").await;
        let first = number;
        for _ in 0..50 {
            number += 1;
            alice
                .send(json!({"id": number, "cmd": "say", "to": "bob", "text": number.to_string()}))
                .await;
        }
        // The session ends during a delivery.
        bob.send(json!({"id": 9, "cmd": "quit"})).await;
        let early = texts(&bob.events).into_iter().map(str::to_owned);
        received.extend(early.collect::<Vec<_>>());
        let mut has_quit = false;
        loop {
            let json = match bob.receive().await {
                Received::Control(json) => json,
                Received::Closed => break,
                data @ Received::Data { .. } => panic!("{data:?}"),
            };
            assert!(!has_quit, "{json} behind the reply to quit");
            if json["id"] == 9 {
                has_quit = true;
            } else {
                received.push(json["text"].as_str().expect("a message").to_owned());
            }
        }
        assert!(has_quit);
        for _ in first..number {
            alice.receive().await;
        }
    }
    received.extend(
        texts(&backlog_of(&server, "bob", None).await)
            .into_iter()
            .map(str::to_owned),
    );
    let all: Vec<_> = (1..=number).map(|number| number.to_string()).collect();
    assert_eq!(received, all);
}

#[tokio::test]
async fn join_and_leave_count_for_the_message_rate() {
    let server = TestServer::start_with(|config| config.limits.messages_per_user = 1).await;
    let mut alice = server.log_in("alice").await;
    let mut limited = false;
    for _ in 0..20 {
        for cmd in ["join", "leave"] {
            let reply = alice.call(json!({"cmd": cmd, "room": "#ops"})).await;
            limited |= reply["error"]["code"] == "limited";
        }
    }
    assert!(limited);
}

#[tokio::test]
async fn an_invalid_name_of_a_receiver_is_not_found() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    alice.put("a", b"x").await;
    let strange = "\u{200b}".repeat(20_000);
    for request in [
        json!({"cmd": "say", "to": &strange, "text": "x"}),
        json!({"cmd": "history", "with": &strange}),
        json!({"cmd": "send", "to": &strange, "path": "a"}),
    ] {
        alice.fails(request, "not_found").await;
    }
}
