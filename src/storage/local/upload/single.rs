//! An upload: staged, hashed as it comes, and in its place only once it is whole and on the disk.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use jiff::Timestamp;
use rustix::fs::{Timestamps, UTIME_OMIT, futimens};

use crate::protocol::{Algorithm, Digest, Hasher, IfExists};
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::fs::attributes::Attributes;
use crate::storage::local::fs::digest;
use crate::storage::local::fs::install::check;
use crate::storage::local::fs::metadata::{Metadata, timespec};
use crate::storage::local::fs::publish::{Publishing, Unpublished};
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::fs::staging::Staged;
use crate::storage::local::fs::tree::Reach;
use crate::storage::local::quota::{Reservation, SpaceCount};
use crate::storage::local::space::SpaceId;
use crate::storage::local::upload::already_committed::is_known_by_list;
use crate::storage::local::upload::checkpoint::{FEW, Pace, RecordOf};
use crate::storage::local::upload::partial::PartialUploads;
use crate::storage::local::upload::record::Recording;
use crate::storage::path::VirtualPath;

/// How a file is to be uploaded.
#[derive(Debug, Clone, Copy)]
pub struct UploadOptions {
    /// Bytes that will come, if that is known.
    pub size: Option<u64>,
    /// What to do if there is something at the path.
    pub if_exists: IfExists,
    /// The modification time that the file gets; now if absent.
    pub modified: Option<Timestamp>,
    /// Make missing directories on the way, when the upload is committed.
    pub parents: bool,
    /// The digest that is computed and kept.
    pub algorithm: Algorithm,
}

/// Who uploads, and where what is cut off is kept.
#[derive(Debug, Clone)]
pub(crate) struct Uploader {
    /// The user's home.
    pub(crate) owner: SpaceId,
    /// Tells one session of the user from another.
    pub(crate) session: Arc<str>,
    pub(crate) kept: Arc<PartialUploads>,
}

impl Uploader {
    /// Notes a commit: what was kept of earlier attempts is not gone on with any more, and who
    /// retries it is known again.
    pub(crate) fn note(&self, place: &ResolvedPath, if_exists: IfExists, committed: &Committed) {
        let renames = if_exists == IfExists::Rename;
        self.kept
            .supersede(&self.owner, place, renames.then_some(committed.size));
        if is_known_by_list(place, if_exists) {
            self.kept
                .recent
                .note(&self.owner, place, &self.session, committed);
        }
    }
}

/// An upload under way. Dropping it discards what came and gives back what was reserved;
/// [`keep`](Self::keep) leaves it to be gone on with. Every call may block on the disk.
#[derive(Debug)]
pub struct Upload {
    pub(crate) place: ResolvedPath,
    pub(crate) options: UploadOptions,
    pub(crate) by: Uploader,
    pub(crate) staged: Staged,
    pub(crate) file: Arc<File>,
    pub(crate) hasher: Hasher,
    /// Bytes that the hasher has seen. All of them, but while one that was kept is read back.
    pub(crate) hashed: u64,
    pub(crate) written: u64,
    pub(crate) reservation: Reservation,
    pub(crate) record: RecordOf,
    pub(crate) pace: Pace,
    /// A write or a sync has failed, so what is staged is not what came.
    pub(crate) broken: bool,
}

/// An upload that is in its place and survives a power cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The path that the file got.
    pub path: VirtualPath,
    /// Bytes in it.
    pub size: u64,
    /// Their digest.
    pub digest: Digest,
    /// The file's version, as in [`Info`](crate::storage::local::file::Info).
    pub version: String,
}

impl Upload {
    /// Stages an empty file, if what is declared would fit now. Its bytes are reserved as they come.
    /// Nothing exists after an error.
    pub(crate) fn begin(
        place: ResolvedPath,
        options: UploadOptions,
        by: Uploader,
    ) -> Result<Self, StorageError> {
        let staging = &place.space.staging;
        let reservation = Reservation::under_way(&place.space);
        let fits = reservation.check_fits(SpaceCount::file(options.size.unwrap_or(0)), &place.full);
        fits.map_err(|error| place.conceal(error))?;
        let (staged, file) = staging.file().at("stage", &place.full)?;
        let recording = Recording::absent(staging, staged.name());
        Ok(Self {
            hasher: Hasher::new(options.algorithm),
            hashed: 0,
            written: 0,
            broken: false,
            record: RecordOf::new(recording),
            pace: Pace::from(0),
            place,
            options,
            by,
            staged,
            file: Arc::new(file),
            reservation,
        })
    }

