//! What a server counts of itself, for its operators.
//!
//! Counting is adding to numbers that are there from the start: nothing that clients send makes
//! more of them.

pub(crate) mod commands;
pub(crate) mod figures;
pub(crate) mod logins;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;

use crate::protocol::{ErrorCode, SayReply};
use crate::server::metrics::commands::Commands;
pub(crate) use crate::server::metrics::commands::Counted;
pub(crate) use crate::server::metrics::commands::{CommandCounts, Latency};
pub(crate) use crate::server::metrics::logins::LoginMethod;
use crate::server::metrics::logins::Logins;
use crate::server::shutdown::Shutdown;

/// What a server counts of itself.
#[derive(Debug)]
pub(crate) struct ServerMetrics {
    started: Timestamp,
    commands: Commands,
    logins: Logins,
    /// Messages that were stored.
    said: AtomicU64,
    /// Sessions that were told of one at once.
    delivered: AtomicU64,
    /// Set when the server begins to take connections.
    shutdown: OnceLock<Shutdown>,
}

/// How far a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It takes no connections yet.
    Starting,
    /// It takes connections.
    Serving,
    /// It takes no more, and lets the sessions end.
    Draining,
}

impl Default for ServerMetrics {
    fn default() -> Self {
        Self {
            started: Timestamp::now(),
            commands: Commands::default(),
            logins: Logins::default(),
            said: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            shutdown: OnceLock::new(),
        }
    }
}

impl ServerMetrics {
    /// Where the command of that name is counted.
    pub(crate) fn command(&self, cmd: &str) -> Arc<Counted> {
        self.commands.of(cmd)
    }

    /// What was counted of each command, in the order of their names.
    pub(crate) fn commands(&self) -> Vec<CommandCounts> {
        self.commands.counts()
    }

    /// See [`Server::latency`](crate::server::Server::latency).
    pub(crate) fn latency(&self) -> Latency {
        self.commands.latency()
    }

    /// A login has ended, with that code unless it succeeded.
    pub(crate) fn login_ended(&self, how: LoginMethod, code: Option<ErrorCode>) {
        self.logins.ended(how, code);
    }

    /// A message was stored.
    pub(crate) fn said(&self, reply: &SayReply) {
        self.said.fetch_add(1, Ordering::Relaxed);
        let delivered = u64::from(reply.delivered);
        self.delivered.fetch_add(delivered, Ordering::Relaxed);
    }

    /// Connections are taken from now on, until `shutdown`.
    pub(crate) fn serves_until(&self, shutdown: &Shutdown) {
        let _ = self.shutdown.set(shutdown.clone());
    }

    /// How far the server is.
    pub(crate) fn stage(&self) -> Stage {
        match self.shutdown.get() {
            None => Stage::Starting,
            Some(shutdown) if shutdown.drain.is_cancelled() => Stage::Draining,
            Some(_) => Stage::Serving,
        }
    }
}
