//! `connect`, saved logins and `discover`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use haul::storage::SpaceLimits;
use serde_json::Value;

use crate::command_line::person::Person;
use crate::harness::TestServer;

#[tokio::test]
async fn connect_saves_the_login_in_a_private_file() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    let file = person.temp_dir.path().join("config/haul/servers.toml");
    let mode = fs::metadata(file).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (whoami, _) = person.types(&["--json", "whoami"], 0).await;
    let whoami: Value = serde_json::from_str(&whoami).expect("JSON");
    assert_eq!(whoami["user"], "alice");
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_of_simultaneous_connects_are_all_saved() {
    let server = TestServer::start().await;
    let users = ["u0", "u1", "u2", "u3", "u4", "u5"];
    for user in users {
        server.add_user(user, SpaceLimits::default()).await;
    }
    let person = Person::for_server(&server);
    let connecting = users.map(|user| {
        let url = format!("haul+plain://{user}@{}", server.address);
        let person = &person;
        async move { person.type_with(&[&url], "connect", "").await }
    });
    for (output, _) in futures::future::join_all(connecting).await {
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    let file = person.temp_dir.path().join("config/haul/servers.toml");
    let text = fs::read_to_string(file).expect("there");
    for user in users {
        assert!(text.contains(&format!("{user}@")), "{text}");
    }
}

#[tokio::test]
async fn a_damaged_file_of_profiles_is_named_and_not_replaced() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    let file = person.temp_dir.path().join("config/haul/servers.toml");
    fs::write(&file, "server = 1\nlogins = \"hunter2\"\n").expect("written");
    let (output, _) = person
        .type_with(&[&*person.url.clone()], "connect", "")
        .await;
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let (_, listed) = person.types(&["ls"], 1).await;
    for stderr in [stderr, listed] {
        assert!(
            stderr.contains("servers.toml is damaged in line") && !stderr.contains("hunter2"),
            "{stderr}"
        );
    }
    let text = fs::read_to_string(&file).expect("there");
    assert!(text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn connect_with_ask_saves_no_password() {
    let server = TestServer::start().await;
    let person = Person::for_server(&server);
    let (output, _) = person
        .type_with(&["--ask", &person.url.clone()], "connect", "")
        .await;
    assert!(output.status.success());
    let (_, stderr) = person.types(&["ls"], 2).await;
    assert!(
        stderr.starts_with("haul: ls: the password is missing"),
        "{stderr}"
    );
}

#[tokio::test]
async fn connect_with_a_wrong_password_prints_one_line() {
    let server = TestServer::start().await;
    let person = Person::for_server(&server);
    person.write("password", "wrong\n");
    let args = ["connect", &*person.url, "--password-file", "password"];
    let (_, stderr) = person.types(&args, 3).await;
    assert!(stderr.starts_with("haul: connect: login refused: "));
    assert!(!stderr.contains("anew"), "{stderr}");
}

#[tokio::test]
async fn a_token_is_not_used_for_another_user_than_the_address_names() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    let bob = "bob".parse().expect("a user name");
    let token = server.accounts.add_token(&bob, "", None).await;
    person.write("t", token.expect("a token").expose());
    let says = "the token is bob's, not alice's";
    for args in [
        &["--server", &person.url, "--token-file", "t", "whoami"][..],
        &["connect", &person.url, "--token-file", "t"],
    ] {
        let (_, stderr) = person.types(args, 3).await;
        assert!(stderr.contains(says), "{stderr}");
    }
    let nobody = format!("haul+plain://{}", server.address);
    let args = ["--server", &nobody, "--token-file", "t", "whoami"];
    assert!(person.types(&args, 0).await.0.contains("bob"));
}

#[tokio::test]
async fn discover_lists_the_answering_servers_and_fails_without_any() {
    let server = TestServer::start().await;
    let person = Person::for_server(&server);
    let address = server.address.to_string();
    let (out, _) = person
        .types(&["discover", "--wait", "0.5", &address], 0)
        .await;
    let lines: Vec<_> = out.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("ADDRESS"), "{out}");
    assert!(lines[1].starts_with(&address) && lines[1].ends_with(haul::server::SERVER_VERSION));
    let (out, _) = person
        .types(&["discover", "--json", "--wait", "0.5", &address], 0)
        .await;
    let found: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(found["address"], address);
    assert_eq!(found["protocol"], 1);
    server.stop().await;
    let (out, errors) = person
        .types(&["discover", "--wait", "0.1", &address], 1)
        .await;
    assert!(out.is_empty() && errors.contains("no server"), "{errors}");
    person.types(&["discover", "--wait", "x"], 2).await;
    person.types(&["discover", "attic:x"], 2).await;
}
