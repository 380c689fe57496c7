//! Whole trees: many files and directories at once, both ways.
//!
//! Files are moved side by side, a bounded number of them, so that thousands of small ones do not
//! wait for each other's answers. What fails is told and the rest goes on, unless the rest would
//! fail in the same way.

mod down;
mod local_target;
mod small_down;
mod small_up;
mod up;

use std::path::PathBuf;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;

use crate::client::{ClientError, Progress};
use crate::protocol::Digest;

/// Files that are opened, moved and finished at the same time.
const IN_FLIGHT: usize = 32;

/// The result for one file or directory, reported as it happens.
#[derive(Debug)]
#[non_exhaustive]
pub enum TreeEvent {
    /// A file was moved, and both sides agree on it.
    Moved {
        /// Its path on the server.
        remote: String,
        /// Its path here.
        local: PathBuf,
        /// Its bytes.
        size: u64,
        /// Its digest.
        digest: Option<Digest>,
    },
    /// Something that is neither file nor directory, or leads back, was left out.
    Skipped {
        /// Where it is.
        path: String,
        /// Why.
        why: &'static str,
    },
    /// A file or directory could not be moved; the others go on.
    Failed {
        /// Where it is.
        path: String,
        /// Why.
        error: ClientError,
    },
}

/// The result for all entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TreeSummary {
    /// Files moved.
    pub files: u64,
    /// Directories made or found on the receiving side.
    pub directories: u64,
    /// Bytes of the files moved.
    pub bytes: u64,
    /// Entries that were left out.
    pub skipped: u64,
    /// Entries that failed.
    pub failed: u64,
}

/// The state that both directions keep while they run.
struct TreeJob<Step> {
    progress: Progress,
    notes: mpsc::Sender<TreeEvent>,
    summary: TreeSummary,
    running: FuturesUnordered<BoxFuture<'static, Step>>,
}

impl<Step> TreeJob<Step> {
    fn new(progress: &Progress, notes: mpsc::Sender<TreeEvent>) -> Self {
        Self {
            progress: progress.clone(),
            notes,
            summary: TreeSummary::default(),
            running: FuturesUnordered::new(),
        }
    }

    async fn moved(&mut self, remote: String, local: PathBuf, size: u64, digest: Option<Digest>) {
        self.summary.files += 1;
        self.summary.bytes += size;
        self.report(TreeEvent::Moved {
            remote,
            local,
            size,
            digest,
        })
        .await;
    }

    async fn skipped(&mut self, path: String, why: &'static str) {
        self.summary.skipped += 1;
        self.report(TreeEvent::Skipped { path, why }).await;
    }

    /// Notes the failure, or returns it if it ends the job.
    async fn failed(&mut self, path: String, error: ClientError) -> Result<(), ClientError> {
        if error.ends_everything() {
            return Err(error);
        }
        self.summary.failed += 1;
        self.report(TreeEvent::Failed { path, error }).await;
        Ok(())
    }

    /// Not by a shared reference: what runs is no `Sync`, and the whole job is to be `Send`.
    async fn report(&mut self, note: TreeEvent) {
        // Nobody has to listen.
        let _ = self.notes.send(note).await;
    }
}

/// The path of `name` in the directory `path`.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() || path.ends_with('/') {
        format!("{path}{name}")
    } else {
        format!("{path}/{name}")
    }
}

#[cfg(test)]
mod tests;
