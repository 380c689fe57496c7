//! Uploads: small and large ones are one type, [`Upload`], and reach their names through one commit.
//!
//! ```text
//! View::begin      ─► Receiving ─ commit ─► Sealed ─┐
//!                        │ keep                     ├─► UploadBatch ─► Committed
//!                        ▼                          │
//!                  PartialUpload ─ resume ─► Receiving
//! View::commit_all ─► stage_buffered ──────► Sealed ─┘
//! ```
//!
//! An upload writes to a file in staging, on the file system of the homes and outside all of them. It
//! reserves quota and disk for the bytes that arrive. A client that sends a large file streams it into
//! the file (`receive`), and checkpoints record how much of it is synced (`checkpoint`, `record`), so
//! that it can be resumed (`resume`, `partial`), also after the server was killed (`recover`). A small
//! file arrives in memory and is staged in one step (`buffered`). Either is then sealed (`sealed`) and
//! committed in a batch of one or more (`batch`, `commit`).
//!
//! Everything here may block on the disk and runs on the threads of the session layer. No lock is held
//! over reads, writes or syncs, except a record's own while it is written. A file is visible under its
//! name only after it is synced, and acknowledged only after its name is.
//!
//! [`Upload`]: receive::Upload

pub(crate) mod already_committed;
pub(crate) mod batch;
pub(crate) mod buffered;
pub(crate) mod checkpoint;
pub(crate) mod commit;
pub(crate) mod partial;
pub(crate) mod receive;
pub(crate) mod recent_commits;
pub(crate) mod record;
pub(crate) mod recover;
pub(crate) mod request;
pub(crate) mod resume;
pub(crate) mod sealed;
pub(crate) mod uploader;
