//! Typed commands and their replies.

use haul::server::Peer;
use haul::storage::SpaceLimits;
use serde_json::json;

use super::{frame, md5};
use crate::harness::{PASSWORD, TestServer};

#[tokio::test]
async fn every_command_is_answered_by_a_readable_line() {
    let server = TestServer::start().await;
    let mut client = server.connect_classic().await;
    let login = format!("login alice \"{PASSWORD}\"");
    let res = client.order(&login).await;
    assert_eq!(res, "logged in as alice; you are in /");
    let stored = client.put("a b.txt", b"abc").await;
    let hash = md5(b"abc");
    assert_eq!(stored, format!("stored /a b.txt, 3 bytes, MD5 {hash}"));
    for (line, answer) in [
        ("pwd", "/"),
        ("mkdir notes", "created /notes"),
        ("cd notes", "/notes"),
        ("ls", "the directory is empty"),
        ("cd ..", "/"),
        ("ls", "             3  a b.txt\n         <dir>  notes/"),
        ("hash \"a b.txt\"", &*hash),
        ("mv \"a b.txt\" notes/c", "moved to /notes/c"),
        ("LS /notes", "             3  c"),
        ("rm notes", "the directory /notes is not empty"),
        ("rm -r notes", "removed 2 files and directories"),
        ("cd nowhere", "no such directory: /nowhere"),
        ("cd", "/"),
        ("cd ../../..", "/"),
    ] {
        assert_eq!(client.order(line).await, answer, "{line}");
    }
    let df = client.order("df").await;
    assert!(
        df.starts_with("0 B used, 0 files and directories; "),
        "{df}"
    );
    let help = client.order("help").await;
    assert!(help.contains("\n  put LOCALPATH [DIR]\n"), "{help}");
    let unknown = client.order("frobnicate").await;
    assert!(unknown.contains("help"), "{unknown}");
    assert!(client.order("").await.contains("help"));
    let escaped = client.order("\u{1b}[2J").await;
    assert!(escaped.contains("\\u{1b}[2j"), "{escaped:?}");
    for line in ["who", "say bob hello there"] {
        assert!(!client.order(line).await.is_empty(), "{line}");
    }
    assert_eq!(client.order("quit").await, "goodbye");
    assert_eq!(client.next().await, None, "the server closes");
}

#[tokio::test]
async fn before_login_other_commands_are_refused_and_their_bodies_discarded() {
    let server = TestServer::start().await;
    let mut client = server.connect_classic().await;
    let first = "log in first: login USER PASSWORD";
    for line in ["pwd", "ls", "get a", "rm a", "df", "hash a", "mkdir a"] {
        assert_eq!(client.order(line).await, first, "{line}");
    }
    let refused = client.put("a", &vec![b'{'; 300_000]).await;
    assert_eq!(refused, format!("not stored: {first}"));
    let with_body = json!({"cmd": "frobnicate", "size": 4});
    client.send(&frame(&with_body)).await;
    client.send(b"\x02\0\0\0").await;
    assert!(client.res().await.contains("unknown command"));
    assert!(client.order("help").await.contains("login USER PASSWORD"));
    client.log_in("alice").await;
    assert_eq!(client.order("ls").await, "the directory is empty");
    let again = client.order(&format!("login bob \"{PASSWORD}\"")).await;
    assert!(again.contains("already logged in as alice"), "{again}");
}

#[tokio::test]
async fn a_first_frame_of_any_length_is_recognised() {
    let server = TestServer::start().await;
    // 0x16 is the first byte of TLS; 0x0316 begins every version.
    for length in [22, 278, 790] {
        let mut client = server.connect_classic().await;
        let request = json!({"cmd": "help", "x": ""}).to_string();
        let pad = "x".repeat(length - request.len());
        let request = json!({"cmd": "help", "x": pad});
        assert_eq!(request.to_string().len(), length);
        assert!(client.ask(request).await.contains("login"), "{length}");
    }
}

#[tokio::test]
async fn requests_may_arrive_in_pieces_of_any_size() {
    let server = TestServer::start().await;
    // A pipe that holds one byte splits the stream at every byte.
    let mut client = server.pipe_classic(1, Peer::in_process());
    client.log_in("alice").await;
    assert!(client.put("a", b"abc").await.starts_with("stored /a"));
    assert_eq!(client.get("get a").await, b"abc");
    let mut client = server.connect_classic().await;
    for byte in frame(&json!({"cmd": "login", "user": "alice", "psd": PASSWORD})) {
        client.send(&[byte]).await;
    }
    assert!(client.res().await.starts_with("logged in"));
}

#[tokio::test]
async fn requests_and_bodies_may_arrive_in_one_piece() {
    let server = TestServer::start().await;
    let mut client = server.connect_classic().await;
    let requests = [
        &frame(&json!({"cmd": "login", "user": "alice", "psd": PASSWORD}))[..],
        &frame(&json!({"cmd": "put a", "size": 3})),
        b"abc",
        &frame(&json!({"cmd": "put b", "size": 0})),
        &frame(&json!({"cmd": "get a"})),
        &frame(&json!({"cmd": "pwd"})),
        &frame(&json!({"cmd": "quit"})),
    ];
    client.send(&requests.concat()).await;
    assert!(client.res().await.starts_with("logged in"));
    assert!(client.res().await.starts_with("stored /a, 3"));
    assert!(client.res().await.starts_with("stored /b, 0"));
    let head = client.next().await.expect("a reply");
    assert_eq!(client.body(&head).await, b"abc");
    assert_eq!(client.res().await, "/");
    assert_eq!(client.res().await, "goodbye");
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn the_dialect_works_inside_tls() {
    let server = TestServer::start().await;
    let stream = server.connect_tls().await.stream;
    let mut client = super::Classic { stream };
    client.log_in("alice").await;
    let content: Vec<u8> = (0..700_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    assert!(client.put("a", &content).await.starts_with("stored"));
    assert!(client.get("get a").await == content);
    assert_eq!(client.order("quit").await, "goodbye");
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn a_listing_goes_on_over_pages() {
    let server = TestServer::start().await;
    let mut client = server.log_in_classic("alice").await;
    client.put("first", b"").await;
    for n in 0..1200 {
        std::fs::write(server.home("alice").join(format!("f{n:04}")), b"").expect("made");
    }
    let listing = client.order("ls").await;
    assert_eq!(listing.lines().count(), 1201);
    assert!(listing.contains("f0000") && listing.contains("f1199"));
}

#[tokio::test]
async fn df_reports_the_usage_with_the_quota() {
    let server = TestServer::start().await;
    let limits = SpaceLimits {
        bytes: Some(2 << 20),
        files: Some(5),
    };
    server.add_user("carol", limits).await;
    let mut client = server.log_in_classic("carol").await;
    client.put("a", &vec![7; 1 << 20]).await;
    let df = client.order("df").await;
    assert!(
        df.starts_with("1.0 MiB of 2.0 MiB used, 1 of 5 files and directories; "),
        "{df}"
    );
}
