//! The checkpoint of an upload that runs while more data is written.

use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::server::disk::UserDisk;
use crate::server::error::CommandError;
use crate::storage::Checkpoint;

/// The checkpoint that runs while more data is written, if one does.
#[derive(Debug, Default)]
pub(crate) struct RunningCheckpoint(Option<JoinHandle<Result<(), CommandError>>>);

impl RunningCheckpoint {
    /// Starts a checkpoint. One runs at a time.
    pub(crate) fn start(&mut self, checkpoint: Checkpoint, disk: &UserDisk) {
        let disk = disk.clone();
        let work = async move { disk.run(move || checkpoint.run()).await };
        self.0 = Some(tokio::spawn(work.in_current_span()));
    }

    /// Resolves when the running checkpoint ends; never if none runs.
    pub(crate) async fn done(&mut self) -> Result<(), CommandError> {
        let Some(task) = &mut self.0 else {
            return std::future::pending().await;
        };
        let done = task.await;
        self.0 = None;
        done.unwrap_or(Err(CommandError::Internal))
    }

    /// Waits for the running checkpoint.
    pub(crate) async fn wait(&mut self) -> Result<(), CommandError> {
        match self.0 {
            Some(_) => self.done().await,
            None => Ok(()),
        }
    }
}
