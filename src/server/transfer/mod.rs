//! Transfers: uploads and downloads of a session, their registry, their progress, and the bandwidth of users.

pub(crate) mod bandwidth;
pub(crate) mod coalescer;
pub(crate) mod download;
pub(crate) mod hashing;
pub(crate) mod progress;
pub(crate) mod registry;
pub(crate) mod small_upload;
pub(crate) mod upload;
pub(crate) mod upload_registry;
