//! Users talk over a server that is killed again and again. Each hears every message that was
//! acknowledged, and none twice.

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

/// Messages that a sender does not wait for.
const PIPELINED: usize = 16;

/// The sender.
struct Sender {
    name: &'static str,
    token: String,
    said: u64,
}

/// Who listens, and what they heard.
struct Listener {
    name: &'static str,
    token: String,
    /// It says at each login what it has, and so may be cut off anywhere.
    says_since: bool,
    last: u64,
    heard: HashSet<String>,
    /// Who is away while the others talk.
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
    let place = tempfile::tempdir().expect("a directory");
    let data = place.path().join("data");
    let mut senders = ["ann", "ben"].map(|name| Sender {
        name,
        token: add_user(&data, name),
        said: 0,
    });
    let listener = |name, says_since, away| Listener {
        name,
        token: add_user(&data, name),
        says_since,
        last: 0,
        heard: HashSet::new(),
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
    let mut line = BlockingSession::log_in(&daemon.address, token).expect("the server lives");
    line.ok(&json!({"cmd": "join", "room": ROOM}));
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
        let (listening, hears) = sync_channel(2);
        for listener in present {
            let (address, listening) = (&address, listening.clone());
            scope.spawn(move || listener.listen(address, &listening));
        }
        // A receiver that cannot say what it has must hear events live before the server may be killed.
        hears.recv().expect("a listener that hears");
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
    /// Talks until the server is gone.
    fn talk(&mut self, address: &str, killed: &AtomicBool, acknowledged: &Acknowledged) {
        let Ok(mut line) = BlockingSession::log_in(address, &self.token) else {
            return;
        };
        let mut waiting = Vec::new();
        loop {
            while waiting.len() < PIPELINED {
                self.said += 1;
                let in_room = !self.said.is_multiple_of(3);
                let text = format!("{} {}", self.name, self.said);
                let to = if in_room { ROOM } else { "plain" };
                let request = json!({"id": self.said, "cmd": "say", "to": to, "text": text});
                if line.send(&request).is_err() {
                    return;
                }
                waiting.push((in_room, self.said, text));
            }
            let Ok(reply) = line.reply() else {
                assert!(killed.load(Ordering::Relaxed), "it ended by itself");
                return;
            };
            assert!(reply["ok"].is_object(), "{reply}");
            let at = waiting.iter().position(|(_, id, _)| reply["id"] == *id);
            let (in_room, _, text) = waiting.remove(at.expect("a request of its own"));
            let said = if in_room {
                &acknowledged.in_room
            } else {
                &acknowledged.direct
            };
            said.lock().expect("no panic").push(text);
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

    /// Listens until the server is gone, and says when it hears as it is said.
    fn listen(&mut self, address: &str, listening: &SyncSender<()>) {
        if self.says_since {
            // It may be killed while it catches up.
            let Ok(mut line) = self.log_in(address) else {
                return;
            };
            while let Ok(frame) = line.receive_any() {
                self.record(&frame);
            }
            return;
        }
        let mut line = self.log_in(address).expect("the server lives");
        self.until_live(&mut line);
        listening.send(()).expect("somebody waits");
        while let Ok(frame) = line.receive_any() {
            self.record(&frame);
        }
    }

    /// Hears all that is there for it.
    fn catch_up(&mut self, address: &str) {
        let mut line = self.log_in(address).expect("the server lives");
        self.until_live(&mut line);
        line.ok(&json!({"cmd": "quit"}));
    }

    /// Speaks to itself until it hears that at once.
    fn until_live(&mut self, line: &mut BlockingSession) {
        loop {
            let request = json!({"id": 7, "cmd": "say", "to": self.name, "text": "do I hear?"});
            line.send(&request).expect("the server lives");
            let reply = loop {
                let frame = line.receive_any().expect("the server lives");
                if let Some(reply) = self.record(&frame) {
                    break reply.clone();
                }
            };
            if reply["ok"]["delivered"].as_u64() > Some(0) {
                return;
            }
        }
    }

    /// Notes a message; any other frame is returned.
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
            let new = self.heard.insert(text.to_owned());
            assert!(new, "{} heard {json} twice", self.name);
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
            assert!(listener.heard.contains(text), "{name} never heard {text}");
        }
        for text in direct.iter() {
            let heard = listener.heard.contains(text);
            assert_eq!(heard, name == "plain", "{name} and {text}");
        }
    }
}
