//! The server: it accepts connections, runs a session on each, and executes the commands of users.
//!
//! ```text
//! accept ─► session ─► commands ─► storage (on the threads of disk)
//!   │         │ ▲          │
//!   │         │ └─ replies ┘        transfer: uploads and downloads of a session
//!   │         └─► outbox ─► writer ─► socket
//!   └─► classic: translates the classic dialect to frames in front of a session
//! udp ─► commands (who and say, by datagram)
//! ```
//!
//! `state` holds what all sessions share; `authority` keeps the rights of connected users up to date;
//! `limits` and `metrics` are counters without I/O. Each connection has one task for its session and one
//! for its writer. Commands return values; only the outbox of a session writes to its socket.

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
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
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
pub use crate::server::metrics::ServerStage;
pub use crate::server::metrics::commands::{CommandCounts, LatencyHistogram};
pub use crate::server::metrics::figures::{QueueFigures, ServerFigures};
pub use crate::server::metrics::logins::LoginMethod;
pub use crate::server::session::peer::Peer;
pub use crate::server::session::registry::SessionOverview;
pub use crate::server::shutdown::Shutdown;
pub use crate::server::state::{ReloadRequest, SERVER_VERSION};
pub use crate::server::udp::bind;

use crate::server::state::{ServerLog, ServerState};

use crate::accounts::Accounts;
use crate::config::{Config, ReloadedConfig};
use crate::messages::Messages;
use crate::protocol::SessionEntry;
use crate::server::accept::connection_limiter::ConnectionPermit;
use crate::server::accept::refusal_logs::RefusalLogs;
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
use crate::storage::Store;
use crate::telemetry::{AuditPermits, LogLevelHandle, Tail};

/// How long the messages may take to be stored after all sessions have ended.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1);

/// A server, ready to run. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Server {
    state: Arc<ServerState>,
}

impl Server {
    /// Creates a server for these accounts, files and messages.
    #[must_use]
    pub fn new(accounts: Accounts, store: Store, messages: Messages, config: Config) -> Self {
        store.set(housekeeping::store_settings(&config));
        store.count_in_background();
        change_events::forward_changes(&store, &messages);
        let limits = &config.limits;
        let hashing = match limits.hashing {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            limit => limit,
        };
        let descriptors =
            DescriptorBudget::from_process_limit(limits.sessions, limits.disk_threads);
        if descriptors.sockets < limits.sessions {
            warn!(
                name: "open_files_few",
                sessions = limits.sessions,
                connections = descriptors.sockets,
                "the limit of open files is too low for limits.sessions; fewer connections are accepted"
            );
        }
        let disks = DiskScheduler::new(limits.disk_threads, hashing, descriptors);
        let authorities = Authorities::new(accounts.clone(), store.clone(), disks.clone());
        Self {
            state: Arc::new(ServerState {
                accounts,
                authorities: Arc::new(authorities),
                store,
                messages,
                connection_limiter: Arc::default(),
                logins: LoginQueue::default(),
                login_throttle: LoginThrottle::default(),
                message_rate: MessageRateLimiter::default(),
                refusal_logs: RefusalLogs::default(),
                request_lines: RequestLines::default(),
                disks,
                sockets: descriptors.sockets,
                live_uploads: Arc::default(),
                sessions: Arc::default(),
                traffic: Arc::default(),
                log: OnceLock::new(),
                reload: OnceLock::new(),
                metrics: ServerMetrics::default(),
                bandwidths: Bandwidths::default(),
                datagrams: Arc::default(),
                drain_within: OnceLock::new(),
                config: watch::Sender::new(Arc::new(config)),
                tls: watch::Sender::new(None),
            }),
        }
    }

    /// Also receives datagrams while it runs, on a socket with the port of the listener: see [`bind`].
    #[must_use]
    pub fn with_datagrams(self, socket: UdpSocket) -> Self {
        self.state.datagrams.set_socket(socket);
        self
    }

    /// Lets operators follow the log and change its level. Audited requests wait while the audit has no
    /// capacity.
    #[must_use]
    pub fn with_log(self, tail: Tail, level: LogLevelHandle, audit: AuditPermits) -> Self {
        let _ = self.state.log.set(ServerLog {
            tail,
            level,
            audit,
            pending_reset: Mutex::default(),
        });
        self
    }

    /// Lets operators request a reload of the settings; `requests` takes these requests.
    #[must_use]
    pub fn with_reload(self, requests: mpsc::Sender<ReloadRequest>) -> Self {
        let _ = self.state.reload.set(requests);
        self
    }

    /// Datagrams since the start that were dropped: malformed ones, forged ones, repetitions with other
    /// content, and those without a valid ticket.
    #[must_use]
    pub fn dropped_datagrams(&self) -> u64 {
        self.state.datagrams.dropped()
    }

