//! Uploads and downloads as raw bytes after a frame.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use haul::accounts::{FolderName, UserName};
use haul::storage::SpaceLimits;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use super::{Classic, frame, md5};
use crate::harness::{TestServer, soon};

#[tokio::test]
async fn an_upload_without_bytes_makes_an_empty_file() {
    let server = TestServer::start().await;
    let mut client = server.log_in_classic("alice").await;
    for (name, size) in [
        ("zero", json!(0)),
        ("null", Value::Null),
        ("text", json!("")),
        ("negative", json!(-1)),
    ] {
        let put = json!({"cmd": "put x", "filename": name, "size": size});
        let res = client.ask(put).await;
        assert!(res.starts_with(&format!("stored /{name}, 0")), "{res}");
    }
    client.ask(json!({"cmd": "put missing"})).await;
    for name in ["zero", "null", "text", "negative", "missing"] {
        assert_eq!(client.get(&format!("get {name}")).await, b"", "{name}");
        assert!(server.home("alice").join(name).exists());
    }
}

#[tokio::test]
async fn the_fields_name_the_target_of_an_upload_and_of_a_download() {
    let server = TestServer::start().await;
    let mut client = server.log_in_classic("alice").await;
    client.order("mkdir \"我的 文件\"").await;
    let put = json!({
        "cmd": "put \"/home/小明/年度 报告.txt\" \"我的 文件\"", "filename": "年度 报告.txt",
        "src_dir": "/home/小明", "dst_dir": "我的 文件", "size": 6, "file_hash": md5("第一".as_bytes()),
        "user": "alice", "psd": null,
    });
    client.send(&frame(&put)).await;
    client.send("第一".as_bytes()).await;
    let res = client.res().await;
    assert!(
        res.starts_with("stored /我的 文件/年度 报告.txt, 6"),
        "{res}"
    );
    client.order("cd \"我的 文件\"").await;
    let get = json!({"cmd": "get \"年度 报告.txt\" /tmp/here", "dst_dir": 0, "size": 0});
    client.send(&frame(&get)).await;
    let head = client.next().await.expect("a reply");
    assert_eq!(head["filename"], "年度 报告.txt");
    assert_eq!(head["dst_dir"], "/tmp/here");
    assert_eq!(head["file_hash"], md5("第一".as_bytes()));
    assert_eq!(client.body(&head).await, "第一".as_bytes());
    let get = json!({"cmd": "get \"年度 报告.txt\" typed", "dst_dir": "field"});
    client.send(&frame(&get)).await;
    let head = client.next().await.expect("a reply");
    assert_eq!(head["dst_dir"], "field");
    client.body(&head).await;
    // Without the field, the last component of the typed path counts.
    client
        .send(&frame(&json!({"cmd": "put C:\\x\\y.txt /", "size": 1})))
        .await;
    client.send(b"y").await;
    assert!(client.res().await.starts_with("stored /y.txt"));
}

