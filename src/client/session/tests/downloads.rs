//! Downloads over several connections.

use std::path::Path;

use super::*;

async fn get_request(peer: &mut ScriptedServer) -> (u32, Get) {
    match peer.request().await {
        (id, Request::Get(get)) => (id, get),
        other => panic!("a get was to come, not {other:?}"),
    }
}

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
        mode: None,
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
async fn a_download_is_resumed_and_verified_as_a_whole() {
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
async fn a_download_of_a_changed_file_starts_again() {
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
async fn a_file_that_changes_again_and_again_fails_and_leaves_nothing_behind() {
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

/// Loses the connection of a download for good after its first bytes `arrived`.
async fn interrupt_download(target: &Path, arrived: &[u8], version: &str) {
    let (session, mut peers, _) = session(0);
    let script = async {
        let mut peer = peers.pop_front().expect("one");
        let (id, _) = get_request(&mut peer).await;
        begin_get(&mut peer, id, (0, LARGE), version).await;
        send_data(&mut peer, id, arrived).await;
    };
    let (options, progress) = (FileOptions::default(), Progress::new());
    let get = session.get_file("f", target, options, &progress);
    let (outcome, ()) = tokio::join!(get, script);
    outcome.expect_err("the server does not come back");
    assert!(!target.exists());
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_download_is_resumed_by_the_next_run() {
    let (place, _, content) = file(LARGE);
    let target = place.path().join("copy");
    let arrived = 1_700_000;
    interrupt_download(&target, &content[..arrived], "v1").await;
    let (session, mut peers, _) = session(0);
    let script = async {
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
    outcome.expect("got");
    assert!(fs::read(&target).expect("there") == content);
    assert_eq!(progress.bytes(), LARGE as u64);
    assert_eq!(place.path().read_dir().expect("there").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_download_starts_again_if_the_file_has_changed_or_the_part_is_damaged() {
    for is_changed in [true, false] {
        let (place, _, content) = file(LARGE);
        let target = place.path().join("copy");
        interrupt_download(&target, b"other bytes", "v1").await;
        let (session, mut peers, _) = session(0);
        let script = async {
            let peer = &mut peers[0];
            let (id, get) = get_request(peer).await;
            assert_eq!(get.version.as_deref(), Some("v1"));
            if is_changed {
                peer.say(encode_error(id, &no(ErrorCode::Changed))).await;
            } else {
                begin_get(peer, id, (11, LARGE), "v1").await;
                send_data(peer, id, &content[11..]).await;
                end_get(peer, id, &content).await;
            }
            let (id, get) = get_request(peer).await;
            assert_eq!((get.offset, get.version), (None, None));
            begin_get(peer, id, (0, LARGE), "v2").await;
            send_data(peer, id, &content).await;
            end_get(peer, id, &content).await;
        };
        let (options, progress) = (FileOptions::default(), Progress::new());
        let get = session.get_file("f", &target, options, &progress);
        let (outcome, ()) = tokio::join!(get, script);
        outcome.expect("got");
        assert!(fs::read(&target).expect("there") == content);
        assert_eq!(place.path().read_dir().expect("there").count(), 2);
    }
}
