//! From here to the server.

use std::collections::VecDeque;
use std::future::ready;
use std::path::{Path, PathBuf};

use futures::stream::StreamExt;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use walkdir::{DirEntry, WalkDir};

use crate::client::tree::small_up;
use crate::client::tree::small_up::{AnsweredFile, SmallFileUploads, SmallLocalFile};
use crate::client::tree::{IN_FLIGHT, TreeEvent, TreeJob, TreeSummary, join};
use crate::client::{Client, ClientError, FileOptions, Progress, Session};
use crate::protocol::PutReply;

/// How far the walk may run ahead. It is what the totals are known from.
const MAX_ENTRIES_AHEAD: usize = 8192;

impl Session {
    /// Puts files and whole directories, each to the path on the server beside it. A directory
    /// that is there already is filled up. Links are followed, except back to where they are in;
    /// what is neither file nor directory is skipped. What has a name that is not UTF-8 fails.
    ///
    /// `notes` must be read while this runs, or closed.
    ///
    /// # Errors
    /// An error that ends the whole job, such as a connection that does not come back or a full quota.
    /// Complete files stay. Errors of one file are reported in `notes` and counted.
    pub async fn put_trees(
        &self,
        roots: Vec<(PathBuf, String)>,
        options: FileOptions,
        progress: &Progress,
        notes: mpsc::Sender<TreeEvent>,
    ) -> Result<TreeSummary, ClientError> {
        let (sender, mut walk) = mpsc::channel(MAX_ENTRIES_AHEAD);
        let counters = progress.clone();
        spawn_blocking(move || walk_all(roots, &sender, &counters));
        let mut up = TreeUpload {
            session: self.clone(),
            options,
            job: TreeJob::new(progress, notes),
            small: SmallFileUploads::new(),
            alone: VecDeque::new(),
        };
        let mut walking = true;
        while walking || !up.is_idle() {
            up.begin_alone();
            tokio::select! {
                biased;
                landed = up.small.next(progress), if !up.small.is_idle() => {
                    up.take_small(landed?).await?;
                }
                found = walk.recv(), if walking && up.has_room() => match found {
                    Some(found) => up.start(found).await?,
                    None => walking = false,
                },
                Some(step) = up.job.running.next() => up.handle(step).await?,
                // The walk has nothing more for now, or enough has gathered.
                () = ready(()), if up.small.can_read() => up.small.read(self),
            }
        }
        Ok(up.job.summary)
    }
}

impl Client {
    /// See [`Session::put_trees`]; this fails when the connection is lost.
    ///
    /// # Errors
    /// Those of its namesake.
    pub async fn put_trees(
        &self,
        roots: Vec<(PathBuf, String)>,
        options: FileOptions,
        progress: &Progress,
        notes: mpsc::Sender<TreeEvent>,
    ) -> Result<TreeSummary, ClientError> {
        let session = Session::from(self.clone());
        session.put_trees(roots, options, progress, notes).await
    }
}

struct TreeUpload {
    session: Session,
    options: FileOptions,
    job: TreeJob<UploadStep>,
    small: SmallFileUploads,
    /// Small files that did not get through with others, and whether they may have arrived.
    alone: VecDeque<(SmallLocalFile, bool)>,
}

/// An entry that the walk finds.
enum FoundEntry {
    Directory {
        local: PathBuf,
        remote: String,
    },
    File {
        local: PathBuf,
        remote: String,
        size: u64,
        named_by_user: bool,
    },
    Skipped {
        local: PathBuf,
        why: &'static str,
    },
    Failed {
        local: PathBuf,
        error: ClientError,
    },
}

enum UploadStep {
    Made(PathBuf, Result<String, ClientError>),
    Put(PathBuf, Result<PutReply, ClientError>),
}

impl TreeUpload {
    fn is_idle(&self) -> bool {
        self.job.running.is_empty() && self.small.is_idle() && self.alone.is_empty()
    }

    /// Whether something more may be begun. While the line is not sound, first what was lost.
    fn has_room(&self) -> bool {
        self.alone.is_empty() && self.job.running.len() < IN_FLIGHT && self.small.has_room()
    }

    fn begin_alone(&mut self) {
        while self.job.running.len() < IN_FLIGHT
            && let Some((file, again)) = self.alone.pop_front()
        {
            self.put(file.local, file.remote, file.options, again);
        }
    }

    /// Puts one file by itself.
    fn put(&mut self, local: PathBuf, remote: String, options: FileOptions, again: bool) {
        let (session, progress) = (self.session.clone(), self.job.progress.clone());
        self.job.running.push(Box::pin(async move {
            let put = session.put_found(local.clone(), &remote, options, &progress, again);
            let put = put.await;
            UploadStep::Put(local, put)
        }));
    }

