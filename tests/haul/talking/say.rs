//! `say`, `history`, `join` and `leave`.

use serde_json::{Value, json};

use crate::harness::TestServer;
use crate::talking::say;
use crate::talking::talker::{Talker, ended};

#[tokio::test]
async fn say_by_datagram_has_the_effect_of_say_over_the_connection() {
    let server = TestServer::start().await;
    let alice = Talker::new(&server, "alice");
    let mut bob = server.log_in("bob").await;
    let hello = ["say", "--udp", "--json", "bob", "hello", "there"];
    let (out, _) = alice.types(&hello, 0).await;
    let reply: Value = serde_json::from_str(&out).expect("JSON");
    let with_alice = json!({"cmd": "history", "with": "alice"});
    let history = bob.ok(with_alice).await;
    let kept = &history["messages"][0];
    assert_eq!(
        (&kept["seq"], kept["text"].as_str()),
        (&reply["seq"], Some("hello there"))
    );
    let (_, errors) = alice.types(&["say", "--udp", "nobody", "hello"], 1).await;
    assert!(errors.contains("nobody"), "{errors}");
    let long = "x".repeat(1200);
    let (_, errors) = alice.types(&["say", "--udp", "bob", &long], 1).await;
    assert!(errors.contains("over the limit of 1200"), "{errors}");
}

#[tokio::test]
async fn history_shows_sent_messages_and_refusals_are_one_line() {
    let server = TestServer::start().await;
    let (alice, bob) = (Talker::new(&server, "alice"), Talker::new(&server, "bob"));
    assert_eq!(
        alice
            .types(&["say", "bob", "hello", "-n", "there"], 0)
            .await,
        (
            String::new(),
            "bob is not connected, and gets it later\n".to_owned()
        )
    );
    bob.types(&["say", "alice", "two\nlines"], 0).await;
    let history = "alice: hello -n there\nbob: two\n      lines\n";
    assert_eq!(alice.types(&["history", "bob"], 0).await.0, history);
    assert_eq!(bob.types(&["history", "alice"], 0).await.0, history);
    let (last, note) = bob.types(&["history", "alice", "-n", "1"], 0).await;
    assert_eq!(last, "bob: two\n      lines\n");
    assert!(
        note.starts_with("for earlier messages, run `haul history 'alice' --before "),
        "{note}"
    );
    for (args, why) in [
        (
            &["say", "nobody", "hi"][..],
            "haul: say: there is no user nobody\n",
        ),
        (&["chat", "nobody"], "haul: chat: there is no user nobody\n"),
        (
            &["history", "nobody"],
            "haul: history: there is no user nobody\n",
        ),
        (
            &["say", "#ops", "hi"],
            "haul: say: there is no room #ops; create it with `join`\n",
        ),
    ] {
        assert_eq!(alice.types(args, 1).await, (String::new(), why.into()));
    }
}

#[tokio::test]
async fn rooms_are_joined_and_left_and_need_no_quotes_in_the_shell() {
    let server = TestServer::start().await;
    let (alice, bob) = (Talker::new(&server, "alice"), Talker::new(&server, "bob"));
    assert_eq!(
        alice.types(&["join", "#ops"], 0).await.0,
        "in #ops: alice\n"
    );
    let script = "join #ops # where it happens\nsay #ops done: #1\nhistory #ops\nleave #ops\n";
    let (seen, _) = bob.types_into(&["shell"], script, 0).await;
    assert_eq!(seen, "in #ops: alice, bob\nbob: done: #1\nin #ops: alice\n");
    let (seen, _) = alice.types(&["--json", "leave", "#ops"], 0).await;
    assert_eq!(seen, "{\"members\":[]}\n");
    let (who, _) = alice.types(&["--json", "who"], 0).await;
    let who: Value = serde_json::from_str(&who).expect("JSON");
    assert_eq!(
        (&who["user"], &who["sessions"]),
        (&"alice".into(), &1.into())
    );
}

#[tokio::test]
async fn control_characters_in_messages_are_escaped() {
    let server = TestServer::start().await;
    let bob = Talker::new(&server, "bob");
    let mut alice = server.log_in("alice").await;
    let text = "\u{1b}]0;title\u{7}\u{9b}2J\n12:00 carol: forged\r\u{202e}gpj\u{2028}";
    say(&mut alice, "bob", text).await;
    let shown = "alice: \\u{1b}]0;title\\u{7}\\u{9b}2J\n      12:00 carol: forged\\r\\u{202e}gpj\\u{2028}\n";
    assert_eq!(bob.types(&["history", "alice"], 0).await.0, shown);
    assert_eq!(bob.types_into(&["chat", "alice"], "", 0).await.0, shown);
    for args in [
        &["--json", "history", "alice"][..],
        &["--json", "chat", "alice"],
    ] {
        let (line, _) = bob.types(args, 0).await;
        let harmless = |c: char| c == '\n' || !(c.is_control() || c > '\u{7e}');
        assert!(line.chars().all(harmless), "{line:?}");
        let message: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(message["text"], text);
    }
    // The line editor shows the messages too.
    let mut terminal = bob.starts_at_terminal(&["chat", "alice"]);
    let screen = terminal.shows("forged", "bob> ").await;
    for raw in ["\u{1b}]0", "\u{7}", "\u{9b}", "\u{202e}", "\u{2028}"] {
        assert!(!screen.contains(raw), "{raw:?} in {screen:?}");
    }
    terminal.types("q\r");
    assert_eq!(ended(terminal.child).await, Some(0));
}
