//! The commit of uploads, in batches of one or more.
//!
//! ```text
//! sealed uploads ─► sync of the files ─► a name for each ─► sync of the names ─► acknowledgement
//! ```
//!
//! No upload gets its name before the files of all are synced. A failed sync fails every upload of the
//! batch, since it does not say which bytes were lost: none of them is acknowledged, and names that were
//! given are withdrawn. Any other failure concerns one upload only. The lock on the names of a space is
//! held while uploads get their names, never during a sync.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io;
use std::sync::Arc;

use crate::protocol::Digest;
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::fs::install::{InstallParent, Published};
use crate::storage::local::fs::publish::{StagedEntry, withdraw};
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::fs::staging::Staging;
use crate::storage::local::fs::tree::Reach;
use crate::storage::local::fs::unsynced::{UnsyncedName, sync_names};
use crate::storage::local::space::LockedNames;
use crate::storage::local::upload::receive::{SealedUpload, Upload};
use crate::storage::local::upload::request::{Committed, CommittedUpload};
use crate::storage::path::VirtualPath;
use crate::storage::rights::Right;

/// The outcome of one upload of a batch.
pub(crate) type CommitOutcome = Result<CommittedUpload, StorageError>;

/// Outcomes with the indexes of their uploads.
pub(crate) type IndexedOutcomes = Vec<(usize, CommitOutcome)>;

impl Upload {
    /// Publishes the file, if its bytes match the declared size and the `expected` digest. Readers see
    /// the earlier file until then; once this returns, the new file survives a power cut.
    ///
    /// # Errors
    /// [`StorageError::SizeMismatch`], [`StorageError::DigestMismatch`], an error of the path as it is
    /// now, or a failure of the file system. The upload is discarded, except after
    /// [`StorageError::Suspended`], when it is [kept](Self::keep).
    pub fn commit(self, expected: Option<Digest>) -> Result<Committed, StorageError> {
        let path = self.target.full.clone();
        let (sealed, file) = self.seal(expected)?;
        let mut batch = UploadBatch::default();
        batch.push(0, sealed, file);
        let mut outcomes = IndexedOutcomes::with_capacity(1);
        batch.commit(&mut outcomes);
        let Some((_, outcome)) = outcomes.pop() else {
            return Err(io::Error::other("the commit has no outcome")).context("commit", &path);
        };
        Ok(outcome?.committed)
    }
}

/// Sealed uploads that are committed together.
#[derive(Debug, Default)]
pub(crate) struct UploadBatch {
    uploads: Vec<(usize, SealedUpload)>,
    /// Files that are open to be synced: all, or the first few if the file system is synced.
    files: Vec<Arc<File>>,
    /// Reports failed writes since before the first file was staged. Without it each file and each
    /// name is synced by itself.
    sync_handle: Option<OpenDir>,
}

impl UploadBatch {
    /// Lets one sync of the file system cover the files that are staged from now on.
    pub(crate) fn share_sync(&mut self, staging: &Staging) -> io::Result<()> {
        if self.sync_handle.is_none() {
            self.sync_handle = Some(staging.sync_handle()?);
        }
        Ok(())
    }

    /// Adds an upload, whose outcome gets the `index`.
    pub(crate) fn push(&mut self, index: usize, upload: SealedUpload, file: impl Into<Arc<File>>) {
        let staging = &upload.upload.target.space.staging;
        // A sync of the file system covers files that are closed.
        if self.sync_handle.is_none() || !staging.syncs_file_system(self.uploads.len()) {
            self.files.push(file.into());
        }
        self.uploads.push((index, upload));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.uploads.is_empty()
    }

    /// Files that are open.
    pub(crate) fn open_files(&self) -> usize {
        self.files.len()
    }

    /// Commits the uploads in their order and adds an outcome for each.
    pub(crate) fn commit(self, outcomes: &mut IndexedOutcomes) {
        let Some((_, first)) = self.uploads.first() else {
            return;
        };
        let staging = Arc::clone(&first.upload.target.space.staging);
        let sync_handle = self.sync_handle.as_ref();
        if let Err(error) = staging.sync_files(&self.files, sync_handle) {
            for (index, SealedUpload { upload, .. }) in self.uploads {
                outcomes.push((index, sync_failed(&error, upload.path())));
            }
            return;
        }
        drop(self.files);
        let named = name_all(self.uploads, outcomes);
        if let Err(error) = sync_names_of(&named, &staging, sync_handle) {
            // A later file may have replaced an earlier one: each restores what it replaced.
            for named in named.into_iter().rev() {
                let path = named.upload.upload.path();
                outcomes.push((named.index, sync_failed(&error, path)));
                named.withdraw();
            }
            return;
        }
        acknowledge_all(named, outcomes);
    }
}

/// The outcome of an upload that a failed sync concerns.
fn sync_failed(error: &io::Error, path: &VirtualPath) -> CommitOutcome {
    let same = match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    };
    Err(same).context("sync", path)
}

/// Directories that are open while the names are locked, by path and by whether they were to be made.
type OpenParents = HashMap<(VirtualPath, bool), InstallParent>;

