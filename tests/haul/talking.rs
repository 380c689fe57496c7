//! Messages from the command line, in a chat and in the shell.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use haul::client::{Client, EventPosition, EventSubscription, RetryPolicy, Session};
use haul::protocol::{Event, Login, Secret};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::command_line::{Person, run};
use crate::daemon::Watchdog;
use crate::harness::{PASSWORD, RawClient, Received, TestServer, soon};

/// A user of the server, at a terminal of their own.
struct Talker(Person);

impl Talker {
    fn new(server: &TestServer, user: &str) -> Self {
        Self::for_user(&server.address.to_string(), user)
    }

    fn for_user(address: &str, user: &str) -> Self {
        Self(Person::for_url(format!("haul+plain://{user}@{address}")))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.0.command(args);
        command
            .env("HAUL_SERVER", &self.0.url)
            .env("HAUL_PASSWORD", PASSWORD)
            .env("TERM", "xterm")
            .env("TZ", "UTC");
        command
    }

    /// Runs the program, which must end with `code`; returns its output without times.
    async fn types(&self, args: &[&str], code: i32) -> (String, String) {
        self.types_into(args, "", code).await
    }

    async fn types_into(&self, args: &[&str], input: &str, code: i32) -> (String, String) {
        let (output, stdout) = run(self.command(args), input).await;
        let stderr = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        (without_times(&stdout), stderr)
    }

    /// Starts the program with pipes.
    fn starts(&self, args: &[&str]) -> RunningProgram {
        let mut child = self.command(args).spawn().expect("started");
        RunningProgram {
            stdout: collect_output(child.stdout.take().expect("piped")),
            stderr: collect_output(child.stderr.take().expect("piped")),
            keys: child.stdin.take(),
            _watchdog: Watchdog::of_process(&child),
            child,
        }
    }

    /// Starts the program at a terminal of 80 columns.
    fn starts_at_terminal(&self, args: &[&str]) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).expect("granted");
        unlockpt(&master).expect("unlocked");
        let name = ptsname(&master, Vec::new()).expect("a name");
        let name = name.to_str().expect("text").to_owned();
        let slave = File::options().read(true).write(true).open(name);
        let slave = slave.expect("opened");
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&slave, size).expect("sized");
        let end = || Stdio::from(slave.try_clone().expect("another"));
        let mut command = self.command(args);
        command.stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().expect("started");
        let master = File::from(master);
        Terminal {
            screen: collect_output(master.try_clone().expect("another")),
            keys: master,
            slave,
            _watchdog: Watchdog::of_process(&child),
            child,
        }
    }
}

/// Collects the output in the background.
fn collect_output(mut from: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let collected = Arc::clone(&text);
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut chunk) {
            bytes.extend_from_slice(&chunk[..length]);
            *collected.lock().expect("no panic") = String::from_utf8_lossy(&bytes).into_owned();
        }
    });
    text
}

/// Waits until `part` is in the output after `behind`; returns the output so far.
async fn wait_for_output(text: &Arc<Mutex<String>>, after: &str, part: &str) -> String {
    soon(part, async || {
        let text = text.lock().expect("no panic").clone();
        let start = text.find(after)? + after.len();
        text[start..].contains(part).then_some(text)
    })
    .await
}

struct RunningProgram {
    child: Child,
    keys: Option<ChildStdin>,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    _watchdog: Watchdog,
}

impl RunningProgram {
    async fn prints(&self, part: &str) -> String {
        without_times(&wait_for_output(&self.stdout, "", part).await)
    }

    async fn prints_error(&self, part: &str) {
        wait_for_output(&self.stderr, "", part).await;
    }

    fn types(&mut self, line: &str) {
        let keys = self.keys.as_mut().expect("open");
        writeln!(keys, "{line}").expect("read");
    }

    /// Ends its input; returns its exit code and its output.
    async fn ends(mut self) -> (Option<i32>, String) {
        drop(self.keys.take());
        let seen = Arc::clone(&self.stdout);
        let code = ended(self.child).await;
        let text = seen.lock().expect("no panic").clone();
        (code, without_times(&text))
    }
}

