//! RELIABILITY, Login and Process: the limits of connections without a login, of an address and of
//! a user, and their effect on others.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use haul::accounts::{Accounts, HashingCost};
use haul::config::Config;
use haul::server::Server;
use haul::storage::Store;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::daemon::ServerProcess;
use crate::harness::{PASSWORD, RawClient, Received, TestServer, control, data, soon};

/// A connection from another address of this machine.
async fn connect_from(last: u8, address: SocketAddr) -> RawClient {
    let socket = TcpSocket::new_v4().expect("a socket");
    let from = Ipv4Addr::new(127, 0, 0, last);
    socket.bind((from, 0).into()).expect("an address");
    let stream = socket.connect(address).await.expect("the server listens");
    let events = Vec::new();
    RawClient { stream, events }
}

fn login(user: &str, password: &str) -> Value {
    json!({"cmd": "login", "user": user, "password": password})
}

/// A session of `user`, once the limits allow it.
async fn log_in_soon(server: &TestServer, user: &str) -> RawClient {
    soon("a place for a session", async || {
        let mut client = server.connect().await;
        let reply = client.call(login(user, PASSWORD)).await;
        if reply["ok"].is_object() {
            return Some(client);
        }
        assert_eq!(reply["error"]["code"], "limited", "{reply}");
        None
    })
    .await
}

/// Whether the connection gets a reply.
async fn is_served(client: &mut RawClient) -> bool {
    let hello = control(&json!({"cmd": "hello"}));
    // The connection may be closed before the write.
    let written = client.stream.write_all(&hello).await;
    written.is_ok() && client.receive().await != Received::Closed
}

#[tokio::test]
async fn the_connections_of_an_address_are_limited_until_one_ends() {
    let server = TestServer::start_with(|config| config.limits.sessions_per_address = 3).await;
    let mut members = Vec::new();
    for _ in 0..3 {
        members.push(server.log_in("alice").await);
    }
    let mut refused = server.connect().await;
    assert_eq!(refused.closes().await, None);
    let mut elsewhere = connect_from(2, server.address).await;
    elsewhere.ok(login("bob", PASSWORD)).await;
    for member in &mut members {
        member.ok(json!({"cmd": "ping"})).await;
    }
    members.pop();
    soon("a place for a connection", async || {
        let mut client = server.connect().await;
        is_served(&mut client).await.then_some(())
    })
    .await;
}

#[tokio::test]
async fn at_the_connection_limit_a_login_evicts_the_oldest_silent_connection() {
    let server = TestServer::start_with(|config| {
        config.limits.sessions = 4;
        config.limits.login_timeout = Duration::from_hours(1);
    })
    .await;
    let mut first = server.log_in("alice").await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        let mut client = server.connect().await;
        client.ok(json!({"cmd": "hello"})).await;
        silent.push(client);
    }
    let mut second = server.log_in("bob").await;
    let refusal = silent[0].closes().await.expect("a refusal");
    assert_eq!(refusal["error"]["code"], "limited", "{refusal}");
    assert!(refusal["error"]["retry_after_ms"].is_u64(), "{refusal}");
    assert!(is_served(&mut silent[1]).await && is_served(&mut silent[2]).await);
    let mut others = [server.log_in("alice").await, server.log_in("bob").await];
    for member in others.iter_mut().chain([&mut first, &mut second]) {
        member.ok(json!({"cmd": "ping"})).await;
    }
    // All sessions are logged in, so the next connection waits until one ends.
    let mut waiting = server.connect().await;
    waiting.send(login("alice", PASSWORD)).await;
    first.ok(json!({"cmd": "quit"})).await;
    assert!(waiting.reply().await["ok"].is_object());
}

#[tokio::test]
async fn silent_connections_far_over_the_limit_do_not_prevent_a_login() {
    let server = TestServer::start_with(|config| {
        config.limits.sessions = 8;
        config.limits.sessions_per_address = 0;
        config.limits.login_timeout = Duration::from_hours(1);
    })
    .await;
    let mut member = server.log_in("alice").await;
    let mut silent = Vec::new();
    for number in 0..800 {
        silent.push(server.connect().await);
        if number % 100 == 0 {
            server.log_in("bob").await.ok(json!({"cmd": "quit"})).await;
        }
    }
    member.ok(json!({"cmd": "ping"})).await;
}

#[tokio::test]
async fn a_connection_that_reads_nothing_is_evicted_as_a_silent_one() {
    let server = TestServer::start_with(|config| {
        config.limits.sessions = 2;
        config.limits.frames_before_login = 1_000_000;
        config.limits.login_timeout = Duration::from_hours(1);
        config.limits.write_timeout = Duration::from_hours(1);
    })
    .await;
    let help = control(&json!({"cmd": "help"})).repeat(1000);
    let mut deaf = [server.connect().await, server.connect().await];
    for client in &mut deaf {
        // Write until the server waits for the client to read.
        while let Ok(sent) = timeout(Duration::from_millis(500), client.stream.write(&help)).await {
            sent.expect("open");
        }
    }
    for user in ["alice", "bob"] {
        server.log_in(user).await.ok(json!({"cmd": "quit"})).await;
    }
}

