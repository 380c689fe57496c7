//! The two steps of stopping a server.

use tokio_util::sync::CancellationToken;

/// The two steps of stopping a server.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Accept no new session and no new request; running requests may finish.
    pub drain: CancellationToken,
    /// Abort everything that still runs.
    pub stop: CancellationToken,
}
