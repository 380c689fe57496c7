//! A tree on its way from the server: remote listings that run ahead of the transfers.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use futures::stream::StreamExt;
use tokio::sync::mpsc;

use crate::client::transfer::blocking::blocking;
use crate::client::transfer::options::ListedContent;
use crate::client::transfer::part_file;
use crate::client::transfer::sink::remove_stale_parts;
use crate::client::tree::direction::FinishedFile;
use crate::client::tree::directories::{DirectoryMetadata, FilledDirectories};
use crate::client::tree::download_request::{DownloadDirection, LocalTarget};
use crate::client::tree::listed_page::{ListedPage, LocalState, compare_page, is_single_name};
use crate::client::tree::transfers::FileTransfers;
use crate::client::tree::unchanged::RemoteFiles;
use crate::client::tree::{TreeEvent, TreeJob, TreeOptions, TreeSummary, join};
use crate::client::{Client, ClientError, FetchedFile, Progress, Session};
use crate::protocol::{Entry, ErrorCode, Kind, StatReply};

/// Pages of listings that are requested at the same time.
const MAX_CONCURRENT_LISTINGS: usize = 8;

/// Files that were listed and not begun, from which on no further page is requested.
const MAX_WAITING_FILES: usize = 4096;

/// Levels below a root. A server has fewer; this ends the listing of one that makes them up.
const MAX_DEPTH: u32 = 100;

impl Session {
    /// Gets files and whole directories, each to its local path, whose parent exists. A directory
    /// that exists is filled up. A folder at the root of the server that the user may not list is skipped,
    /// unless it is one of `roots`. Links below a local path are not followed, and no name from the server
    /// leads out of it. Nothing is synced to the disk, as in [`get_file`](Self::get_file).
    ///
    /// `events` must be read while this runs, or closed.
    ///
    /// # Errors
    /// An error that ends the whole job, such as a connection that does not come back. Complete files stay.
    /// Errors of one file are reported in `events` and counted.
    pub async fn get_trees(
        &self,
        roots: Vec<(String, PathBuf)>,
        options: impl Into<TreeOptions>,
        progress: &Progress,
        events: mpsc::Sender<TreeEvent>,
    ) -> Result<TreeSummary, ClientError> {
        let targets: Vec<_> = roots.iter().map(|(_, local)| local.clone()).collect();
        blocking(move || {
            remove_stale_parts(targets.iter().map(PathBuf::as_path));
            Ok(())
        })
        .await?;
        let options = options.into();
        // Local names need no listing of the server.
        let listing = TreeOptions {
            skip_existing: false,
            ..options
        };
        let listed = roots.iter().map(|(remote, local)| (&**local, &**remote));
        let remote_files = RemoteFiles::list(self, listing, listed).await?;
        let direction = DownloadDirection {
            options: options.file,
        };
        let mut download = TreeDownload {
            session: self.clone(),
            job: TreeJob::new(progress, events),
            skip_existing: options.skip_existing,
            remote_files: Arc::new(remote_files),
            listings: 0,
            roots: roots.into(),
            directories: Vec::new(),
            filled: FilledDirectories::default(),
            files: VecDeque::new(),
            transfers: FileTransfers::new(direction, self, progress),
        };
        loop {
            download.start_more();
            if download.transfers.can_start() {
                let finished = download.transfers.start();
                download.finish(finished).await?;
            }
            tokio::select! {
                finished = download.transfers.next(), if !download.transfers.is_idle() => {
                    download.finish(finished?).await?;
                }
                Some(step) = download.job.running.next() => download.handle(step).await?,
                else => break,
            }
        }
        let (filled, summary) = (download.filled, download.job.summary);
        blocking(move || {
            filled.finish();
            Ok(())
        })
        .await?;
        Ok(summary)
    }
}

impl Client {
    /// See [`Session::get_trees`]; this fails when the connection is lost.
    ///
    /// # Errors
    /// See [`Session::get_trees`].
    pub async fn get_trees(
        &self,
        roots: Vec<(String, PathBuf)>,
        options: impl Into<TreeOptions>,
        progress: &Progress,
        events: mpsc::Sender<TreeEvent>,
    ) -> Result<TreeSummary, ClientError> {
        let session = Session::from(self.clone());
        session.get_trees(roots, options, progress, events).await
    }
}