#[tokio::test]
async fn the_sessions_of_a_user_are_limited_and_the_error_says_so() {
    let server = TestServer::start_with(|config| config.limits.sessions_per_user = 2).await;
    let mut first = server.log_in("alice").await;
    let _second = server.log_in("alice").await;
    let mut third = server.connect().await;
    let (code, error) = third.error(login("alice", PASSWORD)).await;
    assert_eq!(code, "limited", "{error}");
    assert!(error["retry_after_ms"].is_u64(), "{error}");
    third.ok(login("bob", PASSWORD)).await;
    first.ok(json!({"cmd": "quit"})).await;
    log_in_soon(&server, "alice").await;
}

#[tokio::test]
async fn an_idle_session_gets_a_goodbye_and_a_slow_transfer_is_not_idle() {
    let server = TestServer::start_with(|config| {
        config.limits.idle_timeout = Some(Duration::from_millis(300));
    })
    .await;
    let mut slow = server.connect().await;
    let put = json!({"id": 7, "cmd": "put", "path": "slow"});
    let begin = [
        control(&login("alice", PASSWORD)),
        control(&put),
        data(7, b"sl"),
    ];
    slow.send_bytes(&begin.concat()).await;
    let goodbye = Received::Control(json!({"event": "goodbye", "reason": "idle"}));
    // Twice the time after which the slow transfer would end as idle.
    let mut idle = pin!(async {
        for _ in 0..2 {
            let mut idle = server.log_in("bob").await;
            assert_eq!(idle.receive().await, goodbye);
            assert_eq!(idle.receive().await, Received::Closed);
        }
    });
    let mut size = 2;
    loop {
        tokio::select! {
            () = &mut idle => break,
            () = sleep(Duration::from_millis(10)) => {
                slow.send_bytes(&data(7, b"o")).await;
                size += 1;
            }
        }
    }
    slow.send_bytes(&control(&json!({"id": 7, "cmd": "end"})))
        .await;
    let reply = slow.final_reply(0).await;
    assert!(reply["ok"].is_object(), "{reply}");
    let reply = slow.final_reply(7).await;
    assert_eq!(reply["ok"]["size"], size, "{reply}");
    assert_eq!(slow.receive().await, goodbye);
}

#[tokio::test]
async fn too_many_requests_before_a_login_close_the_connection_with_an_error() {
    let server = TestServer::start_with(|config| config.limits.frames_before_login = 3).await;
    let mut client = server.connect().await;
    for _ in 0..3 {
        client.ok(json!({"cmd": "hello"})).await;
    }
    client.send(json!({"cmd": "hello"})).await;
    client.refuses("limited").await;
    let mut member = server.log_in("alice").await;
    for _ in 0..10 {
        member.ok(json!({"cmd": "ping"})).await;
    }
}

#[tokio::test]
async fn after_five_failures_every_login_is_delayed_whether_the_user_exists_or_not() {
    let server = TestServer::start().await;
    let mut answers = Vec::new();
    for user in ["alice", "nobody"] {
        let mut guesser = server.connect().await;
        for _ in 0..5 {
            guesser.fails(login(user, "guess"), "login_failed").await;
        }
        let (code, mut error) = guesser.error(login(user, PASSWORD)).await;
        assert_eq!(code, "too_many_attempts", "{error}");
        let wait = error["retry_after_ms"].take().as_u64().expect("a number");
        assert!((1..=1000).contains(&wait), "{wait}");
        answers.push(error);
    }
    assert_eq!(answers[0], answers[1]);
    // Other users at this address, and the user from other addresses, are not affected.
    server.log_in("bob").await;
    let mut victim = connect_from(2, server.address).await;
    victim.ok(login("alice", PASSWORD)).await;
    // A token is not accepted as a password.
    let name = "alice".parse().expect("a name");
    let token = server
        .accounts
        .add_token(&name, "", None)
        .await
        .expect("made");
    let mut program = server.connect().await;
    program
        .ok(json!({"cmd": "login", "token": token.expose()}))
        .await;
}

