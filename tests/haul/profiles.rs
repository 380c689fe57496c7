//! Profiles: `haul connect`, `use`, `profiles` and `logout`, and the tokens of devices.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::command_line::{Person, run};
use crate::harness::{PASSWORD, TestServer, control};

fn url(server: &TestServer, user: &str) -> String {
    format!("haul+plain://{user}@{}", server.address)
}

/// A user that `haul connect` has logged in as alice.
async fn connected(server: &TestServer) -> Person {
    let person = Person::for_url(url(server, "alice"));
    connect(&person, &[&person.url]).await;
    person
}

/// Runs `haul connect` with the password in the environment; returns its standard error.
async fn connect(person: &Person, args: &[&str]) -> String {
    let (output, _) = person.type_with(args, "connect", "").await;
    let stderr = text(&output);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    stderr
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

fn file(person: &Person) -> PathBuf {
    person.temp_dir.path().join("config/haul/servers.toml")
}

fn saved(person: &Person) -> String {
    fs::read_to_string(file(person)).expect("the file of profiles")
}

async fn who(person: &Person, args: &[&str], profile: Option<&str>) -> Value {
    let args = [&["--json", "whoami"], args].concat();
    let mut command = person.command(&args);
    if let Some(profile) = profile {
        command.env("HAUL_PROFILE", profile);
    }
    let (output, stdout) = run(command, "").await;
    assert!(output.status.success(), "{output:?}");
    let whoami: Value = serde_json::from_str(&stdout).expect("JSON");
    whoami["user"].clone()
}

async fn tokens(server: &TestServer) -> Vec<Value> {
    let mut alice = server.log_in("alice").await;
    let reply = alice.ok(json!({"cmd": "tokens"})).await;
    reply["tokens"].as_array().expect("a list").clone()
}

#[tokio::test]
async fn connect_saves_a_token_of_this_device_and_not_the_password() {
    let server = TestServer::start().await;
    let person = connected(&server).await;
    let saved = saved(&person);
    assert!(
        saved.contains("haul_") && !saved.contains(PASSWORD),
        "{saved}"
    );
    let listed = tokens(&server).await;
    let label = listed[0]["label"].as_str().expect("a label");
    assert!(label.starts_with("haul on "), "{label}");
    assert!(listed[0]["expires"].is_string(), "{listed:?}");

    let input = format!("{PASSWORD}\nbattery staple\n");
    let (output, _) = run(person.command(&["passwd"]), &input).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(who(&person, &[], None).await, "alice");
}

#[tokio::test]
async fn connect_again_replaces_the_token_of_this_device() {
    let server = TestServer::start().await;
    let person = connected(&server).await;
    let first = tokens(&server).await[0]["number"].clone();
    connect(&person, &[&person.url]).await;
    let listed = tokens(&server).await;
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_ne!(listed[0]["number"], first);
    assert_eq!(who(&person, &[], None).await, "alice");
}

#[tokio::test]
async fn a_second_connect_does_not_change_the_profile_of_other_terminals() {
    let server = TestServer::start().await;
    let person = connected(&server).await;
    let stderr = connect(&person, &["--as", "bob", &url(&server, "bob")]).await;
    assert!(stderr.contains("as profile bob"), "{stderr}");
    assert!(
        stderr.contains("stays the current profile; `haul use bob`"),
        "{stderr}"
    );
    assert_eq!(who(&person, &[], None).await, "alice");
    assert_eq!(who(&person, &[], Some("bob")).await, "bob");
    assert_eq!(who(&person, &["-P", "bob"], None).await, "bob");
    let alice = format!("alice@{}", server.address);
    assert_eq!(
        who(&person, &["--profile", &alice], Some("bob")).await,
        "alice"
    );

    let (out, _) = person.types(&["use", "bob"], 0).await;
    assert_eq!(out, "");
    assert_eq!(who(&person, &[], None).await, "bob");
    let (listed, _) = person.types(&["--json", "profiles"], 0).await;
    let listed: Vec<Value> = listed
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let marks: Vec<_> = listed
        .iter()
        .map(|profile| (&profile["profile"], &profile["current"], &profile["in_use"]))
        .collect();
    let (yes, no) = (json!(true), json!(false));
    assert_eq!(
        marks,
        [(&json!(alice), &no, &no), (&json!("bob"), &yes, &yes)]
    );
}

#[tokio::test]
async fn connect_with_use_makes_the_new_profile_current() {
    let server = TestServer::start().await;
    let person = connected(&server).await;
    let stderr = connect(&person, &["--use", "--as", "bob", &url(&server, "bob")]).await;
    assert!(stderr.contains("bob is the current profile"), "{stderr}");
    assert_eq!(who(&person, &[], None).await, "bob");
}

#[tokio::test]
async fn a_name_is_not_moved_to_another_server_or_user() {
    let server = TestServer::start().await;
    let person = connected(&server).await;
    let alice = format!("alice@{}", server.address);
    let bob = url(&server, "bob");
    let (output, _) = person
        .type_with(&["--as", &alice, &bob], "connect", "")
        .await;
    let stderr = text(&output);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("choose another name"), "{stderr}");
    // The token that `connect` made is revoked.
    let mut bob = server.log_in("bob").await;
    assert_eq!(
        bob.ok(json!({"cmd": "tokens"})).await,
        json!({"tokens": []})
    );
}

