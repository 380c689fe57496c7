//! `chat`, and messages in the shell.

use haul::client::{Client, EventPosition, EventSubscription, RetryPolicy, Session};
use haul::protocol::{Event, Login, Secret};
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{LocalModes, tcgetattr};
use tokio::sync::watch;

use crate::harness::{PASSWORD, TestServer, soon};
use crate::talking::proxy::proxy_with_cuts;
use crate::talking::talker::{Talker, ended};
use crate::talking::{say, say_to_live_session, wait_until_live};

#[tokio::test]
async fn a_message_is_kept_for_a_chat_while_other_commands_run() {
    let server = TestServer::start().await;
    let bob = Talker::new(&server, "bob");
    let mut alice = server.log_in("alice").await;
    say(&mut alice, "bob", "for your eyes").await;
    bob.types(&["ls"], 0).await;
    bob.types_into(&["shell"], "pwd\n", 0).await;
    let chat = bob.starts(&["chat"]);
    chat.prints("for your eyes").await;
    let ended = chat.ends().await;
    assert_eq!(ended, (Some(0), "alice to you: for your eyes\n".into()));
}

#[tokio::test]
async fn a_scripted_chat_sends_its_lines_and_prints_the_received_messages() {
    let server = TestServer::start().await;
    let bob = Talker::new(&server, "bob");
    let mut alice = server.log_in("alice").await;
    say(&mut alice, "bob", "before").await;
    let mut chat = bob.starts(&["chat", "alice"]);
    chat.prints("before").await;
    wait_until_live(&mut alice, "bob").await;
    chat.types("answer");
    let event = alice.event().await;
    assert_eq!(
        (&event["from"], &event["text"]),
        (&"bob".into(), &"answer".into())
    );
    say_to_live_session(&mut alice, "bob", "after").await;
    chat.prints("alice: after").await;
    let (code, seen) = chat.ends().await;
    let seen: Vec<_> = seen
        .lines()
        .filter(|line| !line.contains("knock"))
        .collect();
    assert_eq!(
        (code, seen),
        (Some(0), vec!["alice: before", "alice: after"])
    );
    let (_, why) = bob.types_into(&["chat", "alice"], "/nonsense\n", 1).await;
    assert!(why.starts_with("there is no command /nonsense; "), "{why}");
}

#[tokio::test]
async fn a_message_is_printed_above_the_line_that_is_being_typed() {
    let server = TestServer::start().await;
    let bob = Talker::new(&server, "bob");
    let mut alice = server.log_in("alice").await;
    for (args, prompt, from) in [
        (&["chat", "alice"][..], "bob> ", "alice"),
        (&["shell"], "/> ", "alice\u{1b}[0m to you"),
    ] {
        let mut terminal = bob.starts_at_terminal(args);
        terminal.shows("", prompt).await;
        wait_until_live(&mut alice, "bob").await;
        terminal.types("half a li");
        terminal.shows(prompt, "half a li").await;
        say_to_live_session(&mut alice, "bob", "above 日本").await;
        let screen = terminal.shows("above 日本", "half a li").await;
        let (_, message) = screen.rsplit_once("knock").expect("before");
        assert!(message.contains(from), "{message:?}");
        let redrawn = message.rsplit_once("above 日本").expect("shown").1;
        assert!(redrawn.contains(prompt), "{redrawn:?}");
        // The redrawn line is the line that is sent.
        terminal.types("\u{15}quit\u{15}");
        terminal.types(if args[0] == "chat" { "q\r" } else { "quit\r" });
        assert_eq!(ended(terminal.child).await, Some(0));
    }
}

#[tokio::test]
async fn a_chat_that_is_stopped_while_typing_restores_the_terminal() {
    let server = TestServer::start().await;
    let bob = Talker::new(&server, "bob");
    for args in [&["chat"][..], &["shell"]] {
        let terminal = bob.starts_at_terminal(args);
        let canonical = || {
            let modes = tcgetattr(&terminal.slave).expect("modes").local_modes;
            modes.contains(LocalModes::ICANON)
        };
        terminal.shows("", "> ").await;
        soon("an editor", async || (!canonical()).then_some(())).await;
        kill_process(Pid::from_child(&terminal.child), Signal::TERM).expect("it runs");
        assert_eq!(ended(terminal.child).await, Some(130), "{args:?}");
        let modes = tcgetattr(&terminal.slave).expect("modes").local_modes;
        assert!(
            modes.contains(LocalModes::ICANON | LocalModes::ECHO),
            "{args:?}"
        );
    }
}

#[tokio::test]
async fn a_chat_reconnects_and_prints_each_message_once() {
    let server = TestServer::start().await;
    let (cut, cuts) = watch::channel(0);
    let address = proxy_with_cuts(&server, cuts).await;
    let chat = Talker::for_user(&address, "bob").starts(&["chat", "alice"]);
    let mut alice = server.log_in("alice").await;
    wait_until_live(&mut alice, "bob").await;
    say_to_live_session(&mut alice, "bob", "one").await;
    chat.prints("one").await;
    cut.send(1).expect("someone waits for it");
    chat.prints_error("connection lost").await;
    say(&mut alice, "bob", "two").await;
    chat.prints_error("connected again").await;
    wait_until_live(&mut alice, "bob").await;
    say_to_live_session(&mut alice, "bob", "three").await;
    chat.prints("three").await;
    let (code, seen) = chat.ends().await;
    let seen: Vec<_> = seen
        .lines()
        .filter(|line| !line.contains("knock"))
        .collect();
    assert_eq!(
        (code, seen),
        (Some(0), vec!["alice: one", "alice: two", "alice: three"])
    );
}

#[tokio::test]
async fn a_live_session_receives_every_message_once_over_breaking_connections() {
    let server = TestServer::start().await;
    let (cut, cuts) = watch::channel(0);
    let address = proxy_with_cuts(&server, cuts).await;
    let connect = move |position| {
        let url = format!("haul+plain://{address}").parse();
        let (since, epoch) = EventPosition::fields(position);
        async move {
            let client =
                Client::connect(&url.expect("an address"), &haul::client::Trust::default()).await?;
            client.keep_events();
            client
                .log_in(Login {
                    user: Some("bob".into()),
                    password: Some(Secret::new(PASSWORD.into())),
                    since,
                    epoch,
                    ..Login::default()
                })
                .await?;
            Ok(client)
        }
    };
    let policy = RetryPolicy {
        first: std::time::Duration::from_millis(1),
        ..RetryPolicy::FOR_EVER
    };
    let first = connect(None).await.expect("connected");
    let mut live = EventSubscription::new(Session::with_events(first, policy, connect));
    let mut alice = server.log_in("alice").await;
    // From here on the session has a position.
    say(&mut alice, "bob", "begin").await;
    live.next().await.expect("received");
    let sending = async {
        for number in 0..300_u32 {
            say(&mut alice, "bob", &number.to_string()).await;
            if number % 20 == 19 {
                cut.send(number).expect("someone waits for it");
            }
        }
        say(&mut alice, "bob", "end").await;
    };
    let receiving = async {
        let mut received = Vec::new();
        loop {
            let Event::Message(message) = live.next().await.expect("received") else {
                panic!("a message was to come");
            };
            if message.text == "end" {
                return received;
            }
            received.push(message.text);
        }
    };
    let ((), received) = tokio::join!(sending, receiving);
    let expected: Vec<_> = (0..300).map(|number| number.to_string()).collect();
    assert_eq!(received, expected);
}
