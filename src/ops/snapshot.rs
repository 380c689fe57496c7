//! What viewers of the page are told: one task that looks, for all of them together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::response::sse::Event;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::ops::history::{Counts, History, STEP, Sample};
use crate::ops::log_lines::Lines;
use crate::ops::quantiles::Quantiles;
use crate::ops::room_limit::{DiskSpace, DiskSpaces};
use crate::protocol::SessionEntry;
use crate::server::{Server, Stage};

/// Between two snapshots.
const TICK: Duration = Duration::from_secs(1);

/// Who can look at once.
pub(crate) const VIEWERS: usize = 16;

/// Sessions in a snapshot.
const SESSIONS: usize = 200;

/// Where viewers come to look. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotFeed(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    server: Server,
    started: Instant,
    /// The last snapshot.
    now: watch::Sender<Event>,
    history: Mutex<History>,
    places: Arc<Semaphore>,
    /// Somebody has come.
    came: Notify,
}

/// What the server is and does at one moment.
#[derive(Debug, Serialize)]
struct Snapshot<'a> {
    version: &'static str,
    time: Timestamp,
    /// Milliseconds since the start.
    at: u64,
    state: State,
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
enum State {
    Starting,
    Ready,
    Draining,
    /// The disk has failed to keep something.
    Degraded,
}

/// One who looks.
#[derive(Debug)]
pub(crate) struct Viewer {
    pub(crate) now: watch::Receiver<Event>,
    /// What has been so far.
    pub(crate) history: Event,
    /// What is new in the log, where there is one.
    pub(crate) lines: Option<Lines>,
    _place: OwnedSemaphorePermit,
}

impl SnapshotFeed {
    pub(crate) fn new(server: Server) -> Self {
        Self(Arc::new(Shared {
            server,
            started: Instant::now(),
            now: watch::Sender::new(Event::default()),
            history: Mutex::default(),
            places: Arc::new(Semaphore::new(VIEWERS)),
            came: Notify::new(),
        }))
    }

    /// Somebody comes to look, unless there are too many already.
    pub(crate) fn viewer(&self) -> Option<Viewer> {
        let place = Arc::clone(&self.0.places).try_acquire_owned().ok()?;
        let viewer = Viewer {
            now: self.0.now.subscribe(),
            history: event("history", &*self.0.history()),
            lines: self.0.server.tail().map(Lines::of),
            _place: place,
        };
        self.0.came.notify_one();
        Some(viewer)
    }

    /// Takes samples, and snapshots while somebody looks. Never ends.
    pub(crate) async fn keep(&self) {
        let shared = &*self.0;
        let mut rooms = DiskSpaces::default();
        let mut sampling = interval(STEP);
        let mut ticking = interval(TICK);
        for interval in [&mut sampling, &mut ticking] {
            interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
        }
        loop {
            let is_watched = shared.now.receiver_count() > 0;
            tokio::select! {
                _ = sampling.tick() => shared.sample(),
                _ = ticking.tick(), if is_watched => shared.show(&mut rooms),
                // Whoever comes does not wait for the next tick.
                () = shared.came.notified() => {
                    shared.show(&mut rooms);
                    ticking.reset();
                }
            }
        }
    }
}

impl Shared {
    fn sample(&self) {
        let counts = Counts {
            uptime: self.started.elapsed(),
            traffic: self.server.traffic(),
            latency: self.server.latency(),
        };
        let sessions = self.server.session_count();
        self.history().take(counts, sessions);
    }

    fn show(&self, rooms: &mut DiskSpaces) {
        let overview = self.server.overview(SESSIONS);
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
            disk: rooms.look(&self.server.config().server.data),
            latency: history.recent(&self.server.latency()),
            sample: history.latest(),
            list: overview.list,
        };
        let _ = self.now.send_replace(event("now", &snapshot));
    }

    fn state(&self) -> State {
        match self.server.stage() {
            Stage::Draining => State::Draining,
            _ if self.server.is_degraded() => State::Degraded,
            Stage::Starting => State::Starting,
            Stage::Serving => State::Ready,
        }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Made once, for however many viewers.
fn event(name: &str, data: &impl Serialize) -> Event {
    let json = serde_json::to_string(data).expect("it has no keys but texts");
    Event::default().event(name).data(json)
}
