//! Files and trees against a server that follows a script.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::client::tests::{ScriptedServer, blake3, pair};
use crate::client::{ClientError, FileOptions, Progress, TreeEvent, TreeSummary};
use crate::protocol::{
    Entry, ErrorCode, Frame, IfExists, Kind, LsReply, PathReply, Request, StatReply, WireError,
    encode_error, encode_ok,
};

fn entry(name: &str, kind: Kind, size: u64) -> Entry {
    Entry::new(name, kind, size, Timestamp::UNIX_EPOCH)
}

/// Answers for a server with these files, until the client hangs up. A path that ends with a slash
/// is a directory.
async fn serve(mut peer: ScriptedServer, files: BTreeMap<&'static str, &'static str>) {
    while let Some((id, request)) = peer.next_request().await {
        let json = match request {
            Request::Stat(stat) => {
                let kind = if files.contains_key(&*stat.path) {
                    Kind::File
                } else {
                    Kind::Dir
                };
                encode_ok(
                    id,
                    &StatReply {
                        entry: entry("x", kind, 1),
                        path: stat.path,
                    },
                )
            }
            Request::Ls(ls) => encode_ok(id, &page(&files, &ls.path.unwrap_or_default())),
            Request::Get(get) => {
                let content = files[&*get.path].as_bytes();
                peer.send_file(id, content, blake3(content)).await;
                continue;
            }
            other => panic!("{other:?}"),
        };
        peer.say(json).await;
    }
}

fn page(files: &BTreeMap<&'static str, &'static str>, path: &str) -> LsReply {
    let mut entries = Vec::new();
    for (file, content) in files {
        let Some(rest) = file.strip_prefix(&format!("{path}/")) else {
            continue;
        };
        match rest.split_once('/') {
            None if !rest.is_empty() => {
                entries.push(entry(rest, Kind::File, content.len() as u64));
            }
            Some((name, _)) if !entries.iter().any(|there: &Entry| there.name == name) => {
                entries.push(entry(name, Kind::Dir, 0));
            }
            _ => {}
        }
    }
    LsReply {
        entries,
        cursor: None,
    }
}

async fn get_all(
    files: &[(&'static str, &'static str)],
    local: &Path,
) -> (Result<TreeSummary, ClientError>, Vec<TreeEvent>) {
    let (client, peer) = pair();
    tokio::spawn(serve(peer, files.iter().copied().collect()));
    let (sender, mut notes) = mpsc::channel(1000);
    let roots = vec![("top".to_owned(), local.to_owned())];
    let progress = Progress::new();
    let outcome = client
        .get_trees(roots, FileOptions::default(), &progress, sender)
        .await;
    let mut told = Vec::new();
    while let Some(note) = notes.recv().await {
        told.push(note);
    }
    (outcome, told)
}

#[tokio::test]
async fn a_tree_arrives_with_all_its_files_and_empty_directories_and_times() {
    let here = tempfile::tempdir().expect("a directory");
    let target = here.path().join("copy");
    let files = [
        ("top/a", "A"),
        ("top/deep/er/b", "B"),
        ("top/empty/", ""),
        ("top/zero", ""),
    ];
    let (outcome, _) = get_all(&files, &target).await;
    let summary = outcome.expect("got");
    assert_eq!((summary.files, summary.bytes, summary.failed), (3, 2, 0));
    assert_eq!(fs::read(target.join("a")).expect("there"), b"A");
    assert_eq!(fs::read(target.join("deep/er/b")).expect("there"), b"B");
    assert_eq!(fs::read(target.join("zero")).expect("there"), b"");
    assert!(target.join("empty").is_dir());
    let modified = fs::metadata(target.join("a")).and_then(|metadata| metadata.modified());
    assert_eq!(
        Timestamp::try_from(modified.expect("a time"))
            .expect("in range")
            .to_string(),
        "2020-02-02T02:02:02Z"
    );
}

#[tokio::test]
async fn a_hundred_small_files_are_got_at_once() {
    let here = tempfile::tempdir().expect("a directory");
    let names: Vec<&'static str> = (0..100)
        .map(|number| &*Box::leak(format!("top/{number}").into_boxed_str()))
        .collect();
    let files: Vec<_> = names.iter().map(|name| (*name, *name)).collect();
    let (outcome, notes) = get_all(&files, &here.path().join("copy")).await;
    assert_eq!(outcome.expect("got").files, 100);
    assert_eq!(notes.len(), 100);
}

