//! One row of synchronisation: everybody in turns, after the same edit.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::PeersResult;
use crate::directories::{BenchDirectories, remove};
use crate::measuring::MeasuredRun;
use crate::options::BenchOptions;
use crate::peer::RunningPeer;
use crate::process::{BenchProcess, clients_seconds, finish, server_seconds};
use crate::proxy::{DelayProxy, FAR};
use crate::sync::rows::SyncWork;
use crate::sync::source::{SyncSource, compare};
use crate::sync::{SyncRow, SyncTask};

/// The measurements of one peer in one row.
#[derive(serde::Serialize)]
pub(crate) struct SyncFigures {
    pub(crate) peer: &'static str,
    pub(crate) runs: Vec<MeasuredRun>,
    /// Bytes of one run in both directions.
    pub(crate) wire_bytes: u64,
    /// Why there are no more runs.
    pub(crate) trouble: Option<String>,
}

struct SyncContender<'a> {
    running: &'a RunningPeer,
    row: &'a SyncRow,
    place: &'a BenchDirectories,
    /// Where its downloads go.
    local: PathBuf,
    figures: SyncFigures,
}

/// Measures a row.
///
/// # Errors
/// If the source cannot be made or edited; what goes wrong with one peer is noted in its figures.
pub(crate) async fn measure(
    row: &SyncRow,
    place: &BenchDirectories,
    peers: &[RunningPeer],
    options: &BenchOptions,
) -> PeersResult<Vec<SyncFigures>> {
    let mut source = SyncSource::open(
        place.source_named(row.load.name()),
        (row.name, row.load),
        options,
    )?;
    let mut contenders = Vec::new();
    for running in peers {
        let contender = SyncContender::new(running, row, place);
        contender.stock(&source).await?;
        contenders.push(contender);
    }
    for round in 0..=options.runs {
        source.edit(row.work)?;
        for contender in &mut contenders {
            if contender.figures.trouble.is_none()
                && let Err(trouble) = contender.run(&source, round == 0, options).await
            {
                contender.figures.trouble = Some(trouble.to_string());
            }
        }
    }
    for contender in &contenders {
        remove(&contender.local)?;
    }
    Ok(contenders.into_iter().map(|each| each.figures).collect())
}

impl<'a> SyncContender<'a> {
    fn new(running: &'a RunningPeer, row: &'a SyncRow, place: &'a BenchDirectories) -> Self {
        let peer = running.peer.name();
        Self {
            running,
            row,
            place,
            local: place.root().join("got").join(peer),
            figures: SyncFigures {
                peer,
                runs: Vec::new(),
                wire_bytes: 0,
                trouble: None,
            },
        }
    }

    fn command(&self, source: &SyncSource, host: Ipv4Addr, down: bool) -> PeersResult<Command> {
        self.running.peer.sync(&SyncTask {
            local: if down {
                &self.local
            } else {
                source.directory()
            },
            name: self.row.load.name(),
            host: IpAddr::V4(host),
            down,
            encrypted: self.row.line,
            renames: self.row.work == SyncWork::Renamed,
        })
    }

    async fn finish(&self, command: Command) -> PeersResult<()> {
        finish(command, &self.place.root().join("prepare.log")).await
    }

    /// Makes the destination equal to the source.
    async fn stock(&self, source: &SyncSource) -> PeersResult<()> {
        self.finish(self.command(source, Ipv4Addr::LOCALHOST, false)?)
            .await?;
        remove(&self.local)?;
        if self.row.down {
            self.finish(self.command(source, Ipv4Addr::LOCALHOST, true)?)
                .await?;
        }
        Ok(())
    }

    /// Brings the edit to the server, or removes what the next run has to bring.
    async fn prepare(&self, source: &SyncSource) -> PeersResult<()> {
        let is_first = self.row.work == SyncWork::First;
        if self.row.down {
            if is_first {
                remove(&self.local)?;
            }
            let command = self.command(source, Ipv4Addr::LOCALHOST, false)?;
            return self.finish(command).await;
        }
        if is_first {
            let name = self.row.load.name();
            match self.running.peer.forget_synced(name) {
                Some(command) => self.finish(command).await?,
                None => remove(&self.running.peer.synced(name, self.place))?,
            }
        }
        Ok(())
    }

    /// One run; the first is compared, and its bytes are counted.
    async fn run(
        &mut self,
        source: &SyncSource,
        is_first: bool,
        options: &BenchOptions,
    ) -> PeersResult<()> {
        self.prepare(source).await?;
        let ports = self.running.peer.ports();
        let proxy = match (self.row.line, is_first) {
            (true, _) => Some(DelayProxy::start(&ports, options.one_way()).await?),
            (false, true) => Some(DelayProxy::start(&ports, Duration::ZERO).await?),
            (false, false) => None,
        };
        let host = proxy.as_ref().map_or(Ipv4Addr::LOCALHOST, |_| FAR);
        let command = self.command(source, host, self.row.down)?;
        let run = self.timed(command, options.patience()).await?;
        if let Some(proxy) = proxy {
            self.figures.wire_bytes = proxy.carried();
            proxy.cut().await;
        }
        if is_first {
            let at_server = self.running.peer.synced(self.row.load.name(), self.place);
            let got = if self.row.down {
                &self.local
            } else {
                &at_server
            };
            return compare(source.directory(), got);
        }
        self.figures.runs.push(run);
        Ok(())
    }

    async fn timed(&self, command: Command, patience: Duration) -> PeersResult<MeasuredRun> {
        let server = self.running.process.id();
        let server_before = server_seconds(server, self.running.at_rest).await;
        let client_before = clients_seconds();
        let begun = Instant::now();
        let mut client = BenchProcess::start(command, &self.place.root().join("client.log"))?;
        let Ok(status) = timeout(patience, client.wait()).await else {
            return Err(format!("given up after {} s", patience.as_secs()).into());
        };
        let (status, wall) = (status?, begun.elapsed().as_secs_f64());
        if !status.success() {
            return Err(format!("{status}: {}", client.stderr_tail()).into());
        }
        let client = clients_seconds() - client_before;
        let server = server_seconds(server, self.running.at_rest).await - server_before;
        Ok(MeasuredRun {
            wall,
            server,
            client,
        })
    }
}
