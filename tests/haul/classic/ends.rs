//! The ends of a conversation: hostile frames, deadlines, limits, and the stop of the server.

use std::fs;
use std::time::Duration;

use haul::accounts::{UserChange, UserName};
use haul::config::Config;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use super::{Classic, frame};
use crate::harness::{TestServer, soon};

#[tokio::test]
async fn bytes_that_are_not_a_frame_are_refused_with_a_reason_and_the_connection_closes() {
    let server = TestServer::start().await;
    let framed = |json: &str| {
        let length = i32::try_from(json.len()).expect("short");
        [&length.to_le_bytes()[..], json.as_bytes()].concat()
    };
    for (bytes, why) in [
        (0_i32.to_le_bytes().to_vec(), "a frame of length 0"),
        ((-1_i32).to_le_bytes().to_vec(), "a frame of length -1"),
        (i32::MAX.to_le_bytes().to_vec(), "over the limit of 65280"),
        (65_281_i32.to_le_bytes().to_vec(), "over the limit of 65280"),
        (framed("hello"), "not one JSON object"),
        (framed("[]"), "not one JSON object"),
        (
            framed("{\"cmd\":\"ls\",\"cmd\":\"ls\"}"),
            "not one JSON object",
        ),
        (framed("{\"size\":9007199254740992}"), "below 2^53"),
        (framed("{\"size\":1.5}"), "below 2^53"),
    ] {
        let mut client = server.log_in_classic("alice").await;
        client.send(&bytes).await;
        let last = client.final_message().await.expect("a reason");
        assert!(last.contains(why), "{why}: {last}");
    }
    let mut stranger = server.connect_classic().await;
    stranger.send(&4000_i32.to_le_bytes()).await;
    let last = stranger.final_message().await.expect("a reason");
    assert!(last.contains("over the limit of 3840"), "{last}");
}

#[tokio::test]
async fn an_incomplete_frame_ends_the_connection_at_its_deadline() {
    let server = TestServer::start_with(|config| {
        config.limits.frame_timeout = Duration::from_millis(500);
        config.limits.frame_timeout_before_login = Duration::from_millis(500);
    })
    .await;
    let mut stranger = server.connect_classic().await;
    stranger.send(&frame(&json!({"cmd": "help"}))[..9]).await;
    let last = stranger.final_message().await.expect("a reason");
    assert!(last.contains("not complete within"), "{last}");
    let mut member = server.log_in_classic("alice").await;
    member.send(&frame(&json!({"cmd": "ls"}))[..2]).await;
    let last = member.final_message().await.expect("a reason");
    assert!(last.contains("not complete within"), "{last}");
}

#[tokio::test]
async fn the_login_deadline_applies_while_a_body_is_discarded() {
    let server = TestServer::start_with(|config| {
        config.limits.login_timeout = Duration::from_millis(1500);
    })
    .await;
    let mut client = server.connect_classic().await;
    let put = json!({"cmd": "put a", "size": (1_u64 << 53) - 1});
    client.send(&frame(&put)).await;
    let (mut reader, mut writer) = tokio::io::split(client.stream);
    let trickle = tokio::spawn(async move {
        while writer.write_all(&[0; 100]).await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    });
    let mut client = Classic {
        stream: tokio::io::join(&mut reader, tokio::io::sink()),
    };
    let last = client.next().await.expect("a reason");
    assert_eq!(last["res"], "no login within the time for it");
    trickle.await.expect("it is cut off");
}

#[tokio::test]
async fn a_stalled_body_is_idle_and_a_moving_one_is_not() {
    let server = TestServer::start_with(|config| {
        config.limits.idle_timeout = Some(Duration::from_secs(1));
    })
    .await;
    let mut stalled = Vec::new();
    for cmd in ["put a", "ls"] {
        let mut client = server.log_in_classic("alice").await;
        client.send(&frame(&json!({"cmd": cmd, "size": 9}))).await;
        client.send(b"half").await;
        stalled.push(client);
    }
    let mut slow = server.log_in_classic("alice").await;
    slow.send(&frame(&json!({"cmd": "ls", "size": 20}))).await;
    for _ in 0..20 {
        sleep(Duration::from_millis(100)).await;
        slow.send(b"x").await;
    }
    assert_eq!(slow.res().await, "the directory is empty");
    for mut client in stalled {
        let last = client.final_message().await.expect("a reason");
        assert_eq!(last, "goodbye, the session was idle for too long");
    }
    assert_eq!(server.staged(), 0);
}

#[tokio::test]
async fn wrong_passwords_are_throttled_and_end_the_connection() {
    let server = TestServer::start_with(|config| {
        config.auth.attempts_per_connection = 3;
    })
    .await;
    let mut client = server.connect_classic().await;
    for _ in 0..3 {
        let res = client.order("login alice wrong").await;
        assert!(res.starts_with("wrong user name or password"), "{res}");
    }
    let last = client.final_message().await.expect("a reason");
    assert_eq!(last, "3 logins failed on this connection");
}

