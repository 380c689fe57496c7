//! A stored file that is open for reading, and what is known of a file or directory.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, pread};

use crate::protocol::{Algorithm, Digest, FileMode, Kind};
use crate::storage::denied_reason::DeniedReason;
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::access::Permission;
use crate::storage::local::fs::attributes::Attributes;
use crate::storage::local::fs::metadata::{EntryKind, Metadata};
use crate::storage::local::fs::mode::read_mode;
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::space::Space;
use crate::storage::path::VirtualPath;
use crate::storage::rights::Right;

/// Metadata of a file or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// A file or a directory.
    pub kind: Kind,
    /// Bytes of a file; 0 for a directory.
    pub size: u64,
    /// When its contents last changed.
    pub modified: Timestamp,
    /// The permission bits that a client has given to it.
    pub mode: Option<FileMode>,
    /// Identifies the content: it differs whenever the content does, and stays when the file is moved or
    /// restored from a backup. Opaque; absent for directories.
    pub version: Option<String>,
    /// The digest of the content, if one is stored and the member may read the content.
    pub digest: Option<Digest>,
}

impl FileInfo {
    /// The metadata of the open entry at `place`.
    ///
    /// # Errors
    /// [`StorageError::Denied`] if it is neither a file nor a directory.
    pub(crate) fn from_open(
        place: &ResolvedPath,
        file: &File,
        meta: &Metadata,
    ) -> Result<Self, StorageError> {
        Self::with_attributes(place, file, meta).map(|(info, _)| info)
    }

    fn with_attributes(
        place: &ResolvedPath,
        file: &File,
        meta: &Metadata,
    ) -> Result<(Self, Option<Attributes>), StorageError> {
        let mut info = Self {
            kind: Kind::Dir,
            size: 0,
            modified: meta.timestamp(),
            mode: None,
            version: None,
            digest: None,
        };
        match meta.kind {
            EntryKind::Dir => {
                info.mode = read_mode(file);
                Ok((info, None))
            }
            EntryKind::File => {
                place.full.as_file()?;
                let attributes = Attributes::of(file, meta);
                info.kind = Kind::File;
                info.size = meta.size;
                info.mode = read_mode(file);
                info.version = Some(attributes.version().to_owned());
                if place.rights()?.read {
                    info.digest = attributes.any_digest();
                }
                Ok((info, Some(attributes)))
            }
            EntryKind::Link | EntryKind::Special => {
                Err(StorageError::denied(&place.full, DeniedReason::SpecialFile))
            }
        }
    }
}

/// A file that is open for reading. Its content stays the same when its name is moved, removed or
/// given to another file. Every call may block on the disk.
#[derive(Debug)]
pub struct StoredFile {
    file: File,
    meta: Metadata,
    info: FileInfo,
    attributes: Attributes,
    path: VirtualPath,
    space: Arc<Space>,
    permission: Permission,
}

impl StoredFile {
    /// Opens the file at `place`.
    pub(crate) fn open(place: &ResolvedPath) -> Result<Self, StorageError> {
        place.require(Right::Read)?;
        let opened = place
            .space
            .sandbox
            .open(&place.inner)
            .context("open", &place.full);
        let (file, meta) = opened.map_err(|error| place.locate_file(error).looking_for("file"))?;
        Self::from_open(place, file, meta)
    }

    /// The open file of `place`.
    pub(crate) fn from_open(
        place: &ResolvedPath,
        file: File,
        meta: Metadata,
    ) -> Result<Self, StorageError> {
        let (info, attributes) = FileInfo::with_attributes(place, &file, &meta)?;
        let attributes = attributes.ok_or_else(|| StorageError::is_a_directory(&place.full))?;
        Ok(Self {
            info,
            attributes,
            file,
            meta,
            path: place.full.clone(),
            space: Arc::clone(&place.space),
            permission: place.permission.clone(),
        })
    }

    /// Makes sure that the member may still read it, without asking the disk.
    ///
    /// # Errors
    /// [`StorageError::Denied`], [`StorageError::Suspended`].
    pub fn check_access(&self) -> Result<(), StorageError> {
        let rights = self.permission.rights(&self.space, &self.path)?;
        rights.require(Right::Read, &self.path)
    }

    /// The metadata as of when the file was opened.
    #[must_use]
    pub fn info(&self) -> &FileInfo {
        &self.info
    }

    /// The digest that was stored when the content was written.
    #[must_use]
    pub fn kept_digest(&self, algorithm: Algorithm) -> Option<Digest> {
        self.attributes.digest(algorithm)
    }

