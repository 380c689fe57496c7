//! Login, identity and logout.

use std::time::Duration;

use haul::accounts::UserName;
use haul::protocol::{Request, Secret};
use serde_json::json;

use crate::harness::{PASSWORD, Received, TestServer, control, data};

#[tokio::test]
async fn hello_describes_the_server_and_works_before_login() {
    let server = TestServer::start().await;
    let hello = server.connect().await.ok(json!({"cmd": "hello"})).await;
    assert_eq!(hello["protocol"], 1);
    assert_eq!(hello["max_chunk"], 1 << 20);
    assert_eq!(hello["logins"], json!(["password", "token"]));
    assert!(
        hello["time"]
            .as_str()
            .is_some_and(|time| time.ends_with('Z'))
    );
}

#[tokio::test]
async fn the_replies_to_login_and_whoami_agree() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let login = json!({"id": 1, "cmd": "login", "user": "alice", "password": PASSWORD});
    let welcome = client.ok(login).await;
    assert_eq!(
        (&welcome["user"], &welcome["home"]),
        (&json!("alice"), &json!("/"))
    );
    let me = client.ok(json!({"cmd": "whoami"})).await;
    assert_eq!(
        (&me["user"], &me["admin"]),
        (&json!("alice"), &json!(false))
    );
    assert_eq!(me["session"], welcome["session"]);
}

#[tokio::test]
async fn every_command_but_hello_help_login_and_quit_needs_a_login() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    for command in [
        json!({"cmd": "whoami"}),
        json!({"cmd": "ping"}),
        json!({"cmd": "pwd"}),
        json!({"cmd": "cd", "path": "/"}),
        json!({"cmd": "ls"}),
        json!({"cmd": "stat", "path": "/"}),
        json!({"cmd": "mkdir", "path": "a"}),
        json!({"cmd": "rm", "path": "a"}),
        json!({"cmd": "mv", "from": "a", "to": "b"}),
        json!({"cmd": "cp", "from": "a", "to": "b"}),
        json!({"cmd": "get", "path": "a"}),
        json!({"cmd": "put", "path": "a"}),
        json!({"cmd": "end"}),
        json!({"cmd": "cancel", "target": 1}),
        json!({"cmd": "hash", "path": "a"}),
        json!({"cmd": "df"}),
    ] {
        client.fails(command, "not_logged_in").await;
    }
    let help = client.ok(json!({"cmd": "help"})).await;
    assert!(
        help["commands"]
            .as_array()
            .is_some_and(|commands| commands.len() >= 20)
    );
    client.ok(json!({"cmd": "quit"})).await;
    assert_eq!(client.receive().await, Received::Closed);
}

#[tokio::test]
async fn before_login_the_login_is_checked_before_the_fields() {
    let server = TestServer::start_with(|config| config.limits.frames_before_login = 1000).await;
    let mut client = server.connect().await;
    for command in Request::COMMANDS {
        let malformed = json!({"cmd": command.name, "colour": "red"});
        let code = if command.works_before_login {
            "bad_request"
        } else {
            "not_logged_in"
        };
        client.fails(malformed, code).await;
    }
}

#[tokio::test]
async fn commands_for_admins_are_denied_to_other_users() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let admin_only = Request::COMMANDS
        .iter()
        .filter(|command| command.is_admin_only);
    for command in admin_only {
        let mut request = json!({"cmd": command.name});
        if command.name == "kick" {
            request["user"] = json!("bob");
        }
        alice.fails(request, "denied").await;
    }
}

#[tokio::test]
async fn an_unknown_user_and_a_wrong_password_get_the_same_answer_and_may_try_again() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let wrong = json!({"cmd": "login", "user": "alice", "password": "wrong"});
    let unknown = json!({"cmd": "login", "user": "nobody", "password": "wrong"});
    let (code, first) = client.error(wrong).await;
    let (_, second) = client.error(unknown).await;
    assert_eq!(code, "login_failed");
    assert_eq!(first, second);
    client
        .ok(json!({"cmd": "login", "user": "alice", "password": PASSWORD}))
        .await;
}

#[tokio::test]
async fn a_login_needs_user_and_password_or_a_token_and_names_what_is_missing() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    for (login, field) in [
        (json!({"cmd": "login"}), "user"),
        (json!({"cmd": "login", "user": "alice"}), "password"),
        (
            json!({"cmd": "login", "user": "alice", "password": "x", "token": "y"}),
            "token",
        ),
    ] {
        let (code, error) = client.error(login).await;
        assert_eq!(
            (code.as_str(), &error["field"]),
            ("bad_request", &json!(field))
        );
    }
}

#[tokio::test]
async fn a_program_logs_in_with_a_token() {
    let server = TestServer::start().await;
    let alice: UserName = "alice".parse().expect("a name");
    let token = server
        .accounts
        .add_token(&alice, "backup", None)
        .await
        .expect("a token");
    let mut client = server.connect().await;
    let welcome = client
        .ok(json!({"cmd": "login", "token": token.expose()}))
        .await;
    assert_eq!(welcome["user"], "alice");
    let mut other = server.connect().await;
    other
        .fails(json!({"cmd": "login", "token": "haul_x"}), "login_failed")
        .await;
}