struct TreeDownload {
    session: Session,
    job: TreeJob<ListingStep>,
    skip_existing: bool,
    /// Those below the roots whose local path is a directory already.
    remote_files: Arc<RemoteFiles>,
    /// Requests for a root or a listing that are outstanding.
    listings: usize,
    roots: VecDeque<(String, PathBuf)>,
    /// A stack: the last directory is listed first, which bounds its length.
    directories: Vec<PendingDirectory>,
    /// Directories that get their times and permission bits at the end.
    filled: FilledDirectories,
    /// With their sizes.
    files: VecDeque<(LocalTarget, u64)>,
    transfers: FileTransfers<DownloadDirection>,
}

struct PendingDirectory {
    target: LocalTarget,
    metadata: DirectoryMetadata,
    cursor: Option<String>,
    /// Whether its first page has arrived, and it gets its metadata at the end.
    is_filled: bool,
}

enum ListingStep {
    Stat(LocalTarget, Result<StatReply, ClientError>),
    Page(PendingDirectory, Result<ListedPage, ClientError>),
}

impl TreeDownload {
    /// Starts requests and transfers up to their bounds.
    fn start_more(&mut self) {
        while self.listings < MAX_CONCURRENT_LISTINGS && self.files.len() < MAX_WAITING_FILES {
            if let Some(directory) = self.directories.pop() {
                self.list(directory);
            } else if let Some((remote, local)) = self.roots.pop_front() {
                self.stat(LocalTarget {
                    remote,
                    local,
                    level: 0,
                    listed: None,
                });
            } else {
                break;
            }
            self.listings += 1;
        }
        if self.listings == 0 && self.directories.is_empty() && self.roots.is_empty() {
            self.job.progress.found_all();
        }
        while let Some((_, size)) = self.files.front()
            && self.transfers.has_capacity_for(*size)
            && let Some((target, size)) = self.files.pop_front()
        {
            self.transfers.add(target, size);
        }
    }

    fn stat(&self, target: LocalTarget) {
        let (session, progress) = (self.session.clone(), self.job.progress.clone());
        self.job.running.push(Box::pin(async move {
            let remote = target.remote.as_str();
            let stat = |client: Client| async move { client.stat(remote).await };
            let reply = session.retry(&progress, stat).await;
            ListingStep::Stat(target, reply)
        }));
    }

    fn list(&self, mut directory: PendingDirectory) {
        let (skip_existing, remote_files) = (self.skip_existing, Arc::clone(&self.remote_files));
        let (session, progress) = (self.session.clone(), self.job.progress.clone());
        self.job.running.push(Box::pin(async move {
            let cursor = directory.cursor.take();
            let is_first = cursor.is_none();
            let remote = directory.target.remote.as_str();
            let list = |client: Client| {
                let cursor = cursor.clone();
                async move { client.ls_page(remote, cursor).await }
            };
            let mut page = match session.retry(&progress, list).await {
                Ok(reply) => {
                    compare_page(&directory.target, skip_existing, remote_files, reply).await
                }
                Err(error) => Err(error),
            };
            if is_first && page.is_ok() {
                let (local, level) = (directory.target.local.clone(), directory.target.level);
                let metadata = directory.metadata;
                let made = blocking(move || make_directory(&local, level == 0, metadata)).await;
                match made {
                    // A directory that exists and that the user named stays as it is.
                    Ok(is_new) => directory.is_filled = is_new || level > 0,
                    Err(error) => page = Err(error),
                }
            }
            ListingStep::Page(directory, page)
        }));
    }

    async fn finish(
        &mut self,
        finished: Vec<FinishedFile<DownloadDirection>>,
    ) -> Result<(), ClientError> {
        for (target, result) in finished {
            match result {
                Ok(FetchedFile { path, size, digest }) => {
                    self.job.moved(target.remote, path, size, digest).await;
                }
                Err(error) => {
                    self.job
                        .file_failed(target.remote, error, self.skip_existing)
                        .await?;
                }
            }
        }
        Ok(())
    }

