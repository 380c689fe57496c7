//! An upload: a staged file whose bytes arrive, are hashed and counted, until it is sealed.
//!
//! `View` begins an upload, the session's `put` writes to it, and `commit` publishes it. An upload
//! belongs to one caller at a time and has no lock.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use crate::protocol::{Digest, Hasher};
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::fs::digest::{check_expected, compute};
use crate::storage::local::fs::install::check;
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::fs::staging::Staged;
use crate::storage::local::reservation::Reservation;
use crate::storage::local::space_count::SpaceCount;
use crate::storage::local::upload::checkpoint::{
    CheckpointSchedule, MIN_PARTIAL_BYTES, UploadRecord,
};
use crate::storage::local::upload::record::RecordFile;
use crate::storage::local::upload::request::UploadOptions;
use crate::storage::local::upload::sealed::SealedFile;
use crate::storage::local::upload::uploader::Uploader;
use crate::storage::path::VirtualPath;
use crate::storage::rights::Right;

/// An upload that is not committed yet. Dropping it discards its bytes and releases its reservation;
/// [`keep`](Self::keep) leaves it to be resumed. Every call may block on the disk.
#[derive(Debug)]
pub struct Upload {
    pub(crate) target: ResolvedPath,
    pub(crate) options: UploadOptions,
    pub(crate) uploader: Uploader,
    pub(crate) staged: Staged,
    pub(crate) reservation: Reservation,
    /// Bytes in the staged file, including those of an earlier attempt.
    pub(crate) written: u64,
    /// Absent if the content was in memory: such an upload cannot be kept.
    pub(crate) writer: Option<Box<StagingWriter>>,
    pub(crate) state: UploadState,
}

/// The states of an upload that exists. Two more end it and have types of their own:
/// [`Committed`](crate::storage::Committed), and a partial upload, which can be resumed.
#[derive(Debug)]
pub(crate) enum UploadState {
    /// Bytes arrive. A resumed upload first reads back the bytes of the earlier attempt.
    Receiving,
    /// All bytes arrived, and they match the declared size and digest. The file has its time and
    /// version, and waits to be synced and named: see [`SealedUpload`].
    Sealed,
    /// A write or a sync failed, so the staged file may differ from what arrived. The upload can
    /// only be dropped.
    Failed,
}

/// An upload in the state [`Sealed`](UploadState::Sealed), with the properties of its file.
#[derive(Debug)]
pub(crate) struct SealedUpload {
    pub(crate) upload: Upload,
    pub(crate) sealed: SealedFile,
}

/// The writer of the staged file of an upload whose bytes arrive one after the other.
#[derive(Debug)]
pub(crate) struct StagingWriter {
    pub(crate) file: Arc<File>,
    pub(crate) hasher: Hasher,
    /// Bytes that the hasher has consumed: all that are written, except while the bytes of an
    /// earlier attempt are read back.
    pub(crate) hashed: u64,
    pub(crate) record: UploadRecord,
    pub(crate) schedule: CheckpointSchedule,
}

impl StagingWriter {
    /// Receives into `file`, which has `offset` bytes of an earlier attempt.
    pub(crate) fn new(
        file: File,
        offset: u64,
        options: &UploadOptions,
        record_file: RecordFile,
    ) -> Box<Self> {
        Box::new(Self {
            file: Arc::new(file),
            hasher: Hasher::new(options.algorithm),
            hashed: 0,
            record: UploadRecord::new(record_file),
            schedule: CheckpointSchedule::from_offset(offset),
        })
    }

    fn append(&mut self, chunk: &[u8]) -> io::Result<()> {
        (&*self.file).write_all(chunk)?;
        self.hasher.update(chunk);
        self.hashed += chunk.len() as u64;
        Ok(())
    }
}

impl Upload {
    /// Stages an empty file, if the declared size fits now. Bytes are reserved as they arrive.
    /// Nothing exists after an error.
    pub(crate) fn begin(
        target: ResolvedPath,
        options: UploadOptions,
        uploader: Uploader,
    ) -> Result<Self, StorageError> {
        let staging = &target.space.staging;
        let reservation = Reservation::for_upload(&target.space);
        reservation
            .check_fits(SpaceCount::file(options.size.unwrap_or(0)), &target.full)
            .map_err(|error| target.redact_quota(error))?;
        let (staged, file) = staging.create_file().context("stage", &target.full)?;
        let record_file = RecordFile::absent(staging, staged.name());
        Ok(Self {
            writer: Some(StagingWriter::new(file, 0, &options, record_file)),
            written: 0,
            state: UploadState::Receiving,
            target,
            options,
            uploader,
            staged,
            reservation,
        })
    }

    /// Refuses an upload that could not be committed as things are.
    pub(crate) fn check(
        target: &ResolvedPath,
        options: &UploadOptions,
    ) -> Result<(), StorageError> {
        if target.is_root() {
            return Err(StorageError::is_a_directory(&target.full));
        }
        check(target, false, options.if_exists, options.parents)
    }

