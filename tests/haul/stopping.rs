//! The end of the daemon by a signal, with and without running work, within its deadlines.

use std::fs::File;
use std::io::BufReader;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::daemon::{ServerProcess, Stopped, ended, haul, read_to_listening};
use crate::harness::{RawClient, Received};
use crate::requirements;

fn goodbye() -> Value {
    json!({"event": "goodbye", "reason": "shutting_down"})
}

/// A daemon with a download by the admin that would take hours.
async fn busy(drain_timeout: &str) -> (ServerProcess, RawClient) {
    let env = [
        ("HAUL_LIMITS_BANDWIDTH_PER_USER", "64KiB"),
        ("HAUL_LIMITS_DRAIN_TIMEOUT", drain_timeout),
    ];
    let daemon = ServerProcess::start_with(&env);
    let mut client = daemon.log_in(&daemon.token()).await;
    let file = File::create(daemon.data().join("homes/admin/large")).expect("made");
    file.set_len(1 << 30).expect("sparse");
    client
        .send(json!({"id": 5, "cmd": "get", "path": "large"}))
        .await;
    assert_eq!(client.reply().await["begin"]["size"], 1 << 30);
    (daemon, client)
}

/// All events until the server closes.
async fn events(client: &mut RawClient) -> Vec<Value> {
    let mut events = Vec::new();
    loop {
        match client.receive().await {
            Received::Closed => return events,
            Received::Control(json) if json.get("event").is_some() => events.push(json),
            Received::Control(_) | Received::Data { .. } => {}
        }
    }
}

fn messages(stopped: &Stopped) -> Vec<String> {
    let lines = stopped.lines().into_iter();
    lines
        .map(|line| line["message"].as_str().expect("a message").to_owned())
        .collect()
}

#[test]
fn a_daemon_without_sessions_ends_with_exit_code_0_by_either_signal() {
    for (signal, message) in [
        (Signal::TERM, "told to stop by SIGTERM"),
        (Signal::INT, "told to stop by SIGINT"),
    ] {
        let daemon = ServerProcess::start_with(&[]);
        daemon.signal(signal);
        let stopped = daemon.stopped();
        assert_eq!(stopped.code, Some(0));
        assert_eq!(
            messages(&stopped),
            [
                message,
                "stopped accepting connections; waiting for sessions to end",
                "stopped"
            ]
        );
    }
}

#[tokio::test]
async fn idle_sessions_and_connections_without_a_login_get_a_goodbye_and_delay_no_stop() {
    let daemon = ServerProcess::start_with(&[("HAUL_LIMITS_DRAIN_TIMEOUT", "1h")]);
    let mut member = daemon.log_in(&daemon.token()).await;
    let mut visitor = RawClient::connect(&daemon.address).await;
    visitor.ok(json!({"cmd": "hello"})).await;
    let _silent = RawClient::connect(&daemon.address).await;
    let stopped = daemon.terminate();
    assert_eq!(stopped.code, Some(0));
    assert_eq!(events(&mut member).await, [goodbye()]);
    assert_eq!(events(&mut visitor).await, [goodbye()]);
}

#[tokio::test]
async fn a_transfer_that_exceeds_the_drain_timeout_is_cut_off() {
    let (daemon, mut client) = busy("100ms").await;
    daemon.signal(Signal::TERM);
    assert_eq!(events(&mut client).await, [goodbye()]);
    let stopped = daemon.stopped();
    assert_eq!(stopped.code, Some(0));
    let messages = messages(&stopped);
    let cut = "aborting sessions that did not end in time".to_owned();
    assert!(messages.contains(&cut), "{messages:?}");
    assert_eq!(messages.last().map(String::as_str), Some("stopped"));
}

#[tokio::test]
async fn a_second_signal_ends_the_drain_at_once() {
    let (daemon, mut client) = busy("1h").await;
    daemon.signal(Signal::TERM);
    daemon.wait_for_log_line("stopped accepting connections; waiting for sessions to end");
    daemon.signal(Signal::INT);
    assert_eq!(events(&mut client).await, [goodbye()]);
    let stopped = daemon.stopped();
    assert_eq!(stopped.code, Some(0));
    let messages = messages(&stopped);
    let second = "told to stop again by SIGINT".to_owned();
    assert!(messages.contains(&second), "{messages:?}");
}

#[test]
fn a_start_that_hangs_can_be_ended_by_a_signal() {
    let temp_dir = tempfile::tempdir().expect("a directory");
    let fifo = temp_dir.path().join("password");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).expect("a pipe");
    let mut process = haul()
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(temp_dir.path().join("data"))
        .env("HAUL_ADMIN_PASSWORD_FILE", &fifo)
        .env("HAUL_LIMITS_DRAIN_TIMEOUT", "100ms")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    // The open returns once the other end is read; then the start waits for a password that never
    // arrives.
    let _never_written = File::options().write(true).open(&fifo).expect("opened");
    kill_process(Pid::from_child(&process), Signal::TERM).expect("it runs");
    assert_eq!(ended(&mut process).code(), Some(0));
    let log = process.stdout.take().expect("piped");
    let log = std::io::read_to_string(log).expect("text");
    let left = "stopped without waiting for work that the disk or the start delays";
    assert!(log.contains(left), "{log}");
}

/// Kills the process if the test fails.
struct KilledAtLast(Child);

impl Drop for KilledAtLast {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn sigterm_ends_the_server_even_as_process_1_of_a_container() {
    let test = "sigterm_ends_the_server_even_as_process_1_of_a_container";
    let kinds = ["--fork", "--pid", "--mount-proc", "-r", "--kill-child"];
    if !requirements::namespaces(&kinds, &["true"], &format!("stopping::{test}")) {
        return;
    }
    let temp_dir = tempfile::tempdir().expect("a directory");
    let unshare = std::process::Command::new("unshare")
        .args(kinds)
        .arg(haul().get_program())
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(temp_dir.path().join("data"))
        .env("HAUL_OPS_LISTEN", "127.0.0.1:0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it was there a moment ago");
    let mut unshare = KilledAtLast(unshare);
    let KilledAtLast(unshare) = &mut unshare;
    let mut log = BufReader::new(unshare.stdout.take().expect("piped"));
    read_to_listening(&mut log, &mut Vec::new());
    let id = unshare.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
    let children = children.expect("it runs");
    let first = children.trim().parse().ok().and_then(Pid::from_raw);
    let first = first.expect("one child");
    let status = std::fs::read_to_string(format!("/proc/{}/status", first.as_raw_nonzero()));
    let status = status.expect("it runs");
    let ids = status.lines().find(|line| line.starts_with("NSpid:"));
    assert!(ids.is_some_and(|ids| ids.ends_with("\t1")), "{ids:?}");
    kill_process(first, Signal::TERM).expect("it runs");
    assert_eq!(ended(unshare).code(), Some(0));
}
