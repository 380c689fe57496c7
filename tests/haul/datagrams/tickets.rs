//! The life of a ticket.

use std::time::Duration;

use haul::config::Config;
use serde_json::json;

use crate::datagrams::raw_client::RawDatagrams;
use crate::datagrams::{ack, dropped};
use crate::harness::{PASSWORD, TestServer, soon};

#[tokio::test]
async fn a_ticket_ends_with_its_session() {
    let server = TestServer::start().await;
    let mut session = server.log_in("alice").await;
    let client = RawDatagrams::new(&mut session, server.address).await;
    assert!(client.call(ack(1, 1)).await["ok"].is_object());
    session.ok(json!({"cmd": "quit"})).await;
    client.send(&client.datagram(ack(2, 1), 0)).await;
    dropped(&server, 1).await;
    // Even an earlier request gets no reply any more.
    client.send(&client.datagram(ack(1, 1), 600)).await;
    dropped(&server, 2).await;
    server.stop().await;
}

#[tokio::test]
async fn a_ticket_ends_when_the_connection_is_cut() {
    let server = TestServer::start().await;
    let mut session = server.log_in("alice").await;
    let client = RawDatagrams::new(&mut session, server.address).await;
    drop(session);
    let mut id = 0;
    soon("the end of the session", async || {
        id += 1;
        client.send(&client.datagram(ack(id, 1), 0)).await;
        (server.server.dropped_datagrams() > 0).then_some(())
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn a_ticket_over_the_limit_of_a_session_ends_the_oldest() {
    let server = TestServer::start().await;
    let mut session = server.log_in("alice").await;
    let mut holders = Vec::new();
    for _ in 0..5 {
        holders.push(RawDatagrams::new(&mut session, server.address).await);
    }
    let oldest = holders.remove(0);
    oldest.send(&oldest.datagram(ack(1, 1), 0)).await;
    dropped(&server, 1).await;
    for holder in holders {
        assert_eq!(holder.call(ack(1, 1)).await["id"], 1);
    }
    server.stop().await;
}

#[tokio::test]
async fn no_ticket_is_issued_to_another_machine_without_encryption() {
    let server = TestServer::start_with(|config| {
        config.network.proxies = vec!["127.0.0.1/32".parse().expect("a network")];
        config.auth.plaintext_logins = true;
    })
    .await;
    let mut session = server.connect().await;
    // A header of version 2 of the PROXY protocol (section 2.2), for TCP over IPv4, from 192.0.2.1.
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend([192, 0, 2, 1, 192, 0, 2, 2, 0, 9, 0, 9]);
    session.send_bytes(&header).await;
    let login = json!({"cmd": "login", "user": "alice", "password": PASSWORD});
    session.ok(login).await;
    session.ok(json!({"cmd": "ticket"})).await;
    let mut config = Config::clone(&server.server.config());
    config.auth.plaintext_logins = false;
    let _ = server.server.reload(&config);
    session.fails(json!({"cmd": "ticket"}), "denied").await;
    server.stop().await;
}

#[tokio::test]
async fn a_ticket_expires() {
    let server = TestServer::start().await;
    let mut session = server.log_in("alice").await;
    let client = RawDatagrams::new(&mut session, server.address).await;
    assert!(client.call(ack(1, 1)).await["ok"].is_object());
    tokio::time::pause();
    tokio::time::advance(Duration::from_mins(5)).await;
    tokio::time::resume();
    client.send(&client.datagram(ack(2, 1), 0)).await;
    dropped(&server, 1).await;
    let next = RawDatagrams::new(&mut session, server.address).await;
    assert!(next.call(ack(1, 1)).await["ok"].is_object());
    server.stop().await;
}