    async fn handle(&mut self, step: ListingStep) -> Result<(), ClientError> {
        self.listings -= 1;
        match step {
            ListingStep::Stat(target, Ok(stat)) => {
                self.found(target, &stat.entry);
                Ok(())
            }
            ListingStep::Page(directory, Ok(page)) => self.listed(directory, page).await,
            ListingStep::Page(PendingDirectory { target, .. }, Err(error))
                if is_hidden_folder(&target, &error) =>
            {
                self.job.summary.directories -= 1;
                let why = "you may not list it";
                self.job.skipped(target.remote, why).await;
                Ok(())
            }
            ListingStep::Stat(target, Err(error))
            | ListingStep::Page(PendingDirectory { target, .. }, Err(error)) => {
                self.job.failed(target.remote, error).await
            }
        }
    }

    fn found(&mut self, mut target: LocalTarget, entry: &Entry) {
        match entry.kind {
            Kind::File => {
                self.job.progress.found_file(entry.size);
                target.listed = Some(ListedContent {
                    size: entry.size,
                    modified: Some(entry.modified),
                });
                self.files.push_back((target, entry.size));
            }
            Kind::Dir => {
                self.job.summary.directories += 1;
                self.directories.push(PendingDirectory {
                    target,
                    metadata: entry.into(),
                    cursor: None,
                    is_filled: false,
                });
            }
        }
    }

    async fn listed(
        &mut self,
        directory: PendingDirectory,
        page: ListedPage,
    ) -> Result<(), ClientError> {
        let PendingDirectory {
            target: parent,
            metadata,
            is_filled,
            ..
        } = directory;
        let ListedPage {
            reply: page,
            states,
        } = page;
        if is_filled {
            self.filled.push(parent.local.clone(), metadata);
        }
        if page.cursor.is_some() {
            // Below the directories of this page, or all pages of a large directory would be listed before
            // the first of its directories.
            self.directories.push(PendingDirectory {
                target: parent.clone(),
                metadata,
                cursor: page.cursor,
                is_filled: false,
            });
        }
        let level = parent.level + 1;
        for (entry, state) in page.entries.into_iter().zip(states) {
            let name = &entry.name;
            if !is_single_name(name) {
                let error = ClientError::UnsafeName(entry.name);
                self.job.failed(parent.remote.clone(), error).await?;
                continue;
            }
            let target = LocalTarget {
                remote: join(&parent.remote, name),
                local: parent.local.join(name),
                level,
                listed: None,
            };
            if level > MAX_DEPTH {
                let error = ClientError::TooDeep(MAX_DEPTH);
                self.job.failed(target.remote, error).await?;
                continue;
            }
            match state {
                LocalState::Different => self.found(target, &entry),
                LocalState::Unchanged => {
                    self.job.progress.found_file(entry.size);
                    self.job.unchanged(entry.size);
                }
                LocalState::Existing => {
                    self.job.progress.found_file(entry.size);
                    self.job.existing(entry.size);
                }
            }
        }
        Ok(())
    }
}

/// Whether this is a folder at the root that the user may not list. A user who gets the root does not
/// mean those.
fn is_hidden_folder(target: &LocalTarget, error: &ClientError) -> bool {
    let is_name = |component: &Component| matches!(component, Component::Normal(_));
    let names = Path::new(&target.remote).components().filter(is_name);
    target.level == 1 && names.count() == 1 && error.code() == Some(ErrorCode::Denied)
}

/// Makes a directory. If it exists, removes the part files that killed downloads left in it. A link to a
/// directory counts as one only if the user named it. Returns whether the directory is new.
fn make_directory(
    path: &Path,
    is_named_by_user: bool,
    metadata: DirectoryMetadata,
) -> Result<bool, ClientError> {
    match metadata.create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let metadata = if is_named_by_user {
                fs::metadata(path)
            } else {
                fs::symlink_metadata(path)
            };
            if metadata.is_ok_and(|metadata| metadata.is_dir()) {
                part_file::remove_stale(path);
                return Ok(false);
            }
            let error = io::ErrorKind::NotADirectory.into();
            Err(ClientError::local("make directory", path, error))
        }
        Err(error) => Err(ClientError::local("make directory", path, error)),
        Ok(()) => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_a_directory_is_followed_only_if_the_user_named_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path(), &link).expect("linked");
        let entry = Entry::new("link", Kind::Dir, 0, jiff::Timestamp::UNIX_EPOCH);
        let metadata = DirectoryMetadata::from(&entry);
        assert!(make_directory(&link, true, metadata).is_ok());
        assert!(make_directory(&link, false, metadata).is_err());
    }
}