#[tokio::test]
async fn files_of_many_chunks_are_transferred_with_their_hash_both_ways() {
    let server = TestServer::start().await;
    let content: Vec<u8> = (0..3_000_017_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect();
    let mut client = server.log_in_classic("alice").await;
    let hash = md5(&content).to_uppercase();
    let put = json!({"cmd": "put a", "size": content.len(), "file_hash": hash});
    client.send(&frame(&put)).await;
    client.send(&content).await;
    assert!(client.res().await.starts_with("stored /a, 3000017 bytes"));
    assert!(client.get("get a").await == content);
    let mut framed = server.log_in("alice").await;
    let got = framed.get(json!({"cmd": "get", "path": "a"})).await;
    assert!(got.0 == content, "framed clients see the same file");
    framed.put("b", &content).await;
    assert!(client.get("get b").await == content);
}

/// Sends an upload that must be refused, and checks that the next command is executed.
async fn refused(client: &mut Classic, put: Value, content: &[u8], why: &str) {
    client.send(&frame(&put)).await;
    client.send(content).await;
    let pwd = frame(&json!({"cmd": "pwd"}));
    client.send(&pwd).await;
    let res = client.res().await;
    assert!(res.contains(why), "{put} was answered {res}");
    assert_eq!(client.res().await, "/", "after {put}");
}

#[tokio::test]
async fn a_refused_upload_is_discarded_and_the_next_command_is_executed() {
    let server = TestServer::start().await;
    let limits = SpaceLimits {
        bytes: Some(1_000_000),
        files: None,
    };
    server.add_user("carol", limits).await;
    let team: FolderName = "team".parse().expect("a name");
    let added = server
        .accounts
        .add_folder(&team, SpaceLimits::default())
        .await;
    added.expect("added");
    let carol: UserName = "carol".parse().expect("a name");
    let rights = "r".parse().expect("rights");
    let granted = server.accounts.grant(&team, &carol, rights).await;
    granted.expect("granted");
    let mut client = server.log_in_classic("carol").await;
    client.put("old", b"old").await;
    client.order("mkdir directory").await;
    // Bytes that would themselves be valid frames.
    let large: Vec<u8> = frame(&json!({"cmd": "rm old"}))
        .into_iter()
        .cycle()
        .take(2_000_000)
        .collect();
    let some = &large[..1000];
    let put = |cmd: &str, content: &[u8]| json!({"cmd": cmd, "size": content.len()});
    for (request, content, why) in [
        (put("put a", &large), &large[..], "quota"),
        (put("put a nowhere", some), some, "no such"),
        (put("put a /team", some), some, "not stored"),
        (put("put directory", some), some, "directory"),
        (put("put ..", some), some, "is not the path of a file"),
        (put("put", some), some, "usage: put"),
        (put("put \"a", some), some, "quote"),
        (put("put a\u{1}", some), some, "not stored"),
        (put("ls", some), some, "old"),
        (put("frobnicate", some), some, "unknown command"),
        (put("get nothing", some), some, "no such file"),
        (
            json!({"cmd": "put old", "size": 1000, "file_hash": md5(b"other")}),
            some,
            "digest",
        ),
        (
            json!({"cmd": "put old", "size": 1000, "file_hash": "d41d"}),
            some,
            "32 hex digits",
        ),
        (json!({"cmd": null, "size": 1000}), some, "has no command"),
    ] {
        refused(&mut client, request, content, why).await;
    }
    assert_eq!(client.get("get old").await, b"old");
    assert_eq!(server.staged(), 0);
}

#[tokio::test]
async fn an_interrupted_upload_leaves_the_old_file_and_nothing_else() {
    let server = TestServer::start().await;
    let mut client = server.log_in_classic("alice").await;
    client.put("a", b"old").await;
    let put = json!({"cmd": "put a", "size": 10_000_000});
    client.send(&frame(&put)).await;
    client.send(&vec![b'n'; 9_000_000]).await;
    drop(client);
    let mut framed = server.log_in("alice").await;
    soon("nothing that takes up the quota", async || {
        let df = framed.ok(json!({"cmd": "df"})).await;
        (df["used"] == 3 && server.staged() == 0).then_some(())
    })
    .await;
    let uploads = framed.ok(json!({"cmd": "uploads"})).await;
    assert_eq!(uploads["uploads"], json!([]), "there is no resume");
    let mut client = server.log_in_classic("alice").await;
    assert_eq!(client.get("get a").await, b"old");
}

#[tokio::test]
async fn a_refused_download_has_a_res_and_no_body() {
    let server = TestServer::start().await;
    let mut client = server.log_in_classic("alice").await;
    client.order("mkdir d").await;
    assert_eq!(
        client.order("get nothing").await,
        "no such file or directory: /nothing"
    );
    assert!(client.order("get d").await.contains("directory"));
    assert!(client.order("get").await.contains("usage: get"));
    assert_eq!(client.order("pwd").await, "/");
}

#[tokio::test]
async fn bytes_and_hash_are_of_one_version_while_the_file_is_replaced() {
    let server = TestServer::start().await;
    let contents = [vec![b'a'; 300_000], vec![b'b'; 200_000]];
    let mut framed = server.log_in("alice").await;
    framed.put("f", &contents[0]).await;
    let mut client = server.log_in_classic("alice").await;
    let replacing = async {
        for turn in 0.. {
            framed.put("f", &contents[turn % 2]).await;
        }
    };
    let getting = async {
        let mut got = 0;
        for _ in 0..50 {
            client.send(&frame(&json!({"cmd": "get f"}))).await;
            let head = client.next().await.expect("a reply");
            if head.get("size").is_none() {
                let res = head["res"].as_str().expect("a text");
                assert!(res.contains("changes too often"), "{res}");
                continue;
            }
            let body = client.body(&head).await;
            assert_eq!(head["file_hash"], md5(&body), "{head}");
            got += 1;
        }
        assert!(got > 0, "some come through");
    };
    tokio::select! {
        () = replacing => unreachable!("it never ends"),
        () = getting => {}
    }
}

#[tokio::test]
async fn bytes_and_hash_are_of_one_file_while_two_files_swap_their_names() {
    let server = TestServer::start().await;
    let mut framed = server.log_in("alice").await;
    for (name, content) in [("f", vec![b'a'; 3000]), ("g", vec![b'b'; 2000])] {
        framed.put(name, &content).await;
    }
    let [f, g] = ["f", "g"].map(|name| server.home("alice").join(name));
    let mut client = server.log_in_classic("alice").await;
    let stop = Arc::new(AtomicBool::new(false));
    let swapping = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            while !stop.load(Ordering::Relaxed) {
                let exchange = RenameFlags::EXCHANGE;
                renameat_with(CWD, &f, CWD, &g, exchange).expect("swapped");
            }
        }
    });
    let mut got = 0;
    while got < 50 {
        client.send(&frame(&json!({"cmd": "get f"}))).await;
        let head = client.next().await.expect("a reply");
        if head.get("size").is_none() {
            let res = head["res"].as_str().expect("a text");
            assert!(res.contains("changes too often"), "{res}");
            continue;
        }
        let body = client.body(&head).await;
        assert_eq!(head["file_hash"], md5(&body), "{head}");
        got += 1;
    }
    stop.store(true, Ordering::Relaxed);
    swapping.join().expect("no panic");
}