/// Gives each upload its name, consecutive ones of a space under one lock.
fn name_all(
    uploads: Vec<(usize, SealedUpload)>,
    outcomes: &mut IndexedOutcomes,
) -> Vec<NamedUpload> {
    let mut successes = Vec::with_capacity(uploads.len());
    let mut rejected = Vec::new();
    let mut uploads = uploads.into_iter().peekable();
    while let Some((_, next)) = uploads.peek() {
        let space = Arc::clone(&next.upload.target.space);
        let names = space.lock_names();
        let mut parents = OpenParents::new();
        let is_in_space =
            |(_, it): &(_, SealedUpload)| Arc::ptr_eq(&it.upload.target.space, &space);
        while let Some((index, mut upload)) = uploads.next_if(is_in_space) {
            match upload.upload.name(&names, &mut parents) {
                Ok(published) => successes.push(NamedUpload {
                    index,
                    upload,
                    published,
                }),
                Err(error) => rejected.push((index, upload, error)),
            }
        }
        for parent in parents.values_mut() {
            parent.undo_unused(&names);
        }
    }
    // No lock is held while the rejected ones are kept or deleted.
    for (index, SealedUpload { upload, .. }, error) in rejected {
        outcomes.push((index, Err(upload.keep_if_suspended(error))));
    }
    successes
}

impl Upload {
    fn name(
        &mut self,
        names: &LockedNames<'_>,
        parents: &mut OpenParents,
    ) -> Result<Published, StorageError> {
        let target = &self.target;
        let above = target.inner.parent().unwrap_or_else(VirtualPath::root);
        let parent = match parents.entry((above, self.options.parents)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                // Directories must not be made without the right to write.
                target.require(Right::Write)?;
                entry.insert(InstallParent::open(names, target, self.options.parents)?)
            }
        };
        let entry = StagedEntry {
            staged: &mut self.staged,
            reservation: &mut self.reservation,
            is_dir: false,
            reach: Reach::default(),
        };
        entry.publish(names, parent, target, self.options.if_exists)
    }

    /// Keeps the upload if it got no name only because the rights of its user are not known now. Returns
    /// the error to report.
    fn keep_if_suspended(self, error: StorageError) -> StorageError {
        if !matches!(error, StorageError::Suspended { .. }) {
            return error;
        }
        self.keep().err().unwrap_or(error)
    }
}

/// An upload that has its name, which is not synced yet.
struct NamedUpload {
    index: usize,
    upload: SealedUpload,
    published: Published,
}

/// Syncs the names: each directory once.
fn sync_names_of(
    named: &[NamedUpload],
    staging: &Staging,
    sync_handle: Option<&OpenDir>,
) -> io::Result<()> {
    let dirs = distinct(named.iter().flat_map(|named| &named.published.dir));
    let unsynced: Vec<&Arc<UnsyncedName>> =
        distinct(named.iter().flat_map(|named| &named.published.unsynced));
    let synced = if dirs.is_empty() {
        Ok(())
    } else {
        sync_names(staging, &dirs, &unsynced, sync_handle)
    };
    for named in named {
        let space = &named.upload.upload.target.space;
        space.unsynced.remove_synced(&named.published.unsynced);
    }
    synced
}

fn distinct<'a, T>(shared: impl Iterator<Item = &'a Arc<T>>) -> Vec<&'a Arc<T>> {
    let mut shared: Vec<_> = shared.collect();
    shared.sort_unstable_by_key(|item| Arc::as_ptr(item));
    shared.dedup_by(|a, b| Arc::ptr_eq(a, b));
    shared
}

/// Acknowledges the uploads whose space is still attached, and withdraws the others. Each space is
/// looked up once.
fn acknowledge_all(named: Vec<NamedUpload>, outcomes: &mut IndexedOutcomes) {
    let mut attached: Option<Arc<str>> = None;
    let mut detached = Vec::new();
    for named in named {
        let target = &named.upload.upload.target;
        if attached.as_ref() != Some(&target.space.key) {
            if let Err(error) = target.check_attached() {
                outcomes.push((named.index, Err(error)));
                detached.push(named);
                continue;
            }
            attached = Some(Arc::clone(&target.space.key));
        }
        outcomes.push((named.index, Ok(named.acknowledge())));
    }
    // A later file may have replaced an earlier one: each restores what it replaced.
    for named in detached.into_iter().rev() {
        named.withdraw();
    }
}

impl NamedUpload {
    /// Deletes the file that was replaced, and records the commit.
    fn acknowledge(self) -> CommittedUpload {
        let SealedUpload { upload, sealed } = self.upload;
        let id = upload.id().to_owned();
        let committed = Committed {
            size: sealed.meta.size,
            digest: sealed.digest,
            version: sealed.version(|| self.published.meta()),
            path: self.published.path,
        };
        let Upload {
            target,
            options,
            uploader,
            staged,
            reservation,
            writer,
            ..
        } = upload;
        // The file that was replaced is in staging; its space is released once it is deleted.
        drop(staged);
        drop(reservation);
        drop(writer);
        self.published.change.publish();
        uploader.record_commit(&target, options.if_exists, &committed);
        CommittedUpload { id, committed }
    }

    fn withdraw(self) {
        let SealedUpload { mut upload, sealed } = self.upload;
        withdraw(
            &mut upload.staged,
            &sealed.meta,
            &self.published,
            &upload.target,
        );
    }
}
