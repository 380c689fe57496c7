//! From the server to here.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use futures::stream::StreamExt;
use tokio::sync::mpsc;

use crate::client::transfer::blocking::blocking;
use crate::client::transfer::part_file;
use crate::client::transfer::sink::remove_stale_parts;
use crate::client::tree::local_target::LocalTarget;
use crate::client::tree::small_down;
use crate::client::tree::small_down::{ReceivedFile, SmallFileDownloads};
use crate::client::tree::{IN_FLIGHT, TreeEvent, TreeJob, TreeSummary, join};
use crate::client::{Client, ClientError, FetchedFile, FileOptions, Progress, Session};
use crate::protocol::{Entry, ErrorCode, Kind, LsReply, StatReply};

/// Pages of listings asked for at the same time.
const MAX_CONCURRENT_LISTINGS: usize = 8;

/// Files that may be known and not begun before no further page is asked for.
const MAX_WAITING_FILES: usize = 4096;

/// Levels below what was asked for. A server has fewer; one that invents them has an end here.
const MAX_DEPTH: u32 = 100;

impl Session {
    /// Gets files and whole directories, each to the local path beside it, whose parent exists.
    /// A directory that is there already is filled up. A folder at the root that may not be listed
    /// is skipped, unless it is what was asked for. Links below a local path are not followed,
    /// and nothing that the server says leads out of it. Nothing is synced to the disk, as in
    /// [`get_file`](Self::get_file).
    ///
    /// `notes` must be read while this runs, or closed.
    ///
    /// # Errors
    /// An error that ends the whole job, such as a connection that does not come back. Complete files stay.
    /// Errors of one file are reported in `notes` and counted.
    pub async fn get_trees(
        &self,
        roots: Vec<(String, PathBuf)>,
        options: FileOptions,
        progress: &Progress,
        notes: mpsc::Sender<TreeEvent>,
    ) -> Result<TreeSummary, ClientError> {
        let targets: Vec<_> = roots.iter().map(|(_, local)| local.clone()).collect();
        blocking(move || {
            remove_stale_parts(targets.iter().map(PathBuf::as_path));
            Ok(())
        })
        .await?;
        let mut down = TreeDownload {
            session: self.clone(),
            options,
            job: TreeJob::new(progress, notes),
            looking: 0,
            roots: roots.into(),
            directories: Vec::new(),
            files: VecDeque::new(),
            small: SmallFileDownloads::new(options),
        };
        loop {
            down.begin_more();
            let asked = down.small.ask(self);
            down.take_small(asked).await?;
            tokio::select! {
                landed = down.small.next(progress), if !down.small.is_idle() => {
                    down.take_small(landed?).await?;
                }
                Some(step) = down.job.running.next() => down.handle(step).await?,
                else => return Ok(down.job.summary),
            }
        }
    }
}

impl Client {
    /// See [`Session::get_trees`]; this fails when the connection is lost.
    ///
    /// # Errors
    /// Those of its namesake.
    pub async fn get_trees(
        &self,
        roots: Vec<(String, PathBuf)>,
        options: FileOptions,
        progress: &Progress,
        notes: mpsc::Sender<TreeEvent>,
    ) -> Result<TreeSummary, ClientError> {
        let session = Session::from(self.clone());
        session.get_trees(roots, options, progress, notes).await
    }
}

struct TreeDownload {
    session: Session,
    options: FileOptions,
    job: TreeJob<DownloadStep>,
    /// Requests for a root or a listing that run.
    looking: usize,
    roots: VecDeque<(String, PathBuf)>,
    /// The last is looked into first, which keeps the heap small.
    directories: Vec<PendingDirectory>,
    /// With their sizes.
    files: VecDeque<(LocalTarget, u64)>,
    small: SmallFileDownloads,
}

struct PendingDirectory {
    place: LocalTarget,
    cursor: Option<String>,
}

enum DownloadStep {
    Looked(LocalTarget, Result<StatReply, ClientError>),
    Listed(PendingDirectory, Result<LsReply, ClientError>),
    Got(LocalTarget, Result<FetchedFile, ClientError>),
}