    /// Refuses at once what could not be committed as things are.
    pub(crate) fn check(place: &ResolvedPath, options: &UploadOptions) -> Result<(), StorageError> {
        if place.is_root() {
            return Err(StorageError::is_a_directory(&place.full));
        }
        check(place, false, options.if_exists, options.parents)
    }

    /// The path that the upload is for.
    #[must_use]
    pub fn path(&self) -> &VirtualPath {
        &self.place.full
    }

    /// A name for the upload: random, hex.
    #[must_use]
    pub fn id(&self) -> &str {
        self.staged.name()
    }

    /// Bytes that came so far, with those that were kept of an earlier attempt.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`StorageError::SizeMismatch`] if they are more than declared,
    /// [`StorageError::QuotaExceeded`] and [`StorageError::NoSpace`] if there is no room for them,
    /// else what the system said. The upload can only be dropped after one. Nothing was written after
    /// [`StorageError::Denied`] and [`StorageError::Suspended`].
    pub fn write(&mut self, chunk: &[u8]) -> Result<(), StorageError> {
        // What came before is whole still, and may be kept.
        self.check_access()?;
        let taken = self.take(chunk);
        self.broken |= taken.is_err();
        taken.map_err(|error| self.place.conceal(error))
    }

    fn take(&mut self, chunk: &[u8]) -> Result<(), StorageError> {
        self.check_ready()?;
        let length = chunk.len() as u64;
        let received = self.written.saturating_add(length);
        if self
            .options
            .size
            .is_some_and(|declared| received > declared)
        {
            return Err(self.size_mismatch(received));
        }
        self.reserve(received)?;
        let written = (&*self.file).write_all(chunk);
        written.at("write", &self.place.full)?;
        self.reservation.written(length);
        self.hasher.update(chunk);
        self.hashed = received;
        self.written = received;
        Ok(())
    }

    /// Holds room for so many bytes in all. Of a declared size it holds as much again, as long as
    /// that is to be had: who has sent half of a file can send the rest, and who has sent nothing
    /// holds nothing.
    fn reserve(&mut self, received: u64) -> Result<(), StorageError> {
        if received >= FEW {
            self.reserve_entry()?;
        }
        let held = self.reservation.held().bytes;
        if received <= held {
            return Ok(());
        }
        let path = &self.place.full;
        let twice = received.saturating_mul(2);
        let ahead = self.options.size.map_or(received, |size| size.min(twice));
        let more = SpaceCount::bytes(ahead - held);
        if ahead > received && self.reservation.try_grow(more, path) {
            return Ok(());
        }
        self.reservation
            .grow(SpaceCount::bytes(received - held), path)
    }

    /// Counts the file itself, once something worth keeping has come of it or it is whole.
    fn reserve_entry(&mut self) -> Result<(), StorageError> {
        if self.reservation.held().entries > 0 {
            return Ok(());
        }
        self.reservation
            .grow_stored(SpaceCount::entries(1), &self.place.full)
    }

    /// Makes sure that the member may commit it, as things are. No disk is asked.
    ///
    /// # Errors
    /// [`StorageError::Denied`], [`StorageError::Suspended`].
    pub fn check_access(&self) -> Result<(), StorageError> {
        self.place.require(|rights| rights.write)
    }

    /// Puts the file in its place, if it is what was declared and `expected`. Until this returns,
    /// what was there before is there still; after it has returned, a power cut does not matter.
    ///
    /// A digest of another algorithm than was chosen costs reading the file once more.
    ///
    /// # Errors
    /// [`StorageError::SizeMismatch`], [`StorageError::DigestMismatch`], whatever the path has come
    /// to mean meanwhile, or what the system said. The upload is discarded, but for
    /// [`StorageError::Suspended`]: then it is [kept](Self::keep).
    pub fn commit(mut self, expected: Option<Digest>) -> Result<Committed, StorageError> {
        self.check_ready()?;
        if self.options.size.is_some_and(|size| size != self.written) {
            return Err(self.size_mismatch(self.written));
        }
        let digest = self.hasher.clone().finish();
        if let Some(expected) = expected {
            self.check_digest(digest, expected)?;
        }
        let counted = self.reserve_entry();
        counted.map_err(|error| self.place.conceal(error))?;
        let sealed = self.seal(&digest).at("write", &self.place.full)?;
        let (place, options, by) = (self.place.clone(), self.options, self.by.clone());
        let (file, size) = (Arc::clone(&self.file), self.written);
        let committed = Committed {
            path: self.publish()?,
            size,
            digest,
            version: sealed.version(|| Metadata::of(&file).ok()),
        };
        by.note(&place, options.if_exists, &committed);
        Ok(committed)
    }

