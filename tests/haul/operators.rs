//! The commands of operators over the wire, as users with the admin right.

use std::process::Stdio;
use std::time::Duration;

use haul::storage::SpaceLimits;
use serde_json::{Value, json};

use crate::daemon::{ServerProcess, haul, operate};
use crate::harness::{PASSWORD, RawClient, TestServer, control, data as data_frame, soon};

#[tokio::test]
async fn an_operator_sees_the_sessions_and_the_progress_of_their_transfers() {
    let server = TestServer::start().await;
    server.add_admin("root").await;
    let mut alice = server.log_in("alice").await;
    let mut burst = control(&json!({"id": 7, "cmd": "put", "path": "a.bin", "size": 500_000}));
    burst.extend(data_frame(7, &vec![7; 200_000]));
    alice.send_bytes(&burst).await;
    let mut root = server.log_in("root").await;
    let session = soon("the put is seen half done", async || {
        let reply = root.ok(json!({"cmd": "sessions"})).await;
        let session = reply["sessions"][0].clone();
        (session["transfers"][0]["offset"] == 200_000).then_some(session)
    })
    .await;
    assert_eq!(session["user"], "alice");
    assert_eq!(session["secure"], false);
    assert_eq!(session["dialect"], "framed");
    assert_eq!(session["running"], 1);
    let transfer = &session["transfers"][0];
    assert_eq!(transfer["id"], 7);
    assert_eq!(transfer["cmd"], "put");
    assert_eq!(transfer["path"], "/a.bin");
    assert_eq!(transfer["size"], 500_000);
    assert_eq!(transfer["moved"], 200_000);
    assert!(transfer["rate"].as_u64() > Some(0), "{transfer}");
    assert_eq!(server.server.traffic(), (200_000, 0));
    let first = root.ok(json!({"cmd": "sessions", "limit": 1})).await;
    assert_eq!(first["sessions"][0]["user"], "alice");
    let next = json!({"cmd": "sessions", "limit": 1, "cursor": first["cursor"]});
    let second = root.ok(next).await;
    assert_eq!(second["sessions"][0]["user"], "root");
    assert!(second.get("cursor").is_none(), "{second}");
    root.fails(
        json!({"cmd": "sessions", "cursor": "elsewhere"}),
        "bad_request",
    )
    .await;
    drop(alice);
    soon("a session that has ended is not there", async || {
        (server.server.session_count() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn transfers_of_the_longest_paths_hide_no_session() {
    let server = TestServer::start().await;
    server.add_admin("root").await;
    // Each quote needs two characters in JSON.
    let deep = format!("{}/", "\"".repeat(250)).repeat(16);
    let mut others = Vec::new();
    for _ in 0..2 {
        let mut alice = server.log_in("alice").await;
        for id in 1..=8 {
            let path = format!("{deep}{id}");
            alice
                .send(json!({"id": id, "cmd": "put", "path": path, "parents": true, "size": 9_000_000}))
                .await;
            assert!(alice.reply().await["begin"].is_object());
        }
        others.push(alice);
    }
    let url = format!("haul+plain://root@{}", server.address);
    let asking = tokio::task::spawn_blocking(move || {
        let mut command = haul();
        command.args(["admin", "sessions", "--json", "--server", &url]);
        command
            .env("HAUL_PASSWORD", PASSWORD)
            .output()
            .expect("it runs")
    });
    let output = asking.await.expect("no panic");
    let text = String::from_utf8(output.stdout).expect("text");
    let sessions: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let users: Vec<_> = sessions
        .iter()
        .map(|session| session["user"].clone())
        .collect();
    assert_eq!(json!(users), json!(["alice", "alice", "root"]));
    assert_eq!(sessions[0]["running"], 8);
}

#[tokio::test]
async fn without_the_admin_right_the_commands_are_denied() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    for request in [
        json!({"cmd": "sessions"}),
        json!({"cmd": "users"}),
        json!({"cmd": "kick", "user": "bob"}),
        json!({"cmd": "reload"}),
        json!({"cmd": "drain"}),
    ] {
        alice.fails(request, "denied").await;
    }
}

#[tokio::test]
async fn a_kicked_session_gets_a_goodbye_and_its_partial_uploads_are_kept() {
    let server = TestServer::start().await;
    server.add_admin("root").await;
    let mut alice = server.log_in("alice").await;
    let put = json!({"id": 7, "cmd": "put", "path": "a.bin", "size": 500_000});
    let mut burst = control(&put);
    burst.extend(data_frame(7, &vec![7; 200_000]));
    alice.send_bytes(&burst).await;
    assert!(alice.reply().await["begin"].is_object());
    soon("all is written that came", async || {
        (server.server.traffic() == (200_000, 0)).then_some(())
    })
    .await;
    let mut root = server.log_in("root").await;
    root.fails(json!({"cmd": "kick", "user": "nobody"}), "not_found")
        .await;
    root.fails(json!({"cmd": "kick", "user": "root"}), "not_found")
        .await;
    root.fails(json!({"cmd": "kick"}), "bad_request").await;
    let sessions = root.ok(json!({"cmd": "sessions"})).await;
    let of = |index: usize| sessions["sessions"][index]["session"].clone();
    root.fails(json!({"cmd": "kick", "session": of(1)}), "bad_request")
        .await;
    let kicked = root.ok(json!({"cmd": "kick", "session": of(0)})).await;
    assert_eq!(kicked, json!({"kicked": 1}));
    let goodbye = alice.closes().await.expect("a last word");
    assert_eq!(goodbye, json!({"event": "goodbye", "reason": "kicked"}));
    let mut again = server.log_in("alice").await;
    let uploads = again.ok(json!({"cmd": "uploads"})).await;
    assert_eq!(uploads["uploads"][0]["path"], "/a.bin");
}

#[tokio::test]
async fn a_kicked_client_does_not_reconnect() {
    let server = TestServer::start_with(|config| {
        config.limits.bandwidth_per_user = Some(64 * 1024);
    })
    .await;
    server.add_admin("root").await;
    let temp_dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir_all(server.home("alice")).expect("a home");
    std::fs::write(server.home("alice").join("big"), vec![7; 4 << 20]).expect("written");
    let getting = haul()
        .args(["get", "big", "--server"])
        .arg(format!("haul+plain://alice@{}", server.address))
        .env("HAUL_PASSWORD", PASSWORD)
        .current_dir(&temp_dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut root = server.log_in("root").await;
    soon("the transfer is on its way", async || {
        let reply = root.ok(json!({"cmd": "sessions"})).await;
        let sessions = reply["sessions"].as_array().cloned().unwrap_or_default();
        let is_moving = |session: &Value| session["transfers"][0]["moved"].as_u64() > Some(0);
        sessions.iter().any(is_moving).then_some(())
    })
    .await;
    root.ok(json!({"cmd": "kick", "user": "alice"})).await;
    let waiting = tokio::task::spawn_blocking(|| getting.wait_with_output());
    let output = waiting.await.expect("no panic").expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("an operator of the server has ended the session"),
        "{stderr}"
    );
}

#[tokio::test]
async fn an_operator_previews_and_applies_changed_settings() {
    let temp_dir = tempfile::tempdir().expect("a directory");
    let (data, file) = (
        temp_dir.path().join("data"),
        temp_dir.path().join("haul.toml"),
    );
    std::fs::write(&file, "").expect("written");
    let config = file.display().to_string();
    let daemon = ServerProcess::start_on_with(&data, &[("HAUL_CONFIG", &config)]);
    operate(&data, "user add root --admin", "correct horse\n");
    let mut root = RawClient::connect(&*daemon.address).await;
    root.ok(json!({"cmd": "login", "user": "root", "password": PASSWORD}))
        .await;
    let write = |text: &str| std::fs::write(&file, text).expect("written");
    write("limits.transfers = 3\nserver.datagrams = false\n");
    let expected = json!({
        "changed": [{"setting": "limits.transfers", "from": "16", "to": "3"}],
        "needs_restart": [{"setting": "server.datagrams", "from": "true", "to": "false"}],
    });
    let dry = json!({"cmd": "reload", "dry_run": true});
    assert_eq!(root.ok(dry.clone()).await, expected);
    assert_eq!(root.ok(dry.clone()).await, expected, "nothing has changed");
    assert_eq!(root.ok(json!({"cmd": "reload"})).await, expected);
    let after = root.ok(dry).await;
    assert_eq!(after["changed"], json!([]));
    write("limits.transfers = 0\n");
    let refused = root.ok(json!({"cmd": "reload"})).await;
    let why = refused["refused"].as_str().expect("a reason");
    assert!(why.contains("limits.transfers"), "{why}");
    write("limits.transfers = 5\n");
    let run = |arguments: &[&str]| {
        let output = haul()
            .args(arguments)
            .args(["--server", &format!("haul+plain://root@{}", daemon.address)])
            .env("HAUL_PASSWORD", PASSWORD)
            .output()
            .expect("it runs");
        let code = output.status.code().expect("no signal");
        (code, String::from_utf8(output.stdout).expect("text"))
    };
    let shown = run(&["admin", "reload", "--dry-run"]);
    let line = "limits.transfers: 3 -> 5\nserver.datagrams: true -> false (after a restart)\n";
    // Without the removed line, the setting has its previous value.
    assert_eq!(
        shown,
        (0, line.lines().next().expect("one").to_owned() + "\n")
    );
    write("limits.transfer = 5\n");
    assert_eq!(run(&["admin", "reload"]).0, 1);
}

#[tokio::test]
async fn an_operator_drains_a_server_and_running_transfers_may_end() {
    let temp_dir = tempfile::tempdir().expect("a directory");
    let data = temp_dir.path().join("data");
    let daemon = ServerProcess::start_on(&data);
    operate(&data, "user add root --admin", "correct horse\n");
    let mut root = RawClient::connect(&*daemon.address).await;
    root.ok(json!({"cmd": "login", "user": "root", "password": PASSWORD}))
        .await;
    let mut put = control(&json!({"id": 7, "cmd": "put", "path": "a", "size": 200_000}));
    put.extend(data_frame(7, &vec![7; 100_000]));
    root.send_bytes(&put).await;
    assert!(root.reply().await["begin"].is_object());
    let drained = root.ok(json!({"cmd": "drain"})).await;
    assert_eq!(drained["sessions"], 1);
    assert_eq!(root.event().await["reason"], "shutting_down");
    let mut rest = data_frame(7, &vec![7; 100_000]);
    rest.extend(control(&json!({"id": 7, "cmd": "end"})));
    root.send_bytes(&rest).await;
    assert_eq!(root.final_reply(7).await["ok"]["size"], 200_000);
    let stopped = daemon.stopped();
    assert_eq!(stopped.code, Some(0));
}

#[tokio::test]
async fn an_operator_sets_the_timeout_of_a_drain() {
    let server = TestServer::start_with(|config| {
        config.limits.drain_timeout = Duration::from_hours(1);
    })
    .await;
    server.add_admin("root").await;
    let mut alice = server.log_in("alice").await;
    alice
        .send(json!({"id": 7, "cmd": "put", "path": "a", "size": 9}))
        .await;
    assert!(alice.reply().await["begin"].is_object());
    let mut root = server.log_in("root").await;
    let drained = root.ok(json!({"cmd": "drain", "seconds": 0})).await;
    assert_eq!(drained, json!({"sessions": 2, "within_ms": 0}));
    assert_eq!(alice.event().await["reason"], "shutting_down");
    // The setting alone would let it wait for an hour.
    server.stop().await;
}

#[tokio::test]
async fn an_operator_lists_the_accounts_page_by_page() {
    let server = TestServer::start().await;
    server.add_admin("root").await;
    let limits = SpaceLimits {
        bytes: Some(1 << 20),
        files: None,
    };
    server.add_user("carol", limits).await;
    let mut carol = server.log_in("carol").await;
    carol.put("a", b"hello").await;
    let mut root = server.log_in("root").await;
    let all = root.ok(json!({"cmd": "users"})).await;
    let users = all["users"].as_array().expect("a list");
    let names: Vec<_> = users.iter().map(|user| user["user"].clone()).collect();
    assert_eq!(json!(names), json!(["alice", "bob", "carol", "root"]));
    assert_eq!(users[2]["sessions"], 1);
    assert_eq!(
        (&users[2]["used"], &users[2]["limit"]),
        (&json!(5), &json!(1 << 20))
    );
    assert_eq!(users[1]["sessions"], 0);
    assert_eq!(users[1]["admin"], false);
    assert_eq!(users[3]["admin"], true);
    let first = root.ok(json!({"cmd": "users", "limit": 3})).await;
    let next = json!({"cmd": "users", "limit": 3, "cursor": first["cursor"]});
    let second = root.ok(next).await;
    assert_eq!(second["users"][0]["user"], "root");
    assert!(second.get("cursor").is_none(), "{second}");
}

#[tokio::test]
async fn the_admin_right_can_change_while_a_session_is_open() {
    let temp_dir = tempfile::tempdir().expect("a directory");
    let data = temp_dir.path().join("data");
    let daemon = ServerProcess::start_on(&data);
    operate(&data, "user add alice", "correct horse\n");
    let mut alice = RawClient::connect(&*daemon.address).await;
    alice
        .ok(json!({"cmd": "login", "user": "alice", "password": PASSWORD}))
        .await;
    alice.fails(json!({"cmd": "sessions"}), "denied").await;
    operate(&data, "user set alice --admin", "");
    soon("the right is there", async || {
        let who = alice.ok(json!({"cmd": "whoami"})).await;
        (who["admin"] == true).then_some(())
    })
    .await;
    alice.ok(json!({"cmd": "sessions"})).await;
    operate(&data, "user set alice --no-admin", "");
    soon("the right is gone", async || {
        let who = alice.ok(json!({"cmd": "whoami"})).await;
        (who["admin"] == false).then_some(())
    })
    .await;
    alice.fails(json!({"cmd": "sessions"}), "denied").await;
}
