//! A running container: read-only, without capabilities, monitored and stopped by the engine.

use std::fs;
use std::process::Stdio;

use super::engine::patiently;
use super::{Container, RunOptions, docker, image};
use crate::daemon::ended;

#[test]
#[ignore = "needs an engine and the image"]
fn a_tree_is_transferred_over_tls_by_a_container_that_can_only_write_its_data() {
    let Some(image) = image("running::a_tree_goes_there_and_back") else {
        return;
    };
    let container = Container::run(&image, &RunOptions::default());
    let tree = container.temp_dir.path().join("tree");
    for number in 0..50 {
        let directory = tree.join(format!("d{}", number % 5));
        fs::create_dir_all(&directory).expect("made");
        let content = format!("file {number}\n").repeat(number * number * 10);
        fs::write(directory.join(format!("f{number}")), content).expect("written");
    }
    container.succeeds(&["put", "tree"]);
    container.succeeds(&["get", "tree", "back"]);
    let back = container.temp_dir.path().join("back");
    for number in 0..50 {
        let name = format!("d{}/f{number}", number % 5);
        let downloaded = fs::read(back.join(&name)).expect("it came back");
        assert_eq!(
            downloaded,
            fs::read(tree.join(&name)).expect("there"),
            "{name}"
        );
    }
    // According to the kernel, whatever options the engine got.
    let process = container.inspect("{{.State.Pid}}");
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    for line in [
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Uid:\t65532\t65532\t65532\t65532",
    ] {
        assert!(status.contains(line), "{line}: {status}");
    }
    let mounts = fs::read_to_string(format!("/proc/{process}/mounts")).expect("it runs");
    let root = mounts
        .lines()
        .find(|line| line.split(' ').nth(1) == Some("/"));
    assert!(root.is_some_and(|root| root.contains(" ro,")), "{mounts}");
}

#[test]
#[ignore = "needs an engine and the image"]
fn docker_stop_ends_the_server_with_0_without_a_kill_while_sessions_are_open() {
    let Some(image) = image("running::docker_stop") else {
        return;
    };
    let container = Container::run(&image, &RunOptions::default());
    let mut watching = container.client(&["watch", "/"]);
    watching.stdout(Stdio::null()).stderr(Stdio::null());
    let mut watching = watching.spawn().expect("it runs");
    patiently("a session that watches", || {
        let log = container.log();
        log.iter().any(|line| line["cmd"] == "watch").then_some(())
    });
    docker(&["stop", "--time=10", &container.name]);
    // 137 would be SIGKILL, after ten seconds.
    assert_eq!(container.inspect("{{.State.ExitCode}}"), "0");
    let log = container.log();
    assert_eq!(log.last().expect("a line")["message"], "stopped");
    watching.kill().expect("it runs");
    ended(&mut watching);
}

#[test]
#[ignore = "needs an engine and the image"]
fn every_line_of_docker_logs_is_json_with_a_time_in_utc() {
    let Some(image) = image("running::every_line") else {
        return;
    };
    let zone = "--env=TZ=Asia/Tokyo";
    let container = Container::run(
        &image,
        &RunOptions {
            run: &[zone],
            ..RunOptions::default()
        },
    );
    container.succeeds(&["ls", "/"]);
    container
        .client(&["get", "missing"])
        .output()
        .expect("it runs");
    docker(&["stop", &container.name]);
    let before = jiff::Timestamp::now();
    // `log` has parsed each line as JSON.
    let log = container.log();
    assert!(log.len() > 5, "{log:?}");
    for line in log {
        let time = line["time"].as_str().expect("a time");
        assert!(time.ends_with('Z') && line["level"].is_string(), "{line}");
        let time: jiff::Timestamp = time.parse().expect("a time");
        let ago = before.duration_since(time).as_secs();
        assert!((-5..300).contains(&ago), "{line}");
    }
}

#[test]
#[ignore = "needs an engine and the image"]
fn health_goes_from_starting_to_healthy() {
    let Some(image) = image("running::health") else {
        return;
    };
    let container = Container::run(&image, &RunOptions::default());
    let mut seen = Vec::new();
    patiently("healthy", || {
        let status = container.inspect("{{.State.Health.Status}}");
        let is_healthy = status == "healthy";
        if seen.last() != Some(&status) {
            seen.push(status);
        }
        is_healthy.then_some(())
    });
    assert_eq!(seen, ["starting", "healthy"]);
    docker(&["exec", &container.name, "/haul", "healthcheck"]);
}
