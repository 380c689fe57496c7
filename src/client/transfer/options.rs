//! The options and the result of a transfer of one file.

use std::path::PathBuf;

use crate::protocol::{Algorithm, Digest, IfExists};

/// Chunks between the disk and the network.
pub(crate) const QUEUED_CHUNKS: usize = 2;

/// How files are moved.
#[derive(Debug, Clone, Copy, Default)]
pub struct FileOptions {
    /// The action if there is a file of that name on the receiving side; replace it if absent.
    pub if_exists: Option<IfExists>,
    /// The digest that both sides compute and compare.
    pub algorithm: Algorithm,
    /// Make missing directories on the server.
    pub parents: bool,
}

/// A file that was got, whole and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedFile {
    /// Where it is now.
    pub path: PathBuf,
    /// Its bytes.
    pub size: u64,
    /// The digest that both sides agree on.
    pub digest: Option<Digest>,
}
