//! A full disk, and one without free inodes: tests that run again on a small tmpfs in a separate
//! namespace. Without namespaces they are skipped.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::blocking_client::{BlockingSession, PATIENCE};
use crate::daemon::{ServerProcess, haul, operate};
use crate::random::Chance;
use crate::{ops, requirements};

/// Runs the ignored test `name` with its temporary files on a tmpfs of these options.
fn on_a_small_disk(name: &str, options: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let probe = ["mount", "-t", "tmpfs", "haul", "/tmp"];
    if !requirements::namespaces(&["-Urm"], &probe, name) {
        return;
    }
    let script = "mount -t tmpfs -o \"$1\" haul \"$TMPDIR\" || exit 77; shift; exec \"$@\"";
    let output = Command::new("unshare")
        .args(["-Urm", "sh", "-c", script, "sh", options])
        .env("TMPDIR", dir.path())
        .arg(std::env::current_exe().expect("this test"))
        .args(["--ignored", "--exact", name])
        .output()
        .expect("it was there a moment ago");
    let report = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let passed = output.status.success() && report.contains("1 passed");
    assert!(passed, "{}: {report}{errors}", output.status);
}

struct Full {
    temp_dir: tempfile::TempDir,
    token: String,
    daemon: Option<ServerProcess>,
}

impl Full {
    fn new() -> Self {
        Self::started(ServerProcess::start_on)
    }

    fn started(start: impl FnOnce(&Path) -> ServerProcess) -> Self {
        let temp_dir = tempfile::tempdir().expect("a directory");
        let data = temp_dir.path().join("data");
        operate(&data, "user add alice", "hunter2 hunter2\n");
        let token = operate(&data, "token add alice", "");
        let daemon = Some(start(&data));
        Self {
            temp_dir,
            token,
            daemon,
        }
    }

    fn data(&self) -> std::path::PathBuf {
        self.temp_dir.path().join("data")
    }

    fn log_in(&self) -> BlockingSession {
        let daemon = self.daemon.as_ref().expect("it runs");
        BlockingSession::log_in(&daemon.address, &self.token).expect("it lives")
    }

    fn restart(&mut self) {
        self.daemon = None;
        self.daemon = Some(ServerProcess::start_on(&self.data()));
    }

    /// Requests `path` from the operators' address until the answer begins with `wanted`.
    fn is_asked_until(&self, path: &str, wanted: &str) {
        let daemon = self.daemon.as_ref().expect("it runs");
        let start = Instant::now();
        loop {
            let (status, _, body) = ops::ask(daemon, path);
            let answer = format!("{status} {body}");
            if answer.starts_with(wanted) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{path} says {answer}");
            sleep(Duration::from_millis(50));
        }
    }

    fn assert_nothing_staged(&self) {
        let staged = fs::read_dir(self.data().join("staging")).expect("staging");
        assert_eq!(staged.count(), 0);
    }
}

/// Sends data of an upload of unknown size until it is refused; returns the refusal.
fn put_without_end(client: &mut BlockingSession, path: &str) -> serde_json::Value {
    let piece = vec![b'x'; 500_000];
    client
        .send(&json!({"id": 5, "cmd": "put", "path": path}))
        .expect("it reads");
    for _ in 0..200 {
        client.send_data(5, &piece).expect("it reads");
    }
    client
        .send(&json!({"id": 5, "cmd": "end"}))
        .expect("it reads");
    client.final_reply().expect("it answers")
}

/// Fills the remaining space of the disk.
fn fill(path: &Path) {
    let mut file = File::create(path).expect("made");
    let mut piece = vec![b'x'; 1 << 20];
    while !piece.is_empty() {
        if file.write_all(&piece).is_err() {
            piece.truncate(piece.len() / 2);
        }
    }
}

#[test]
fn a_full_disk_costs_no_stored_file_and_the_server_resumes_once_there_is_space() {
    on_a_small_disk("full_disk::fills_the_disk", "size=24m");
}