#[tokio::test]
async fn a_hostile_server_cannot_write_outside_the_target() {
    let (client, mut peer) = pair();
    let here = tempfile::tempdir().expect("a directory");
    let outside = tempfile::tempdir().expect("a directory");
    let target = here.path().join("target");
    fs::create_dir(&target).expect("made");
    std::os::unix::fs::symlink(outside.path(), target.join("link")).expect("linked");
    let script = async move {
        let (id, _) = peer.request().await;
        let stat = StatReply {
            path: "/x".into(),
            entry: entry("x", Kind::Dir, 0),
        };
        peer.say(encode_ok(id, &stat)).await;
        let part = ".haul-0123456789abcdef.part";
        let hostile = ["..", "../up", "/etc/haul", "a/b", "", ".", part, "a\nb"];
        let mut entries: Vec<_> = hostile.map(|name| entry(name, Kind::File, 1)).into();
        entries.push(entry("link", Kind::Dir, 0));
        let (id, _) = peer.request().await;
        let page = LsReply {
            entries,
            cursor: None,
        };
        peer.say(encode_ok(id, &page)).await;
        let (id, request) = peer.request().await;
        assert!(matches!(request, Request::Ls(_)), "no hostile name is got");
        let entries = vec![entry("escaped", Kind::File, 1)];
        peer.say(encode_ok(
            id,
            &LsReply {
                entries,
                cursor: None,
            },
        ))
        .await;
        assert!(peer.next_request().await.is_none(), "nothing else is asked");
    };
    let get = async move {
        let (sender, _notes) = mpsc::channel(1000);
        let roots = vec![("x".to_owned(), target)];
        client
            .get_trees(roots, FileOptions::default(), &Progress::new(), sender)
            .await
    };
    let (outcome, ()) = tokio::join!(get, script);
    let summary = outcome.expect("the rest went on");
    assert_eq!((summary.files, summary.failed), (0, 9));
    assert_eq!(outside.path().read_dir().expect("there").count(), 0);
}

#[tokio::test]
async fn what_a_page_has_found_is_looked_into_before_the_next_page_is_asked_for() {
    let (client, mut peer) = pair();
    let here = tempfile::tempdir().expect("a directory");
    let script = async move {
        let (id, _) = peer.request().await;
        let stat = StatReply {
            path: "/top".into(),
            entry: entry("top", Kind::Dir, 0),
        };
        peer.say(encode_ok(id, &stat)).await;
        let mut listed = Vec::new();
        while let Some((id, request)) = peer.next_request().await {
            let Request::Ls(ls) = request else {
                panic!("{request:?}");
            };
            let path = ls.path.unwrap_or_default();
            let page = ls.cursor.map_or(1, |cursor| cursor.parse().expect("ours"));
            let (entries, cursor) = match &*path {
                "top" => (
                    (0..20)
                        .map(|number| entry(&format!("{page}-{number}"), Kind::Dir, 0))
                        .collect(),
                    (page < 3).then(|| (page + 1).to_string()),
                ),
                _ => (Vec::new(), None),
            };
            listed.push((path, page));
            peer.say(encode_ok(id, &LsReply { entries, cursor })).await;
        }
        listed
    };
    let target = here.path().join("copy");
    let get = async move {
        let (sender, _notes) = mpsc::channel(1000);
        let roots = vec![("top".to_owned(), target)];
        client
            .get_trees(roots, FileOptions::default(), &Progress::new(), sender)
            .await
    };
    let (outcome, listed) = tokio::join!(get, script);
    assert_eq!(outcome.expect("got").directories, 61);
    let pages: Vec<_> = (0..listed.len())
        .filter(|number| listed[*number].0 == "top")
        .collect();
    assert_eq!(pages, [0, 21, 42], "{listed:?}");
}

