//! Files of a tree that the receiving side has already. A transfer that is repeated, for example after it
//! was interrupted, skips them.
//!
//! With [`TreeOptions::skip_existing`] the name decides. With [`TreeOptions::skip_unchanged`] a file is
//! unchanged if both sides have the same size, time, permission bits and digest. The server lists the
//! digests that it keeps, of a whole tree at once; the local file is read. Files whose digest is not kept
//! are transferred.

use std::collections::HashMap;
use std::fs::symlink_metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use futures::stream::{StreamExt, iter};
use jiff::Timestamp;

use crate::client::transfer::blocking::blocking;
use crate::client::transfer::source::LocalFile;
use crate::client::transfer::umask::umask;
use crate::client::tree::{TreeOptions, join};
use crate::client::{ClientError, Session};
use crate::protocol::{Digest, Entry, FileMode, Kind};

/// The most files of the server that are compared with local ones, which bounds the memory. The other
/// files of a larger tree are sent.
const MAX_COMPARED_FILES: usize = 500_000;

/// Files that are looked up at the same time.
const MAX_LOOKUPS: usize = 32;

/// The metadata that a file has if it is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileMetadata {
    pub(super) size: u64,
    pub(super) modified: Option<Timestamp>,
    pub(super) mode: FileMode,
}

/// Files on the server that may be skipped, by path: all of them, or those whose digest it keeps.
#[derive(Debug, Default)]
pub(super) struct RemoteFiles(HashMap<String, RemoteFile>);

#[derive(Debug)]
struct RemoteFile {
    size: u64,
    modified: Timestamp,
    mode: Option<FileMode>,
    digest: Option<Digest>,
}

impl RemoteFiles {
    /// Lists the directories on the server whose counterpart is a local directory: each of `roots` is a
    /// local path with one on the server. A directory that does not exist, or that the user may not list,
    /// has no files. A root that is a file is looked up if existing files are skipped.
    ///
    /// # Errors
    /// [`ClientError`] if the connection is lost and does not come back.
    pub(super) async fn list(
        session: &Session,
        options: TreeOptions,
        roots: impl Iterator<Item = (&Path, &str)>,
    ) -> Result<Self, ClientError> {
        let mut found = Self::default();
        let is_needed = options.skip_unchanged || options.skip_existing;
        if !is_needed || !session.client().has_feature("recursive") {
            return Ok(found);
        }
        let mut files = Vec::new();
        for (local, remote) in roots {
            let local = local.to_owned();
            if !blocking(move || Ok(local.is_dir())).await? {
                files.push(remote.to_owned());
                continue;
            }
            let mut entries = session.tree_entries(remote, options.skip_unchanged);
            while found.0.len() < MAX_COMPARED_FILES {
                match entries.next().await {
                    Ok(Some(entry)) => found.add(join(remote, &entry.name), &entry, options),
                    Ok(None) | Err(ClientError::Server(_)) => break,
                    Err(error) => return Err(error),
                }
            }
        }
        if options.skip_existing {
            let lookups = files.into_iter().map(|path| async move {
                let stat = session.stat(&path).await;
                (path, stat)
            });
            let mut lookups = std::pin::pin!(iter(lookups).buffer_unordered(MAX_LOOKUPS));
            while let Some((path, stat)) = lookups.next().await {
                match stat {
                    Ok(stat) => found.add(path, &stat.entry, options),
                    Err(ClientError::Server(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(found)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, path: String, entry: &Entry, options: TreeOptions) {
        // Two contents may have been made to have the same weak digest.
        let is_usable = |digest: &Digest| {
            let algorithm = digest.algorithm();
            algorithm.resists_collisions() || algorithm == options.file.algorithm
        };
        let digest = entry.digest.filter(is_usable);
        let is_comparable = digest.is_some() || options.skip_existing;
        if entry.kind == Kind::File && is_comparable {
            let file = RemoteFile {
                size: entry.size,
                modified: entry.modified,
                mode: entry.mode,
                digest,
            };
            self.0.insert(path, file);
        }
    }

    /// Whether the server has a file of this path.
    pub(super) fn contains(&self, remote: &str) -> bool {
        self.0.contains_key(remote)
    }

    /// The digest that a local file with this metadata has if the server has it as `remote`.
    pub(super) fn digest_if_unchanged(&self, remote: &str, local: FileMetadata) -> Option<Digest> {
        let file = self.0.get(remote)?;
        let is_same = file.size == local.size
            && Some(file.modified) == local.modified
            && file.mode.is_none_or(|mode| mode == local.mode);
        file.digest.filter(|_| is_same)
    }

    /// Whether a local file is the file `entry` of the server, whose path is `remote`. It blocks on the disk.
    pub(super) fn is_unchanged(&self, local: &Path, remote: &str, entry: &Entry) -> bool {
        let Ok(metadata) = symlink_metadata(local) else {
            return false;
        };
        let modified = metadata.modified().ok();
        let modified = modified.and_then(|time| Timestamp::try_from(time).ok());
        let is_same = entry.kind == Kind::File
            && metadata.is_file()
            && metadata.len() == entry.size
            && modified == Some(entry.modified)
            && entry.mode.is_none_or(|mode| {
                mode.bits() & !umask() == FileMode::from_st_mode(metadata.mode()).bits()
            });
        let listed = self.0.get(remote).filter(|listed| {
            is_same && (listed.size, listed.modified) == (entry.size, entry.modified)
        });
        listed
            .and_then(|listed| listed.digest)
            .is_some_and(|digest| {
                let found = LocalFile::digest(local, digest.algorithm());
                found.is_ok_and(|found| found == digest)
            })
    }
}

/// Whether the content of a local file has this digest. A file that cannot be read has another content.
pub(super) async fn has_digest(local: PathBuf, digest: Digest) -> bool {
    let compare = move || Ok(LocalFile::digest(&local, digest.algorithm())? == digest);
    blocking(compare).await.unwrap_or(false)
}
