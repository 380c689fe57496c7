//! Transfers of the program over broken connections.

use std::fs;

use haul::storage::SpaceLimits;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::harness::TestServer;
use crate::reconnecting::cutting_proxy::{Cut, CuttingProxy};
use crate::reconnecting::{MB, PATIENCE, command, command_as, log_in, run, text};
use crate::test_files::patterned_bytes;

#[tokio::test(flavor = "multi_thread")]
async fn the_program_reports_that_it_retries_and_why() {
    let server = TestServer::start().await;
    let temp_dir = tempfile::tempdir().expect("a directory");
    let content = patterned_bytes(4 * MB);
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
    fs::write(temp_dir.path().join("file"), patterned_bytes(4 * MB)).expect("written");
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
    let content = patterned_bytes(6 * MB);
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
    let content = patterned_bytes(4 * MB);
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
    fs::write(temp_dir.path().join("file"), patterned_bytes(2 * MB)).expect("written");
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
    fs::write(temp_dir.path().join("file"), patterned_bytes(2 * MB)).expect("written");
    let put = command_as("carol", server.address, temp_dir.path(), &["put", "file"]);
    let output = run(put).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "haul: put: the quota of your home leaves no room: 0 B of 976.6 KiB used, ./file needs 1.9 MiB; \
         remove something there or ask the operator of the server for more\n"
    );
}
