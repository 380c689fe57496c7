//! The notifications to a service manager, and the unit file of haul.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::daemon::{ServerProcess, ended, haul};
use crate::requirements;

/// The receiver of `NOTIFY_SOCKET`.
struct Manager {
    temp_dir: TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let temp_dir = tempfile::tempdir().expect("a temporary directory");
        let socket = UnixDatagram::bind(temp_dir.path().join("notify")).expect("a socket");
        // The longest time that a test waits for a message.
        let patience = Some(Duration::from_mins(1));
        socket.set_read_timeout(patience).expect("a time");
        Self { temp_dir, socket }
    }

    fn path(&self) -> String {
        self.temp_dir.path().join("notify").display().to_string()
    }

    /// The lines of the next message.
    fn receive(&self) -> Vec<String> {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).expect("a message");
        let text = str::from_utf8(&message[..length]).expect("text");
        text.lines().map(str::to_owned).collect()
    }

    /// The first message with this line, and the lines of the messages before it.
    fn receive_until(&self, line: &str) -> (Vec<String>, Vec<String>) {
        let mut before = Vec::new();
        loop {
            let lines = self.receive();
            if lines.iter().any(|received| received == line) {
                return (lines, before);
            }
            before.extend(lines);
        }
    }

    fn start(&self, settings: &[(&str, &str)]) -> ServerProcess {
        let path = self.path();
        ServerProcess::start_with(&[&[("NOTIFY_SOCKET", &*path)], settings].concat())
    }
}

#[tokio::test]
async fn the_manager_is_notified_of_ready_reloading_and_stopping() {
    let manager = Manager::new();
    let daemon = manager.start(&[("HAUL_LIMITS_DRAIN_TIMEOUT", "30s")]);
    let (ready, before) = manager.receive_until("READY=1");
    assert_eq!(before, [""; 0]);
    assert_eq!(ready[1], format!("STATUS=Serving at {}", daemon.address));
    let _session = daemon.log_in(&daemon.token()).await;

    let at = clock();
    daemon.signal(Signal::HUP);
    let (reloading, _) = manager.receive_until("RELOADING=1");
    let sent = reloading[1].strip_prefix("MONOTONIC_USEC=");
    let sent: u64 = sent.expect("a time").parse().expect("a number");
    assert!((at..=clock()).contains(&sent), "{sent}");
    manager.receive_until("READY=1");

    daemon.signal(Signal::TERM);
    let (stopping, _) = manager.receive_until("STOPPING=1");
    assert_eq!(stopping[1], "EXTEND_TIMEOUT_USEC=31500000");
    assert_eq!(daemon.stopped().code, Some(0));
}

/// The monotonic clock in microseconds.
fn clock() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1_000_000 + now.tv_nsec / 1000).expect("after the boot")
}

#[tokio::test]
async fn the_watchdog_is_notified_and_the_status_names_the_sessions() {
    let manager = Manager::new();
    let daemon = manager.start(&[("WATCHDOG_USEC", "200000")]);
    manager.receive_until("READY=1");
    for _ in 0..3 {
        manager.receive_until("WATCHDOG=1");
    }
    let _session = daemon.log_in(&daemon.token()).await;
    let one = format!(
        "STATUS=Serving at {}: 1 session, 0 B/s in, 0 B/s out",
        daemon.address
    );
    let (_, before) = manager.receive_until(&one);
    assert!(before.iter().any(|line| line == "WATCHDOG=1"), "{before:?}");
}

#[test]
fn without_a_watchdog_no_notification_is_sent() {
    let manager = Manager::new();
    let daemon = manager.start(&[("WATCHDOG_USEC", "200000"), ("WATCHDOG_PID", "1")]);
    daemon.signal(Signal::TERM);
    let (_, before) = manager.receive_until("STOPPING=1");
    assert!(before.iter().any(|line| line == "READY=1"), "{before:?}");
    assert!(before.iter().all(|line| line != "WATCHDOG=1"), "{before:?}");
}

