//! One row: everybody in turns, each run from the same state, the first one compared byte by byte.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::PeersResult;
use crate::directories::{BenchDirectories, arrived, compare, remove};
use crate::options::BenchOptions;
use crate::peer::RunningPeer;
use crate::process::{BenchProcess, clients_seconds, finish, server_seconds};
use crate::proxy::{DelayProxy, FAR};
use crate::rows::{BenchDirection, BenchRow, Extent, Medium, Task};

/// The seconds that one run took.
#[derive(Clone, Copy, serde::Serialize)]
pub(crate) struct MeasuredRun {
    pub(crate) wall: f64,
    /// Processor time of the server, user and system.
    pub(crate) server: f64,
    /// Processor time of the client.
    pub(crate) client: f64,
}

/// The measurements of one peer in one row.
#[derive(serde::Serialize)]
pub(crate) struct Figures {
    pub(crate) peer: &'static str,
    /// Whether a `sync` of the file system belongs to each run.
    pub(crate) synced_after: bool,
    pub(crate) verifies: &'static str,
    pub(crate) syncs: bool,
    pub(crate) runs: Vec<MeasuredRun>,
    /// Why there are no more runs.
    pub(crate) trouble: Option<String>,
}

/// Of several runs.
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Figures {
    pub(crate) fn name(&self) -> String {
        let after = if self.synced_after { " + sync" } else { "" };
        format!("{}{after}", self.peer)
    }

    /// The median of the wall times; of who did not get through, more than everybody's.
    pub(crate) fn median(&self) -> f64 {
        if self.trouble.is_some() {
            return f64::INFINITY;
        }
        self.spread(|run| run.wall).median
    }

    pub(crate) fn spread(&self, part: fn(&MeasuredRun) -> f64) -> Spread {
        Spread::of(self.runs.iter().map(part))
    }
}

impl Spread {
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<_> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        let last = sorted.len().saturating_sub(1);
        Self {
            median: f64::midpoint(at(last / 2), at(last.div_ceil(2))),
            min: at(0),
            max: at(last),
        }
    }
}

/// Where a row is measured: the files to send, and where servers and clients write to.
pub(crate) struct Ground<'a> {
    pub(crate) source: &'a BenchDirectories,
    pub(crate) place: &'a BenchDirectories,
}

struct Contender<'a> {
    running: &'a RunningPeer,
    host: IpAddr,
    figures: Figures,
}

/// Measures a row.
///
/// # Errors
/// If the files cannot be made, or the line cannot be set up; what goes wrong with one peer is
/// noted in its figures.
pub(crate) async fn measure(
    row: &BenchRow,
    ground: &Ground<'_>,
    peers: &[RunningPeer],
    options: &BenchOptions,
) -> PeersResult<Vec<Figures>> {
    let extent = row.item.extent(options);
    ground.source.fill(row.item, extent)?;
    let mut lines = Vec::new();
    let mut contenders = Vec::new();
    for running in peers.iter().filter(|running| running.peer.takes_part(row)) {
        let mut host = Ipv4Addr::LOCALHOST;
        if row.medium == Medium::Line {
            host = FAR;
            lines.push(DelayProxy::start(&running.peer.ports(), options.one_way()).await?);
        }
        contenders.push(Contender::new(running, host, false));
        if row.medium == Medium::Disk && !running.peer.syncs() {
            contenders.push(Contender::new(running, host, true));
        }
        stock(row, ground, running).await?;
    }
    // Through the line there is nothing to warm up, and the first run is compared as well.
    let warm_up = usize::from(row.medium != Medium::Line);
    for round in 0..usize::from(options.runs) + warm_up {
        for contender in &mut contenders {
            if contender.figures.trouble.is_some() {
                continue;
            }
            let ran = contender
                .run(row, extent, ground, options, round == 0)
                .await;
            match ran {
                Ok(Some(run)) if round >= warm_up => contender.figures.runs.push(run),
                Ok(_) => {}
                Err(trouble) => contender.figures.trouble = Some(trouble.to_string()),
            }
        }
    }
    for line in lines {
        line.cut().await;
    }
    for contender in &contenders {
        contender.clear(row, ground).await?;
    }
    Ok(contenders.into_iter().map(|each| each.figures).collect())
}

