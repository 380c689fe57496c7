//! The walk over local trees that are uploaded. It blocks; [`upload`](super::upload) runs it on a thread.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::process::geteuid;
use tokio::sync::mpsc;
use walkdir::{DirEntry, WalkDir};

use crate::client::tree::unchanged::FileMetadata;
use crate::client::tree::{FollowedLinks, NotKept, TreeOptions, join};
use crate::client::{ClientError, Progress};
use crate::protocol::FileMode;

/// The bytes of a file that may be missing on the disk before it counts as one with holes.
const MAX_UNALLOCATED_BYTES: u64 = 64 * 1024;

/// A directory that is put.
#[derive(Debug)]
pub(super) struct LocalDirectory {
    pub(super) local: PathBuf,
    pub(super) remote: String,
    pub(super) modified: Option<Timestamp>,
    pub(super) mode: Option<FileMode>,
}

/// An entry that the walk finds.
pub(super) enum FoundEntry {
    Directory(LocalDirectory),
    File {
        local: PathBuf,
        remote: String,
        metadata: FileMetadata,
        is_named_by_user: bool,
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

/// Sends every entry at and below the roots, until the receiver is closed.
pub(super) fn walk_all(
    roots: Vec<(PathBuf, String)>,
    options: TreeOptions,
    sender: &mpsc::Sender<FoundEntry>,
    progress: &Progress,
) -> NotKept {
    let mut not_kept = NotKept::default();
    for (local, remote) in roots {
        let limits = RootLimits::new(&local, options);
        let mut walk = WalkDir::new(&local).follow_links(true).into_iter();
        while let Some(entry) = walk.next() {
            let found = match entry {
                Ok(entry) => {
                    let found = match limits.excluded(&entry) {
                        Some(why) => Some(FoundEntry::Skipped {
                            local: entry.path().to_owned(),
                            why,
                        }),
                        None => classify(&entry, &local, &remote, progress, &mut not_kept),
                    };
                    // The entries of a directory that failed would fail, too.
                    let is_left_out = matches!(
                        found,
                        Some(FoundEntry::Failed { .. } | FoundEntry::Skipped { .. })
                    );
                    if entry.file_type().is_dir() && is_left_out {
                        walk.skip_current_dir();
                    }
                    found
                }
                Err(error) => Some(unreadable(error, &local)),
            };
            if let Some(found) = found
                && sender.blocking_send(found).is_err()
            {
                return not_kept;
            }
        }
    }
    progress.found_all();
    not_kept
}

/// The bounds of the walk below one root.
struct RootLimits {
    /// The real path of the root, if links that lead out of it are not followed.
    tree: Option<PathBuf>,
    /// The file system that is not left.
    device: Option<u64>,
}

impl RootLimits {
    fn new(root: &Path, options: TreeOptions) -> Self {
        let real = root.canonicalize().ok();
        let stays = options.one_file_system || real.as_deref() == Some(Path::new("/"));
        let device = stays.then(|| root.metadata().ok().map(|it| it.dev()));
        Self {
            tree: real.filter(|_| options.links == FollowedLinks::Inside),
            device: device.flatten(),
        }
    }

    /// The reason for which an entry is left out.
    fn excluded(&self, entry: &DirEntry) -> Option<&'static str> {
        if entry.depth() == 0 {
            return None;
        }
        if entry.path_is_symlink()
            && let Some(tree) = &self.tree
            && !matches!(entry.path().canonicalize(), Ok(real) if real.starts_with(tree))
        {
            return Some("it is a link out of the tree");
        }
        let device = self.device?;
        let is_elsewhere = entry.metadata().is_ok_and(|it| it.dev() != device);
        is_elsewhere.then_some("it is on another file system")
    }
}

fn classify(
    entry: &DirEntry,
    root: &Path,
    remote: &str,
    progress: &Progress,
    not_kept: &mut NotKept,
) -> Option<FoundEntry> {
    let local = entry.path().to_owned();
    let mut to = remote.to_owned();
    for component in local.strip_prefix(root).unwrap_or(&local) {
        let Some(name) = component.to_str() else {
            let error = ClientError::NotUtf8(local.clone());
            return Some(FoundEntry::Failed { local, error });
        };
        to = join(&to, name);
    }
    let kind = entry.file_type();
    if kind.is_dir() {
        let exists = matches!(to.trim_end_matches('/'), "" | "." | "..");
        let metadata = entry.metadata().ok();
        count_not_kept(entry, not_kept);
        let modified = metadata.as_ref().and_then(|it| it.modified().ok());
        return (!exists).then_some(FoundEntry::Directory(LocalDirectory {
            local,
            remote: to,
            modified: modified.and_then(|time| Timestamp::try_from(time).ok()),
            mode: metadata.map(|it| FileMode::from_st_mode(it.mode())),
        }));
    }
    if !kind.is_file() && entry.depth() == 0 {
        let error = ClientError::LocalNotAFile(local.clone());
        return Some(FoundEntry::Failed { local, error });
    }
    if !kind.is_file() {
        let why = "it is neither a file nor a directory";
        return Some(FoundEntry::Skipped { local, why });
    }
    let metadata = match entry.metadata() {
        Ok(metadata) => metadata,
        Err(error) => return Some(unreadable(error, root)),
    };
    count_not_kept(entry, not_kept);
    progress.found_file(metadata.len());
    let modified = metadata.modified().ok();
    Some(FoundEntry::File {
        local,
        remote: to,
        metadata: FileMetadata {
            size: metadata.len(),
            modified: modified.and_then(|time| Timestamp::try_from(time).ok()),
            mode: FileMode::from_st_mode(metadata.mode()),
        },
        is_named_by_user: entry.depth() == 0,
    })
}

/// Counts what the server does not keep of an entry.
fn count_not_kept(entry: &DirEntry, not_kept: &mut NotKept) {
    let Ok(metadata) = entry.metadata() else {
        return;
    };
    let is_file = metadata.is_file();
    let is_hard_link = is_file && metadata.nlink() > 1;
    let allocated = metadata.blocks() * 512;
    not_kept.links += u64::from(entry.path_is_symlink() || is_hard_link);
    not_kept.owners += u64::from(metadata.uid() != geteuid().as_raw());
    not_kept.holes +=
        u64::from(is_file && allocated.saturating_add(MAX_UNALLOCATED_BYTES) <= metadata.len());
}

fn unreadable(error: walkdir::Error, root: &Path) -> FoundEntry {
    let (local, depth) = (error.path().unwrap_or(root).to_owned(), error.depth());
    if error.loop_ancestor().is_some() {
        let why = "it is a link to a directory that contains it";
        return FoundEntry::Skipped { local, why };
    }
    let error = error
        .into_io_error()
        .unwrap_or_else(|| std::io::ErrorKind::Other.into());
    if error.kind() == std::io::ErrorKind::NotFound && depth > 0 {
        let why = "it is a link to nothing";
        return FoundEntry::Skipped { local, why };
    }
    if error.kind() == std::io::ErrorKind::NotFound && local.is_symlink() {
        let error = ClientError::LocalBrokenLink(local.clone());
        return FoundEntry::Failed { local, error };
    }
    let error = ClientError::local("read", &*local, error);
    FoundEntry::Failed { local, error }
}
