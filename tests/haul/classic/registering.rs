//! Registration: users create their own accounts if the settings allow it.

use haul::config::Config;
use haul::server::Peer;
use serde_json::json;

use super::frame;
use crate::harness::TestServer;

async fn open(change: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::start_with(|config| {
        config.auth.register = true;
        change(config);
    })
    .await
}

#[tokio::test]
async fn registering_is_refused_unless_the_settings_allow_it() {
    let server = TestServer::start().await;
    let mut client = server.connect_classic().await;
    let res = client.order("register carol mysecret").await;
    assert!(
        res.starts_with("this server does not let users create accounts"),
        "{res}"
    );
    let res = client.order("login carol mysecret").await;
    assert!(res.starts_with("wrong user name or password"), "{res}");
}

#[tokio::test]
async fn a_registered_user_can_log_in_and_has_the_quota_of_the_settings() {
    let server = open(|config| config.auth.register_quota = 1000).await;
    let mut client = server.connect_classic().await;
    let register = json!({"cmd": "register", "user": "carol", "psd": "my secret"});
    let res = client.ask(register).await;
    assert_eq!(
        res,
        "created the account carol; log in with: login carol PASSWORD"
    );
    assert_eq!(
        client.order("pwd").await,
        "log in first: login USER PASSWORD"
    );
    let res = client.order("login carol \"my secret\"").await;
    assert_eq!(res, "logged in as carol; you are in /");
    assert!(client.order("df").await.contains(" of 1000 B used"));
    let res = client.put("a", &[0; 1001]).await;
    assert!(res.contains("quota"), "{res}");
}

#[tokio::test]
async fn a_name_that_is_taken_or_unfit_and_a_bad_password_are_refused() {
    let server = open(|_| {}).await;
    let mut client = server.connect_classic().await;
    let long = format!("register carol {}", "x".repeat(2000));
    for (line, why) in [
        ("register alice mysecret", "user alice already exists"),
        ("register ../x mysecret", "a name is 1 to 32"),
        ("register Carol mysecret", "a name is 1 to 32"),
        (&*long, "longer than"),
        ("register carol secret", "at least 8 characters"),
        ("register carol", "usage: register"),
    ] {
        let res = client.order(line).await;
        assert!(res.contains(why), "{line}: {res}");
    }
    client.log_in("alice").await;
}

#[tokio::test]
async fn registering_is_throttled_like_logins() {
    let server = open(|config| {
        config.auth.attempts = 1;
        config.limits.frames_before_login = 1000;
    })
    .await;
    let mut client = server.connect_classic().await;
    let mut made = 0;
    loop {
        let res = client.order(&format!("register user{made} mysecret")).await;
        if res.starts_with("too many logins failed") {
            break;
        }
        assert!(res.starts_with("created the account"), "{res}");
        made += 1;
        assert!(made < 10, "there is no end");
    }
    assert_eq!(made, 4, "four times as many as of one account");
}

#[tokio::test]
async fn another_machine_cannot_register_without_encryption() {
    let server = open(|_| {}).await;
    let address = "192.0.2.7:5000".parse().expect("an address");
    let mut client = server.pipe_classic(4096, Peer::plain(address));
    for line in ["register carol mysecret", "login alice secret"] {
        client.send(&frame(&json!({"cmd": line}))).await;
        let res = client.res().await;
        assert!(res.contains("without encryption"), "{res}");
    }
}