impl TreeDownload {
    fn begin_more(&mut self) {
        while self.looking < MAX_CONCURRENT_LISTINGS && self.files.len() < MAX_WAITING_FILES {
            if let Some(directory) = self.directories.pop() {
                self.list(directory);
            } else if let Some((remote, local)) = self.roots.pop_front() {
                self.look(LocalTarget {
                    remote,
                    local,
                    level: 0,
                });
            } else {
                break;
            }
            self.looking += 1;
        }
        if self.looking == 0 && self.directories.is_empty() && self.roots.is_empty() {
            self.job.progress.found_all();
        }
        while let Some((_, size)) = self.files.front() {
            let is_small = small_down::is_small(*size);
            let has_room = if is_small {
                self.small.has_room()
            } else {
                self.job.running.len() < IN_FLIGHT + self.looking
            };
            let file = if has_room {
                self.files.pop_front()
            } else {
                None
            };
            let Some((place, size)) = file else {
                break;
            };
            if is_small {
                self.small.add(place, size);
            } else {
                self.get(place, size);
            }
        }
    }

    async fn take_small(&mut self, landed: Vec<ReceivedFile>) -> Result<(), ClientError> {
        for landed in landed {
            match landed {
                ReceivedFile::Got(place, fetched) => {
                    self.session.gets_on();
                    self.job.progress.finished_file();
                    self.handle(DownloadStep::Got(place, Ok(fetched))).await?;
                }
                ReceivedFile::Failed(place, error) => {
                    self.handle(DownloadStep::Got(place, Err(error))).await?;
                }
                // It waits for the line like any other, and is asked for again there.
                ReceivedFile::Alone(place, size) => self.get(place, size),
            }
        }
        Ok(())
    }

    fn look(&self, place: LocalTarget) {
        let (session, progress) = (self.session.clone(), self.job.progress.clone());
        self.job.running.push(Box::pin(async move {
            let remote = place.remote.as_str();
            let look = |client: Client| async move { client.stat(remote).await };
            let reply = session.retry(&progress, look).await;
            DownloadStep::Looked(place, reply)
        }));
    }

    fn list(&self, mut directory: PendingDirectory) {
        let (session, progress) = (self.session.clone(), self.job.progress.clone());
        self.job.running.push(Box::pin(async move {
            let cursor = directory.cursor.take();
            let is_first = cursor.is_none();
            let remote = directory.place.remote.as_str();
            let list = |client: Client| {
                let cursor = cursor.clone();
                async move { client.ls_page(remote, cursor).await }
            };
            let mut page = session.retry(&progress, list).await;
            if is_first && page.is_ok() {
                let (local, level) = (directory.place.local.clone(), directory.place.level);
                if let Err(error) = blocking(move || make_directory(&local, level == 0)).await {
                    page = Err(error);
                }
            }
            DownloadStep::Listed(directory, page)
        }));
    }

    fn get(&self, place: LocalTarget, size: u64) {
        let (session, options) = (self.session.clone(), self.options);
        let progress = self.job.progress.clone();
        self.job.running.push(Box::pin(async move {
            let (local, named) = (place.local.clone(), place.level == 0);
            let got = session
                .get_found(&place.remote, local, named, size, options, &progress)
                .await;
            DownloadStep::Got(place, got)
        }));
    }

    async fn handle(&mut self, step: DownloadStep) -> Result<(), ClientError> {
        match step {
            DownloadStep::Looked(place, Ok(stat)) => {
                self.looking -= 1;
                self.found(place, stat.entry.kind, stat.entry.size);
                Ok(())
            }
            DownloadStep::Listed(directory, Ok(page)) => {
                self.looking -= 1;
                self.listed(directory, page).await
            }
            DownloadStep::Got(place, Ok(FetchedFile { path, size, digest })) => {
                self.job.moved(place.remote, path, size, digest).await;
                Ok(())
            }
            DownloadStep::Listed(PendingDirectory { place, .. }, Err(error))
                if is_closed(&place, &error) =>
            {
                self.looking -= 1;
                self.job.summary.directories -= 1;
                self.job.skipped(place.remote, "it may not be listed").await;
                Ok(())
            }
            DownloadStep::Looked(place, Err(error))
            | DownloadStep::Listed(PendingDirectory { place, .. }, Err(error)) => {
                self.looking -= 1;
                self.job.failed(place.remote, error).await
            }
            DownloadStep::Got(place, Err(error)) => self.job.failed(place.remote, error).await,
        }
    }

