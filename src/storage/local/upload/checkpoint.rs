//! Checkpoints: while an upload arrives, its bytes are synced from time to time and its record says how
//! many are, so that it can be resumed after the server was killed.
//!
//! One checkpoint of an upload runs at a time, on a thread of its own; the upload goes on meanwhile.

use std::fs::File;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::fs::metadata::Metadata;
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::space::SpaceId;
use crate::storage::local::space_count::SpaceCount;
use crate::storage::local::upload::record::{RecordFile, UploadManifest};

/// Unsynced bytes that make a checkpoint due at once.
const MAX_UNSYNCED_BYTES: u64 = 32 * 1024 * 1024;

/// The least number of bytes that a checkpoint or a partial upload is worth. Up to here the file does
/// not count as an entry: a client that begins many uploads and sends nothing must not use up a limit
/// of entries.
pub(crate) const MIN_PARTIAL_BYTES: u64 = 64 * 1024;

/// How long bytes may wait for a checkpoint.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// When the next checkpoint of an upload is due.
#[derive(Debug)]
pub(crate) struct CheckpointSchedule {
    /// Bytes that the latest checkpoint covers, which may still run.
    covered_bytes: u64,
    latest: Instant,
    is_running: bool,
}

impl CheckpointSchedule {
    /// The schedule of an upload whose first `offset` bytes are synced.
    pub(crate) fn from_offset(offset: u64) -> Self {
        Self {
            covered_bytes: offset,
            latest: Instant::now(),
            is_running: false,
        }
    }

    /// How long a checkpoint of `written` bytes may wait; absent if none is due before more bytes
    /// arrive or the running one ends.
    pub(crate) fn due(&self, written: u64) -> Option<Duration> {
        let unsynced = written - self.covered_bytes;
        if self.is_running || unsynced < MIN_PARTIAL_BYTES {
            None
        } else if unsynced >= MAX_UNSYNCED_BYTES {
            Some(Duration::ZERO)
        } else {
            Some(CHECKPOINT_INTERVAL.saturating_sub(self.latest.elapsed()))
        }
    }

    /// Notes that a checkpoint covers `written` bytes.
    pub(crate) fn cover(&mut self, written: u64) {
        self.covered_bytes = written;
        self.latest = Instant::now();
    }

    pub(crate) fn set_running(&mut self, is_running: bool) {
        self.is_running = is_running;
    }

    /// Lets the interval since the latest checkpoint pass.
    #[cfg(test)]
    pub(crate) fn expire_interval(&mut self) {
        let expired = self.latest.checked_sub(CHECKPOINT_INTERVAL);
        self.latest = expired.expect("an uptime of more than the interval");
    }
}

/// The record of an upload. Dropping it removes the record, unless the upload is kept.
#[derive(Debug)]
pub(crate) struct UploadRecord {
    pub(crate) file: Arc<RecordFile>,
    /// Made by the first checkpoint.
    pub(crate) manifest: Arc<OnceLock<UploadManifest>>,
    is_kept: bool,
}

impl UploadRecord {
    pub(crate) fn new(file: RecordFile) -> Self {
        Self {
            file: Arc::new(file),
            manifest: Arc::default(),
            is_kept: false,
        }
    }

    /// Leaves the record on the disk, for the upload to be resumed.
    pub(crate) fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for UploadRecord {
    fn drop(&mut self) {
        if !self.is_kept {
            self.file.remove();
        }
    }
}

/// A checkpoint of an upload: the bytes that it syncs and records. More may arrive meanwhile.
#[derive(Debug)]
#[must_use]
pub struct Checkpoint {
    pub(crate) file: Arc<File>,
    pub(crate) record_file: Arc<RecordFile>,
    pub(crate) manifest: Arc<OnceLock<UploadManifest>>,
    pub(crate) owner: SpaceId,
    pub(crate) target: ResolvedPath,
    pub(crate) size: Option<u64>,
    pub(crate) offset: u64,
}

impl Checkpoint {
    /// Syncs the bytes and records them; blocks until then. If it succeeds, the caller calls
    /// [`Upload::checkpointed`](crate::storage::Upload::checkpointed).
    ///
    /// # Errors
    /// [`StorageError::NoSpace`] if the disk has less free than its floor, or
    /// [`StorageError::Io`]. The upload can only be dropped then: after a failed sync a second one
    /// would report success for bytes that are lost.
    pub fn run(self) -> Result<(), StorageError> {
        let path = &self.target.full;
        self.save().context("sync", path)?;
        let staging = &self.target.space.staging;
        staging.check_floor(SpaceCount::default(), path)
    }

    pub(crate) fn save(&self) -> io::Result<()> {
        let staging = &self.target.space.staging;
        if let Some(manifest) = self.manifest.get() {
            staging.record_sync(self.file.sync_data())?;
            return self.record_file.write(manifest, self.offset);
        }
        staging.record_sync(self.file.sync_all())?;
        let data = Metadata::of_open(&self.file)?.file_id();
        let manifest = UploadManifest::new(
            &self.owner,
            self.target.space.id(),
            &self.target.inner,
            &self.target.full,
            self.size,
            data,
        );
        let manifest = self.manifest.get_or_init(|| manifest);
        self.record_file.write(manifest, self.offset)
    }
}
