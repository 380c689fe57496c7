//! The readiness of a server: `/readyz`.

use std::fs::File;
use std::net::SocketAddr;

use haul::ops;
use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::daemon::ServerProcess;
use crate::harness::{TestServer, soon};
use crate::metrics::{LOST, answer};
use crate::requirements;
use crate::strace::Strace;

/// The status and the body of the response for `path`.
async fn ask(ops: SocketAddr, path: &str) -> (String, String) {
    let (head, body) = answer(ops, path).await;
    let status = head.split(' ').nth(1).expect("a status");
    (status.to_owned(), body)
}

fn is(status: &str, body: &str) -> (String, String) {
    (status.to_owned(), body.to_owned())
}

/// Sends a request on a persistent connection; returns the response.
async fn request(connection: &mut TcpStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    connection
        .write_all(request.as_bytes())
        .await
        .expect("sent");
    let mut answer = vec![0; 4096];
    let length = connection.read(&mut answer).await.expect("an answer");
    String::from_utf8(answer[..length].to_vec()).expect("text")
}

#[tokio::test]
async fn a_starting_process_is_alive_and_not_ready() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let ops = listener.local_addr().expect("an address");
    let (made, server) = oneshot::channel();
    let stop = CancellationToken::new();
    let server = async { server.await.expect("made") };
    let running = tokio::spawn(ops::run(listener, ops, server, || LOST, stop.clone()));
    assert_eq!(ask(ops, "/healthz").await, is("200", "ok\n"));
    assert_eq!(ask(ops, "/readyz").await, is("503", "starting\n"));
    let mut kept = TcpStream::connect(ops).await.expect("it listens");
    assert!(request(&mut kept, "/readyz").await.contains("starting"));
    let server = TestServer::start().await;
    let handed_over = made.send(server.server.clone());
    assert!(handed_over.is_ok());
    soon("it is ready", async || {
        (ask(ops, "/readyz").await == is("200", "ready\n")).then_some(())
    })
    .await;
    let answer = request(&mut kept, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(server.staged(), 0, "what was tried has left nothing");
    stop.cancel();
    running.await.expect("no panic");
}

#[tokio::test]
async fn a_hanging_disk_makes_the_server_not_ready_and_delays_nothing_else() {
    let test = "readiness::a_disk_that_hangs_makes_it_not_ready";
    if !requirements::program("strace", "-V", test) {
        return;
    }
    let daemon = ServerProcess::start();
    let ops = daemon.ops.parse().expect("an address");
    let mut client = daemon.log_in(&daemon.token()).await;
    assert_eq!(ask(ops, "/readyz").await, is("200", "ready\n"));
    let temp_dir = tempfile::tempdir().expect("a directory");
    // Half a minute in microseconds: a longer delay could not be interrupted while the process is
    // traced.
    let hang = ["-f", "-e", "inject=fsync:delay_enter=30000000"];
    let strace = Strace::attach(daemon.id(), &hang, temp_dir.path()).expect("it may be traced");
    let hanging = is("503", "the data directory does not respond\n");
    soon("it is not ready", async || {
        (ask(ops, "/readyz").await == hanging).then_some(())
    })
    .await;
    assert_eq!(ask(ops, "/healthz").await, is("200", "ok\n"));
    client.ok(json!({"cmd": "ls"})).await;
    // After the detach, the thread no longer waits.
    strace.detach(false);
    daemon.kill();
}

#[tokio::test]
async fn a_draining_server_is_alive_and_not_ready_until_its_process_ends() {
    let env = [
        ("HAUL_LIMITS_BANDWIDTH_PER_USER", "64KiB"),
        ("HAUL_LIMITS_DRAIN_TIMEOUT", "1h"),
    ];
    let daemon = ServerProcess::start_with(&env);
    let ops = daemon.ops.parse().expect("an address");
    let mut client = daemon.log_in(&daemon.token()).await;
    let file = File::create(daemon.data().join("homes/admin/large")).expect("made");
    file.set_len(1 << 30).expect("sparse");
    let get = json!({"id": 5, "cmd": "get", "path": "large"});
    client.send(get).await;
    assert_eq!(client.reply().await["begin"]["size"], 1 << 30);
    assert_eq!(ask(ops, "/readyz").await, is("200", "ready\n"));
    daemon.signal(Signal::TERM);
    daemon.wait_for_log_line("stopped accepting connections; waiting for sessions to end");
    assert_eq!(ask(ops, "/readyz").await, is("503", "draining\n"));
    assert_eq!(ask(ops, "/healthz").await, is("200", "ok\n"));
    let (_, metrics) = answer(ops, "/metrics").await;
    assert!(metrics.contains("\nhaul_draining 1\n"), "{metrics}");
    assert!(
        metrics.contains("\nhaul_transfers{cmd=\"get\"} 1\n"),
        "{metrics}"
    );
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.stopped().code, Some(0));
    assert!(TcpStream::connect(ops).await.is_err());
}
