//! Blocking work on the threads of the runtime.

use tokio::task::{JoinError, spawn_blocking};

use crate::client::ClientError;

/// Runs work that may wait for a disk on a blocking thread.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ClientError> + Send + 'static,
) -> Result<T, ClientError> {
    joined(spawn_blocking(work).await)
}

pub(crate) fn joined<T>(
    outcome: Result<Result<T, ClientError>, JoinError>,
) -> Result<T, ClientError> {
    match outcome.map_err(JoinError::try_into_panic) {
        Ok(outcome) => outcome,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime is shutting down.
        Err(Err(_)) => Err(ClientError::TransferEnded),
    }
}
