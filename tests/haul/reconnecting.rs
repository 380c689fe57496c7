//! Transfers that survive broken connections.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use haul::client::{Client, ClientError, FileOptions, Progress, RetryPolicy, Session, Trust};
use haul::protocol::{Algorithm, Digest, Secret};
use haul::storage::SpaceLimits;
use proptest::prelude::*;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::timeout;

use crate::daemon::{ServerProcess, Watchdog, haul};
use crate::harness::{PASSWORD, TestServer};

const PATIENCE: Duration = Duration::from_mins(1);
const MB: usize = 1_000_000;

/// The point and the manner in which a connection ends: after a number of bytes, all of which
/// arrive.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cut {
    /// From the client to the server, with the end of both directions.
    Up(u64),
    /// From the server to the client, with the end of both directions.
    Down(u64),
    /// From the client to the server, with a reset on both sides, which loses buffered bytes.
    ResetUp(u64),
    ResetDown(u64),
    /// From the client to the server; later bytes are discarded until the client disconnects.
    Stall(u64),
}

/// A proxy that cuts its connections, the first at the first of `cuts` and so on. Later connections
/// are not cut.
pub(crate) struct CuttingProxy {
    pub(crate) address: SocketAddr,
    /// The address of the server, which may change.
    pub(crate) target: Arc<Mutex<String>>,
    up: Arc<AtomicU64>,
    down: Arc<AtomicU64>,
    accepting: AbortHandle,
}

impl CuttingProxy {
    pub(crate) async fn start(target: &str, cuts: &[Cut]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let target = Arc::new(Mutex::new(target.to_owned()));
        let (up, down) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut cuts = Vec::from(cuts).into_iter();
        let (to, counters) = (Arc::clone(&target), (Arc::clone(&up), Arc::clone(&down)));
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let to = to.lock().expect("no panic").clone();
                let (cut, (up, down)) = (cuts.next(), counters.clone());
                tokio::spawn(async move {
                    // Without a server, the connection of the client is closed.
                    if let Ok(server) = TcpStream::connect(to).await {
                        pass(client, server, cut, &up, &down).await;
                    }
                });
            }
        });
        Self {
            address,
            target,
            up,
            down,
            accepting: accepting.abort_handle(),
        }
    }

    pub(crate) fn up(&self) -> u64 {
        self.up.load(Ordering::Relaxed)
    }

    pub(crate) fn down(&self) -> u64 {
        self.down.load(Ordering::Relaxed)
    }

    /// Waits until `bytes` bytes have been sent from clients to the server.
    pub(crate) async fn reaches(&self, bytes: u64) {
        let poll = async {
            while self.up() < bytes {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, poll).await.expect("it comes so far");
    }
}

impl Drop for CuttingProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(
    mut client: TcpStream,
    mut server: TcpStream,
    cut: Option<Cut>,
    up: &AtomicU64,
    down: &AtomicU64,
) {
    let (up_limit, down_limit) = match cut {
        Some(Cut::Up(bytes) | Cut::ResetUp(bytes) | Cut::Stall(bytes)) => (bytes, u64::MAX),
        Some(Cut::Down(bytes) | Cut::ResetDown(bytes)) => (u64::MAX, bytes),
        None => (u64::MAX, u64::MAX),
    };
    let (mut client_reads, mut client_writes) = client.split();
    let (mut server_reads, mut server_writes) = server.split();
    let ended = tokio::try_join!(
        pump(&mut client_reads, &mut server_writes, up_limit, up),
        pump(&mut server_reads, &mut client_writes, down_limit, down),
    );
    if ended.is_ok() {
        return;
    }
    match cut {
        Some(Cut::ResetUp(_) | Cut::ResetDown(_)) => {
            for stream in [&client, &server] {
                let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
            return;
        }
        Some(Cut::Stall(_)) | None => {}
        Some(Cut::Up(_) | Cut::Down(_)) => {
            let _ = client_writes.shutdown().await;
            let _ = server_writes.shutdown().await;
        }
    }
    // Unread bytes would cause a reset, which discards bytes that the peer has not read yet.
    let _ = tokio::io::copy(&mut client_reads, &mut tokio::io::sink()).await;
    if let Some(Cut::Up(_) | Cut::Down(_)) = cut {
        let _ = tokio::io::copy(&mut server_reads, &mut tokio::io::sink()).await;
    }
}

/// Forwards bytes to the end; fails after `limit` bytes.
async fn pump(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    limit: u64,
    total: &AtomicU64,
) -> Result<(), ()> {
    let mut left = limit;
    let mut buffer = vec![0; 16 * 1024];
    while left > 0 {
        let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let length = match from.read(&mut buffer[..most]).await {
            Ok(length) if length > 0 => length,
            _ => break,
        };
        if to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
        total.fetch_add(length as u64, Ordering::Relaxed);
        left -= length as u64;
    }
    if left == 0 {
        return Err(());
    }
    let _ = to.shutdown().await;
    Ok(())
}

/// Bytes that depend on their position.
fn content(size: usize) -> Vec<u8> {
    let words = (0_u32..).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes());
    words.take(size).collect()
}