    async fn take_small(&mut self, landed: Vec<AnsweredFile>) -> Result<(), ClientError> {
        for landed in landed {
            match landed {
                AnsweredFile::Put(file, reply) => {
                    self.session.gets_on();
                    self.job.progress.finished_file();
                    self.handle(UploadStep::Put(file.local, Ok(reply))).await?;
                }
                AnsweredFile::Failed(file, error) => {
                    self.handle(UploadStep::Put(file.local, Err(error))).await?;
                }
                AnsweredFile::Alone { file, again } => self.alone.push_back((file, again)),
            }
        }
        Ok(())
    }

    async fn start(&mut self, found: FoundEntry) -> Result<(), ClientError> {
        match found {
            FoundEntry::Directory { local, remote } => {
                let (session, progress) = (self.session.clone(), self.job.progress.clone());
                self.job.running.push(Box::pin(async move {
                    let remote = remote.as_str();
                    let mkdir = |client: Client| async move { client.mkdir(remote, true).await };
                    let made = session.retry(&progress, mkdir).await;
                    UploadStep::Made(local, made)
                }));
            }
            FoundEntry::File {
                local,
                remote,
                size,
                named_by_user,
            } => {
                // The directory of what was found in one may still be on its way.
                let options = FileOptions {
                    parents: self.options.parents || !named_by_user,
                    ..self.options
                };
                if small_up::is_small(size) {
                    self.small.add(SmallLocalFile {
                        local,
                        remote,
                        options,
                        size,
                    });
                } else {
                    self.put(local, remote, options, false);
                }
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

    async fn handle(&mut self, step: UploadStep) -> Result<(), ClientError> {
        match step {
            UploadStep::Made(_, Ok(_)) => {
                self.job.summary.directories += 1;
                Ok(())
            }
            UploadStep::Put(local, Ok(reply)) => {
                let digest = Some(reply.digest);
                self.job.moved(reply.path, local, reply.size, digest).await;
                Ok(())
            }
            UploadStep::Made(local, Err(error)) | UploadStep::Put(local, Err(error)) => {
                self.job.failed(local.display().to_string(), error).await
            }
        }
    }
}

/// Sends all that is at and below the roots, until nobody listens.
fn walk_all(roots: Vec<(PathBuf, String)>, sender: &mpsc::Sender<FoundEntry>, progress: &Progress) {
    for (local, remote) in roots {
        let mut walk = WalkDir::new(&local).follow_links(true).into_iter();
        while let Some(entry) = walk.next() {
            let found = match entry {
                Ok(entry) => {
                    let found = look_at(&entry, &local, &remote, progress);
                    // Entries of a directory cannot be put if the directory cannot.
                    if entry.file_type().is_dir()
                        && matches!(found, Some(FoundEntry::Failed { .. }))
                    {
                        walk.skip_current_dir();
                    }
                    found
                }
                Err(error) => Some(why_not(error, &local)),
            };
            if let Some(found) = found
                && sender.blocking_send(found).is_err()
            {
                return;
            }
        }
    }
    progress.found_all();
}

fn look_at(entry: &DirEntry, root: &Path, remote: &str, progress: &Progress) -> Option<FoundEntry> {
    let local = entry.path().to_owned();
    let mut to = remote.to_owned();
    for component in local.strip_prefix(root).unwrap_or(&local) {
        let Some(name) = component.to_str() else {
            let error = ClientError::NotUtf8;
            return Some(FoundEntry::Failed { local, error });
        };
        to = join(&to, name);
    }
    let kind = entry.file_type();
    if kind.is_dir() {
        // A part of a remote path that exists need not be made.
        let is_there = matches!(to.trim_end_matches('/'), "" | "." | "..");
        return (!is_there).then_some(FoundEntry::Directory { local, remote: to });
    }
    if !kind.is_file() && entry.depth() == 0 {
        let error = ClientError::LocalNeither(local.clone());
        return Some(FoundEntry::Failed { local, error });
    }
    if !kind.is_file() {
        let why = "neither file nor directory";
        return Some(FoundEntry::Skipped { local, why });
    }
    let size = entry.metadata().map_or(0, |metadata| metadata.len());
    progress.found_file(size);
    Some(FoundEntry::File {
        local,
        remote: to,
        size,
        named_by_user: entry.depth() == 0,
    })
}

fn why_not(error: walkdir::Error, root: &Path) -> FoundEntry {
    let (local, depth) = (error.path().unwrap_or(root).to_owned(), error.depth());
    if error.loop_ancestor().is_some() {
        let why = "a link back to a directory that it is in";
        return FoundEntry::Skipped { local, why };
    }
    let error = error
        .into_io_error()
        .unwrap_or_else(|| std::io::ErrorKind::Other.into());
    if error.kind() == std::io::ErrorKind::NotFound && depth > 0 {
        let why = "a link to nothing";
        return FoundEntry::Skipped { local, why };
    }
    if error.kind() == std::io::ErrorKind::NotFound && local.is_symlink() {
        let error = ClientError::LocalDangling(local.clone());
        return FoundEntry::Failed { local, error };
    }
    let error = ClientError::local("read", &*local, error);
    FoundEntry::Failed { local, error }
}
