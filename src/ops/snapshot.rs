//! Snapshots for the viewers of the status page: one task creates them for all viewers.

use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::Event;
use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::ops::disk_space::{DiskSpace, DiskSpaceGauge};
use crate::ops::history::{RecentFigures, SAMPLE_INTERVAL, Sample, SampleHistory, ServerTotals};
use crate::ops::log_lines::LogLineFeed;
use crate::protocol::{ErrorCode, SessionEntry};
use crate::server::{Server, ServerFigures, ServerStage};

/// Time between two snapshots.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(1);

/// The most concurrent viewers.
pub(crate) const MAX_VIEWERS: usize = 16;

/// The most sessions in a snapshot.
const MAX_SESSIONS: usize = 200;

/// The source of snapshots. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotFeed(Arc<SnapshotFeedShared>);

#[derive(Debug)]
struct SnapshotFeedShared {
    server: Server,
    machine: String,
    /// The port of the server.
    port: u16,
    started: Instant,
    /// The latest snapshot.
    now: watch::Sender<Event>,
    history: Mutex<SampleHistory>,
    viewer_permits: Arc<Semaphore>,
    viewer_added: Notify,
}

/// The state of the server at one moment.
#[derive(Debug, Serialize)]
struct Snapshot<'a> {
    version: &'static str,
    machine: &'a str,
    port: u16,
    time: Timestamp,
    /// Milliseconds since the start.
    at: u64,
    state: SnapshotStage,
    /// The number of sessions.
    sessions: usize,
    /// The number of running transfers of all sessions.
    transfers: usize,
    /// File bytes since the start.
    received: u64,
    sent: u64,
    disk: Option<DiskSpace>,
    recent: Option<RecentFigures>,
    /// Commands that ended with an internal error since the start.
    internal_errors: u64,
    /// The last sample; the viewer has the earlier ones.
    sample: Option<&'a Sample>,
    /// Some sessions, those with transfers first.
    list: Vec<SessionEntry>,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum SnapshotStage {
    Starting,
    Ready,
    Draining,
    /// The disk has failed to store something.
    Degraded,
}

/// A viewer of the page.
#[derive(Debug)]
pub(crate) struct Viewer {
    pub(crate) now: watch::Receiver<Event>,
    /// The samples so far.
    pub(crate) history: Event,
    /// The new log lines, if the server has a log.
    pub(crate) lines: Option<LogLineFeed>,
    _permit: OwnedSemaphorePermit,
}

impl SnapshotFeed {
    /// The feed of a server that listens on `port`.
    pub(crate) fn new(server: Server, port: u16) -> Self {
        let system = rustix::system::uname();
        Self(Arc::new(SnapshotFeedShared {
            server,
            machine: system.nodename().to_string_lossy().into_owned(),
            port,
            started: Instant::now(),
            now: watch::Sender::new(Event::default()),
            history: Mutex::default(),
            viewer_permits: Arc::new(Semaphore::new(MAX_VIEWERS)),
            viewer_added: Notify::new(),
        }))
    }

    /// Adds a viewer; `None` at the limit.
    pub(crate) fn viewer(&self) -> Option<Viewer> {
        let permits = Arc::clone(&self.0.viewer_permits);
        let permit = permits.try_acquire_owned().ok()?;
        let viewer = Viewer {
            now: self.0.now.subscribe(),
            history: event("history", &*self.0.history()),
            lines: self.0.server.tail().map(LogLineFeed::from_now),
            _permit: permit,
        };
        self.0.viewer_added.notify_one();
        Some(viewer)
    }

    /// Takes samples, and snapshots while there are viewers. Never ends.
    pub(crate) async fn run(&self) {
        let shared = &*self.0;
        let mut disk = DiskSpaceGauge::default();
        let mut sampling = interval(SAMPLE_INTERVAL);
        let mut ticking = interval(SNAPSHOT_INTERVAL);
        for interval in [&mut sampling, &mut ticking] {
            interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
        }
        loop {
            let is_watched = shared.now.receiver_count() > 0;
            tokio::select! {
                _ = sampling.tick() => shared.sample(),
                _ = ticking.tick(), if is_watched => shared.publish(&mut disk),
                // A new viewer does not wait for the next tick.
                () = shared.viewer_added.notified() => {
                    shared.publish(&mut disk);
                    ticking.reset();
                }
            }
        }
    }
}

impl SnapshotFeedShared {
    fn sample(&self) {
        let totals = self.totals(&self.server.figures());
        let sessions = self.server.session_count();
        self.history().record(totals, sessions);
    }

    fn totals(&self, figures: &ServerFigures) -> ServerTotals {
        let logins = figures.logins.iter();
        let failed_logins = logins.filter(|(_, code, _)| code.is_some());
        ServerTotals {
            uptime: self.started.elapsed(),
            traffic: self.server.traffic(),
            failed_logins: failed_logins.map(|(_, _, count)| count).sum(),
            failed_commands: errors(figures).map(|(_, count)| count).sum(),
            latency: self.server.latency(),
        }
    }

    fn publish(&self, disk: &mut DiskSpaceGauge) {
        let overview = self.server.overview(MAX_SESSIONS);
        let figures = self.server.figures();
        let totals = self.totals(&figures);
        let (received, sent) = totals.traffic;
        let internal = errors(&figures).filter(|(code, _)| *code == ErrorCode::Internal);
        let history = self.history();
        let snapshot = Snapshot {
            version: env!("CARGO_PKG_VERSION"),
            machine: &self.machine,
            port: self.port,
            time: Timestamp::now(),
            at: u64::try_from(totals.uptime.as_millis()).unwrap_or(u64::MAX),
            state: self.state(),
            sessions: overview.sessions,
            transfers: figures.gets + figures.puts,
            received,
            sent,
            disk: disk.latest(&self.server.config().server.data),
            recent: history.recent(&totals),
            internal_errors: internal.map(|(_, count)| count).sum(),
            sample: history.latest(),
            list: overview.list,
        };
        let _ = self.now.send_replace(event("now", &snapshot));
    }

    fn state(&self) -> SnapshotStage {
        match self.server.stage() {
            ServerStage::Draining => SnapshotStage::Draining,
            _ if self.server.is_degraded() => SnapshotStage::Degraded,
            ServerStage::Starting => SnapshotStage::Starting,
            ServerStage::Serving => SnapshotStage::Ready,
        }
    }

    fn history(&self) -> MutexGuard<'_, SampleHistory> {
        self.history.lock()
    }
}

/// The error codes of commands, with their counts. Logins are counted apart, and a `stat` fails whenever a
/// client asks whether a file exists.
fn errors(figures: &ServerFigures) -> impl Iterator<Item = (ErrorCode, u64)> {
    let commands = figures.commands.iter();
    let commands = commands.filter(|command| !matches!(command.cmd, "login" | "stat"));
    commands.flat_map(|command| command.errors.iter().copied())
}

/// Serialises an event once for all viewers.
fn event(name: &str, data: &impl Serialize) -> Event {
    let json = serde_json::to_string(data).expect("all keys are text");
    Event::default().event(name).data(json)
}
