//! Snapshots for the viewers of the status page: one task creates them for all viewers.

use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::Event;
use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::ops::history::{SAMPLE_INTERVAL, Sample, SampleHistory, ServerTotals};
use crate::ops::log_lines::LogLineFeed;
use crate::ops::quantiles::Quantiles;
use crate::ops::room_limit::{DiskSpace, DiskSpaceGauge};
use crate::protocol::SessionEntry;
use crate::server::{Server, ServerStage};

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
    started: Instant,
    /// The latest snapshot.
    now: watch::Sender<Event>,
    history: Mutex<SampleHistory>,
    places: Arc<Semaphore>,
    /// A viewer was added.
    came: Notify,
}

/// The state of the server at one moment.
#[derive(Debug, Serialize)]
struct Snapshot<'a> {
    version: &'static str,
    time: Timestamp,
    /// Milliseconds since the start.
    at: u64,
    state: SnapshotStage,
    /// How many there are.
    sessions: usize,
    /// How many there are, in all sessions.
    transfers: usize,
    /// Bytes of files since the start.
    received: u64,
    sent: u64,
    disk: Option<DiskSpace>,
    /// Of the last minute.
    latency: Option<Quantiles>,
    /// The last sample: of what is past, the viewer knows the rest.
    sample: Option<&'a Sample>,
    /// Some sessions, those that move something first.
    list: Vec<SessionEntry>,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum SnapshotStage {
    Starting,
    Ready,
    Draining,
    /// The disk has failed to keep something.
    Degraded,
}

/// A viewer of the page.
#[derive(Debug)]
pub(crate) struct Viewer {
    pub(crate) now: watch::Receiver<Event>,
    /// The history so far.
    pub(crate) history: Event,
    /// What is new in the log, where there is one.
    pub(crate) lines: Option<LogLineFeed>,
    _place: OwnedSemaphorePermit,
}

impl SnapshotFeed {
    pub(crate) fn new(server: Server) -> Self {
        Self(Arc::new(SnapshotFeedShared {
            server,
            started: Instant::now(),
            now: watch::Sender::new(Event::default()),
            history: Mutex::default(),
            places: Arc::new(Semaphore::new(MAX_VIEWERS)),
            came: Notify::new(),
        }))
    }

    /// Adds a viewer; `None` at the limit.
    pub(crate) fn viewer(&self) -> Option<Viewer> {
        let place = Arc::clone(&self.0.places).try_acquire_owned().ok()?;
        let viewer = Viewer {
            now: self.0.now.subscribe(),
            history: event("history", &*self.0.history()),
            lines: self.0.server.tail().map(LogLineFeed::from_now),
            _place: place,
        };
        self.0.came.notify_one();
        Some(viewer)
    }

    /// Takes samples, and snapshots while there are viewers. Never ends.
    pub(crate) async fn run(&self) {
        let shared = &*self.0;
        let mut rooms = DiskSpaceGauge::default();
        let mut sampling = interval(SAMPLE_INTERVAL);
        let mut ticking = interval(SNAPSHOT_INTERVAL);
        for interval in [&mut sampling, &mut ticking] {
            interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
        }
        loop {
            let is_watched = shared.now.receiver_count() > 0;
            tokio::select! {
                _ = sampling.tick() => shared.sample(),
                _ = ticking.tick(), if is_watched => shared.publish(&mut rooms),
                // A new viewer does not wait for the next tick.
                () = shared.came.notified() => {
                    shared.publish(&mut rooms);
                    ticking.reset();
                }
            }
        }
    }
}

impl SnapshotFeedShared {
    fn sample(&self) {
        let counts = ServerTotals {
            uptime: self.started.elapsed(),
            traffic: self.server.traffic(),
            latency: self.server.latency(),
        };
        let sessions = self.server.session_count();
        self.history().record(counts, sessions);
    }

    fn publish(&self, rooms: &mut DiskSpaceGauge) {
        let overview = self.server.overview(MAX_SESSIONS);
        let figures = self.server.figures();
        let (received, sent) = self.server.traffic();
        let history = self.history();
        let snapshot = Snapshot {
            version: env!("CARGO_PKG_VERSION"),
            time: Timestamp::now(),
            at: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            state: self.state(),
            sessions: overview.sessions,
            transfers: figures.gets + figures.puts,
            received,
            sent,
            disk: rooms.latest(&self.server.config().server.data),
            latency: history.recent(&self.server.latency()),
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

/// Serialises an event once for all viewers.
fn event(name: &str, data: &impl Serialize) -> Event {
    let json = serde_json::to_string(data).expect("it has no keys but texts");
    Event::default().event(name).data(json)
}
