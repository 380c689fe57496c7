//! `haul bench`: its output, and the removal of its files.

use std::path::Path;
use std::process::Stdio;

use haul::storage::SpaceLimits;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::command_line::{Person, run};
use crate::harness::{PASSWORD, TestServer, soon};

/// A measurement of one second, with the password in the environment.
fn measuring(server: &TestServer, person: &Person, args: &[&str]) -> std::process::Command {
    let mut command = person.command(&["bench", "--seconds", "1"]);
    command
        .args(args)
        .env(
            "HAUL_SERVER",
            format!("haul+plain://alice@{}", server.address),
        )
        .env("HAUL_PASSWORD", PASSWORD);
    command
}

fn person() -> Person {
    Person::for_url("haul+plain://nobody@127.0.0.1:1".into())
}

fn entries(directory: &Path) -> usize {
    std::fs::read_dir(directory).expect("a directory").count()
}

#[tokio::test]
async fn a_measurement_reports_the_throughput_and_leaves_no_file() {
    let person = person();
    let server = TestServer::start().await;
    let (output, stdout) = run(measuring(&server, &person, &["--json"]), "").await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let measured: Value = serde_json::from_str(&stdout).expect("one JSON object");
    assert!(measured["latency"]["answers"].as_u64() >= Some(1));
    assert!(measured["latency"]["p50_ms"].as_f64() <= measured["latency"]["p99_ms"].as_f64());
    for way in ["up", "down"] {
        assert!(
            measured[way]["bytes"].as_u64() >= Some(256 * 1024),
            "{measured}"
        );
        assert!(measured[way]["bytes_per_second"].as_f64() > Some(0.0));
    }
    assert_eq!(entries(&server.home("alice")), 0);
    assert_eq!(server.staged(), 0);
}

#[tokio::test]
async fn the_output_for_people_is_a_short_table() {
    let person = person();
    let server = TestServer::start().await;
    let (output, stdout) = run(measuring(&server, &person, &[]), "").await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let lines: Vec<_> = stdout.lines().collect();
    assert!(lines[0].starts_with("DIRECTION") && lines[0].ends_with("GBIT/S"));
    assert!(lines[1].starts_with("up ") && lines[2].starts_with("down "));
    assert!(lines[3].starts_with("Round-trip time: median "), "{stdout}");
    assert_eq!(lines.len(), 4);
}

#[tokio::test]
async fn a_small_quota_limits_the_test_file_and_a_full_one_is_reported() {
    let person = person();
    let server = TestServer::start().await;
    let limits = |bytes| SpaceLimits {
        bytes: Some(bytes),
        files: None,
    };
    server.add_user("small", limits(256 * 1024)).await;
    server.add_user("full", limits(100_000)).await;
    let url = |user: &str| format!("haul+plain://{user}@{}", server.address);
    let mut command = measuring(&server, &person, &["--json"]);
    command.env("HAUL_SERVER", url("small"));
    let (output, stdout) = run(command, "").await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let measured: Value = serde_json::from_str(&stdout).expect("one JSON object");
    assert!(measured["up"]["bytes"].as_u64() <= Some(256 * 1024));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        stderr.contains("the free space limited the file to"),
        "{stderr}"
    );
    let mut command = measuring(&server, &person, &[]);
    command.env("HAUL_SERVER", url("full"));
    let (output, stdout) = run(command, "").await;
    assert_eq!((output.status.code(), &*stdout), (Some(1), ""));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("your home has 97.7 KiB of free space"),
        "{stderr}"
    );
}

#[tokio::test]
async fn an_interrupted_measurement_leaves_no_file() {
    let person = person();
    let server = TestServer::start_with(|config| {
        // Slow enough to be interrupted during the measurement.
        config.limits.bandwidth_per_user = Some(512 * 1024);
    })
    .await;
    let mut command = measuring(&server, &person, &[]);
    command.stdin(Stdio::null());
    let process = command.spawn().expect("the program starts");
    soon("an upload under way", async || {
        (server.staged() > 0).then_some(())
    })
    .await;
    kill_process(Pid::from_child(&process), Signal::INT).expect("it runs");
    let ended = tokio::task::spawn_blocking(move || process.wait_with_output());
    let output = ended.await.expect("no panic").expect("it ends");
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert_eq!(entries(&server.home("alice")), 0);
    soon("nothing is staged", async || {
        (server.staged() == 0).then_some(())
    })
    .await;
}
