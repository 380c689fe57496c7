//! Sessions work on a server that is killed repeatedly. After each restart, every acknowledged
//! change is present, every pending change is complete or absent, and there is nothing else.
//!
//! `HAUL_KILLS` is the number of kills, `HAUL_SEED` repeats the choices of a run, and `TMPDIR`
//! selects the disk.

mod checker;
mod choices;
mod cut_off;
mod messages;
mod model;
mod register;
mod session;
mod small;

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde_json::json;

use crate::blocking_client::BlockingSession;
use crate::daemon::{ServerProcess, operate};
use crate::random::{Chance, times};
use checker::{CheckedUser, check};
use model::{ModelTree, TreeNode};
use session::{Fuse, ModelSession, RunCounts};

/// Sessions of each user.
const SESSIONS: usize = 3;

fn users(data: &Path) -> [CheckedUser; 2] {
    operate(data, "user add free", "correct horse\n");
    operate(
        data,
        "user add tight --quota 9MiB --files 60",
        "correct horse\n",
    );
    operate(data, "folder add team --quota 30MiB", "");
    operate(data, "folder grant team free rw", "");
    operate(data, "folder grant team tight rw", "");
    ["free", "tight"].map(|name| CheckedUser {
        name,
        token: operate(data, &format!("token add {name}"), ""),
    })
}

#[test]
fn acknowledged_changes_survive_a_kill_and_others_are_complete_or_absent() {
    let (kills, seed) = (times("HAUL_KILLS", 20), Chance::seed());
    println!("HAUL_KILLS={kills} HAUL_SEED={seed}");
    let mut chance = Chance::new(seed);
    let temp_dir = tempfile::tempdir().expect("a directory");
    let data = temp_dir.path().join("data");
    let users = users(&data);
    let tally = Arc::new(RunCounts::default());
    let registers = ["free", "tight", "team"].map(|dir| (dir.to_owned(), Arc::default()));
    let mut sessions = Vec::new();
    let daemon = ServerProcess::start_on(&data);
    for (u, user) in users.iter().enumerate() {
        let mut client =
            BlockingSession::log_in(&daemon.address, &user.token).expect("the server lives");
        for dir in ["/shared", "/team/shared"] {
            client.ok(&json!({"cmd": "mkdir", "path": dir, "parents": true}));
        }
        for n in 0..SESSIONS {
            let roots = [format!("/s{n}"), format!("/team/{}{n}", user.name)];
            for dir in &roots {
                client.ok(&json!({"cmd": "mkdir", "path": dir}));
            }
            sessions.push(ModelSession {
                tree: roots
                    .iter()
                    .map(|dir| (dir.clone(), TreeNode::Dir))
                    .collect::<ModelTree>(),
                roots,
                unfinished: Vec::new(),
                cut: Vec::new(),
                endless: None,
                sent: HashMap::new(),
                kept: HashMap::new(),
                token: user.token.clone(),
                registers: Arc::clone(&registers[u].1),
                team: Arc::clone(&registers[2].1),
                chance: Chance::new(chance.next()),
                tally: Arc::clone(&tally),
            });
        }
    }
    let started = Instant::now();
    let mut running = daemon;
    for kill in 1..=kills {
        run_until_killed(running, &mut sessions, &mut chance);
        if chance.one_in(2) {
            leave_torn_ends(&data.join("staging"), &mut chance);
        }
        running = ServerProcess::start_on(&data);
        check(&data, &running.address, &users, &mut sessions, &registers);
        if kill % 100 == 0 {
            eprintln!("{kill} kills in {:?}: {tally:?}", started.elapsed());
        }
    }
    println!("{kills} kills in {:?}: {tally:?}", started.elapsed());
    assert!(tally.acknowledged.load(Ordering::Relaxed) > kills);
    assert!(tally.resumed.load(Ordering::Relaxed) > kills / 10);
}

fn run_until_killed(daemon: ServerProcess, sessions: &mut [ModelSession], chance: &mut Chance) {
    let (burnt, fuse_burnt) = sync_channel(1);
    let fuse = Fuse::new(1 + chance.below(3000), chance.one_in(2), burnt);
    let longest = 1 << (4 + chance.below(11));
    let spin = Duration::from_micros(chance.below(longest));
    std::thread::scope(|scope| {
        for session in sessions {
            let (address, fuse) = (&daemon.address, &fuse);
            scope.spawn(move || session.run(address, fuse));
        }
        let burnt = fuse_burnt.recv_timeout(Duration::from_mins(2));
        // The kill may also fall between two frames, for example during a write to the disk.
        let now = Instant::now();
        while now.elapsed() < spin {
            std::hint::spin_loop();
        }
        kill_process(daemon.id(), Signal::KILL).expect("it runs");
        burnt.expect("the sessions get on");
    });
    drop(daemon);
}

/// Appends random bytes to the staged files, as a power cut may leave any bytes after the synced
/// ones.
fn leave_torn_ends(staging: &Path, chance: &mut Chance) {
    for entry in std::fs::read_dir(staging).expect("staging") {
        let path = entry.expect("readable").path();
        let is_file = path.is_file();
        let mut torn = br#"{"offset":123,"at":"20"#.to_vec();
        if path.extension().is_none() {
            let length = 1 + chance.below(100_000);
            torn = chance.bytes(length);
        }
        if is_file {
            let file = OpenOptions::new().append(true).open(&path);
            let added = file.and_then(|mut file| file.write_all(&torn));
            added.expect("added");
        }
    }
}
