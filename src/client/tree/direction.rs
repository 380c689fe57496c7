//! The two directions of a tree, as the pipeline sees them.

use futures::future::BoxFuture;
use serde_json::value::RawValue;

use crate::client::connection::ReceivedPart;
use crate::client::{ClientError, Progress, Session};
use crate::protocol::WireError;

/// Which step of a transfer uses the disk and runs on a blocking thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskStep {
    /// [`PipelinedTransfer::encode`] reads the file.
    Encode,
    /// [`PipelinedTransfer::complete`] writes the file.
    Complete,
}

/// The upper bounds of one direction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PipelineLimits {
    /// Bytes of files whose results are outstanding.
    pub(crate) outstanding_bytes: u64,
    /// Files that are encoded and sent together.
    pub(crate) batch_files: usize,
    /// Bytes of files that are encoded and sent together; a single file may have more.
    pub(crate) batch_bytes: u64,
    /// Bytes of a file that are kept until its final reply is there.
    pub(crate) received_bytes: usize,
}

/// One direction of a transfer of many files.
pub(crate) trait PipelinedTransfer: Clone + Send + Sync + 'static {
    /// A file to be moved.
    type File: Send + 'static;
    /// The facts about an encoded file that its reply is compared with.
    type Expected: Send + 'static;
    /// The result of a file that was moved.
    type Moved: Send + 'static;

    const DISK_STEP: DiskStep;
    const LIMITS: PipelineLimits;

    /// Appends the frames of the request `id` to `frames`. `None` if the file cannot be moved with
    /// others, for example because it has grown.
    fn encode(
        &self,
        file: &Self::File,
        id: u32,
        frames: &mut Vec<u8>,
    ) -> Result<Option<Self::Expected>, ClientError>;

    /// Checks the reply, and stores the data that came before it. `None` if the file has to be moved
    /// separately.
    fn complete(
        &self,
        file: &Self::File,
        expected: Self::Expected,
        reply: &RawValue,
        received: ReceivedPart,
    ) -> Result<Option<Self::Moved>, ClientError>;

    /// The meaning of an error reply.
    fn refusal(file: &Self::File, expected: &Self::Expected, error: WireError) -> ClientError;

    /// The bytes of a file that was moved.
    fn moved_bytes(moved: &Self::Moved) -> u64;

    /// Moves one file of any size, over as many connections as it takes. It counts its own progress,
    /// of which `found.size` bytes are expected.
    fn transfer(
        &self,
        session: &Session,
        found: FoundFile<Self::File>,
        progress: &Progress,
        attempt: TransferAttempt,
    ) -> BoxFuture<'static, FinishedFile<Self>>;
}

/// A file with the size that it was found with.
#[derive(Debug)]
pub(crate) struct FoundFile<F> {
    pub(crate) file: F,
    pub(crate) size: u64,
}

/// The result of one file.
pub(crate) type FinishedFile<T> = (
    <T as PipelinedTransfer>::File,
    Result<<T as PipelinedTransfer>::Moved, ClientError>,
);

/// Whether a file was sent before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TransferAttempt {
    First,
    /// An earlier request may have succeeded although its reply did not arrive.
    Repeated,
}
