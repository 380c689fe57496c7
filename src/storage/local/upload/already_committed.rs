//! An upload whose file is there already: its commit was done, and the answer got lost.

use std::io;

use crate::protocol::{Digest, IfExists};
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::file::StoredFile;
use crate::storage::local::fs::digest;
use crate::storage::local::fs::metadata::EntryKind;
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::fs::staging::random_name;
use crate::storage::local::upload::single::{Committed, UploadOptions, Uploader};

/// A file that is what an upload would make it. Every call may block on the disk.
#[derive(Debug)]
pub struct AlreadyCommitted {
    id: String,
    place: ResolvedPath,
    file: StoredFile,
    committed: Committed,
    by: Uploader,
    /// It is known from the list of recent commits, which it is to be taken from.
    is_recent: bool,
}

impl AlreadyCommitted {
    /// Looks for the file where it went: at the path, where that says whose it is, else where the
    /// recent commits say.
    pub(crate) fn find(
        place: &ResolvedPath,
        options: UploadOptions,
        by: &Uploader,
    ) -> Result<Option<Self>, StorageError> {
        let Some(size) = options.size else {
            return Ok(None);
        };
        let is_recent = is_known_by_list(place, options.if_exists);
        let mut place = place.clone();
        let mut known = None;
        if is_recent {
            known = by.kept.recent.find(&by.owner, &place, &by.session, size);
            let Some(committed) = &known else {
                return Ok(None);
            };
            place = place.renamed(&committed.path)?;
        }
        let Some((file, digest)) = open(&place, &options, size)? else {
            return Ok(None);
        };
        let committed = Committed {
            path: place.full.clone(),
            size,
            digest,
            version: file.info().version.clone().unwrap_or_default(),
        };
        if known.is_some_and(|known| known != committed) {
            return Ok(None);
        }
        Ok(Some(Self {
            id: random_name().at("name", &place.full)?,
            place,
            file,
            committed,
            by: by.clone(),
            is_recent,
        }))
    }

    /// A name for the upload: random, hex.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Bytes in the file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.committed.size
    }

    /// Their digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.committed.digest
    }

    /// What came for it is more than was declared.
    #[must_use]
    pub fn too_much(&self, more: u64) -> StorageError {
        StorageError::SizeMismatch {
            path: self.place.full.clone(),
            declared: self.size(),
            received: self.size().saturating_add(more),
        }
    }

    /// Answers as the commit did, if the file is still the same and `expected`. Nothing is written.
    ///
    /// # Errors
    /// [`StorageError::Changed`] if it is not the same any more, [`StorageError::DigestMismatch`],
    /// else what the system said.
    pub fn confirm(self, expected: Option<Digest>) -> Result<Committed, StorageError> {
        let path = &self.place.full;
        if let Some(expected) = expected {
            let own = self.committed.digest;
            let actual = if own.algorithm() == expected.algorithm() {
                own
            } else {
                digest::compute(self.file.handle(), expected.algorithm(), path)?
            };
            if actual != expected {
                return Err(StorageError::DigestMismatch {
                    path: path.clone(),
                    expected,
                    actual,
                });
            }
        }
        self.place.require(|rights| rights.write)?;
        self.file.check_content()?;
        self.make_last()?;
        self.place.check_attached()?;
        let (dir, name) = self.place.open_parent()?;
        let there = dir.meta(name).at("look at", path)?;
        let is_same = there.is_some_and(|meta| meta.is_same_content(self.file.meta()));
        // A recent commit is answered again once: the next of the same kind is a new file.
        if !is_same || self.is_recent && !self.by.kept.recent.forget(&self.committed) {
            return Err(StorageError::changed(path));
        }
        Ok(self.committed)
    }
}

impl AlreadyCommitted {
    /// The server may have been killed between the commit and its syncs.
    fn make_last(&self) -> Result<(), StorageError> {
        let path = &self.place.full;
        let staging = &self.place.space.staging;
        staging
            .synced(self.file.handle().sync_all())
            .at("sync", path)?;
        let mut above = self.place.inner.parent();
        while let Some(dir) = above {
            let opened = self.place.space.jail.open_dir(&dir).at("open", path)?;
            staging.synced(opened.sync()).at("sync", path)?;
            above = dir.parent();
        }
        Ok(())
    }
}

/// Whether only the list of recent commits tells whose file it is that an upload finds: it went to
/// another path, or whoever asks may not know what others have there, or not have it replaced.
pub(crate) fn is_known_by_list(place: &ResolvedPath, if_exists: IfExists) -> bool {
    // Whose rights are not known learns nothing of what is there.
    let rights = place.rights().unwrap_or_default();
    match if_exists {
        IfExists::Rename => true,
        IfExists::Replace => !rights.read || !rights.overwrite,
        IfExists::Fail => !rights.read,
    }
}

/// The file at `place`, if it is of that size and time and its digest is known.
fn open(
    place: &ResolvedPath,
    options: &UploadOptions,
    size: u64,
) -> Result<Option<(StoredFile, Digest)>, StorageError> {
    let opened = place.open_parent().and_then(|(dir, name)| {
        let opened = dir.open_file(name);
        opened.at("open", &place.full)
    });
    let (file, meta) = match opened {
        Ok(opened) => opened,
        Err(StorageError::Io {
            doing,
            path,
            source,
        }) if source.kind() != io::ErrorKind::NotFound => {
            return Err(StorageError::Io {
                doing,
                path,
                source,
            });
        }
        Err(_) => return Ok(None),
    };
    let is_it = meta.what == EntryKind::File
        && meta.size == size
        && options.modified.is_none_or(|time| time == meta.timestamp());
    if !is_it {
        return Ok(None);
    }
    let file = StoredFile::of(place, file, meta)?;
    let digest = file.kept_digest(options.algorithm);
    Ok(digest.map(|digest| (file, digest)))
}
