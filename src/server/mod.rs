//! The server: a listener, one task per connection, and the commands.
//!
//! ```text
//! listener ─► session ─► commands/x ─► storage (on blocking threads)
//!                │ ▲          │
//!                │ └── values ┘
//!                └─► outbox ─► writer ─► socket
//! ```
//!
//! Commands return values; only the session's outbox reaches the socket.

mod active;
mod arrival;
mod authority;
mod bandwidth;
mod batching;
mod changes;
mod classic;
mod commands;
mod datagrams;
mod disk;
mod dispatch;
mod error;
mod getting;
mod hashing;
mod housekeeping;
mod job;
mod limits;
mod listener;
mod member;
mod metrics;
mod peer;
mod progress;
mod receiving;
mod serve;
mod session;
mod sessions;
mod sniff;
mod tls;
mod transfers;
mod visitor;

use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::datagrams::bind;
pub use self::disk::SERVER_THREADS;
pub use self::error::CommandError;
pub use self::metrics::{CommandCounts, Figures, Latency, LoginMethod, Queues, Stage};
pub use self::peer::Peer;
pub use self::sessions::Overview;
pub use self::tls::{ServerCertificate, TlsError, check_certificate};

use self::active::ActivePuts;
use self::arrival::Refusals;
use self::authority::Authorities;
use self::bandwidth::Bandwidths;
use self::datagrams::Datagrams;
use self::disk::Disks;
use self::limits::{Chatter, DescriptorBudget, Door, Guesses, LoginQueue, RequestLines, Seat};
use self::metrics::Metrics;
use self::progress::Traffic;
use self::sessions::Sessions;
use crate::accounts::Accounts;
use crate::config::{Config, Reload};
use crate::messages::Messages;
use crate::protocol::{ReloadReply, SessionEntry};
use crate::storage::Store;
use crate::telemetry::{AUDIT, AuditRoom, Level, Tail, TelemetryError};

/// Name and version, as clients see it.
pub const SERVER: &str = concat!("haul/", env!("CARGO_PKG_VERSION"));

/// For what is to be kept when all sessions have ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A server, ready to run. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

/// What all sessions share.
#[derive(Debug)]
struct Shared {
    accounts: Accounts,
    authorities: Authorities,
    store: Store,
    messages: Messages,
    config: watch::Sender<Arc<Config>>,
    /// Who is in.
    door: Arc<Door>,
    /// Logins that wait for their password to be hashed.
    logins: LoginQueue,
    /// Logins that failed.
    guesses: Guesses,
    /// How much everyone says.
    chatter: Chatter,
    refusals: Refusals,
    /// How much is logged about requests.
    request_lines: RequestLines,
    disks: Disks,
    /// Descriptors that connections may take.
    sockets: usize,
    puts: Arc<ActivePuts>,
    sessions: Arc<Sessions>,
    traffic: Arc<Traffic>,
    /// Absent where another program has the log.
    log: OnceLock<Log>,
    /// Absent where another program has the settings.
    reload: OnceLock<mpsc::Sender<ReloadAsked>>,
    metrics: Metrics,
    bandwidths: Bandwidths,
    datagrams: Datagrams,
    /// How long an operator lets run what runs when the server stops, rather than the setting.
    drain_within: OnceLock<Duration>,
    /// What new connections are encrypted with; nothing until it was loaded.
    tls: watch::Sender<Option<tls::Identity>>,
}

impl Shared {
    /// The settings as they are now: not to be kept for longer than one step of the work.
    fn config(&self) -> Arc<Config> {
        self.config.borrow().clone()
    }

    /// From the next moment the server stops with this patience; the first one who says so counts.
    fn drain_within(&self, patience: Duration) {
        let _ = self.drain_within.set(patience);
    }

    /// How long what runs may go on once the server stops.
    fn drain_timeout(&self) -> Duration {
        let told = self.drain_within.get().copied();
        told.unwrap_or_else(|| self.config().limits.drain_timeout)
    }

    /// Waits until the audit has room for what is about to be done.
    async fn audit_room(&self) {
        if let Some(log) = self.log.get() {
            log.audit.wait().await;
        }
    }

    /// Connections that there may be at once.
    fn most_connections(&self) -> usize {
        self.config().limits.sessions.min(self.sockets)
    }

    /// What a connection that begins now is encrypted with.
    fn tls_config(&self) -> Option<Arc<ServerConfig>> {
        let identity = self.tls.borrow();
        identity.as_ref().map(tls::Identity::config)
    }
}

/// The log of the process.
#[derive(Debug)]
struct Log {
    tail: Tail,
    level: Level,
    audit: AuditRoom,
    /// What puts the level back; there is one at most.
    going_back: Mutex<Option<AbortHandle>>,
}

