//! Many sessions and large files: nothing stalls, and memory stays within bounds.

use std::collections::HashSet;

use serde_json::json;
use tokio::task::JoinSet;

use crate::daemon::Daemon;
use crate::harness::{RawClient, Received, control, data};

const MIB: u64 = 1 << 20;

/// `sessions` at once, each with five puts and then five gets at once, in interleaved frames.
async fn many_transfers(daemon: &Daemon, sessions: usize, size: usize) {
    let token = daemon.token();
    let mut running = JoinSet::new();
    for session in 0..sessions {
        let mut client = daemon.log_in(&token).await;
        running.spawn(async move {
            put_five_get_five(&mut client, session, size).await;
            client
        });
    }
    while let Some(client) = running.join_next().await {
        client.expect("no session fails");
    }
}

async fn put_five_get_five(client: &mut RawClient, session: usize, size: usize) {
    let half = vec![b'x'; size / 2];
    let mut burst = Vec::new();
    for id in 0..5 {
        let path = format!("s{session}/f{id}");
        burst.extend(control(
            &json!({"id": id, "cmd": "put", "path": path, "parents": true}),
        ));
    }
    for _ in 0..2 {
        for id in 0..5 {
            burst.extend(data(id, &half));
        }
    }
    for id in 0..5 {
        burst.extend(control(&json!({"id": id, "cmd": "end"})));
    }
    client.send_bytes(&burst).await;
    let mut stored = 0;
    while stored < 5 {
        let reply = client.reply().await;
        stored += usize::from(reply["ok"]["size"] == size);
        assert!(reply.get("error").is_none(), "{reply}");
    }
    for id in 0..5 {
        let path = format!("s{session}/f{id}");
        client
            .send(json!({"id": id, "cmd": "get", "path": path}))
            .await;
    }
    let (mut received, mut ended) = (0, 0);
    while ended < 5 {
        match client.receive().await {
            Received::Data { chunk, .. } => received += chunk.len(),
            Received::Control(reply) => ended += usize::from(reply.get("ok").is_some()),
            Received::Closed => panic!("closed"),
        }
    }
    assert_eq!(received, 5 * size);
}

#[tokio::test]
async fn forty_sessions_with_ten_transfers_each_neither_stall_nor_grow_without_bound() {
    let daemon = Daemon::start();
    many_transfers(&daemon, 40, 400_000).await;
    let peak = daemon.peak();
    assert!(peak < 256 * MIB, "{} MiB", peak / MIB);
}

#[tokio::test]
#[ignore = "takes a minute; the README says how to run it"]
async fn a_thousand_sessions_with_ten_transfers_each_neither_stall_nor_grow_without_bound() {
    let daemon = Daemon::start();
    let before = daemon.resident();
    many_transfers(&daemon, 1000, 400_000).await;
    let after = daemon.resident();
    eprintln!(
        "resident before {} MiB, after {} MiB",
        before / MIB,
        after / MIB
    );
    assert!(after < 1024 * MIB, "{} MiB", after / MIB);
}

#[tokio::test]
async fn an_idle_session_costs_less_than_16_kib() {
    let daemon = Daemon::start();
    let token = daemon.token();
    let mut sessions = Vec::new();
    // The first ones pay for what is made once.
    for _ in 0..50 {
        sessions.push(daemon.log_in(&token).await);
    }
    let before = daemon.resident();
    for _ in 0..500 {
        sessions.push(daemon.log_in(&token).await);
    }
    let each = (daemon.resident() - before) / 500;
    eprintln!("{each} bytes for an idle session");
    assert!(each < 16 * 1024, "{each} bytes for an idle session");
}

async fn memory_to_get(daemon: &Daemon, size: u64) -> u64 {
    let mut client = daemon.log_in(&daemon.token()).await;
    let path = daemon.data().join("homes/admin/large");
    let file = std::fs::File::create(path).expect("a file");
    file.set_len(size).expect("a sparse file");
    client
        .send(json!({"id": 6, "cmd": "get", "path": "large"}))
        .await;
    let (mut received, mut most) = (0, 0);
    loop {
        match client.receive().await {
            Received::Data { chunk, .. } => {
                received += chunk.len() as u64;
                if received % (16 * MIB) < MIB {
                    most = most.max(daemon.resident());
                }
            }
            Received::Control(reply) if reply.get("begin").is_some() => {}
            Received::Control(reply) => {
                assert_eq!(reply["ok"]["size"], size, "{reply}");
                return most.max(daemon.resident());
            }
            Received::Closed => panic!("closed"),
        }
    }
}

#[tokio::test]
async fn a_large_file_takes_no_more_memory_than_a_small_one() {
    let daemon = Daemon::start();
    let small = memory_to_get(&daemon, 10 * MIB).await;
    let large = memory_to_get(&daemon, 300 * MIB).await;
    assert!(
        large < small + 8 * MIB,
        "{} MiB, then {} MiB",
        small / MIB,
        large / MIB
    );
}

#[tokio::test]
#[ignore = "moves 10 GiB; the README says how to run it"]
async fn a_file_of_10_gib_takes_no_more_memory_than_one_of_10_mib() {
    let daemon = Daemon::start();
    let small = memory_to_get(&daemon, 10 * MIB).await;
    let large = memory_to_get(&daemon, 10 * 1024 * MIB).await;
    eprintln!(
        "{} MiB resident for 10 MiB, {} MiB for 10 GiB",
        small / MIB,
        large / MIB
    );
    assert!(large < small + 8 * MIB);
}

#[tokio::test]
#[ignore = "makes a million files; the README says how to run it"]
async fn a_directory_of_a_million_entries_is_listed_whole_in_little_memory() {
    const ENTRIES: usize = 1_000_000;
    let daemon = Daemon::start();
    let mut client = daemon.log_in(&daemon.token()).await;
    let directory = daemon.data().join("homes/admin/many");
    std::fs::create_dir(&directory).expect("a directory");
    let first = directory.join("entry 0");
    std::fs::write(&first, "").expect("a file");
    for number in 1..ENTRIES {
        // File systems allow tens of thousands of links to one file, not a million.
        let name = directory.join(format!("entry {number}"));
        if number % 10_000 == 0 {
            std::fs::write(name, "").expect("a file");
        } else {
            let whole = directory.join(format!("entry {}", number / 10_000 * 10_000));
            std::fs::hard_link(whole, name).expect("a link");
        }
    }
    let mut request = json!({"cmd": "ls", "path": "many"});
    let (mut seen, mut early) = (HashSet::new(), 0);
    loop {
        let page = client.ok(request.clone()).await;
        for entry in page["entries"].as_array().expect("entries") {
            let name = entry["name"].as_str().expect("a name").to_owned();
            assert!(seen.insert(name), "{entry} came twice");
        }
        if seen.len() < ENTRIES / 10 {
            early = daemon.peak();
        }
        match page.get("cursor") {
            Some(cursor) => request["cursor"] = cursor.clone(),
            None => break,
        }
    }
    assert_eq!(seen.len(), ENTRIES);
    let late = daemon.peak();
    eprintln!(
        "at most {} MiB for the first tenth of a million entries, {} MiB for all",
        early / MIB,
        late / MIB
    );
    assert!(late < early + 8 * MIB);
}
