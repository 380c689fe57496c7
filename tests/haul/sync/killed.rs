//! `haul sync` that is killed at random points, in both directions, and then runs to its end.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_blocking};

use super::write;
use crate::command_line::Person;
use crate::harness::{PASSWORD, TestServer};
use crate::random::{Chance, times};

/// A connection to the server that passes on so many bytes in each direction, and then none.
struct StallingProxy {
    address: SocketAddr,
    stalled: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for StallingProxy {
    fn drop(&mut self) {
        // Closes both sockets: a user has a limit of sessions.
        self.task.abort();
    }
}

impl StallingProxy {
    async fn start(server: SocketAddr, bytes: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let stalled = Arc::new(Notify::new());
        let notify = Arc::clone(&stalled);
        let task = tokio::spawn(async move {
            let (mut near, _) = listener.accept().await.expect("a connection");
            let mut far = TcpStream::connect(server).await.expect("the server");
            let (from_client, mut to_client) = near.split();
            let (from_server, mut to_server) = far.split();
            let (mut up, mut down) = (from_client.take(bytes), from_server.take(bytes));
            let both = async {
                tokio::select! {
                    () = pass(&mut up, &mut to_server) => {}
                    () = pass(&mut down, &mut to_client) => {}
                }
            };
            both.await;
            notify.notify_one();
            // The sockets stay open, so that the client waits.
            std::future::pending::<()>().await;
        });
        Self {
            address,
            stalled,
            task,
        }
    }
}

async fn pass(from: &mut (impl AsyncRead + Unpin), to: &mut (impl tokio::io::AsyncWrite + Unpin)) {
    let _ = tokio::io::copy(from, to).await;
}

/// The files below a directory, and the directories without content.
fn contents(root: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path
                .strip_prefix(root)
                .expect("below")
                .display()
                .to_string();
            if path.is_dir() {
                directories.push(path);
                found.insert(name, None);
            } else {
                found.insert(name, Some(fs::read(&path).expect("readable")));
            }
        }
    }
    found
}

/// Changes some files of the source. No name disappears, so that no unfinished download of a file that
/// is gone stays at the destination.
fn edit(root: &Path, chance: &mut Chance) {
    for _ in 0..8 {
        let length = if chance.one_in(4) { 400_000 } else { 3_000 };
        let content = chance.bytes(length);
        let (directory, name) = (chance.below(3), chance.below(12));
        write(root, &format!("{directory}/{name}"), content);
    }
}

async fn killed_and_continued(is_up: bool) {
    let seed = Chance::seed();
    println!("the seed is {seed}");
    let mut chance = Chance::new(seed);
    let server = TestServer::start().await;
    let person = Person::for_url(format!("haul+plain://alice@{}", server.address));
    let (local, home) = (person.path("tree"), server.home("alice").join("tree"));
    let (source, destination) = if is_up {
        (&local, &home)
    } else {
        (&home, &local)
    };
    // What another kind replaces, and what is deleted.
    write(source, "kind", "a file");
    write(source, "other/file", "in a directory");
    write(destination, "kind/file", "in a directory");
    write(destination, "other", "a file");
    write(destination, "surplus/file", "surplus");
    for _ in 0..times("HAUL_SYNC_KILLS", 12) {
        edit(source, &mut chance);
        let bytes = 500 + chance.below(1_500_000);
        let proxy = StallingProxy::start(server.address, bytes).await;
        let url = format!("haul+plain://alice@{}", proxy.address);
        let paths = if is_up {
            ["tree", ":/tree"]
        } else {
            [":/tree", "tree"]
        };
        let mut command =
            person.command(&["--server", &url, "sync", "--delete", paths[0], paths[1]]);
        let child = command
            .env("HAUL_PASSWORD", PASSWORD)
            .spawn()
            .expect("started");
        let id = rustix::process::Pid::from_child(&child);
        let mut ended = spawn_blocking(move || child.wait_with_output().expect("it ends"));
        tokio::select! {
            () = proxy.stalled.notified() => {
                let _ = rustix::process::kill_process(id, rustix::process::Signal::KILL);
                ended.await.expect("no panic");
            }
            output = &mut ended => {
                let output = output.expect("no panic");
                assert!(output.status.success(), "{bytes} bytes were enough: {output:?}");
            }
        }
    }
    let url = person.url.clone();
    let paths = if is_up {
        ["tree", ":/tree"]
    } else {
        [":/tree", "tree"]
    };
    let words = ["--server", &url, "--delete", paths[0], paths[1]];
    let (output, _) = person.type_with(&words, "sync", "").await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(contents(source), contents(destination));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_sync_up_is_continued_and_ends_equal() {
    killed_and_continued(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_sync_down_is_continued_and_ends_equal() {
    killed_and_continued(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_syncs_at_once_into_one_directory_do_no_harm() {
    let server = TestServer::start().await;
    let person = Person::for_url(format!("haul+plain://alice@{}", server.address));
    let mut chance = Chance::new(Chance::seed());
    let source = person.path("tree");
    for _ in 0..4 {
        edit(&source, &mut chance);
    }
    let url = person.url.clone();
    for words in [
        ["--server", &url, "--delete", "tree", ":/tree"],
        ["--server", &url, "--delete", ":/tree", "copy"],
    ] {
        let run = || person.type_with(&words, "sync", "");
        tokio::join!(run(), run());
        let (output, _) = run().await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    let home = server.home("alice").join("tree");
    assert_eq!(contents(&source), contents(&home));
    assert_eq!(contents(&source), contents(&person.path("copy")));
}
