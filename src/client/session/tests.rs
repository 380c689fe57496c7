//! Sessions against servers that hang up, refuse and forget as their scripts say.

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
    End, Entry, Frame, Get, GetBegin, GetReply, IfExists, Kind, Nothing, PathReply, Put, PutBegin,
    Request, encode_begin, encode_error, encode_ok,
};

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
        source: std::io::ErrorKind::ConnectionRefused.into(),
    }
}

fn stat_reply() -> StatReply {
    StatReply {
        path: "/a".into(),
        entry: Entry {
            name: "a".into(),
            kind: Kind::File,
            size: 1,
            modified: jiff::Timestamp::UNIX_EPOCH,
        },
        version: None,
        digest: None,
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

async fn put_request(peer: &mut ScriptedServer) -> (u32, Put) {
    match peer.request().await {
        (id, Request::Put(put)) => (id, put),
        other => panic!("a put was to come, not {other:?}"),
    }
}

async fn get_request(peer: &mut ScriptedServer) -> (u32, Get) {
    match peer.request().await {
        (id, Request::Get(get)) => (id, get),
        other => panic!("a get was to come, not {other:?}"),
    }
}

/// Says that it has `kept`.
async fn begin_put(peer: &mut ScriptedServer, id: u32, kept: &[u8]) {
    let begin = PutBegin {
        offset: kept.len() as u64,
        upload: "u".into(),
        prefix: (!kept.is_empty()).then(|| blake3(kept)),
    };
    peer.say(encode_begin(id, &begin)).await;
}

/// Takes the data of a put until its end.
async fn rest_of_put(peer: &mut ScriptedServer, id: u32) -> (Vec<u8>, End) {
    let mut content = Vec::new();
    loop {
        match peer.frame().await {
            Frame::Data { stream, chunk } if stream == id => content.extend_from_slice(&chunk),
            Frame::Control(json) => match Request::parse(&json).expect("sound") {
                (of, Request::End(end)) if of == id => return (content, end),
                other => panic!("an end was to come, not {other:?}"),
            },
            other @ Frame::Data { .. } => panic!("{other:?}"),
        }
    }
}

/// Sends the bytes from `offset` on, of a file of `size`, and no reply.
async fn begin_get(
    peer: &mut ScriptedServer,
    id: u32,
    (offset, size): (usize, usize),
    version: &str,
) {
    let begin = GetBegin {
        size: size as u64,
        offset: offset as u64,
        length: (size - offset) as u64,
        modified: "2020-02-02T02:02:02Z".parse().expect("a time"),
        version: version.into(),
    };
    peer.say(encode_begin(id, &begin)).await;
}

async fn send_data(peer: &mut ScriptedServer, id: u32, content: &[u8]) {
    for chunk in content.chunks(100_000) {
        let chunk = Bytes::copy_from_slice(chunk);
        peer.send(Frame::Data { stream: id, chunk }).await;
    }
}

async fn end_get(peer: &mut ScriptedServer, id: u32, content: &[u8]) {
    let reply = GetReply {
        size: content.len() as u64,
        digest: Some(blake3(content)),
    };
    peer.say(encode_ok(id, &reply)).await;
}

#[tokio::test(start_paused = true)]
async fn all_who_lost_a_connection_share_the_next() {
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
async fn a_server_that_does_not_come_back_is_given_up_once_for_all() {
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
             could not connect to h:9000: connection refused"
        );
    }
    assert!(session.stat("c").await.is_err());
    assert_eq!(dials.load(Ordering::Relaxed), 10);
}

#[tokio::test(start_paused = true)]
async fn what_would_fail_again_is_not_tried_again() {
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
async fn an_account_that_was_closed_and_a_peer_that_is_no_server_are_not_asked_again() {
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
async fn a_server_that_asks_for_patience_gets_it_on_the_same_connection() {
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
async fn a_server_that_stops_is_left_for_the_next() {
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

#[tokio::test(start_paused = true)]
async fn an_upload_goes_on_with_what_the_server_has() {
    let (session, mut peers, _) = session(1);
    let (_place, path, content) = file(LARGE);
    let progress = Progress::new();
    let mut waiting = progress.waiting();
    let script = async {
        let peer = &mut peers[0];
        let (id, put) = put_request(peer).await;
        assert!(put.resume && put.size == Some(LARGE as u64));
        begin_put(peer, id, b"").await;
        peer.frame().await;
        peers.pop_front();
        let peer = &mut peers[0];
        let (id, put) = put_request(peer).await;
        assert!(put.resume);
        begin_put(peer, id, &content[..700_000]).await;
        let (rest, end) = rest_of_put(peer, id).await;
        assert!(rest == content[700_000..]);
        peer.store(id, "/f", &content, &end).await;
    };
    let put = session.put_file(&path, "f", FileOptions::default(), &progress);
    let look = async {
        waiting.wait_for(Option::is_some).await.expect("alive");
        let said = waiting.borrow().clone().expect("it waits");
        assert!(said.connection_lost && (said.attempt, said.attempts) == (1, 10));
        assert_eq!(said.why, "the server closed the connection");
    };
    let (outcome, (), ()) = tokio::join!(put, script, look);
    assert_eq!(outcome.expect("stored").size, LARGE as u64);
    assert_eq!(progress.bytes(), LARGE as u64);
    assert!(progress.waiting().borrow().is_none());
}

#[tokio::test(start_paused = true)]
async fn an_upload_whose_reply_was_lost_is_only_ended_again() {
    // Small enough to be sent without a question, and large enough to be asked about.
    for size in [5, LARGE] {
        let (session, mut peers, _) = session(1);
        let (_place, path, content) = file(size);
        let script = async {
            let peer = &mut peers[0];
            let (id, put) = put_request(peer).await;
            assert_eq!(put.resume, size == LARGE);
            begin_put(peer, id, b"").await;
            rest_of_put(peer, id).await;
            peers.pop_front();
            let peer = &mut peers[0];
            let (id, put) = put_request(peer).await;
            assert!(put.resume);
            begin_put(peer, id, &content).await;
            let (rest, end) = rest_of_put(peer, id).await;
            assert!(rest.is_empty());
            peer.store(id, "/f", &content, &end).await;
        };
        let (options, progress) = (FileOptions::default(), Progress::new());
        let put = session.put_file(&path, "f", options, &progress);
        let (outcome, ()) = tokio::join!(put, script);
        assert_eq!(outcome.expect("stored").path, "/f");
        assert_eq!((progress.bytes(), progress.files()), (size as u64, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_of_other_bytes_than_the_server_has_starts_again() {
    let (session, mut peers, _) = session(0);
    let (_place, path, content) = file(LARGE);
    let peer = &mut peers[0];
    let script = async {
        let (first, put) = put_request(peer).await;
        assert!(put.resume);
        begin_put(peer, first, &vec![b'x'; 100_000]).await;
        let (cancel, Request::Cancel(request)) = peer.request().await else {
            panic!("a cancel was to come");
        };
        assert_eq!(request.target, first);
        peer.say(encode_ok(cancel, &Nothing {})).await;
        peer.say(encode_error(first, &no(ErrorCode::Cancelled)))
            .await;
        let (id, put) = put_request(peer).await;
        assert!(!put.resume);
        let (all, end) = rest_of_put(peer, id).await;
        assert!(all == content);
        peer.store(id, "/f", &content, &end).await;
    };
    let (options, progress) = (FileOptions::default(), Progress::new());
    let put = session.put_file(&path, "f", options, &progress);
    let (outcome, ()) = tokio::join!(put, script);
    outcome.expect("stored");
    assert_eq!(progress.bytes(), LARGE as u64);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_must_not_be_there_yet_is_resumed_only_after_a_loss() {
    let (session, mut peers, _) = session(1);
    let (_place, path, content) = file(LARGE);
    let script = async {
        let (_, put) = put_request(&mut peers[0]).await;
        assert!(!put.resume && put.if_exists == Some(IfExists::Fail));
        peers.pop_front();
        let peer = &mut peers[0];
        let (id, put) = put_request(peer).await;
        assert!(put.resume);
        begin_put(peer, id, b"").await;
        let (_, end) = rest_of_put(peer, id).await;
        peer.store(id, "/f", &content, &end).await;
    };
    let options = FileOptions {
        if_exists: Some(IfExists::Fail),
        ..FileOptions::default()
    };
    let progress = Progress::new();
    let put = session.put_file(&path, "f", options, &progress);
    let (outcome, ()) = tokio::join!(put, script);
    outcome.expect("stored");
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_another_session_goes_on_with_is_left_to_it() {
    let (session, mut peers, dials) = session(1);
    let (_place, path, _) = file(LARGE);
    let script = async {
        let (id, _) = put_request(&mut peers[0]).await;
        let taken = no(ErrorCode::Cancelled);
        peers[0].say(encode_error(id, &taken)).await;
    };
    let (options, progress) = (FileOptions::default(), Progress::new());
    let put = session.put_file(&path, "f", options, &progress);
    let (outcome, ()) = tokio::join!(put, script);
    assert_eq!(
        outcome.expect_err("final").code(),
        Some(ErrorCode::Cancelled)
    );
    assert_eq!(dials.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_changes_while_it_waits_is_not_sent_in_two_halves() {
    let (session, mut peers, _) = session(1);
    let (_place, path, content) = file(LARGE);
    let script = async {
        let peer = &mut peers[0];
        let (id, _) = put_request(peer).await;
        begin_put(peer, id, b"").await;
        peer.frame().await;
        let shorter = &content[..LARGE - 1];
        peers.pop_front();
        fs::write(&path, shorter).expect("written");
        let peer = &mut peers[0];
        let (id, _) = put_request(peer).await;
        begin_put(peer, id, &content[..700_000]).await;
        while peer.next_frame().await.is_some() {}
        pending::<()>().await;
    };
    let (options, progress) = (FileOptions::default(), Progress::new());
    let put = async {
        let outcome = session.put_file(&path, "f", options, &progress).await;
        session.hang_up();
        outcome
    };
    // The change may be seen at once, by what the first attempt reads ahead: then there is no other.
    let outcome = tokio::select! {
        outcome = put => outcome,
        () = script => unreachable!("it never ends"),
    };
    assert!(
        matches!(outcome, Err(ClientError::LocalChanged(_))),
        "{outcome:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_came_from_a_pipe_cannot_be_sent_again() {
    let (session, mut peers, dials) = session(1);
    let script = async {
        put_request(&mut peers[0]).await;
        peers.pop_front();
    };
    let (options, progress) = (FileOptions::default(), Progress::new());
    let put = session.put_from(&b"content"[..], "f", options, &progress);
    let (outcome, ()) = tokio::join!(put, script);
    assert_eq!(
        outcome.expect_err("lost").to_string(),
        "the server closed the connection, and what standard input gave cannot be sent again"
    );
    assert_eq!(dials.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn who_hangs_up_cancels_nothing() {
    let (session, mut peers, _) = session(0);
    let (_place, path, _) = file(LARGE);
    let (options, progress) = (FileOptions::default(), Progress::new());
    let mut put = Box::pin(session.put_file(&path, "f", options, &progress));
    let begun = async {
        let (id, _) = put_request(&mut peers[0]).await;
        begin_put(&mut peers[0], id, b"").await;
        peers[0].frame().await;
    };
    tokio::select! {
        _ = &mut put => panic!("nobody has answered"),
        () = begun => {}
    }
    assert!(session.has_resumable_upload());
    session.hang_up();
    drop(put);
    assert!(!session.has_resumable_upload());
    while let Ok(Some(frame)) = peers[0].try_next_frame().await {
        assert!(matches!(frame, Frame::Data { .. }), "{frame:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_download_goes_on_where_it_was_and_is_checked_as_a_whole() {
    for arrived in [1, 1_000_000, LARGE] {
        let (session, mut peers, _) = session(1);
        let (place, _, content) = file(LARGE);
        let target = place.path().join("copy");
        let script = async {
            let peer = &mut peers[0];
            let (id, get) = get_request(peer).await;
            assert_eq!((get.offset, get.version), (None, None));
            begin_get(peer, id, (0, LARGE), "v1").await;
            send_data(peer, id, &content[..arrived]).await;
            peers.pop_front();
            let peer = &mut peers[0];
            let (id, get) = get_request(peer).await;
            assert_eq!(get.offset, Some(arrived as u64));
            assert_eq!(get.version.as_deref(), Some("v1"));
            begin_get(peer, id, (arrived, LARGE), "v1").await;
            send_data(peer, id, &content[arrived..]).await;
            end_get(peer, id, &content).await;
        };
        let (options, progress) = (FileOptions::default(), Progress::new());
        let get = session.get_file("f", &target, options, &progress);
        let (outcome, ()) = tokio::join!(get, script);
        assert_eq!(outcome.expect("got").size, LARGE as u64);
        assert!(fs::read(&target).expect("there") == content);
        assert_eq!(progress.bytes(), LARGE as u64);
        assert_eq!(progress.total_bytes(), LARGE as u64);
    }
}

#[tokio::test(start_paused = true)]
async fn a_download_of_a_file_that_became_another_starts_again() {
    let (session, mut peers, _) = session(1);
    let (place, _, content) = file(LARGE);
    let target = place.path().join("copy");
    let progress = Progress::new();
    let script = async {
        let peer = &mut peers[0];
        let (id, _) = get_request(peer).await;
        begin_get(peer, id, (0, LARGE), "v1").await;
        send_data(peer, id, &vec![b'x'; 1_000_000]).await;
        peers.pop_front();
        let peer = &mut peers[0];
        let (id, get) = get_request(peer).await;
        assert_eq!(get.version.as_deref(), Some("v1"));
        peer.say(encode_error(id, &no(ErrorCode::Changed))).await;
        let (id, get) = get_request(peer).await;
        assert_eq!((get.offset, get.version), (None, None));
        assert_eq!(progress.bytes(), 0);
        begin_get(peer, id, (0, 100_000), "v2").await;
        send_data(peer, id, &content[..100_000]).await;
        end_get(peer, id, &content[..100_000]).await;
    };
    let get = session.get_file("f", &target, FileOptions::default(), &progress);
    let (outcome, ()) = tokio::join!(get, script);
    outcome.expect("got");
    assert!(fs::read(&target).expect("there") == content[..100_000]);
    assert_eq!(
        (progress.bytes(), progress.total_bytes()),
        (100_000, 100_000)
    );
}

#[tokio::test(start_paused = true)]
async fn a_file_that_changes_all_the_time_is_given_up_and_leaves_nothing_behind() {
    let (session, mut peers, _) = session(20);
    let place = tempfile::tempdir().expect("a directory");
    let target = place.path().join("copy");
    let script = async {
        let mut gets = 0;
        while let Some(mut peer) = peers.pop_front() {
            while let Some((id, request)) = peer.next_request().await {
                let Request::Get(get) = request else {
                    panic!("{request:?}");
                };
                gets += 1;
                if get.offset.is_some() {
                    peer.say(encode_error(id, &no(ErrorCode::Changed))).await;
                } else {
                    begin_get(&mut peer, id, (0, LARGE), "v").await;
                    send_data(&mut peer, id, b"part").await;
                    break;
                }
            }
        }
        gets
    };
    let get = async {
        let (options, progress) = (FileOptions::default(), Progress::new());
        let outcome = session.get_file("f", &target, options, &progress).await;
        drop(session);
        outcome
    };
    let (outcome, gets) = tokio::join!(get, script);
    assert_eq!(
        outcome.expect_err("given up").code(),
        Some(ErrorCode::Changed)
    );
    assert_eq!(gets, 12);
    assert_eq!(place.path().read_dir().expect("there").count(), 0);
}

#[tokio::test(start_paused = true)]
async fn small_files_whose_answers_were_lost_are_sent_again_and_counted_once() {
    let here = tempfile::tempdir().expect("a directory");
    for name in ["a", "b", "c", "d", "e"] {
        fs::write(here.path().join(name), name).expect("written");
    }
    let (session, mut peers, dials) = session(1);
    let (mut first, mut second) = (peers.remove(0).expect("one"), peers.remove(0).expect("two"));
    let server = tokio::spawn(async move {
        let mut ended = 0;
        while ended < 5 {
            let Frame::Control(json) = first.frame().await else {
                continue;
            };
            match Request::parse(&json).expect("sound") {
                (id, Request::Mkdir(mkdir)) => {
                    let reply = PathReply { path: mkdir.path };
                    first.say(encode_ok(id, &reply)).await;
                }
                (_, Request::Put(put)) => assert!(!put.resume),
                (id, Request::End(end)) => {
                    ended += 1;
                    // All have arrived, and two answers get through.
                    if ended <= 2 {
                        let name = ["a", "b", "c", "d", "e"]
                            .into_iter()
                            .find(|name| end.digest == Some(blake3(name.as_bytes())));
                        let name = name.expect("one of them");
                        first.store(id, name, name.as_bytes(), &end).await;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        drop(first);
        let mut again = Vec::new();
        let mut open = std::collections::HashMap::new();
        while again.len() < 3 {
            match second.frame().await {
                Frame::Data { .. } => {}
                Frame::Control(json) => match Request::parse(&json).expect("sound") {
                    (id, Request::Put(put)) => {
                        assert!(put.resume, "it may be there");
                        begin_put(&mut second, id, b"").await;
                        open.insert(id, put.path);
                    }
                    (id, Request::End(end)) => {
                        let path = open.remove(&id).expect("open");
                        let name = path.rsplit('/').next().expect("a name").to_owned();
                        second.store(id, &path, name.as_bytes(), &end).await;
                        again.push(name);
                    }
                    other => panic!("{other:?}"),
                },
            }
        }
        again
    });
    let (notes, told) = tokio::sync::mpsc::channel(1);
    drop(told);
    let roots = vec![(here.path().to_owned(), "/up".to_owned())];
    let progress = Progress::new();
    let summary = session
        .put_trees(roots, FileOptions::default(), &progress, notes)
        .await
        .expect("put");
    assert_eq!((summary.files, summary.failed), (5, 0));
    assert_eq!((progress.files(), progress.bytes()), (5, 5));
    assert_eq!(server.await.expect("no panic").len(), 3);
    assert_eq!(dials.load(Ordering::Relaxed), 1);
}