async fn log_in(address: SocketAddr) -> Result<Client, ClientError> {
    log_in_at(format!("haul+plain://{address}"), Trust::default()).await
}

async fn log_in_at(url: String, trust: Trust) -> Result<Client, ClientError> {
    let client = Client::connect(&url.parse().expect("an address"), &trust).await?;
    let password = Secret::new(PASSWORD.into());
    client.login("alice", &password).await?;
    Ok(client)
}

/// A session of alice with short retry delays.
pub(crate) async fn session(address: SocketAddr) -> Session {
    session_at(format!("haul+plain://{address}"), Trust::default()).await
}

async fn session_at(url: String, trust: Trust) -> Session {
    let policy = RetryPolicy {
        first: Duration::from_millis(1),
        ..RetryPolicy::default()
    };
    let client = log_in_at(url.clone(), trust.clone()).await;
    let connect = move || log_in_at(url.clone(), trust.clone());
    Session::new(client.expect("logged in"), policy, connect)
}

/// Transfers a file over TLS with `cuts`; all but the first are in a handshake.
async fn transfers_over_tls(cuts: &[Cut], is_upload: bool) {
    let server = TestServer::start().await;
    let temp_dir = tempfile::tempdir().expect("a directory");
    let (path, back) = (temp_dir.path().join("file"), temp_dir.path().join("back"));
    let content = content(5 * MB);
    fs::write(&path, &content).expect("written");
    let proxy = CuttingProxy::start(&server.address.to_string(), cuts).await;
    let trust = Trust::default().with_only(server.fingerprint());
    let session = session_at(format!("haul://{}", proxy.address), trust).await;
    let (options, progress) = (FileOptions::default(), Progress::new());
    if is_upload {
        let put = session.put_file(&path, "file", options, &progress).await;
        let digest = put.expect("stored").digest;
        assert_eq!(digest, Digest::compute(Algorithm::Blake3, &content));
    } else {
        fs::copy(&path, server.home("alice").join("file")).expect("copied");
        let get = session.get_file("file", &back, options, &progress).await;
        get.expect("got");
        assert!(fs::read(&back).expect("there") == content);
    }
    assert_eq!(progress.bytes(), content.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_over_tls_survives_connections_that_break_in_the_handshake() {
    let cuts = [
        Cut::Up(3_000_000),
        Cut::Down(500),
        Cut::ResetUp(100),
        Cut::Down(0),
        Cut::ResetDown(500),
        Cut::Up(100),
    ];
    transfers_over_tls(&cuts, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_over_tls_survives_connections_that_break_in_the_handshake() {
    let cuts = [
        Cut::Down(3_000_000),
        Cut::Up(100),
        Cut::ResetDown(500),
        Cut::Down(500),
    ];
    transfers_over_tls(&cuts, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tls_connection_without_close_notify_is_reported_as_closed() {
    let server = TestServer::start().await;
    let proxy = CuttingProxy::start(&server.address.to_string(), &[Cut::Up(3_000_000)]).await;
    let trust = Trust::default().with_only(server.fingerprint());
    let client = log_in_at(format!("haul://{}", proxy.address), trust).await;
    let session = Session::from(client.expect("logged in"));
    let temp_dir = tempfile::tempdir().expect("a directory");
    let path = temp_dir.path().join("file");
    fs::write(&path, content(5 * MB)).expect("written");
    let (options, progress) = (FileOptions::default(), Progress::new());
    let put = session.put_file(&path, "file", options, &progress).await;
    let error = put.expect_err("cut off").to_string();
    assert_eq!(error, "the server closed the connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_over_breaking_connections_succeeds_and_sends_each_byte_once() {
    let server = TestServer::start().await;
    let cuts = [
        Cut::Up(3_000_000),
        Cut::ResetUp(4_000_000),
        Cut::Up(40_000),
        Cut::Down(600),
        Cut::Up(70_000),
        Cut::ResetUp(5_123_457),
    ];
    let proxy = CuttingProxy::start(&server.address.to_string(), &cuts).await;
    let temp_dir = tempfile::tempdir().expect("a directory");
    let path = temp_dir.path().join("file");
    let content = content(20 * MB);
    fs::write(&path, &content).expect("written");
    let session = session(proxy.address).await;
    let progress = Progress::new();
    let options = FileOptions::default();
    let reply = session.put_file(&path, "file", options, &progress).await;
    let reply = reply.expect("stored");
    assert_eq!(reply.digest, Digest::compute(Algorithm::Blake3, &content));
    assert!(fs::read(server.home("alice").join("file")).expect("there") == content);
    assert_eq!(progress.bytes(), content.len() as u64);
    assert!(
        proxy.up() < 2 * content.len() as u64,
        "{} were sent",
        proxy.up()
    );
    assert!(session.client().uploads().await.expect("listed").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_over_breaking_connections_succeeds_and_receives_each_byte_once() {
    let server = TestServer::start().await;
    let cuts = [
        Cut::Down(3_000_000),
        Cut::ResetDown(4_000_000),
        Cut::Down(400),
        Cut::Up(250),
        Cut::ResetDown(5_123_457),
    ];
    let proxy = CuttingProxy::start(&server.address.to_string(), &cuts).await;
    let content = content(20 * MB);
    let temp_dir = tempfile::tempdir().expect("a directory");
    let path = temp_dir.path().join("file");
    let session = session(proxy.address).await;
    fs::write(server.home("alice").join("file"), &content).expect("written");
    let progress = Progress::new();
    let options = FileOptions::default();
    let got = session.get_file("file", &path, options, &progress).await;
    assert_eq!(got.expect("got").size, content.len() as u64);
    assert!(fs::read(&path).expect("there") == content);
    assert_eq!(progress.bytes(), content.len() as u64);
    assert!(
        proxy.down() < 2 * content.len() as u64,
        "{} were sent",
        proxy.down()
    );
    assert_eq!(temp_dir.path().read_dir().expect("there").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_that_ended_with_its_connection_is_resumed_by_the_same_command() {
    let server = TestServer::start().await;
    let cuts = [Cut::Down(5_000_000)];
    let proxy = CuttingProxy::start(&server.address.to_string(), &cuts).await;
    let content = content(20 * MB);
    // The first login creates the home.
    drop(session(server.address).await);
    fs::write(server.home("alice").join("file"), &content).expect("written");
    let temp_dir = tempfile::tempdir().expect("a directory");
    let get = ["get", "--retries", "0", "file"];
    let output = run(command(proxy.address, temp_dir.path(), &get)).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let names: Vec<_> = fs::read_dir(temp_dir.path())
        .expect("readable")
        .map(|entry| entry.expect("an entry").file_name())
        .filter(|name| text(name.as_encoded_bytes()).starts_with(".haul-"))
        .collect();
    assert_eq!(names.len(), 1, "{names:?}");
    let before = proxy.down();
    let output = run(command(proxy.address, temp_dir.path(), &get)).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(fs::read(temp_dir.path().join("file")).expect("there") == content);
    assert!(!temp_dir.path().join(&names[0]).exists());
    let sent = proxy.down() - before;
    assert!(sent < 18 * MB as u64, "{sent} were sent");
}

/// The files below a directory with their content, sorted by path.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = walkdir::WalkDir::new(directory).sort_by_file_name();
    let entries = entries.into_iter().map(|entry| entry.expect("readable"));
    entries
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| {
            let path = entry.path().strip_prefix(directory).expect("in it");
            let content = fs::read(entry.path()).expect("readable");
            (path.display().to_string(), content)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_is_transferred_unchanged_over_breaking_connections() {
    let server = TestServer::start().await;
    let temp_dir = tempfile::tempdir().expect("a directory");
    let original = temp_dir.path().join("original");
    for number in 0..6 {
        let directory = original.join(number.to_string());
        fs::create_dir_all(directory.join("empty")).expect("made");
        fs::write(directory.join("large"), content(2 * MB + number)).expect("written");
        for file in 0..20 {
            fs::write(directory.join(format!("{file}")), content(number * file)).expect("written");
        }
    }
    let target = server.address.to_string();
    let cuts = [
        Cut::Up(3_000_000),
        Cut::ResetUp(5_000_000),
        Cut::Down(3_000),
        Cut::Up(1_500_000),
    ];
    let proxy = CuttingProxy::start(&target, &cuts).await;
    let (progress, options) = (Progress::new(), FileOptions::default());
    let (sender, notes) = mpsc::channel(1);
    drop(notes);
    let roots = vec![(original.clone(), "/copy".to_owned())];
    let up = session(proxy.address).await;
    let up = up
        .put_trees(roots, options, &progress, sender.clone())
        .await;
    let up = up.expect("put");
    assert_eq!((up.files, up.failed, progress.files()), (126, 0, 126));
    assert_eq!(progress.bytes(), progress.total_bytes());

    let cuts = [
        Cut::Down(2_500_000),
        Cut::ResetDown(4_000_000),
        Cut::Up(2_000),
        Cut::Down(900_000),
    ];
    let proxy = CuttingProxy::start(&target, &cuts).await;
    let progress = Progress::new();
    let back = temp_dir.path().join("back");
    let roots = vec![("/copy".to_owned(), back.clone())];
    let down = session(proxy.address).await;
    let down = down.get_trees(roots, options, &progress, sender).await;
    assert_eq!(down.expect("got"), up);
    assert_eq!(progress.bytes(), progress.total_bytes());
    assert!(files(&original) == files(&back));
    assert!(back.join("3/empty").is_dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_survives_a_killed_and_restarted_server() {
    let data = tempfile::tempdir().expect("a directory");
    let data = data.path().join("data");
    let daemon = {
        let data = data.clone();
        spawn_blocking(move || ServerProcess::start_on(&data))
            .await
            .expect("started")
    };
    let token = daemon.token();
    let proxy = CuttingProxy::start(&daemon.address, &[Cut::Stall(12_000_000)]).await;
    let temp_dir = tempfile::tempdir().expect("a directory");
    let path = temp_dir.path().join("file");
    let content = content(20 * MB);
    fs::write(&path, &content).expect("written");
    let url: haul::client::ServerUrl = format!("haul+plain://{}", proxy.address)
        .parse()
        .expect("an address");
    let connect = move || {
        let (url, token) = (url.clone(), token.clone());
        async move {
            let client = Client::connect(&url, &Trust::default()).await?;
            client.login_with_token(&Secret::new(token)).await?;
            Ok(client)
        }
    };
    let policy = RetryPolicy {
        attempts: 1000,
        first: Duration::from_millis(10),
        longest: Duration::from_millis(100),
        ..RetryPolicy::default()
    };
    let client = connect().await.expect("logged in");
    let session = Session::new(client, policy, connect);
    let progress = Progress::new();
    let put = session.put_file(&path, "file", FileOptions::default(), &progress);
    let kill = async {
        proxy.reaches(12_000_000).await;
        // The stalled connection does not notice the kill, so it is cut too.
        let again = spawn_blocking(move || {
            drop(daemon);
            ServerProcess::start_on(&data)
        });
        let again = again.await.expect("started");
        *proxy.target.lock().expect("no panic") = again.address.clone();
        session.client().hang_up();
        again
    };
    let (reply, again) = tokio::join!(put, kill);
    let reply = reply.expect("stored");
    assert_eq!(reply.digest, Digest::compute(Algorithm::Blake3, &content));
    let stored = again.data().join("homes/admin/file");
    assert!(fs::read(stored).expect("there") == content);
}

/// Any way of cutting a connection.
fn any_cut() -> impl Strategy<Value = Cut> {
    (0..4, 1_000_u64..1_500_000).prop_map(|(kind, bytes)| match kind {
        0 => Cut::Up(bytes),
        1 => Cut::Down(bytes),
        2 => Cut::ResetUp(bytes),
        _ => Cut::ResetDown(bytes),
    })
}

#[test]
fn a_file_is_transferred_unchanged_wherever_the_connection_breaks() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let server = runtime.block_on(TestServer::start());
    let temp_dir = tempfile::tempdir().expect("a directory");
    let (path, back) = (temp_dir.path().join("file"), temp_dir.path().join("back"));
    let content = content(2 * MB);
    fs::write(&path, &content).expect("written");
    let cuts = (
        proptest::collection::vec(any_cut(), 0..6),
        proptest::collection::vec(any_cut(), 0..6),
    );
    proptest!(ProptestConfig::with_cases(16), |((up, down) in cuts)| {
        runtime.block_on(async {
            let target = server.address.to_string();
            let options = FileOptions::default();
            let proxy = CuttingProxy::start(&target, &up).await;
            let progress = Progress::new();
            let put = session(proxy.address).await;
            let put = put.put_file(&path, "file", options, &progress).await.expect("stored");
            assert_eq!(put.digest, Digest::compute(Algorithm::Blake3, &content));
            assert_eq!(progress.bytes(), content.len() as u64);
            let proxy = CuttingProxy::start(&target, &down).await;
            let progress = Progress::new();
            let get = session(proxy.address).await;
            get.get_file("file", &back, options, &progress).await.expect("got");
            assert!(fs::read(&back).expect("there") == content);
            assert_eq!(progress.bytes(), content.len() as u64);
        });
    });
}

/// `haul` as alice, at this address.
fn command(address: SocketAddr, temp_dir: &Path, args: &[&str]) -> Command {
    command_as("alice", address, temp_dir, args)
}

fn command_as(user: &str, address: SocketAddr, temp_dir: &Path, args: &[&str]) -> Command {
    let mut command = haul();
    command
        .args(["--server", &format!("haul+plain://{user}@{address}")])
        .args(args)
        .env("HAUL_PASSWORD", PASSWORD)
        .env("XDG_CONFIG_HOME", temp_dir.join("config"))
        .current_dir(temp_dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

async fn run(mut command: Command) -> Output {
    let run = spawn_blocking(move || {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let process = command.spawn().expect("the program starts");
        let _watchdog = Watchdog::of_process(&process);
        process.wait_with_output().expect("it ends")
    });
    run.await.expect("no panic")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_reports_that_it_retries_and_why() {
    let server = TestServer::start().await;
    let temp_dir = tempfile::tempdir().expect("a directory");
    let content = content(4 * MB);
    fs::write(temp_dir.path().join("file"), &content).expect("written");
    let target = server.address.to_string();
    let proxy = CuttingProxy::start(&target, &[Cut::Up(3_000_000)]).await;
    let output = run(command(
        proxy.address,
        temp_dir.path(),
        &["--json", "put", "file"],
    ))
    .await;
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let line = stderr.lines().next().expect("a line");
    assert!(line.starts_with("connection lost at "), "{stderr}");
    let rest = " % (the server closed the connection); trying again in 1 s, attempt 1 of 10";
    assert!(line.ends_with(rest), "{stderr}");
    for line in text(&output.stdout).lines() {
        serde_json::from_str::<Value>(line).expect("JSON");
    }
    assert!(fs::read(server.home("alice").join("file")).expect("there") == content);

    let proxy = CuttingProxy::start(&target, &[Cut::Down(3_000_000)]).await;
    let get = ["--quiet", "get", "file", "back"];
    let output = run(command(proxy.address, temp_dir.path(), &get)).await;
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    assert!(fs::read(temp_dir.path().join("back")).expect("there") == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_option_retries_limits_the_attempts() {
    let server = TestServer::start().await;
    let temp_dir = tempfile::tempdir().expect("a directory");
    fs::write(temp_dir.path().join("file"), content(4 * MB)).expect("written");
    let proxy = CuttingProxy::start(&server.address.to_string(), &[Cut::Up(3_000_000)]).await;
    let put = ["put", "--retries", "0", "file"];
    let output = run(command(proxy.address, temp_dir.path(), &put)).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "haul: put: the server closed the connection; \
         run the same command again to resume it\n"
    );

    let proxy = CuttingProxy::start(&server.address.to_string(), &[Cut::Up(500_000)]).await;
    let move_target = async {
        proxy.reaches(500_000).await;
        "127.0.0.1:1".clone_into(&mut proxy.target.lock().expect("no panic"));
    };
    let put = command(
        proxy.address,
        temp_dir.path(),
        &["put", "--retries", "1", "file"],
    );
    let (output, ()) = tokio::join!(run(put), move_target);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("attempt 1 of 1\n"), "{stderr}");
    assert!(
        stderr.contains("and 1 attempt to connect again failed"),
        "{stderr}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_put_is_resumed_by_the_same_command() {
    let server = TestServer::start().await;
    let temp_dir = tempfile::tempdir().expect("a directory");
    let content = content(6 * MB);
    fs::write(temp_dir.path().join("file"), &content).expect("written");
    let target = server.address.to_string();
    let proxy = CuttingProxy::start(&target, &[Cut::Stall(4_000_000)]).await;
    let mut process = command(proxy.address, temp_dir.path(), &["put", "file"])
        .spawn()
        .expect("it starts");
    proxy.reaches(4_000_000).await;
    kill_process(Pid::from_child(&process), Signal::INT).expect("it runs");
    let output = spawn_blocking(move || {
        let _ = process.wait();
        process.wait_with_output().expect("it ends")
    });
    let output = timeout(PATIENCE, output)
        .await
        .expect("it ends")
        .expect("no panic");
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(
        text(&output.stderr),
        "haul: put: interrupted; the server keeps the interrupted upload for a while; \
         run the same command again to resume it\n"
    );

    let list = || {
        run(command(
            server.address,
            temp_dir.path(),
            &["--json", "uploads"],
        ))
    };
    let kept = async {
        loop {
            let output = list().await;
            if let Some(line) = text(&output.stdout).lines().next() {
                return serde_json::from_str::<Value>(line).expect("JSON");
            }
        }
    };
    let upload = timeout(PATIENCE, kept).await.expect("it is kept");
    assert_eq!(
        (&upload["path"], &upload["size"]),
        (&"/file".into(), &content.len().into())
    );
    let offset = upload["offset"].as_u64().expect("a number");
    assert!(offset > 3_000_000 && offset < 4_000_000, "{upload}");
    let table = run(command(server.address, temp_dir.path(), &["uploads"])).await;
    assert!(text(&table.stdout).starts_with("UPLOAD"), "{table:?}");

    let proxy = CuttingProxy::start(&target, &[]).await;
    let output = run(command(proxy.address, temp_dir.path(), &["put", "file"])).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        proxy.up() < content.len() as u64 - offset + 10_000,
        "{}",
        proxy.up()
    );
    assert!(fs::read(server.home("alice").join("file")).expect("there") == content);
    assert!(list().await.stdout.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shell_reconnects_in_its_current_directory() {
    let server = TestServer::start().await;
    let temp_dir = tempfile::tempdir().expect("a directory");
    let content = content(4 * MB);
    fs::write(temp_dir.path().join("file"), &content).expect("written");
    let target = server.address.to_string();
    let proxy = CuttingProxy::start(&target, &[Cut::Up(3_000_000), Cut::Down(2_000_000)]).await;
    let script = temp_dir.path().join("script");
    let lines = "mkdir sub\ncd sub\nput file\nget file back\npwd\nuploads\n";
    fs::write(&script, lines).expect("written");
    let mut shell = command(proxy.address, temp_dir.path(), &["shell"]);
    shell.stdin(fs::File::open(&script).expect("there"));
    let output = run(shell).await;
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(stderr.matches("connection lost at ").count(), 2, "{stderr}");
    assert_eq!(text(&output.stdout), "/sub\n");
    assert!(fs::read(server.home("alice").join("sub/file")).expect("there") == content);
    assert!(fs::read(temp_dir.path().join("back")).expect("there") == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_upload_can_be_discarded() {
    let server = TestServer::start().await;
    let temp_dir = tempfile::tempdir().expect("a directory");
    fs::write(temp_dir.path().join("file"), content(2 * MB)).expect("written");
    let proxy = CuttingProxy::start(&server.address.to_string(), &[Cut::Up(MB as u64)]).await;
    let put = ["put", "--retries", "0", "file"];
    run(command(proxy.address, temp_dir.path(), &put)).await;
    let client = log_in(server.address).await.expect("logged in");
    let kept = async {
        loop {
            if let Some(upload) = client.uploads().await.expect("listed").pop() {
                return upload.upload;
            }
        }
    };
    let upload = timeout(PATIENCE, kept).await.expect("it is kept");
    let discard = ["--json", "discard", &upload];
    let output = run(command(server.address, temp_dir.path(), &discard)).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(client.uploads().await.expect("listed").is_empty());
    let again = run(command(server.address, temp_dir.path(), &discard)).await;
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(server.staged(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_over_the_quota_explains_the_quota() {
    let server = TestServer::start().await;
    let limits = SpaceLimits {
        bytes: Some(MB as u64),
        files: None,
    };
    server.add_user("carol", limits).await;
    let temp_dir = tempfile::tempdir().expect("a directory");
    fs::write(temp_dir.path().join("file"), content(2 * MB)).expect("written");
    let put = command_as("carol", server.address, temp_dir.path(), &["put", "file"]);
    let output = run(put).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "haul: put: the quota of your home leaves no room: 0 B of 976.6 KiB used, ./file needs 1.9 MiB; \
         remove something there or ask the operator of the server for more\n"
    );
}