#[tokio::test]
async fn logout_revokes_the_token_and_removes_the_profile() {
    let server = TestServer::start().await;
    let person = connected(&server).await;
    let saved = saved(&person);
    let (_, rest) = saved.split_once("haul_").expect("a token");
    let token: String = rest.chars().take(52).collect();
    let (_, stderr) = person.types(&["logout"], 0).await;
    assert!(stderr.starts_with("removed profile alice@"), "{stderr}");
    assert_eq!(tokens(&server).await, Vec::<Value>::new());
    let mut thief = server.connect().await;
    let login = json!({"cmd": "login", "token": format!("haul_{token}")});
    thief.fails(login, "login_failed").await;
    let (_, stderr) = person.types(&["whoami"], 2).await;
    assert!(stderr.contains("no server is known"), "{stderr}");
    person.types(&["logout"], 2).await;
}

#[tokio::test]
async fn logout_removes_a_profile_whose_token_is_revoked_already() {
    let server = TestServer::start().await;
    let person = connected(&server).await;
    let number = tokens(&server).await[0]["number"].clone();
    let mut alice = server.log_in("alice").await;
    alice
        .ok(json!({"cmd": "token_remove", "number": number}))
        .await;
    person.types(&["logout"], 0).await;
    let (_, stderr) = person.types(&["profiles"], 0).await;
    assert!(stderr.starts_with("there are no profiles"), "{stderr}");
}

#[tokio::test]
async fn logout_without_the_server_removes_the_profile_and_says_that_the_token_stays_valid() {
    let server = TestServer::start().await;
    let person = connected(&server).await;
    server.stop().await;
    let (_, stderr) = person.types(&["logout"], 1).await;
    assert!(stderr.contains("token 1 is still valid"), "{stderr}");
    assert!(stderr.contains("haul token remove 1"), "{stderr}");
    person.types(&["whoami"], 2).await;
}

#[tokio::test]
async fn after_the_logout_of_the_current_profile_none_is_current() {
    let server = TestServer::start().await;
    let person = connected(&server).await;
    connect(&person, &["--as", "bob", &url(&server, "bob")]).await;
    let (_, stderr) = person.types(&["logout"], 0).await;
    assert!(stderr.contains("no profile is current now"), "{stderr}");
    let (_, stderr) = person.types(&["whoami"], 2).await;
    assert!(stderr.contains("haul use NAME"), "{stderr}");
    person.types(&["use", "bob"], 0).await;
    assert_eq!(who(&person, &[], None).await, "bob");
    let (_, stderr) = person.types(&["use", "carol"], 1).await;
    assert!(stderr.contains("there is no profile carol"), "{stderr}");
}

#[tokio::test]
async fn a_file_of_an_earlier_version_logs_in_and_loses_its_password_with_the_next_connect() {
    let server = TestServer::start().await;
    let person = Person::for_url(url(&server, "alice"));
    let path = file(&person);
    fs::create_dir_all(path.parent().expect("a directory")).expect("made");
    let old = format!(
        "server = \"{0}\"\n\n[logins.\"{0}\"]\npassword = \"{PASSWORD}\"\n",
        person.url
    );
    fs::write(&path, old).expect("written");
    assert_eq!(who(&person, &[], None).await, "alice");
    connect(&person, &[&person.url]).await;
    let saved = saved(&person);
    assert!(
        saved.contains("[profiles.") && !saved.contains(PASSWORD),
        "{saved}"
    );
    assert_eq!(who(&person, &[], None).await, "alice");
}

#[tokio::test]
async fn a_server_without_the_command_for_tokens_gets_the_password_saved() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let old_server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        answer_like_an_older_server(stream).await;
    });
    let person = Person::for_url(format!("haul+plain://alice@{address}"));
    let stderr = connect(&person, &[&person.url]).await;
    assert!(stderr.contains("the password is saved"), "{stderr}");
    assert!(saved(&person).contains(PASSWORD));
    old_server.await.expect("no panic");
}

