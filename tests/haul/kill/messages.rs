//! Users send messages over a server that is killed repeatedly. Each receiver gets every
//! acknowledged message exactly once.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::blocking_client::{BlockingSession, ReceivedFrame};
use crate::daemon::{ServerProcess, operate};
use crate::random::{Chance, times};

const ROOM: &str = "#ops";

/// The most unanswered messages of a sender.
const PIPELINED: usize = 16;

/// The sender.
struct Sender {
    name: &'static str,
    token: String,
    sent: u64,
}

/// A receiver and the messages that it has received.
struct Listener {
    name: &'static str,
    token: String,
    /// Whether it sends its position at each login, and so may be interrupted at any time.
    says_since: bool,
    last: u64,
    received: HashSet<String>,
    /// A receiver that is not connected while messages are sent.
    away: bool,
}

/// The acknowledged messages.
#[derive(Default)]
struct Acknowledged {
    in_room: Mutex<Vec<String>>,
    direct: Mutex<Vec<String>>,
}

#[test]
fn an_acknowledged_message_is_delivered_once_whenever_the_server_is_killed() {
    let (kills, seed) = (times("HAUL_KILLS", 20), Chance::seed());
    println!("HAUL_KILLS={kills} HAUL_SEED={seed}");
    let mut chance = Chance::new(seed);
    let temp_dir = tempfile::tempdir().expect("a directory");
    let data = temp_dir.path().join("data");
    let mut senders = ["ann", "ben"].map(|name| Sender {
        name,
        token: add_user(&data, name),
        sent: 0,
    });
    let listener = |name, says_since, away| Listener {
        name,
        token: add_user(&data, name),
        says_since,
        last: 0,
        received: HashSet::new(),
        away,
    };
    let mut listeners = [
        listener("since", true, false),
        listener("plain", false, false),
        listener("away", false, true),
    ];
    let acknowledged = Acknowledged::default();
    let mut daemon = start(&data);
    for token in senders.iter().map(|sender| &sender.token) {
        join(&daemon, token);
    }
    for token in listeners.iter().map(|listener| &listener.token) {
        join(&daemon, token);
    }
    for _ in 0..kills {
        talk_until_killed(
            daemon,
            &mut senders,
            &mut listeners,
            &acknowledged,
            &mut chance,
        );
        daemon = start(&data);
        if chance.one_in(3) {
            for listener in &mut listeners {
                listener.catch_up(&daemon.address);
            }
            check(&listeners, &acknowledged);
        }
    }
    for listener in &mut listeners {
        listener.catch_up(&daemon.address);
    }
    check(&listeners, &acknowledged);
    let in_room = acknowledged.in_room.lock().expect("no panic").len();
    let direct = acknowledged.direct.lock().expect("no panic").len();
    println!("{kills} kills: {in_room} messages to a room and {direct} to a user acknowledged");
    assert!(in_room + direct > usize::try_from(kills).expect("small"));
}

fn add_user(data: &Path, name: &str) -> String {
    operate(data, &format!("user add {name}"), "correct horse\n");
    operate(data, &format!("token add {name}"), "")
}

fn start(data: &Path) -> ServerProcess {
    ServerProcess::start_on_with(data, &[("HAUL_LIMITS_MESSAGES_PER_USER", "0")])
}

fn join(daemon: &ServerProcess, token: &str) {
    let mut client = BlockingSession::log_in(&daemon.address, token).expect("the server lives");
    client.ok(&json!({"cmd": "join", "room": ROOM}));
}

fn talk_until_killed(
    daemon: ServerProcess,
    senders: &mut [Sender],
    listeners: &mut [Listener],
    acknowledged: &Acknowledged,
    chance: &mut Chance,
) {
    let address = daemon.address.clone();
    let killed = AtomicBool::new(false);
    let longest = 1 << (8 + chance.below(11));
    let spin = Duration::from_micros(chance.below(longest));
    std::thread::scope(|scope| {
        let present = listeners.iter_mut().filter(|listener| !listener.away);
        let (listening, live) = sync_channel(2);
        for listener in present {
            let (address, listening) = (&address, listening.clone());
            scope.spawn(move || listener.listen(address, &listening));
        }
        // A receiver that sends no position must be live before the server may be killed.
        live.recv().expect("a live listener");
        for sender in senders {
            let (address, killed) = (&address, &killed);
            scope.spawn(move || sender.talk(address, killed, acknowledged));
        }
        std::thread::sleep(spin);
        killed.store(true, Ordering::Relaxed);
        kill_process(daemon.id(), Signal::KILL).expect("it runs");
        daemon.kill();
    });
}

