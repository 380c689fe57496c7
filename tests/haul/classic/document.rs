//! `docs/PROTOCOL.md` describes the classic dialect correctly.

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use super::frame;
use crate::harness::TestServer;
use crate::requirements;

const DOCUMENT: &str = include_str!("../../../docs/PROTOCOL.md");

/// The code block of this language in the section.
fn block(language: &str) -> &'static str {
    let (_, section) = DOCUMENT
        .split_once("\n## 16. The classic dialect\n")
        .expect("a section");
    let (_, rest) = section
        .split_once(&format!("```{language}\n"))
        .expect("a block");
    rest.split("```").next().expect("an end")
}

fn bytes_of_hex(text: &str) -> Vec<u8> {
    let bytes = text.trim().split(' ');
    let bytes = bytes.map(|byte| u8::from_str_radix(byte, 16));
    bytes.collect::<Result<_, _>>().expect(text)
}

#[tokio::test]
async fn the_documented_session_happens_byte_for_byte() {
    let server = TestServer::start().await;
    let mut client = server.connect_classic().await;
    let mut lines = 0;
    for line in block("classic").lines() {
        let (side, rest) = line.split_once(' ').expect("an arrow");
        let (length, payload) = rest.split_once("  ").expect("two spaces");
        let bytes = match length {
            "raw" => bytes_of_hex(payload),
            length => [bytes_of_hex(length), payload.into()].concat(),
        };
        if side == "→" {
            client.send(&bytes).await;
        } else {
            let mut sent = vec![0; bytes.len()];
            client.stream.read_exact(&mut sent).await.expect(line);
            assert_eq!(
                sent.escape_ascii().to_string(),
                bytes.escape_ascii().to_string()
            );
        }
        lines += 1;
    }
    assert!(lines > 10, "the session is read whole");
    assert_eq!(client.next().await, None, "after quit the server closes");
}

#[tokio::test]
async fn the_documented_python_example_runs() {
    if !requirements::program(
        "python3",
        "--version",
        "classic::document::the_documented_python_example_runs",
    ) {
        return;
    }
    let server = TestServer::start().await;
    let address = format!("(\"127.0.0.1\", {})", server.address.port());
    let program = block("python").replace("(\"localhost\", 9000)", &address);
    let mut python = Command::new("python3");
    python.arg("-c").arg(program).stdin(Stdio::null());
    let run = tokio::task::spawn_blocking(move || python.output());
    let output = run.await.expect("no panic").expect("python3 runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}{errors}");
    assert_eq!(lines[0], "logged in as alice; you are in /");
    assert!(lines[1].starts_with("stored /hello.txt, 13 bytes"));
    assert_eq!(lines[2], r"b'Hello, haul!\n'");
}

#[tokio::test]
async fn frames_up_to_the_documented_limit_are_accepted() {
    let server = TestServer::start().await;
    let of_length = |length: usize| -> Value {
        let empty = json!({"cmd": "help", "x": ""}).to_string().len();
        json!({"cmd": "help", "x": "x".repeat(length - empty)})
    };
    let is_documented = |length: &str| DOCUMENT.contains(length);
    assert!(is_documented("at most 65 280 bytes (before login 3 840)"));
    let mut client = server.connect_classic().await;
    assert!(client.ask(of_length(3840)).await.contains("login"));
    client.log_in("alice").await;
    assert!(client.ask(of_length(65_280)).await.contains("login"));
    client.send(&frame(&of_length(65_281))).await;
    let last = client.final_message().await.expect("a reason");
    assert!(last.contains("over the limit"), "{last}");
}

#[tokio::test]
async fn every_command_that_the_server_lists_is_in_the_table() {
    let server = TestServer::start().await;
    let help = server.connect_classic().await.order("help").await;
    let mut orders = 0;
    for line in help.lines().filter_map(|line| line.strip_prefix("  ")) {
        let order = line.split(' ').next().expect("a word");
        let forms = [format!("`{order}`"), format!("`{order} ")];
        let (_, section) = DOCUMENT.split_once("\n## 15.").expect("a section");
        assert!(forms.iter().any(|forms| section.contains(forms)), "{order}");
        orders += 1;
    }
    assert_eq!(orders, 16);
}
