//! `haul serve` as whoever runs it sees it: what it logs, how it starts and how it stops.

use serde_json::{Value, json};

use crate::daemon::{Daemon, haul};
use crate::harness::{PASSWORD, RawClient};

#[tokio::test]
async fn sigterm_says_goodbye_and_ends_with_exit_code_0() {
    let daemon = Daemon::start();
    let mut client = daemon.log_in(&daemon.token()).await;
    let log = daemon.log();
    let status = daemon.terminate();
    assert_eq!(status.code(), Some(0));
    assert_eq!(client.closes_after_event().await, json!({"event": "goodbye", "reason": "shutting_down"}));
    let last = log.lines().pop().expect("a line");
    assert_eq!(last["message"], "stopped");
}

#[tokio::test]
async fn every_finished_command_is_one_line_of_json_with_its_session_peer_and_user() {
    let daemon = Daemon::start();
    let mut client = RawClient::connect(&daemon.address).await;
    let login = json!({"cmd": "login", "user": "admin", "password": PASSWORD});
    let session = client.ok(login).await["session"].take();
    client.put("a\u{1b}.txt".trim_matches('\u{1b}'), b"").await;
    client.ok(json!({"cmd": "mkdir", "path": "d"})).await;
    client.put("d/a.txt", b"hello").await;
    client.get(json!({"cmd": "get", "path": "d/a.txt"})).await;
    client.fails(json!({"cmd": "rm", "path": "nothing\nhere"}), "invalid_path").await;
    client.fails(json!({"cmd": "cd", "path": "nowhere"}), "not_found").await;
    let log = daemon.log();
    daemon.terminate();
    let lines = log.lines();
    let commands: Vec<&Value> = lines.iter().filter(|line| line["message"] == "command").collect();
    let mine = commands.iter().filter(|line| line["session"] == session);
    let seen: Vec<_> = mine
        .map(|line| (line["cmd"].as_str(), line["path"].as_str(), line["bytes"].as_u64(), line["outcome"].as_str(), line["code"].as_str()))
        .map(|(cmd, path, bytes, outcome, code)| {
            (cmd.unwrap_or("-"), path.unwrap_or("-"), bytes.unwrap_or(99), outcome.unwrap_or("-"), code.unwrap_or("-"))
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("login", "-", 0, "ok", "-"),
            ("put", "-", 0, "error", "invalid_path"),
            ("mkdir", "/d", 0, "ok", "-"),
            ("put", "/d/a.txt", 5, "ok", "-"),
            ("get", "/d/a.txt", 5, "ok", "-"),
            ("rm", "nothing\nhere", 0, "error", "invalid_path"),
            ("cd", "/nowhere", 0, "error", "not_found"),
        ]
    );
    for line in commands {
        assert!(line["ms"].is_u64() && line["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")));
        assert!(line["user"] == "admin" && line["time"].as_str().is_some_and(|time| time.ends_with('Z')));
    }
    assert!(!log.text().contains(PASSWORD), "a secret is in the log");
}

#[tokio::test]
async fn a_second_server_on_the_same_data_is_refused_with_one_line() {
    let daemon = Daemon::start();
    let second = haul()
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(daemon.data())
        .output()
        .expect("it runs");
    let message = String::from_utf8(second.stderr).expect("text");
    assert_eq!(second.status.code(), Some(1), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.contains("another server is using the data directory"), "{message}");
}

#[test]
fn a_taken_port_and_an_unwritable_directory_and_a_bad_setting_are_one_line_each() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    std::fs::write(place.path().join("file"), "").expect("written");
    std::fs::write(place.path().join("haul.toml"), "[limits]\nsesions = 3\n").expect("written");
    for (arguments, expected) in [
        (vec!["--listen", &taken, "--data", "data"], "can not listen on"),
        (vec!["--listen", "127.0.0.1:0", "--data", "file/data"], "file/data"),
        (vec!["--config", "haul.toml"], "sesions"),
        (vec!["--config", "missing.toml"], "missing.toml"),
    ] {
        let output = haul().arg("serve").args(&arguments).current_dir(&place).output().expect("it runs");
        let message = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(message.starts_with("haul: serve: ") && message.contains(expected), "{message}");
    }
}

#[test]
fn the_first_start_makes_an_admin_whose_password_is_shown_once() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let data = place.path().join("data");
    let first = Daemon::start_on(&data, None);
    assert!(first.greeting.contains("The account `admin` is new"), "{}", first.greeting);
    assert!(first.greeting.contains(&format!("haul connect haul+plain://admin@{}", first.address)));
    first.terminate();
    let second = Daemon::start_on(&data, None);
    assert!(!second.greeting.contains("password"), "{}", second.greeting);
    second.terminate();
}
