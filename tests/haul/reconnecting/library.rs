//! Transfers of haul's client library over broken connections.

use std::fs;
use std::time::Duration;

use haul::client::{Client, FileOptions, Progress, RetryPolicy, Session, Trust};
use haul::protocol::{Algorithm, Digest, Secret};
use proptest::prelude::*;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::daemon::ServerProcess;
use crate::harness::TestServer;
use crate::reconnecting::cutting_proxy::{Cut, CuttingProxy};
use crate::reconnecting::{MB, command, log_in_at, run, session, session_at, text};
use crate::test_files::{files_below, patterned_bytes};

/// Transfers a file over TLS with `cuts`; all but the first are in a handshake.
async fn transfers_over_tls(cuts: &[Cut], is_upload: bool) {
    let server = TestServer::start().await;
    let temp_dir = tempfile::tempdir().expect("a directory");
    let (path, back) = (temp_dir.path().join("file"), temp_dir.path().join("back"));
    let content = patterned_bytes(5 * MB);
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
    fs::write(&path, patterned_bytes(5 * MB)).expect("written");
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
    let content = patterned_bytes(20 * MB);
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
    let content = patterned_bytes(20 * MB);
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
    let content = patterned_bytes(20 * MB);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_is_transferred_unchanged_over_breaking_connections() {
    let server = TestServer::start().await;
    let temp_dir = tempfile::tempdir().expect("a directory");
    let original = temp_dir.path().join("original");
    for number in 0..6 {
        let directory = original.join(number.to_string());
        fs::create_dir_all(directory.join("empty")).expect("made");
        fs::write(directory.join("large"), patterned_bytes(2 * MB + number)).expect("written");
        for file in 0..20 {
            fs::write(
                directory.join(format!("{file}")),
                patterned_bytes(number * file),
            )
            .expect("written");
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
    assert!(files_below(&original) == files_below(&back));
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
    let content = patterned_bytes(20 * MB);
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
    let content = patterned_bytes(2 * MB);
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
