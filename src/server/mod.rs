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

pub(crate) mod accept;
pub(crate) mod authority;
pub(crate) mod change_events;
pub(crate) mod classic;
pub(crate) mod commands;
pub(crate) mod disk;
pub(crate) mod error;
pub(crate) mod housekeeping;
pub(crate) mod limits;
pub(crate) mod metrics;
pub(crate) mod session;
pub(crate) mod shutdown;
pub(crate) mod state;
pub(crate) mod transfer;
pub(crate) mod udp;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub use crate::server::accept::tls::{ServerCertificate, TlsError, check_certificate};
pub use crate::server::disk::SERVER_THREADS;
pub use crate::server::error::CommandError;
pub use crate::server::metrics::Stage;
pub use crate::server::metrics::commands::{CommandCounts, Latency};
pub use crate::server::metrics::figures::{Queues, ServerFigures};
pub use crate::server::metrics::logins::LoginMethod;
pub use crate::server::session::peer::Peer;
pub use crate::server::session::registry::SessionOverview;
pub use crate::server::shutdown::Shutdown;
pub use crate::server::state::{ReloadRequest, SERVER};
pub use crate::server::udp::bind;

use crate::server::state::{ServerLog, ServerState};

use crate::accounts::Accounts;
use crate::config::{Config, Reload};
use crate::messages::Messages;
use crate::protocol::SessionEntry;
use crate::server::accept::admission::RefusalLogs;
use crate::server::accept::connection_limiter::ConnectionPermit;
use crate::server::authority::Authorities;
use crate::server::disk::DiskScheduler;
use crate::server::limits::descriptors::DescriptorBudget;
use crate::server::limits::login_queue::LoginQueue;
use crate::server::limits::login_throttle::LoginThrottle;
use crate::server::limits::message_rate::MessageRateLimiter;
use crate::server::limits::request_lines::RequestLines;
use crate::server::metrics::ServerMetrics;
use crate::server::transfer::bandwidth::Bandwidths;
use crate::server::transfer::progress::TrafficCounters;
use crate::server::udp::DatagramService;
use crate::storage::Store;
use crate::telemetry::{AuditPermits, Level, Tail};

/// For what is to be kept when all sessions have ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A server, ready to run. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Server {
    state: Arc<ServerState>,
}

