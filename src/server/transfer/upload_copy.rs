//! Copies within an upload: bytes that the client does not send, because the base of the put has them.

use std::ops::Range;

use crate::server::disk::OpenedFile;
use crate::server::error::CommandError;
use crate::server::transfer::upload_writer::{UploadWriter, discard};
use crate::storage::{StorageError, Upload};

/// Bytes that one run on a disk thread copies. The upload can be stopped between two of them.
const MAX_COPY_PIECE_BYTES: u64 = 1024 * 1024;

/// Bytes that are read and written together: few enough to stay in the processor's cache.
const BUFFER_BYTES: u64 = 256 * 1024;

/// An upload after a piece of a copy.
pub(crate) struct CopyResult {
    pub(crate) upload: Box<Upload>,
    /// The part that is still to be copied.
    pub(crate) rest: Option<Range<u64>>,
    /// Why the copy ended early, if the bytes so far can still be kept.
    pub(crate) suspended: Option<StorageError>,
}

impl UploadWriter<'_> {
    /// Copies the first bytes of `range` from the base, on a disk thread.
    ///
    /// # Errors
    /// The upload is discarded if it has no base, or the range is not within the base, and after the
    /// errors of [`Upload::write`].
    pub(crate) async fn copy(
        self,
        mut upload: Box<Upload>,
        base: Option<&OpenedFile>,
        range: Range<u64>,
    ) -> Result<CopyResult, CommandError> {
        let disk = &self.member.disk;
        let Some(base) = base else {
            discard(upload, disk).await?;
            let message = "a copy needs a put with a base";
            return Err(CommandError::invalid_field("base", message));
        };
        let base = base.share();
        let before = upload.written();
        let work = move || {
            base.check_range(range.clone())?;
            let end = range.end.min(range.start + MAX_COPY_PIECE_BYTES);
            let mut copy = || {
                let (mut start, mut bytes) = (range.start, Vec::new());
                while start < end {
                    let length = usize::try_from(BUFFER_BYTES.min(end - start));
                    base.read_into(&mut bytes, start, length.unwrap_or(usize::MAX))?;
                    upload.write(&bytes)?;
                    start += bytes.len() as u64;
                }
                Ok(())
            };
            let suspended = match copy() {
                Ok(()) => None,
                Err(error @ StorageError::Suspended { .. }) => Some(error),
                Err(error) => return Err(error),
            };
            let rest = end..range.end;
            Ok(CopyResult {
                upload,
                rest: (!rest.is_empty()).then_some(rest),
                suspended,
            })
        };
        let copied = disk.run(work).await?;
        let length = copied.upload.written() - before;
        self.transfer.progress.skips(length);
        self.live.record_activity();
        Ok(copied)
    }
}
