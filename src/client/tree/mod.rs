//! Whole trees: many files and directories at a time, in both directions.
//!
//! `upload` walks local directories and `download` lists remote ones; both pass the files that they
//! find to `transfers`. A failure of one entry is reported and does not affect the others, unless they would
//! fail in the same way.

pub(super) mod direction;
mod directories;
mod download;
pub(super) mod download_request;
mod pipeline;
pub(super) mod transfers;
mod upload;
pub(super) mod upload_request;

use std::path::PathBuf;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;

use crate::client::{ClientError, Progress};
use crate::protocol::Digest;

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
    /// An entry was left out, for example because it is neither a file nor a directory.
    Skipped {
        /// Its path on the side that is read.
        path: String,
        /// The reason.
        why: &'static str,
    },
    /// A file or directory cannot be moved. The others are not affected.
    Failed {
        /// Its path on the side that is read.
        path: String,
        /// The reason.
        error: ClientError,
    },
}

/// The result for all entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TreeSummary {
    /// Files moved.
    pub files: u64,
    /// Directories on the receiving side that were made or existed.
    pub directories: u64,
    /// Bytes of the files moved.
    pub bytes: u64,
    /// Entries that were left out.
    pub skipped: u64,
    /// Entries that failed.
    pub failed: u64,
}

/// The state of a job that both directions have.
struct TreeJob<Step> {
    progress: Progress,
    events: mpsc::Sender<TreeEvent>,
    summary: TreeSummary,
    /// Requests about directories that are outstanding.
    running: FuturesUnordered<BoxFuture<'static, Step>>,
}

impl<Step> TreeJob<Step> {
    fn new(progress: &Progress, events: mpsc::Sender<TreeEvent>) -> Self {
        Self {
            progress: progress.clone(),
            events,
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

    /// Counts and reports the failure, or returns it if it ends the job.
    async fn failed(&mut self, path: String, error: ClientError) -> Result<(), ClientError> {
        if error.ends_everything() {
            return Err(error);
        }
        self.summary.failed += 1;
        self.report(TreeEvent::Failed { path, error }).await;
        Ok(())
    }

    /// Takes `&mut self` because `running` is not `Sync` and the job must be `Send`.
    async fn report(&mut self, event: TreeEvent) {
        // The receiver may be closed.
        let _ = self.events.send(event).await;
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