#[test]
#[ignore = "wants a small disk: run by the test above"]
fn fills_the_disk() {
    let mut full = Full::new();
    let mut client = full.log_in();
    let old = Chance::new(1).bytes(8 << 20);
    let stored = client.put(json!({"path": "old", "size": old.len()}), &old);
    assert!(stored.expect("it lives")["ok"].is_object());
    for path in ["old", "new"] {
        let refusal = put_without_end(&mut client, path);
        assert_eq!(refusal["error"]["code"], "no_space", "{refusal}");
        let declared = client.put(json!({"path": path, "size": 17 << 20}), b"");
        assert_eq!(declared.expect("it lives")["error"]["code"], "no_space");
        full.assert_nothing_staged();
    }
    for to in ["copy", "another"] {
        let copied = client.call(&json!({"cmd": "cp", "from": "old", "to": to}));
        let copied = copied.expect("it lives");
        match to {
            "copy" => assert!(copied["ok"].is_object(), "{copied}"),
            _ => assert_eq!(copied["error"]["code"], "no_space", "{copied}"),
        }
    }
    full.assert_nothing_staged();
    // No space is left now, even for the server's own records.
    let filler = full.temp_dir.path().join("filler");
    fill(&filler);
    full.is_asked_until(
        "/readyz",
        "503 the data directory is not writable: No space left",
    );
    full.is_asked_until("/healthz", "200 ok");
    let mut another = full.log_in();
    assert!(client.get("old").expect("it lives").0 == old);
    for put in [json!({"path": "new"}), json!({"path": "old", "size": 1})] {
        let refusal = another.put(put, b"x").expect("it lives");
        assert_eq!(refusal["error"]["code"], "no_space", "{refusal}");
    }
    full.restart();
    let mut client = full.log_in();
    assert!(client.get("old").expect("it lives").0 == old);
    client.ok(&json!({"cmd": "rm", "path": "copy"}));
    let stored = client.put(json!({"path": "old", "size": 1000}), &old[..1000]);
    assert!(stored.expect("it lives")["ok"].is_object());
    fs::remove_file(filler).expect("removed");
    full.is_asked_until("/readyz", "200 ready");
    let stored = client.put(json!({"path": "new", "size": old.len()}), &old);
    assert!(stored.expect("it lives")["ok"].is_object());
    full.assert_nothing_staged();
    let df = client.ok(&json!({"cmd": "df"}));
    assert_eq!(
        (&df["used"], &df["files"]),
        (&json!(old.len() + 1000), &json!(2))
    );
}

#[test]
fn a_file_beyond_the_limit_of_file_sizes_is_refused_and_the_server_lives() {
    let full = Full::started(|data| ServerProcess::start_with_file_size(data, 8 * 1024));
    let mut client = full.log_in();
    let content = Chance::new(1).bytes(5 << 20);
    for put in [
        json!({"path": "a"}),
        json!({"path": "a", "size": content.len()}),
    ] {
        let refusal = client.put(put, &content).expect("it lives");
        let error = &refusal["error"];
        assert_eq!(error["code"], "too_large", "{refusal}");
        let message = error["message"].as_str().expect("text");
        assert!(message.contains("LimitFSIZE"), "{message}");
        full.assert_nothing_staged();
    }
    let small = &content[..4 << 20];
    let stored = client.put(json!({"path": "a", "size": small.len()}), small);
    assert!(stored.expect("it lives")["ok"].is_object());
    assert!(client.get("a").expect("it lives").0 == small);
}

#[test]
fn a_mount_inside_a_home_is_reported_and_accepts_no_files() {
    on_a_small_disk("full_disk::mount_in_folder", "size=48m");
}

#[test]
#[ignore = "wants a small disk: run by the test above"]
fn mount_in_folder() {
    let full = Full::started(|data| {
        let inside = data.join("homes/alice/disk");
        fs::create_dir_all(&inside).expect("made");
        let mount = ["-t", "tmpfs", "haul"];
        let mounted = Command::new("mount").args(mount).arg(&inside).status();
        assert!(mounted.expect("it runs").success());
        ServerProcess::start_on(data)
    });
    let daemon = full.daemon.as_ref().expect("it runs");
    let warned = daemon.started.iter();
    let mut warned = warned.filter(|client| client["event"] == "mounted_inside");
    let path = warned.next().expect("a warning")["path"].to_string();
    assert!(path.contains("/homes/alice/disk"), "{path}");
    assert!(warned.next().is_none());
    let mut client = full.log_in();
    for put in [
        json!({"path": "disk/a", "size": 1}),
        json!({"path": "disk/a"}),
    ] {
        let refused = client.put(put, b"x").expect("it lives");
        assert_eq!(refused["error"]["code"], "unsupported", "{refused}");
    }
    full.assert_nothing_staged();
}

#[test]
fn concurrent_puts_larger_than_the_disk_leave_the_free_space_floor() {
    on_a_small_disk("full_disk::puts_at_once", "size=48m");
}