/// Brings the item to a server that has to be given it.
async fn stock(row: &BenchRow, ground: &Ground<'_>, running: &RunningPeer) -> PeersResult<()> {
    if row.direction == BenchDirection::Up {
        return Ok(());
    }
    if let Some(command) = running.peer.stock(row.item, ground.source) {
        finish(command, &ground.place.root().join("stock.log")).await?;
    }
    Ok(())
}

impl<'a> Contender<'a> {
    fn new(running: &'a RunningPeer, host: Ipv4Addr, synced_after: bool) -> Self {
        let peer = &running.peer;
        Self {
            running,
            host: host.into(),
            figures: Figures {
                peer: peer.name(),
                synced_after,
                verifies: peer.verifies(),
                syncs: peer.syncs(),
                runs: Vec::new(),
                trouble: None,
            },
        }
    }

    /// One run; nothing if it had to be given up, which is then noted.
    async fn run(
        &mut self,
        row: &BenchRow,
        extent: Extent,
        ground: &Ground<'_>,
        options: &BenchOptions,
        check: bool,
    ) -> PeersResult<Option<MeasuredRun>> {
        let task = Task {
            row,
            extent,
            source: ground.source.source(row.item),
            target: ground.place.target(row.item),
            host: self.host,
            scratch: ground.place.root(),
        };
        self.clear(row, ground).await?;
        let command = self.running.peer.client(&task)?;
        let got = match row.direction {
            BenchDirection::Down => task.target.clone(),
            BenchDirection::Up => self.running.peer.arrives(row.item, ground.place),
        };
        let server = self.running.process.id();
        let server_before = server_seconds(server, self.running.at_rest).await;
        let client_before = clients_seconds();
        let log = ground.place.root().join("client.log");
        let begun = Instant::now();
        let mut client = BenchProcess::start(command, &log)?;
        let Ok(status) = timeout(options.patience(), client.wait()).await else {
            let there = arrived(extent, &got);
            self.figures.trouble = Some(given_up(extent, there, begun.elapsed()));
            return Ok(None);
        };
        let status = status?;
        if self.figures.synced_after {
            finish(sync(ground.place.root()), &log).await?;
        }
        let wall = begun.elapsed().as_secs_f64();
        if !status.success() {
            return Err(format!("{status}: {}", client.stderr_tail()).into());
        }
        let client = clients_seconds() - client_before;
        let server = server_seconds(server, self.running.at_rest).await - server_before;
        if check {
            compare(extent, &task.source, &got)?;
        }
        let hundredths = |seconds: f64| (seconds * 100.0).round() / 100.0;
        Ok(Some(MeasuredRun {
            wall,
            server: hundredths(server),
            client: hundredths(client),
        }))
    }

    /// Removes what a run has left, so that the next one begins like the first.
    async fn clear(&self, row: &BenchRow, ground: &Ground<'_>) -> PeersResult<()> {
        remove(&ground.place.target(row.item))?;
        let arrives = self.running.peer.arrives(row.item, ground.place);
        let log = ground.place.root().join("clear.log");
        match self.running.peer.forget(row.item) {
            Some(forget) if arrives.exists() => finish(forget, &log).await?,
            Some(_) => {}
            None => remove(&arrives)?,
        }
        if row.medium == Medium::Disk {
            finish(sync(ground.place.root()), &log).await?;
        }
        Ok(())
    }
}

fn sync(place: &Path) -> Command {
    let mut command = Command::new("sync");
    command.arg("--file-system").arg(place);
    command
}

/// What is known of a run that took too long.
fn given_up(extent: Extent, there: u64, after: Duration) -> String {
    let (whole, what) = match extent {
        Extent::File(size) => (size, "bytes"),
        Extent::Tree(files) => (u64::from(files), "files"),
    };
    let seconds = after.as_secs();
    let estimate = match (seconds * whole).checked_div(there) {
        Some(all) => format!(", so about {all} s"),
        None => String::new(),
    };
    format!("given up after {seconds} s with {there} of {whole} {what}{estimate}")
}
