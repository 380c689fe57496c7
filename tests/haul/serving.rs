//! `haul serve` from an operator's point of view: its log, its start and its stop.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::daemon::{ServerProcess, haul, operate};
use crate::harness::{PASSWORD, RawClient, Received};
use crate::tls::terminal::at_terminal;

#[tokio::test]
async fn sigterm_says_goodbye_and_ends_with_exit_code_0() {
    let daemon = ServerProcess::start();
    let mut client = daemon.log_in(&daemon.token()).await;
    let stopped = daemon.terminate();
    assert_eq!(stopped.code, Some(0));
    let goodbye = json!({"event": "goodbye", "reason": "shutting_down"});
    assert_eq!(client.receive().await, Received::Control(goodbye));
    assert_eq!(client.receive().await, Received::Closed);
    let lines = stopped.lines();
    assert_eq!(lines.last().expect("a line")["message"], "stopped");
}

#[tokio::test]
async fn every_finished_command_is_one_line_of_json_with_its_session_peer_and_user() {
    let daemon = ServerProcess::start();
    let mut client = RawClient::connect(&daemon.address).await;
    let wrong = json!({"cmd": "login", "user": "admin", "password": "guess"});
    client.fails(wrong, "login_failed").await;
    let login = json!({"cmd": "login", "user": "admin", "password": PASSWORD});
    let session = client.ok(login).await["session"].take();
    client.ok(json!({"cmd": "mkdir", "path": "d"})).await;
    client.put("d/a.txt", b"hello").await;
    client.get(json!({"cmd": "get", "path": "d/a.txt"})).await;
    client
        .ok(json!({"cmd": "mv", "from": "d/a.txt", "to": "b"}))
        .await;
    let hostile = json!({"cmd": "rm", "path": "nothing\n\u{1b}[2J"});
    client.fails(hostile, "invalid_path").await;
    client
        .fails(json!({"cmd": "cd", "path": "nowhere"}), "not_found")
        .await;
    let stopped = daemon.terminate();
    assert!(!stopped.log.contains(PASSWORD), "a secret is in the log");
    assert!(
        !stopped.log.contains('\u{1b}'),
        "a name can drive a terminal"
    );
    let lines = stopped.lines();
    let commands: Vec<&Value> = lines
        .iter()
        .filter(|line| line["message"] == "command")
        .collect();
    let seen: Vec<Value> = commands
        .iter()
        .map(|line| {
            json!([
                line["cmd"],
                line["path"],
                line["bytes"],
                line["outcome"],
                line["code"]
            ])
        })
        .collect();
    let expected = [
        json!(["login", null, 0, "error", "login_failed"]),
        json!(["login", null, 0, "ok", null]),
        json!(["mkdir", "/d", 0, "ok", null]),
        json!(["put", "/d/a.txt", 5, "ok", null]),
        json!(["get", "/d/a.txt", 5, "ok", null]),
        json!(["mv", "/d/a.txt", 0, "ok", null]),
        json!(["rm", "nothing\n\u{1b}[2J", 0, "error", "invalid_path"]),
        json!(["cd", "/nowhere", 0, "error", "not_found"]),
    ];
    assert_eq!(seen, expected);
    assert_eq!(commands[5]["to"], "/b");
    for line in commands {
        assert_eq!(
            (&line["session"], &line["user"]),
            (&session, &json!("admin"))
        );
        let (peer, time) = (line["peer"].as_str(), line["time"].as_str());
        assert!(
            peer.is_some_and(|peer| peer.starts_with("127.0.0.1:")),
            "{line}"
        );
        assert!(time.is_some_and(|time| time.ends_with('Z')), "{line}");
        assert!(line["ms"].is_u64(), "{line}");
    }
}

