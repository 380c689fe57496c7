//! Commands on directories, files and shared folders.

use std::collections::BTreeSet;

use haul::storage::SpaceLimits;
use serde_json::{Value, json};

use crate::harness::{RawClient, TestServer};

async fn names(client: &mut RawClient, path: &str) -> Vec<String> {
    let listing = client.ok(json!({"cmd": "ls", "path": path})).await;
    let entries = listing["entries"].as_array().expect("entries");
    entries
        .iter()
        .map(|entry| entry["name"].as_str().expect("a name").to_owned())
        .collect()
}

#[tokio::test]
async fn a_directory_is_made_entered_listed_and_removed() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    assert_eq!(
        client.ok(json!({"cmd": "mkdir", "path": "reports"})).await["path"],
        "/reports"
    );
    assert_eq!(
        client.ok(json!({"cmd": "cd", "path": "reports"})).await["cwd"],
        "/reports"
    );
    client.put("a.txt", b"hello").await;
    let listing = client.ok(json!({"cmd": "ls"})).await;
    assert!(listing.get("cursor").is_none());
    let entry = &listing["entries"][0];
    assert_eq!(
        (&entry["name"], &entry["kind"], &entry["size"]),
        (&json!("a.txt"), &json!("file"), &json!(5))
    );
    client
        .fails(json!({"cmd": "rm", "path": "/reports"}), "not_empty")
        .await;
    assert_eq!(
        client
            .ok(json!({"cmd": "rm", "path": "/reports", "recursive": true}))
            .await["removed"],
        2
    );
    client.fails(json!({"cmd": "ls"}), "not_found").await;
    client.ok(json!({"cmd": "cd", "path": ".."})).await;
    assert_eq!(names(&mut client, "/").await, Vec::<String>::new());
}

#[tokio::test]
async fn an_error_names_the_missing_file() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    let (code, error) = client
        .error(json!({"id": 3, "cmd": "cd", "path": "nowhere"}))
        .await;
    assert_eq!(code, "not_found");
    assert_eq!(error["message"], "no such directory: /nowhere");
    for request in [
        json!({"cmd": "ls", "path": "x"}),
        json!({"cmd": "stat", "path": "x"}),
        json!({"cmd": "rm", "path": "x"}),
        json!({"cmd": "get", "path": "x"}),
        json!({"cmd": "hash", "path": "x"}),
        json!({"cmd": "mv", "from": "x", "to": "y"}),
        json!({"cmd": "cp", "from": "x", "to": "y"}),
        json!({"cmd": "mkdir", "path": "x/y"}),
    ] {
        let (code, error) = client.error(request.clone()).await;
        assert_eq!(code, "not_found", "{request}");
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| text.contains("/x")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn files_and_directories_are_not_taken_for_each_other() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.put("file", b"x").await;
    client.ok(json!({"cmd": "mkdir", "path": "dir"})).await;
    client
        .fails(json!({"cmd": "cd", "path": "file"}), "not_a_directory")
        .await;
    client
        .fails(json!({"cmd": "ls", "path": "file"}), "not_a_directory")
        .await;
    client
        .fails(json!({"cmd": "stat", "path": "file/x"}), "not_a_directory")
        .await;
    client
        .fails(json!({"cmd": "get", "path": "dir"}), "is_a_directory")
        .await;
    client
        .fails(json!({"cmd": "hash", "path": "dir"}), "is_a_directory")
        .await;
    client
        .fails(json!({"cmd": "mkdir", "path": "file"}), "exists")
        .await;
    client
        .fails(json!({"cmd": "mkdir", "path": "dir"}), "exists")
        .await;
    client
        .ok(json!({"cmd": "mkdir", "path": "dir", "parents": true}))
        .await;
    client
        .ok(json!({"cmd": "mkdir", "path": "a/b/c", "parents": true}))
        .await;
}

#[tokio::test]
async fn stat_returns_version_and_digest_and_the_version_changes_with_the_file() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    let put = client.put("a", b"one").await["ok"].take();
    let stat = client.ok(json!({"cmd": "stat", "path": "a"})).await;
    assert_eq!(
        (&stat["path"], &stat["kind"], &stat["size"]),
        (&json!("/a"), &json!("file"), &json!(3))
    );
    assert_eq!(
        (&stat["version"], &stat["digest"]),
        (&put["version"], &put["digest"])
    );
    client.put("a", b"two").await;
    assert_ne!(
        client.ok(json!({"cmd": "stat", "path": "a"})).await["version"],
        stat["version"]
    );
    let root = client.ok(json!({"cmd": "stat", "path": "/"})).await;
    assert_eq!((&root["kind"], &root["path"]), (&json!("dir"), &json!("/")));
}

