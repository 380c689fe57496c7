//! The state that all sessions of one server share: the handles to accounts, files and messages, the
//! limiters and counters, and the settings that may change while the server runs. The components
//! import nothing of this file; they take the parts that they need.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tracing::info;

use crate::accounts::Accounts;
use crate::config::Config;
use crate::messages::Messages;
use crate::protocol::{CommandInfo, ReloadReply};
use crate::server::accept::connection_limiter::ConnectionLimiter;
use crate::server::accept::refusal_logs::RefusalLogs;
use crate::server::authority::Authorities;
use crate::server::disk::DiskScheduler;
use crate::server::limits::login_queue::LoginQueue;
use crate::server::limits::login_throttle::LoginThrottle;
use crate::server::limits::message_rate::MessageRateLimiter;
use crate::server::limits::request_lines::RequestLines;
use crate::server::metrics::ServerMetrics;
use crate::server::session::registry::SessionRegistry;
use crate::server::transfer::bandwidth::Bandwidths;
use crate::server::transfer::live_uploads::LiveUploads;
use crate::server::transfer::progress::TrafficCounters;
use crate::server::udp::DatagramService;
use crate::storage::Store;
use crate::telemetry::{AUDIT, AuditPermits, LogLevelHandle, Tail, TelemetryError};

/// The name and version of the server, as clients see it.
pub const SERVER_VERSION: &str = concat!("haul/", env!("CARGO_PKG_VERSION"));

/// The state that all sessions share.
#[derive(Debug)]
pub(crate) struct ServerState {
    pub(crate) accounts: Accounts,
    pub(crate) authorities: Arc<Authorities>,
    pub(crate) store: Store,
    pub(crate) messages: Messages,
    pub(crate) config: watch::Sender<Arc<Config>>,
    /// Open connections, in total, by address and by user.
    pub(crate) connection_limiter: Arc<ConnectionLimiter>,
    /// Logins whose password is being hashed or waits for that.
    pub(crate) logins: LoginQueue,
    /// Back-off after failed logins.
    pub(crate) login_throttle: LoginThrottle,
    /// Messages of each user per second.
    pub(crate) message_rate: MessageRateLimiter,
    pub(crate) refusal_logs: RefusalLogs,
    /// Log lines about requests, by user.
    pub(crate) request_lines: RequestLines,
    pub(crate) disks: DiskScheduler,
    /// File descriptors that connections may use.
    pub(crate) sockets: usize,
    /// The uploads of all sessions that run now.
    pub(crate) live_uploads: Arc<LiveUploads>,
    pub(crate) sessions: Arc<SessionRegistry>,
    pub(crate) traffic: Arc<TrafficCounters>,
    /// Unset if the server runs within another program, which has the log.
    pub(crate) log: OnceLock<ServerLog>,
    /// Unset if the server runs within another program, which has the settings.
    pub(crate) reload: OnceLock<mpsc::Sender<ReloadRequest>>,
    pub(crate) metrics: ServerMetrics,
    pub(crate) bandwidths: Bandwidths,
    pub(crate) datagrams: Arc<DatagramService>,
    /// The drain timeout that an operator gave when they stopped the server; overrides the setting.
    pub(crate) drain_within: OnceLock<Duration>,
    /// The certificate for new connections; `None` until it is loaded.
    pub(crate) tls: watch::Sender<Option<crate::server::accept::tls::TlsIdentity>>,
}

impl ServerState {
    /// The current settings. Do not keep them for longer than one step of the work.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.borrow().clone()
    }

    /// Sets the drain timeout for the coming stop; the first call counts.
    pub(crate) fn operator_drain_timeout(&self, patience: Duration) {
        let _ = self.drain_within.set(patience);
    }

    /// How long running requests may continue once the server stops.
    pub(crate) fn drain_timeout(&self) -> Duration {
        let told = self.drain_within.get().copied();
        told.unwrap_or_else(|| self.config().limits.drain_timeout)
    }

    /// Waits, before an audited command starts, until the audit log has capacity for its line.
    pub(crate) async fn wait_for_audit(&self, command: &CommandInfo) {
        if command.is_audited
            && let Some(log) = self.log.get()
        {
            log.audit.wait().await;
        }
    }

    /// The greatest number of open connections.
    pub(crate) fn max_connections(&self) -> usize {
        self.config().limits.sessions.min(self.sockets)
    }

    /// The TLS configuration of a new connection; `None` if the server has no certificate.
    pub(crate) fn tls_config(&self) -> Option<Arc<ServerConfig>> {
        let identity = self.tls.borrow();
        identity
            .as_ref()
            .map(crate::server::accept::tls::TlsIdentity::config)
    }
}

/// Access to the log of the process.
#[derive(Debug)]
pub(crate) struct ServerLog {
    pub(crate) tail: Tail,
    pub(crate) level: LogLevelHandle,
    pub(crate) audit: AuditPermits,
    /// The task that resets the level, if one is pending.
    pub(crate) pending_reset: Mutex<Option<AbortHandle>>,
}

impl ServerLog {
    /// Sets the log level to `level`, until `back` resolves to another level. An earlier pending reset
    /// is cancelled.
    pub(crate) fn set_level(
        &self,
        level: &str,
        back: Option<impl Future<Output = String> + Send + 'static>,
    ) -> Result<(), TelemetryError> {
        let mut pending_reset = self.pending_reset.lock();
        let change = self.level.set(level)?;
        if let Some(before) = pending_reset.take() {
            before.abort();
        }
        if let Some(back) = back {
            let current = self.level.clone();
            let task = tokio::spawn(async move {
                let level = back.await;
                if current.set_unless_changed(&level, change) {
                    info!(name: "log_level_back", target: AUDIT, level, "the log level is that of the setting again");
                }
            });
            *pending_reset = Some(task.abort_handle());
        }
        Ok(())
    }
}

/// An operator's request to read the settings again.
#[derive(Debug)]
pub struct ReloadRequest {
    /// Only report what would change.
    pub dry_run: bool,
    /// Takes the reply.
    pub reply: oneshot::Sender<ReloadReply>,
}
