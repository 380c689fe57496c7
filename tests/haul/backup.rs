//! Backup and restore: the restored server has the same accounts, files and messages.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::blocking_client::BlockingSession;
use crate::daemon::{ServerProcess, haul, operate};
use crate::harness::PASSWORD;
use crate::requirements;

fn back_up(data: &Path, to: &Path, more: &[&str]) -> Output {
    let mut command = haul();
    command
        .arg("backup")
        .args(more)
        .arg(to)
        .arg("--data")
        .arg(data);
    command.output().expect("it runs")
}

/// The last line of a backup's output.
fn done(output: &Output) -> String {
    let (out, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!((output.status.code(), &*errors), (Some(0), ""));
    out
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("there");
    let mut names: Vec<_> = entries
        .map(|entry| {
            entry
                .expect("there")
                .file_name()
                .into_string()
                .expect("text")
        })
        .collect();
    names.sort();
    names
}

struct Team {
    temp_dir: tempfile::TempDir,
    alice: String,
    bob: String,
    daemon: ServerProcess,
}

impl Team {
    /// A server with users that have tokens, a folder, files and messages.
    fn at_work() -> Self {
        let temp_dir = tempfile::tempdir().expect("a directory");
        let data = temp_dir.path().join("data");
        operate(
            &data,
            "user add alice --quota 1GiB",
            &format!("{PASSWORD}\n"),
        );
        operate(&data, "user add bob", &format!("{PASSWORD}\n"));
        operate(&data, "folder add team", "");
        operate(&data, "folder grant team alice read,list,write", "");
        let [alice, bob] =
            ["alice", "bob"].map(|user| operate(&data, &format!("token add {user}"), ""));
        let daemon = ServerProcess::start_on(&data);
        let team = Self {
            temp_dir,
            alice,
            bob,
            daemon,
        };
        let mut client = Team::log_in(&team.daemon, &team.alice);
        client.ok(&json!({"cmd": "mkdir", "path": "deep/er", "parents": true}));
        for (path, content) in [
            ("deep/er/file", "its content"),
            ("empty", ""),
            ("/team/shared", "ours"),
        ] {
            let request = json!({"path": path, "modified": "2001-02-03T04:05:06.789Z"});
            let reply = client.put(request, content.as_bytes()).expect("alive");
            assert!(reply["ok"].is_object(), "{reply}");
        }
        for text in ["are you there?", "since when do you make backups?"] {
            client.ok(&json!({"cmd": "say", "to": "bob", "text": text}));
        }
        team
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp_dir.path().join(name)
    }

    fn log_in(daemon: &ServerProcess, token: &str) -> BlockingSession {
        BlockingSession::log_in(&daemon.address, token).expect("a session")
    }

    /// The state of alice's account and files, which a restored server must show as this one does.
    fn seen_by_alice(&self, daemon: &ServerProcess) -> Vec<Value> {
        let mut client = Self::log_in(daemon, &self.alice);
        let mut seen: Vec<_> = [
            json!({"cmd": "stat", "path": "deep/er/file"}),
            json!({"cmd": "stat", "path": "empty"}),
            json!({"cmd": "stat", "path": "/team/shared"}),
            json!({"cmd": "stat", "path": "deep"}),
            json!({"cmd": "history", "with": "bob"}),
            json!({"cmd": "whoami"}),
        ]
        .iter()
        .map(|request| client.ok(request))
        .collect();
        for one in &mut seen {
            one.as_object_mut().expect("an object").remove("session");
        }
        seen
    }
}

#[test]
fn a_backup_of_a_busy_server_restores_completely() {
    let team = Team::at_work();
    let (data, copy) = (team.daemon.data().to_owned(), team.path("backups/monday"));
    let before = team.seen_by_alice(&team.daemon);
    assert!(
        before[0]["digest"].is_string(),
        "kept since the put: {before:?}"
    );
    // One put stays open all the time; others begin and end.
    let mut open = Team::log_in(&team.daemon, &team.bob);
    open.send(&json!({"id": 900, "cmd": "put", "path": "half", "size": 300_000}))
        .expect("alive");
    open.send_data(900, &vec![7; 100_000]).expect("alive");
    let stop = AtomicBool::new(false);
    let output = thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = Team::log_in(&team.daemon, &team.bob);
            for number in (0_u32..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                let content = vec![b'0' + u8::try_from(number % 10).expect("small"); 70_000];
                let request = json!({"path": format!("busy-{}", number % 20)});
                client.put(request, &content).expect("alive");
            }
        });
        let output = back_up(&data, &copy, &[]);
        stop.store(true, Ordering::Relaxed);
        output
    });
    // Whether the backup found an idle moment depends on timing.
    assert!(matches!(output.status.code(), Some(0 | 4)), "{output:?}");
    let stderr = text(&output.stdout);
    assert!(
        stderr.starts_with("backed up 2 users, 1 folder and "),
        "{stderr}"
    );
    assert!(
        stderr.ends_with(&format!(" to {}\n", copy.display())),
        "{stderr}"
    );
    let expected_names = ["folders", "haul.db", "homes", "messages.db", "tls"];
    assert_eq!(names(&copy), expected_names);
    for (name, mode) in [
        ("", 0o700),
        ("haul.db", 0o600),
        ("messages.db", 0o600),
        ("homes", 0o700),
    ] {
        let found = fs::metadata(copy.join(name)).expect("there").permissions();
        assert_eq!(found.mode() & 0o777, mode, "{name}");
    }

    // The backup does not affect running uploads.
    open.send_data(900, &vec![7; 200_000]).expect("alive");
    open.send_end(900, &vec![7; 300_000]).expect("alive");
    let reply = open.final_reply().expect("alive");
    assert_eq!(reply["ok"]["size"], 300_000, "{reply}");

    let restored = ServerProcess::start_on(&copy);
    assert_eq!(restored.fingerprint(), team.daemon.fingerprint());
    let mut started = restored.started.iter();
    assert!(started.all(|client| client["event"] != "admin_made"));
    assert_eq!(team.seen_by_alice(&restored), before);
    let login = json!({"cmd": "login", "user": "bob", "password": PASSWORD});
    let mut bob = BlockingSession::log_in_with(&restored.address, &login).expect("a session");
    let home = bob.ok(&json!({"cmd": "ls"}));
    for entry in home["entries"].as_array().expect("a list") {
        let name = entry["name"].as_str().expect("a name");
        assert!(
            name.starts_with("busy-"),
            "not whole when it was backed up: {name}"
        );
        let content = fs::read(copy.join("homes/bob").join(name)).expect("there");
        assert_eq!(content.len(), 70_000, "{name}");
        assert!(content.iter().all(|byte| *byte == content[0]), "{name}");
        // The stored digest matches the content, otherwise the read would fail.
        let hash = bob.ok(&json!({"cmd": "hash", "path": name}));
        let expected = format!("blake3:{}", blake3::hash(&content).to_hex());
        assert_eq!(hash["digest"], expected, "{name}");
    }
    bob.ok(&json!({"cmd": "say", "to": "alice", "text": "here again"}));
    assert_eq!(restored.terminate().code, Some(0));
}

