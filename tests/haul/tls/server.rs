//! The server's handling of TLS and plain connections on its port.

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use haul::config::Config;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::authority::CertificateAuthority;
use super::trusting;
use crate::daemon::ServerProcess;
use crate::harness::{PASSWORD, RawClient, Received, TestServer, control, data, soon};
use crate::requirements;

/// The head of a record that holds a `ClientHello` of 512 bytes.
const HELLO: [u8; 9] = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc];

#[tokio::test]
async fn a_file_is_transferred_unchanged_inside_tls() {
    let server = TestServer::start().await;
    let mut client = server.log_in_tls("alice").await;
    let content: Vec<u8> = (0..3_000_017_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect();
    let stored = client.put("a", &content).await;
    let (back, reply) = client.get(json!({"cmd": "get", "path": "a"})).await;
    assert!(back == content, "other bytes came back");
    assert_eq!(reply["ok"]["digest"], stored["ok"]["digest"]);
    assert_eq!(
        fs::read(server.home("alice").join("a")).expect("stored"),
        content
    );
}

#[tokio::test]
async fn after_quit_the_server_sends_close_notify() {
    let server = TestServer::start().await;
    let mut client = server.connect_tls().await;
    client.ok(json!({"cmd": "quit"})).await;
    // Without `close_notify` the read would fail.
    assert_eq!(client.stream.read(&mut [0]).await.expect("a sound end"), 0);
}

#[tokio::test]
async fn tls_within_tls_and_junk_within_tls_are_closed() {
    let server = TestServer::start().await;
    for junk in [&HELLO[..], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut client = server.connect_tls().await;
        client.send_bytes(junk).await;
        assert_eq!(client.receive().await, Received::Closed);
    }
}

#[tokio::test]
async fn an_upload_that_ends_without_close_notify_commits_nothing() {
    let server = TestServer::start().await;
    for size in [json!(6), json!(null)] {
        let mut client = server.log_in_tls("alice").await;
        client
            .send(json!({"id": 7, "cmd": "put", "path": "f", "size": size}))
            .await;
        client.send_bytes(&data(7, b"abcdef")).await;
        assert!(client.reply().await["begin"].is_object());
        let (mut socket, _) = client.stream.into_inner();
        socket.shutdown().await.expect("open");
        soon("nothing staged", async || {
            (server.staged() == 0).then_some(())
        })
        .await;
        assert!(!server.home("alice").join("f").exists());
    }
}

#[tokio::test]
async fn a_garbage_handshake_is_closed_and_other_sessions_continue() {
    let server = TestServer::start().await;
    let mut other = server.log_in_tls("bob").await;
    for garbage in [
        &b"\x16GARBAGE GARBAGE GARBAGE"[..],
        b"\x16\x03\x01\x00\x00\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\xff\xff",
        &[0x16; 4096],
        &[&HELLO[..5], &[0; 512]].concat(),
    ] {
        let mut client = server.connect().await;
        client.send_bytes(garbage).await;
        let mut alert = Vec::new();
        let read = client.stream.read_to_end(&mut alert).await;
        // An alert, if the bytes look like TLS to the server.
        assert!(
            read.is_err() || matches!(alert[..], [] | [0x15, ..]),
            "{alert:?}"
        );
    }
    other.ok(json!({"cmd": "ping"})).await;
}

#[tokio::test]
async fn an_incomplete_handshake_is_closed_at_the_deadline_and_delays_no_other() {
    let server = TestServer::start_with(|config| {
        config.limits.handshake_timeout = Duration::from_millis(300);
        config.limits.login_timeout = Duration::from_hours(1);
    })
    .await;
    let mut silent = server.connect().await;
    silent.send_bytes(&HELLO).await;
    let mut other = server.log_in_tls("alice").await;
    other.ok(json!({"cmd": "ping"})).await;
    assert_eq!(silent.receive().await, Received::Closed);
    other.ok(json!({"cmd": "ping"})).await;
}

#[tokio::test]
async fn a_silent_connection_after_the_handshake_ends_at_the_login_deadline() {
    let server = TestServer::start_with(|config| {
        config.limits.login_timeout = Duration::from_millis(500);
    })
    .await;
    let mut silent = server.connect_tls().await;
    assert_eq!(silent.receive().await, Received::Closed);
}

/// Whether `openssl` is installed; on CI it must be.
fn openssl_is_installed(test: &str) -> bool {
    requirements::program("openssl", "version", &format!("tls::server::{test}"))
}

#[tokio::test]
async fn tls_1_2_is_refused_with_an_alert_and_one_line_of_the_log() {
    if !openssl_is_installed("tls_1_2_is_refused_with_an_alert_and_one_line_of_the_log") {
        return;
    }
    let daemon = ServerProcess::start();
    let old = Command::new("openssl")
        .args(["s_client", "-tls1_2", "-connect", &daemon.address])
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    let stderr = String::from_utf8_lossy(&old.stderr).into_owned();
    assert!(stderr.contains("alert protocol version"), "{stderr}");
    let stopped = daemon.terminate();
    let lines = stopped.lines();
    let failed = |line: &&serde_json::Value| {
        line["message"] == "closed: the TLS handshake failed" && line["level"] == "info"
    };
    assert_eq!(lines.iter().filter(failed).count(), 1, "{}", stopped.log);
}

#[tokio::test]
async fn openssl_connects_by_tls_1_3_and_exchanges_frames() {
    if !openssl_is_installed("openssl_connects_by_tls_1_3_and_exchanges_frames") {
        return;
    }
    let server = TestServer::start().await;
    let mut process = Command::new("openssl")
        .args([
            "s_client",
            "-quiet",
            "-verify_return_error",
            "-verify_hostname",
            "localhost",
        ])
        .arg("-CAfile")
        .arg(server.data().join("tls/certificate.pem"))
        .args(["-connect", &server.address.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    let mut stdin = process.stdin.take().expect("piped");
    let mut stdout = process.stdout.take().expect("piped");
    let login = json!({"id": 1, "cmd": "login", "user": "alice", "password": PASSWORD});
    let quit = json!({"id": 2, "cmd": "quit"});
    let output = tokio::task::spawn_blocking(move || {
        stdin
            .write_all(&[control(&login), control(&quit)].concat())
            .expect("read");
        let mut output = Vec::new();
        stdout.read_to_end(&mut output).expect("readable");
        process.wait().expect("it ends");
        output
    });
    let output = output.await.expect("no panic");
    let output = String::from_utf8_lossy(&output);
    assert!(
        output.contains(r#"{"id":1,"ok":{"user":"alice""#),
        "{output}"
    );
    assert!(output.ends_with(r#"{"id":2,"ok":{}}"#), "{output}");
}

/// A server with certificate files that the test can replace.
async fn with_files(certificate: &(String, String)) -> TestServer {
    let (certificate, key) = certificate.clone();
    TestServer::start_with(|config: &mut Config| {
        let (first, second) = files(&config.server.data);
        fs::write(&first, certificate).expect("written");
        fs::write(&second, key).expect("written");
        (config.tls.certificate, config.tls.key) = (Some(first), Some(second));
    })
    .await
}

fn files(data: &std::path::Path) -> (std::path::PathBuf, std::path::PathBuf) {
    (data.join("server.pem"), data.join("server.key"))
}

#[tokio::test]
async fn a_new_certificate_is_used_for_new_connections_and_open_sessions_continue() {
    let (old, new) = (CertificateAuthority::new(), CertificateAuthority::new());
    let server = with_files(&old.certify(&["localhost"])).await;
    let trusts =
        |authority: &CertificateAuthority| trusting(authority.pem.as_bytes()).with_no_client_auth();
    let stream = server.handshake(trusts(&old)).await.expect("known");
    let mut open = RawClient::new(stream);
    let (certificate, key) = new.certify(&["localhost"]);
    let (first, second) = files(server.data());
    fs::write(first, certificate).expect("written");
    fs::write(second, key).expect("written");
    let before = server.handshake(trusts(&new)).await;
    before.expect_err("not before it was loaded");
    server.server.reload_tls().await.expect("sound");
    server.handshake(trusts(&new)).await.expect("the new one");
    server.handshake(trusts(&old)).await.expect_err("gone");
    open.ok(json!({"cmd": "login", "user": "alice", "password": PASSWORD}))
        .await;
}

#[tokio::test]
async fn an_invalid_new_certificate_is_refused_and_the_old_one_remains() {
    let authority = CertificateAuthority::new();
    let server = with_files(&authority.certify(&["localhost"])).await;
    let (first, second) = files(server.data());
    let good = (
        fs::read(&first).expect("there"),
        fs::read(&second).expect("there"),
    );
    let mut expired = rcgen::CertificateParams::new(vec!["localhost".into()]).expect("a name");
    expired.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let expired = authority.sign(&expired);
    let other = authority.certify(&["localhost"]);
    for (certificate, key, says) in [
        (other.0.as_bytes(), &*good.1, "cannot be used with the key"),
        (b"garbage", &*good.1, "it contains no certificate"),
        (&*good.0, b"", "it contains no unencrypted private key"),
        (
            expired.0.as_bytes(),
            expired.1.as_bytes(),
            "expired at 2001",
        ),
    ] {
        fs::write(&first, certificate).expect("written");
        fs::write(&second, key).expect("written");
        let error = server.server.reload_tls().await.expect_err(says);
        assert!(error.to_string().contains(says), "{error}");
        let config = trusting(authority.pem.as_bytes()).with_no_client_auth();
        server.handshake(config).await.expect("the old one");
    }
    fs::remove_file(&first).expect("removed");
    let error = server.server.reload_tls().await.expect_err("gone");
    assert!(error.to_string().starts_with("cannot read"), "{error}");
}

#[tokio::test]
async fn a_restarted_server_presents_the_same_certificate() {
    let temp_dir = tempfile::tempdir().expect("a directory");
    let data = temp_dir.path().join("data");
    let first = ServerProcess::start_on(&data);
    let shown = first.fingerprint().to_owned();
    first.terminate();
    let second = ServerProcess::start_on(&data);
    assert_eq!(second.fingerprint(), shown);
    second.terminate();
}