#[tokio::test]
async fn a_large_directory_is_listed_completely_page_by_page() {
    let server = TestServer::start().await;
    let home = server.home("alice");
    let mut client = server.log_in("alice").await;
    std::fs::create_dir(home.join("many")).expect("a directory");
    for number in 0..5000 {
        std::fs::write(home.join(format!("many/file number {number}")), b"").expect("a file");
    }
    let mut seen = BTreeSet::new();
    let mut request = json!({"cmd": "ls", "path": "many"});
    loop {
        let page = client.ok(request.clone()).await;
        for entry in page["entries"].as_array().expect("entries") {
            assert!(seen.insert(entry["name"].to_string()), "{entry} came twice");
        }
        match page.get("cursor") {
            Some(cursor) => request["cursor"] = cursor.clone(),
            None => break,
        }
    }
    assert_eq!(seen.len(), 5000);
    let page = client
        .ok(json!({"cmd": "ls", "path": "many", "limit": 10}))
        .await;
    assert_eq!(page["entries"].as_array().map(Vec::len), Some(10));
    client
        .fails(
            json!({"cmd": "ls", "path": "many", "cursor": "garbage"}),
            "bad_request",
        )
        .await;
}

#[tokio::test]
async fn a_move_is_atomic_and_replaces_only_on_request() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.put("a", b"a").await;
    client.put("b", b"b").await;
    client
        .fails(json!({"cmd": "mv", "from": "a", "to": "b"}), "exists")
        .await;
    assert_eq!(
        client
            .ok(json!({"cmd": "mv", "from": "a", "to": "b", "if_exists": "rename"}))
            .await["path"],
        "/b (1)"
    );
    client
        .ok(json!({"cmd": "mv", "from": "b (1)", "to": "b", "if_exists": "replace"}))
        .await;
    assert_eq!(client.get(json!({"cmd": "get", "path": "b"})).await.0, b"a");
    client
        .ok(json!({"cmd": "mkdir", "path": "d/e", "parents": true}))
        .await;
    let (code, _) = client
        .error(json!({"cmd": "mv", "from": "d", "to": "d/e/f"}))
        .await;
    assert_eq!(code, "invalid_path", "a directory cannot move into itself");
    client
        .ok(json!({"cmd": "mv", "from": "d", "to": "moved"}))
        .await;
    assert_eq!(names(&mut client, "/").await, ["b", "moved"]);
    assert_eq!(client.ok(json!({"cmd": "df"})).await["files"], 3);
}

#[tokio::test]
async fn a_copy_is_made_on_the_server_and_counted() {
    let server = TestServer::start().await;
    server
        .add_user(
            "carol",
            SpaceLimits {
                bytes: Some(100),
                files: None,
            },
        )
        .await;
    let mut client = server.log_in("carol").await;
    client.put("a", &[1; 40]).await;
    client
        .ok(json!({"cmd": "cp", "from": "a", "to": "b"}))
        .await;
    assert_eq!(
        client.get(json!({"cmd": "get", "path": "b"})).await.0,
        [1; 40]
    );
    client
        .fails(
            json!({"cmd": "cp", "from": "a", "to": "c"}),
            "quota_exceeded",
        )
        .await;
    client
        .fails(json!({"cmd": "cp", "from": "a", "to": "b"}), "exists")
        .await;
    let df = client.ok(json!({"cmd": "df"})).await;
    assert_eq!(
        (&df["used"], &df["limit"], &df["files"]),
        (&json!(80), &json!(100), &json!(2))
    );
    assert!(df["free"].as_u64().is_some_and(|free| free > 0));
}

#[tokio::test]
async fn a_directory_is_copied_with_its_content() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client
        .ok(json!({"cmd": "mkdir", "path": "d/e", "parents": true}))
        .await;
    client.put("d/e/f", b"deep").await;
    client
        .ok(json!({"cmd": "cp", "from": "d", "to": "copy"}))
        .await;
    assert_eq!(
        client
            .get(json!({"cmd": "get", "path": "copy/e/f"}))
            .await
            .0,
        b"deep"
    );
    assert_eq!(client.ok(json!({"cmd": "df"})).await["files"], 6);
}