#[test]
fn an_open_offer_can_be_accepted_after_a_restore() {
    let team = Team::at_work();
    let (data, copy) = (team.daemon.data().to_owned(), team.path("copy"));
    fs::write(data.join("homes/alice/by-hand"), "of the operator").expect("written");
    let mut alice = Team::log_in(&team.daemon, &team.alice);
    let offers = ["deep/er/file", "by-hand"].map(|path| {
        let sent = alice.ok(&json!({"cmd": "send", "to": "bob", "path": path}));
        sent["offer"].as_str().expect("an identifier").to_owned()
    });
    done(&back_up(&data, &copy, &[]));
    let restored = ServerProcess::start_on(&copy);
    let mut bob = Team::log_in(&restored, &team.bob);
    for (offer, content) in offers.iter().zip(["its content", "of the operator"]) {
        let accepted = bob.ok(&json!({"cmd": "accept", "offer": offer}));
        let path = accepted["path"].as_str().expect("a path");
        let (bytes, reply) = bob.get(path).expect("alive");
        assert_eq!(bytes, content.as_bytes(), "{reply}");
    }
}

#[test]
fn a_stopped_server_can_be_backed_up_repeatedly_to_new_directories() {
    let team = Team::at_work();
    let (data, copy) = (team.daemon.data().to_owned(), team.path("copy"));
    let (temp_dir, before) = (
        team.temp_dir.path().to_owned(),
        team.seen_by_alice(&team.daemon),
    );
    let Team {
        temp_dir: kept,
        daemon,
        alice,
        bob,
    } = team;
    assert_eq!(daemon.terminate().code, Some(0));

    let output = back_up(&data, &copy, &["--json"]);
    let object: Value = serde_json::from_str(&done(&output)).expect("JSON");
    assert_eq!(
        [
            &object["users"],
            &object["folders"],
            &object["files"],
            &object["left_out"],
            &object["changing"],
            &object["at_rest"]
        ],
        [
            &json!(2),
            &json!(1),
            &json!(5),
            &json!(0),
            &json!(0),
            &json!(true)
        ],
        "two files and one in the folder; a certificate and its key: {object}"
    );
    let again = back_up(&data, &copy, &[]);
    let message = text(&again.stderr);
    assert_eq!(
        (again.status.code(), message.lines().count()),
        (Some(1), 1),
        "{message}"
    );
    let expected = "it is not empty; name a new directory for each backup";
    assert!(message.contains(expected), "{message}");

    let nothing = back_up(&temp_dir.join("nothing"), &temp_dir.join("other"), &[]);
    let message = text(&nothing.stderr);
    assert_eq!(nothing.status.code(), Some(1), "{message}");
    assert!(message.contains("has no accounts"), "{message}");
    assert!(!temp_dir.join("other").exists());

    let daemon = ServerProcess::start_on(&copy);
    let restored = Team {
        temp_dir: kept,
        alice,
        bob,
        daemon,
    };
    assert_eq!(restored.seen_by_alice(&restored.daemon), before);
}

