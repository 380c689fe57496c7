//! Digests of files: computed from their bytes, and compared.
//!
//! Every comparison of digests in the storage layer is made here.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::protocol::{Algorithm, Digest, Hasher};
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::path::VirtualPath;

/// Bytes that are read at a time.
const READ_BYTES: usize = 256 * 1024;

/// Computes the digest of a file by reading it from its start.
///
/// # Errors
/// [`StorageError::Io`] if the file cannot be read.
pub(crate) fn compute(
    file: &File,
    algorithm: Algorithm,
    path: &VirtualPath,
) -> Result<Digest, StorageError> {
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; READ_BYTES];
    let mut offset = 0;
    loop {
        match file.read_at(&mut buffer, offset) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(length) => {
                hasher.update(&buffer[..length]);
                offset += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("read", path),
        }
    }
}

/// Checks a content against the digest that the client declared for it, if any. `own` is the digest of
/// the content that is known; `compute` computes it by the algorithm of the client if that differs.
///
/// # Errors
/// [`StorageError::DigestMismatch`], or the error of `compute`.
pub(crate) fn check_expected(
    own: Digest,
    expected: Option<Digest>,
    path: &VirtualPath,
    compute: impl FnOnce(Algorithm) -> Result<Digest, StorageError>,
) -> Result<(), StorageError> {
    let Some(expected) = expected else {
        return Ok(());
    };
    let actual = if own.algorithm() == expected.algorithm() {
        own
    } else {
        compute(expected.algorithm())?
    };
    check_equal(actual, expected, path)
}

/// Checks that a computed digest is the expected one.
///
/// # Errors
/// [`StorageError::DigestMismatch`].
pub(crate) fn check_equal(
    actual: Digest,
    expected: Digest,
    path: &VirtualPath,
) -> Result<(), StorageError> {
    if actual == expected {
        return Ok(());
    }
    Err(StorageError::DigestMismatch {
        path: path.clone(),
        expected,
        actual,
    })
}
