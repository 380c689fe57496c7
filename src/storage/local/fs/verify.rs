//! Verification that the bytes of a stored file are those that were committed.

use crate::protocol::{Algorithm, Digest, Hasher};
use crate::storage::error::StorageError;
use crate::storage::local::file::StoredFile;
use crate::storage::local::fs::digest::check_equal;

/// Hashes a file as it is read, and compares the digest with the one that was kept at its commit.
#[derive(Debug, Clone)]
pub struct Verifier {
    hasher: Hasher,
    /// A kept digest of another algorithm, if none of the requested one is kept, and its hasher.
    other_kept: Option<(Hasher, Digest)>,
}

impl StoredFile {
    /// Begins to hash the file by `algorithm`.
    #[must_use]
    pub fn verifier(&self, algorithm: Algorithm) -> Verifier {
        let other_kept = match self.kept_digest(algorithm) {
            Some(_) => None,
            None => self.any_kept_digest(),
        };
        Verifier {
            hasher: Hasher::new(algorithm),
            other_kept: other_kept.map(|digest| (Hasher::new(digest.algorithm()), digest)),
        }
    }
}

impl Verifier {
    /// Hashes the next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        if let Some((hasher, _)) = &mut self.other_kept {
            hasher.update(bytes);
        }
    }

    /// The digest of `file`, all of whose bytes were hashed. It is kept with the file from now on.
    ///
    /// # Errors
    /// [`StorageError::Changed`] if the file was written to meanwhile,
    /// [`StorageError::DigestMismatch`] if its bytes are not those that were committed.
    pub fn finish(self, file: &StoredFile) -> Result<Digest, StorageError> {
        file.check_unchanged()?;
        let digest = self.hasher.finish();
        let kept = file.kept_digest(digest.algorithm());
        if let Some((hasher, expected)) = self.other_kept {
            check_equal(hasher.finish(), expected, file.path())?;
        } else if let Some(expected) = kept {
            check_equal(digest, expected, file.path())?;
        }
        if kept.is_none() {
            file.keep_digest(digest);
        }
        Ok(digest)
    }
}