#[tokio::test]
async fn a_tree_is_put_with_links_followed_and_loops_and_pipes_left_out() {
    let here = tempfile::tempdir().expect("a directory");
    let top = here.path().join("top");
    fs::create_dir_all(top.join("empty")).expect("made");
    fs::write(top.join("file"), "F").expect("written");
    std::os::unix::fs::symlink("file", top.join("link")).expect("linked");
    std::os::unix::fs::symlink("..", top.join("empty/loop")).expect("linked");
    std::os::unix::fs::symlink("nowhere", top.join("dangling")).expect("linked");
    let _socket = std::os::unix::net::UnixListener::bind(top.join("socket")).expect("bound");
    let (client, mut peer) = pair();
    let server = tokio::spawn(async move {
        let mut made = Vec::new();
        let mut put: BTreeMap<u32, (String, Vec<u8>)> = BTreeMap::new();
        while let Some(frame) = peer.next_frame().await {
            let (id, request) = match &frame {
                Frame::Control(json) => Request::parse(json).expect("sound"),
                Frame::Data { stream, chunk } => {
                    let (_, content) = put.get_mut(stream).expect("an open put");
                    content.extend_from_slice(chunk);
                    continue;
                }
            };
            match request {
                Request::Mkdir(mkdir) => {
                    assert!(mkdir.parents);
                    let reply = PathReply { path: mkdir.path };
                    peer.say(encode_ok(id, &reply)).await;
                    made.push(reply.path);
                }
                Request::Put(request) => {
                    assert!(request.parents && request.modified.is_some());
                    put.insert(id, (request.path, Vec::new()));
                }
                Request::End(end) => {
                    let (path, content) = &put[&id];
                    peer.store(id, path, content, &end).await;
                }
                other => panic!("{other:?}"),
            }
        }
        made.sort();
        (made, put)
    });
    let (sender, mut notes) = mpsc::channel(1000);
    let roots = vec![(top, "/up".to_owned())];
    let progress = Progress::new();
    let summary = client
        .put_trees(roots, FileOptions::default(), &progress, sender)
        .await
        .expect("put");
    drop(client);
    let (made, put) = server.await.expect("no panic");
    assert_eq!(made, ["/up", "/up/empty"]);
    let mut put: Vec<_> = put.into_values().collect();
    put.sort();
    let expected = ["/up/file", "/up/link"].map(|path| (path.to_owned(), b"F".to_vec()));
    assert_eq!(put, expected);
    assert_eq!((summary.files, summary.skipped, summary.failed), (2, 3, 0));
    assert!(progress.totals_are_final());
    let mut skipped = 0;
    while let Some(note) = notes.recv().await {
        skipped += u32::from(matches!(note, TreeEvent::Skipped { .. }));
    }
    assert_eq!(skipped, 3);
}

#[tokio::test]
async fn a_file_with_another_digest_is_not_saved() {
    let here = tempfile::tempdir().expect("a directory");
    let target = here.path().join("file");
    fs::write(&target, "old").expect("written");
    let (client, mut peer) = pair();
    let script = async {
        let (id, _) = peer.request().await;
        peer.send_file(id, b"flipped", blake3(b"content")).await;
    };
    let (options, progress) = (FileOptions::default(), Progress::new());
    let get = client.get_file("f", &target, options, &progress);
    let (outcome, ()) = tokio::join!(get, script);
    assert!(matches!(outcome, Err(ClientError::DigestMismatch { .. })));
    assert_eq!(fs::read(&target).expect("there"), b"old");
    assert_eq!(here.path().read_dir().expect("there").count(), 1);
}

#[tokio::test]
async fn a_file_of_another_size_than_was_listed_is_not_saved() {
    const LARGE: usize = 300_000;
    let modified: Timestamp = "2020-02-02T02:02:02Z".parse().expect("a time");
    // Small files come together, large ones by themselves. A file of another time was changed meanwhile.
    for (size, listed, modified, is_saved) in [
        (7, 6, modified, false),
        (7, 7, modified, true),
        (7, 6, Timestamp::UNIX_EPOCH, true),
        (LARGE, LARGE + 1, modified, false),
        (LARGE, LARGE, modified, true),
    ] {
        let here = tempfile::tempdir().expect("a directory");
        let target = here.path().join("file");
        let content = vec![b'x'; size];
        let (client, mut peer) = pair();
        let script = async move {
            let (id, _) = peer.request().await;
            let stat = StatReply {
                path: "/f".into(),
                entry: Entry::new("f", Kind::File, listed as u64, modified),
            };
            peer.say(encode_ok(id, &stat)).await;
            let (id, _) = peer.request().await;
            peer.send_file(id, &content, blake3(&content)).await;
            std::future::pending::<()>().await;
        };
        let roots = vec![("f".to_owned(), target.clone())];
        let get = async move {
            let (sender, mut notes) = mpsc::channel(10);
            let (options, progress) = (FileOptions::default(), Progress::new());
            let got = client.get_trees(roots, options, &progress, sender).await;
            (got, notes.recv().await)
        };
        let (outcome, note) = tokio::select! {
            got = get => got,
            () = script => panic!("the server does not hang up"),
        };
        assert_eq!(outcome.expect("the job ends").files, u64::from(is_saved));
        assert_eq!(target.exists(), is_saved, "{size} {listed}");
        if let Some(TreeEvent::Failed { error, .. }) = note {
            assert!(matches!(error, ClientError::InvalidReply(_)), "{error:?}");
        }
    }
}

