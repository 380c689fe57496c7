//! One output of the log.

use std::io::Write;

use crate::telemetry::error::TelemetryError;
use crate::telemetry::queue::{LineQueue, MAX_WAITING_BYTES, QueueGuard};

/// One output of the log, with its own thread.
#[derive(Debug)]
pub(super) struct LogOutput {
    pub(super) queue: LineQueue,
    /// Dropping it writes the queued lines, within a second.
    pub(super) guard: Option<QueueGuard>,
}

impl LogOutput {
    pub(super) fn new(
        writer: impl Write + Send + 'static,
        keeps_audit: bool,
    ) -> Result<Self, TelemetryError> {
        Self::with_queue(writer, MAX_WAITING_BYTES, keeps_audit)
    }

    pub(super) fn with_queue(
        writer: impl Write + Send + 'static,
        bytes: usize,
        keeps_audit: bool,
    ) -> Result<Self, TelemetryError> {
        let started = LineQueue::start(writer, bytes, keeps_audit);
        let (queue, guard) = started.map_err(TelemetryError::Thread)?;
        Ok(Self {
            queue,
            guard: Some(guard),
        })
    }
}