    fn check_digest(&self, own: Digest, expected: Digest) -> Result<(), StorageError> {
        let path = &self.place.full;
        let actual = if own.algorithm() == expected.algorithm() {
            own
        } else {
            digest::compute(&self.file, expected.algorithm(), path)?
        };
        if actual == expected {
            return Ok(());
        }
        Err(StorageError::DigestMismatch {
            path: path.clone(),
            expected,
            actual,
        })
    }

    /// Completes the staged file and brings it to the disk, with its time and its digest.
    fn seal(&self, digest: &Digest) -> io::Result<Sealed> {
        let sealed = complete(&self.file, &self.place, self.options.modified, digest)?;
        let synced = self.file.sync_all();
        self.place.space.staging.synced(synced)?;
        Ok(sealed)
    }

    fn publish(mut self) -> Result<VirtualPath, StorageError> {
        let publishing = Publishing {
            staged: self.staged,
            reservation: self.reservation,
            to: &self.place,
            reach: Reach::default(),
        };
        let published = publishing.publish(self.options.if_exists, self.options.parents);
        // Until here the upload could have been gone on with after a kill.
        match published {
            Err(Unpublished {
                error: error @ StorageError::Suspended { .. },
                staged: Some(whole),
            }) => {
                // It is whole, and only nobody knows now what the member may do.
                (self.staged, self.reservation) = *whole;
                self.keep()?;
                Err(error)
            }
            published => published.map_err(|unpublished| unpublished.error),
        }
    }

    fn check_ready(&self) -> Result<(), StorageError> {
        let fault = if self.broken {
            "an earlier write failed"
        } else if self.hashed < self.written {
            "what was kept is not read back yet"
        } else {
            return Ok(());
        };
        Err(io::Error::other(fault)).at("write", &self.place.full)
    }

    fn size_mismatch(&self, received: u64) -> StorageError {
        StorageError::SizeMismatch {
            path: self.place.full.clone(),
            declared: self.options.size.unwrap_or(0),
            received,
        }
    }
}

/// A staged file that is complete.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) meta: Metadata,
    /// Absent where the file system keeps no attributes.
    version: Option<String>,
}

impl Sealed {
    /// The version of the file once it has its name. Where none is kept it is derived from what `now`
    /// says of it: the publication has changed its metadata.
    pub(crate) fn version(&self, now: impl FnOnce() -> Option<Metadata>) -> String {
        self.version.clone().unwrap_or_else(|| {
            let now = now().filter(|now| now.is_same_content(&self.meta));
            now.as_ref().unwrap_or(&self.meta).derived_version()
        })
    }
}

/// Gives a file whose bytes are written its time, and a version that it keeps with its digest.
pub(crate) fn complete(
    file: &File,
    place: &ResolvedPath,
    modified: Option<Timestamp>,
    digest: &Digest,
) -> io::Result<Sealed> {
    if let Some(modified) = modified {
        let mut last_access = timespec(modified);
        last_access.tv_nsec = UTIME_OMIT;
        let times = Timestamps {
            last_access,
            last_modification: timespec(modified),
        };
        futimens(file, &times)?;
    }
    let meta = Metadata::of(file)?;
    let version = keep_new_version(file, &meta, place, &[*digest])?;
    Ok(Sealed { meta, version })
}

/// Draws a version for the new content of `file`, which `meta` describes, and keeps it with the
/// digests. Returns it, unless the file system keeps no attributes.
pub(crate) fn keep_new_version(
    file: &File,
    meta: &Metadata,
    place: &ResolvedPath,
    digests: &[Digest],
) -> io::Result<Option<String>> {
    let attributes = Attributes::draw(digests)?;
    match attributes.keep(file, meta) {
        Ok(()) => Ok(Some(attributes.version().to_owned())),
        Err(error) => {
            tracing::debug!(
                name: "digest_not_kept",
                %error,
                path = %place.full,
                "a digest is not kept"
            );
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_attributes_the_version_is_that_of_the_file_under_its_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let (staged, named) = (dir.path().join("staged"), dir.path().join("named"));
        let file = File::create(&staged).expect("made");
        let sealed = Sealed {
            meta: Metadata::of(&file).expect("its metadata"),
            version: None,
        };
        std::fs::rename(&staged, &named).expect("moved");
        let found = Metadata::of(File::open(&named).expect("there")).expect("its metadata");
        let version = sealed.version(|| Metadata::of(&file).ok());
        assert_eq!(version, found.derived_version());
        // Another file may have the name by then.
        let other = Metadata::of(tempfile::tempfile().expect("a file")).ok();
        assert_eq!(sealed.version(|| other), sealed.meta.derived_version());
    }
}