impl Log {
    /// Logs what `level` says, until `back` says what to log instead; what an earlier change was to
    /// go back to is forgotten.
    fn change(
        &self,
        level: &str,
        back: Option<impl Future<Output = String> + Send + 'static>,
    ) -> Result<(), TelemetryError> {
        let going_back = self.going_back.lock();
        let mut going_back = going_back.unwrap_or_else(PoisonError::into_inner);
        let change = self.level.set(level)?;
        if let Some(before) = going_back.take() {
            before.abort();
        }
        if let Some(back) = back {
            let current = self.level.clone();
            let task = tokio::spawn(async move {
                let level = back.await;
                if current.set_unless_changed(&level, change) {
                    info!(name: "log_level_back", target: AUDIT, level, "log level back at the setting");
                }
            });
            *going_back = Some(task.abort_handle());
        }
        Ok(())
    }
}

/// An operator wants the settings to be read again.
#[derive(Debug)]
pub struct ReloadAsked {
    /// Only to know what would change.
    pub dry_run: bool,
    /// Where the answer goes.
    pub reply: oneshot::Sender<ReloadReply>,
}

/// The two steps of stopping a server.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// No new session and no new request; what runs may end.
    pub drain: CancellationToken,
    /// Everything ends now.
    pub stop: CancellationToken,
}

impl Server {
    /// A server for these accounts, files and messages.
    #[must_use]
    pub fn new(accounts: Accounts, store: Store, messages: Messages, config: Config) -> Self {
        store.set(housekeeping::settings(&config));
        store.count_in_background();
        changes::tell(&store, &messages);
        let limits = &config.limits;
        let hashing = match limits.hashing {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            most => most,
        };
        let descriptors = DescriptorBudget::of_process(limits.sessions, limits.disk_threads);
        if descriptors.sockets < limits.sessions {
            warn!(
                name: "open_files_few",
                sessions = limits.sessions,
                connections = descriptors.sockets,
                "too few open files for limits.sessions; fewer connections are taken at once"
            );
        }
        Self {
            shared: Arc::new(Shared {
                accounts,
                authorities: Authorities::default(),
                store,
                messages,
                door: Arc::default(),
                logins: LoginQueue::default(),
                guesses: Guesses::default(),
                chatter: Chatter::default(),
                refusals: Refusals::default(),
                request_lines: RequestLines::default(),
                disks: Disks::new(limits.disk_threads, hashing, descriptors),
                sockets: descriptors.sockets,
                puts: Arc::default(),
                sessions: Arc::default(),
                traffic: Arc::default(),
                log: OnceLock::new(),
                reload: OnceLock::new(),
                metrics: Metrics::default(),
                bandwidths: Bandwidths::default(),
                datagrams: Datagrams::default(),
                drain_within: OnceLock::new(),
                config: watch::Sender::new(Arc::new(config)),
                tls: watch::Sender::new(None),
            }),
        }
    }

    /// Takes datagrams, too, through a socket that has the port of the listener: see [`bind`]. They
    /// are taken while it runs.
    #[must_use]
    pub fn with_datagrams(self, socket: UdpSocket) -> Self {
        self.shared.datagrams.speak_through(socket);
        self
    }

    /// Shows its log to operators, and lets them change how much is logged. Nothing that belongs to the
    /// audit is begun while that has no room for it.
    #[must_use]
    pub fn with_log(self, tail: Tail, level: Level, audit: AuditRoom) -> Self {
        let _ = self.shared.log.set(Log {
            tail,
            level,
            audit,
            going_back: Mutex::default(),
        });
        self
    }

    /// Lets operators ask for the settings to be read again, of whoever listens to `asking`.
    #[must_use]
    pub fn with_reload(self, asking: mpsc::Sender<ReloadAsked>) -> Self {
        let _ = self.shared.reload.set(asking);
        self
    }

    /// Datagrams so far that were dropped because they were forged, repeated with another content,
    /// of no good ticket, or of no form that is spoken here.
    #[must_use]
    pub fn dropped_datagrams(&self) -> u64 {
        self.shared.datagrams.dropped()
    }

    /// Reads the certificate that the settings name, or that of the data directory, which is made
    /// if it is missing. Connections that are made from now on see it. Until the first call that
    /// succeeds the server speaks no TLS.
    ///
    /// # Errors
    /// [`TlsError`] if it can not be used, or has expired while another is in use. What was in use
    /// before stays in use.
    ///
    /// # Panics
    /// If the thread that reads it panics.
    pub async fn reload_tls(&self) -> Result<ServerCertificate, TlsError> {
        let config = self.shared.config();
        let loading = spawn_blocking(move || tls::Identity::load(&config.tls, &config.server.data));
        let mut identity = loading.await.expect("reading does not panic")?;
        if self.shared.tls.borrow().is_some() {
            identity = identity.unexpired(Timestamp::now())?;
        }
        let certificate = identity.certificate.clone();
        certificate.log();
        self.shared.tls.send_replace(Some(identity));
        Ok(certificate)
    }

