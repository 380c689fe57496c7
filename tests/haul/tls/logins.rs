//! Logging in by the certificate of a client.

use std::fs;

use haul::accounts::UserChange;
use serde_json::json;
use tokio::io::AsyncReadExt;

use super::authority::CertificateAuthority;
use super::{TlsClient, showing};
use crate::harness::{PASSWORD, RawClient, TestServer};

async fn start(authority: &CertificateAuthority) -> TestServer {
    let pem = authority.pem.clone();
    TestServer::start_with(|config| {
        let path = config.server.data.join("clients.pem");
        fs::write(&path, pem).expect("written");
        config.tls.client_ca = Some(path);
    })
    .await
}

async fn connect(server: &TestServer, (certificate, key): &(String, String)) -> TlsClient {
    let config = showing(&server.own_certificate(), certificate, key);
    RawClient::new(server.handshake(config).await.expect("a handshake"))
}

#[tokio::test]
async fn a_certificate_logs_in_the_user_that_it_names() {
    let authority = CertificateAuthority::new();
    let server = start(&authority).await;
    let certificate = authority.certify_user("alice");
    for login in [
        json!({"cmd": "login"}),
        json!({"cmd": "login", "user": "alice"}),
    ] {
        let mut client = connect(&server, &certificate).await;
        let hello = client.ok(json!({"cmd": "hello"})).await;
        assert_eq!(hello["logins"], json!(["password", "token", "certificate"]));
        assert_eq!(client.ok(login).await["user"], "alice");
        assert_eq!(client.ok(json!({"cmd": "whoami"})).await["user"], "alice");
    }
}

#[tokio::test]
async fn a_certificate_of_another_or_unknown_or_disabled_user_fails_as_a_wrong_password_does() {
    let authority = CertificateAuthority::new();
    let server = start(&authority).await;
    let alice = authority.certify_user("alice");
    let mut client = connect(&server, &alice).await;
    let wrong = json!({"cmd": "login", "user": "alice", "password": "wrong"});
    let (_, expected) = client.error(wrong).await;
    let (_, error) = client.error(json!({"cmd": "login", "user": "bob"})).await;
    assert_eq!(error, expected);
    let mut nobody = connect(&server, &authority.certify_user("nobody")).await;
    assert_eq!(nobody.error(json!({"cmd": "login"})).await.1, expected);
    let disable = UserChange {
        disabled: Some(true),
        ..UserChange::default()
    };
    let name = "alice".parse().expect("a name");
    server.accounts.set_user(&name, disable).await.expect("set");
    assert_eq!(client.error(json!({"cmd": "login"})).await.1, expected);
}

#[tokio::test]
async fn a_client_with_a_certificate_can_log_in_by_password_as_another_user() {
    let authority = CertificateAuthority::new();
    let server = start(&authority).await;
    let mut client = connect(&server, &authority.certify_user("alice")).await;
    let login = json!({"cmd": "login", "user": "bob", "password": PASSWORD});
    assert_eq!(client.ok(login).await["user"], "bob");
}

#[tokio::test]
async fn a_certificate_without_a_user_name_logs_no_user_in() {
    let authority = CertificateAuthority::new();
    let server = start(&authority).await;
    let mut client = connect(&server, &authority.certify_user("../alice")).await;
    let hello = client.ok(json!({"cmd": "hello"})).await;
    assert_eq!(hello["logins"], json!(["password", "token"]));
    client.fails(json!({"cmd": "login"}), "bad_request").await;
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_ends_the_handshake() {
    let server = start(&CertificateAuthority::new()).await;
    let (certificate, key) = CertificateAuthority::new().certify_user("alice");
    let config = showing(&server.own_certificate(), &certificate, &key);
    // In TLS 1.3 the client finishes its handshake before the server has seen its certificate.
    let refused = match server.handshake(config).await {
        Ok(mut stream) => stream.read_u8().await.expect_err("an alert"),
        Err(error) => error,
    };
    assert!(refused.to_string().contains("UnknownCA"), "{refused}");
}

#[tokio::test]
async fn without_an_authority_no_client_certificate_is_requested() {
    let server = TestServer::start().await;
    let mut client = connect(&server, &CertificateAuthority::new().certify_user("alice")).await;
    client.fails(json!({"cmd": "login"}), "bad_request").await;
    client
        .ok(json!({"cmd": "login", "user": "alice", "password": PASSWORD}))
        .await;
}