#[tokio::test]
async fn after_the_back_off_a_login_with_the_right_password_succeeds() {
    let server = TestServer::start_with(|config| {
        config.auth.back_off = Duration::from_millis(50);
        config.auth.attempts_per_connection = 1000;
        config.limits.frames_before_login = 1000;
        config.limits.login_timeout = Duration::from_hours(1);
    })
    .await;
    let mut client = server.connect().await;
    for _ in 0..5 {
        client.fails(login("alice", "guess"), "login_failed").await;
    }
    soon("a login after the waits", async || {
        let reply = client.call(login("alice", PASSWORD)).await;
        if reply["ok"].is_object() {
            return Some(());
        }
        let wait = reply["error"]["retry_after_ms"].as_u64();
        sleep(Duration::from_millis(wait.expect("how long"))).await;
        None
    })
    .await;
    let mut again = server.connect().await;
    again.fails(login("alice", "guess"), "login_failed").await;
}

#[tokio::test]
async fn a_connection_on_which_ten_logins_failed_is_closed() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    for number in 0..10 {
        let (code, _) = client.error(login("alice", "guess")).await;
        let expected = if number < 5 {
            "login_failed"
        } else {
            "too_many_attempts"
        };
        assert_eq!(code, expected, "{number}");
    }
    client.refuses("too_many_attempts").await;
}

#[tokio::test]
async fn every_login_of_a_flood_is_answered_and_members_can_still_log_in() {
    let daemon = ServerProcess::start();
    let address = daemon.address.parse().expect("an address");
    let mut flood = JoinSet::new();
    for number in 0..100 {
        let mut client = RawClient::connect(address).await;
        flood.spawn(async move {
            let user = format!("user{number}");
            client.error(login(&user, "guess")).await.0
        });
    }
    let token = daemon.token();
    daemon.log_in(&token).await;
    let mut member = connect_from(2, address).await;
    soon("the member's turn", async || {
        let reply = member.call(login("admin", PASSWORD)).await;
        (reply["error"]["code"] != "limited").then_some(())
    })
    .await;
    member.ok(json!({"cmd": "ping"})).await;
    let mut hashed = 0;
    while let Some(code) = flood.join_next().await {
        match &*code.expect("answered") {
            "login_failed" => hashed += 1,
            "limited" | "too_many_attempts" => {}
            other => panic!("{other}"),
        }
    }
    // Twenty failures of the address, and the attempts in progress at that time.
    assert!((1..=36).contains(&hashed), "{hashed} passwords were hashed");
}

#[tokio::test]
async fn a_login_whose_password_is_not_hashed_in_time_ends_at_the_login_deadline() {
    let temp_dir = tempfile::tempdir().expect("a directory");
    let slow = HashingCost {
        memory_kib: 19 * 1024,
        passes: 100,
    };
    let accounts = Accounts::open(temp_dir.path()).await.expect("accounts");
    let accounts = accounts.with_hashing_cost(slow).with_hashing_slots(1);
    let mut config = Config::default();
    config.limits.login_timeout = Duration::from_millis(500);
    let server = Server::new(
        accounts,
        Store::open(temp_dir.path()).expect("a store"),
        haul::messages::Messages::open(temp_dir.path())
            .await
            .expect("messages"),
        config,
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { server.run(listener, stop).await }
    });
    let mut clients = [
        RawClient::connect(address).await,
        RawClient::connect(address).await,
    ];
    for client in &mut clients {
        client.send(login("nobody", "guess")).await;
    }
    for client in &mut clients {
        client.refuses("timed_out").await;
    }
    stop.cancel();
    running.await.expect("no panic");
}

#[tokio::test]
async fn denied_networks_cannot_connect_and_with_an_allow_list_only_its_networks_can() {
    let server = TestServer::start_with(|config| {
        config.network.allow = vec!["127.0.0.0/30".parse().expect("a network")];
        config.network.deny = vec!["127.0.0.2/32".parse().expect("a network")];
    })
    .await;
    server.log_in("alice").await;
    let mut denied = connect_from(2, server.address).await;
    assert_eq!(denied.closes().await, None);
    connect_from(3, server.address)
        .await
        .ok(login("bob", PASSWORD))
        .await;
    let mut elsewhere = connect_from(4, server.address).await;
    assert_eq!(elsewhere.closes().await, None);
}

/// A PROXY header of version 2 for a connection from this address.
fn proxy_header(from: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend(from);
    header.extend([10, 0, 0, 1, 0x12, 0x34, 0x23, 0x28]);
    header
}

async fn behind_a_balancer(change: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::start_with(|config| {
        config.network.proxies = vec!["127.0.0.1/32".parse().expect("a network")];
        config.network.deny = vec!["203.0.113.66/32".parse().expect("a network")];
        config.auth.plaintext_logins = true;
        change(config);
    })
    .await
}

