//! Many sessions and large files: nothing stalls, and memory is bounded.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::daemon::ServerProcess;
use crate::harness::{RawClient, Received, control, data};

const MIB: u64 = 1 << 20;

/// Runs `sessions` concurrent sessions, each with five puts and five gets in interleaved frames.
async fn many_transfers(daemon: &ServerProcess, sessions: usize, size: usize) {
    let token = daemon.token();
    let everyone = Arc::new(Barrier::new(sessions));
    let mut running = JoinSet::new();
    for session in 0..sessions {
        let mut client = daemon.log_in(&token).await;
        let everyone = everyone.clone();
        running.spawn(async move {
            let directory = format!("session {session}");
            client.ok(json!({"cmd": "mkdir", "path": directory})).await;
            client.ok(json!({"cmd": "cd", "path": directory})).await;
            client.put("seed", &vec![b's'; size]).await;
            everyone.wait().await;
            five_puts_and_five_gets(client, size).await;
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.expect("no session fails");
    }
}

async fn five_puts_and_five_gets(mut client: RawClient, size: usize) {
    let half = vec![b'x'; size / 2];
    let mut burst = Vec::new();
    for id in 0..5 {
        burst.extend(control(
            &json!({"id": id, "cmd": "put", "path": format!("f{id}")}),
        ));
        burst.extend(control(
            &json!({"id": id + 5, "cmd": "get", "path": "seed"}),
        ));
    }
    for id in [0, 1, 2, 3, 4, 0, 1, 2, 3, 4] {
        burst.extend(data(id, &half));
    }
    for id in 0..5 {
        burst.extend(control(&json!({"id": id, "cmd": "end"})));
    }
    let (mut receiving, mut sending) = client.split();
    let send = async { sending.write_all(&burst).await.expect("the server reads") };
    let receive = async {
        let (mut received, mut ended) = (0, 0);
        while ended < 10 {
            match receiving.receive().await {
                Received::Data { chunk, .. } => received += chunk.len(),
                Received::Control(reply) if reply.get("begin").is_some() => {}
                Received::Control(reply) => {
                    assert_eq!(reply["ok"]["size"], size, "{reply}");
                    ended += 1;
                }
                Received::Closed => panic!("closed"),
            }
        }
        assert_eq!(received, 5 * size);
    };
    tokio::join!(send, receive);
}

#[tokio::test]
async fn forty_sessions_with_ten_transfers_each_neither_stall_nor_grow_without_bound() {
    let daemon = ServerProcess::start();
    many_transfers(&daemon, 40, 400_000).await;
    let peak = daemon.peak();
    assert!(peak < 256 * MIB, "{} MiB", peak / MIB);
}

#[tokio::test]
#[ignore = "takes a minute; docs/TESTING.md says how to run it"]
async fn a_thousand_sessions_with_ten_transfers_each_neither_stall_nor_grow_without_bound() {
    let daemon = ServerProcess::start();
    many_transfers(&daemon, 1000, 400_000).await;
    let peak = daemon.peak();
    eprintln!("at most {} MiB", peak / MIB);
    assert!(peak < 1024 * MIB, "{} MiB", peak / MIB);
}

#[tokio::test]
async fn an_idle_session_costs_less_than_16_kib() {
    let daemon = ServerProcess::start();
    let token = daemon.token();
    let mut sessions = vec![daemon.log_in(&token).await];
    let directory = daemon.data().join("homes/admin/many");
    std::fs::create_dir(&directory).expect("a directory");
    for number in 0..500 {
        std::fs::write(directory.join(format!("entry {number}")), "").expect("a file");
    }
    // The log keeps up to a mebibyte of its last lines.
    for _ in 0..3000 {
        sessions[0].ok(json!({"cmd": "df"})).await;
    }
    // The first ones pay for what is made once.
    let mut before = 0;
    for number in 0..700 {
        if number == 200 {
            before = daemon.resident();
        }
        let mut client = daemon.log_in(&token).await;
        client.ok(json!({"cmd": "ls", "path": "many"})).await;
        client.put("file", &[b'x'; 10_000]).await;
        sessions.push(client);
    }
    let each = daemon.resident().saturating_sub(before) / 500;
    eprintln!("{each} bytes for an idle session");
    assert!(each < 16 * 1024, "{each} bytes for an idle session");
}

async fn memory_to_get(daemon: &ServerProcess, size: u64) -> u64 {
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
    let daemon = ServerProcess::start();
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
#[ignore = "moves 10 GiB; docs/TESTING.md says how to run it"]
async fn a_file_of_10_gib_takes_no_more_memory_than_one_of_10_mib() {
    let daemon = ServerProcess::start();
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
#[ignore = "makes a million files; docs/TESTING.md says how to run it"]
async fn a_directory_of_a_million_entries_is_listed_whole_in_little_memory() {
    const ENTRIES: usize = 1_000_000;
    let daemon = ServerProcess::start();
    let mut client = daemon.log_in(&daemon.token()).await;
    let directory = daemon.data().join("homes/admin/many");
    std::fs::create_dir(&directory).expect("a directory");
    let first = directory.join("entry 0");
    std::fs::write(&first, "").expect("a file");
    for number in 1..ENTRIES {
        // File systems allow only tens of thousands of links to one file.
        let name = directory.join(format!("entry {number}"));
        if number % 10_000 == 0 {
            std::fs::write(name, "").expect("a file");
        } else {
            let target = directory.join(format!("entry {}", number / 10_000 * 10_000));
            std::fs::hard_link(target, name).expect("a link");
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