#[test]
#[ignore = "wants a small disk: run by the test above"]
fn puts_at_once() {
    const PUTS: u32 = 12;
    const SIZE: u64 = 8 << 20;
    let full = Full::new();
    let disk = || rustix::fs::statvfs(full.temp_dir.path()).expect("a disk");
    let floor = disk().f_blocks / 100;
    let content = Chance::new(1).bytes(SIZE);
    let mut lines: Vec<_> = (0..PUTS).map(|_| full.log_in()).collect();
    let begin = |client: &mut BlockingSession, path: String| {
        client
            .send(&json!({"id": 5, "cmd": "put", "path": path, "size": SIZE}))
            .expect("it reads");
    };
    for (number, client) in lines.iter_mut().enumerate() {
        begin(client, format!("f{number}"));
    }
    for piece in content.chunks(500_000) {
        for client in &mut lines {
            client.send_data(5, piece).expect("it reads");
        }
        assert!(disk().f_bavail >= floor);
    }
    let mut stored = 0;
    for client in &mut lines {
        client
            .send(&json!({"id": 5, "cmd": "end"}))
            .expect("it reads");
        let reply = client.final_reply().expect("it answers");
        assert!(disk().f_bavail >= floor);
        if reply["ok"].is_object() {
            stored += 1;
        } else {
            assert_eq!(reply["error"]["code"], "no_space", "{reply}");
        }
    }
    assert!((1..PUTS).contains(&stored), "{stored}");
    let mut client = full.log_in();
    let stderr = client.ok(&json!({"cmd": "say", "to": "alice", "text": "there is room for this"}));
    assert!(stderr["seq"].is_number(), "{stderr}");
    let copies = (0..8).map(|number| json!({"cmd": "cp", "from": "old", "to": number.to_string()}));
    let old = client.put(json!({"path": "old"}), &content[..1 << 20]);
    if old.expect("it lives")["ok"].is_object() {
        copies.for_each(|copy| drop(client.call(&copy).expect("it lives")));
    }
    assert!(disk().f_bavail >= floor);
    full.assert_nothing_staged();
}

#[test]
fn a_backup_without_enough_space_reports_it_and_leaves_nothing() {
    on_a_small_disk("full_disk::backs_up_to_a_full_disk", "size=24m");
}

#[test]
#[ignore = "wants a small disk: run by the test above"]
fn backs_up_to_a_full_disk() {
    let full = Full::new();
    let mut client = full.log_in();
    let content = Chance::new(1).bytes(8 << 20);
    let stored = client.put(json!({"path": "a", "size": content.len()}), &content);
    assert!(stored.expect("it lives")["ok"].is_object());
    let filler = full.temp_dir.path().join("filler");
    fill(&filler);
    let back_up = |name: &str, why: &str| {
        let copy = full.temp_dir.path().join(name);
        let output = haul()
            .args(["backup", "--data"])
            .args([&full.data(), &copy])
            .output()
            .expect("it runs");
        let reply = String::from_utf8(output.stderr).expect("text");
        let reply = reply.trim_end();
        assert_eq!(output.status.code(), Some(1), "{reply}");
        let begin = format!("haul: backup: cannot make a backup in {}: ", copy.display());
        assert!(reply.starts_with(&begin) && reply.ends_with(why), "{reply}");
        assert!(!reply.contains('\n'), "{reply}");
        assert!(!copy.join("haul.db").exists());
    };
    // First there is no space for the accounts, then for the accounts but not for the file.
    back_up("copy", "disk is full");
    let shorter = File::options().write(true).open(&filler).expect("there");
    let length = shorter.metadata().expect("there").len();
    shorter.set_len(length - (4 << 20)).expect("shorter");
    back_up("another", "homes/alice/a: no space left on device");
}

#[test]
fn without_free_inodes_the_server_keeps_running_and_resumes_once_there_are_some() {
    on_a_small_disk("full_disk::uses_up_the_inodes", "size=24m,nr_inodes=60");
}

#[test]
#[ignore = "wants a small disk: run by the test above"]
fn uses_up_the_inodes() {
    let mut full = Full::new();
    let mut client = full.log_in();
    let mut stored = 0;
    let refusal = loop {
        let path = format!("f{stored}");
        let reply = client
            .put(json!({"path": path, "size": 1}), b"x")
            .expect("it lives");
        if reply["ok"].is_null() {
            break reply;
        }
        stored += 1;
        assert!(stored < 60, "there are inodes for more than there can be");
    };
    assert_eq!(refusal["error"]["code"], "no_space", "{refusal}");
    let made = client
        .call(&json!({"cmd": "mkdir", "path": "dir"}))
        .expect("it lives");
    assert_eq!(made["error"]["code"], "no_space", "{made}");
    full.assert_nothing_staged();
    let replaced = client.put(json!({"path": "f0"}), b"new").expect("it lives");
    assert_eq!(replaced["error"]["code"], "no_space", "{replaced}");
    assert_eq!(client.get("f0").expect("it lives").0, b"x");
    full.restart();
    let mut client = full.log_in();
    let df = client.ok(&json!({"cmd": "df"}));
    assert_eq!(
        (&df["used"], &df["files"]),
        (&json!(stored), &json!(stored))
    );
    client.ok(&json!({"cmd": "rm", "path": "f1"}));
    let replaced = client.put(json!({"path": "f0"}), b"new").expect("it lives");
    assert!(replaced["ok"].is_object(), "{replaced}");
    client.ok(&json!({"cmd": "mkdir", "path": "dir"}));
    full.assert_nothing_staged();
}