impl Server {
    /// A server for these accounts, files and messages.
    #[must_use]
    pub fn new(accounts: Accounts, store: Store, messages: Messages, config: Config) -> Self {
        store.set(housekeeping::settings(&config));
        store.count_in_background();
        change_events::tell(&store, &messages);
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
            state: Arc::new(ServerState {
                accounts,
                authorities: Authorities::default(),
                store,
                messages,
                connection_limiter: Arc::default(),
                logins: LoginQueue::default(),
                login_throttle: LoginThrottle::default(),
                message_rate: MessageRateLimiter::default(),
                refusals: RefusalLogs::default(),
                request_lines: RequestLines::default(),
                disks: DiskScheduler::new(limits.disk_threads, hashing, descriptors),
                sockets: descriptors.sockets,
                uploads: Arc::default(),
                sessions: Arc::default(),
                traffic: Arc::default(),
                log: OnceLock::new(),
                reload: OnceLock::new(),
                metrics: ServerMetrics::default(),
                bandwidths: Bandwidths::default(),
                datagrams: DatagramService::default(),
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
        self.state.datagrams.speak_through(socket);
        self
    }

    /// Shows its log to operators, and lets them change how much is logged. Nothing that belongs to the
    /// audit is begun while that has no room for it.
    #[must_use]
    pub fn with_log(self, tail: Tail, level: Level, audit: AuditPermits) -> Self {
        let _ = self.state.log.set(ServerLog {
            tail,
            level,
            audit,
            going_back: Mutex::default(),
        });
        self
    }

    /// Lets operators ask for the settings to be read again, of whoever listens to `asking`.
    #[must_use]
    pub fn with_reload(self, asking: mpsc::Sender<ReloadRequest>) -> Self {
        let _ = self.state.reload.set(asking);
        self
    }

    /// Datagrams so far that were dropped because they were forged, repeated with another content,
    /// of no good ticket, or of no form that is spoken here.
    #[must_use]
    pub fn dropped_datagrams(&self) -> u64 {
        self.state.datagrams.dropped()
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
        let config = self.state.config();
        let loading =
            spawn_blocking(move || accept::tls::Identity::load(&config.tls, &config.server.data));
        let mut identity = loading.await.expect("reading does not panic")?;
        if self.state.tls.borrow().is_some() {
            identity = identity.unexpired(Timestamp::now())?;
        }
        let certificate = identity.certificate.clone();
        certificate.log();
        self.state.tls.send_replace(Some(identity));
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
        self.state.metrics.serves_until(&shutdown);
        tokio::select! {
            () = udp::run(&self.state, &shutdown) => {}
            () = accept::listener::run(&self.state, listener, shutdown.clone()) => {}
            () = housekeeping::run(&self.state) => {}
            () = housekeeping::delete_left(&self.state) => {}
            () = housekeeping::watch_disk(&self.state) => {}
        }
        // What the sessions that have ended left to be kept.
        let _ = timeout(LAST_WORDS, self.state.messages.settle()).await;
    }

    /// Takes over those settings of `new` that can change while it runs.
    #[must_use = "it says what was not taken over"]
    pub fn reload(&self, new: &Config) -> Reload {
        let reload = self.config().reloaded(new);
        let config = Arc::new(reload.config.clone());
        self.state.config.send_replace(config);
        reload
    }

    /// How long what runs may go on once the server stops: what the operator has said who stops it,
    /// else the setting.
    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        self.state.drain_timeout()
    }

    /// Up to `most` sessions of users who have logged in, those first that did so first, and what
    /// each has under way.
    #[must_use]
    pub fn sessions(&self, most: usize) -> Vec<SessionEntry> {
        let entries = self.state.sessions.entries(None, most).into_iter();
        entries.map(|(_, entry)| entry).collect()
    }

    /// The last lines of the log, if there is one.
    #[must_use]
    pub fn tail(&self) -> Option<Tail> {
        self.state.log.get().map(|log| log.tail.clone())
    }

    /// All sessions at a glance, with up to `most` of them: first those that move something.
    #[must_use]
    pub fn overview(&self, most: usize) -> SessionOverview {
        self.state.sessions.overview(most)
    }

    /// How many sessions there are of users who have logged in.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.state.sessions.count()
    }

    /// Bytes of files since the start that came from clients, and that went to them. What is under
    /// way counts.
    #[must_use]
    pub fn traffic(&self) -> (u64, u64) {
        let TrafficCounters { received, sent, .. } = &*self.state.traffic;
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
        self.state.metrics.latency()
    }

    /// How often each command was closed since the start, and with which code.
    #[must_use]
    pub fn commands(&self) -> Vec<CommandCounts> {
        self.state.metrics.commands()
    }

    /// All that the server knows of itself now, without asking a disk or a database: it waits for
    /// nothing, and nothing waits for it.
    #[must_use]
    pub fn figures(&self) -> ServerFigures {
        ServerFigures::of(&self.state)
    }

    /// How far the server is.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.state.metrics.stage()
    }

    /// The files of this server.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.state.store
    }

    /// The messages that it serves.
    pub(crate) fn messages(&self) -> &Messages {
        &self.state.messages
    }

    /// Whether the disk has failed to keep something since the start. What was acknowledged is
    /// safe; the disk wants looking at.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.state.store.is_degraded()
    }

    /// Reads again what everybody who is connected may do, and resolves once that holds. It happens
    /// by itself, within two seconds of any change to the accounts.
    ///
    /// # Errors
    /// What the database or the disk says. Those who could not be read are refused everything until
    /// they are.
    pub async fn refresh_access(&self) -> Result<(), CommandError> {
        self.state.authorities.refresh(&self.state).await
    }

    /// Whether the accounts can be read. While they cannot, what users ask for is refused.
    #[must_use]
    pub fn can_read_accounts(&self) -> bool {
        self.state.authorities.are_readable()
    }

    /// The settings that are in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.state.config()
    }

    /// Serves one connection over any byte stream, until either side ends it.
    pub async fn serve<R, W>(&self, reader: R, writer: W, peer: Peer, shutdown: Shutdown)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let seat = Box::new(ConnectionPermit::apart());
        accept::connection::serve(&self.state, reader, writer.into(), peer, seat, shutdown).await;
    }
}
