//! The number of small commands per second.

use std::fs;
use std::time::{Duration, Instant};

use haul::protocol::{Frame, Ls, Ping, Stat};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::SessionsResult;
use crate::daemon::Daemon;
use crate::session_client::{BenchSession, check, framed};

/// The number of requests in one write.
const BURST: usize = 32;

/// The most unanswered requests of a connection. More would only wait in buffers.
const WINDOW: usize = 128;

/// Entries of the directory that is listed.
const ENTRIES: usize = 5;

pub(crate) async fn measure(connections: usize, time: Duration) -> SessionsResult<()> {
    let daemon = Daemon::start(10_000)?;
    let directory = daemon.home().join("small");
    fs::create_dir_all(&directory)?;
    for number in 0..ENTRIES {
        fs::write(directory.join(format!("entry {number}")), "entry")?;
    }
    let path = "small".to_owned();
    let ls = Ls {
        path: Some(path.clone()),
        ..Ls::default()
    };
    let commands = [
        ("ping", framed(2, &Ping {})),
        (
            "stat",
            framed(
                2,
                &Stat {
                    path: path + "/entry 0",
                },
            ),
        ),
        ("ls", framed(2, &ls)),
    ];
    println!("commands, pipelined; ls of {ENTRIES} entries");
    println!("connections   command   a second   us of the server's processor each");
    for connections in [1, connections] {
        for (name, request) in &commands {
            let (used, start) = (daemon.cpu()?, Instant::now());
            let answers = storm(&daemon, connections, request, time).await?;
            let took = start.elapsed().as_secs_f64();
            let answers = f64::from(u32::try_from(answers)?);
            println!(
                "{connections:>11}   {name:>7}   {:>8.0}   {:>8.1}",
                answers / took,
                (daemon.cpu()? - used) / answers * 1e6
            );
        }
    }
    Ok(())
}

/// Sends a request repeatedly for `time` on a number of connections; returns the number of replies.
async fn storm(
    daemon: &Daemon,
    connections: usize,
    request: &[u8],
    time: Duration,
) -> SessionsResult<u64> {
    let mut lines = Vec::with_capacity(connections);
    for _ in 0..connections {
        lines.push(BenchSession::log_in(daemon).await?);
    }
    let until = Instant::now() + time;
    let mut work = JoinSet::new();
    for line in lines {
        work.spawn(one(line, request.repeat(BURST), until));
    }
    let mut answers = 0;
    while let Some(answered) = work.join_next().await {
        answers += answered??;
    }
    Ok(answers)
}

async fn one(line: BenchSession, burst: Vec<u8>, until: Instant) -> SessionsResult<u64> {
    let BenchSession {
        mut receiver,
        mut writer,
    } = line;
    let (mut sent, mut answers) = (0, 0);
    loop {
        if sent - answers <= WINDOW - BURST && Instant::now() < until {
            writer.write_all(&burst).await?;
            sent += BURST;
        }
        if answers == sent {
            return Ok(u64::try_from(answers)?);
        }
        let Some(Frame::Control(reply)) = receiver.next().await? else {
            return Err("no reply".into());
        };
        check(&reply)?;
        answers += 1;
    }
}
