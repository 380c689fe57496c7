//! Bursts of small files and a server that is killed: acknowledged files exist, and existing files
//! are complete.

use std::collections::BTreeMap;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde_json::json;

use crate::blocking_client::BlockingSession;
use crate::daemon::{ServerProcess, operate, wait_until_tidy};
use crate::random::{Chance, times};
use crate::test_files::files_below;

/// The number of files in a burst.
const BURST: u32 = 300;

/// The content of the file with this number.
fn content(kill: u64, number: u32) -> Vec<u8> {
    let length = (number as usize * 37) % 5000;
    let text = format!("{kill}/{number};");
    text.bytes().cycle().take(length).collect()
}

fn path(kill: u64, number: u32) -> String {
    format!("k{kill}/d{}/f{number}", number % 5)
}

/// Puts a burst and sends the number of each acknowledged file, until the connection is lost.
fn put_burst(address: &str, token: &str, kill: u64, acknowledged: &Sender<u32>) {
    let Ok(mut client) = BlockingSession::log_in(address, token) else {
        return;
    };
    for number in 1..=BURST {
        let content = content(kill, number);
        let path = path(kill, number);
        let put = json!({
            "id": number, "cmd": "put", "path": path, "size": content.len(), "parents": true,
        });
        let digest = format!("blake3:{}", blake3::hash(&content).to_hex());
        let sent = client.send(&put).and_then(|()| {
            if !content.is_empty() {
                client.send_data(number, &content)?;
            }
            client.send(&json!({"id": number, "cmd": "end", "digest": digest}))
        });
        if sent.is_err() {
            break;
        }
    }
    while let Ok(reply) = client.final_reply() {
        assert!(reply["ok"].is_object(), "{reply}");
        let number = reply["id"].as_u64().and_then(|id| u32::try_from(id).ok());
        if acknowledged.send(number.expect("an id")).is_err() {
            return;
        }
    }
}

#[test]
fn acknowledged_small_files_survive_a_kill_and_every_stored_file_is_complete() {
    let (kills, seed) = (times("HAUL_KILLS", 20).div_ceil(4), Chance::seed());
    println!("HAUL_KILLS={} HAUL_SEED={seed}", kills * 4);
    let mut chance = Chance::new(seed);
    let temp_dir = tempfile::tempdir().expect("a directory");
    let data = temp_dir.path().join("data");
    operate(&data, "user add free --quota 1GiB", "correct horse\n");
    let token = operate(&data, "token add free", "");
    let home = data.join("homes/free");
    let mut known = BTreeMap::new();
    for kill in 1..=kills {
        let daemon = ServerProcess::start_on(&data);
        let (sender, acknowledged) = channel();
        let mut safe = Vec::new();
        let until = chance.below(u64::from(BURST));
        let longest = 1 << (4 + chance.below(11));
        let spin = Duration::from_micros(chance.below(longest));
        std::thread::scope(|scope| {
            let (address, token) = (&daemon.address, &token);
            scope.spawn(move || put_burst(address, token, kill, &sender));
            while (safe.len() as u64) < until {
                safe.push(acknowledged.recv().expect("the server lives"));
            }
            let now = Instant::now();
            while now.elapsed() < spin {
                std::hint::spin_loop();
            }
            kill_process(daemon.id(), Signal::KILL).expect("it runs");
            // All replies that the server sent before it was killed are acknowledgements.
            safe.extend(acknowledged.iter());
        });
        drop(daemon);
        for number in safe {
            known.insert(path(kill, number), content(kill, number));
        }
        let daemon = ServerProcess::start_on(&data);
        let found_files = files_below(&home);
        for (path, content) in &known {
            assert_eq!(
                found_files.get(path),
                Some(content),
                "{path} was acknowledged"
            );
        }
        for number in 1..=BURST {
            let path = path(kill, number);
            if let Some(found) = found_files.get(&path) {
                assert_eq!(*found, content(kill, number), "{path} is not whole");
                known.insert(path, found.clone());
            }
        }
        assert_eq!(found_files.len(), known.len(), "nothing else is there");
        wait_until_tidy(&data, 0);
        let mut client =
            BlockingSession::log_in(&daemon.address, &token).expect("the server lives");
        let df = client.ok(&json!({"cmd": "df"}));
        let bytes: usize = found_files.values().map(Vec::len).sum();
        let entries = walkdir::WalkDir::new(&home).min_depth(1);
        let entries = entries.into_iter().count();
        assert_eq!(
            (df["used"].as_u64(), df["files"].as_u64()),
            (Some(bytes as u64), Some(entries as u64))
        );
        drop(daemon);
    }
}
