//! Uploads over several connections.

use super::*;

async fn put_request(peer: &mut ScriptedServer) -> (u32, Put) {
    match peer.request().await {
        (id, Request::Put(put)) => (id, put),
        other => panic!("a put was to come, not {other:?}"),
    }
}

/// Begins a put whose first bytes `kept` the server has.
async fn begin_put(peer: &mut ScriptedServer, id: u32, kept: &[u8]) {
    let begin = PutBegin {
        offset: kept.len() as u64,
        upload: "u".into(),
        prefix: (!kept.is_empty()).then(|| blake3(kept)),
    };
    peer.say(encode_begin(id, &begin)).await;
}

/// Receives the data of a put until its end.
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
#[tokio::test(start_paused = true)]
async fn an_upload_is_resumed_after_the_bytes_that_the_server_has() {
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
async fn an_upload_whose_reply_was_lost_sends_no_byte_twice() {
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
async fn an_upload_that_must_not_replace_a_file_is_resumed_only_after_a_loss() {
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
async fn an_upload_that_another_session_resumes_ends_here() {
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
async fn a_file_that_changes_during_a_wait_is_not_sent() {
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
async fn data_from_a_pipe_is_not_sent_again() {
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
        "the server closed the connection, and the data from standard input cannot be sent again"
    );
    assert_eq!(dials.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn hanging_up_cancels_no_upload() {
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
async fn small_files_whose_replies_were_lost_are_sent_again_and_counted_once() {
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

#[tokio::test(start_paused = true)]
async fn a_file_that_ends_each_connection_fails_although_other_work_succeeds() {
    let attempts = RetryPolicy::default().attempts as usize;
    let (session, mut peers, _) = session(2 * attempts);
    let (_place, path, _) = file(5);
    let script = async {
        while let Some(mut peer) = peers.pop_front() {
            put_request(&mut peer).await;
            // The success of other work resets the count of the session.
            session.note_success();
        }
    };
    let progress = Progress::new();
    let put = session.put_file(&path, "f", FileOptions::default(), &progress);
    let outcome = tokio::select! {
        outcome = put => outcome,
        () = script => panic!("the file uses every connection"),
    };
    assert!(matches!(outcome, Err(ClientError::Lost(_))), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_advances_on_each_connection_is_completed_over_many() {
    const PART: usize = 100_000;
    let (session, mut peers, _) = session(LARGE / PART);
    let (_place, path, content) = file(LARGE);
    let script = async {
        let mut kept = 0;
        loop {
            let mut peer = peers.pop_front().expect("a connection");
            let (id, put) = put_request(&mut peer).await;
            assert!(put.resume);
            begin_put(&mut peer, id, &content[..kept]).await;
            if kept == LARGE {
                let (_, end) = rest_of_put(&mut peer, id).await;
                peer.store(id, "/f", &content, &end).await;
                return;
            }
            kept += PART;
        }
    };
    let progress = Progress::new();
    let put = session.put_file(&path, "f", FileOptions::default(), &progress);
    let (outcome, ()) = tokio::join!(put, script);
    assert_eq!(outcome.expect("stored").size, LARGE as u64);
}
