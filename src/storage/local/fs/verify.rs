//! Checking that the bytes of a file are still those that were stored.

use crate::protocol::{Algorithm, Digest, Hasher};
use crate::storage::error::StorageError;
use crate::storage::local::file::StoredFile;

/// Hashes a whole file as it is read, and compares it with what was kept when it was written.
#[derive(Debug, Clone)]
pub struct Verifier {
    hasher: Hasher,
    /// The kept digest of another algorithm, where none of the wanted one is there to compare.
    witness: Option<(Hasher, Digest)>,
}

impl StoredFile {
    /// Begins to hash the file by `algorithm`.
    #[must_use]
    pub fn verifier(&self, algorithm: Algorithm) -> Verifier {
        let witness = match self.kept_digest(algorithm) {
            Some(_) => None,
            None => self.any_kept_digest(),
        };
        Verifier {
            hasher: Hasher::new(algorithm),
            witness: witness.map(|digest| (Hasher::new(digest.algorithm()), digest)),
        }
    }
}

impl Verifier {
    /// Takes in the next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        if let Some((hasher, _)) = &mut self.witness {
            hasher.update(bytes);
        }
    }

    /// The digest of `file`, all of whose bytes were taken in; it is kept with the file from now on.
    ///
    /// # Errors
    /// [`StorageError::Changed`] if the file was written to meanwhile,
    /// [`StorageError::DigestMismatch`] if its bytes are not those that were stored.
    pub fn finish(self, file: &StoredFile) -> Result<Digest, StorageError> {
        file.check_unchanged()?;
        let digest = self.hasher.finish();
        let kept = file.kept_digest(digest.algorithm());
        let (actual, expected) = match self.witness {
            Some((hasher, expected)) => (hasher.finish(), Some(expected)),
            None => (digest, kept),
        };
        if let Some(expected) = expected
            && expected != actual
        {
            return Err(StorageError::DigestMismatch {
                path: file.path().clone(),
                expected,
                actual,
            });
        }
        if kept.is_none() {
            file.keep_digest(digest);
        }
        Ok(digest)
    }
}
