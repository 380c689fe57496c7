//! Counters of the server, for its operators.
//!
//! All counters exist from the start, so clients cannot create more. Counting is one atomic addition.

pub(crate) mod commands;
pub(crate) mod figures;
pub(crate) mod logins;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;

use crate::protocol::{ErrorCode, SayReply};
pub(crate) use crate::server::metrics::commands::CommandCounter;
use crate::server::metrics::commands::CommandCounters;
pub(crate) use crate::server::metrics::commands::{CommandCounts, LatencyHistogram};
use crate::server::metrics::logins::LoginCounters;
pub(crate) use crate::server::metrics::logins::LoginMethod;
use crate::server::shutdown::Shutdown;

/// The counters of a server.
#[derive(Debug)]
pub(crate) struct ServerMetrics {
    started: Timestamp,
    commands: CommandCounters,
    logins: LoginCounters,
    /// Messages that were stored.
    said: AtomicU64,
    /// Sessions that a message was delivered to immediately, summed over all messages.
    delivered: AtomicU64,
    /// Set when the server starts to accept connections.
    shutdown: OnceLock<Shutdown>,
}

/// The stage of a server's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerStage {
    /// It does not accept connections yet.
    Starting,
    /// It accepts connections.
    Serving,
    /// It accepts no more connections, and waits for the sessions to end.
    Draining,
}

impl Default for ServerMetrics {
    fn default() -> Self {
        Self {
            started: Timestamp::now(),
            commands: CommandCounters::default(),
            logins: LoginCounters::default(),
            said: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            shutdown: OnceLock::new(),
        }
    }
}

impl ServerMetrics {
    /// The counter of a command.
    pub(crate) fn command_counter(&self, cmd: &str) -> Arc<CommandCounter> {
        self.commands.counter(cmd)
    }

    /// The counts of all commands, ordered by name.
    pub(crate) fn commands(&self) -> Vec<CommandCounts> {
        self.commands.counts()
    }

    /// See [`Server::latency`](crate::server::Server::latency).
    pub(crate) fn latency(&self) -> LatencyHistogram {
        self.commands.latency()
    }

    /// Counts a login, with its error code unless it succeeded.
    pub(crate) fn record_login(&self, how: LoginMethod, code: Option<ErrorCode>) {
        self.logins.record(how, code);
    }

    /// Counts a stored message.
    pub(crate) fn record_message(&self, reply: &SayReply) {
        self.said.fetch_add(1, Ordering::Relaxed);
        let delivered = u64::from(reply.delivered);
        self.delivered.fetch_add(delivered, Ordering::Relaxed);
    }

    /// Records that connections are accepted from now on, until `shutdown`.
    pub(crate) fn set_serving(&self, shutdown: &Shutdown) {
        let _ = self.shutdown.set(shutdown.clone());
    }

    /// The current stage.
    pub(crate) fn stage(&self) -> ServerStage {
        match self.shutdown.get() {
            None => ServerStage::Starting,
            Some(shutdown) if shutdown.drain.is_cancelled() => ServerStage::Draining,
            Some(_) => ServerStage::Serving,
        }
    }
}
