//! Reading a file only to hash it, in slices, so that a small file does not wait for a large one.

use std::ops::Range;

use tokio_util::sync::CancellationToken;

use crate::connection::SHORT_CHUNK_BYTES;
use crate::server::disk::{OpenedFile, UserDisk};
use crate::server::error::CommandError;
use crate::storage::{StorageError, StoredFile, Verifier};

/// Bytes that are hashed with one grant.
pub(crate) const MAX_HASH_SLICE_BYTES: u64 = 16 * 1024 * 1024;

/// Feeds `range` of the file to `verifier`, until `cancel` is cancelled.
pub(crate) async fn hash(
    disk: &UserDisk,
    cancel: &CancellationToken,
    file: &OpenedFile,
    mut verifier: Verifier,
    range: Range<u64>,
) -> Result<Verifier, CommandError> {
    let mut rest = range;
    while !rest.is_empty() {
        let end = rest.end.min(rest.start + MAX_HASH_SLICE_BYTES);
        let piece = rest.start..end;
        let grant = cancel.run_until_cancelled(disk.acquire_digest()).await;
        let grant = grant.ok_or(CommandError::Cancelled)??;
        let file = file.share();
        let work = move || {
            feed(&file, &mut verifier, piece)?;
            Ok(verifier)
        };
        verifier = disk.run_with_grant(grant, work).await?;
        rest.start = end;
    }
    Ok(verifier)
}

fn feed(file: &StoredFile, verifier: &mut Verifier, range: Range<u64>) -> Result<(), StorageError> {
    let mut rest = range;
    while !rest.is_empty() {
        let length = usize::try_from(rest.end - rest.start)
            .map_or(SHORT_CHUNK_BYTES, |rest| rest.min(SHORT_CHUNK_BYTES));
        verifier.update(&file.read_at(rest.start, length)?);
        rest.start += length as u64;
    }
    Ok(())
}
