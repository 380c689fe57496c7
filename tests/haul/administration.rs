//! Administrators manage accounts, folders and tokens over the wire.

use serde_json::json;

use crate::harness::{PASSWORD, RawClient, TestServer};

async fn start() -> (TestServer, RawClient) {
    let server = TestServer::start().await;
    server.add_admin("root").await;
    let root = server.log_in("root").await;
    (server, root)
}

#[tokio::test]
async fn an_account_is_made_limited_disabled_and_removed() {
    let (server, mut root) = start().await;
    let add = json!({"cmd": "user_add", "user": "carol", "password": PASSWORD, "limit": 1000});
    assert_eq!(root.ok(add.clone()).await, json!({}));
    root.fails(add, "exists").await;
    let mut carol = server.log_in("carol").await;
    let whoami = carol.ok(json!({"cmd": "whoami"})).await;
    assert_eq!(whoami["quota"], json!({"limit": 1000}));

    root.ok(json!({"cmd": "user_set", "user": "carol", "no_limit": true, "files_limit": 7}))
        .await;
    let users = root.ok(json!({"cmd": "users"})).await;
    let listed = users["users"].as_array().expect("a list");
    let listed = listed
        .iter()
        .find(|user| user["user"] == "carol")
        .expect("carol");
    assert_eq!(
        (listed.get("limit"), &listed["files_limit"]),
        (None, &json!(7))
    );

    root.ok(json!({"cmd": "user_passwd", "user": "carol", "password": "battery staple"}))
        .await;
    let login = |password| json!({"cmd": "login", "user": "carol", "password": password});
    let mut again = server.connect().await;
    again.fails(login(PASSWORD), "login_failed").await;
    again.ok(login("battery staple")).await;

    root.ok(json!({"cmd": "user_set", "user": "carol", "disabled": true}))
        .await;
    assert_eq!(carol.event().await["reason"], "account_closed");
    let mut again = server.connect().await;
    again.fails(login("battery staple"), "login_failed").await;

    let removed = root
        .ok(json!({"cmd": "user_remove", "user": "carol"}))
        .await;
    assert!(removed["had_files"].is_boolean(), "{removed}");
    root.fails(json!({"cmd": "user_remove", "user": "carol"}), "not_found")
        .await;
}

#[tokio::test]
async fn a_folder_is_made_granted_listed_revoked_and_removed() {
    let (server, mut root) = start().await;
    root.ok(json!({"cmd": "folder_add", "folder": "team", "limit": 1000}))
        .await;
    root.fails(json!({"cmd": "folder_add", "folder": "team"}), "exists")
        .await;
    let grant = json!({
        "cmd": "folder_grant", "folder": "team", "user": "alice", "rights": ["list", "read"]
    });
    root.ok(grant).await;
    let mut reply = root.ok(json!({"cmd": "folders"})).await;
    reply["folders"][0]
        .as_object_mut()
        .expect("a folder")
        .remove("created");
    assert_eq!(
        reply,
        json!({"folders": [{
            "folder": "team", "limit": 1000,
            "members": [{"user": "alice", "rights": ["list", "read"]}]
        }]})
    );
    server
        .log_in("alice")
        .await
        .ok(json!({"cmd": "ls", "path": "/team"}))
        .await;
    let revoke = json!({"cmd": "folder_revoke", "folder": "team", "user": "alice"});
    root.ok(revoke.clone()).await;
    root.fails(revoke, "not_found").await;
    root.ok(json!({"cmd": "folder_remove", "folder": "team"}))
        .await;
    root.fails(
        json!({"cmd": "folder_remove", "folder": "team"}),
        "not_found",
    )
    .await;
    assert_eq!(
        root.ok(json!({"cmd": "folders"})).await,
        json!({"folders": []})
    );
}

#[tokio::test]
async fn tokens_of_others_are_made_listed_and_revoked() {
    let (server, mut root) = start().await;
    let add = json!({"cmd": "token_add", "user": "alice", "label": "printer"});
    let made = root.ok(add).await;
    let mut printer = server.connect().await;
    printer
        .ok(json!({"cmd": "login", "token": made["token"]}))
        .await;
    let listed = root.ok(json!({"cmd": "tokens", "user": "alice"})).await;
    assert_eq!(listed["tokens"][0]["label"], "printer");
    let remove = json!({"cmd": "token_remove", "user": "alice", "number": made["number"]});
    root.ok(remove).await;
    assert_eq!(printer.event().await["reason"], "account_closed");
    root.fails(json!({"cmd": "tokens", "user": "nobody"}), "not_found")
        .await;
}