#[tokio::test]
async fn a_truncated_download_is_never_taken_for_complete() {
    let server = TestServer::start().await;
    let mut client = server.log_in_classic("alice").await;
    client.put("small", b"").await;
    let path = server.home("alice").join("large");
    let file = fs::File::create(&path).expect("made");
    file.set_len(64 << 20).expect("sparse");
    client.send(&frame(&json!({"cmd": "get large"}))).await;
    let head = client.next().await.expect("a reply");
    assert_eq!(head["size"], 64 << 20);
    // The buffers between server and client hold less than the file.
    file.set_len(1000).expect("cut");
    let mut rest = Vec::new();
    let read = client.stream.read_to_end(&mut rest).await;
    assert!(
        read.is_err() || rest.len() < 64 << 20,
        "{} bytes came",
        rest.len()
    );
}

#[tokio::test]
async fn the_bandwidth_limit_applies_to_the_body_of_an_upload() {
    let server = TestServer::start_with(|config| {
        config.limits.bandwidth_per_user = Some(4 << 20);
        config.limits.idle_timeout = Some(std::time::Duration::from_millis(300));
    })
    .await;
    let content = vec![7; 3 << 20];
    let mut client = server.log_in_classic("alice").await;
    assert!(client.put("a", &content).await.starts_with("stored"));
    assert!(client.get("get a").await == content);
}
