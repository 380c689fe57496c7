//! Batches of buffered uploads: each is checked, reserved, verified and staged, and then all are
//! committed together.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::fs::install;
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::upload::commit::{CommitOutcome, IndexedOutcomes, UploadBatch};
use crate::storage::local::upload::receive::Upload;
use crate::storage::local::upload::request::{BufferedUpload, UploadOptions};
use crate::storage::local::upload::uploader::Uploader;
use crate::storage::local::view::View;
use crate::storage::path::VirtualPath;
use crate::storage::rights::Right;

/// The most descriptors that a batch holds open. One more file may add the directories above it.
pub const MAX_BATCH_DESCRIPTORS: usize = 256;

/// Descriptors of a file in a batch: its own, its parent directory to check it, and again to name it.
const DESCRIPTORS_PER_UPLOAD: usize = 3;

/// Descriptors that a batch needs besides those of its files.
const DESCRIPTORS_PER_BATCH: usize = 4;

impl View {
    /// The descriptors that one batch of all `uploads` may need.
    #[must_use]
    pub fn descriptors_for(uploads: &[BufferedUpload]) -> usize {
        let needed = uploads.iter().map(|upload| {
            let made = if upload.options.parents {
                upload.path.components().count()
            } else {
                0
            };
            DESCRIPTORS_PER_UPLOAD + made
        });
        DESCRIPTORS_PER_BATCH + needed.sum::<usize>()
    }

    /// Commits the uploads in their order, in as few batches as possible. Returns the outcome of each,
    /// in the same order. A later upload replaces the file of an earlier one as if that had been
    /// committed before. A batch that holds `max_descriptors` accepts no further upload.
    ///
    /// # Errors
    /// Those of [`View::begin`], [`Upload::write`] and [`Upload::commit`], for each upload; nothing of
    /// it exists then.
    #[must_use]
    pub fn commit_all(
        &self,
        uploads: Vec<BufferedUpload>,
        session: &Arc<str>,
        max_descriptors: usize,
    ) -> Vec<CommitOutcome> {
        let mut outcomes = IndexedOutcomes::with_capacity(uploads.len());
        let mut pending = Vec::with_capacity(uploads.len());
        for (index, upload) in uploads.into_iter().enumerate() {
            match self.resolve_target(&upload.path, session) {
                Ok((target, uploader)) => pending.push(BatchItem {
                    index,
                    target,
                    uploader,
                    upload,
                }),
                Err(error) => outcomes.push((index, Err(error))),
            }
        }
        while !pending.is_empty() {
            let mut batch = StagingBatch::default();
            let mut postponed = Vec::new();
            for item in pending {
                if batch.is_full(max_descriptors) {
                    postponed.push(item);
                    continue;
                }
                let index = item.index;
                match batch.stage(item) {
                    Ok(None) => {}
                    Ok(Some(item)) => postponed.push(item),
                    Err(error) => outcomes.push((index, Err(error))),
                }
            }
            batch.uploads.commit(&mut outcomes);
            pending = postponed;
        }
        outcomes.sort_unstable_by_key(|(index, _)| *index);
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }

    fn resolve_target(
        &self,
        path: &VirtualPath,
        session: &Arc<str>,
    ) -> Result<(ResolvedPath, Uploader), StorageError> {
        Ok((self.resolve(path)?, self.uploader(session, path)?))
    }
}

/// A buffered upload that is not staged yet.
struct BatchItem {
    index: usize,
    target: ResolvedPath,
    uploader: Uploader,
    upload: BufferedUpload,
}

/// Uploads that are staged to be committed together.
#[derive(Default)]
struct StagingBatch {
    uploads: UploadBatch,
    /// Directories that will be open at the same time when the files get their names.
    parent_dirs: usize,
    /// The parent directories that were checked, open; `None` if one is missing and is to be made.
    checked_dirs: HashMap<(Arc<str>, VirtualPath), Option<OpenDir>>,
}

impl StagingBatch {
    /// Checks and stages an upload. Returns it if it exceeds the quota now and may fit once the
    /// uploads of this batch have replaced older files.
    fn stage(&mut self, item: BatchItem) -> Result<Option<BatchItem>, StorageError> {
        let path = &item.target.full;
        self.check(&item.target, &item.upload.options)?;
        let reservation = match item.upload.reserve(&item.target) {
            Err(StorageError::QuotaExceeded { .. }) if !self.uploads.is_empty() => {
                return Ok(Some(item));
            }
            reserved => reserved.map_err(|error| item.target.redact_quota(error))?,
        };
        let digest = item.upload.verify(path)?;
        let staging = &item.target.space.staging;
        self.uploads.share_sync(staging).context("stage", path)?;
        let BatchItem {
            index,
            target,
            uploader,
            upload,
        } = item;
        let (sealed, file) =
            Upload::stage_buffered(&upload, digest, target, reservation, uploader)?;
        self.uploads.push(index, sealed, file);
        Ok(None)
    }

    /// Whether another upload could exceed `max_descriptors`. A batch that holds nothing is never full.
    fn is_full(&self, max_descriptors: usize) -> bool {
        let open = self.uploads.open_files() + self.checked_dirs.len() + self.parent_dirs;
        let more = DESCRIPTORS_PER_BATCH + DESCRIPTORS_PER_UPLOAD;
        open > 0 && open + more > max_descriptors
    }

    /// As [`Upload::check`], with each parent directory opened once in a batch.
    fn check(
        &mut self,
        target: &ResolvedPath,
        options: &UploadOptions,
    ) -> Result<(), StorageError> {
        let Some(above) = target.inner.parent() else {
            return Upload::check(target, options);
        };
        target.require(Right::Write)?;
        target.full.as_file()?;
        let depth = above.components().count();
        let dir = match self
            .checked_dirs
            .entry((Arc::clone(&target.space.key), above))
        {
            Entry::Occupied(dir) if dir.get().is_none() && options.parents => return Ok(()),
            Entry::Occupied(dir) => match dir.into_mut() {
                Some(dir) => dir,
                missing => {
                    let dir = target.open_parent()?.0;
                    target.space.staging.check_mount(&dir, &target.full)?;
                    self.parent_dirs += 1;
                    missing.insert(dir)
                }
            },
            Entry::Vacant(entry) => match target.open_parent() {
                Err(StorageError::NotFound { .. }) if options.parents => {
                    // Every directory above it may have to be made.
                    self.parent_dirs += depth + 1;
                    entry.insert(None);
                    return Ok(());
                }
                Err(error) => return Err(error),
                Ok((dir, _)) => {
                    target.space.staging.check_mount(&dir, &target.full)?;
                    self.parent_dirs += 1;
                    entry.insert(None).insert(dir)
                }
            },
        };
        install::check_in(dir, target.name()?, target, false, options.if_exists)
    }
}
