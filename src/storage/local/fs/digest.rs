//! Digests of stored files, computed by reading them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::protocol::{Algorithm, Digest, Hasher};
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::path::VirtualPath;

/// Bytes read at a time.
const PIECE: usize = 256 * 1024;

/// Reads the whole file.
///
/// # Errors
/// What the system said.
pub(crate) fn compute(
    file: &File,
    algorithm: Algorithm,
    path: &VirtualPath,
) -> Result<Digest, StorageError> {
    let mut hasher = Hasher::new(algorithm);
    let mut piece = vec![0; PIECE];
    let mut offset = 0;
    loop {
        match file.read_at(&mut piece, offset) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(length) => {
                hasher.update(&piece[..length]);
                offset += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).at("read", path),
        }
    }
}