#[test]
fn the_manager_is_notified_why_a_start_failed() {
    let manager = Manager::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    let mut process = haul()
        .args(["serve", "--listen", &taken, "--data"])
        .arg(manager.temp_dir.path().join("data"))
        .env("NOTIFY_SOCKET", manager.path())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("it runs");
    let (stopping, before) = manager.receive_until("STOPPING=1");
    assert_eq!(before, [""; 0]);
    let expected = format!("STATUS=haul: serve: cannot listen on {taken}: ");
    assert!(stopping[1].starts_with(&expected), "{stopping:?}");
    assert_eq!(ended(&mut process).code(), Some(1));
}

fn shipped(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("config/systemd").join(name)
}

/// The unit, starting the program under test.
fn unit(temp_dir: &Path) -> PathBuf {
    let text = std::fs::read_to_string(shipped("haul.service")).expect("there");
    let (installed, built) = ("/usr/local/bin/haul", env!("CARGO_BIN_EXE_haul"));
    assert_eq!(text.matches(installed).count(), 1);
    let unit = temp_dir.join("haul.service");
    std::fs::write(&unit, text.replace(installed, built)).expect("written");
    unit
}

#[test]
fn systemd_accepts_the_unit_without_warnings_and_rates_its_exposure_low() {
    let test = "systemd_accepts_the_unit_without_warnings_and_rates_its_exposure_low";
    if !requirements::program("systemd-analyze", "--version", test) {
        return;
    }
    let temp_dir = tempfile::tempdir().expect("a temporary directory");
    let unit = unit(temp_dir.path());
    let analyze = |arguments: &[&str]| {
        let analyzed = Command::new("systemd-analyze")
            .args(arguments)
            .arg(&unit)
            .output();
        let analyzed = analyzed.expect("it runs");
        let outputs = [analyzed.stdout, analyzed.stderr].map(String::from_utf8);
        let [out, errors] = outputs.map(|text| text.expect("text"));
        assert!(analyzed.status.success(), "{out}{errors}");
        (out, errors)
    };
    // The manual pages are not installed here.
    let (out, errors) = analyze(&["verify", "--man=no"]);
    assert_eq!((&*out, &*errors), ("", ""));
    // The exposure in tenths: everything that a network file server does not need is off.
    analyze(&["security", "--offline=true", "--no-pager", "--threshold=15"]);
}

#[test]
fn the_unit_runs_haul_as_its_dynamic_user() {
    let test = "the_unit_runs_haul_as_its_dynamic_user";
    if !requirements::program("systemd-sysusers", "--version", test) {
        return;
    }
    let root = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(root.path().join("etc")).expect("made");
    let made = Command::new("systemd-sysusers")
        .arg(format!("--root={}", root.path().display()))
        .arg(shipped("haul.sysusers"))
        .output()
        .expect("it runs");
    assert!(made.status.success(), "{made:?}");
    let users = std::fs::read_to_string(root.path().join("etc/passwd")).expect("made");
    assert!(users.starts_with("haul:x:"), "{users}");
    let unit = std::fs::read_to_string(shipped("haul.service")).expect("there");
    for line in ["User=haul", "Group=haul", "StateDirectory=haul"] {
        assert!(unit.lines().any(|there| there == line), "{line}");
    }
}

#[test]
fn the_stop_timeout_of_the_unit_covers_the_default_drain_timeout() {
    let unit = std::fs::read_to_string(shipped("haul.service")).expect("there");
    let seconds = unit.lines().find_map(|line| {
        let time = line.strip_prefix("TimeoutStopSec=")?.strip_suffix('s')?;
        time.parse().ok()
    });
    let drain = haul::config::Config::default().limits.drain_timeout;
    let most = drain + Duration::from_secs(2);
    assert!(Duration::from_secs(seconds.expect("a time")) > most);
}
