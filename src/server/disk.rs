//! The one way from the async threads to the disk.

use tokio::task::spawn_blocking;

use super::CommandError;
use crate::storage::StorageError;

/// Runs `work` on a thread that may block. The runtime bounds how many of them there are.
///
/// If the future is dropped the work still runs to its end; what it returns is then dropped on
/// its own thread.
pub(super) async fn blocking<T, F>(work: F) -> Result<T, CommandError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, StorageError> + Send + 'static,
{
    match spawn_blocking(work).await {
        Ok(result) => result.map_err(CommandError::Storage),
        Err(error) if error.is_cancelled() => Err(CommandError::ShuttingDown),
        Err(_) => Err(CommandError::Panicked),
    }
}