#[tokio::test]
async fn administrators_do_not_lock_themselves_out() {
    let (_server, mut root) = start().await;
    for request in [
        json!({"cmd": "user_remove", "user": "root"}),
        json!({"cmd": "user_set", "user": "root", "disabled": true}),
        json!({"cmd": "user_set", "user": "root", "admin": false}),
        json!({"cmd": "user_passwd", "user": "root", "password": "battery staple"}),
    ] {
        let (code, error) = root.error(request.clone()).await;
        assert_eq!(
            (&*code, &error["field"]),
            ("bad_request", &json!("user")),
            "{request}"
        );
    }
    root.ok(json!({"cmd": "user_set", "user": "root", "limit": 1_000_000}))
        .await;
}

#[tokio::test]
async fn a_token_of_an_administrator_cannot_grant_lasting_access() {
    let (server, mut root) = start().await;
    server.add_admin("other").await;
    let made = root.ok(json!({"cmd": "token_add"})).await;
    let mut thief = server.connect().await;
    thief
        .ok(json!({"cmd": "login", "token": made["token"]}))
        .await;
    for request in [
        json!({"cmd": "token_add"}),
        json!({"cmd": "token_add", "user": "other"}),
        json!({"cmd": "user_add", "user": "carol", "password": PASSWORD, "admin": true}),
        json!({"cmd": "user_set", "user": "alice", "admin": true}),
        json!({"cmd": "user_passwd", "user": "other", "password": "battery staple"}),
    ] {
        thief.fails(request, "denied").await;
    }
    thief
        .ok(json!({"cmd": "user_passwd", "user": "alice", "password": "battery staple"}))
        .await;
}

#[tokio::test]
async fn of_two_administrators_that_demote_each_other_one_remains() {
    let (server, mut root) = start().await;
    server.add_admin("other").await;
    let mut other = server.log_in("other").await;
    root.ok(json!({"cmd": "user_set", "user": "other", "admin": false}))
        .await;
    // Immediately, while the session still has its cached right.
    for request in [
        json!({"cmd": "user_set", "user": "root", "admin": false}),
        json!({"cmd": "user_remove", "user": "root"}),
        json!({"cmd": "user_add", "user": "carol", "password": PASSWORD}),
        json!({"cmd": "folder_add", "folder": "team"}),
    ] {
        other.fails(request, "denied").await;
    }
}

#[tokio::test]
async fn only_administrators_manage_accounts() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    for request in [
        json!({"cmd": "user_add", "user": "carol", "password": PASSWORD}),
        json!({"cmd": "user_set", "user": "alice", "admin": true}),
        json!({"cmd": "user_passwd", "user": "bob", "password": PASSWORD}),
        json!({"cmd": "user_remove", "user": "bob"}),
        json!({"cmd": "folders"}),
        json!({"cmd": "folder_add", "folder": "team"}),
        json!({"cmd": "folder_grant", "folder": "team", "user": "alice", "rights": ["read"]}),
        json!({"cmd": "folder_revoke", "folder": "team", "user": "bob"}),
        json!({"cmd": "folder_remove", "folder": "team"}),
    ] {
        alice.fails(request, "denied").await;
    }
}

#[tokio::test]
async fn an_invalid_value_is_refused_with_its_field() {
    let (_server, mut root) = start().await;
    for (request, field) in [
        (
            json!({"cmd": "user_add", "user": "../x", "password": PASSWORD}),
            "user",
        ),
        (
            json!({"cmd": "user_add", "user": "carol", "password": "1234567"}),
            "password",
        ),
        (json!({"cmd": "user_set", "user": "alice"}), "user"),
        (
            json!({"cmd": "user_set", "user": "alice", "limit": 1, "no_limit": true}),
            "no_limit",
        ),
        (json!({"cmd": "folder_add", "folder": ".."}), "folder"),
        (
            json!({"cmd": "folder_grant", "folder": "x", "user": "alice", "rights": ["fly"]}),
            "rights",
        ),
        (
            json!({"cmd": "folder_grant", "folder": "x", "user": "alice", "rights": ["rw"]}),
            "rights",
        ),
        (
            json!({"cmd": "folder_grant", "folder": "x", "user": "alice", "rights": ["list,read"]}),
            "rights",
        ),
        (json!({"cmd": "users", "cursor": "Not a name"}), "cursor"),
        (json!({"cmd": "folders", "cursor": ""}), "cursor"),
        (json!({"cmd": "tokens", "cursor": "-1"}), "cursor"),
        (json!({"cmd": "tokens", "cursor": "+1"}), "cursor"),
    ] {
        let (code, error) = root.error(request.clone()).await;
        assert_eq!(
            (&*code, &error["field"]),
            ("bad_request", &json!(field)),
            "{request}"
        );
    }
}
