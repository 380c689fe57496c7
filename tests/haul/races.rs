//! Eight sessions of one user race for the last byte of a quota. The files on the disk are counted
//! while the server is stopped by a signal, so that they cannot change.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use walkdir::WalkDir;

use crate::blocking_client::BlockingSession;
use crate::daemon::{ServerProcess, operate};
use crate::random::{Chance, times};

const SESSIONS: u64 = 8;
const LIMIT: u64 = 1_000_000;
const FILES_LIMIT: u64 = 40;

/// Stops all threads of the process until it is dropped.
struct StandStill(Pid);

impl StandStill {
    fn new(process: Pid) -> Self {
        kill_process(process, Signal::STOP).expect("it runs");
        let tasks = format!("/proc/{}/task", process.as_raw_nonzero());
        let stopped = |task: std::io::Result<std::fs::DirEntry>| {
            let Ok(stat) = std::fs::read_to_string(task.expect("readable").path().join("stat"))
            else {
                return true;
            };
            let (_, state) = stat.rsplit_once(") ").expect("a state");
            state.starts_with('T')
        };
        while !std::fs::read_dir(&tasks).expect("it runs").all(stopped) {
            thread::yield_now();
        }
        Self(process)
    }
}

impl Drop for StandStill {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// The size and number of the files below these directories; each file counts once.
fn on_disk(dirs: &[&Path]) -> (u64, u64) {
    let mut seen = std::collections::HashSet::new();
    let (mut bytes, mut files) = (0, 0);
    for entry in dirs.iter().flat_map(WalkDir::new) {
        let entry = entry.expect("readable");
        let metadata = entry.metadata().expect("there");
        if metadata.is_file() && seen.insert(metadata.ino()) {
            bytes += metadata.len();
            files += 1;
        }
    }
    (bytes, files)
}

/// One operation of a session: puts a file, or removes one.
fn act(client: &mut BlockingSession, chance: &mut Chance) -> bool {
    let path = format!("f{}.bin", chance.below(FILES_LIMIT + 5));
    let reply = match chance.below(10) {
        0 => client.call(&json!({"cmd": "rm", "path": path})),
        1 => {
            let to = format!("f{}.bin", chance.below(FILES_LIMIT + 5));
            client.call(&json!({"cmd": "cp", "from": path, "to": to, "if_exists": "replace"}))
        }
        2 => {
            let to = format!("f{}.bin", chance.below(FILES_LIMIT + 5));
            client.call(&json!({"cmd": "mv", "from": path, "to": to, "if_exists": "replace"}))
        }
        declared => {
            let longest = *chance.pick(&[10, 60_000, LIMIT / 4, LIMIT]);
            let length = chance.below(longest + 1);
            let content = chance.bytes(length);
            let mut put = json!({"path": path});
            if declared < 7 {
                put["size"] = json!(length);
            }
            client.put(put, &content)
        }
    };
    let reply = reply.expect("the server lives");
    let code = reply["error"]["code"].as_str();
    // After a long stop, the server briefly cannot refresh the rights of its users.
    assert!(
        matches!(
            code,
            None | Some("quota_exceeded" | "not_found" | "limited")
        ),
        "{reply}"
    );
    code == Some("quota_exceeded")
}

#[test]
fn eight_racing_sessions_never_exceed_the_quota_by_a_byte() {
    let (rounds, seed) = (times("HAUL_QUOTA_ROUNDS", 5), Chance::seed());
    println!("HAUL_QUOTA_ROUNDS={rounds} HAUL_SEED={seed}");
    let temp_dir = tempfile::tempdir().expect("a directory");
    let data = temp_dir.path().join("data");
    let limits = format!("--quota {LIMIT} --files {FILES_LIMIT}");
    operate(
        &data,
        &format!("user add alice {limits}"),
        "hunter2 hunter2\n",
    );
    let token = operate(&data, "token add alice", "");
    let daemon = ServerProcess::start_on(&data);
    drop(BlockingSession::log_in(&daemon.address, &token).expect("it listens"));
    let (home, staging) = (data.join("homes/alice"), data.join("staging"));
    let mut chance = Chance::new(seed);
    let mut pacing = BlockingSession::log_in(&daemon.address, &token).expect("it listens");
    let (mut looks, mut highest) = (0_u64, (0, 0));
    let refused = AtomicU64::new(0);
    for _ in 0..rounds {
        let work = |mut chance: Chance| {
            let mut client = BlockingSession::log_in(&daemon.address, &token).expect("it listens");
            for _ in 0..40 {
                let full = act(&mut client, &mut chance);
                refused.fetch_add(full.into(), Ordering::Relaxed);
            }
        };
        let work = &work;
        thread::scope(|scope| {
            let sessions: Vec<_> = (0..SESSIONS)
                .map(|_| Chance::new(chance.next()))
                .map(|chance| scope.spawn(move || work(chance)))
                .collect();
            while sessions.iter().any(|session| !session.is_finished()) {
                let standing = StandStill::new(daemon.id());
                // A file is charged from its first byte on.
                let (bytes, _) = on_disk(&[&home, &staging]);
                let (_, files) = on_disk(&[&home]);
                drop(standing);
                looks += 1;
                highest = (bytes.max(highest.0), files.max(highest.1));
                assert!(bytes <= LIMIT, "{bytes} bytes on the disk");
                assert!(files <= FILES_LIMIT, "{files} files on the disk");
                // Otherwise the server would be stopped for most of the time.
                for _ in 0..50 {
                    let stat = json!({"cmd": "stat", "path": "/"});
                    pacing.call(&stat).expect("the server lives");
                }
            }
        });
        fill_to_the_last_byte(&daemon, &token, &home);
    }
    println!("{looks} looks, at most {highest:?} on the disk, {refused:?} refused");
    assert!(refused.into_inner() > 0, "there was room for everybody");
}

/// Asserts that the usage equals the files on the disk, and that the remaining quota can be used.
fn fill_to_the_last_byte(daemon: &ServerProcess, token: &str, home: &Path) {
    let mut client = BlockingSession::log_in(&daemon.address, token).expect("it listens");
    let mut is_suspended = || {
        let reply = client.call(&json!({"cmd": "df"})).expect("it lives");
        reply["error"]["code"] == "limited"
    };
    while is_suspended() {}
    // Twice: first the file does not exist, then it does.
    for _ in 0..2 {
        let _ = client.call(&json!({"cmd": "rm", "path": "last.bin"}));
        let listed = client.ok(&json!({"cmd": "ls", "path": "/"}));
        for entry in listed["entries"]
            .as_array()
            .expect("a list")
            .iter()
            .skip(20)
        {
            client.ok(&json!({"cmd": "rm", "path": entry["name"]}));
        }
        let df = client.ok(&json!({"cmd": "df"}));
        let used = (df["used"].as_u64(), df["files"].as_u64());
        let (bytes, files) = on_disk(&[home]);
        assert_eq!(used, (Some(bytes), Some(files)));
        let left = usize::try_from(LIMIT - bytes).expect("no more than there may be");
        for declared in [json!(left + 1), json!(null)] {
            let mut put = json!({"path": "last.bin"});
            put["size"] = declared;
            let reply = client.put(put, &vec![b'x'; left + 1]).expect("it lives");
            assert_eq!(reply["error"]["code"], "quota_exceeded", "{reply}");
        }
        let reply = client.put(json!({"path": "last.bin"}), &vec![b'x'; left]);
        let reply = reply.expect("it lives");
        assert_eq!(reply["ok"]["size"], left, "{reply}");
        assert_eq!(on_disk(&[home]).0, LIMIT);
    }
}
