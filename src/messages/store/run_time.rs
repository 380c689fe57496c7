//! The time that servers have run on a database.

use std::time::Duration;

use crate::clock::Clock;

/// The accumulated run time of all servers that used a database, in short its *uptime*. Ages of
/// events are measured by it, because nobody can set it.
#[derive(Debug, Clone)]
pub(crate) struct RunTime {
    pub(crate) clock: Clock,
    /// The reading of [`Clock::elapsed`] when this server started.
    started: Duration,
    /// The uptime when this server started.
    before: Duration,
}

impl RunTime {
    /// Starts to count at zero.
    pub(crate) fn start(clock: Clock) -> Self {
        Self {
            started: clock.elapsed(),
            before: Duration::ZERO,
            clock,
        }
    }

    /// Adds the uptime of earlier servers.
    pub(crate) fn continue_from(&mut self, before: Duration) {
        self.before = before;
    }

    pub(crate) fn now(&self) -> Duration {
        self.before + self.clock.elapsed().saturating_sub(self.started)
    }
}