/// Makes a backup while the system `calls` on `file` fail.
fn back_up_failing(calls: &str, file: &Path, data: &Path, to: &Path) -> (Option<i32>, String) {
    let mut command = Command::new("strace");
    command.args(["-f", "-o", "/dev/null", "-e"]);
    command.arg(format!("inject={calls}:error=EIO"));
    command.arg("-P").arg(file);
    command.arg(haul().get_program()).arg("backup").arg(to);
    command.arg("--data").arg(data);
    let output = command.output().expect("it runs");
    (output.status.code(), text(&output.stderr))
}

#[test]
fn a_failed_write_ends_a_backup_and_a_failed_read_omits_the_file() {
    if !requirements::program("strace", "-V", "backup::a_disk_that_fails") {
        return;
    }
    let team = Team::at_work();
    let data = team.daemon.data().to_owned();
    let file = data.join("homes/alice/deep/er/file");
    // The file can be read, so the failure was in the write.
    let copy = team.path("copy");
    let (code, stderr) = back_up_failing("copy_file_range,sendfile", &file, &data, &copy);
    assert_eq!((code, stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(
        stderr.contains("homes/alice/deep/er/file: cannot write the copy: "),
        "{stderr}"
    );
    assert!(!copy.join("haul.db").exists());
    let copy = team.path("another");
    let (code, stderr) =
        back_up_failing("copy_file_range,sendfile,read,pread64", &file, &data, &copy);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("cannot back up homes/alice/deep/er/file: "),
        "{stderr}"
    );
    assert!(copy.join("haul.db").exists());
    assert!(copy.join("folders/team/shared").exists());
    assert!(!copy.join("homes/alice/deep/er/file").exists());
}

#[test]
fn an_incomplete_backup_has_no_accounts() {
    let team = Team::at_work();
    let data = team.daemon.data().to_owned();
    let copy = team.path("copy");
    team.daemon.kill();
    for name in ["messages.db-wal", "messages.db-shm"] {
        let _ = fs::remove_file(data.join(name));
    }
    fs::write(data.join("messages.db"), "no database at all").expect("written");
    let output = back_up(&data, &copy, &[]);
    let message = text(&output.stderr);
    assert_eq!(
        (output.status.code(), message.lines().count()),
        (Some(1), 1),
        "{message}"
    );
    assert!(message.contains("messages"), "{message}");
    assert!(!copy.join("haul.db").exists());
    // A new account must not get the files of an old account with its name.
    fs::write(copy.join("haul.db.unfinished"), "").expect("written");
    let started = haul()
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(&copy)
        .output()
        .expect("it runs");
    let stdout = text(&started.stderr);
    assert_eq!(started.status.code(), Some(1), "{stdout}");
    assert!(stdout.contains("is an incomplete backup"), "{stdout}");
    assert!(!copy.join("haul.db").exists());
}
