//! RELIABILITY, Paths: no path leads out of a user's view, and no name does harm.

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::harness::TestServer;

#[tokio::test]
async fn dots_and_slashes_are_resolved_and_nothing_is_above_the_root() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client
        .ok(json!({"cmd": "mkdir", "path": "a/b", "parents": true}))
        .await;
    for (path, cwd) in [
        ("a/./b", "/a/b"),
        ("..", "/a"),
        ("../../../..", "/"),
        ("/a//b/", "/a/b"),
        ("/a/../../a", "/a"),
    ] {
        assert_eq!(
            client.ok(json!({"cmd": "cd", "path": path})).await["cwd"],
            cwd,
            "{path}"
        );
    }
}

#[tokio::test]
async fn names_that_could_deceive_are_refused_by_every_command() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    let deep = "d/".repeat(65);
    for path in [
        "",
        "a\u{0}b",
        "a\nb",
        "a\u{1b}[31mb",
        "a\u{202e}b",
        "a\u{7f}",
        &"n".repeat(256),
        &deep,
        &"x/".repeat(2100),
    ] {
        for request in [
            json!({"cmd": "cd", "path": path}),
            json!({"cmd": "ls", "path": path}),
            json!({"cmd": "stat", "path": path}),
            json!({"cmd": "mkdir", "path": path}),
            json!({"cmd": "rm", "path": path}),
            json!({"cmd": "mv", "from": path, "to": "x"}),
            json!({"cmd": "mv", "from": "x", "to": path}),
            json!({"cmd": "cp", "from": "x", "to": path}),
            json!({"cmd": "get", "path": path}),
            json!({"cmd": "put", "path": path}),
            json!({"cmd": "hash", "path": path}),
        ] {
            client.fails(request, "invalid_path").await;
        }
    }
}

#[tokio::test]
async fn a_trailing_slash_does_not_turn_a_file_into_something_else() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.put("a", b"x").await;
    client
        .fails(json!({"cmd": "get", "path": "a/"}), "invalid_path")
        .await;
    let put = client.put("b/", b"x").await;
    assert_eq!(put["error"]["code"], "invalid_path");
}

#[tokio::test]
async fn a_link_out_of_the_view_is_treated_as_absent_and_one_within_it_is_followed() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    let home = server.home("alice");
    std::fs::write(server.data().join("outside"), b"secret").expect("written");
    server.log_in("bob").await;
    std::fs::write(server.home("bob").join("private"), b"secret").expect("written");
    symlink("/etc", home.join("absolute")).expect("a link");
    symlink("../../outside", home.join("relative")).expect("a link");
    symlink("../bob", home.join("neighbour")).expect("a link");
    symlink("nowhere", home.join("dangling")).expect("a link");
    symlink("loop", home.join("loop")).expect("a link");
    client.put("real", b"inside").await;
    symlink("real", home.join("inner")).expect("a link");
    for path in [
        "absolute/passwd",
        "absolute",
        "relative",
        "neighbour/private",
        "neighbour",
        "dangling",
        "loop",
    ] {
        client
            .fails(json!({"cmd": "stat", "path": path}), "not_found")
            .await;
        client
            .fails(json!({"cmd": "get", "path": path}), "not_found")
            .await;
        client
            .fails(json!({"cmd": "hash", "path": path}), "not_found")
            .await;
        client
            .fails(
                json!({"cmd": "cp", "from": path, "to": "copy"}),
                "not_found",
            )
            .await;
    }
    client
        .fails(json!({"cmd": "mkdir", "path": "neighbour/d"}), "not_found")
        .await;
    assert_eq!(
        client.put("neighbour/x", b"x").await["error"]["code"],
        "not_found"
    );
    assert_eq!(
        client.get(json!({"cmd": "get", "path": "inner"})).await.0,
        b"inside"
    );
    let listing = client.ok(json!({"cmd": "ls"})).await;
    let names: Vec<_> = listing["entries"]
        .as_array()
        .expect("entries")
        .iter()
        .map(|entry| entry["name"].clone())
        .collect();
    assert_eq!(names, ["inner", "real"]);
    assert!(
        client.put("relative", b"mine").await["ok"].is_object(),
        "a put replaces the link"
    );
    assert_eq!(
        std::fs::read(server.data().join("outside")).expect("there"),
        b"secret"
    );
}

#[tokio::test]
async fn a_pipe_or_socket_among_the_files_is_refused_and_blocks_nobody() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    let home = server.home("alice");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        home.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .expect("a pipe");
    let _socket = std::os::unix::net::UnixListener::bind(home.join("socket")).expect("a socket");
    for path in ["fifo", "socket"] {
        for request in [
            json!({"cmd": "get", "path": path}),
            json!({"cmd": "hash", "path": path}),
        ] {
            let (code, error) = client.error(request).await;
            assert!(code == "denied" || code == "not_found", "{error}");
        }
    }
    assert_eq!(client.ok(json!({"cmd": "ls"})).await["entries"], json!([]));
}

#[tokio::test]
async fn a_directory_that_is_replaced_by_a_link_during_a_request_never_leads_out() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    let home = server.home("alice");
    let outside = server.data().join("outside");
    for target in [home.join("real"), outside.clone()] {
        std::fs::create_dir(&target).expect("a directory");
    }
    std::fs::write(outside.join("canary"), b"secret").expect("written");
    symlink(&outside, home.join("link")).expect("a link");
    let done = Arc::new(AtomicBool::new(false));
    let swapper = std::thread::spawn({
        let (home, done) = (home.clone(), done.clone());
        move || {
            let mut swaps = 0_u64;
            while !done.load(Ordering::Relaxed) {
                for (from, to) in [
                    ("real", "path"),
                    ("path", "real"),
                    ("link", "path"),
                    ("path", "link"),
                ] {
                    std::fs::rename(home.join(from), home.join(to)).expect("swapped");
                    swaps += 1;
                }
            }
            swaps
        }
    });
    for round in 0..300 {
        let get = json!({"cmd": "get", "path": "path/canary"});
        let (content, _) = client.get(get).await;
        assert_ne!(content, b"secret", "a get escaped");
        client.put(&format!("path/escaped {round}"), b"x").await;
        client.call(json!({"cmd": "mkdir", "path": "path/d"})).await;
        client
            .call(json!({"cmd": "mv", "from": "path/canary", "to": "stolen"}))
            .await;
        client
            .call(json!({"cmd": "rm", "path": "path/canary"}))
            .await;
        let listing = client.call(json!({"cmd": "ls", "path": "path"})).await;
        assert!(!listing.to_string().contains("canary"), "an ls escaped");
    }
    done.store(true, Ordering::Relaxed);
    assert!(swapper.join().expect("no panic") > 1000);
    let left: Vec<_> = std::fs::read_dir(&outside).expect("there").collect();
    assert_eq!(left.len(), 1, "something was written outside: {left:?}");
}

#[tokio::test]
async fn a_put_over_a_hard_link_does_not_change_the_other_name() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    let home = server.home("alice");
    client.put("a", b"shared").await;
    std::fs::hard_link(home.join("a"), home.join("b")).expect("a link");
    let outside = server.data().join("outside");
    std::fs::hard_link(home.join("a"), &outside).expect("a link");
    assert!(client.put("a", b"mine alone").await["ok"].is_object());
    for (path, content) in [("a", &b"mine alone"[..]), ("b", b"shared")] {
        let (got, _) = client.get(json!({"cmd": "get", "path": path})).await;
        assert_eq!(got, content, "{path}");
    }
    assert_eq!(std::fs::read(outside).expect("there"), b"shared");
}