    /// Accepts connections until `shutdown`, then lets the sessions end: each is told goodbye and
    /// may finish its transfers for the configured time. Returns when the last one is gone.
    pub async fn run(&self, listener: TcpListener, shutdown: CancellationToken) {
        let shutdown = Shutdown {
            drain: shutdown,
            stop: CancellationToken::new(),
        };
        self.run_until(listener, shutdown).await;
    }

    /// As [`Self::run`], with both steps of the shutdown in the caller's hand: `stop` cuts off what
    /// still runs. It is cancelled by itself at the end of the time for that.
    pub async fn run_until(&self, listener: TcpListener, shutdown: Shutdown) {
        self.shared.metrics.serves_until(&shutdown);
        tokio::select! {
            () = datagrams::run(&self.shared, &shutdown) => {}
            () = listener::run(self, listener, shutdown.clone()) => {}
            () = housekeeping::run(&self.shared) => {}
            () = housekeeping::delete_left(&self.shared) => {}
            () = housekeeping::watch_disk(&self.shared) => {}
        }
        // What the sessions that have ended left to be kept.
        let _ = timeout(LAST_WORDS, self.shared.messages.settle()).await;
    }

    /// Takes over those settings of `new` that can change while it runs.
    #[must_use = "it says what was not taken over"]
    pub fn reload(&self, new: &Config) -> Reload {
        let reload = self.config().reloaded(new);
        let config = Arc::new(reload.config.clone());
        self.shared.config.send_replace(config);
        reload
    }

    /// How long what runs may go on once the server stops: what the operator has said who stops it,
    /// else the setting.
    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        self.shared.drain_timeout()
    }

    /// Up to `most` sessions of users who have logged in, those first that did so first, and what
    /// each has under way.
    #[must_use]
    pub fn sessions(&self, most: usize) -> Vec<SessionEntry> {
        let entries = self.shared.sessions.entries(None, most).into_iter();
        entries.map(|(_, entry)| entry).collect()
    }

    /// The last lines of the log, if there is one.
    #[must_use]
    pub fn tail(&self) -> Option<Tail> {
        self.shared.log.get().map(|log| log.tail.clone())
    }

    /// All sessions at a glance, with up to `most` of them: first those that move something.
    #[must_use]
    pub fn overview(&self, most: usize) -> Overview {
        self.shared.sessions.overview(most)
    }

    /// How many sessions there are of users who have logged in.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.shared.sessions.count()
    }

    /// Bytes of files since the start that came from clients, and that went to them. What is under
    /// way counts.
    #[must_use]
    pub fn traffic(&self) -> (u64, u64) {
        let Traffic { received, sent, .. } = &*self.shared.traffic;
        (
            received.load(Ordering::Relaxed),
            sent.load(Ordering::Relaxed),
        )
    }

    /// How long commands took since the start, from when the server had read them to when their
    /// answer was made, whether they succeeded or not. Those are left out that take as long as a
    /// file is or as somebody follows: `get`, `put`, `hash`, `cp` and `logs`.
    #[must_use]
    pub fn latency(&self) -> Latency {
        self.shared.metrics.latency()
    }

    /// How often each command was closed since the start, and with which code.
    #[must_use]
    pub fn commands(&self) -> Vec<CommandCounts> {
        self.shared.metrics.commands()
    }

    /// All that the server knows of itself now, without asking a disk or a database: it waits for
    /// nothing, and nothing waits for it.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures::of(&self.shared)
    }

    /// How far the server is.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.shared.metrics.stage()
    }

    /// The files of this server.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// The messages that it serves.
    pub(crate) fn messages(&self) -> &Messages {
        &self.shared.messages
    }

    /// Whether the disk has failed to keep something since the start. What was acknowledged is
    /// safe; the disk wants looking at.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.shared.store.is_degraded()
    }

    /// Reads again what everybody who is connected may do, and resolves once that holds. It happens
    /// by itself, within two seconds of any change to the accounts.
    ///
    /// # Errors
    /// What the database or the disk says. Those who could not be read are refused everything until
    /// they are.
    pub async fn refresh_access(&self) -> Result<(), CommandError> {
        self.shared.authorities.refresh(&self.shared).await
    }

    /// Whether the accounts can be read. While they cannot, what users ask for is refused.
    #[must_use]
    pub fn can_read_accounts(&self) -> bool {
        self.shared.authorities.are_readable()
    }

    /// The settings that are in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.shared.config()
    }

    /// Serves one connection over any byte stream, until either side ends it.
    pub async fn serve<R, W>(&self, reader: R, writer: W, peer: Peer, shutdown: Shutdown)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let seat = Box::new(Seat::apart());
        serve::serve(&self.shared, reader, writer.into(), peer, seat, shutdown).await;
    }
}