#[tokio::test]
async fn junk_and_an_unknown_command_are_one_log_line_each_without_their_text() {
    let daemon = ServerProcess::start();
    let mut junk = RawClient::connect(&daemon.address).await;
    junk.send_bytes(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(junk.receive().await, Received::Closed);
    let mut person = RawClient::connect(&daemon.address).await;
    let classic = json!({"cmd": "login admin hunter2"});
    person.fails(classic, "bad_request").await;
    let stopped = daemon.terminate();
    let lines = stopped.lines();
    let closed =
        |line: &&Value| line["message"] == "closed: the peer speaks no protocol of this server";
    assert_eq!(lines.iter().filter(closed).count(), 1, "{}", stopped.log);
    let unknown = |line: &&Value| line["cmd"] == "unknown" && line["code"] == "bad_request";
    assert_eq!(lines.iter().filter(unknown).count(), 1, "{}", stopped.log);
    assert!(!stopped.log.contains("hunter2"), "{}", stopped.log);
}

#[tokio::test]
async fn requests_without_a_login_do_not_fill_the_log_and_those_of_members_are_all_logged() {
    let daemon = ServerProcess::start();
    let token = daemon.token();
    for _ in 0..50 {
        let mut junk = RawClient::connect(&daemon.address).await;
        junk.send_bytes(b"GET / HTTP/1.1\r\n\r\n").await;
        assert_eq!(junk.receive().await, Received::Closed);
        let mut visitor = RawClient::connect(&daemon.address).await;
        visitor.ok(json!({"cmd": "quit"})).await;
        assert_eq!(visitor.receive().await, Received::Closed);
        let mut member = daemon.log_in(&token).await;
        member.ok(json!({"cmd": "quit"})).await;
        assert_eq!(member.receive().await, Received::Closed);
    }
    let stopped = daemon.terminate();
    let lines = stopped.lines();
    let count = |message: &str, is_member: bool| {
        let lines = lines.iter().filter(|line| line["message"] == message);
        lines
            .filter(|line| line["user"].is_string() == is_member)
            .count()
    };
    assert_eq!(count("session ended", true), 50, "{}", stopped.log);
    for message in [
        "session ended",
        "closed: the peer speaks no protocol of this server",
    ] {
        // One a second.
        assert!((1..25).contains(&count(message, false)), "{}", stopped.log);
    }
}

#[tokio::test]
async fn a_second_server_on_the_same_data_is_refused_with_one_line() {
    let daemon = ServerProcess::start();
    let second = haul()
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(daemon.data())
        .output()
        .expect("it runs");
    let message = String::from_utf8(second.stderr).expect("text");
    assert_eq!(second.status.code(), Some(1), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(
        message.contains("another server is using the data directory"),
        "{message}"
    );
}

#[test]
fn a_file_at_the_path_of_the_data_directory_is_reported_in_one_line() {
    let temp_dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(temp_dir.path().join("file"), "").expect("written");
    let start = || {
        let mut command = haul();
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data", "file/data"])
            .current_dir(&temp_dir);
        command
    };
    let output = start().output().expect("it runs");
    let message = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    let line: Value = serde_json::from_str(&message).expect("a line as those of the log");
    assert_eq!(line["event"], "can_not_start");
    let text = line["message"].as_str().expect("text");
    assert!(text.contains("file/data"), "{message}");

    let output = start().env("HAUL_LOG_FORMAT", "text").output();
    let output = output.expect("it runs");
    let message = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(
        message.starts_with("haul: serve: ") && message.contains("file/data"),
        "{message}"
    );
}

#[tokio::test]
async fn the_first_password_of_the_admin_is_shown_at_the_terminal_once_and_stored_in_no_file() {
    let temp_dir = tempfile::tempdir().expect("a temporary directory");
    let shown = started_at_a_terminal(temp_dir.path()).await;
    assert!(shown.contains("The account `admin` is new"), "{shown}");
    assert!(shown.contains("shown this once: "), "{shown}");
    assert!(
        shown.contains("haul connect haul://admin@127.0.0.1:"),
        "{shown}"
    );
    assert!(!temp_dir.path().join("data/admin-password").exists());
    let shown = started_at_a_terminal(temp_dir.path()).await;
    assert!(shown.contains("haul listens on "), "{shown}");
    assert!(!shown.contains("password"), "{shown}");
}

/// The terminal output of a server that is stopped as soon as it listens.
async fn started_at_a_terminal(temp_dir: &Path) -> String {
    // The log of an earlier start would end this server before it handles signals.
    const STOPPED_ONCE_IT_LISTENS: &str = r#"
        rm -f log
        "$0" serve --listen 127.0.0.1:0 --data data >log & server=$!
        until grep -qs '"listening"' log; do kill -0 $server || exit; sleep 0.02; done
        kill $server; wait $server"#;
    let program = haul();
    let mut shell = Command::new("sh");
    for (name, _) in program.get_envs() {
        shell.env_remove(name);
    }
    shell
        .args(["-c", STOPPED_ONCE_IT_LISTENS])
        .arg(program.get_program())
        .env("HAUL_OPS_LISTEN", "")
        .current_dir(temp_dir);
    let (code, shown) = at_terminal(shell, "").await;
    assert_eq!(code, Some(0), "{shown}");
    shown
}

#[tokio::test]
async fn without_a_terminal_the_first_password_is_in_a_file_that_others_cannot_read() {
    let temp_dir = tempfile::tempdir().expect("a temporary directory");
    let data = temp_dir.path().join("data");
    let daemon = ServerProcess::start_on(&data);
    assert_eq!(daemon.greeting, "", "all output is in the log");
    let line = daemon.started.iter().find(|line| line["user"] == "admin");
    let line = line.expect("a line about it");
    assert_eq!(
        line["connect"],
        format!("haul connect haul://admin@{}", daemon.address)
    );
    let file = line["password_file"].as_str().expect("a path").to_owned();
    let mode = std::fs::metadata(&file)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let password = std::fs::read_to_string(&file).expect("text");
    let password = password.trim_end();
    assert_eq!(password.len(), 20);
    let mut admin = RawClient::connect(&daemon.address).await;
    let login = json!({"cmd": "login", "user": "admin", "password": password});
    admin.ok(login).await;
    let started = format!("{:?}", daemon.started);
    operate(&data, "user passwd admin", "another of my own\n");
    assert!(
        !Path::new(&file).exists(),
        "it is nobody's password any more"
    );
    let stopped = daemon.terminate();
    assert!(!started.contains(password) && !stopped.log.contains(password));
}
