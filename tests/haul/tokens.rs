//! Users make, list and revoke their own tokens over the wire.

use serde_json::{Value, json};

use crate::harness::{PASSWORD, RawClient, TestServer};

async fn log_in_with(server: &TestServer, token: &Value) -> RawClient {
    let mut client = server.connect().await;
    client.ok(json!({"cmd": "login", "token": token})).await;
    client
}

#[tokio::test]
async fn a_token_is_made_listed_used_and_revoked() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let made = json!({"cmd": "token_add", "label": "backup"});
    let made = alice.ok(made).await;
    let (number, expires) = (made["number"].clone(), made["expires"].clone());
    let year: jiff::Timestamp = expires.as_str().expect("a time").parse().expect("a time");
    let days = year.duration_since(jiff::Timestamp::now()).as_hours() / 24;
    assert!((364..=365).contains(&days), "{days}");

    let mut program = log_in_with(&server, &made["token"]).await;
    let mut listed = program.ok(json!({"cmd": "tokens"})).await;
    let created = listed["tokens"][0]
        .as_object_mut()
        .expect("a token")
        .remove("created");
    assert!(created.is_some());
    assert_eq!(
        listed,
        json!({"tokens": [
            {"number": number, "label": "backup", "expires": expires, "current": true}
        ]})
    );
    let listed = alice.ok(json!({"cmd": "tokens"})).await;
    assert_eq!(listed["tokens"][0].get("current"), None);

    // A session may revoke its own token, and ends with it.
    let remove = json!({"cmd": "token_remove", "number": number});
    assert_eq!(program.ok(remove.clone()).await, json!({}));
    assert_eq!(program.event().await["reason"], "account_closed");
    alice.fails(remove, "not_found").await;
    let mut again = server.connect().await;
    let login = json!({"cmd": "login", "token": made["token"]});
    again.fails(login, "login_failed").await;
}

#[tokio::test]
async fn a_session_by_token_cannot_make_a_token() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let made = alice.ok(json!({"cmd": "token_add"})).await;
    let mut thief = log_in_with(&server, &made["token"]).await;
    for request in [
        json!({"cmd": "token_add"}),
        json!({"cmd": "token_add", "user": "alice"}),
    ] {
        thief.fails(request, "denied").await;
    }
    let listed = alice.ok(json!({"cmd": "tokens"})).await;
    assert_eq!(listed["tokens"].as_array().expect("a list").len(), 1);
}

#[tokio::test]
async fn a_change_of_the_password_leaves_tokens_valid() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let made = alice.ok(json!({"cmd": "token_add"})).await;
    alice
        .ok(json!({"cmd": "passwd", "old": PASSWORD, "new": "battery staple"}))
        .await;
    log_in_with(&server, &made["token"]).await;
}

#[tokio::test]
async fn only_an_admin_lists_makes_or_revokes_tokens_of_other_users() {
    let server = TestServer::start().await;
    let mut bob = server.log_in("bob").await;
    let made = bob.ok(json!({"cmd": "token_add"})).await;
    let mut alice = server.log_in("alice").await;
    let number = &made["number"];
    for request in [
        json!({"cmd": "tokens", "user": "bob"}),
        json!({"cmd": "token_add", "user": "bob"}),
        json!({"cmd": "token_remove", "user": "bob", "number": number}),
    ] {
        alice.fails(request, "denied").await;
    }
    let own = json!({"cmd": "token_remove", "number": number});
    alice.fails(own, "not_found").await;
    log_in_with(&server, &made["token"]).await;
}

#[tokio::test]
async fn an_invalid_expiry_and_an_invalid_label_are_refused_with_their_fields() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    for (request, field) in [
        (
            json!({"cmd": "token_add", "expires": "2001-01-31T00:00:00Z"}),
            "expires",
        ),
        (
            json!({"cmd": "token_add", "expires": "2999-01-31T00:00:00Z", "never_expires": true}),
            "never_expires",
        ),
        (json!({"cmd": "token_add", "label": "a\nb"}), "label"),
        (
            json!({"cmd": "token_add", "label": "x".repeat(101)}),
            "label",
        ),
        (json!({"cmd": "tokens", "cursor": "x"}), "cursor"),
    ] {
        let (code, error) = alice.error(request.clone()).await;
        assert_eq!(
            (&*code, &error["field"]),
            ("bad_request", &json!(field)),
            "{request}"
        );
    }
    let made = alice
        .ok(json!({"cmd": "token_add", "never_expires": true}))
        .await;
    assert_eq!(made.get("expires"), None);
}

#[tokio::test]
async fn tokens_are_listed_a_page_at_a_time() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    for label in ["a", "b", "c"] {
        alice.ok(json!({"cmd": "token_add", "label": label})).await;
    }
    let page = alice.ok(json!({"cmd": "tokens", "limit": 2})).await;
    assert_eq!(page["tokens"][1]["label"], "b");
    let next = json!({"cmd": "tokens", "limit": 2, "cursor": page["cursor"]});
    let page = alice.ok(next).await;
    assert_eq!(page["tokens"].as_array().expect("a list").len(), 1);
    assert_eq!(
        (&page["tokens"][0]["label"], page.get("cursor")),
        (&json!("c"), None)
    );
}