/// Answers like a server without `token_add` until the client disconnects.
async fn answer_like_an_older_server(mut stream: TcpStream) {
    while let Ok(length) = stream.read_u32().await {
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await.expect("a frame");
        let request: Value = serde_json::from_slice(&payload).expect("JSON");
        let id = &request["id"];
        let reply = match request["cmd"].as_str() {
            Some("login") => json!({"id": id, "ok": {
                "user": "alice", "home": "/", "server": "haul/0.0.1", "session": "1"
            }}),
            Some("quit") => json!({"id": id, "ok": {}}),
            _ => json!({"id": id, "error": {
                "code": "bad_request", "message": "unknown command", "retryable": false,
                "field": "cmd"
            }}),
        };
        stream.write_all(&control(&reply)).await.expect("sent");
    }
}

#[tokio::test]
async fn own_tokens_are_listed_and_revoked_by_token_and_made_by_password() {
    let server = TestServer::start().await;
    let person = connected(&server).await;
    let (_, stderr) = person
        .types(&["token", "add", "--label", "backup"], 2)
        .await;
    assert!(stderr.contains("HAUL_PASSWORD"), "{stderr}");
    let args = ["add", "--label", "backup", "--expires", "90d"];
    let (output, made) = person.type_with(&args, "token", "").await;
    assert!(output.status.success(), "{output:?}");
    person.write("t", made.trim_end());
    let (whoami, _) = person.types(&["--token-file", "t", "whoami"], 0).await;
    assert!(whoami.contains("alice"), "{whoami}");

    let (listed, _) = person.types(&["token", "list"], 0).await;
    let lines: Vec<_> = listed.lines().collect();
    assert_eq!(lines.len(), 3, "{listed}");
    assert!(lines[1].ends_with("(in use here)"), "{listed}");
    assert!(lines[2].ends_with("backup"), "{listed}");
    person.types(&["token", "remove", "2"], 0).await;
    person.types(&["--token-file", "t", "whoami"], 3).await;
    let (_, stderr) = person.types(&["token", "remove", "2"], 1).await;
    assert!(stderr.contains("user alice has no token 2"), "{stderr}");
}

#[tokio::test]
async fn administrators_manage_a_server_remotely_as_on_its_machine() {
    let server = TestServer::start().await;
    server.add_admin("root").await;
    let person = Person::for_url(url(&server, "root"));
    connect(&person, &[&person.url]).await;
    let add = ["admin", "user", "add", "carol", "--quota", "1MiB"];
    let (output, _) = run(person.command(&add), "1234567\n").await;
    let stderr = text(&output);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("at least 8 characters"), "{stderr}");
    let (output, _) = run(person.command(&add), "battery staple\n").await;
    assert!(output.status.success(), "{output:?}");

    let (listed, _) = person.types(&["admin", "user", "list"], 0).await;
    assert!(listed.starts_with("NAME   ROLE   QUOTA"), "{listed}");
    assert!(listed.contains("\ncarol  user   1.0 MiB"), "{listed}");
    let (users, _) = person.types(&["admin", "users"], 0).await;
    assert!(users.contains("1.0 MiB"), "{users}");
    person
        .types(&["admin", "user", "disable", "carol"], 0)
        .await;
    let (listed, _) = person.types(&["--json", "admin", "user", "list"], 0).await;
    assert!(
        listed.contains("\"name\":\"carol\",\"admin\":false,\"disabled\":true"),
        "{listed}"
    );

    person.types(&["admin", "folder", "add", "team"], 0).await;
    person
        .types(&["admin", "folder", "grant", "team", "alice", "rw"], 0)
        .await;
    let (listed, _) = person.types(&["admin", "folder", "list"], 0).await;
    assert!(listed.contains("alice=rw"), "{listed}");
    person
        .types(&["admin", "folder", "remove", "team"], 0)
        .await;

    let (token, _) = person
        .types(&["admin", "token", "add", "alice", "--label", "printer"], 0)
        .await;
    person.write("t", token.trim_end());
    let (listed, _) = person.types(&["admin", "token", "list", "alice"], 0).await;
    assert!(listed.contains("printer"), "{listed}");
    person
        .types(&["admin", "token", "remove", "alice", "1"], 1)
        .await;
    person.types(&["admin", "user", "remove", "carol"], 0).await;
    let (_, stderr) = person.types(&["admin", "user", "remove", "carol"], 1).await;
    assert!(stderr.contains("there is no user carol"), "{stderr}");
    let (_, stderr) = person.types(&["admin", "user", "disable", "root"], 1).await;
    assert!(stderr.contains("your own account"), "{stderr}");
}