#[tokio::test]
async fn a_second_login_is_refused_and_the_session_keeps_its_user() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    let again = json!({"cmd": "login", "user": "bob", "password": PASSWORD});
    client.fails(again, "bad_request").await;
    assert_eq!(client.ok(json!({"cmd": "whoami"})).await["user"], "alice");
}

#[tokio::test]
async fn requests_may_follow_a_login_without_waiting_for_it() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let mut burst =
        control(&json!({"id": 1, "cmd": "login", "user": "alice", "password": PASSWORD}));
    burst.extend(control(&json!({"id": 2, "cmd": "mkdir", "path": "d"})));
    burst.extend(control(&json!({"id": 3, "cmd": "cd", "path": "d"})));
    burst.extend(control(&json!({"id": 4, "cmd": "put", "path": "f"})));
    burst.extend(data(4, &vec![b'x'; 100_000]));
    burst.extend(control(&json!({"id": 4, "cmd": "end"})));
    burst.extend(control(&json!({"id": 5, "cmd": "quit"})));
    client.send_bytes(&burst).await;
    for id in 1..=3 {
        assert_eq!(client.reply().await["id"], id);
    }
    assert_eq!(client.final_reply(4).await["ok"]["path"], "/d/f");
    assert_eq!(client.reply().await["id"], 5);
    assert_eq!(client.receive().await, Received::Closed);
}

#[tokio::test]
async fn ping_returns_the_time_and_help_explains_one_command() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    assert!(client.ok(json!({"cmd": "ping"})).await["time"].is_string());
    let help = client.ok(json!({"cmd": "help", "about": "mv"})).await;
    assert_eq!(help["commands"][0]["fields"], "from to [if_exists]");
    client
        .fails(json!({"cmd": "help", "about": "fly"}), "bad_request")
        .await;
}

#[tokio::test]
async fn a_session_of_a_removed_account_gets_a_goodbye_and_ends() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    server
        .accounts
        .remove_user(&"alice".parse().expect("a name"))
        .await
        .expect("removed");
    let Received::Control(event) = client.receive().await else {
        panic!("expected an event");
    };
    assert_eq!(
        event,
        json!({"event": "goodbye", "reason": "account_closed"})
    );
    assert_eq!(client.receive().await, Received::Closed);
}

#[tokio::test]
async fn a_password_changed_by_the_operator_is_the_one_for_the_next_login() {
    let server = TestServer::start().await;
    let alice = "alice".parse().expect("a name");
    let new = Secret::new("battery staple".into());
    server
        .accounts
        .set_password(&alice, &new)
        .await
        .expect("set");
    let mut client = server.connect().await;
    let old = json!({"cmd": "login", "user": "alice", "password": PASSWORD});
    client.fails(old, "login_failed").await;
    client
        .ok(json!({"cmd": "login", "user": "alice", "password": "battery staple"}))
        .await;
}

#[tokio::test]
async fn a_stopping_server_says_goodbye_and_lets_a_put_end() {
    let server = TestServer::start().await;
    let mut idle = server.log_in("bob").await;
    let mut busy = server.log_in("alice").await;
    busy.send(json!({"id": 7, "cmd": "put", "path": "f", "size": 6}))
        .await;
    assert!(busy.reply().await["begin"].is_object());
    server.begin_shutdown();
    let goodbye = Received::Control(json!({"event": "goodbye", "reason": "shutting_down"}));
    assert_eq!(idle.receive().await, goodbye);
    assert_eq!(idle.receive().await, Received::Closed);
    assert_eq!(busy.receive().await, goodbye);
    busy.fails(json!({"id": 8, "cmd": "ls"}), "shutting_down")
        .await;
    busy.send_bytes(&data(7, b"abcdef")).await;
    busy.send(json!({"id": 7, "cmd": "end"})).await;
    assert_eq!(busy.final_reply(7).await["ok"]["size"], 6);
    assert_eq!(busy.receive().await, Received::Closed);
    let home = server.home("alice");
    let _data = server.stop().await;
    assert_eq!(std::fs::read(home.join("f")).expect("the file"), b"abcdef");
}

#[tokio::test]
async fn a_stopping_server_cuts_off_transfers_that_exceed_the_drain_timeout() {
    let server = TestServer::start_with(|config| {
        config.limits.drain_timeout = Duration::from_millis(200);
    })
    .await;
    let mut busy = server.log_in("alice").await;
    busy.send(json!({"id": 7, "cmd": "put", "path": "f", "size": 6}))
        .await;
    assert!(busy.reply().await["begin"].is_object());
    let home = server.home("alice");
    let _data = server.stop().await;
    assert!(!home.join("f").exists());
}

#[tokio::test]
async fn two_sessions_of_one_user_have_each_their_own_directory() {
    let server = TestServer::start().await;
    let mut first = server.log_in("alice").await;
    let mut second = server.log_in("alice").await;
    first.ok(json!({"cmd": "mkdir", "path": "d"})).await;
    first.ok(json!({"cmd": "cd", "path": "d"})).await;
    assert_eq!(first.ok(json!({"cmd": "pwd"})).await["cwd"], "/d");
    assert_eq!(second.ok(json!({"cmd": "pwd"})).await["cwd"], "/");
}
