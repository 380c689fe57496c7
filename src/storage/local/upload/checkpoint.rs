//! Going on with an upload: made safe as it comes, kept when it is cut off, taken up again.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::protocol::{Digest, Hasher};
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::fs::attributes;
use crate::storage::local::fs::metadata::{EntryKind, Metadata};
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::quota::SpaceCount;
use crate::storage::local::space::SpaceId;
use crate::storage::local::upload::partial::PartialUpload;
use crate::storage::local::upload::record::{Record, Recording};
use crate::storage::local::upload::single::{Upload, UploadOptions, Uploader};

/// Bytes that are brought to the disk together at the latest.
const MANY: u64 = 32 * 1024 * 1024;

/// Fewer are not worth a sync before the commit, and not worth keeping. The file does not count
/// before: whoever opens many and sends nothing would use up a limit of entries.
pub(crate) const FEW: u64 = 64 * 1024;

/// For so long bytes may wait to be made safe.
const A_WHILE: Duration = Duration::from_secs(1);

/// Bytes read at a time.
const PIECE: usize = 256 * 1024;

/// When the next checkpoint is due.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Bytes that the last one covers, which may be running.
    covered: u64,
    last: Instant,
    running: bool,
}

impl Pace {
    /// From so many bytes on, which are safe.
    pub(crate) fn from(offset: u64) -> Self {
        Self {
            covered: offset,
            last: Instant::now(),
            running: false,
        }
    }
}

/// The record of an upload, which goes with it unless it is kept.
#[derive(Debug)]
pub(crate) struct RecordOf {
    recording: Arc<Recording>,
    /// Made when it is first needed.
    record: Arc<OnceLock<Record>>,
    is_kept: bool,
}

impl RecordOf {
    pub(crate) fn new(recording: Recording) -> Self {
        Self {
            recording: Arc::new(recording),
            record: Arc::default(),
            is_kept: false,
        }
    }
}

impl Drop for RecordOf {
    fn drop(&mut self) {
        if !self.is_kept {
            self.recording.remove();
        }
    }
}

/// Bytes of an upload on their way to the disk, while more may come. To be run where blocking is
/// allowed.
#[derive(Debug)]
#[must_use]
pub struct Checkpoint {
    file: Arc<File>,
    recording: Arc<Recording>,
    record: Arc<OnceLock<Record>>,
    owner: SpaceId,
    place: ResolvedPath,
    size: Option<u64>,
    offset: u64,
}

impl Checkpoint {
    /// Waits until the bytes are on the disk, and notes that they are. Then it is time for
    /// [`Upload::checkpointed`].
    ///
    /// # Errors
    /// [`StorageError::NoSpace`] if the disk is too full to go on, else what the system said. The
    /// upload can only be dropped after one: a disk that failed once to keep it can not be asked
    /// again.
    pub fn run(self) -> Result<(), StorageError> {
        let path = &self.place.full;
        let staging = &self.place.space.staging;
        self.save().at("sync", path)?;
        staging.check_floor(SpaceCount::default(), path)
    }

    fn save(&self) -> io::Result<()> {
        let staging = &self.place.space.staging;
        let record = if let Some(record) = self.record.get() {
            staging.synced(self.file.sync_data())?;
            record
        } else {
            staging.synced(self.file.sync_all())?;
            let data = Metadata::of(&self.file)?.birthmark();
            let ResolvedPath {
                space, inner, full, ..
            } = &self.place;
            let record = Record::new(&self.owner, space.id(), inner, full, self.size, data);
            self.record.get_or_init(|| record)
        };
        self.recording.note(record, self.offset)
    }
}

impl Upload {
    /// How long a checkpoint may wait if nothing more comes; absent if none is due then.
    #[must_use]
    pub fn checkpoint_due(&self) -> Option<Duration> {
        let unsafe_bytes = self.written - self.pace.covered;
        if self.pace.running || self.broken || unsafe_bytes < FEW {
            None
        } else if unsafe_bytes >= MANY {
            Some(Duration::ZERO)
        } else {
            Some(A_WHILE.saturating_sub(self.pace.last.elapsed()))
        }
    }

    /// What is to be run now, if a checkpoint is due. One at a time; bytes may come meanwhile.
    pub fn begin_checkpoint(&mut self) -> Option<Checkpoint> {
        if self.checkpoint_due() != Some(Duration::ZERO) {
            return None;
        }
        self.pace.running = true;
        Some(self.checkpoint())
    }

    /// Notes that the checkpoint has been run, and that it succeeded.
    pub fn checkpointed(&mut self) {
        self.pace.running = false;
    }

