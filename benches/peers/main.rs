//! haul beside nginx, vsftpd, rsync and OpenSSH, doing the same work on this machine:
//! `cargo bench --bench peers`, and after `--` what `--help` tells.
//!
//! Server and client are processes of this machine that talk over loopback, files are in memory,
//! and caches are warm. In each row everybody has a turn, then everybody again, so that what else
//! the machine does meets all alike; only what is in one row can be compared. A run is a client's
//! whole life, from its start until it ends, with connecting and logging in.

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::directories::BenchDirectories;
use crate::measuring::{Figures, Ground, measure};
use crate::options::BenchOptions;
use crate::peer::{KINDS, PeerKind, RunningPeer};
use crate::rows::{BenchRow, Medium};

mod curl;
mod directories;
mod haul;
mod idle_cost;
mod measuring;
mod nginx;
mod openssh;
mod options;
mod peer;
mod process;
mod proxy;
mod rows;
mod rsync;
mod summary;
mod sync;
mod table;
mod vsftpd;

/// The peers that synchronise.
const SYNCING: [&str; 2] = ["haul", "rsync"];

type PeersResult<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let options = BenchOptions::parse();
    let ended = tokio::runtime::Runtime::new()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(until_stopped(&options)));
    if let Err(error) = ended {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Whatever ends it, what was started is ended and what was written is removed, by dropping it.
async fn until_stopped(options: &BenchOptions) -> PeersResult<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = run(options) => ended,
        _ = interrupt.recv() => Err("interrupted".into()),
        _ = terminate.recv() => Err("told to stop".into()),
    }
}

async fn run(options: &BenchOptions) -> PeersResult<()> {
    let rows = options.rows()?;
    let kinds = kinds(options)?;
    let memory = BenchDirectories::new(&options.dir)?;
    let (on_disk, in_memory): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|row| row.medium == Medium::Disk);
    let mut results = Vec::new();
    if !in_memory.is_empty() {
        let ground = Ground {
            source: &memory,
            place: &memory,
        };
        results.extend(all(&in_memory, &ground, &kinds, options).await?);
    }
    if !on_disk.is_empty() {
        std::fs::create_dir_all(&options.disk)?;
        let ground = Ground {
            source: &memory,
            place: &BenchDirectories::new(&options.disk)?,
        };
        results.extend(all(&on_disk, &ground, &kinds, options).await?);
    }
    let sync_rows = options.sync_rows();
    if !sync_rows.is_empty() {
        let place = BenchDirectories::new(&options.dir)?;
        let kinds: Vec<_> = kinds
            .iter()
            .copied()
            .filter(|kind| SYNCING.contains(&kind.name))
            .collect();
        let peers = start(&kinds, &place).await?;
        sync::measure_all(&sync_rows, &place, &peers, options).await?;
    }
    if options.rest() {
        idle_cost::measure(&kinds, &BenchDirectories::new(&options.dir)?, options).await?;
    }
    if results.len() > 1 && !options.json {
        summary::print(&results, options);
    }
    Ok(())
}

/// Measures rows that share their servers.
async fn all(
    rows: &[&'static BenchRow],
    ground: &Ground<'_>,
    kinds: &[&PeerKind],
    options: &BenchOptions,
) -> PeersResult<Vec<(&'static BenchRow, Vec<Figures>)>> {
    let peers = start(kinds, ground.place).await?;
    let mut results = Vec::new();
    for row in rows {
        eprintln!("{} …", row.title(options));
        let figures = measure(row, ground, &peers, options).await?;
        table::print(row, &figures, options);
        results.push((*row, figures));
    }
    Ok(results)
}

/// The peers that are wanted and there; of those that are not there it says what is missing.
fn kinds(options: &BenchOptions) -> PeersResult<Vec<&'static PeerKind>> {
    for name in &options.peers {
        if !KINDS.iter().any(|kind| kind.name == name) {
            return Err(format!("there is no peer {name}; see --help").into());
        }
    }
    let wanted = |kind: &&PeerKind| {
        options.peers.is_empty()
            || kind.name == "haul"
            || options.peers.iter().any(|n| n == kind.name)
    };
    let mut kinds = Vec::new();
    for kind in KINDS.iter().filter(wanted) {
        match kind.missing() {
            Some(missing) => eprintln!("{missing}"),
            None => kinds.push(kind),
        }
    }
    Ok(kinds)
}

async fn start(kinds: &[&PeerKind], place: &BenchDirectories) -> PeersResult<Vec<RunningPeer>> {
    let mut peers = Vec::new();
    for kind in kinds {
        match kind.start(place).await {
            Ok(running) => peers.push(running),
            Err(error) if kind.name == "haul" => return Err(error),
            Err(error) => eprintln!("{error}; it is left out"),
        }
    }
    Ok(peers)
}
