//! The trust of the client in servers, in the library and in the program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use haul::client::{Client, ClientError, Trust};
use haul::protocol::Secret;
use haul::tls::Fingerprint;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::authority::CertificateAuthority;
use super::terminal::at_terminal;
use crate::command_line::{Person, run};
use crate::harness::{PASSWORD, TestServer};

impl TestServer {
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        let pem = self.own_certificate();
        Fingerprint::of_certificate(&CertificateDer::from_pem_slice(&pem).expect("a certificate"))
    }

    /// Replaces the self-signed certificate of the server.
    async fn change_certificate(&self) {
        fs::remove_dir_all(self.data().join("tls")).expect("removed");
        self.server.reload_tls().await.expect("made anew");
    }

    /// A user that knows only the address of the server.
    fn stranger(&self) -> Person {
        Person::for_url(format!("haul://alice@{}", self.address))
    }

    async fn certified(authority: &CertificateAuthority, names: &[&str]) -> Self {
        let (certificate, key) = authority.certify(names);
        Self::start_with(|config| {
            let directory = config.server.data.clone();
            let write = |name: &str, text: String| {
                fs::write(directory.join(name), text).expect("written");
                Some(directory.join(name))
            };
            config.tls.certificate = write("server.pem", certificate);
            config.tls.key = write("server.key", key);
        })
        .await
    }
}

impl Person {
    fn pins(&self) -> PathBuf {
        self.temp_dir.path().join("config/haul/known_servers.toml")
    }

    fn with_password(&self, args: &[&str]) -> Command {
        let mut command = self.command(args);
        command.env("HAUL_PASSWORD", PASSWORD);
        command
    }

    /// Runs the program with the password in the environment; returns the exit code and standard
    /// error.
    async fn tries(&self, args: &[&str]) -> (Option<i32>, String) {
        let (output, _) = run(self.with_password(args), "").await;
        let stderr = String::from_utf8(output.stderr).expect("text");
        (output.status.code(), stderr)
    }
}

#[tokio::test]
async fn without_a_terminal_an_unknown_server_is_refused_with_advice() {
    let server = TestServer::start().await;
    let person = server.stranger();
    let (code, stderr) = person.tries(&["connect", &person.url]).await;
    let fingerprint = server.fingerprint();
    assert_eq!((code, stderr.lines().count()), (Some(3), 1), "{stderr}");
    assert!(stderr.contains("is not known"), "{stderr}");
    let way_out = format!(
        "`haul connect --fingerprint {fingerprint} haul://alice@{}`",
        server.address
    );
    assert!(stderr.contains(&way_out), "{stderr}");
    assert!(!person.pins().exists());
}

#[tokio::test]
async fn at_a_terminal_an_unknown_server_is_confirmed_once() {
    let server = TestServer::start().await;
    let person = server.stranger();
    let refused = at_terminal(person.with_password(&["connect", &person.url]), "n\n").await;
    assert_eq!(refused.0, Some(3));
    assert!(
        refused.1.contains("is not trusted; nothing was sent"),
        "{}",
        refused.1
    );
    let (code, shown) = at_terminal(person.with_password(&["connect", &person.url]), "y\n").await;
    assert_eq!(code, Some(0), "{shown}");
    let question = format!(
        "The server at {} is not known. Its certificate's fingerprint is\n  {}\n\
         Trust it from now on? [y/N] ",
        server.address,
        server.fingerprint()
    );
    assert!(shown.contains(&question), "{shown}");
    let mode = fs::metadata(person.pins())
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let (names, stderr) = person.types(&["ls"], 0).await;
    assert_eq!((&*names, &*stderr), ("", ""));
    let (code, shown) = at_terminal(person.command(&["whoami"]), "").await;
    assert_eq!((code, &*shown), (Some(0), ""));
}

#[tokio::test]
async fn a_changed_certificate_is_refused_and_can_be_accepted_by_the_printed_command() {
    let server = TestServer::start().await;
    let person = server.stranger();
    let old = server.fingerprint().to_string();
    let connect = ["connect", "--fingerprint", &old, &person.url];
    assert_eq!(person.tries(&connect).await.0, Some(0));
    person.types(&["ls"], 0).await;
    server.change_certificate().await;
    let new = server.fingerprint().to_string();
    for command in [
        person.command(&["ls"]),
        person.with_password(&["connect", &person.url]),
    ] {
        let (code, stderr) = at_terminal(command, "y\n").await;
        assert_eq!(code, Some(3), "{stderr}");
        // The terminal wraps the command.
        let stderr = stderr.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(stderr.contains("HAS CHANGED"), "{stderr}");
        assert!(stderr.contains(&format!("{new}, not {old}")), "{stderr}");
        assert!(
            stderr.contains(&format!("`haul connect --fingerprint {new} haul://")),
            "{stderr}"
        );
        assert!(!stderr.contains("[y/N]"), "{stderr}");
    }
    let connect = ["connect", "--fingerprint", &new, &person.url];
    assert_eq!(person.tries(&connect).await.0, Some(0));
    person.types(&["ls"], 0).await;
}

