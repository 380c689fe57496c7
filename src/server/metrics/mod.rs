//! What a server counts of itself, for its operators.

mod commands;

use std::sync::Arc;

use self::commands::Commands;
pub(super) use self::commands::Counted;
pub use self::commands::{CommandCounts, Latency};

/// What a server counts of itself.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    commands: Commands,
}

impl Metrics {
    /// Where the command of that name is counted.
    pub(super) fn command(&self, cmd: &str) -> Arc<Counted> {
        self.commands.of(cmd)
    }

    /// What was counted of each command, in the order of their names.
    pub(super) fn commands(&self) -> Vec<CommandCounts> {
        self.commands.counts()
    }

    /// See [`Server::latency`](super::Server::latency).
    pub(super) fn latency(&self) -> Latency {
        self.commands.latency()
    }
}
