//! RELIABILITY: hostile peers affect no other client, and leak neither memory nor descriptors.

use std::future::Future;
use std::time::Duration;

use futures::StreamExt;
use serde_json::json;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::daemon::ServerProcess;
use crate::harness::{RawClient, control, data, frame, soon};

const MIB: u64 = 1 << 20;

/// The size of a round of attacks.
#[derive(Debug, Clone, Copy)]
struct Scale {
    /// Connections that send malformed requests and end with an invalid frame.
    malformed: usize,
    /// Sessions that log in and end.
    visits: usize,
    /// Connections of each kind that stay open during the round.
    held: usize,
    /// The concurrent connections of those that end.
    at_once: usize,
}

/// The malformed frames on each such connection.
const FRAMES: usize = 10;

const SMALL: Scale = Scale {
    malformed: 1_000,
    visits: 200,
    held: 12,
    at_once: 24,
};

const LARGE: Scale = Scale {
    malformed: 20_000,
    visits: 5_000,
    held: 60,
    at_once: 100,
};

#[tokio::test]
async fn hostile_peers_affect_no_other_client_and_leak_nothing() {
    let daemon = ServerProcess::start();
    let token = daemon.token();
    let mut calm = Calm::log_in(&daemon, &token).await;
    calm.keep_on(&daemon, &token, SMALL).await;
    assert_flat(&daemon, &token, &mut calm, SMALL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; docs/TESTING.md says how to run it"]
async fn two_hundred_thousand_malformed_frames_affect_no_other_client_and_leak_nothing() {
    let daemon = ServerProcess::start();
    let token = daemon.token();
    let mut calm = Calm::log_in(&daemon, &token).await;
    for _ in 0..200 {
        calm.work().await;
    }
    eprintln!("alone: {}", calm.take_latencies());
    calm.keep_on(&daemon, &token, LARGE).await;
    eprintln!("in the first round: {}", calm.take_latencies());
    assert_flat(&daemon, &token, &mut calm, LARGE).await;
    eprintln!("in the second round: {}", calm.take_latencies());
}

/// Asserts that a second round needs no more memory and leaks no descriptor.
async fn assert_flat(daemon: &ServerProcess, token: &str, calm: &mut Calm, scale: Scale) {
    let descriptors = descriptors_once_at_most(daemon, IDLE).await;
    let before = daemon.resident();
    calm.keep_on(daemon, token, scale).await;
    let left = descriptors_once_at_most(daemon, descriptors + DATABASE).await;
    let after = daemon.resident();
    eprintln!(
        "{} and {} MiB resident, {descriptors} and {left} descriptors",
        before / MIB,
        after / MIB
    );
    assert!(after < before + 16 * MIB, "{before}, then {after} bytes");
    // The resources of the last connection may be released a moment after its end.
    soon("only what is there to be read to be charged", async || {
        let used = calm.client.ok(json!({"cmd": "df"})).await;
        (used["files"] == 1).then_some(())
    })
    .await;
    let staged = std::fs::read_dir(daemon.data().join("staging")).expect("a directory");
    assert_eq!(staged.count(), 0, "uploads are left behind");
}

/// The descriptors that database connections may or may not hold.
const DATABASE: usize = 12;

/// More descriptors than a server with one session needs, and fewer than with all held connections.
const IDLE: usize = 60;

/// Waits until at most `most` descriptors are open, and returns their number.
async fn descriptors_once_at_most(daemon: &ServerProcess, most: usize) -> usize {
    let give_up = Instant::now() + Duration::from_mins(1);
    loop {
        let open = daemon.descriptors();
        if open <= most {
            return open;
        }
        assert!(
            Instant::now() < give_up,
            "{open} descriptors are open, not {most}"
        );
        sleep(Duration::from_millis(20)).await;
    }
}

/// A well-behaved client.
struct Calm {
    client: RawClient,
    latencies: Vec<Duration>,
}

impl Calm {
    async fn log_in(daemon: &ServerProcess, token: &str) -> Self {
        let mut client = daemon.log_in(token).await;
        let put = client.put("large", &vec![b'l'; 4 << 20]).await;
        assert_eq!(put["ok"]["path"], "/large", "{put}");
        Self {
            client,
            latencies: Vec::new(),
        }
    }

    /// Works until a round of attacks has ended.
    async fn keep_on(&mut self, daemon: &ServerProcess, token: &str, scale: Scale) {
        let over = CancellationToken::new();
        let attacks = async {
            attack(&daemon.address, token, scale).await;
            over.cancel();
        };
        let work = async {
            while !over.is_cancelled() {
                self.work().await;
            }
        };
        tokio::join!(attacks, work);
    }

    /// Puts a file, gets it back, lists the directory and removes the file.
    async fn work(&mut self) {
        let number = self.latencies.len();
        let content = format!("file {number}").repeat(500).into_bytes();
        let start = Instant::now();
        let put = self.client.put("calm", &content).await;
        assert_eq!(put["ok"]["path"], "/calm", "{put}");
        let start = self.note(start);
        let (got, reply) = self
            .client
            .get(json!({"id": 3, "cmd": "get", "path": "calm"}))
            .await;
        assert!(got == content && reply["ok"].is_object(), "{reply}");
        let start = self.note(start);
        let seen = self.client.ok(json!({"cmd": "stat", "path": "calm"})).await;
        assert_eq!(seen["size"], content.len(), "{seen}");
        let start = self.note(start);
        let removed = self.client.ok(json!({"cmd": "rm", "path": "calm"})).await;
        assert_eq!(removed["removed"], 1, "{removed}");
        self.note(start);
    }

    fn note(&mut self, start: Instant) -> Instant {
        self.latencies.push(start.elapsed());
        Instant::now()
    }

    fn take_latencies(&mut self) -> String {
        let mut latencies = std::mem::take(&mut self.latencies);
        latencies.sort();
        let at = |part: usize| latencies[(latencies.len() - 1) * part / 100];
        format!(
            "{} commands, median {:?}, p99 {:?}, worst {:?}",
            latencies.len(),
            at(50),
            at(99),
            at(100)
        )
    }
}

/// One round, with connections that stay open and connections that end.
async fn attack(address: &str, token: &str, scale: Scale) {
    let held = futures::stream::iter(0..scale.held)
        .then(|number| hold(address, token, number))
        .collect::<Vec<_>>()
        .await;
    let mut slow = JoinSet::new();
    for number in 0..scale.held {
        slow.spawn(write_slowly(address.to_owned(), token.to_owned(), number));
    }
    many(scale.malformed, scale.at_once, |number| {
        send_malformed(address, token, number)
    })
    .await;
    many(scale.visits, scale.at_once, |number| {
        visit(address, token, number)
    })
    .await;
    many(scale.held, 2, |_| ask_for_too_much(address, token)).await;
    slow.shutdown().await;
    drop(held);
}

async fn many<F: Future<Output = ()>>(count: usize, at_once: usize, attack: impl Fn(usize) -> F) {
    let attacks = futures::stream::iter(0..count);
    attacks.for_each_concurrent(at_once, attack).await;
}

/// A connection that leaves no TCP state behind; `None` if the server accepts none now.
async fn connect(address: &str) -> Option<TcpStream> {
    let stream = TcpStream::connect(address).await.ok()?;
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .ok()?;
    Some(stream)
}

async fn connect_and_log_in(address: &str, token: &str) -> Option<TcpStream> {
    let mut stream = connect(address).await?;
    let login = control(&json!({"id": 1, "cmd": "login", "token": token}));
    stream.write_all(&login).await.ok()?;
    let length = stream.read_u32().await.ok()?;
    let mut reply = vec![0; length as usize];
    stream.read_exact(&mut reply).await.ok()?;
    Some(stream)
}

/// Writes all bytes, or as many as the peer accepts.
async fn write(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = timeout(Duration::from_millis(300), stream.write_all(bytes)).await;
}

async fn read_to_the_end(stream: &mut TcpStream) {
    let mut bytes = [0; 4096];
    let reading = async { while let Ok(1..) = stream.read(&mut bytes).await {} };
    let _ = timeout(Duration::from_secs(20), reading).await;
}

/// Connections of five kinds that stay open and do nothing more.
async fn hold(address: &str, token: &str, number: usize) -> Vec<Option<TcpStream>> {
    let silent = connect(address).await;
    let mut cut_off = connect(address).await;
    if let Some(stream) = &mut cut_off {
        write(stream, &[0, 0, 0, 40, b'{', b'"']).await;
    }
    let mut deaf = connect_and_log_in(address, token).await;
    if let Some(stream) = &mut deaf {
        let get = json!({"id": 2, "cmd": "get", "path": "large"});
        write(stream, &control(&get)).await;
        // The replies are many times as long as the requests.
        let help = control(&json!({"id": 3, "cmd": "help"}));
        write(stream, &help.repeat(20_000)).await;
    }
    let mut uploading = connect_and_log_in(address, token).await;
    if let Some(stream) = &mut uploading {
        let put = json!({"id": 2, "cmd": "put", "path": format!("never {number}")});
        let half = [control(&put), data(2, &b"x".repeat(50_000))].concat();
        write(stream, &half).await;
        // In the middle of a frame.
        write(stream, &(1_000_u32).to_be_bytes()).await;
    }
    let mut waiting = connect_and_log_in(address, token).await;
    if let Some(stream) = &mut waiting {
        for id in 2..1002 {
            let put = json!({"id": id, "cmd": "put", "path": format!("never {id}")});
            write(stream, &control(&put)).await;
        }
    }
    vec![silent, cut_off, deaf, uploading, waiting]
}

/// Sends one byte at a time until the server closes the connection.
async fn write_slowly(address: String, token: String, number: usize) {
    loop {
        let stream = if number.is_multiple_of(2) {
            connect(&address).await
        } else {
            connect_and_log_in(&address, &token).await
        };
        let Some(mut stream) = stream else {
            return;
        };
        let request = frame(format!("{{\"cmd\":{}", " ".repeat(2000)).as_bytes());
        for byte in request {
            if stream.write_all(&[byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Sends frames without a valid request, then an invalid frame.
async fn send_malformed(address: &str, token: &str, number: usize) {
    let stream = if number.is_multiple_of(4) {
        connect_and_log_in(address, token).await
    } else {
        connect(address).await
    };
    let Some(mut stream) = stream else {
        return;
    };
    let mut bytes = Vec::new();
    for at in 0..FRAMES - 1 {
        bytes.extend(no_request(number + at));
    }
    bytes.extend(no_frame(number));
    write(&mut stream, &bytes).await;
    if number.is_multiple_of(8) {
        // Ignores the replies.
        return;
    }
    let _ = stream.shutdown().await;
    read_to_the_end(&mut stream).await;
}

/// A valid frame without a valid request.
fn no_request(number: usize) -> Vec<u8> {
    let deep = format!("{{\"cmd\":{}", "[".repeat(2000));
    let long = format!("{{\"cmd\":\"{}\"}}", "x".repeat(3000));
    let texts: [&[u8]; 12] = [
        b"{",
        b"{}",
        b"{\"cmd\":\"fly\"}",
        b"{\"cmd\":\"pwd\"}x",
        b"{\"cmd\":\"pwd\",\"id\":-1}",
        b"{\"cmd\":\"pwd\",\"cmd\":\"rm\"}",
        b"{\"cmd\":\"cd\",\"path\":\"\xff\"}",
        b"{\"cmd\":\"cd\",\"path\":\"\\ud800\"}",
        b"{\"cmd\":\"end\",\"id\":77}",
        b"{\"cmd\":\"cancel\",\"target\":77}",
        deep.as_bytes(),
        long.as_bytes(),
    ];
    frame(texts[number % texts.len()])
}

/// Invalid frames, which end a connection.
fn no_frame(number: usize) -> Vec<u8> {
    match number % 12 {
        0 => vec![0; 4],
        1 => vec![0xff; 4],
        2 => 1_048_582_u32.to_be_bytes().to_vec(),
        3 => frame(b"[7]"),
        4 => frame(b"\x01\0\0"),
        5 => data(77, b"stray"),
        6 => frame(b"\xef\xbb\xbf{}"),
        7 => b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        8 => b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(),
        9 => [&65_537_u32.to_be_bytes()[..], b"{"].concat(),
        10 => vec![0, 0, 0, 9, b'{'],
        _ => frame(&[0; 64]),
    }
}

/// Logs in, and disconnects in one of several ways.
async fn visit(address: &str, token: &str, number: usize) {
    let Some(mut stream) = connect_and_log_in(address, token).await else {
        return;
    };
    if number.is_multiple_of(2) {
        write(&mut stream, &control(&json!({"id": 2, "cmd": "quit"}))).await;
        read_to_the_end(&mut stream).await;
    }
}

/// Requests impossible sizes, and sends `end` and `cancel` without a transfer.
async fn ask_for_too_much(address: &str, token: &str) {
    let Some(mut stream) = connect_and_log_in(address, token).await else {
        return;
    };
    for id in 2..100 {
        let size = [9_007_199_254_740_991_u64, u64::MAX, 1 << 50][id % 3];
        let requests = [
            json!({"id": id, "cmd": "put", "path": "never", "size": size}),
            json!({"id": id + 1000, "cmd": "get", "path": "large", "offset": size}),
            json!({"id": id, "cmd": "end"}),
            json!({"id": id + 2000, "cmd": "end"}),
            json!({"id": id + 3000, "cmd": "cancel", "target": id}),
        ];
        for request in requests {
            write(&mut stream, &control(&request)).await;
        }
    }
    write(&mut stream, &control(&json!({"id": 2, "cmd": "quit"}))).await;
    read_to_the_end(&mut stream).await;
}