#[tokio::test]
async fn a_given_fingerprint_is_trusted_alone_and_for_one_run() {
    let server = TestServer::start().await;
    let person = server.stranger();
    let right = server.fingerprint().to_string();
    let wrong = Fingerprint::of_certificate(b"another").to_string();
    let ls = ["ls", "--server", &person.url];
    let mut command = person.with_password(&ls);
    command.env("HAUL_FINGERPRINT", &right);
    assert!(run(command, "").await.0.status.success());
    assert!(!person.pins().exists());
    let (code, stderr) = person
        .tries(&[&ls[..], &["--fingerprint", &wrong]].concat())
        .await;
    assert_eq!(code, Some(3), "{stderr}");
    let says = format!("has the fingerprint {right}, not the {wrong} that was given");
    assert!(stderr.contains(&says), "{stderr}");
    for (args, says) in [
        (["--fingerprint", "sha1:ab"], "not a fingerprint"),
        (
            [
                "--server",
                &format!("haul+plain://alice@{}", server.address),
            ],
            "write haul://",
        ),
    ] {
        let mut command = person.with_password(&[&["ls"], &args[..]].concat());
        if args[0] == "--server" {
            command.env("HAUL_FINGERPRINT", &right);
        }
        let output = run(command, "").await.0;
        let stderr = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(says), "{stderr}");
    }
}

#[tokio::test]
async fn an_authority_certifies_a_server_for_its_name_only() {
    let authority = CertificateAuthority::new();
    let server = TestServer::certified(&authority, &["localhost"]).await;
    let port = server.address.port();
    let person = Person::for_url(format!("haul://alice@localhost:{port}"));
    person.write("ca.pem", &authority.pem);
    person.write("other.pem", &CertificateAuthority::new().pem);
    let numbered = format!("haul://alice@127.0.0.1:{port}");
    for (url, ca, code, says) in [
        (&person.url, "ca.pem", 0, ""),
        (&numbered, "ca.pem", 3, "not valid for name \"127.0.0.1\""),
        (&person.url, "other.pem", 3, "UnknownIssuer"),
        (&person.url, "missing.pem", 2, "cannot read missing.pem"),
    ] {
        let stderr = person.tries(&["--server", url, "--ca", ca, "ls"]).await;
        assert_eq!(stderr.0, Some(code), "{}", stderr.1);
        assert!(stderr.1.contains(says), "{}", stderr.1);
    }
    assert!(
        !person.pins().exists(),
        "who is vouched for need not be known"
    );
    let mut command = person.with_password(&["connect", &person.url]);
    // This file replaces the authorities of the system.
    command.env("SSL_CERT_FILE", person.path("ca.pem"));
    assert!(run(command, "").await.0.status.success());
}

#[tokio::test]
async fn a_known_server_with_a_new_certificate_is_accepted_if_an_authority_certifies_it() {
    let authority = CertificateAuthority::new();
    let server = TestServer::certified(&authority, &["localhost"]).await;
    let url = format!("haul://localhost:{}", server.address.port());
    let url = url.parse().expect("an address");
    let trust = Trust::default().with_known(
        format!("localhost:{}", server.address.port()),
        Fingerprint::of_certificate(b"old"),
    );
    let error = Client::connect(&url, &trust).await.expect_err("changed");
    assert!(
        matches!(error, ClientError::ServerChanged { .. }),
        "{error}"
    );
    let trust = trust
        .with_authorities(authority.pem.as_bytes())
        .expect("one");
    Client::connect(&url, &trust).await.expect("vouched for");
}

#[tokio::test]
async fn an_expired_certificate_is_reported_as_expired() {
    let authority = CertificateAuthority::new();
    let server = TestServer::certified(&authority, &["localhost"]).await;
    let mut params = rcgen::CertificateParams::new(vec!["localhost".into()]).expect("a name");
    params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let (certificate, key) = authority.sign(&params);
    fs::write(server.data().join("server.pem"), certificate).expect("written");
    fs::write(server.data().join("server.key"), key).expect("written");
    server
        .server
        .reload_tls()
        .await
        .expect_err("for a server that has one");
    let data = server.stop().await;
    let mut config = haul::config::Config::default();
    config.server.data = data.path().to_owned();
    config.tls.certificate = Some(data.path().join("server.pem"));
    config.tls.key = Some(data.path().join("server.key"));
    let accounts = haul::accounts::Accounts::open(data.path())
        .await
        .expect("accounts");
    let store = haul::storage::Store::open(data.path()).expect("a store");
    let messages = haul::messages::Messages::open(data.path())
        .await
        .expect("messages");
    let server = haul::server::Server::new(accounts, store, messages, config);
    server.reload_tls().await.expect("better than none");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let shutdown = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { server.run(listener, shutdown).await }
    });
    let url = format!("haul://localhost:{}", address.port());
    let trust = Trust::default()
        .with_authorities(authority.pem.as_bytes())
        .expect("one");
    let error = Client::connect(&url.parse().expect("an address"), &trust).await;
    let error = error.expect_err("expired").to_string();
    assert!(error.contains("expired"), "{error}");
    shutdown.cancel();
    running.await.expect("no panic");
}

