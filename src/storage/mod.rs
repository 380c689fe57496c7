//! Files: the one place through which all file bytes pass.
//!
//! ```text
//! View ── path ──► Place ──► Jail (the one resolver) ──► OpenDir, open files
//!                    │
//!                  Space: lock on names + ledger         Staging: everything unfinished
//! ```
//!
//! What a member may do is live: a view holds one object that can be changed, suspended and revoked
//! at any time, and work that goes on asks it again (see `access`).
//!
//! A [`Store`] is the data directory; a [`Space`] is a home or a shared folder in it, with a
//! quota; a [`View`] is what one member sees. An [`Upload`] and a [`StoredFile`] are values: what
//! is not committed never was in anybody's view, what is open stays readable. An upload that is cut
//! off can be kept, to be gone on with. All of it is synchronous and may block
//! on the disk, so a server calls it where blocking is allowed.
//!
//! Changes of names happen under the lock of their space and are accounted for before it is let
//! go; no lock is held while bytes move or while a tree is walked. A [`Change`] is told where names change, and nowhere else,
//! so that nothing changes unnoticed. Imports plain values of `protocol` and nothing else of
//! the crate.

pub(crate) mod access;
pub(crate) mod changes;
pub(crate) mod error;
pub(crate) mod local;
pub(crate) mod path;
pub(crate) mod rights;

#[cfg(test)]
pub(crate) mod tests;

pub use crate::storage::changes::{FileChange, VisiblePath};
pub use crate::storage::error::{DiskUse, StorageError};
pub use crate::storage::local::backup::{Backup, BackupCounts, BackupStep};
pub use crate::storage::local::count::CountEnd;
pub use crate::storage::local::data::check_mounted;
pub use crate::storage::local::file::{FileInfo, StoredFile};
pub use crate::storage::local::fs::verify::Verifier;
pub use crate::storage::local::listing::ListingPage;
pub use crate::storage::local::remove::Removed;
pub use crate::storage::local::space::Space;
pub use crate::storage::local::space_use::SpaceUse;
pub use crate::storage::local::store::{Store, StoreLock, set_folder_aside, set_home_aside};
pub use crate::storage::local::upload::already_committed::AlreadyCommitted;
pub use crate::storage::local::upload::batch::{
    MAX_BATCH_DESCRIPTORS, SmallCommitted, SmallUpload,
};
pub use crate::storage::local::upload::checkpoint::Checkpoint;
pub use crate::storage::local::upload::partial::{PartialUploadInfo, StoreSettings};
pub use crate::storage::local::upload::single::{Committed, Upload, UploadOptions};
pub use crate::storage::local::view::{BegunUpload, Mount, View};
pub use crate::storage::path::{InvalidPath, InvalidPathReason, VirtualPath};
pub use crate::storage::rights::{InvalidRights, Rights, SpaceLimits, SpaceUsage};
