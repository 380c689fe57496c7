//! Staging of an upload whose content is in memory: it is written and sealed in one step.

use std::fs::File;
use std::io::Write;

use crate::protocol::{Algorithm, Digest, Hasher};
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::fs::digest::check_expected;
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::reservation::Reservation;
use crate::storage::local::space_count::SpaceCount;
use crate::storage::local::upload::receive::{SealedUpload, Upload, UploadState};
use crate::storage::local::upload::request::BufferedUpload;
use crate::storage::local::upload::sealed::SealedFile;
use crate::storage::local::upload::uploader::Uploader;
use crate::storage::path::VirtualPath;

impl BufferedUpload {
    /// Bytes of the content.
    pub(crate) fn length(&self) -> u64 {
        self.content.iter().map(|chunk| chunk.len() as u64).sum()
    }

    /// Reserves quota and disk for the declared size, before anything is staged.
    pub(crate) fn reserve(&self, target: &ResolvedPath) -> Result<Reservation, StorageError> {
        let declared = self.options.size.unwrap_or_else(|| self.length());
        let mut reservation = Reservation::new(&target.space);
        reservation.reserve(SpaceCount::file(declared), &target.full)?;
        Ok(reservation)
    }

    /// Checks the content against its declared size and digest. Returns its digest by the algorithm
    /// of the options.
    pub(crate) fn verify(&self, path: &VirtualPath) -> Result<Digest, StorageError> {
        self.options.check_size(self.length(), path)?;
        let digest = self.digest(self.options.algorithm);
        check_expected(digest, self.expected, path, |algorithm| {
            Ok(self.digest(algorithm))
        })?;
        Ok(digest)
    }

    fn digest(&self, algorithm: Algorithm) -> Digest {
        let mut hasher = Hasher::new(algorithm);
        for chunk in &self.content {
            hasher.update(chunk);
        }
        hasher.finish()
    }
}

impl Upload {
    /// Stages a file with the content of `buffered`, which was verified and reserved, and seals it.
    /// Returns the file, too, which must be synced before the upload gets its name.
    pub(crate) fn stage_buffered(
        buffered: &BufferedUpload,
        digest: Digest,
        target: ResolvedPath,
        mut reservation: Reservation,
        uploader: Uploader,
    ) -> Result<(SealedUpload, File), StorageError> {
        let path = &target.full;
        let (staged, mut file) = target.space.staging.create_file().context("stage", path)?;
        for chunk in &buffered.content {
            file.write_all(chunk).context("write", path)?;
        }
        let written = buffered.length();
        reservation.release_written(written);
        let options = buffered.options;
        let sealed = SealedFile::seal(&file, path, &options, digest).context("write", path)?;
        let upload = Self {
            target,
            options,
            uploader,
            staged,
            reservation,
            written,
            writer: None,
            state: UploadState::Sealed,
        };
        Ok((SealedUpload { upload, sealed }, file))
    }
}