#[tokio::test]
async fn a_known_certificate_without_its_key_is_not_enough() {
    let server = TestServer::start().await;
    let known = CertificateDer::from_pem_slice(&server.own_certificate()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rcgen::KeyPair::generate().expect("a key").serialize_der();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key).expect("a key");
    let key = provider.key_provider.load_private_key(key).expect("a key");
    let stolen = SingleCertAndKey::from(CertifiedKey::new(vec![known.clone()], key));
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(stolen));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.expect("a connection");
        let accepted = TlsAcceptor::from(Arc::new(config)).accept(socket).await;
        accepted.expect_err("the client refuses");
    });
    let trust =
        Trust::default().with_known(address.to_string(), Fingerprint::of_certificate(&known));
    let url = format!("haul://{address}").parse().expect("an address");
    let error = Client::connect(&url, &trust).await.expect_err("no key");
    assert!(matches!(error, ClientError::Handshake { .. }), "{error}");
}

#[tokio::test]
async fn a_server_without_tls_is_reported_as_such() {
    for (greeting, says) in [
        (&b"SSH-2.0-OpenSSH_9.9\r\n"[..], "speaks no TLS"),
        (b"", "closed the connection"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("haul://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            // The answer of a server that has read an unknown protocol.
            let _ = socket.read(&mut [0; 4096]).await;
            socket.write_all(greeting).await.expect("open");
        });
        let error = Client::connect(&url.parse().expect("an address"), &Trust::default()).await;
        let error = anyhow::Error::new(error.expect_err("no TLS"));
        assert!(format!("{error:#}").contains(says), "{error:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_transferred_unchanged_over_tls() {
    let server = TestServer::start().await;
    let person = server.stranger();
    let fingerprint = server.fingerprint().to_string();
    let connect = ["connect", "--fingerprint", &fingerprint, &person.url];
    assert_eq!(person.tries(&connect).await.0, Some(0));
    let large = "seventeen letters".repeat(200_000);
    person.write("d/large", &large);
    for number in 0..100 {
        person.write(&format!("d/small/{number}"), &number.to_string());
    }
    person.types(&["put", "d"], 0).await;
    person.types(&["get", "d", "back"], 0).await;
    assert!(person.read("back/large") == large);
    assert_eq!(person.read("back/small/99"), "99");
    assert_eq!(
        fs::read_to_string(server.home("alice").join("d/large")).expect("stored"),
        large
    );
}

#[tokio::test]
async fn a_client_certificate_logs_in_and_its_path_is_saved() {
    let authority = CertificateAuthority::new();
    let pem = authority.pem.clone();
    let server = TestServer::start_with(|config| {
        let path = config.server.data.join("clients.pem");
        fs::write(&path, pem).expect("written");
        config.tls.client_ca = Some(path);
    })
    .await;
    let person = server.stranger();
    let (certificate, key) = authority.certify_user("alice");
    person.write("me.pem", &format!("{certificate}{key}"));
    let (certificate, key) = CertificateAuthority::new().certify_user("alice");
    person.write("other.pem", &certificate);
    person.write("other.key", &key);
    let fingerprint = server.fingerprint().to_string();
    let url = format!("haul://{}", server.address);
    let connect = [
        "connect",
        "--fingerprint",
        &fingerprint,
        "--cert",
        "me.pem",
        &url,
    ];
    person.types(&connect, 0).await;
    let (whoami, _) = person.types(&["--json", "whoami"], 0).await;
    assert!(whoami.contains(r#""user":"alice""#), "{whoami}");
    let bob = format!("haul://bob@{}", server.address);
    for (args, code, says) in [
        (
            &["--server", &*bob, "--cert", "me.pem"][..],
            3,
            "the certificate came from `--cert`",
        ),
        (
            &["--cert", "other.pem", "--key", "other.key"],
            3,
            "refused the client's certificate: UnknownCA",
        ),
        (
            &["--cert", "other.pem"],
            2,
            "other.pem: it contains no unencrypted private key",
        ),
        (
            &["--cert", "me.pem", "--key", "other.key"],
            2,
            "do not match",
        ),
        (&["--key", "other.key"], 2, "`--key` needs `--cert`"),
    ] {
        let (_, stderr) = person.types(&[&["ls"], args].concat(), code).await;
        assert!(stderr.contains(says), "{stderr}");
    }
}

#[tokio::test]
async fn the_library_reports_the_fingerprint_and_logs_in() {
    let server = TestServer::start().await;
    let url = format!("haul://{}", server.address)
        .parse()
        .expect("an address");
    let trust = Trust::default().with_only(server.fingerprint());
    let client = Client::connect(&url, &trust).await.expect("trusted");
    assert_eq!(client.fingerprint(), Some(server.fingerprint()));
    let password = Secret::new(PASSWORD.into());
    client.login("alice", &password).await.expect("logged in");
    assert_eq!(client.pwd().await.expect("answered"), "/");
}
