//! Volumes: the right one, a forgotten one, and one of another user.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};

use serde_json::Value;

use super::engine::{free_port, lines_of_log, patiently};
use super::{Container, RunOptions, docker, docker_fails, image};
use crate::daemon::ended;

#[test]
#[ignore = "needs an engine and the image"]
fn a_forgotten_volume_is_refused_and_what_to_do_is_said_in_one_line() {
    let Some(image) = image("volumes::a_forgotten_volume") else {
        return;
    };
    let said = refused(&["run", "--rm", "--read-only", &image]);
    assert!(said.contains("a volume without a name"), "{said}");
    assert!(said.contains("docker run -v haul:/data"), "{said}");
    // No volume at all, as engines have it that take no notice of VOLUME.
    let said = refused(&["run", "--rm", "--env=HAUL_DATA=/elsewhere", &image]);
    assert!(said.contains("is not a mounted volume"), "{said}");
    let told = "--env=HAUL_SERVER_REQUIRE_MOUNT=false";
    let container = Container::run(
        &image,
        &RunOptions {
            run: &[told],
            ..RunOptions::default()
        },
    );
    container.wait_for_log_line("listening");
}

#[test]
#[ignore = "needs an engine and the image"]
fn a_volume_of_somebody_else_is_refused_in_one_line_and_one_of_the_users_own_is_served() {
    let Some(image) = image("volumes::a_volume_of_somebody_else") else {
        return;
    };
    let place = tempfile::tempdir().expect("a directory");
    let data = place.path().join("data");
    fs::create_dir(&data).expect("made");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).expect("set");
    chown(&data, Some(1234), Some(1234)).expect("given away");
    let volume = format!("--volume={}:/data", data.display());
    let said = refused(&[
        "run",
        "--rm",
        "--read-only",
        "--cap-drop=ALL",
        &volume,
        &image,
    ]);
    assert!(
        said.contains("/data belongs to user 1234 and haul runs as user 65532"),
        "{said}"
    );
    assert!(said.contains("chown"), "{said}");
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
fn an_upload_goes_on_where_it_was_when_the_container_restarts_in_the_middle_of_it() {
    const SIZE: usize = 64 << 20;
    const AT_LEAST: u64 = 16 << 20;
    let Some(image) = image("volumes::an_upload_goes_on") else {
        return;
    };
    // The server stops before the upload is done, and not while it drains.
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
    fs::write(container.place.path().join("big"), &content).expect("written");
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
    let whole = puts.rfind(|line| line["code"].is_null());
    let moved = whole.expect("a put that succeeded")["bytes"].as_u64();
    let moved = moved.expect("a number");
    assert!(moved <= SIZE as u64 - AT_LEAST, "sent again: {moved}");
}

/// Runs a container that does not start; the message of its only line.
fn refused(args: &[&str]) -> String {
    let said = docker_fails(args, 1);
    assert_eq!(said.lines().count(), 1, "{said}");
    let line: Value = serde_json::from_str(&said).expect("a line as those of the log");
    assert_eq!(line["event"], "can_not_start");
    line["message"].as_str().expect("text").to_owned()
}
