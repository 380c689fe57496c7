//! `passwd`: users change their own password, and guesses are throttled.

use std::io::Write;
use std::process::Stdio;

use serde_json::json;

use crate::daemon::{ServerProcess, haul};
use crate::harness::{PASSWORD, RawClient, TestServer};

#[tokio::test]
async fn after_a_change_only_the_new_password_logs_in_and_open_sessions_continue() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let mut other = server.log_in("alice").await;
    let change = json!({"cmd": "passwd", "old": PASSWORD, "new": "battery staple"});
    assert_eq!(alice.ok(change.clone()).await, json!({}));
    alice.fails(change, "denied").await;
    alice.ok(json!({"cmd": "ls"})).await;
    other.ok(json!({"cmd": "ls"})).await;
    let mut new = server.connect().await;
    let login = |password| json!({"cmd": "login", "user": "alice", "password": password});
    new.fails(login(PASSWORD), "login_failed").await;
    new.ok(login("battery staple")).await;
    server.log_in("bob").await;
}

#[tokio::test]
async fn an_invalid_password_is_refused_with_its_field() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    for new in [String::new(), "x".repeat(1025)] {
        let change = json!({"id": 8, "cmd": "passwd", "old": PASSWORD, "new": new});
        let (code, error) = alice.error(change).await;
        assert_eq!((&*code, &error["field"]), ("bad_request", &json!("new")));
    }
    let change = json!({"cmd": "passwd", "old": PASSWORD, "new": "x".repeat(1024)});
    alice.ok(change).await;
}

#[tokio::test]
async fn a_short_new_password_is_refused_with_the_minimum_and_a_short_present_one_stays_valid() {
    let server = TestServer::start_with(|config| config.auth.min_password = 20).await;
    let mut alice = server.log_in("alice").await;
    let change = |new: &str| json!({"cmd": "passwd", "old": PASSWORD, "new": new});
    let (code, error) = alice.error(change(&"ü".repeat(19))).await;
    assert_eq!((&*code, &error["field"]), ("bad_request", &json!("new")));
    assert_eq!(
        error["message"],
        "the password is too short; choose one of at least 20 characters"
    );
    alice.ok(change(&"ü".repeat(20))).await;
    server.log_in("bob").await;
}

#[tokio::test]
async fn the_third_wrong_guess_ends_the_session() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let guess = |n: u32| json!({"cmd": "passwd", "old": format!("guess {n}"), "new": "mine alone"});
    for n in 0..3 {
        alice.fails(guess(n), "denied").await;
    }
    alice.refuses("too_many_attempts").await;
    server.log_in("alice").await;
}

#[tokio::test]
async fn guesses_by_passwd_are_throttled_like_those_by_login() {
    let server = TestServer::start().await;
    let name = "alice".parse().expect("a name");
    let token = server.accounts.add_token(&name, "", None).await;
    let login = json!({"cmd": "login", "token": token.expect("made").expose()});
    let passwd = |old: &str| json!({"cmd": "passwd", "old": old, "new": "mine alone"});
    for _ in 0..2 {
        let mut thief = server.connect().await;
        thief.ok(login.clone()).await;
        thief.fails(passwd("guess"), "denied").await;
        thief.fails(passwd("guess"), "denied").await;
    }
    let mut thief = server.connect().await;
    thief.ok(login.clone()).await;
    thief.fails(passwd("guess"), "denied").await;
    // Now even the correct password is refused, by `passwd` and by `login`.
    let (_, error) = thief.error(passwd(PASSWORD)).await;
    assert_eq!(error["code"], "too_many_attempts", "{error}");
    assert!(error["retry_after_ms"].as_u64() > Some(0), "{error}");
    thief.fails(passwd("guess"), "too_many_attempts").await;
    thief.refuses("too_many_attempts").await;
    let mut bob = server.log_in("bob").await;
    bob.ok(passwd(PASSWORD)).await;
}

#[tokio::test]
async fn passwd_is_refused_if_the_queue_of_logins_is_full() {
    let server = TestServer::start_with(|config| config.auth.waiting_logins = 0).await;
    let name = "alice".parse().expect("a name");
    let token = server.accounts.add_token(&name, "", None).await;
    let mut alice = server.connect().await;
    let login = json!({"cmd": "login", "token": token.expect("made").expose()});
    alice.ok(login).await;
    let change = json!({"cmd": "passwd", "old": PASSWORD, "new": "mine alone"});
    for _ in 0..3 {
        alice.fails(change.clone(), "limited").await;
    }
    alice.ok(json!({"cmd": "ls"})).await;
}

#[tokio::test]
async fn passwd_needs_a_login() {
    let server = TestServer::start().await;
    let mut visitor = server.connect().await;
    let change = json!({"cmd": "passwd", "old": PASSWORD, "new": "x"});
    visitor.fails(change, "not_logged_in").await;
}

#[tokio::test]
async fn the_file_with_the_first_password_is_removed_when_the_password_changes() {
    let temp_dir = tempfile::tempdir().expect("a directory");
    let data = temp_dir.path().join("data");
    let daemon = ServerProcess::start_on(&data);
    let file = data.join("admin-password");
    let password = std::fs::read_to_string(&file).expect("made up");
    let password = password.trim_end();
    let mut admin = RawClient::connect(&*daemon.address).await;
    admin
        .ok(json!({"cmd": "login", "user": "admin", "password": password}))
        .await;
    let wrong = json!({"cmd": "passwd", "old": "wrong", "new": PASSWORD});
    admin.fails(wrong, "denied").await;
    assert!(file.exists());
    admin
        .ok(json!({"cmd": "passwd", "old": password, "new": PASSWORD}))
        .await;
    assert!(!file.exists());
}

#[test]
fn the_command_line_reads_the_old_and_the_new_password_from_two_lines() {
    let daemon = ServerProcess::start();
    let url = format!("haul+plain://admin@{}", daemon.address);
    let passwd = |now: &str, input: &str| {
        let temp_dir = tempfile::tempdir().expect("a directory");
        let mut child = haul()
            .args(["passwd", "--server", &url])
            .env("HAUL_PASSWORD", now)
            .env("XDG_CONFIG_HOME", temp_dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut stdin = child.stdin.take().expect("piped");
        // A user that cannot log in can read nothing.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let done = child.wait_with_output().expect("it ends");
        let stderr = String::from_utf8(done.stderr).expect("text");
        (done.status.code().expect("no signal"), stderr)
    };
    let (code, stderr) = passwd(PASSWORD, "wrong\nbattery staple\n");
    assert_eq!(
        (code, &*stderr),
        (1, "haul: passwd: the old password is wrong\n")
    );
    let (code, stderr) = passwd(PASSWORD, &format!("{PASSWORD}\nbattery staple\n"));
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.starts_with("changed the password; "), "{stderr}");
    let (code, stderr) = passwd(PASSWORD, "");
    assert_eq!(code, 3, "{stderr}");
    let (code, stderr) = passwd("battery staple", "");
    assert_eq!(code, 1, "{stderr}");
    assert!(
        stderr.contains("there is no password on standard input"),
        "{stderr}"
    );
}