    /// Loads the certificate that the settings name, or that of the data directory, which is created if
    /// it is missing. New connections use it. Before the first successful call the server refuses TLS.
    ///
    /// # Errors
    /// [`TlsError`] if it cannot be used, or has expired and would replace another one. The current
    /// certificate stays in use.
    ///
    /// # Panics
    /// If the thread that reads it panics.
    pub async fn reload_tls(&self) -> Result<ServerCertificate, TlsError> {
        let config = self.state.config();
        let loading = spawn_blocking(move || {
            accept::tls::TlsIdentity::load(&config.tls, &config.server.data)
        });
        let mut identity = loading.await.expect("reading does not panic")?;
        if self.state.tls.borrow().is_some() {
            identity = identity.unexpired(Timestamp::now())?;
        }
        let certificate = identity.certificate.clone();
        certificate.log();
        self.state.tls.send_replace(Some(identity));
        Ok(certificate)
    }

    /// Accepts connections until `shutdown`, then drains: each session gets a goodbye event and may
    /// finish its transfers within the drain timeout. Returns when the last session has ended.
    pub async fn run(&self, listener: TcpListener, shutdown: CancellationToken) {
        let shutdown = Shutdown {
            drain: shutdown,
            stop: CancellationToken::new(),
        };
        self.run_until(listener, shutdown).await;
    }

    /// As [`Self::run`], but the caller controls both steps of the shutdown: `stop` aborts everything
    /// that still runs. The server cancels `stop` itself at the end of the drain timeout.
    pub async fn run_until(&self, listener: TcpListener, shutdown: Shutdown) {
        self.state.metrics.set_serving(&shutdown);
        tokio::select! {
            () = udp::run(&self.state, &shutdown) => {}
            () = accept::listener::run(&self.state, listener, shutdown.clone()) => {}
            () = housekeeping::expire_periodically(&self.state) => {}
            () = housekeeping::delete_leftovers(&self.state) => {}
            () = housekeeping::update_message_budget(&self.state) => {}
        }
        // Messages of the last sessions may still wait to be stored.
        let _ = timeout(SETTLE_TIMEOUT, self.state.messages.flush()).await;
    }

    /// Applies those settings of `new` that can change at run time.
    #[must_use = "it tells which settings were not applied"]
    pub fn reload(&self, new: &Config) -> ReloadedConfig {
        let reload = self.config().reloaded(new);
        let config = Arc::new(reload.config.clone());
        self.state.config.send_replace(config);
        reload
    }

    /// How long running requests may continue once the server stops: the operator's value if they gave
    /// one, else the setting.
    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        self.state.drain_timeout()
    }

    /// Up to `limit` sessions with a login, the oldest login first, with their running requests.
    #[must_use]
    pub fn sessions(&self, limit: usize) -> Vec<SessionEntry> {
        let entries = self.state.sessions.entries(None, limit).into_iter();
        entries.map(|(_, entry)| entry).collect()
    }

    /// The latest lines of the log, if the server has it.
    #[must_use]
    pub fn tail(&self) -> Option<Tail> {
        self.state.log.get().map(|log| log.tail.clone())
    }

    /// A summary of all sessions, with up to `limit` of them, those with transfers first.
    #[must_use]
    pub fn overview(&self, limit: usize) -> SessionOverview {
        self.state.sessions.overview(limit)
    }

    /// The number of sessions with a login.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.state.sessions.count()
    }

    /// File bytes since the start: received from clients, and sent to them. Running transfers count.
    #[must_use]
    pub fn traffic(&self) -> (u64, u64) {
        let TrafficCounters { received, sent, .. } = &*self.state.traffic;
        (
            received.load(Ordering::Relaxed),
            sent.load(Ordering::Relaxed),
        )
    }

    /// The durations of commands since the start, from the read of the request to the creation of its
    /// reply, successful or not. Commands whose duration depends on the size of a file or on the client
    /// are left out: `get`, `put`, `hash`, `cp` and `logs`.
    #[must_use]
    pub fn latency(&self) -> LatencyHistogram {
        self.state.metrics.latency()
    }

    /// The outcomes of each command since the start.
    #[must_use]
    pub fn commands(&self) -> Vec<CommandCounts> {
        self.state.metrics.commands()
    }

    /// The current figures of the server. Accesses neither the disk nor the database, and never waits.
    #[must_use]
    pub fn figures(&self) -> ServerFigures {
        ServerFigures::collect(&self.state)
    }

    /// Whether the server is starting, serving or draining.
    #[must_use]
    pub fn stage(&self) -> ServerStage {
        self.state.metrics.stage()
    }

    /// The store of files.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.state.store
    }

    /// The store of messages.
    pub(crate) fn messages(&self) -> &Messages {
        &self.state.messages
    }

    /// Whether the disk has failed to store something since the start. Acknowledged data is safe, but an
    /// operator should check the disk.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.state.store.is_degraded()
    }

    /// Reads the rights of all connected users again, and resolves once they are in force. The server
    /// does so automatically within two seconds of any change to the accounts.
    ///
    /// # Errors
    /// Errors of the database and the disk. Users whose rights could not be read are suspended.
    pub async fn refresh_access(&self) -> Result<(), CommandError> {
        self.state.authorities.refresh().await
    }

    /// Whether the accounts can be read. While they cannot, requests of users are refused.
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
        let permit = Box::new(ConnectionPermit::unlimited());
        accept::connection::serve(&self.state, reader, writer.into(), peer, permit, shutdown).await;
    }
}