#[tokio::test]
async fn a_get_that_is_refused_or_dropped_leaves_nothing_behind() {
    let here = tempfile::tempdir().expect("a directory");
    let left = || here.path().read_dir().expect("there").count();
    let target = here.path().join("file");
    let (client, mut peer) = pair();
    let script = async {
        let (id, _) = peer.request().await;
        let refusal = WireError::new(ErrorCode::NotFound, "no");
        peer.say(encode_error(id, &refusal)).await;
        let (_, second) = peer.request().await;
        assert!(matches!(second, Request::Get(_)));
        assert_eq!(left(), 1);
    };
    let get = async {
        let (options, progress) = (FileOptions::default(), Progress::new());
        let refused = client.get_file("f", &target, options, &progress).await;
        assert!(refused.is_err());
        assert_eq!(left(), 0);
        client.get_file("f", &target, options, &progress).await
    };
    tokio::select! {
        biased;
        _ = get => panic!("nobody answers"),
        () = script => {}
    }
    while left() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_file_that_must_be_kept_is_not_requested() {
    let here = tempfile::tempdir().expect("a directory");
    let (client, _peer) = pair();
    let options = FileOptions {
        if_exists: Some(IfExists::Fail),
        ..FileOptions::default()
    };
    let target = here.path().join("file");
    fs::write(&target, "old").expect("written");
    let outcome = client
        .get_file("f", &target, options, &Progress::new())
        .await;
    assert!(matches!(outcome, Err(ClientError::LocalExists(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_files_are_put_to_a_server_that_answers_each_before_it_reads_on() {
    const FILES: usize = 3000;
    let here = tempfile::tempdir().expect("a directory");
    for number in 0..FILES {
        let path = here.path().join(number.to_string());
        fs::write(path, vec![b'x'; number % 900]).expect("written");
    }
    let (client, mut peer) = pair();
    let server = tokio::spawn(async move {
        let mut stored = 0;
        let mut put: Option<(String, Vec<u8>)> = None;
        while let Some(frame) = peer.next_frame().await {
            let (id, request) = match &frame {
                Frame::Control(json) => Request::parse(json).expect("sound"),
                Frame::Data { chunk, .. } => {
                    let (_, content) = put.as_mut().expect("an open put");
                    content.extend_from_slice(chunk);
                    continue;
                }
            };
            match request {
                Request::Mkdir(mkdir) => {
                    let reply = PathReply { path: mkdir.path };
                    peer.say(encode_ok(id, &reply)).await;
                }
                Request::Put(request) => {
                    assert!(put.is_none(), "each comes in one piece");
                    put = Some((request.path, Vec::new()));
                }
                Request::End(end) => {
                    let (path, content) = put.take().expect("an open put");
                    peer.store(id, &path, &content, &end).await;
                    stored += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        stored
    });
    let (sender, notes) = mpsc::channel(1);
    drop(notes);
    let roots = vec![(here.path().to_owned(), "/up".to_owned())];
    let progress = Progress::new();
    let summary = client
        .put_trees(roots, FileOptions::default(), &progress, sender)
        .await
        .expect("put");
    assert_eq!((summary.files, summary.failed), (FILES as u64, 0));
    assert_eq!(progress.bytes(), progress.total_bytes());
    assert_eq!(progress.sent_bytes(), progress.total_bytes());
    drop(client);
    assert_eq!(server.await.expect("no panic"), FILES);
}
