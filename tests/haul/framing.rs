//! RELIABILITY, Framing: hostile bytes end at most their own session.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};

use crate::harness::{Received, TestServer, control, data, frame};

#[tokio::test]
async fn a_frame_of_length_zero_is_refused_and_the_connection_closes() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.send_bytes(&[0; 4]).await;
    client.refuses("bad_frame").await;
}

#[tokio::test]
async fn a_length_over_the_limit_is_refused_and_the_connection_closes() {
    let server = TestServer::start().await;
    for length in [1_048_582_u32, u32::MAX] {
        let mut client = server.log_in("alice").await;
        client.send_bytes(&length.to_be_bytes()).await;
        client.refuses("bad_frame").await;
    }
}

#[tokio::test]
async fn before_login_a_control_frame_over_4_kib_is_refused() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    client.send_bytes(&4097_u32.to_be_bytes()).await;
    client.refuses("bad_frame").await;
}

#[tokio::test]
async fn a_payload_of_neither_kind_is_refused_and_the_connection_closes() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.send_bytes(&frame(b"[7]")).await;
    client.refuses("bad_frame").await;
}

#[tokio::test]
async fn a_data_frame_for_no_open_put_is_refused_and_the_connection_closes() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.send_bytes(&data(7, b"stray")).await;
    client.refuses("bad_frame").await;
    let mut visitor = server.connect().await;
    visitor.send_bytes(&data(7, b"stray")).await;
    visitor.refuses("bad_frame").await;
}

#[tokio::test]
async fn a_request_cut_off_by_the_end_of_the_stream_is_not_executed() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    let request = control(&json!({"cmd": "mkdir", "path": "half"}));
    client.send_bytes(&request[..request.len() - 1]).await;
    client.stream.shutdown().await.expect("open");
    assert_eq!(client.receive().await, Received::Closed);
    assert!(!server.home("alice").join("half").exists());
}

#[tokio::test]
async fn a_request_that_arrives_byte_by_byte_is_answered() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    for byte in control(&json!({"id": 5, "cmd": "pwd"})) {
        client.send_bytes(&[byte]).await;
    }
    assert_eq!(client.reply().await, json!({"id": 5, "ok": {"cwd": "/"}}));
}

#[tokio::test]
async fn an_endless_trickle_ends_at_the_frame_deadline() {
    let server = TestServer::start_with(|config| {
        config.limits.frame_timeout = Duration::from_millis(200);
    })
    .await;
    let mut client = server.log_in("alice").await;
    client.send_bytes(&[0, 0, 0xff, 0xff, b'{']).await;
    loop {
        tokio::select! {
            biased;
            answered = client.stream.readable() => break answered.expect("open"),
            () = sleep(Duration::from_millis(5)) => client.send_bytes(b" ").await,
        }
    }
    client.refuses("timed_out").await;
}

#[tokio::test]
async fn a_connection_without_a_login_is_closed_with_an_error_at_the_deadline() {
    let server = TestServer::start_with(|config| {
        config.limits.login_timeout = Duration::from_secs(2);
    })
    .await;
    let mut polite = server.connect().await;
    polite.ok(json!({"cmd": "hello"})).await;
    polite.refuses("timed_out").await;
    let mut silent = server.connect().await;
    assert_eq!(silent.closes().await, None);
}

#[tokio::test]
async fn a_silent_connection_does_not_delay_a_stopping_server() {
    let server = TestServer::start_with(|config| {
        config.limits.login_timeout = Duration::from_hours(1);
        config.limits.drain_timeout = Duration::from_hours(1);
    })
    .await;
    let mut silent = server.connect().await;
    let mut polite = server.connect().await;
    polite.ok(json!({"cmd": "hello"})).await;
    server.stop().await;
    assert_eq!(silent.closes().await, None);
}

#[tokio::test]
async fn a_connection_that_reads_nothing_does_not_delay_a_stopping_server() {
    let server = TestServer::start_with(|config| {
        config.limits.login_timeout = Duration::from_hours(1);
        config.limits.write_timeout = Duration::from_hours(1);
        config.limits.drain_timeout = Duration::from_millis(100);
        config.limits.frames_before_login = 1_000_000;
    })
    .await;
    let help = control(&json!({"cmd": "help"})).repeat(1000);
    let mut deaf = [server.connect().await, server.log_in("alice").await];
    for client in &mut deaf {
        // Write until the server has stopped reading.
        while let Ok(sent) = timeout(Duration::from_millis(500), client.stream.write(&help)).await {
            sent.expect("open");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_thousand_pipelined_requests_are_answered_in_order() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    let mut burst = Vec::new();
    for id in 1..=1000 {
        burst.extend(control(&json!({"id": id, "cmd": "pwd"})));
    }
    client.send_bytes(&burst).await;
    for id in 1..=1000 {
        assert_eq!(client.reply().await["id"], id);
    }
}

#[tokio::test]
async fn the_server_stops_reading_from_a_client_that_does_not_read_replies() {
    let server = TestServer::start_with(|config| {
        config.limits.write_timeout = Duration::from_millis(500);
    })
    .await;
    let mut client = server.log_in("alice").await;
    let request = control(&json!({"cmd": "help"})).repeat(100);
    let mut sent = 0_usize;
    // The server must stop reading long before it has read 256 MiB of requests, and close the
    // connection.
    while sent < 256 << 20 {
        if client.stream.write_all(&request).await.is_err() {
            break;
        }
        sent += request.len();
    }
    assert!(
        sent < 256 << 20,
        "the server read {sent} bytes of requests while nobody read its replies"
    );
}

#[tokio::test]
async fn http_and_binary_junk_are_closed_without_a_reply() {
    let server = TestServer::start().await;
    for junk in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        &[0xff; 64],
        b"\x7fELF\x02\x01\x01\0",
        b"SSH-2.0-x\r\n",
    ] {
        let mut client = server.connect().await;
        client.send_bytes(junk).await;
        assert_eq!(client.receive().await, Received::Closed, "{junk:?}");
    }
}

#[tokio::test]
async fn a_hostile_session_does_not_disturb_another() {
    let server = TestServer::start().await;
    let mut calm = server.log_in("bob").await;
    for bytes in [&[0; 4][..], &[0xff; 4], b"\0\0\0\x01x"] {
        let mut hostile = server.log_in("alice").await;
        hostile.send_bytes(bytes).await;
        hostile.refuses("bad_frame").await;
        assert_eq!(calm.ok(json!({"cmd": "pwd"})).await["cwd"], "/");
    }
}
