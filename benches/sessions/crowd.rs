//! The latency of small replies in one session while others download.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use haul::protocol::{End, Frame, Get, Ls, Ping, Put};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::SessionsResult;
use crate::daemon::Daemon;
use crate::session_client::{BenchSession, check, framed, login};

/// The bytes that a download reads from its socket at a time.
const READ: usize = 256 * 1024;

/// Bytes of file in a frame of the upload.
const CHUNK: usize = 128 * 1024;

const ENTRIES: usize = 100;

pub(crate) async fn measure(downloads: u64, size: u64, time: Duration) -> SessionsResult<()> {
    let daemon = Daemon::start(10_000)?;
    let mut line = BenchSession::log_in(&daemon).await?;
    upload(&mut line, size).await?;
    let directory = daemon.home().join("entries");
    fs::create_dir(&directory)?;
    for number in 0..ENTRIES {
        fs::write(directory.join(format!("entry {number:03}")), "entry")?;
    }
    println!("ping, and ls of {ENTRIES} entries, one after the other in one session; milliseconds");
    println!("downloads beside it   command   answers      p50      p99      max");
    probe(&daemon, 0, time).await?;
    let moved = Arc::new(AtomicU64::new(0));
    let mut work = JoinSet::new();
    for _ in 0..downloads {
        work.spawn(download(
            daemon.address.clone(),
            daemon.token.clone(),
            moved.clone(),
        ));
    }
    // All downloads have begun once this much has arrived.
    while moved.load(Ordering::Relaxed) < downloads << 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if let Some(ended) = work.try_join_next() {
            ended??;
        }
    }
    let (before, used, start) = (moved.load(Ordering::Relaxed), daemon.cpu()?, Instant::now());
    probe(&daemon, downloads, time).await?;
    let took = start.elapsed().as_secs_f64();
    let bytes = moved.load(Ordering::Relaxed) - before;
    let gib = f64::from(u32::try_from(bytes >> 20)?) / 1024.0;
    println!(
        "meanwhile {:.2} GiB/s, for {:.2} s of the server's processor each GiB",
        gib / took,
        (daemon.cpu()? - used) / gib
    );
    work.abort_all();
    Ok(())
}

/// Runs on its own thread, so that it waits for no other client in this process.
async fn probe(daemon: &Daemon, beside: u64, time: Duration) -> SessionsResult<()> {
    let (address, token) = (daemon.address.clone(), daemon.token.clone());
    let ls = Ls {
        path: Some("entries".into()),
        ..Ls::default()
    };
    let commands = [("ping", framed(2, &Ping {})), ("ls", framed(2, &ls))];
    let probing = std::thread::spawn(move || -> SessionsResult<[Vec<Duration>; 2]> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        ask(&mut stream, &login(&token))?;
        let mut latencies = [Vec::new(), Vec::new()];
        let start = Instant::now();
        while start.elapsed() < time {
            for ((_, request), latencies) in commands.iter().zip(&mut latencies) {
                let asked = Instant::now();
                ask(&mut stream, request)?;
                latencies.push(asked.elapsed());
            }
        }
        Ok(latencies)
    });
    let waiting = tokio::task::spawn_blocking(move || probing.join());
    let latencies = waiting.await?.map_err(|_| "the probe panicked")??;
    for (name, mut latencies) in ["ping", "ls"].into_iter().zip(latencies) {
        latencies.sort();
        let at = |thousandth: usize| {
            let index = (latencies.len() - 1) * thousandth / 1000;
            latencies[index].as_secs_f64() * 1000.0
        };
        println!(
            "{beside:>19}   {name:>7}  {:>8} {:>8.2} {:>8.2} {:>8.2}",
            latencies.len(),
            at(500),
            at(990),
            at(1000)
        );
    }
    Ok(())
}

/// Sends a request that one frame answers.
fn ask(stream: &mut TcpStream, request: &[u8]) -> SessionsResult<()> {
    stream.write_all(request)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut reply = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut reply)?;
    check(&reply)
}

/// Downloads the file repeatedly, and discards it.
async fn download(address: String, token: String, moved: Arc<AtomicU64>) -> SessionsResult<()> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let get = Get {
        path: "large".into(),
        ..Get::default()
    };
    let mut thrown = vec![0; READ];
    stream.write_all(&login(&token)).await?;
    let mut replies = 0;
    loop {
        let mut left = usize::try_from(stream.read_u32().await?)?;
        let mark = stream.read_u8().await?;
        left -= 1;
        if mark == b'{' {
            let mut reply = vec![0; left];
            stream.read_exact(&mut reply).await?;
            check(&reply)?;
            // A login has one reply, a get has two.
            if replies % 2 == 0 {
                stream.write_all(&framed(5, &get)).await?;
            }
            replies += 1;
            continue;
        }
        while left > 0 {
            let most = left.min(READ);
            let read = stream.read(&mut thrown[..most]).await?;
            if read == 0 {
                return Err("closed".into());
            }
            left -= read;
            moved.fetch_add(read as u64, Ordering::Relaxed);
        }
    }
}

async fn upload(line: &mut BenchSession, size: u64) -> SessionsResult<()> {
    let put = Put {
        path: "large".into(),
        size: Some(size),
        ..Put::default()
    };
    line.writer.write_all(&framed(3, &put)).await?;
    let mut chunk = vec![0; CHUNK];
    let mut left = size;
    while left > 0 {
        chunk[..8].copy_from_slice(&left.to_be_bytes());
        let now = usize::try_from(left.min(CHUNK as u64))?;
        let mut head = u32::try_from(5 + now)?.to_be_bytes().to_vec();
        head.extend([1, 0, 0, 0, 3]);
        line.writer.write_all(&head).await?;
        line.writer.write_all(&chunk[..now]).await?;
        left -= now as u64;
    }
    line.writer.write_all(&framed(3, &End::default())).await?;
    for _ in ["begin", "ok"] {
        let Some(Frame::Control(reply)) = line.receiver.next().await? else {
            return Err("closed".into());
        };
        check(&reply)?;
    }
    Ok(())
}