impl Sender {
    /// Sends messages until the connection is lost.
    fn talk(&mut self, address: &str, killed: &AtomicBool, acknowledged: &Acknowledged) {
        let Ok(mut client) = BlockingSession::log_in(address, &self.token) else {
            return;
        };
        let mut waiting = Vec::new();
        loop {
            while waiting.len() < PIPELINED {
                self.sent += 1;
                let in_room = !self.sent.is_multiple_of(3);
                let text = format!("{} {}", self.name, self.sent);
                let to = if in_room { ROOM } else { "plain" };
                let request = json!({"id": self.sent, "cmd": "say", "to": to, "text": text});
                if client.send(&request).is_err() {
                    return;
                }
                waiting.push((in_room, self.sent, text));
            }
            let Ok(reply) = client.reply() else {
                assert!(killed.load(Ordering::Relaxed), "it ended by itself");
                return;
            };
            assert!(reply["ok"].is_object(), "{reply}");
            let at = waiting.iter().position(|(_, id, _)| reply["id"] == *id);
            let (in_room, _, text) = waiting.remove(at.expect("a request of its own"));
            let sent = if in_room {
                &acknowledged.in_room
            } else {
                &acknowledged.direct
            };
            sent.lock().expect("no panic").push(text);
        }
    }
}

impl Listener {
    fn log_in(&self, address: &str) -> std::io::Result<BlockingSession> {
        let mut login = json!({"cmd": "login", "token": self.token});
        if self.says_since {
            login["since"] = self.last.into();
        }
        BlockingSession::log_in_with(address, &login)
    }

    /// Receives messages until the connection is lost, and reports when it is live.
    fn listen(&mut self, address: &str, listening: &SyncSender<()>) {
        if self.says_since {
            // The server may be killed during a catch-up.
            let Ok(mut client) = self.log_in(address) else {
                return;
            };
            while let Ok(frame) = client.receive_any() {
                self.record(&frame);
            }
            return;
        }
        let mut client = self.log_in(address).expect("the server lives");
        self.until_live(&mut client);
        listening.send(()).expect("somebody waits");
        while let Ok(frame) = client.receive_any() {
            self.record(&frame);
        }
    }

    /// Receives the complete backlog.
    fn catch_up(&mut self, address: &str) {
        let mut client = self.log_in(address).expect("the server lives");
        self.until_live(&mut client);
        client.ok(&json!({"cmd": "quit"}));
    }

    /// Sends messages to itself until one is delivered live.
    fn until_live(&mut self, client: &mut BlockingSession) {
        loop {
            let request = json!({"id": 7, "cmd": "say", "to": self.name, "text": "do I hear?"});
            client.send(&request).expect("the server lives");
            let reply = loop {
                let frame = client.receive_any().expect("the server lives");
                if let Some(reply) = self.record(&frame) {
                    break reply.clone();
                }
            };
            if reply["ok"]["delivered"].as_u64() > Some(0) {
                return;
            }
        }
    }

    /// Records a message; returns any other frame.
    fn record<'a>(&mut self, frame: &'a ReceivedFrame) -> Option<&'a Value> {
        let ReceivedFrame::Control(json) = frame else {
            panic!("bytes that nobody asked for");
        };
        if json["event"] != "message" {
            return Some(json);
        }
        let seq = json["seq"].as_u64().expect("a seq");
        assert!(seq > self.last, "{}: {json} after {}", self.name, self.last);
        self.last = seq;
        let text = json["text"].as_str().expect("a text");
        if text != "do I hear?" {
            let new = self.received.insert(text.to_owned());
            assert!(new, "{} received {json} twice", self.name);
        }
        None
    }
}

fn check(listeners: &[Listener], acknowledged: &Acknowledged) {
    let in_room = acknowledged.in_room.lock().expect("no panic");
    let direct = acknowledged.direct.lock().expect("no panic");
    for listener in listeners {
        let name = listener.name;
        for text in in_room.iter() {
            assert!(
                listener.received.contains(text),
                "{name} never received {text}"
            );
        }
        for text in direct.iter() {
            let received = listener.received.contains(text);
            assert_eq!(received, name == "plain", "{name} and {text}");
        }
    }
}
