//! Setting the modification time and the permission bits of a file or directory.
//!
//! The content and its version stay. A time is stored with the content's attributes, so that the
//! version and the digests outlive it.

use std::fs::File;
use std::io;

use jiff::Timestamp;

use crate::protocol::FileMode;
use crate::storage::denied_reason::DeniedReason;
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::fs::attributes::Attributes;
use crate::storage::local::fs::metadata::{EntryKind, Metadata, set_modification_time};
use crate::storage::local::fs::mode::keep_mode;
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::view::View;
use crate::storage::path::VirtualPath;
use crate::storage::rights::Right;

/// Metadata that a client sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MetadataUpdate {
    /// The modification time; unchanged if absent.
    pub modified: Option<Timestamp>,
    /// The permission bits; unchanged if absent.
    pub mode: Option<FileMode>,
}

impl View {
    /// Sets metadata of the file or directory `path`, and returns the values that are stored. The
    /// content and its version stay. A file needs the right to overwrite as well.
    ///
    /// # Errors
    /// [`StorageError::NotFound`], or [`StorageError::Denied`] also if it is neither a file nor a
    /// directory.
    pub fn set_metadata(
        &self,
        path: &VirtualPath,
        update: MetadataUpdate,
    ) -> Result<MetadataUpdate, StorageError> {
        set_metadata(&self.resolve(path)?, update)
    }
}

/// Sets the metadata of the entry at `place`, and returns what is stored of it.
fn set_metadata(
    place: &ResolvedPath,
    update: MetadataUpdate,
) -> Result<MetadataUpdate, StorageError> {
    let (space, path) = (&place.space, &place.full);
    // The lock also keeps a digest from being stored with the old time meanwhile.
    let names = space.lock_names();
    place.require(Right::Write)?;
    let (file, meta) = space.sandbox.open(&place.inner).context("open", path)?;
    match meta.kind {
        EntryKind::Dir => {}
        EntryKind::File => {
            path.as_file()?;
            place.require(Right::Overwrite)?;
        }
        EntryKind::Link | EntryKind::Special => {
            return Err(StorageError::denied(path, DeniedReason::SpecialFile));
        }
    }
    let mut stored = MetadataUpdate::default();
    if let Some(mode) = update.mode {
        let is_kept = keep_mode(&file, mode).context("write", path)?;
        stored.mode = is_kept.then_some(mode);
    }
    if let Some(modified) = update.modified {
        let meta = set_modified(&file, &meta, modified).context("write", path)?;
        stored.modified = Some(meta.timestamp());
    }
    drop(names);
    let synced = space.staging.record_sync(file.sync_all());
    synced.context("sync", path)?;
    place.check_attached()?;
    Ok(stored)
}

/// Sets the modification time of an open entry that `meta` describes, and returns its metadata then.
fn set_modified(file: &File, meta: &Metadata, modified: Timestamp) -> io::Result<Metadata> {
    let attributes = (meta.kind == EntryKind::File).then(|| Attributes::of(file, meta));
    set_modification_time(file, modified)?;
    let meta = Metadata::of_open(file)?;
    if let Some(attributes) = attributes {
        // A file system that keeps no attributes has had none before.
        let _ = attributes.keep(file, &meta);
    }
    Ok(meta)
}
