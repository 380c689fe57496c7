//! The options and the result of a transfer of one file.

use std::path::PathBuf;

use crate::protocol::{Algorithm, Digest, IfExists};

/// Chunks that may wait between the disk and the network.
pub(crate) const QUEUED_CHUNKS: usize = 2;

/// The options of a transfer.
#[derive(Debug, Clone, Copy, Default)]
pub struct FileOptions {
    /// The action if a file of that name exists on the receiving side; by default it is replaced.
    pub if_exists: Option<IfExists>,
    /// The digest that both sides compute and compare.
    pub algorithm: Algorithm,
    /// Make missing directories on the server.
    pub parents: bool,
    /// The server knows deltas. A large file that replaces an older one is transferred by its changes.
    pub deltas: bool,
}

/// A file that was downloaded and verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedFile {
    /// Its local path.
    pub path: PathBuf,
    /// Its bytes.
    pub size: u64,
    /// The digest that both sides computed.
    pub digest: Option<Digest>,
}
