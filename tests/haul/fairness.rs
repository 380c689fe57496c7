//! Nobody pays for another: what one client takes of the server, others still have.

use haul::ops;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::daemon::{Daemon, operate};
use crate::harness::{PASSWORD, TestServer, control};
use crate::metrics::{LOST, answer};

#[tokio::test]
async fn connections_that_send_half_a_head_keep_nobody_from_the_health_check() {
    let server = TestServer::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let made = std::future::ready(server.server.clone());
    let stop = CancellationToken::new();
    let running = tokio::spawn(ops::run(listener, made, || LOST, stop.clone()));
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let sent = stream.write_all(b"GET /healthz HTTP/1.1\r\nHo").await;
        sent.expect("sent");
        slow.push(stream);
    }
    let (head, _) = answer(address, "/healthz").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    stop.cancel();
    drop(slow);
    running.await.expect("it ends");
}

#[tokio::test]
async fn a_flood_of_requests_is_few_lines_of_the_log_that_say_how_many_are_left_out() {
    const PINGS: usize = 20_000;
    let daemon = Daemon::start();
    let mut client = daemon.log_in(&daemon.token()).await;
    let ping = control(&json!({"id": 7, "cmd": "ping"}));
    let mut sent = 0;
    while sent < PINGS {
        client.send_bytes(&ping.repeat(500)).await;
        for _ in 0..500 {
            client.reply().await;
        }
        sent += 500;
    }
    client.ok(json!({"cmd": "quit"})).await;
    drop(client);
    let stopped = daemon.terminate();
    // `quit` is one of those that are counted, too.
    let (mut written, mut left_out) = (0, 0);
    for line in stopped.lines() {
        written += u64::from(line["cmd"] == "ping" || line["cmd"] == "quit");
        if line["event"] == "requests_left_out" {
            left_out += line["left_out"].as_u64().expect("a number");
        }
    }
    assert_eq!(written + left_out, PINGS as u64 + 1);
    assert!(written < PINGS as u64 / 2, "{written} lines");
}

#[tokio::test]
async fn one_member_with_all_the_open_uploads_there_are_leaves_others_their_descriptors() {
    let daemon = Daemon::start_with_descriptors(1024);
    operate(daemon.data(), "user add bob", &format!("{PASSWORD}\n"));
    let of_bob = operate(daemon.data(), "token add bob", "");
    let token = daemon.token();
    let mut greedy = Vec::new();
    let mut limited = 0;
    for _ in 0..10 {
        let mut client = daemon.log_in(&token).await;
        for id in 1..=60 {
            let path = format!("file{id}");
            client
                .send(json!({"id": id, "cmd": "put", "path": path}))
                .await;
            let reply = client.reply().await;
            limited += usize::from(reply["error"]["code"] == "limited");
        }
        greedy.push(client);
    }
    assert!(limited > 500, "only {limited} of 600 were refused");
    let mut bob = daemon.log_in(&of_bob).await;
    bob.put("of-bob.txt", b"content").await;
    bob.put("large.txt", &vec![b'x'; 1 << 20]).await;
    bob.ok(json!({"cmd": "hash", "path": "large.txt"})).await;
}
