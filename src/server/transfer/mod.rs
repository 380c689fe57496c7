//! Transfers: uploads and downloads of a session, their progress, and the bandwidth of users.
//!
//! Four tables know uploads. They have different owners, keys and life times, so none can serve for
//! another:
//!
//! | table | owner, lock | entry | from, to |
//! |---|---|---|---|
//! | [`SessionTransfers`] | the request loop of a session, no lock | stream id → channel | `put` to `end` |
//! | [`RunningTransfers`] | a session, its tasks and operators, one lock a session | request id → cancel, progress | `put` or `get` to the final reply |
//! | [`LiveUploads`] | the server, one lock | user, path, size → attempts in all sessions | the start of the upload to its last change on the disk |
//! | `PartialUploads` of the storage | the store, one lock | upload id → bytes on the disk | the end of a session to resume or expiry |
//!
//! [`LiveUploads`]: live_uploads::LiveUploads
//! [`RunningTransfers`]: running_transfers::RunningTransfers
//! [`SessionTransfers`]: session_transfers::SessionTransfers

pub(crate) mod bandwidth;
pub(crate) mod coalescer;
pub(crate) mod download;
pub(crate) mod hashing;
pub(crate) mod live_uploads;
pub(crate) mod pending_upload;
pub(crate) mod progress;
pub(crate) mod running_checkpoint;
pub(crate) mod running_transfers;
pub(crate) mod session_transfers;
pub(crate) mod upload_channel;
pub(crate) mod upload_copy;
pub(crate) mod upload_queue;
pub(crate) mod upload_writer;
