//! Clients in other languages, written from `docs/PROTOCOL.md` alone, against a real server.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::harness::{PASSWORD, TestServer};
use crate::requirements;

#[tokio::test]
async fn a_python_client_of_eighty_lines_puts_and_gets_files_of_every_kind() {
    let test = "a_python_client_of_eighty_lines_puts_and_gets_files_of_every_kind";
    if is_installed("python3", test) {
        put_and_get_files_of_every_kind("python3", "haul_client.py").await;
    }
}

#[tokio::test]
async fn a_node_client_of_eighty_lines_puts_and_gets_files_of_every_kind() {
    let test = "a_node_client_of_eighty_lines_puts_and_gets_files_of_every_kind";
    if is_installed("node", test) {
        put_and_get_files_of_every_kind("node", "haul_client.mjs").await;
    }
}

#[tokio::test]
async fn a_python_client_does_the_same_inside_of_tls_with_twenty_lines_more() {
    let test = "a_python_client_does_the_same_inside_of_tls_with_twenty_lines_more";
    if is_installed("python3", test) {
        put_and_get_files_of_every_kind("python3", "haul_client_tls.py").await;
    }
}

#[tokio::test]
async fn a_python_client_inside_of_tls_refuses_another_server_than_it_knows() {
    let test = "a_python_client_inside_of_tls_refuses_another_server_than_it_knows";
    if !is_installed("python3", test) {
        return;
    }
    let (server, other) = (TestServer::start().await, TestServer::start().await);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let local = directory.path().join("a");
    fs::write(&local, "content").expect("a local file");
    let fingerprint = other.fingerprint().to_string();
    let arguments = [
        &*fingerprint,
        "127.0.0.1",
        &server.address.port().to_string(),
    ];
    let output = run_with("python3", "haul_client_tls.py", &arguments, &local, "a").await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("another server answers there"), "{errors}");
    assert!(!server.home("alice").join("a").exists());
}

#[test]
fn the_clients_stay_short_enough_to_be_read() {
    for client in ["haul_client.py", "haul_client.mjs", "haul_client_tls.py"] {
        let source = fs::read_to_string(path_of(client)).expect(client);
        assert!(source.lines().count() < 80, "{client}");
    }
}

/// Whether the interpreter is installed.
fn is_installed(interpreter: &str, test: &str) -> bool {
    requirements::program(
        interpreter,
        "--version",
        &format!("foreign_clients::{test}"),
    )
}

async fn put_and_get_files_of_every_kind(interpreter: &'static str, client: &str) {
    let server = TestServer::start().await;
    let large: Vec<u8> = (0..5_000_011_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect();
    for (name, content) in [
        ("empty", &b""[..]),
        ("small.txt", b"Hello, haul!\n"),
        ("large.bin", &large),
        ("年度 报告 (final).txt", "第一行\n".as_bytes()),
    ] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let local = directory.path().join(name);
        fs::write(&local, content).expect("a local file");
        let output = run(interpreter, client, &server, &local, name).await;
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {text}{errors}");
        let shown = [format!("put /{name} {}", content.len()), name.to_owned()];
        for part in shown {
            assert!(text.contains(&part), "{part:?} is missing in {text}");
        }
        let stored = fs::read(server.home("alice").join(name)).expect("a stored file");
        let back = fs::read(directory.path().join(format!("{name}.back"))).expect("a copy");
        assert!(
            stored == content && back == content,
            "{name} has changed on the way"
        );
    }
    assert_eq!(server.staged(), 0, "nothing unfinished is left");
}

#[tokio::test]
async fn the_clients_fail_where_the_server_refuses() {
    let test = "the_clients_fail_where_the_server_refuses";
    for (interpreter, client) in [("python3", "haul_client.py"), ("node", "haul_client.mjs")] {
        if !is_installed(interpreter, test) {
            continue;
        }
        let server = TestServer::start().await;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let local = directory.path().join("a");
        fs::write(&local, vec![b'x'; 1_000_000]).expect("a local file");
        let output = run(interpreter, client, &server, &local, "no/such/directory").await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{client} must fail");
        assert!(errors.contains("not_found: no such"), "{client}: {errors}");
    }
}

/// Runs a client until it ends; a TLS client gets the fingerprint first.
async fn run(
    interpreter: &'static str,
    client: &str,
    server: &TestServer,
    local: &Path,
    remote: &str,
) -> Output {
    let mut arguments = vec![
        server.address.ip().to_string(),
        server.address.port().to_string(),
    ];
    if client == "haul_client_tls.py" {
        arguments.insert(0, server.fingerprint().to_string());
    }
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    run_with(interpreter, client, &arguments, local, remote).await
}

/// Runs a client with these first arguments, on a thread that may block.
async fn run_with(
    interpreter: &'static str,
    client: &str,
    arguments: &[&str],
    local: &Path,
    remote: &str,
) -> Output {
    let mut command = Command::new(interpreter);
    command
        .arg(path_of(client))
        .args(arguments)
        .args(["alice", PASSWORD])
        .arg(local)
        .arg(remote)
        // Do not write compiled files next to the sources.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null());
    let run = tokio::task::spawn_blocking(move || command.output());
    run.await.expect("no panic").expect("the interpreter runs")
}

fn path_of(client: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(client)
}
