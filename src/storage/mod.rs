//! The boundary to files: every byte of a stored file passes through this module.
//!
//! The files of `storage` itself hold values that every engine shares: paths, rights, access,
//! changes and errors. They import nothing of an engine. `local` is the embedded engine over a
//! directory:
//!
//! ```text
//! View ── path ──► ResolvedPath ──► Sandbox (the one path resolver) ──► OpenDir, open files
//!                       │
//!                     Space: lock on names, quota ledger        Staging: everything unfinished
//! ```
//!
//! A [`Store`] is the data directory. A [`Space`] is a home or a shared folder in it, with a quota.
//! A [`View`] shows one member's spaces; the member's access can be replaced, suspended and revoked
//! at any time, and operations under way check it again. An [`Upload`] and a [`StoredFile`] are
//! values: an upload is in no view before its commit, and an open file stays readable. An
//! interrupted upload can be kept and resumed. All calls are synchronous and may block on the disk,
//! so a server makes them where blocking is allowed.
//!
//! A name changes under the lock of its space, which is held until the change is accounted for. No
//! lock is held while bytes are written or a tree is walked. Every change of a name is published as
//! a [`FileChange`]. The module imports plain values of `protocol` and nothing else of a layer.

pub(crate) mod access;
pub(crate) mod changes;
pub(crate) mod count_end;
pub(crate) mod denied_reason;
pub(crate) mod error;
pub(crate) mod local;
pub(crate) mod path;
pub(crate) mod rights;

#[cfg(test)]
pub(crate) mod tests;

pub use crate::storage::changes::{FileChange, VisiblePath};
pub use crate::storage::count_end::CountEnd;
pub use crate::storage::denied_reason::DeniedReason;
pub use crate::storage::error::{DiskUse, StorageError};
pub use crate::storage::local::access::Mount;
pub use crate::storage::local::backup::{Backup, BackupOutcome};
pub use crate::storage::local::backup_pass::{BackupStep, BackupWatcher};
pub use crate::storage::local::data::check_mounted;
pub use crate::storage::local::file::{FileInfo, StoredFile};
pub use crate::storage::local::fs::verify::Verifier;
pub use crate::storage::local::listing::ListingPage;
pub use crate::storage::local::remove::Removed;
pub use crate::storage::local::set_metadata::MetadataUpdate;
pub use crate::storage::local::space::Space;
pub use crate::storage::local::space_use::SpaceUse;
pub use crate::storage::local::store::{Store, StoreLock, set_folder_aside, set_home_aside};
pub use crate::storage::local::tree_listing::TreeListing;
pub use crate::storage::local::upload::already_committed::AlreadyCommitted;
pub use crate::storage::local::upload::batch::MAX_BATCH_DESCRIPTORS;
pub use crate::storage::local::upload::checkpoint::Checkpoint;
pub use crate::storage::local::upload::partial::{PartialUploadInfo, StoreSettings};
pub use crate::storage::local::upload::receive::Upload;
pub use crate::storage::local::upload::request::{
    BufferedUpload, Committed, CommittedUpload, UploadOptions,
};
pub use crate::storage::local::view::{BegunUpload, View};
pub use crate::storage::path::{InvalidPath, InvalidPathReason, VirtualPath};
pub use crate::storage::rights::{
    InvalidRightName, InvalidRights, Right, Rights, SpaceLimits, SpaceUsage,
};