    /// Any stored digest, the default algorithm's first.
    pub(crate) fn any_kept_digest(&self) -> Option<Digest> {
        self.attributes.any_digest()
    }

    /// The stored digests.
    pub(crate) fn kept_digests(&self) -> &[Digest] {
        self.attributes.digests()
    }

    /// Stores a digest of the content for later readers, unless the content has changed or the file
    /// system keeps no attributes.
    ///
    /// The version is stored with it, because the change of the attributes would change a derived
    /// version.
    pub(crate) fn keep_digest(&self, digest: Digest) {
        // Nobody sets the time meanwhile, which would make the attribute stale.
        let _names = self.space.lock_names();
        if self.check_content().is_err() {
            return;
        }
        let kept = Attributes::read(&self.file, &self.meta);
        let mut attributes = kept.unwrap_or_else(|| self.attributes.clone());
        attributes.add(digest);
        if let Err(error) = attributes.keep(&self.file, &self.meta) {
            tracing::debug!(
                name: "digest_not_kept",
                %error,
                path = %self.path,
                "the file system did not keep the version and the digest of a file"
            );
        }
    }

    /// Reads exactly `length` bytes from `offset` on into a new buffer.
    ///
    /// # Errors
    /// [`StorageError::OffsetOutOfRange`] if the range is not within the file,
    /// [`StorageError::Changed`] if the file has become shorter, the errors of
    /// [`check_access`](Self::check_access), else the system's error.
    pub fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, StorageError> {
        let mut bytes = Vec::new();
        self.read_into(&mut bytes, offset, length)?;
        Ok(Bytes::from(bytes))
    }

    /// As [`Self::read_at`], in place of what `bytes` has, and in its memory if that is enough.
    ///
    /// # Errors
    /// Those of [`Self::read_at`].
    pub fn read_into(
        &self,
        bytes: &mut Vec<u8>,
        offset: u64,
        length: usize,
    ) -> Result<(), StorageError> {
        self.check_access()?;
        let size = self.meta.size;
        let end = offset.checked_add(length as u64);
        if end.is_none_or(|end| end > size) {
            let path = self.path.clone();
            return Err(StorageError::OffsetOutOfRange { path, size });
        }
        bytes.clear();
        bytes.reserve_exact(length);
        while bytes.len() < length {
            let position = offset + bytes.len() as u64;
            match pread(&self.file, spare_capacity(bytes), position) {
                Ok(0) => return Err(StorageError::changed(&self.path)),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error)).context("read", &self.path),
            }
        }
        bytes.truncate(length);
        Ok(())
    }

    /// Makes sure that the range is within the file.
    ///
    /// # Errors
    /// [`StorageError::OffsetOutOfRange`].
    pub fn check_range(&self, range: Range<u64>) -> Result<(), StorageError> {
        let size = self.meta.size;
        if range.start <= range.end && range.end <= size {
            return Ok(());
        }
        let path = self.path.clone();
        Err(StorageError::OffsetOutOfRange { path, size })
    }

    /// Makes sure that the content is still the one that was opened, and that the member may read
    /// it.
    ///
    /// # Errors
    /// [`StorageError::Changed`] if it was written to, the errors of
    /// [`check_access`](Self::check_access), else the system's error.
    pub fn check_unchanged(&self) -> Result<(), StorageError> {
        self.check_access()?;
        self.check_content()
    }

    /// As [`check_unchanged`](Self::check_unchanged), whatever the member may do.
    pub(crate) fn check_content(&self) -> Result<(), StorageError> {
        let now = Metadata::of_open(&self.file).context("look at", &self.path)?;
        if now.is_same_content(&self.meta) {
            Ok(())
        } else {
            Err(StorageError::changed(&self.path))
        }
    }

    /// The error for a failed read by the kernel.
    #[must_use]
    pub fn unreadable(&self, error: io::Error) -> StorageError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => StorageError::changed(&self.path),
            _ => StorageError::from_io(error, "read", &self.path),
        }
    }

    /// The open handle.
    pub(crate) fn handle(&self) -> &File {
        &self.file
    }

    /// The metadata of the file system as of when the file was opened.
    pub(crate) fn meta(&self) -> &Metadata {
        &self.meta
    }

    pub(crate) fn path(&self) -> &VirtualPath {
        &self.path
    }
}

/// For reads by the kernel. The caller must call [`check_unchanged`](StoredFile::check_unchanged)
/// afterwards to learn whether it read one content.
impl AsFd for StoredFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
