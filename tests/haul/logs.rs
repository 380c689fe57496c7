//! The log for operators: over the wire and in files, and without secrets.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::daemon::{ServerProcess, haul, operate};
use crate::harness::{PASSWORD, RawClient, Received, TestServer};

/// A daemon with the admin `root` and the user `alice`, with the password of all tests.
fn daemon(settings: &[(&str, &str)]) -> (tempfile::TempDir, ServerProcess) {
    let temp_dir = tempfile::tempdir().expect("a directory");
    let data = temp_dir.path().join("data");
    let daemon = ServerProcess::start_on_with(&data, settings);
    let password = format!("{PASSWORD}\n");
    operate(&data, "user add root --admin", &password);
    operate(&data, "user add alice", &password);
    (temp_dir, daemon)
}

async fn log_in(daemon: &ServerProcess, user: &str) -> RawClient {
    let mut client = RawClient::connect(&*daemon.address).await;
    client
        .ok(json!({"cmd": "login", "user": user, "password": PASSWORD}))
        .await;
    client
}

/// The lines of `logs`, until its final reply.
async fn lines(client: &mut RawClient, request: Value) -> (Vec<Value>, Value) {
    let (bytes, reply) = client.get(request).await;
    let text = String::from_utf8(bytes).expect("text");
    let lines = text.lines();
    let lines = lines.map(|line| serde_json::from_str(line).expect("JSON"));
    (lines.collect(), reply)
}

#[tokio::test]
async fn an_operator_reads_the_requested_log_lines() {
    let (_place, daemon) = daemon(&[]);
    let mut alice = log_in(&daemon, "alice").await;
    alice.put("a.txt", b"hello").await;
    alice
        .ok(json!({"cmd": "mkdir", "path": "d/e", "parents": true}))
        .await;
    alice
        .fails(json!({"cmd": "ls", "path": "d/nothing"}), "not_found")
        .await;
    let mut root = log_in(&daemon, "root").await;
    let (all, reply) = lines(&mut root, json!({"id": 7, "cmd": "logs"})).await;
    assert!(all.len() > 4, "{all:?}");
    assert_eq!(reply["ok"]["lines"], all.len());
    let numbers: Vec<_> = all.iter().map(|line| line["line"].as_u64()).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    for (filter, expected) in [
        (
            json!({"user": "alice", "command": "put"}),
            json!(["/a.txt"]),
        ),
        (json!({"path": "/d"}), json!(["/d/e", "/d/nothing"])),
        (json!({"path": "/d", "last": 1}), json!(["/d/nothing"])),
        (json!({"path": "/d/e/f"}), json!([])),
        (json!({"user": "alice", "level": "warn"}), json!([])),
        (json!({"event": "command", "user": "nobody"}), json!([])),
    ] {
        let mut request = filter.clone();
        request["id"] = json!(8);
        request["cmd"] = json!("logs");
        let (found, _) = lines(&mut root, request).await;
        let paths: Vec<_> = found.iter().map(|line| line["path"].clone()).collect();
        assert_eq!(json!(paths), expected, "{filter}");
    }
    let since = all[all.len() - 2]["line"].clone();
    let (rest, _) = lines(&mut root, json!({"id": 9, "cmd": "logs", "since": since})).await;
    assert_eq!(rest[0]["line"], all[all.len() - 1]["line"]);
    alice.fails(json!({"cmd": "logs"}), "denied").await;
    alice.fails(json!({"cmd": "log_level"}), "denied").await;
}

#[tokio::test]
async fn a_follower_of_the_log_gets_new_lines_until_it_cancels() {
    let (_place, daemon) = daemon(&[]);
    let mut alice = log_in(&daemon, "alice").await;
    let mut root = log_in(&daemon, "root").await;
    let follow = json!({"id": 7, "cmd": "logs", "follow": true, "last": 0, "user": "alice"});
    root.send(follow).await;
    assert!(root.reply().await["begin"]["line"].is_u64());
    alice.put("a.txt", b"hello").await;
    let Received::Data { stream: 7, chunk } = root.receive().await else {
        panic!("no line");
    };
    let line: Value = serde_json::from_slice(&chunk).expect("one line");
    assert_eq!(line["cmd"], "put");
    assert_eq!(line["bytes"], 5);
    assert!(line["upload"].is_string(), "{line}");
    root.send(json!({"id": 8, "cmd": "cancel", "target": 7}))
        .await;
    assert_eq!(root.final_reply(7).await["error"]["code"], "cancelled");
}

#[tokio::test]
async fn following_the_log_ends_with_the_admin_right() {
    let (temp_dir, daemon) = daemon(&[]);
    let mut root = log_in(&daemon, "root").await;
    root.send(json!({"id": 7, "cmd": "logs", "follow": true, "last": 0}))
        .await;
    assert!(root.reply().await["begin"].is_object());
    operate(
        &temp_dir.path().join("data"),
        "user set root --no-admin",
        "",
    );
    assert_eq!(root.final_reply(7).await["error"]["code"], "denied");
    root.ok(json!({"cmd": "ping"})).await;
}