struct Terminal {
    child: Child,
    keys: File,
    screen: Arc<Mutex<String>>,
    slave: File,
    _watchdog: Watchdog,
}

impl Terminal {
    async fn shows(&self, after: &str, part: &str) -> String {
        wait_for_output(&self.screen, after, part).await
    }

    fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("taken");
    }
}

async fn ended(mut child: Child) -> Option<i32> {
    let waiting = tokio::task::spawn_blocking(move || child.wait());
    let status = waiting.await.expect("no panic").expect("it ends");
    status.code()
}

/// The lines without the times at their start.
fn without_times(text: &str) -> String {
    let is_time = |word: &str| {
        let of_a_time = |c: char| c.is_ascii_digit() || c == ':' || c == '-';
        word.contains([':', '-']) && word.len() >= 5 && word.chars().all(of_a_time)
    };
    let mut lines = String::new();
    for line in text.lines() {
        let mut rest = line;
        while let Some((first, after)) = rest.split_once(' ')
            && is_time(first)
        {
            rest = after;
        }
        lines.push_str(rest);
        lines.push('\n');
    }
    lines
}

async fn say(client: &mut RawClient, to: &str, text: &str) {
    client
        .ok(json!({"cmd": "say", "to": to, "text": text}))
        .await;
}

/// Sends `text` to a user with one live session.
async fn say_to_live_session(client: &mut RawClient, to: &str, text: &str) {
    let reply = client
        .ok(json!({"cmd": "say", "to": to, "text": text}))
        .await;
    assert_eq!(reply["delivered"], 1, "{to} receives {text}");
}

/// Waits until a session of `to` is live.
async fn wait_until_live(client: &mut RawClient, to: &str) {
    soon("a live session", async || {
        let reply = client
            .ok(json!({"cmd": "say", "to": to, "text": "knock"}))
            .await;
        (reply["delivered"] == 1).then_some(())
    })
    .await;
}

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

/// A proxy to the server that closes its connections whenever the number changes.
async fn proxy_with_cuts(server: &TestServer, cuts: watch::Receiver<u32>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = server.address;
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.expect("a connection");
            let mut cuts = cuts.clone();
            cuts.mark_unchanged();
            tokio::spawn(async move {
                let mut upstream = TcpStream::connect(server).await.expect("the server");
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut upstream) => {}
                    _ = cuts.changed() => {}
                }
            });
        }
    });
    address.to_string()
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

