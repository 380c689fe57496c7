//! A tree on its way to the server: a local walk that runs ahead of the transfers.

use std::future::ready;
use std::path::PathBuf;

use futures::future::BoxFuture;
use futures::stream::{self, FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::client::transfer::blocking::joined;
use crate::client::tree::direction::FinishedFile;
use crate::client::tree::transfers::{FileTransfers, MAX_SEPARATE_FILES};
use crate::client::tree::unchanged::{FileMetadata, RemoteFiles, has_digest};
use crate::client::tree::upload_request::{LocalSource, UploadDirection};
use crate::client::tree::walk::{FoundEntry, LocalDirectory, walk_all};
use crate::client::tree::{TreeEvent, TreeJob, TreeOptions, TreeSummary};
use crate::client::{Client, ClientError, FileOptions, Progress, Session};
use crate::protocol::SetStat;

/// Entries that the walk may be ahead of the transfers. The totals of the progress come from the walk.
const MAX_ENTRIES_AHEAD: usize = 8192;

impl Session {
    /// Puts files and whole directories, each to its path on the server. A directory that exists
    /// there is filled up. Links are followed as [`TreeOptions::links`] says, except to a directory that
    /// contains them; an entry that is neither a file nor a directory is skipped. An entry whose name is not UTF-8 fails.
    ///
    /// `events` must be read while this runs, or closed.
    ///
    /// # Errors
    /// An error that ends the whole job, such as a connection that does not come back or a full quota.
    /// Complete files stay. Errors of one file are reported in `events` and counted.
    pub async fn put_trees(
        &self,
        roots: Vec<(PathBuf, String)>,
        options: impl Into<TreeOptions>,
        progress: &Progress,
        events: mpsc::Sender<TreeEvent>,
    ) -> Result<TreeSummary, ClientError> {
        let options = options.into();
        let listed = roots.iter().map(|(local, remote)| (&**local, &**remote));
        let remote_files = RemoteFiles::list(self, options, listed).await?;
        let (sender, mut walk) = mpsc::channel(MAX_ENTRIES_AHEAD);
        let counters = progress.clone();
        let walker = spawn_blocking(move || walk_all(roots, options, &sender, &counters));
        let keeps_modes = self.client().has_feature("mode");
        let direction = UploadDirection {
            keeps_modes,
            keeps_existing: options.skip_existing,
        };
        let mut upload = TreeUpload {
            session: self.clone(),
            options,
            job: TreeJob::new(progress, events),
            transfers: FileTransfers::new(direction, self, progress),
            filled: Vec::new(),
            remote_files,
            comparing: FuturesUnordered::new(),
        };
        let mut walking = true;
        while walking || !upload.is_idle() {
            tokio::select! {
                biased;
                finished = upload.transfers.next(), if !upload.transfers.is_idle() => {
                    upload.finish(finished?).await?;
                }
                found = walk.recv(), if walking && upload.has_capacity() => match found {
                    Some(found) => upload.start(found).await?,
                    None => walking = false,
                },
                Some(made) = upload.job.running.next() => upload.made(made).await?,
                Some(compared) = upload.comparing.next() => upload.compared(compared),
                // Last, so that files that the walk has found already are sent together.
                () = ready(()), if upload.transfers.can_start() => {
                    let finished = upload.transfers.start();
                    upload.finish(finished).await?;
                }
            }
        }
        upload.finish_directories().await?;
        upload.job.summary.not_kept = joined(walker.await.map(Ok))?;
        Ok(upload.job.summary)
    }
}

impl Client {
    /// See [`Session::put_trees`]; this fails when the connection is lost.
    ///
    /// # Errors
    /// See [`Session::put_trees`].
    pub async fn put_trees(
        &self,
        roots: Vec<(PathBuf, String)>,
        options: impl Into<TreeOptions>,
        progress: &Progress,
        events: mpsc::Sender<TreeEvent>,
    ) -> Result<TreeSummary, ClientError> {
        let session = Session::from(self.clone());
        session.put_trees(roots, options, progress, events).await
    }
}

struct TreeUpload {
    session: Session,
    options: TreeOptions,
    job: TreeJob<MadeDirectory>,
    transfers: FileTransfers<UploadDirection>,
    /// Directories whose times and permission bits are set on the server at the end.
    filled: Vec<LocalDirectory>,
    remote_files: RemoteFiles,
    /// Local files whose digest is computed, to skip those that the server has.
    comparing: FuturesUnordered<BoxFuture<'static, ComparedFile>>,
}

/// A file that may be on the server already.
struct ComparedFile {
    file: LocalSource,
    size: u64,
    is_unchanged: bool,
}

/// A directory, and the result of making it on the server.
type MadeDirectory = (LocalDirectory, Result<String, ClientError>);

impl TreeUpload {
    fn is_idle(&self) -> bool {
        self.job.running.is_empty() && self.comparing.is_empty() && self.transfers.is_idle()
    }

    /// Whether any entry may be started.
    fn has_capacity(&self) -> bool {
        let requests =
            self.job.running.len() + self.comparing.len() + self.transfers.separate_files();
        requests < MAX_SEPARATE_FILES
            && self.transfers.has_capacity_for(0)
            && self.transfers.has_capacity_for(u64::MAX)
    }

    async fn start(&mut self, found: FoundEntry) -> Result<(), ClientError> {
        match found {
            FoundEntry::Directory(directory) => self.make_directory(directory),
            FoundEntry::File {
                local,
                remote,
                metadata,
                is_named_by_user,
            } => {
                // The directory of a file that the walk found may not exist on the server yet.
                let options = FileOptions {
                    parents: self.options.file.parents || !is_named_by_user,
                    ..self.options.file
                };
                let file = LocalSource {
                    local,
                    remote,
                    options,
                };
                self.start_file(file, metadata);
            }
            FoundEntry::Skipped { local, why } => {
                self.job.skipped(local.display().to_string(), why).await;
            }
            FoundEntry::Failed { local, error } => {
                self.job.failed(local.display().to_string(), error).await?;
            }
        }
        Ok(())
    }

    fn start_file(&mut self, file: LocalSource, metadata: FileMetadata) {
        let size = metadata.size;
        if self.options.skip_existing && self.remote_files.contains(&file.remote) {
            self.job.existing(size);
            return;
        }
        let kept = self
            .remote_files
            .digest_if_unchanged(&file.remote, metadata);
        let Some(digest) = kept else {
            self.transfers.add(file, size);
            return;
        };
        self.comparing.push(Box::pin(async move {
            let is_unchanged = has_digest(file.local.clone(), digest).await;
            ComparedFile {
                file,
                size,
                is_unchanged,
            }
        }));
    }

    fn compared(&mut self, compared: ComparedFile) {
        if compared.is_unchanged {
            self.job.unchanged(compared.size);
        } else {
            self.transfers.add(compared.file, compared.size);
        }
    }

    fn make_directory(&mut self, directory: LocalDirectory) {
        let (session, progress) = (self.session.clone(), self.job.progress.clone());
        self.job.running.push(Box::pin(async move {
            let remote = directory.remote.as_str();
            let mkdir = |client: Client| async move { client.mkdir(remote, true).await };
            let result = session.retry(&progress, mkdir).await;
            (directory, result)
        }));
    }

    async fn made(&mut self, (directory, result): MadeDirectory) -> Result<(), ClientError> {
        match result {
            Ok(_) => {
                self.job.summary.directories += 1;
                self.filled.push(directory);
                Ok(())
            }
            Err(error) => {
                let path = directory.local.display().to_string();
                self.job.failed(path, error).await
            }
        }
    }

    /// Sets times and permission bits of the directories. Each new entry of a directory changes its
    /// time, so nothing may be put into them any more.
    async fn finish_directories(&mut self) -> Result<(), ClientError> {
        let (session, progress) = (self.session.clone(), self.job.progress.clone());
        let directories = std::mem::take(&mut self.filled);
        let finished = stream::iter(directories)
            .map(|directory| finish_directory(&session, &progress, directory))
            .buffer_unordered(MAX_SEPARATE_FILES);
        let mut finished = std::pin::pin!(finished);
        while let Some((local, result)) = finished.next().await {
            if let Err(error) = result {
                self.job.failed(local.display().to_string(), error).await?;
            }
        }
        Ok(())
    }

    async fn finish(
        &mut self,
        finished: Vec<FinishedFile<UploadDirection>>,
    ) -> Result<(), ClientError> {
        for (file, result) in finished {
            match result {
                Ok(reply) => {
                    let digest = Some(reply.digest);
                    self.job
                        .moved(reply.path, file.local, reply.size, digest)
                        .await;
                }
                Err(error) => {
                    let path = file.local.display().to_string();
                    let skip_existing = self.options.skip_existing;
                    self.job.file_failed(path, error, skip_existing).await?;
                }
            }
        }
        Ok(())
    }
}

/// Sets time and permission bits of a directory on a server that keeps both.
async fn finish_directory(
    session: &Session,
    progress: &Progress,
    directory: LocalDirectory,
) -> (PathBuf, Result<(), ClientError>) {
    let change = SetStat {
        path: directory.remote,
        modified: directory.modified,
        mode: directory.mode,
    };
    let set = |client: Client| {
        let change = change.clone();
        async move {
            if change.mode.is_some() && client.has_feature("mode") {
                client.setstat(change).await?;
            }
            Ok(())
        }
    };
    (directory.local, session.retry(progress, set).await)
}
