//! Interrupted uploads: an upload is checkpointed, kept when its connection ends, and resumed.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use crate::protocol::Digest;
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::fs::attributes;
use crate::storage::local::fs::metadata::EntryKind;
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::space_count::SpaceCount;
use crate::storage::local::upload::checkpoint::{Checkpoint, MIN_PARTIAL_BYTES};
use crate::storage::local::upload::partial::PartialUpload;
use crate::storage::local::upload::receive::{StagingWriter, Upload, UploadState};
use crate::storage::local::upload::record::RecordFile;
use crate::storage::local::upload::request::UploadOptions;
use crate::storage::local::upload::uploader::Uploader;

/// Bytes that are read back at a time.
const READ_BYTES: usize = 256 * 1024;

impl Upload {
    /// How long the next checkpoint may wait if no more bytes arrive; absent if none is due then.
    #[must_use]
    pub fn checkpoint_due(&self) -> Option<Duration> {
        match (&self.state, &self.writer) {
            (UploadState::Receiving, Some(writer)) => writer.schedule.due(self.written),
            _ => None,
        }
    }

    /// The checkpoint to run now, if one is due. One runs at a time, and bytes may arrive meanwhile.
    pub fn begin_checkpoint(&mut self) -> Option<Checkpoint> {
        if self.checkpoint_due() != Some(Duration::ZERO) {
            return None;
        }
        let checkpoint = self.checkpoint()?;
        if let Some(writer) = &mut self.writer {
            writer.schedule.set_running(true);
        }
        Some(checkpoint)
    }

    /// Notes that the running checkpoint succeeded.
    pub fn checkpointed(&mut self) {
        if let Some(writer) = &mut self.writer {
            writer.schedule.set_running(false);
        }
    }

    /// Lets the interval since the latest checkpoint pass.
    #[cfg(test)]
    pub(crate) fn expire_checkpoint_interval(&mut self) {
        let writer = self.writer.as_mut().expect("an unfinished upload");
        writer.schedule.expire_interval();
    }

    fn checkpoint(&mut self) -> Option<Checkpoint> {
        let writer = self.writer.as_mut()?;
        writer.schedule.cover(self.written);
        Some(Checkpoint {
            file: Arc::clone(&writer.file),
            record_file: Arc::clone(&writer.record.file),
            manifest: Arc::clone(&writer.record.manifest),
            owner: self.uploader.owner.clone(),
            target: self.target.clone(),
            size: self.options.size,
            offset: self.written,
        })
    }

    /// Keeps the upload to be resumed, if it has enough bytes to be worth it; `false` if it is
    /// discarded instead. Its bytes on the disk stay charged to its space.
    ///
    /// # Errors
    /// [`StorageError::Io`] if its bytes cannot be synced. It is discarded then.
    pub fn keep(mut self) -> Result<bool, StorageError> {
        if matches!(self.state, UploadState::Failed) || self.written < MIN_PARTIAL_BYTES {
            return Ok(false);
        }
        // An upload from memory has no checkpoints; its client still has all of it.
        let Some(checkpoint) = self.checkpoint() else {
            return Ok(false);
        };
        checkpoint.save().context("sync", &self.target.full)?;
        let Self {
            uploader,
            mut staged,
            written,
            mut reservation,
            writer: Some(mut writer),
            ..
        } = self
        else {
            return Ok(false);
        };
        reservation.shrink_to(written);
        let id = staged.name().to_owned();
        let manifest = writer.record.manifest.get().cloned();
        let partial = manifest
            .and_then(|manifest| PartialUpload::new(id, manifest, written, None, reservation));
        let Some(partial) = partial else {
            return Ok(false);
        };
        staged.release();
        writer.record.keep();
        uploader.partial_uploads.add(partial);
        Ok(true)
    }

    /// Resumes the latest partial upload to `target` of that size, if there is one. Its bytes must be
    /// read back by [`hash_prefix`](Self::hash_prefix) before more can be written.
    pub(crate) fn resume(
        target: &ResolvedPath,
        options: UploadOptions,
        uploader: &Uploader,
    ) -> Result<Option<Self>, StorageError> {
        let partial_uploads = &uploader.partial_uploads;
        let Some(partial) = partial_uploads.remove_latest(&uploader.owner, target, options.size)
        else {
            return Ok(None);
        };
        let missing = options
            .size
            .map_or(0, |size| size.saturating_sub(partial.offset));
        let opened = partial
            .reservation
            .check_fits(SpaceCount::bytes(missing), &target.full)
            .map_err(|error| target.redact_quota(error))
            .and_then(|()| open(&partial, target));
        let file = match opened {
            Ok(Some(file)) => file,
            Ok(None) => {
                partial_uploads.delete([partial]);
                return Ok(None);
            }
            Err(error) => {
                partial_uploads.put_back(partial);
                return Err(error);
            }
        };
        let PartialUpload {
            id,
            offset,
            reservation,
            ..
        } = partial;
        let staging = &target.space.staging;
        let record_file = RecordFile::resumed(staging, &id);
        Ok(Some(Self {
            target: target.clone(),
            options,
            uploader: uploader.clone(),
            staged: staging.adopt(id),
            reservation,
            written: offset,
            writer: Some(StagingWriter::new(file, offset, &options, record_file)),
            state: UploadState::Receiving,
        }))
    }

    /// Reads back at most `max_bytes` bytes of the earlier attempt; `true` once all are read back.
    ///
    /// # Errors
    /// [`StorageError::Denied`], [`StorageError::Suspended`], or [`StorageError::Io`], after which the
    /// upload can only be dropped.
    pub fn hash_prefix(&mut self, max_bytes: u64) -> Result<bool, StorageError> {
        self.check_access()?;
        let Some(writer) = &mut self.writer else {
            return Ok(true);
        };
        let end = self.written.min(writer.hashed.saturating_add(max_bytes));
        let read = writer.read_back(end);
        if read.is_err() {
            self.state = UploadState::Failed;
        }
        read.context("read", &self.target.full)?;
        Ok(writer.hashed == self.written)
    }

    /// The digest of all bytes that arrived so far; absent while there are none.
    #[must_use]
    pub fn prefix(&self) -> Option<Digest> {
        let writer = self.writer.as_ref()?;
        (writer.hashed > 0).then(|| writer.hasher.clone().finish())
    }
}

impl StagingWriter {
    /// Hashes the bytes of the file up to `end`.
    fn read_back(&mut self, end: u64) -> io::Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        while self.hashed < end {
            let length = usize::try_from(end - self.hashed)
                .map_or(READ_BYTES, |missing| missing.min(READ_BYTES));
            self.file
                .read_exact_at(&mut buffer[..length], self.hashed)?;
            self.hasher.update(&buffer[..length]);
            self.hashed += length as u64;
        }
        Ok(())
    }
}

/// Opens the file of a partial upload, ready for more; `None` if it is not the recorded file.
fn open(partial: &PartialUpload, target: &ResolvedPath) -> Result<Option<File>, StorageError> {
    let path = &target.full;
    let opened = target.space.staging.dir.open_file_to_write(&*partial.id);
    let (mut file, meta) = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.context("open", path)?,
    };
    let is_recorded = meta.kind == EntryKind::File && meta.file_id() == partial.manifest.data;
    if !is_recorded || meta.size < partial.offset {
        return Ok(None);
    }
    file.set_len(partial.offset)
        .and_then(|()| file.seek(SeekFrom::Start(partial.offset)))
        .context("open", path)?;
    attributes::remove_attributes(&file);
    Ok(Some(file))
}
