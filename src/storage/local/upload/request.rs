//! The values that a caller passes to an upload and gets from its commit.

use bytes::Bytes;
use jiff::Timestamp;

use crate::protocol::{Algorithm, Digest, FileMode, IfExists};
use crate::storage::error::StorageError;
use crate::storage::path::VirtualPath;

/// How to upload a file.
#[derive(Debug, Clone, Copy)]
pub struct UploadOptions {
    /// The declared size in bytes, if the client knows it.
    pub size: Option<u64>,
    /// The action of the commit if the path exists.
    pub if_exists: IfExists,
    /// The modification time that the file gets; the time of the upload if absent.
    pub modified: Option<Timestamp>,
    /// The permission bits that are kept with the file.
    pub mode: Option<FileMode>,
    /// Whether the commit makes missing directories above the file.
    pub parents: bool,
    /// The algorithm of the digest that is computed and kept with the file.
    pub algorithm: Algorithm,
}

impl UploadOptions {
    /// Checks the size of the content against the declared size.
    pub(crate) fn check_size(&self, received: u64, path: &VirtualPath) -> Result<(), StorageError> {
        match self.size {
            Some(declared) if declared != received => Err(StorageError::SizeMismatch {
                path: path.clone(),
                declared,
                received,
            }),
            _ => Ok(()),
        }
    }
}

/// A small file whose content is complete and in memory, ready to be staged and committed in a
/// batch.
#[derive(Debug)]
pub struct BufferedUpload {
    /// The path of the file.
    pub path: VirtualPath,
    /// As for an [`Upload`](crate::storage::Upload) that receives its content.
    pub options: UploadOptions,
    /// The content, in order.
    pub content: Vec<Bytes>,
    /// The digest that the client declared.
    pub expected: Option<Digest>,
}

/// A committed file: it has its name and survives a power cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The path that the file got.
    pub path: VirtualPath,
    /// Its size in bytes.
    pub size: u64,
    /// Its digest, by the algorithm of the options.
    pub digest: Digest,
    /// Its version, as in [`FileInfo`](crate::storage::FileInfo).
    pub version: String,
}

/// A committed file and the upload that brought it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedUpload {
    /// The id of the upload: random, hex.
    pub id: String,
    /// The file.
    pub committed: Committed,
}