    fn checkpoint(&mut self) -> Checkpoint {
        self.pace.covered = self.written;
        self.pace.last = Instant::now();
        Checkpoint {
            file: Arc::clone(&self.file),
            recording: Arc::clone(&self.record.recording),
            record: Arc::clone(&self.record.record),
            owner: self.by.owner.clone(),
            place: self.place.clone(),
            size: self.options.size,
            offset: self.written,
        }
    }

    /// Leaves the upload to be gone on with, if it has come far enough to be worth it; `false` if it
    /// was discarded instead. What it holds on the disk stays charged to its space.
    ///
    /// # Errors
    /// What the system said. It is discarded then.
    pub fn keep(mut self) -> Result<bool, StorageError> {
        if self.broken || self.written < FEW {
            return Ok(false);
        }
        let checkpoint = self.checkpoint();
        checkpoint.save().at("sync", &self.place.full)?;
        let record = self.record.record.get().cloned();
        self.reservation.shrink_to(self.written);
        let Self {
            by,
            mut staged,
            written,
            reservation,
            record: mut record_of,
            ..
        } = self;
        let id = staged.name().to_owned();
        let kept =
            record.and_then(|record| PartialUpload::new(id, record, written, None, reservation));
        let Some(kept) = kept else {
            return Ok(false);
        };
        staged.set_left();
        record_of.is_kept = true;
        by.kept.keep(kept);
        Ok(true)
    }

    /// Takes up what was kept of an earlier attempt, if anything was. Its bytes are to be read
    /// back by [`hash_prefix`](Self::hash_prefix) before more can come.
    pub(crate) fn resume(
        place: &ResolvedPath,
        options: UploadOptions,
        by: &Uploader,
    ) -> Result<Option<Self>, StorageError> {
        let Some(kept) = by.kept.take(&by.owner, place, options.size) else {
            return Ok(None);
        };
        let rest = options
            .size
            .map_or(0, |size| size.saturating_sub(kept.offset));
        let fits = kept
            .reservation
            .check_fits(SpaceCount::bytes(rest), &place.full);
        let fits = fits.map_err(|error| place.conceal(error));
        let opened = fits.and_then(|()| open(&kept, place));
        let file = match opened {
            Ok(Some(file)) => file,
            Ok(None) => {
                by.kept.delete([kept]);
                return Ok(None);
            }
            Err(error) => {
                by.kept.put_back(kept);
                return Err(error);
            }
        };
        let PartialUpload {
            id,
            offset,
            reservation,
            ..
        } = kept;
        let staging = &place.space.staging;
        let recording = Recording::old(staging, &id);
        Ok(Some(Self {
            place: place.clone(),
            options,
            by: by.clone(),
            staged: staging.adopt(id),
            file: Arc::new(file),
            hasher: Hasher::new(options.algorithm),
            hashed: 0,
            written: offset,
            reservation,
            record: RecordOf::new(recording),
            pace: Pace::from(offset),
            broken: false,
        }))
    }

    /// Reads back at most so many bytes of what was kept; `true` once that was all.
    ///
    /// # Errors
    /// What the system said. The upload can only be dropped after one.
    pub fn hash_prefix(&mut self, most: u64) -> Result<bool, StorageError> {
        self.place.require(|rights| rights.write)?;
        let end = self.written.min(self.hashed.saturating_add(most));
        let mut piece = vec![0; PIECE];
        while self.hashed < end {
            let length = usize::try_from(end - self.hashed).map_or(PIECE, |rest| rest.min(PIECE));
            let read = self.file.read_exact_at(&mut piece[..length], self.hashed);
            self.broken |= read.is_err();
            read.at("read", &self.place.full)?;
            self.hasher.update(&piece[..length]);
            self.hashed += length as u64;
        }
        Ok(self.hashed == self.written)
    }

    /// The digest of all bytes that came so far; absent while there are none.
    #[must_use]
    pub fn prefix(&self) -> Option<Digest> {
        (self.hashed > 0).then(|| self.hasher.clone().finish())
    }
}

/// The bytes of `kept`, ready for more; `None` if they are not what was kept.
fn open(kept: &PartialUpload, place: &ResolvedPath) -> Result<Option<File>, StorageError> {
    let opened = place.space.staging.dir.open_file_to_write(&*kept.id);
    let (mut file, meta) = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.at("open", &place.full)?,
    };
    let is_it = meta.what == EntryKind::File && meta.birthmark() == kept.record.data;
    if !is_it || meta.size < kept.offset {
        return Ok(None);
    }
    let ready = file.set_len(kept.offset);
    let ready = ready.and_then(|()| file.seek(SeekFrom::Start(kept.offset)));
    ready.at("open", &place.full)?;
    attributes::forget(&file);
    Ok(Some(file))
}