    fn found(&mut self, place: LocalTarget, kind: Kind, size: u64) {
        match kind {
            Kind::File => {
                self.job.progress.found_file(size);
                self.files.push_back((place, size));
            }
            Kind::Dir => {
                self.job.summary.directories += 1;
                self.directories.push(PendingDirectory {
                    place,
                    cursor: None,
                });
            }
        }
    }

    async fn listed(
        &mut self,
        directory: PendingDirectory,
        page: LsReply,
    ) -> Result<(), ClientError> {
        let within = directory.place;
        if page.cursor.is_some() {
            // Below what this page has found, or a directory of directories is read to its end
            // before the first of them is.
            self.directories.push(PendingDirectory {
                place: within.clone(),
                cursor: page.cursor,
            });
        }
        let level = within.level + 1;
        for Entry {
            name, kind, size, ..
        } in page.entries
        {
            if !is_one_name(&name) {
                let error = ClientError::UnsafeName(name);
                self.job.failed(within.remote.clone(), error).await?;
                continue;
            }
            let place = LocalTarget {
                remote: join(&within.remote, &name),
                local: within.local.join(&name),
                level,
            };
            if level > MAX_DEPTH {
                let error = ClientError::TooDeep(MAX_DEPTH);
                self.job.failed(place.remote, error).await?;
                continue;
            }
            self.found(place, kind, size);
        }
        Ok(())
    }
}

/// Whether this is a folder at the root that the user may not look into. Nobody who gets all that
/// there is means those.
fn is_closed(place: &LocalTarget, error: &ClientError) -> bool {
    let is_name = |component: &Component| matches!(component, Component::Normal(_));
    let names = Path::new(&place.remote).components().filter(is_name);
    place.level == 1 && names.count() == 1 && error.code() == Some(ErrorCode::Denied)
}

/// Whether a name from the server names something within its directory and nothing else, drives no
/// terminal, and is not that of a part file.
fn is_one_name(name: &str) -> bool {
    let is_unsafe = |character: char| {
        character.is_control()
            || matches!(character, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
    };
    if name.contains(is_unsafe) || part_file::is_part(OsStr::new(name)) {
        return false;
    }
    let mut components = Path::new(name).components();
    let only = (components.next(), components.next());
    matches!(only, (Some(Component::Normal(part)), None) if part == name)
}

/// Makes a directory, or finds one and removes what downloads that were killed left in it. The user may have named a link to one, the server may not.
fn make_directory(path: &Path, named_by_user: bool) -> Result<(), ClientError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let there = if named_by_user {
                fs::metadata(path)
            } else {
                fs::symlink_metadata(path)
            };
            if there.is_ok_and(|there| there.is_dir()) {
                part_file::remove_stale(path);
                return Ok(());
            }
            let source = io::ErrorKind::NotADirectory.into();
            Err(ClientError::local("make directory", path, source))
        }
        Err(source) => Err(ClientError::local("make directory", path, source)),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_single_normal_component_is_a_name() {
        for name in ["a", "..a", "a b", "-", "…", "\\", "C:"] {
            assert!(is_one_name(name), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "/",
            "a/",
            "a/b",
            "/a",
            "./a",
            "a/.",
            "../a",
            "a\0",
            "a\nb",
            "\u{1b}]0;title\u{7}",
            "a\u{202e}txt.exe",
            ".haul-0123456789abcdef.part",
            ".haul-0123456789abcdef-1.part",
        ] {
            assert!(!is_one_name(name), "{name}");
        }
    }

    #[test]
    fn a_link_in_the_way_is_followed_only_where_the_user_named_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path(), &link).expect("linked");
        assert!(make_directory(&link, true).is_ok());
        assert!(make_directory(&link, false).is_err());
    }
}