#[tokio::test]
async fn hash_computes_every_digest_even_of_files_that_were_not_uploaded() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    std::fs::write(server.home("alice").join("a"), b"abc").expect("written");
    for (algorithm, expected) in [
        ("md5", "md5:900150983cd24fb0d6963f7d28e17f72"),
        (
            "sha256",
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
        (
            "blake3",
            "blake3:6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
        ),
    ] {
        for _ in 0..2 {
            let hash = client
                .ok(json!({"cmd": "hash", "path": "a", "digest": algorithm}))
                .await;
            assert_eq!(
                (&hash["digest"], &hash["size"]),
                (&json!(expected), &json!(3))
            );
        }
    }
    let mut hash_of_version = json!({"cmd": "hash", "path": "a"});
    let stat = client.ok(json!({"cmd": "stat", "path": "a"})).await;
    hash_of_version["version"] = stat["version"].clone();
    client.ok(hash_of_version.clone()).await;
    std::fs::write(server.home("alice").join("a"), b"abcd").expect("changed in place");
    client.fails(hash_of_version, "changed").await;
    let hash = client
        .ok(json!({"cmd": "hash", "path": "a", "digest": "md5"}))
        .await;
    assert_eq!(
        hash["digest"], "md5:e2fc714c4727ee9395f324cd2e7f331f",
        "a stale digest is not trusted"
    );
}

#[tokio::test]
async fn a_hash_of_a_closed_session_ends_and_frees_its_slot() {
    let server = TestServer::start().await;
    let mut waiting = server.log_in("bob").await;
    waiting.put("small", b"abc").await;
    // More hashes than may run at once, each of which would take hours.
    for _ in 0..64 {
        let mut client = server.log_in("alice").await;
        let huge = server.home("alice").join("huge");
        let huge = std::fs::File::create(huge).expect("a file");
        huge.set_len(1 << 43).expect("a sparse file");
        client.send(json!({"cmd": "hash", "path": "huge"})).await;
        client.ok(json!({"cmd": "ping"})).await;
    }
    let hash = waiting
        .ok(json!({"cmd": "hash", "path": "small", "digest": "md5"}))
        .await;
    assert_eq!(hash["digest"], "md5:900150983cd24fb0d6963f7d28e17f72");
}

#[tokio::test]
async fn a_small_file_is_hashed_while_others_have_large_ones_hashed() {
    let server = TestServer::start().await;
    let mut patient = server.log_in("bob").await;
    patient.put("small", b"abc").await;
    let mut greedy = Vec::new();
    for _ in 0..64 {
        let mut client = server.log_in("alice").await;
        let huge = std::fs::File::create(server.home("alice").join("huge")).expect("a file");
        huge.set_len(1 << 43).expect("a sparse file");
        client.send(json!({"cmd": "hash", "path": "huge"})).await;
        client.ok(json!({"cmd": "ping"})).await;
        greedy.push(client);
    }
    for algorithm in ["blake3", "md5"] {
        let hash = json!({"cmd": "hash", "path": "small", "digest": algorithm});
        assert_eq!(patient.ok(hash).await["size"], 3);
    }
}

#[tokio::test]
async fn a_file_in_a_home_is_invisible_to_other_users() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    alice.put("private", b"x").await;
    let mut bob = server.log_in("bob").await;
    for path in [
        "private",
        "/private",
        "../alice/private",
        "/../../homes/alice/private",
    ] {
        bob.fails(json!({"cmd": "stat", "path": path}), "not_found")
            .await;
    }
}

/// A server with the folder `team`, in which alice and bob have the given rights.
async fn with_team(alice: &str, bob: Option<&str>) -> (TestServer, RawClient, RawClient) {
    let server = TestServer::start().await;
    let team = "team".parse().expect("a name");
    server
        .accounts
        .add_folder(&team, SpaceLimits::default())
        .await
        .expect("a folder");
    for (user, rights) in [("alice", Some(alice)), ("bob", bob)] {
        if let Some(rights) = rights {
            let user = user.parse().expect("a name");
            let rights = rights.parse().expect("rights");
            server
                .accounts
                .grant(&team, &user, rights)
                .await
                .expect("granted");
        }
    }
    let (alice, bob) = (server.log_in("alice").await, server.log_in("bob").await);
    (server, alice, bob)
}

#[tokio::test]
async fn a_shared_folder_is_mounted_into_the_view_of_its_members_only() {
    let (_server, mut alice, mut bob) = with_team("rw", None).await;
    assert_eq!(names(&mut alice, "/").await, ["team"]);
    assert_eq!(names(&mut bob, "/").await, Vec::<String>::new());
    bob.fails(json!({"cmd": "ls", "path": "/team"}), "not_found")
        .await;
    let me = alice.ok(json!({"cmd": "whoami"})).await;
    assert_eq!(me["folders"][0]["name"], "team");
    assert_eq!(
        me["folders"][0]["rights"],
        json!(["list", "read", "write", "overwrite", "delete"])
    );
}