#[tokio::test]
async fn too_many_requests_of_any_kind_before_a_login_end_the_connection() {
    let server = TestServer::start_with(|config| config.limits.frames_before_login = 4).await;
    for line in ["help", "frobnicate", "", "register x y", "put a"] {
        let mut client = server.connect_classic().await;
        for _ in 0..4 {
            assert!(!client.order(line).await.is_empty());
        }
        client.send(&frame(&json!({"cmd": line}))).await;
        let last = client.final_message().await.expect("a reason");
        assert!(last.contains("more than 4 frames"), "{line}: {last}");
    }
}

#[tokio::test]
async fn a_disabled_account_ends_its_session() {
    let server = TestServer::start().await;
    let mut client = server.log_in_classic("alice").await;
    let alice: UserName = "alice".parse().expect("a name");
    let disabled = UserChange {
        disabled: Some(true),
        ..UserChange::default()
    };
    let changed = server.accounts.set_user(&alice, disabled).await;
    changed.expect("changed");
    let last = client.final_message().await.expect("a reason");
    assert_eq!(last, "goodbye, the account is closed");
}

#[tokio::test]
async fn a_stopping_server_lets_transfers_end_and_says_why_it_closes() {
    let server = TestServer::start().await;
    let mut idle = server.log_in_classic("alice").await;
    let mut stranger = server.connect_classic().await;
    stranger.order("help").await;
    let mut busy = server.log_in_classic("alice").await;
    let content = vec![5; 400_000];
    busy.send(&frame(&json!({"cmd": "put a", "size": content.len()})))
        .await;
    busy.send(&content[..200_000]).await;
    soon("an upload under way", async || {
        (server.staged() == 1).then_some(())
    })
    .await;
    server.begin_shutdown();
    let goodbye = Some("goodbye, the server is stopping".to_owned());
    assert_eq!(idle.final_message().await, goodbye);
    assert_eq!(stranger.final_message().await, goodbye);
    busy.send(&content[200_000..]).await;
    assert!(busy.res().await.starts_with("stored /a, 400000"));
    assert_eq!(busy.final_message().await, goodbye);
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_closes_its_sending_half_still_gets_its_answers() {
    let server = TestServer::start().await;
    let mut client = server.log_in_classic("alice").await;
    client.put("a", b"abc").await;
    let orders = [json!({"cmd": "get a"}), json!({"cmd": "pwd"})];
    client
        .send(&orders.map(|order| frame(&order)).concat())
        .await;
    client.stream.shutdown().await.expect("half closed");
    let head = client.next().await.expect("a reply");
    assert_eq!(client.body(&head).await, b"abc");
    assert_eq!(client.res().await, "/");
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn the_hash_for_a_disconnected_client_is_cancelled() {
    let server = TestServer::start_with(|config| config.limits.hashing = 1).await;
    let mut client = server.log_in_classic("alice").await;
    client.put("a", b"abc").await;
    let file = fs::File::create(server.home("alice").join("large")).expect("made");
    file.set_len(1 << 40).expect("sparse");
    client.send(&frame(&json!({"cmd": "hash large"}))).await;
    client.stream.shutdown().await.expect("half closed");
    // The hash would take an hour.
    assert_eq!(client.final_message().await.as_deref(), Some("cancelled"));
    let mut client = server.log_in_classic("alice").await;
    assert_eq!(client.order("hash a").await, super::md5(b"abc"));
}

/// Allows one session, and any number of login attempts.
fn one_session_at_a_time(config: &mut Config) {
    config.limits.sessions_per_user = 1;
    config.limits.frames_before_login = 1_000_000;
    config.limits.login_timeout = Duration::from_mins(1);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_disconnected() {
    let server = TestServer::start_with(|config| {
        config.limits.write_timeout = Duration::from_millis(300);
        one_session_at_a_time(config);
    })
    .await;
    let mut client = server.log_in_classic("alice").await;
    client.put("a", b"").await;
    let file = fs::File::create(server.home("alice").join("large")).expect("made");
    file.set_len(100 << 20).expect("sparse");
    client.send(&frame(&json!({"cmd": "get large"}))).await;
    let mut other = server.connect_classic().await;
    let login = json!({"cmd": "login", "user": "alice", "psd": crate::harness::PASSWORD});
    soon("a free seat", async || {
        let res = other.ask(login.clone()).await;
        res.starts_with("logged in").then_some(())
    })
    .await;
    let mut rest = Vec::new();
    let _ = client.stream.read_to_end(&mut rest).await;
    assert!(rest.len() < 100 << 20);
}

#[tokio::test]
async fn the_end_of_a_classic_session_frees_its_permit() {
    let server = TestServer::start_with(one_session_at_a_time).await;
    for _ in 0..3 {
        let client = server.log_in_classic("alice").await;
        let mut other = server.connect_classic().await;
        let login = json!({"cmd": "login", "user": "alice", "psd": crate::harness::PASSWORD});
        let res = other.ask(login.clone()).await;
        assert!(res.starts_with("you have 1 session"), "{res}");
        drop(client);
        soon("a free seat", async || {
            let res = other.ask(login.clone()).await;
            res.starts_with("logged in").then_some(())
        })
        .await;
        assert_eq!(other.order("quit").await, "goodbye");
        assert_eq!(other.next().await, None);
    }
}
