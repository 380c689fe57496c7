//! haul's client library and the documented example.

use haul::client::{Client, Trust};
use haul::protocol::{ErrorCode, Secret};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::datagrams::{PATIENCE, next_event};
use crate::harness::{PASSWORD, TestServer};
use crate::requirements;

#[tokio::test]
async fn the_documented_python_example_sends_a_message() {
    let test = "datagrams::clients::the_documented_python_example_sends_a_message";
    if !requirements::program("python3", "--version", test) {
        return;
    }
    let document = include_str!("../../../docs/PROTOCOL.md");
    let blocks = document.split("```python\n").skip(1);
    let mut examples = blocks.filter_map(|rest| rest.split("```").next());
    let example = examples.find(|block| block.contains("hmac"));
    let example = example.expect("an example");
    let server = TestServer::start().await;
    let mut bob = server.log_in("bob").await;
    let mut command = std::process::Command::new("python3");
    command
        .args(["-c", example, "127.0.0.1"])
        .arg(server.address.port().to_string())
        .args(["alice", PASSWORD, "bob", "hello"]);
    let run = tokio::task::spawn_blocking(move || command.output());
    let output = timeout(PATIENCE, run).await.expect("it ends");
    let output = output.expect("no panic").expect("python runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    let reply: Value = serde_json::from_slice(&output.stdout).expect(&errors);
    let event = next_event(&mut bob).await;
    assert_eq!(
        (&event["from"], &event["text"]),
        (&json!("alice"), &json!("hello"))
    );
    assert_eq!(event["seq"], reply["ok"]["seq"]);
    server.stop().await;
}

#[tokio::test]
async fn the_client_sends_datagrams_with_and_without_tls() {
    let server = TestServer::start().await;
    let mut bob = server.log_in("bob").await;
    let plain = format!("haul+plain://{}", server.address);
    let secure = format!("haul://{}", server.address);
    let trust = Trust::default().with_only(server.fingerprint());
    for url in [plain, secure] {
        let url = url.parse().expect("an address");
        let client = Client::connect(&url, &trust).await.expect("it listens");
        let password = Secret::new(PASSWORD.into());
        client.login("alice", &password).await.expect("let in");
        let mut datagrams = client.datagrams().await.expect("a ticket");
        let reply = datagrams.say("bob", "hello").await.expect("sent");
        assert_eq!(next_event(&mut bob).await["seq"], reply.seq);
        let users = datagrams.who().await.expect("listed").users;
        assert_eq!(users.len(), 2);
        let error = datagrams.say("nobody", "hello").await;
        let error = error.expect_err("there is no such user");
        assert_eq!(error.code(), Some(ErrorCode::NotFound));
        client.quit().await.expect("gone");
    }
    server.stop().await;
}
