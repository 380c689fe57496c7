//! Signed requests, and datagrams that the server drops.

use std::time::Duration;

use haul::config::Config;
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::daemon::ServerProcess;
use crate::datagrams::raw_client::RawDatagrams;
use crate::datagrams::{ack, dropped, say};
use crate::harness::{TestServer, soon};

#[tokio::test]
async fn a_signed_request_gets_a_signed_reply_with_its_id() {
    let server = TestServer::start().await;
    let mut session = server.log_in("alice").await;
    let client = RawDatagrams::new(&mut session, server.address).await;
    let reply = client.call(ack(7, 1)).await;
    assert_eq!(reply, json!({"id": 7, "ok": {}}));
    let reply = client
        .call(json!({"id": 8, "cmd": "rm", "path": "/"}))
        .await;
    assert_eq!(
        (&reply["id"], &reply["error"]["code"]),
        (&json!(8), &json!("bad_request"))
    );
    assert_eq!(reply["error"]["field"], "cmd");
    server.stop().await;
}

#[tokio::test]
async fn no_reply_is_longer_than_its_request_whatever_its_length() {
    let server = TestServer::start().await;
    let mut session = server.log_in("alice").await;
    let client = RawDatagrams::new(&mut session, server.address).await;
    let mut lengths = vec![0];
    for length in (0..=1200).step_by(7) {
        for mut request in [
            json!({"cmd": "ack"}),
            json!({"cmd": "who"}),
            json!({"cmd": "x"}),
            ack(0, 1),
        ] {
            request["id"] = lengths.len().into();
            let datagram = client.datagram(request, length);
            lengths.push(datagram.len());
            client.send(&datagram).await;
        }
        // The last of the four always fits its reply; replies to others may follow it.
        loop {
            let reply = client.receive().await;
            let id = client.open(&reply)["id"].as_u64().expect("an id");
            let id = usize::try_from(id).expect("an index");
            let asked = lengths[id];
            assert!(reply.len() <= asked, "{} for {asked}", reply.len());
            if id + 1 == lengths.len() {
                break;
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_forged_datagram_or_one_without_a_ticket_is_dropped_and_counted() {
    let server = TestServer::start().await;
    let mut session = server.log_in("alice").await;
    let client = RawDatagrams::new(&mut session, server.address).await;
    let sound = client.datagram(ack(1, 1), 0);
    let stranger = RawDatagrams::stranger(server.address).await;
    let mut forged = vec![
        b"junk".to_vec(),
        Vec::new(),
        stranger.datagram(ack(1, 1), 300),
        json!({"ticket": client.ticket, "id": 1, "cmd": "ack", "seq": 1})
            .to_string()
            .into_bytes(),
        // A truncated datagram, and one over the size limit.
        sound[..sound.len() - 1].to_vec(),
        client.datagram(ack(1, 1), 1201),
    ];
    // A client that knows the id of a ticket but not its secret.
    let mut thief = RawDatagrams::stranger(server.address).await;
    thief.ticket.clone_from(&client.ticket);
    forged.push(thief.datagram(ack(1, 1), 300));
    for bit in [0, 100, 8 * (sound.len() - 65), 8 * sound.len() - 1] {
        let mut flipped = sound.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        forged.push(flipped);
    }
    for (number, datagram) in forged.iter().enumerate() {
        client.send(datagram).await;
        dropped(&server, number as u64 + 1).await;
    }
    client.send(&sound).await;
    let reply = client.open(&client.receive().await);
    assert_eq!(reply, json!({"id": 1, "ok": {}}), "the first answer of all");
    server.stop().await;
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_reply_and_an_old_or_changed_one_gets_none() {
    let server = TestServer::start().await;
    let mut session = server.log_in("alice").await;
    let client = RawDatagrams::new(&mut session, server.address).await;
    let first = client.datagram(ack(100, 1), 0);
    client.send(&first).await;
    let reply = client.receive().await;
    for _ in 0..5 {
        client.send(&first).await;
        assert_eq!(client.receive().await, reply);
    }
    // Different content with the same id, and ids that are too old.
    client.send(&client.datagram(ack(100, 2), 0)).await;
    dropped(&server, 1).await;
    client.send(&client.datagram(ack(36, 1), 0)).await;
    dropped(&server, 2).await;
    // The server has executed the request that arrived late.
    assert_eq!(client.call(ack(37, 1)).await["id"], 37);
    // A replayed datagram gets the same reply, which is no longer than the request.
    let thief = RawDatagrams::stranger(server.address).await;
    thief.send(&first).await;
    assert_eq!(thief.receive().await, reply);
    server.stop().await;
}

#[tokio::test]
async fn datagrams_of_denied_networks_are_dropped() {
    let server = TestServer::start().await;
    let client = RawDatagrams::stranger(server.address).await;
    let mut config = Config::clone(&server.server.config());
    config.network.deny = vec!["127.0.0.0/8".parse().expect("a network")];
    let _ = server.server.reload(&config);
    let question = json!({"cmd": "hello", "pad": ".".repeat(300)}).to_string();
    client.send(question.as_bytes()).await;
    dropped(&server, 1).await;
    server.stop().await;
}

#[tokio::test]
async fn who_by_datagram_lists_the_users_that_fit_in_the_reply() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let _bob = server.log_in("bob").await;
    let client = RawDatagrams::new(&mut alice, server.address).await;
    let all = client.call(json!({"id": 1, "cmd": "who"})).await;
    let names: Vec<_> = all["ok"]["users"]
        .as_array()
        .expect("users")
        .iter()
        .map(|present| &present["user"])
        .collect();
    assert_eq!(names, ["alice", "bob"]);
    assert_eq!(all["ok"].get("more"), None);
    client
        .send(&client.datagram(json!({"id": 2, "cmd": "who"}), 0))
        .await;
    let none = client.open(&client.receive().await);
    assert_eq!(none["ok"], json!({"users": [], "more": true}));
    server.stop().await;
}

#[tokio::test]
async fn a_network_error_does_not_end_the_receiver() {
    // A connected socket gets an error if its peer is gone.
    let peer = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let peer_address = peer.local_addr().expect("bound");
    let data = tempfile::tempdir().expect("a directory");
    let anywhere = "127.0.0.1:0".parse().expect("an address");
    let (listener, socket) = haul::server::bind(anywhere, true).await.expect("a port");
    let socket = socket.expect("it was asked for");
    socket.connect(peer_address).await.expect("an address");
    let address = listener.local_addr().expect("bound");
    drop(peer);
    socket.send(b"is anybody there?").await.expect("sent");
    let server = TestServer::start_at((listener, Some(socket)), data, Config::default()).await;
    let socket = UdpSocket::bind(peer_address).await.expect("it was free");
    let client = RawDatagrams {
        socket,
        ..RawDatagrams::stranger(address).await
    };
    let question = json!({"cmd": "hello", "pad": ".".repeat(300)}).to_string();
    client.send(question.as_bytes()).await;
    let answer: Value = serde_json::from_slice(&client.receive().await).expect("JSON");
    assert_eq!(answer["port"], address.port());
    server.stop().await;
}

#[tokio::test]
async fn a_flood_of_junk_does_not_affect_sessions_and_tickets() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let client = RawDatagrams::new(&mut alice, server.address).await;
    let stop = CancellationToken::new();
    let mut junk = vec![vec![b'{'; 1200], Vec::new(), vec![0xff; 1201]];
    let stranger = RawDatagrams::stranger(server.address).await;
    junk.push(stranger.datagram(say(1, "alice", "junk"), 1200));
    let mut thief = RawDatagrams::stranger(server.address).await;
    thief.ticket.clone_from(&client.ticket);
    junk.push(thief.datagram(say(1, "alice", "junk"), 1200));
    let flood = tokio::spawn({
        let stop = stop.clone();
        async move {
            let mut sent = 0_u64;
            while !stop.is_cancelled() {
                for datagram in &junk {
                    thief.send(datagram).await;
                    sent += 1;
                }
                tokio::task::yield_now().await;
            }
            sent
        }
    });
    let mut id = 0;
    let content = vec![7; 100_000];
    soon("ten thousand datagrams that are dropped", async || {
        alice.put("a.bin", &content).await;
        assert_eq!(
            alice
                .get(json!({"cmd": "get", "path": "a.bin"}))
                .await
                .0
                .len(),
            100_000
        );
        // The request may be lost in the flood, so it is repeated.
        id += 1;
        let request = client.datagram(ack(id, 1), 0);
        client.send(&request).await;
        (server.server.dropped_datagrams() >= 10_000).then_some(())
    })
    .await;
    stop.cancel();
    assert!(flood.await.expect("no panic") >= 10_000);
    assert!(client.open(&client.receive().await)["ok"].is_object());
    server.stop().await;
}

#[tokio::test]
async fn a_flood_of_junk_datagrams_does_not_fill_the_log() {
    let daemon = ServerProcess::start();
    let address = daemon.address.parse().expect("an address");
    let client = RawDatagrams::stranger(address).await;
    for _ in 0..500 {
        client.send(b"junk").await;
    }
    let question = json!({"cmd": "hello", "pad": ".".repeat(300)}).to_string();
    let answer = async || {
        // The flood may have filled the receive buffer, so the request is repeated.
        client.send(question.as_bytes()).await;
        let answer = timeout(Duration::from_millis(100), client.receive()).await;
        answer.ok()
    };
    let answer = soon("an answer to a search", answer).await;
    let answer: Value = serde_json::from_slice(&answer).expect("JSON");
    assert_eq!(answer["port"], address.port());
    let stopped = daemon.terminate();
    assert_eq!(stopped.code, Some(0));
    let lines = stopped.lines();
    let dropped = lines
        .iter()
        .filter(|line| line["message"] == "dropped a datagram");
    let dropped: Vec<_> = dropped.collect();
    assert!((1..50).contains(&dropped.len()), "{}", dropped.len());
    assert!(dropped[0]["reason"].is_string() && dropped[0]["left_out"].is_u64());
}