#[tokio::test]
async fn every_limit_applies_to_the_client_that_a_balancer_names() {
    let server = behind_a_balancer(|config| config.limits.sessions_per_address = 1).await;
    let connect = async |last| {
        let mut client = server.connect().await;
        client.send_bytes(&proxy_header([203, 0, 113, last])).await;
        client
    };
    let mut first = connect(7).await;
    first.ok(login("alice", PASSWORD)).await;
    assert_eq!(connect(7).await.closes().await, None);
    assert_eq!(connect(66).await.closes().await, None);
    let mut guesser = connect(8).await;
    for _ in 0..5 {
        guesser.fails(login("bob", "guess"), "login_failed").await;
    }
    guesser
        .fails(login("bob", PASSWORD), "too_many_attempts")
        .await;
    connect(9).await.ok(login("bob", PASSWORD)).await;
}

#[tokio::test]
async fn a_client_named_by_a_balancer_is_never_local() {
    let server = behind_a_balancer(|config| config.auth.plaintext_logins = false).await;
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec();
    for header in [proxy_header([127, 0, 0, 1]), local] {
        let mut client = server.connect().await;
        client.send_bytes(&header).await;
        client.ok(json!({"cmd": "hello"})).await;
        client.fails(login("alice", PASSWORD), "denied").await;
    }
}

#[tokio::test]
async fn a_header_may_arrive_byte_by_byte_and_an_invalid_or_missing_one_ends_the_connection() {
    let server = behind_a_balancer(|_| {}).await;
    let mut patient = server.connect().await;
    for byte in proxy_header([203, 0, 113, 7]) {
        patient.send_bytes(&[byte]).await;
    }
    patient.ok(login("alice", PASSWORD)).await;
    let mut bent = proxy_header([203, 0, 113, 7]);
    bent[11] = 0;
    let mut long = proxy_header([203, 0, 113, 7]);
    long[14] = 0xff;
    let text = b"PROXY TCP4 203.0.113.7 10.0.0.1 4660 9000\r\n".to_vec();
    for bytes in [bent, long, text, control(&json!({"cmd": "hello"}))] {
        let mut client = server.connect().await;
        client.send_bytes(&bytes).await;
        assert_eq!(client.closes().await, None, "{bytes:?}");
    }
}

#[tokio::test]
async fn an_incomplete_header_ends_the_connection_at_the_login_deadline() {
    let server = behind_a_balancer(|config| {
        config.limits.login_timeout = Duration::from_millis(300);
    })
    .await;
    let mut client = server.connect().await;
    client
        .send_bytes(&proxy_header([203, 0, 113, 7])[..20])
        .await;
    assert_eq!(client.closes().await, None);
}

#[tokio::test]
async fn a_header_from_an_address_that_is_no_balancer_is_junk() {
    let server = behind_a_balancer(|_| {}).await;
    let mut stranger = connect_from(2, server.address).await;
    stranger.send_bytes(&proxy_header([127, 0, 0, 1])).await;
    assert_eq!(stranger.closes().await, None);
    connect_from(2, server.address)
        .await
        .ok(login("alice", PASSWORD))
        .await;
}

#[tokio::test]
async fn a_slow_reader_is_disconnected_at_the_write_deadline_while_others_are_served() {
    let server = TestServer::start_with(|config| {
        config.limits.write_timeout = Duration::from_millis(300);
        config.limits.sessions_per_user = 1;
    })
    .await;
    server.log_in("bob").await.ok(json!({"cmd": "quit"})).await;
    let file = std::fs::File::create(server.home("bob").join("large")).expect("a file");
    file.set_len(1 << 30).expect("a sparse file");
    let mut slow = log_in_soon(&server, "bob").await;
    slow.send(json!({"id": 7, "cmd": "get", "path": "large"}))
        .await;
    let mut other = server.log_in("alice").await;
    // While the slow session exists, bob cannot log in again.
    soon("the end of the slow one", async || {
        other.ok(json!({"cmd": "ping"})).await;
        let reply = server.connect().await.call(login("bob", PASSWORD)).await;
        if reply["ok"].is_object() {
            return Some(());
        }
        assert_eq!(reply["error"]["code"], "limited", "{reply}");
        None
    })
    .await;
}

#[tokio::test]
async fn without_free_descriptors_the_oldest_connections_without_a_login_are_evicted_for_a_member()
{
    let daemon = ServerProcess::start_with_descriptors(60);
    let token = daemon.token();
    let mut member = daemon.log_in(&token).await;
    let mut strangers = Vec::new();
    for _ in 0..100 {
        let mut client = RawClient::connect(&daemon.address).await;
        client.ok(json!({"cmd": "hello"})).await;
        strangers.push(client);
    }
    strangers[0].refuses("limited").await;
    let mut next = daemon.log_in(&token).await;
    next.put("file.txt", b"content").await;
    member.ok(json!({"cmd": "hash", "path": "file.txt"})).await;
    drop((member, next, strangers));
    let stopped = daemon.terminate();
    let refused = |line: &&Value| line["event"] == "not_accepting";
    let refused = stopped.lines().iter().filter(refused).count();
    assert!(refused <= 1, "{refused} lines say the same");
}
