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

mod access;
mod attributes;
mod backup;
mod batch;
mod changes;
mod copy;
mod count;
mod data;
mod digest;
mod error;
mod file;
mod jail;
mod kept;
mod landing;
mod listing;
mod meta;
mod path;
mod place;
mod publish;
mod quota;
mod recent;
mod record;
mod recover;
mod remove;
mod rename;
mod resume;
mod rights;
mod space;
mod staging;
mod store;
mod tally;
mod there;
mod tree;
mod unsynced;
mod upload;
mod verify;
mod view;
mod watched;

#[cfg(test)]
mod tests;

pub use backup::{Backup, Copied, Step};
pub use batch::{MAX_BATCH_DESCRIPTORS, SmallCommitted, SmallUpload};
pub use changes::{Change, Seen};
pub use count::CountEnd;
pub use data::check_mounted;
pub use error::{Room, StorageError};
pub use file::{Info, StoredFile};
pub use kept::{KeptUpload, StoreSettings};
pub use listing::Page;
pub use path::{InvalidPath, InvalidPathReason, VirtualPath};
pub use remove::Removed;
pub use resume::Checkpoint;
pub use rights::{InvalidRights, Limits, Rights, Usage};
pub use space::Space;
pub use store::{Store, StoreLock, set_folder_aside, set_home_aside};
pub use there::AlreadyThere;
pub use upload::{Committed, Upload, UploadOptions};
pub use verify::Verifier;
pub use view::{Begun, Mount, View};
pub use watched::SpaceUse;
