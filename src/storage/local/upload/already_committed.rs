//! Detection of an upload that was committed before: its reply was lost, and the client retries it.
//!
//! The file at the path proves the commit by its size, time, mode and digest. If the client may not learn about
//! that file, or the file got another path, the list of [recent commits] proves it instead.
//!
//! [recent commits]: crate::storage::local::upload::recent_commits

use std::io;

use crate::protocol::Digest;
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::file::StoredFile;
use crate::storage::local::fs::digest::{check_expected, compute};
use crate::storage::local::fs::metadata::EntryKind;
use crate::storage::local::fs::mode::read_mode;
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::fs::staging::random_name;
use crate::storage::local::upload::recent_commits::needs_recent_commit;
use crate::storage::local::upload::request::{Committed, UploadOptions};
use crate::storage::local::upload::uploader::Uploader;
use crate::storage::rights::Right;

/// A committed file that is equal to what an upload would commit. Every call may block on the disk.
#[derive(Debug)]
pub struct AlreadyCommitted {
    id: String,
    target: ResolvedPath,
    file: StoredFile,
    committed: Committed,
    uploader: Uploader,
    /// Whether it was found in the list of recent commits, which it is to be removed from.
    is_recent: bool,
}

impl AlreadyCommitted {
    /// Looks for the file at the path, or where the list of recent commits says that it is.
    pub(crate) fn find(
        target: &ResolvedPath,
        options: UploadOptions,
        uploader: &Uploader,
    ) -> Result<Option<Self>, StorageError> {
        let Some(size) = options.size else {
            return Ok(None);
        };
        let is_recent = needs_recent_commit(target, options.if_exists);
        let mut target = target.clone();
        let mut known = None;
        if is_recent {
            let recent_commits = &uploader.partial_uploads.recent_commits;
            known = recent_commits.find(&uploader.owner, &target, &uploader.session, size);
            let Some(committed) = &known else {
                return Ok(None);
            };
            target = target.renamed(&committed.path)?;
        }
        let Some((file, digest)) = open(&target, &options, size)? else {
            return Ok(None);
        };
        let committed = Committed {
            path: target.full.clone(),
            size,
            digest,
            version: file.info().version.clone().unwrap_or_default(),
        };
        if known.is_some_and(|known| known != committed) {
            return Ok(None);
        }
        Ok(Some(Self {
            id: random_name().context("name", &target.full)?,
            target,
            file,
            committed,
            uploader: uploader.clone(),
            is_recent,
        }))
    }

    /// The id of the upload: random, hex.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The size of the file in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.committed.size
    }

    /// The digest of the file.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.committed.digest
    }

    /// The error if the client sends `more` bytes although the upload has all.
    #[must_use]
    pub fn size_exceeded(&self, more: u64) -> StorageError {
        StorageError::SizeMismatch {
            path: self.target.full.clone(),
            declared: self.size(),
            received: self.size().saturating_add(more),
        }
    }

    /// Returns the result of the earlier commit, if the file is unchanged and has the `expected` digest.
    ///
    /// # Errors
    /// [`StorageError::Changed`] if the file changed, [`StorageError::DigestMismatch`],
    /// [`StorageError::Denied`], or a failure of the file system.
    pub fn confirm(self, expected: Option<Digest>) -> Result<Committed, StorageError> {
        let path = &self.target.full;
        check_expected(self.committed.digest, expected, path, |algorithm| {
            compute(self.file.handle(), algorithm, path)
        })?;
        self.target.require(Right::Write)?;
        self.file.check_content()?;
        self.sync()?;
        self.target.check_attached()?;
        let (dir, name) = self.target.open_parent()?;
        let found = dir.meta(name).context("look at", path)?;
        if !found.is_some_and(|meta| meta.is_same_content(self.file.meta())) {
            return Err(StorageError::changed(path));
        }
        // A recent commit is confirmed once: the next equal upload is a new file.
        let recent_commits = &self.uploader.partial_uploads.recent_commits;
        if self.is_recent && !recent_commits.remove(&self.uploader.owner, &self.committed) {
            return Err(StorageError::changed(path));
        }
        Ok(self.committed)
    }
}

impl AlreadyCommitted {
    /// Syncs the file and its name: the server may have been killed between the commit and its syncs.
    fn sync(&self) -> Result<(), StorageError> {
        let path = &self.target.full;
        let staging = &self.target.space.staging;
        staging
            .record_sync(self.file.handle().sync_all())
            .context("sync", path)?;
        let mut above = self.target.inner.parent();
        while let Some(dir) = above {
            let opened = self
                .target
                .space
                .sandbox
                .open_dir(&dir)
                .context("open", path)?;
            staging.record_sync(opened.sync()).context("sync", path)?;
            above = dir.parent();
        }
        Ok(())
    }
}

/// Opens the file at `target`, if it has that size, time and mode and a kept digest.
fn open(
    target: &ResolvedPath,
    options: &UploadOptions,
    size: u64,
) -> Result<Option<(StoredFile, Digest)>, StorageError> {
    let opened = target.open_parent().and_then(|(dir, name)| {
        let opened = dir.open_file(name);
        opened.context("open", &target.full)
    });
    let (file, meta) = match opened {
        Ok(opened) => opened,
        Err(error) if is_io_failure(&error) => return Err(error),
        Err(_) => return Ok(None),
    };
    let is_equal = meta.kind == EntryKind::File
        && meta.size == size
        && options.modified.is_none_or(|time| time == meta.timestamp())
        && options
            .mode
            .is_none_or(|mode| read_mode(&file) == Some(mode));
    if !is_equal {
        return Ok(None);
    }
    let file = StoredFile::from_open(target, file, meta)?;
    let digest = file.kept_digest(options.algorithm);
    Ok(digest.map(|digest| (file, digest)))
}

/// Whether the disk failed, so that the file may exist although it cannot be opened.
fn is_io_failure(error: &StorageError) -> bool {
    matches!(error, StorageError::Io { source, .. } if source.kind() != io::ErrorKind::NotFound)
}
