//! The two steps of stopping a server.

use tokio_util::sync::CancellationToken;

/// The two steps of stopping a server.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// No new session and no new request; what runs may end.
    pub drain: CancellationToken,
    /// Everything ends now.
    pub stop: CancellationToken,
}
