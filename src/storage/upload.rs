//! An upload: staged, hashed as it comes, and in its place only once it is whole and on the disk.

use std::fs::File;
use std::io::{self, Write};

use jiff::Timestamp;
use rustix::fs::{Timestamps, UTIME_OMIT, futimens};

use super::digest;
use super::error::{At, StorageError};
use super::landing::check;
use super::meta::{Meta, timespec};
use super::path::VirtualPath;
use super::place::Place;
use super::publish::Publishing;
use super::quota::{Count, Reservation};
use super::staging::Staged;
use crate::protocol::{Algorithm, Digest, Hasher, IfExists};

/// What the disk keeps free for the server's own records: so much, or a hundredth if that is less.
const FREE_FLOOR: u64 = 64 * 1024 * 1024;

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

/// An upload under way. Dropping it discards what came and gives back what was reserved. Every
/// call may block on the disk.
#[derive(Debug)]
pub struct Upload {
    place: Place,
    options: UploadOptions,
    staged: Staged,
    file: File,
    hasher: Hasher,
    written: u64,
    reservation: Reservation,
    /// A write has failed, so what is staged is not what came.
    broken: bool,
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
    /// The file's version, as in [`Info`](super::Info).
    pub version: String,
}

impl Upload {
    /// Reserves the room and stages an empty file. Nothing exists after an error.
    pub(super) fn begin(place: Place, options: UploadOptions) -> Result<Self, StorageError> {
        if place.is_root() {
            return Err(StorageError::is_a_directory(&place.full));
        }
        check(&place, false, options.if_exists, options.parents)?;
        let staging = &place.space.staging;
        check_free_space(&place, options.size.unwrap_or(0))?;
        let mut reservation = Reservation::new(&place.space);
        reservation.grow(Count::file(options.size.unwrap_or(0)), &place.full)?;
        let (staged, file) = staging.file().at("stage", &place.full)?;
        Ok(Self {
            hasher: Hasher::new(options.algorithm),
            written: 0,
            broken: false,
            place,
            options,
            staged,
            file,
            reservation,
        })
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

    /// Bytes that came so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`StorageError::SizeMismatch`] if they are more than declared,
    /// [`StorageError::QuotaExceeded`] and [`StorageError::NoSpace`] if there is no room for them,
    /// else what the system said. The upload can only be dropped after one.
    pub fn write(&mut self, chunk: &[u8]) -> Result<(), StorageError> {
        let taken = self.take(chunk);
        self.broken |= taken.is_err();
        taken
    }

    fn take(&mut self, chunk: &[u8]) -> Result<(), StorageError> {
        self.check_unbroken()?;
        let length = chunk.len() as u64;
        let received = self.written.saturating_add(length);
        match self.options.size {
            Some(declared) if received > declared => return Err(self.size_mismatch(received)),
            Some(_) => {}
            None => {
                let more = Count {
                    bytes: length,
                    files: 0,
                };
                self.reservation.grow(more, &self.place.full)?;
            }
        }
        self.file.write_all(chunk).at("write", &self.place.full)?;
        self.hasher.update(chunk);
        self.written = received;
        Ok(())
    }

    /// Puts the file in its place, if it is what was declared and `expected`. Until this returns,
    /// what was there before is there still; after it has returned, a power cut does not matter.
    ///
    /// A digest of another algorithm than was chosen costs reading the file once more.
    ///
    /// # Errors
    /// [`StorageError::SizeMismatch`], [`StorageError::DigestMismatch`], whatever the path has come
    /// to mean meanwhile, or what the system said. The upload is discarded.
    pub fn commit(self, expected: Option<Digest>) -> Result<Committed, StorageError> {
        self.check_unbroken()?;
        if self.options.size.is_some_and(|size| size != self.written) {
            return Err(self.size_mismatch(self.written));
        }
        let digest = self.hasher.clone().finish();
        if let Some(expected) = expected {
            self.check_digest(digest, expected)?;
        }
        let meta = self.seal(&digest).at("write", &self.place.full)?;
        let size = self.written;
        Ok(Committed {
            path: self.publish()?,
            size,
            digest,
            version: meta.version(),
        })
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
    fn seal(&self, digest: &Digest) -> io::Result<Meta> {
        if let Some(modified) = self.options.modified {
            let mut last_access = timespec(modified);
            last_access.tv_nsec = UTIME_OMIT;
            let times = Timestamps {
                last_access,
                last_modification: timespec(modified),
            };
            futimens(&self.file, &times)?;
        }
        let meta = Meta::of(&self.file)?;
        if let Err(error) = digest::keep(&self.file, &meta, digest) {
            tracing::debug!(%error, path = %self.place.full, "a digest is not kept");
        }
        let synced = self.file.sync_all();
        self.place.space.staging.synced(synced)?;
        Ok(meta)
    }

    fn publish(self) -> Result<VirtualPath, StorageError> {
        let Self {
            place,
            options,
            staged,
            reservation,
            ..
        } = self;
        let publishing = Publishing {
            staged,
            reservation,
            to: &place,
        };
        publishing.publish(options.if_exists, options.parents)
    }

    fn check_unbroken(&self) -> Result<(), StorageError> {
        if self.broken {
            return Err(io::Error::other("an earlier write failed")).at("write", &self.place.full);
        }
        Ok(())
    }

    fn size_mismatch(&self, received: u64) -> StorageError {
        StorageError::SizeMismatch {
            path: self.place.full.clone(),
            declared: self.options.size.unwrap_or(0),
            received,
        }
    }
}

fn check_free_space(place: &Place, size: u64) -> Result<(), StorageError> {
    let (free, disk) = place.space.staging.dir.space().at("ask for", &place.full)?;
    let needed = size.saturating_add(FREE_FLOOR.min(disk / 100));
    if needed > free {
        let path = place.full.clone();
        return Err(StorageError::NoSpace { path });
    }
    Ok(())
}