/// A server that accepts every login and answers other requests with the frames of `answer`. The
/// reply among them gets the id of the request. Closes the connection after a goodbye.
async fn start_scripted_server(
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

fn changed(seq: u64, fields: &Value) -> Value {
    let mut event = json!({"event": "changed", "seq": seq, "by": "alice"});
    for (field, value) in fields.as_object().expect("fields") {
        event[field] = value.clone();
    }
    event
}

#[tokio::test]
async fn watch_prints_changes_and_reconnects() {
    let address = start_scripted_server(|connection, request| {
        let since = request["since"].as_u64();
        let watching = json!({"ok": {"watch": 1, "seq": 5}});
        match (connection % 2, request["cmd"].as_str()) {
            (0, Some("watch")) => vec![
                watching,
                changed(6, &json!({"path": "/team/a\u{1b}[2J", "kind": "written"})),
                changed(
                    7,
                    &json!({"path": "/team/b", "kind": "moved", "from": "/team/a"}),
                ),
                json!({"event": "goodbye", "reason": "shutting_down"}),
            ],
            (_, Some("watch")) => vec![
                changed(
                    7,
                    &json!({"path": "/team/b", "kind": "moved", "from": "/team/a"}),
                ),
                changed(
                    8,
                    &json!({"path": format!("/since {since:?}"), "kind": "made"}),
                ),
                watching,
                json!({"event": "changed", "seq": 9, "path": "/team", "kind": "overflow"}),
            ],
            _ => Vec::new(),
        }
    })
    .await;
    let bob = Talker::for_user(&address, "bob");
    let watch = bob.starts(&["watch", "/team"]);
    let seen = watch.prints("overflow").await;
    assert_eq!(
        seen,
        "written /team/a\\u{1b}[2J by alice\n\
         moved /team/a → /team/b by alice\n\
         made /since Some(7) by alice\n\
         overflow /team: the server could not report all changes; read the directory again\n"
    );
    watch.prints_error("connected again").await;
    kill_process(Pid::from_child(&watch.child), Signal::INT).expect("it runs");
    assert_eq!(watch.ends().await.0, Some(130));
}

#[tokio::test]
async fn watch_prints_one_object_per_line_until_its_output_is_closed() {
    let address = start_scripted_server(|_, request| match request["cmd"].as_str() {
        Some("watch") => vec![
            json!({"ok": {"watch": 1, "seq": 5}}),
            changed(6, &json!({"path": "/a", "kind": "written"})),
            changed(7, &json!({"path": "/b", "kind": "removed"})),
        ],
        _ => Vec::new(),
    })
    .await;
    let bob = Talker::for_user(&address, "bob");
    let watch = bob.starts(&["--json", "watch", "/"]);
    let line = watch.prints("/b").await;
    assert_eq!(
        line,
        "{\"event\":\"changed\",\"seq\":6,\"path\":\"/a\",\"kind\":\"written\",\"by\":\"alice\"}\n\
         {\"event\":\"changed\",\"seq\":7,\"path\":\"/b\",\"kind\":\"removed\",\"by\":\"alice\"}\n"
    );
    kill_process(Pid::from_child(&watch.child), Signal::TERM).expect("it runs");
    assert_eq!(watch.ends().await.0, Some(130));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut unread = bob.command(&["--json", "watch", "/"]);
    let mut child = unread.stdout(writer).spawn().expect("started");
    let _watchdog = Watchdog::of_process(&child);
    let reply = collect_output(child.stderr.take().expect("piped"));
    assert_eq!(ended(child).await, Some(0));
    assert_eq!(*reply.lock().expect("no panic"), "");
}

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

#[tokio::test]
async fn watch_reconnects_and_consumes_no_messages() {
    let server = TestServer::start().await;
    let (cut, cuts) = watch::channel(0);
    let address = proxy_with_cuts(&server, cuts).await;
    let bob = Talker::for_user(&address, "bob");
    let mut bob_session = server.log_in("bob").await;
    bob_session
        .ok(json!({"cmd": "mkdir", "path": "/team"}))
        .await;
    let mut alice = server.log_in("alice").await;
    let watching = bob.starts(&["watch", "/team"]);
    // The start of the watch is unknown, so directories are made until it reports one.
    soon("a watch", async || {
        bob_session
            .ok(json!({"cmd": "mkdir", "path": "/team/first"}))
            .await;
        let is_reported = watching.stdout.lock().expect("no panic").contains("first");
        bob_session
            .ok(json!({"cmd": "rm", "path": "/team/first"}))
            .await;
        is_reported.then_some(())
    })
    .await;
    bob_session.put("/team/one", b"1").await;
    watching.prints("/team/one").await;
    cut.send(1).expect("someone waits for it");
    watching.prints_error("connection lost").await;
    bob_session
        .ok(json!({"cmd": "mv", "from": "/team/one", "to": "/team/two"}))
        .await;
    say(&mut alice, "bob", "not for a watch").await;
    watching.prints_error("connected again").await;
    bob_session
        .ok(json!({"cmd": "rm", "path": "/team/two"}))
        .await;
    let seen = watching.prints("removed /team/two").await;
    let (_, after) = seen.split_once("written").expect("the file");
    assert_eq!(
        after,
        " /team/one by bob\nmoved /team/one → /team/two by bob\nremoved /team/two by bob\n"
    );
    kill_process(Pid::from_child(&watching.child), Signal::INT).expect("it runs");
    assert_eq!(watching.ends().await.0, Some(130));
}
