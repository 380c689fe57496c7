//! Transfers that are interrupted by a signal, a kill or a closed output.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use crate::command_line::person::Person;
use crate::harness::{PASSWORD, TestServer};

/// The longest time that a process may take to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for a process that must end soon; one that hangs is killed, and the test fails.
async fn ends(mut process: Child) -> ExitStatus {
    let id = Pid::from_child(&process);
    let mut waiting = tokio::task::spawn_blocking(move || process.wait());
    let Ok(status) = tokio::time::timeout(PATIENCE, &mut waiting).await else {
        kill_process(id, Signal::KILL).expect("it runs");
        panic!("it hangs");
    };
    status.expect("no panic").expect("it ends")
}

/// The names in a directory.
fn names(directory: &Path) -> BTreeSet<OsString> {
    let entries = fs::read_dir(directory).expect("readable");
    entries
        .map(|entry| entry.expect("an entry").file_name())
        .collect()
}

/// The number of unfinished files below a directory.
fn parts(directory: &Path) -> usize {
    walkdir::WalkDir::new(directory)
        .into_iter()
        .filter_map(Result::ok)
        .filter(|entry| entry.path().extension() == Some("part".as_ref()))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_whose_output_is_closed_ends_without_a_message() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    for number in 0..600 {
        person.write(&format!("many/{number}"), "content");
    }
    person.types(&["put", "many"], 0).await;
    for args in [
        &["--json", "put", "many", "again"][..],
        &["--json", "get", "many", "back"],
        &["get", "-v", "many", "once more"],
    ] {
        // The pipe is closed before the program can write to it.
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = person.command(args);
        let mut process = command.stdout(writer).spawn().expect("started");
        let mut stderr = process.stderr.take().expect("piped");
        // The program has not completed the transfer, so it fails.
        assert_eq!(ends(process).await.code(), Some(1), "{args:?}");
        let mut errors = String::new();
        stderr.read_to_string(&mut errors).expect("text");
        assert_eq!(errors, "", "{args:?}");
    }
    assert_eq!(parts(person.temp_dir.path()), 0);
    while server.staged() > 0 {
        tokio::task::yield_now().await;
    }
}

/// A proxy that stops forwarding after `bytes` bytes from the server, and keeps the connection
/// open.
async fn stalling_after(server: &TestServer, bytes: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = server.address;
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.expect("a connection");
            tokio::spawn(async move {
                let mut far = TcpStream::connect(server).await.expect("the server");
                let (from_client, mut to_client) = near.split();
                let (from_server, mut to_server) = far.split();
                let (mut from_client, mut from_server) = (from_client, from_server.take(bytes));
                let stalled = async {
                    let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    () = stalled => {}
                    _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_get_of_a_directory_leaves_part_files_only_and_exits_with_130() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    let large = server.home("alice").join("large");
    fs::create_dir(&large).expect("made");
    for name in ["a", "b"] {
        let file = fs::File::create(large.join(name)).expect("made");
        file.set_len(1 << 30).expect("a large file");
    }
    let address = stalling_after(&server, 8 << 20).await;
    let url = format!("haul+plain://alice@{address}");
    for (args, script) in [(&["get", "large"][..], ""), (&["shell"], "get large\n")] {
        let mut command = person.command(args);
        command
            .env("HAUL_SERVER", &url)
            .env("HAUL_PASSWORD", PASSWORD);
        let mut process = command.spawn().expect("started");
        let mut stdin = process.stdin.take().expect("piped");
        stdin.write_all(script.as_bytes()).expect("read");
        while parts(person.temp_dir.path()) < 2 {
            tokio::task::yield_now().await;
        }
        kill_process(Pid::from_child(&process), Signal::INT).expect("it runs");
        assert_eq!(ends(process).await.code(), Some(130), "{args:?}");
        let left = names(&person.path("large"));
        assert_eq!(left.len(), parts(person.temp_dir.path()), "{left:?}");
        fs::remove_dir_all(person.path("large")).expect("removed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_get_resumes_a_killed_one_and_leaves_files_of_a_running_one_alone() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    let home = server.home("alice");
    fs::create_dir(home.join("large")).expect("made");
    for name in ["large/a", "large/b", "alone"] {
        let file = fs::File::create(home.join(name)).expect("made");
        file.set_len(64 << 20).expect("a large file");
    }
    fs::write(home.join("small"), "content").expect("written");
    let address = stalling_after(&server, 8 << 20).await;
    let url = format!("haul+plain://alice@{address}");
    let begin = |args: &[&str]| {
        let mut command = person.command(args);
        command
            .env("HAUL_SERVER", &url)
            .env("HAUL_PASSWORD", PASSWORD);
        command.spawn().expect("started")
    };
    let mut killed = begin(&["get", "large", "alone", "."]);
    while parts(person.temp_dir.path()) < 3 {
        tokio::task::yield_now().await;
    }
    killed.kill().expect("it runs");
    assert_eq!(ends(killed).await.code(), None);
    assert_eq!(parts(person.temp_dir.path()), 3);
    let stale = names(&person.path("large"));
    let live = begin(&["get", "large/a", "large/live"]);
    while names(&person.path("large")).is_subset(&stale) {
        tokio::task::yield_now().await;
    }
    person
        .types(&["get", "large/b", "small", "-t", "large"], 0)
        .await;
    // The part file of large/live is being written; that of large/a exists if the server had begun
    // to send it.
    assert!((1..=2).contains(&parts(&person.path("large"))));
    person.types(&["get", "large", "alone", "."], 0).await;
    assert_eq!(parts(person.temp_dir.path()), 1);
    kill_process(Pid::from_child(&live), Signal::INT).expect("it runs");
    assert_eq!(ends(live).await.code(), Some(130));
    person.types(&["get", "large/a", "large/live"], 0).await;
    assert_eq!(parts(person.temp_dir.path()), 0);
    assert_eq!(person.read("large/small"), "content");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_put_leaves_no_file_and_exits_with_130() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    let mut process = person
        .command(&["put", "-", "half"])
        .spawn()
        .expect("started");
    let mut stdin = process.stdin.take().expect("piped");
    stdin.write_all(&vec![7; 1 << 20]).expect("read");
    while server.staged() == 0 {
        tokio::task::yield_now().await;
    }
    kill_process(Pid::from_child(&process), Signal::INT).expect("it runs");
    assert_eq!(ends(process).await.code(), Some(130));
    person.types(&["stat", "half"], 1).await;
}
