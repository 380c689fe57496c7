//! What all sessions of one server share.

use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tracing::info;

use crate::accounts::Accounts;
use crate::config::Config;
use crate::messages::Messages;
use crate::protocol::ReloadReply;
use crate::server::accept::admission::RefusalLogs;
use crate::server::accept::connection_limiter::ConnectionLimiter;
use crate::server::authority::Authorities;
use crate::server::disk::DiskScheduler;
use crate::server::limits::login_queue::LoginQueue;
use crate::server::limits::login_throttle::LoginThrottle;
use crate::server::limits::message_rate::MessageRateLimiter;
use crate::server::limits::request_lines::RequestLines;
use crate::server::metrics::ServerMetrics;
use crate::server::session::registry::SessionRegistry;
use crate::server::transfer::bandwidth::Bandwidths;
use crate::server::transfer::progress::TrafficCounters;
use crate::server::transfer::upload_registry::UploadRegistry;
use crate::server::udp::DatagramService;
use crate::storage::Store;
use crate::telemetry::{AUDIT, AuditPermits, Level, Tail, TelemetryError};

/// Name and version, as clients see it.
pub const SERVER: &str = concat!("haul/", env!("CARGO_PKG_VERSION"));

/// What all sessions share.
#[derive(Debug)]
pub(crate) struct ServerState {
    pub(crate) accounts: Accounts,
    pub(crate) authorities: Authorities,
    pub(crate) store: Store,
    pub(crate) messages: Messages,
    pub(crate) config: watch::Sender<Arc<Config>>,
    /// Who is in.
    pub(crate) connection_limiter: Arc<ConnectionLimiter>,
    /// Logins that wait for their password to be hashed.
    pub(crate) logins: LoginQueue,
    /// Logins that failed.
    pub(crate) login_throttle: LoginThrottle,
    /// How much everyone says.
    pub(crate) message_rate: MessageRateLimiter,
    pub(crate) refusals: RefusalLogs,
    /// How much is logged about requests.
    pub(crate) request_lines: RequestLines,
    pub(crate) disks: DiskScheduler,
    /// Descriptors that connections may take.
    pub(crate) sockets: usize,
    pub(crate) uploads: Arc<UploadRegistry>,
    pub(crate) sessions: Arc<SessionRegistry>,
    pub(crate) traffic: Arc<TrafficCounters>,
    /// Absent where another program has the log.
    pub(crate) log: OnceLock<ServerLog>,
    /// Absent where another program has the settings.
    pub(crate) reload: OnceLock<mpsc::Sender<ReloadRequest>>,
    pub(crate) metrics: ServerMetrics,
    pub(crate) bandwidths: Bandwidths,
    pub(crate) datagrams: DatagramService,
    /// How long an operator lets run what runs when the server stops, rather than the setting.
    pub(crate) drain_within: OnceLock<Duration>,
    /// What new connections are encrypted with; nothing until it was loaded.
    pub(crate) tls: watch::Sender<Option<crate::server::accept::tls::Identity>>,
}

impl ServerState {
    /// The settings as they are now: not to be kept for longer than one step of the work.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.borrow().clone()
    }

    /// From the next moment the server stops with this patience; the first one who says so counts.
    pub(crate) fn drain_within(&self, patience: Duration) {
        let _ = self.drain_within.set(patience);
    }

    /// How long what runs may go on once the server stops.
    pub(crate) fn drain_timeout(&self) -> Duration {
        let told = self.drain_within.get().copied();
        told.unwrap_or_else(|| self.config().limits.drain_timeout)
    }

    /// Waits until the audit has room for what is about to be done.
    pub(crate) async fn audit_room(&self) {
        if let Some(log) = self.log.get() {
            log.audit.wait().await;
        }
    }

    /// Connections that there may be at once.
    pub(crate) fn most_connections(&self) -> usize {
        self.config().limits.sessions.min(self.sockets)
    }

    /// What a connection that begins now is encrypted with.
    pub(crate) fn tls_config(&self) -> Option<Arc<ServerConfig>> {
        let identity = self.tls.borrow();
        identity
            .as_ref()
            .map(crate::server::accept::tls::Identity::config)
    }
}

/// The log of the process.
#[derive(Debug)]
pub(crate) struct ServerLog {
    pub(crate) tail: Tail,
    pub(crate) level: Level,
    pub(crate) audit: AuditPermits,
    /// What puts the level back; there is one at most.
    pub(crate) going_back: Mutex<Option<AbortHandle>>,
}

impl ServerLog {
    /// Logs what `level` says, until `back` says what to log instead; what an earlier change was to
    /// go back to is forgotten.
    pub(crate) fn change(
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
pub struct ReloadRequest {
    /// Only to know what would change.
    pub dry_run: bool,
    /// Where the answer goes.
    pub reply: oneshot::Sender<ReloadReply>,
}
