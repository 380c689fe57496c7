//! The time that a peer has to receive what is written to it.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, timeout};

/// The bytes that a peer must receive within each write timeout. A frame may be a megabyte, which a peer
/// on a slow line receives in more time than a frame of a few bytes may take.
const TIMED_BYTES: u64 = 64 * 1024;

/// The time that one peer has left. Only waiting for the peer counts, not waiting for a disk.
#[derive(Debug)]
pub(super) struct WriteDeadline {
    timeout: Duration,
    waited: Duration,
    /// Bytes that the peer received since the last renewal.
    received: u64,
}

impl WriteDeadline {
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            waited: Duration::ZERO,
            received: 0,
        }
    }

    /// Renews the time whenever the peer has received [`TIMED_BYTES`].
    pub(super) fn add_received(&mut self, bytes: u64) {
        self.received += bytes;
        if self.received >= TIMED_BYTES {
            self.received = 0;
            self.waited = Duration::ZERO;
        }
    }

    /// Waits for the peer.
    ///
    /// # Errors
    /// That of `waiting`; [`io::ErrorKind::TimedOut`] if it takes longer than is left.
    pub(super) async fn wait<T>(
        &mut self,
        waiting: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let started = Instant::now();
        let left = self.timeout.saturating_sub(self.waited);
        let outcome = timeout(left, waiting).await?;
        self.waited += started.elapsed();
        outcome
    }
}