#[tokio::test]
async fn members_share_the_files_of_a_folder_and_readers_cannot_write() {
    let (_server, mut alice, mut bob) = with_team("rw", Some("r")).await;
    alice.put("/team/a.csv", b"1,2").await;
    assert_eq!(
        bob.get(json!({"cmd": "get", "path": "/team/a.csv"}))
            .await
            .0,
        b"1,2"
    );
    assert_eq!(
        bob.put("/team/b.csv", b"3").await["error"]["code"],
        "denied"
    );
    bob.fails(json!({"cmd": "rm", "path": "/team/a.csv"}), "denied")
        .await;
    bob.fails(
        json!({"cmd": "mv", "from": "/team/a.csv", "to": "/mine"}),
        "denied",
    )
    .await;
    bob.fails(json!({"cmd": "mkdir", "path": "/team/d"}), "denied")
        .await;
    bob.ok(json!({"cmd": "cp", "from": "/team/a.csv", "to": "/mine"}))
        .await;
    assert_eq!(bob.ok(json!({"cmd": "df"})).await["used"], 3);
    alice.ok(json!({"cmd": "cd", "path": "/team"})).await;
    assert_eq!(alice.ok(json!({"cmd": "df"})).await["files"], 1);
}

#[tokio::test]
async fn a_write_only_folder_accepts_files_and_lists_none() {
    let (_server, mut alice, mut bob) = with_team("rw", Some("drop")).await;
    assert!(bob.put("/team/secret", b"from bob").await["ok"].is_object());
    bob.fails(json!({"cmd": "ls", "path": "/team"}), "denied")
        .await;
    bob.fails(json!({"cmd": "get", "path": "/team/secret"}), "denied")
        .await;
    bob.fails(json!({"cmd": "stat", "path": "/team/secret"}), "denied")
        .await;
    bob.fails(json!({"cmd": "stat", "path": "/team/other"}), "denied")
        .await;
    assert_eq!(bob.ok(json!({"cmd": "df"})).await["used"], 0);
    bob.ok(json!({"cmd": "cd", "path": "/team"})).await;
    bob.fails(json!({"cmd": "df"}), "denied").await;
    assert_eq!(
        bob.put("/team/secret", b"again").await["error"]["code"],
        "denied"
    );
    assert_eq!(
        alice
            .get(json!({"cmd": "get", "path": "/team/secret"}))
            .await
            .0,
        b"from bob"
    );
}

#[tokio::test]
async fn the_mount_itself_cannot_be_removed_moved_or_replaced() {
    let (_server, mut alice, _bob) = with_team("rw", None).await;
    alice
        .fails(
            json!({"cmd": "rm", "path": "/team", "recursive": true}),
            "denied",
        )
        .await;
    alice
        .fails(
            json!({"cmd": "mv", "from": "/team", "to": "/mine"}),
            "denied",
        )
        .await;
    alice
        .fails(json!({"cmd": "mkdir", "path": "/team"}), "exists")
        .await;
    let put = alice.put("/team", b"x").await;
    assert_eq!(put["error"]["code"], "is_a_directory");
    alice
        .fails(
            json!({"cmd": "rm", "path": "/", "recursive": true}),
            "denied",
        )
        .await;
}

#[tokio::test]
async fn a_move_between_home_and_folder_moves_the_charge_to_the_quota() {
    let (_server, mut alice, mut bob) = with_team("rw", Some("r")).await;
    alice.put("a", &[7; 500]).await;
    alice
        .ok(json!({"cmd": "mv", "from": "a", "to": "/team/a"}))
        .await;
    assert_eq!(alice.ok(json!({"cmd": "df"})).await["used"], 0);
    bob.ok(json!({"cmd": "cd", "path": "/team"})).await;
    let df: Value = bob.ok(json!({"cmd": "df"})).await;
    assert_eq!((&df["used"], &df["files"]), (&json!(500), &json!(1)));
}

#[tokio::test]
async fn a_grant_reaches_a_session_that_is_open() {
    let (server, _alice, mut bob) = with_team("rw", None).await;
    let (team, user) = (
        "team".parse().expect("a name"),
        "bob".parse().expect("a name"),
    );
    server
        .accounts
        .grant(&team, &user, "r".parse().expect("rights"))
        .await
        .expect("granted");
    while names(&mut bob, "/").await != ["team"] {
        tokio::task::yield_now().await;
    }
    server.accounts.revoke(&team, &user).await.expect("revoked");
    while !names(&mut bob, "/").await.is_empty() {
        tokio::task::yield_now().await;
    }
}
