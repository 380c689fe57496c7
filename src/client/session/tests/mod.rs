//! Sessions against servers that follow a script.

use std::collections::VecDeque;
use std::fs;
use std::future::pending;
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;

use bytes::Bytes;
use tempfile::TempDir;

use crate::client::session::*;
use crate::client::tests::{ScriptedServer, blake3, no, pair};
use crate::client::{FileOptions, RetryPolicy};
use crate::protocol::{
    End, Entry, ErrorCode, Frame, Get, GetBegin, GetReply, IfExists, Kind, Nothing, PathReply, Put,
    PutBegin, Request, encode_begin, encode_error, encode_ok,
};

mod downloads;
mod uploads;

const LARGE: usize = 3_000_000;

/// A session, the server's end of its first connection and of `more` that it will make; any that
/// it makes after those are refused. And how many it has tried to make.
fn session(more: usize) -> (Session, VecDeque<ScriptedServer>, Arc<AtomicU32>) {
    let (mut clients, mut peers): (VecDeque<_>, VecDeque<_>) = (0..=more).map(|_| pair()).unzip();
    let first = clients.pop_front().expect("at least one");
    let dials = Arc::new(AtomicU32::new(0));
    let (counter, rest) = (Arc::clone(&dials), Mutex::new(clients));
    let connect = move || {
        counter.fetch_add(1, Ordering::Relaxed);
        let client = rest.lock().expect("no panic").pop_front();
        async move { client.ok_or_else(refused) }
    };
    peers.make_contiguous();
    let session = Session::new(first, RetryPolicy::default(), connect);
    (session, peers, dials)
}

fn refused() -> ClientError {
    ClientError::Connect {
        server: "h:9000".into(),
        error: std::io::ErrorKind::ConnectionRefused.into(),
    }
}

fn stat_reply() -> StatReply {
    StatReply {
        path: "/a".into(),
        entry: Entry::new("a", Kind::File, 1, jiff::Timestamp::UNIX_EPOCH),
    }
}

/// A file of this machine, of bytes that differ from place to place.
fn file(size: usize) -> (TempDir, PathBuf, Vec<u8>) {
    let content: Vec<u8> = (0_u32..)
        .flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes())
        .take(size)
        .collect();
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("file");
    fs::write(&path, &content).expect("written");
    (place, path, content)
}

#[tokio::test(start_paused = true)]
async fn requests_that_lose_a_connection_share_the_next() {
    let (session, mut peers, dials) = session(1);
    let (mut first, mut second) = (peers.remove(0).expect("one"), peers.remove(0).expect("two"));
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let session = session.clone();
            tokio::spawn(async move { session.stat("a").await })
        })
        .collect();
    for _ in 0..20 {
        first.request().await;
    }
    drop(first);
    for _ in 0..20 {
        let (id, _) = second.request().await;
        second.say(encode_ok(id, &stat_reply())).await;
    }
    for call in calls {
        call.await.expect("no panic").expect("answered");
    }
    assert_eq!(dials.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn reconnecting_ends_once_for_all_requests() {
    let (session, peers, dials) = session(0);
    drop(peers);
    let start = Instant::now();
    let (one, other) = tokio::join!(session.stat("a"), session.stat("b"));
    let took = start.elapsed();
    assert!(
        took >= Duration::from_secs(1) && took <= Duration::from_secs(181),
        "{took:?}"
    );
    for error in [one.expect_err("given up"), other.expect_err("given up")] {
        assert!(error.ends_everything());
        assert_eq!(
            format!("{:#}", anyhow::Error::from(error)),
            "the server closed the connection, and 10 attempts to connect again failed: \
             cannot connect to h:9000: connection refused"
        );
    }
    assert!(session.stat("c").await.is_err());
    assert_eq!(dials.load(Ordering::Relaxed), 10);
}

#[tokio::test(start_paused = true)]
async fn a_final_failure_is_not_retried() {
    let (client, peer) = pair();
    drop(peer);
    let dials = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&dials);
    let session = Session::new(client, RetryPolicy::default(), move || {
        counter.fetch_add(1, Ordering::Relaxed);
        async { Err(ClientError::Login(no(ErrorCode::LoginFailed))) }
    });
    let error = session.stat("a").await.expect_err("refused");
    assert_eq!(error.code(), Some(ErrorCode::LoginFailed));
    assert_eq!(dials.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_closed_account_and_a_foreign_peer_are_not_connected_to_again() {
    for words in [
        &br#"{"event":"goodbye","reason":"account_closed"}"#[..],
        br#"{"error":{"code":"bad_frame","message":"no","retryable":false}}"#,
        b"{}",
    ] {
        let (session, mut peers, dials) = session(1);
        let mut peer = peers.pop_front().expect("one");
        let script = async move {
            peer.request().await;
            peer.say(words).await;
        };
        let (outcome, ()) = tokio::join!(session.stat("a"), script);
        assert!(matches!(outcome, Err(ClientError::Lost(_))), "{outcome:?}");
        assert_eq!(dials.load(Ordering::Relaxed), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_retried_on_the_same_connection_after_the_time_that_the_server_names() {
    let (session, mut peers, dials) = session(0);
    let peer = &mut peers[0];
    let mut limited = no(ErrorCode::Limited);
    limited.retry_after_ms = Some(5000);
    let start = Instant::now();
    let script = async {
        let (id, _) = peer.request().await;
        peer.say(encode_error(id, &limited)).await;
        let (id, _) = peer.request().await;
        peer.say(encode_ok(id, &stat_reply())).await;
    };
    let (outcome, ()) = tokio::join!(session.stat("a"), script);
    outcome.expect("answered in the end");
    assert!((5..=6).contains(&start.elapsed().as_secs()));
    assert_eq!(dials.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_shuts_down_is_connected_to_again() {
    let (session, mut peers, _) = session(1);
    let script = async {
        let (id, _) = peers[0].request().await;
        let stopping = no(ErrorCode::ShuttingDown);
        peers[0].say(encode_error(id, &stopping)).await;
        let (id, _) = peers[1].request().await;
        peers[1].say(encode_ok(id, &stat_reply())).await;
    };
    let (outcome, ()) = tokio::join!(session.stat("a"), script);
    outcome.expect("answered in the end");
}
