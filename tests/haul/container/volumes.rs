//! Volumes: a correct one, a missing one, and one of another user.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};

use serde_json::Value;

use super::engine::{free_port, lines_of_log, patiently};
use super::{Container, RunOptions, docker, docker_fails, image};
use crate::daemon::ended;

#[test]
#[ignore = "needs an engine and the image"]
fn a_missing_volume_is_refused_with_advice_in_one_line() {
    let Some(image) = image("volumes::a_forgotten_volume") else {
        return;
    };
    let message = refused(&["run", "--rm", "--read-only", &image]);
    assert!(message.contains("a volume without a name"), "{message}");
    assert!(message.contains("docker run -v haul:/data"), "{message}");
    // No volume at all, as with engines that ignore VOLUME.
    let message = refused(&["run", "--rm", "--env=HAUL_DATA=/elsewhere", &image]);
    assert!(message.contains("is not a mounted volume"), "{message}");
    let setting = "--env=HAUL_SERVER_REQUIRE_MOUNT=false";
    let container = Container::run(
        &image,
        &RunOptions {
            run: &[setting],
            ..RunOptions::default()
        },
    );
    container.wait_for_log_line("listening");
}

#[test]
#[ignore = "needs an engine and the image"]
fn a_volume_of_another_user_is_refused_in_one_line_and_one_of_the_right_user_is_served() {
    let Some(image) = image("volumes::a_volume_of_somebody_else") else {
        return;
    };
    let temp_dir = tempfile::tempdir().expect("a directory");
    let data = temp_dir.path().join("data");
    fs::create_dir(&data).expect("made");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).expect("set");
    chown(&data, Some(1234), Some(1234)).expect("given away");
    let volume = format!("--volume={}:/data", data.display());
    let message = refused(&[
        "run",
        "--rm",
        "--read-only",
        "--cap-drop=ALL",
        &volume,
        &image,
    ]);
    assert!(
        message.contains("/data belongs to user 1234 and haul runs as user 65532"),
        "{message}"
    );
    assert!(message.contains("chown"), "{message}");
    let name = format!("haul-own-{}", free_port());
    docker(&[
        "run",
        "--detach",
        "--name",
        &name,
        "--read-only",
        "--cap-drop=ALL",
        "--user=1234:1234",
        &volume,
        &image,
    ]);
    patiently("listening", || {
        let lines = lines_of_log(&name);
        lines
            .iter()
            .any(|line| line["message"] == "listening")
            .then_some(())
    });
    docker(&["rm", "--force", "--volumes", &name]);
}

#[test]
#[ignore = "needs an engine and the image"]
fn an_upload_is_resumed_after_a_restart_of_the_container() {
    const SIZE: usize = 64 << 20;
    const AT_LEAST: u64 = 16 << 20;
    let Some(image) = image("volumes::an_upload_goes_on") else {
        return;
    };
    // The server stops before the upload is complete, without draining it.
    let slow = [
        "--env=HAUL_LIMITS_BANDWIDTH_PER_USER=8MiB",
        "--env=HAUL_LIMITS_DRAIN_TIMEOUT=1s",
    ];
    let options = RunOptions {
        run: &slow,
        ..RunOptions::default()
    };
    let container = Container::run(&image, &options);
    let content: Vec<_> = (0..=250_u8).cycle().take(SIZE).collect();
    fs::write(container.temp_dir.path().join("big"), &content).expect("written");
    let mut putting = container.client(&["put", "big"]);
    let mut putting = putting.spawn().expect("it runs");
    patiently("a good part of the upload", || {
        let sessions = container.succeeds(&["admin", "sessions", "--json"]);
        let mut sessions = sessions
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        sessions.find(|session| session["transfers"][0]["offset"].as_u64() > Some(AT_LEAST))
    });
    docker(&["restart", &container.name]);
    assert!(ended(&mut putting).success(), "it goes on by itself");
    let hash = container.succeeds(&["hash", "big"]);
    let digest = blake3::hash(&content).to_hex();
    assert!(hash.contains(digest.as_str()), "{hash}");
    let log = container.log();
    let mut puts = log.iter().filter(|line| line["cmd"] == "put");
    let complete = puts.rfind(|line| line["code"].is_null());
    let moved = complete.expect("a put that succeeded")["bytes"].as_u64();
    let moved = moved.expect("a number");
    assert!(moved <= SIZE as u64 - AT_LEAST, "sent again: {moved}");
}

/// Runs a container that fails to start; returns the message of its only log line.
fn refused(args: &[&str]) -> String {
    let message = docker_fails(args, 1);
    assert_eq!(message.lines().count(), 1, "{message}");
    let line: Value = serde_json::from_str(&message).expect("a line as those of the log");
    assert_eq!(line["event"], "can_not_start");
    line["message"].as_str().expect("text").to_owned()
}