#[tokio::test]
async fn followers_of_the_log_use_no_request_slot_and_end_with_their_session() {
    let (_place, daemon) = daemon(&[("HAUL_LIMITS_REQUESTS", "1")]);
    let mut root = log_in(&daemon, "root").await;
    let follow = |id| json!({"id": id, "cmd": "logs", "follow": true, "event": "nothing"});
    for id in 1..=4 {
        root.send(follow(id)).await;
        assert!(root.reply().await["begin"].is_object());
    }
    root.fails(follow(5), "limited").await;
    root.fails(json!({"cmd": "hash", "path": "/"}), "is_a_directory")
        .await;
    root.send(json!({"id": 8, "cmd": "cancel", "target": 4}))
        .await;
    assert_eq!(root.final_reply(4).await["error"]["code"], "cancelled");
    // The followers get no goodbye and no log line.
    let mut disconnecting = log_in(&daemon, "root").await;
    disconnecting.send(follow(1)).await;
    assert!(disconnecting.reply().await["begin"].is_object());
    drop(disconnecting);
    crate::harness::soon("its session has ended", async || {
        let reply = root.ok(json!({"cmd": "sessions"})).await;
        let sessions = reply["sessions"].as_array().map(Vec::len);
        (sessions == Some(1)).then_some(())
    })
    .await;
    root.send(json!({"id": 9, "cmd": "quit"})).await;
    assert_eq!(root.final_reply(9).await["ok"], json!({}));
}

#[tokio::test]
async fn following_the_log_does_not_delay_a_stopping_server() {
    let (_place, daemon) = daemon(&[]);
    let mut root = log_in(&daemon, "root").await;
    root.send(json!({"id": 7, "cmd": "logs", "follow": true, "last": 0}))
        .await;
    assert!(root.reply().await["begin"].is_object());
    daemon.signal(Signal::TERM);
    assert!(root.final_reply(7).await["ok"]["lines"].is_u64());
}

#[tokio::test]
async fn the_log_level_changes_for_a_limited_time_and_is_validated() {
    let (_place, daemon) = daemon(&[]);
    let mut root = log_in(&daemon, "root").await;
    let now = root.ok(json!({"cmd": "log_level"})).await;
    assert_eq!(now, json!({"level": "info", "setting": "info"}));
    root.fails(json!({"cmd": "log_level", "level": "loud"}), "bad_request")
        .await;
    root.fails(json!({"cmd": "log_level", "seconds": 1}), "bad_request")
        .await;
    let quiet = json!({"cmd": "log_level", "level": "off", "seconds": 1});
    assert_eq!(root.ok(quiet).await["level"], "off");
    crate::harness::soon("the setting counts again", async || {
        let now = root.ok(json!({"cmd": "log_level"})).await;
        (now["level"] == "info").then_some(())
    })
    .await;
    let (logged, _) = lines(&mut root, json!({"id": 7, "cmd": "logs"})).await;
    for event in ["log_level_changed", "log_level_back"] {
        assert!(logged.iter().any(|line| line["event"] == event), "{event}");
    }
}

/// The contents of the only file whose name begins with `name`.
fn daily(directory: &Path, name: &str) -> String {
    let entries = directory.read_dir().expect("readable");
    let mut paths = entries.map(|entry| entry.expect("an entry").path());
    let is_it = |path: &PathBuf| {
        let file = path.file_name().expect("a name").to_string_lossy();
        file.starts_with(name)
    };
    let path = paths.find(is_it).expect("a file");
    std::fs::read_to_string(path).expect("text")
}

