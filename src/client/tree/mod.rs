//! Whole trees: many files and directories at a time, in both directions.
//!
//! `upload` walks local directories and `download` lists remote ones; both pass the files that they
//! find to `transfers`. A failure of one entry is reported and does not affect the others, unless they would
//! fail in the same way.

pub(super) mod direction;
mod directories;
mod download;
pub(super) mod download_request;
mod listed_page;
mod pipeline;
pub(super) mod transfers;
mod unchanged;
mod upload;
pub(super) mod upload_request;
mod walk;

use std::path::PathBuf;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;

use crate::client::{ClientError, FileOptions, Progress};
use crate::protocol::{Digest, ErrorCode};

/// The options of a transfer of trees.
#[derive(Debug, Clone, Copy, Default)]
pub struct TreeOptions {
    /// The options of each file.
    pub file: FileOptions,
    /// Count a file that exists on the receiving side in [`TreeSummary::existing`]. Needs
    /// [`IfExists::Fail`](crate::protocol::IfExists::Fail), with which it is a failure otherwise.
    pub skip_existing: bool,
    /// Skip the files of directories that the receiving side has already: of the same size, time,
    /// permission bits and digest. They are counted in [`TreeSummary::unchanged`].
    pub skip_unchanged: bool,
    /// The symbolic links of local trees that are followed.
    pub links: FollowedLinks,
    /// Stay on the file system of each local root. A root that is `/` always does.
    pub one_file_system: bool,
}

/// The symbolic links of a local tree whose content is sent in their place. A root that the user names is
/// always followed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FollowedLinks {
    /// Those that lead to an entry of the tree.
    #[default]
    Inside,
    /// All.
    All,
}

impl From<FileOptions> for TreeOptions {
    fn from(file: FileOptions) -> Self {
        Self {
            file,
            ..Self::default()
        }
    }
}

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
    /// Files that the receiving side had already, with [`TreeOptions::skip_unchanged`].
    pub unchanged: u64,
    /// Files that existed on the receiving side, with [`TreeOptions::skip_existing`].
    pub existing: u64,
    /// Entries that failed.
    pub failed: u64,
    /// Attributes of local entries that the server does not keep. Zero in a download.
    pub not_kept: NotKept,
}

/// How many entries of local trees have attributes that are lost on the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NotKept {
    /// Symbolic links whose content was sent in their place, and files with several names.
    pub links: u64,
    /// Entries of other owners.
    pub owners: u64,
    /// Files with holes.
    pub holes: u64,
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

    /// Counts a file of `size` bytes that the receiving side has already.
    fn unchanged(&mut self, size: u64) {
        self.summary.unchanged += 1;
        self.progress.skipped_file(size);
    }

    /// Counts a file of `size` bytes that is kept because its name exists.
    fn existing(&mut self, size: u64) {
        self.summary.existing += 1;
        self.progress.skipped_file(size);
    }

    /// [`failed`](Self::failed) for a file. One that exists is no failure with `skip_existing`.
    async fn file_failed(
        &mut self,
        path: String,
        error: ClientError,
        skip_existing: bool,
    ) -> Result<(), ClientError> {
        let exists =
            matches!(error, ClientError::LocalExists(_)) || error.code() == Some(ErrorCode::Exists);
        if exists && skip_existing {
            self.summary.existing += 1;
            return Ok(());
        }
        self.failed(path, error).await
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