    /// The path that the upload is for.
    #[must_use]
    pub fn path(&self) -> &VirtualPath {
        &self.target.full
    }

    /// The id of the upload: random, hex.
    #[must_use]
    pub fn id(&self) -> &str {
        self.staged.name()
    }

    /// Bytes that arrived so far, including those of an earlier attempt.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Writes the next bytes.
    ///
    /// # Errors
    /// [`StorageError::SizeMismatch`] if there are more bytes than declared,
    /// [`StorageError::QuotaExceeded`] and [`StorageError::NoSpace`] if they do not fit, or a failure
    /// of the file system. The upload can only be dropped then. After [`StorageError::Denied`] and
    /// [`StorageError::Suspended`] nothing was written, and the earlier bytes can be kept.
    pub fn write(&mut self, chunk: &[u8]) -> Result<(), StorageError> {
        self.check_access()?;
        let appended = self.append(chunk);
        if appended.is_err() {
            self.state = UploadState::Failed;
        }
        appended.map_err(|error| self.target.redact_quota(error))
    }

    fn append(&mut self, chunk: &[u8]) -> Result<(), StorageError> {
        self.ready_writer()?;
        let length = chunk.len() as u64;
        let received = self.written.saturating_add(length);
        if self.options.size.is_some_and(|size| received > size) {
            return self.options.check_size(received, &self.target.full);
        }
        self.reserve(received)?;
        let appended = self.ready_writer()?.append(chunk);
        appended.context("write", &self.target.full)?;
        self.reservation.release_written(length);
        self.written = received;
        Ok(())
    }

    /// Reserves `received` bytes in all, and as much again of a declared size if that is available:
    /// a client that has sent half of a file can send all of it, and a client that has sent nothing
    /// reserves nothing.
    fn reserve(&mut self, received: u64) -> Result<(), StorageError> {
        if received >= MIN_PARTIAL_BYTES {
            self.reserve_entry()?;
        }
        let reserved = self.reservation.reserved().bytes;
        if received <= reserved {
            return Ok(());
        }
        let path = &self.target.full;
        let twice = received.saturating_mul(2);
        let ahead = self.options.size.map_or(received, |size| size.min(twice));
        let more = SpaceCount::bytes(ahead - reserved);
        if ahead > received && self.reservation.try_reserve(more, path) {
            return Ok(());
        }
        self.reservation
            .reserve(SpaceCount::bytes(received - reserved), path)
    }

    /// Counts the file as an entry, once it is worth keeping or complete.
    fn reserve_entry(&mut self) -> Result<(), StorageError> {
        if self.reservation.reserved().entries > 0 {
            return Ok(());
        }
        self.reservation
            .reserve_quota(SpaceCount::entries(1), &self.target.full)
    }

    /// Checks that the user may commit the upload, as things are. It does not read the disk.
    ///
    /// # Errors
    /// [`StorageError::Denied`], [`StorageError::Suspended`].
    pub fn check_access(&self) -> Result<(), StorageError> {
        self.target.require(Right::Write)
    }

    /// Seals the upload, if its bytes match the declared size and the `expected` digest. Returns its
    /// file, too, which must be synced before the upload gets its name. A digest of another algorithm
    /// than the one of the options costs one more read of the file.
    pub(crate) fn seal(
        mut self,
        expected: Option<Digest>,
    ) -> Result<(SealedUpload, Arc<File>), StorageError> {
        let writer = self.ready_writer()?;
        let file = Arc::clone(&writer.file);
        let digest = writer.hasher.clone().finish();
        let path = &self.target.full;
        self.options.check_size(self.written, path)?;
        check_expected(digest, expected, path, |algorithm| {
            compute(&file, algorithm, path)
        })?;
        self.reserve_entry()
            .map_err(|error| self.target.redact_quota(error))?;
        let path = &self.target.full;
        let sealed = SealedFile::seal(&file, path, &self.options, digest);
        let sealed = sealed.context("write", path)?;
        self.state = UploadState::Sealed;
        let upload = self;
        Ok((SealedUpload { upload, sealed }, file))
    }

    /// The writer, if the upload accepts more bytes.
    fn ready_writer(&mut self) -> Result<&mut StagingWriter, StorageError> {
        let fault = match (&self.state, self.writer.as_deref_mut()) {
            (UploadState::Receiving, Some(writer)) if writer.hashed == self.written => {
                return Ok(writer);
            }
            (UploadState::Receiving, _) => "the bytes of the earlier attempt are not read back yet",
            (UploadState::Sealed, _) => "the upload is complete",
            (UploadState::Failed, _) => "an earlier write failed",
        };
        Err(io::Error::other(fault)).context("write", &self.target.full)
    }
}
