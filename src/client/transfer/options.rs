//! The options and the result of a transfer of one file.

use std::path::PathBuf;

use jiff::Timestamp;

use crate::client::ClientError;
use crate::protocol::{Algorithm, Digest, GetBegin, IfExists};

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

/// The state in which a file on the server was found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListedContent {
    pub(crate) size: u64,
    /// `None` if the size is not compared with the file that is sent.
    pub(crate) modified: Option<Timestamp>,
}

impl ListedContent {
    /// A file of about this size.
    pub(crate) fn from_size(size: u64) -> Self {
        Self {
            size,
            modified: None,
        }
    }

    /// Checks the announcement of the data. A file of another time was changed since, so it may have
    /// another size.
    ///
    /// # Errors
    /// [`ClientError::InvalidReply`] if a file of the same time has another size.
    pub(crate) fn check(self, begin: &GetBegin) -> Result<(), ClientError> {
        if self.modified != Some(begin.modified) || self.size == begin.size {
            return Ok(());
        }
        Err(ClientError::InvalidReply(format!(
            "a file of {} bytes that it listed with {}",
            begin.size, self.size
        )))
    }
}