#[tokio::test]
async fn the_audit_has_logins_and_changes_at_any_log_level_and_no_secret_is_logged() {
    let logs = tempfile::tempdir().expect("a directory");
    let (audit, log) = (logs.path().join("audit.log"), logs.path().join("haul.log"));
    let (temp_dir, daemon) = daemon(&[
        ("HAUL_LOG_LEVEL", "trace"),
        ("HAUL_LOG_AUDIT_FILE", &audit.display().to_string()),
        ("HAUL_LOG_FILE", &log.display().to_string()),
    ]);
    let token = operate(&temp_dir.path().join("data"), "token add alice", "");
    let wrong = json!({"cmd": "login", "user": "alice", "password": "open sesame"});
    let mut stranger = RawClient::connect(&*daemon.address).await;
    stranger.fails(wrong, "login_failed").await;
    let mistaken = json!({"cmd": "login", "user": "tr0ub4dor&3", "password": "alice"});
    stranger.fails(mistaken, "login_failed").await;
    stranger.ok(json!({"cmd": "login", "token": token})).await;
    let mut root = log_in(&daemon, "root").await;
    root.ok(json!({"cmd": "log_level", "level": "error"})).await;
    stranger.put("a.txt", b"the content").await;
    stranger.ok(json!({"cmd": "ls"})).await;
    stranger
        .ok(json!({"cmd": "mv", "from": "a.txt", "to": "b.txt"}))
        .await;
    let changed = json!({"cmd": "passwd", "old": PASSWORD, "new": "battery staple"});
    stranger.ok(changed).await;
    let ticket = stranger.ok(json!({"cmd": "ticket"})).await;
    stranger.ok(json!({"cmd": "quit"})).await;
    let (followed, _) = lines(&mut root, json!({"id": 7, "cmd": "logs"})).await;
    drop(root);
    let shown = daemon.terminate().log;
    let audited = daily(logs.path(), "audit.log");
    let lines: Vec<Value> = audited
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let acts: Vec<_> = lines
        .iter()
        .filter(|line| line["user"] == "alice" || line["outcome"] == "error")
        .map(|line| {
            let text = |field: &str| line[field].as_str().unwrap_or("-").to_owned();
            [text("event"), text("cmd"), text("outcome"), text("with")].join(" ")
        })
        .collect();
    assert_eq!(
        acts,
        [
            "command login error password",
            "command login error password",
            "command login ok token",
            "command put ok -",
            "command mv ok -",
            "command passwd ok -",
            "session_ended - - -",
        ]
    );
    assert!(lines.iter().all(|line| line["audit"] == true));
    let all = [
        shown,
        audited,
        daily(logs.path(), "haul.log"),
        json!(followed).to_string(),
    ]
    .concat();
    let secret = ticket["secret"].as_str().expect("a secret");
    for secret in [
        PASSWORD,
        "open sesame",
        "tr0ub4dor",
        "battery staple",
        &token,
        secret,
        "the content",
    ] {
        assert!(!all.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test]
async fn the_audit_file_includes_changes_made_on_the_machine_of_a_running_server() {
    let logs = tempfile::tempdir().expect("a directory");
    let audit = logs.path().join("audit.log").display().to_string();
    let (temp_dir, daemon) = daemon(&[("HAUL_LOG_AUDIT_FILE", &audit)]);
    let _root = log_in(&daemon, "root").await;
    let commands = [
        "user set alice --quota 1GB",
        "folder add team",
        "folder grant team alice rw",
        "folder list",
        "folder revoke team alice",
        "folder remove team",
        "token add alice",
        "token remove alice 1",
        "user remove alice",
    ];
    let mut tokens = Vec::new();
    for command in commands {
        let output = haul()
            .args(command.split(' '))
            .arg("--data")
            .arg(temp_dir.path().join("data"))
            .env("HAUL_LOG_AUDIT_FILE", &audit)
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{command}: {output:?}");
        tokens.extend((command == "token add alice").then_some(output.stdout));
    }
    daemon.terminate();
    let audited = daily(logs.path(), "audit.log");
    let token = String::from_utf8(tokens.remove(0)).expect("text");
    assert!(!audited.contains(token.trim()), "the token is in the audit");
    let lines = audited.lines();
    let lines = lines.map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let (by_hand, by_server): (Vec<_>, Vec<_>) =
        lines.partition(|line| line["event"] == "changed_on_machine");
    assert!(by_server.iter().any(|line| line["cmd"] == "login"));
    let acts = by_hand.iter().map(|line| {
        let text = |field: &str| line[field].as_str().unwrap_or("-").to_owned();
        [text("cmd"), text("on_user"), text("on_folder"), text("set")].join(" ")
    });
    assert_eq!(
        acts.collect::<Vec<_>>(),
        [
            "user set alice - quota=1000000000",
            "folder add - team -",
            "folder grant alice team rw",
            "folder revoke alice team -",
            "folder remove - team -",
            "token add alice - -",
            "token remove alice - -",
            "user remove alice - -",
        ]
    );
}

#[tokio::test]
async fn an_embedded_server_reports_that_it_has_no_log() {
    let server = TestServer::start().await;
    server.add_admin("root").await;
    let mut root = server.log_in("root").await;
    root.fails(json!({"cmd": "logs"}), "unsupported").await;
    root.fails(json!({"cmd": "log_level"}), "unsupported").await;
}

#[test]
fn the_command_line_shows_lines_to_people_and_programs() {
    let (_place, daemon) = daemon(&[]);
    let run = |arguments: &[&str]| {
        let output = haul()
            .args(arguments)
            .args(["--server", &format!("haul+plain://root@{}", daemon.address)])
            .env("HAUL_PASSWORD", PASSWORD)
            .stderr(Stdio::inherit())
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    run(&["mkdir", "/made here"]);
    let text = run(&["admin", "logs", "--cmd", "mkdir"]);
    assert!(
        text.contains("  INFO command cmd=mkdir path=\"/made here\""),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1, "{text}");
    let json = run(&["admin", "logs", "--json", "--cmd", "mkdir", "-n", "5"]);
    let line: Value = serde_json::from_str(&json).expect("one line");
    assert_eq!(line["event"], "command");
    let level = run(&["admin", "log-level", "warn"]);
    assert_eq!(level, "warn (the setting is info)\n");
}
