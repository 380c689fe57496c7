//! An upload of a session, from its `put` to its final reply.
//!
//! Small and large uploads are one type, [`PendingUpload`]. Only their states differ:
//!
//! ```text
//! Collecting ── end ──► Queued ── worker ──► Committing ──► final reply
//!     │                                                        ▲
//!     └── pause, later request, size ──► Streaming ── end ─────┘
//! ```
//!
//! The request loop owns an upload that is collected, the [`UploadQueue`] one that is queued, the
//! queue's worker one that is committed, and a task of its own one that streams. No upload is shared,
//! so it needs no lock.
//!
//! [`UploadQueue`]: crate::server::transfer::upload_queue::UploadQueue

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::connection::SHORT_CHUNK_BYTES;
use crate::protocol::{
    Digest, End, IfExists, Put, PutBegin, PutReply, WireError, encode_begin, encode_error,
    encode_ok,
};
use crate::server::error::CommandError;
use crate::server::session::request_log::{RequestLog, RequestOutcome};
use crate::server::transfer::live_uploads::LiveUpload;
use crate::server::transfer::running_transfers::TransferGuard;
use crate::server::transfer::upload_channel::UploadReceiver;
use crate::storage::{BufferedUpload, Committed, CommittedUpload, UploadOptions, VirtualPath};

/// An upload that is not answered yet.
pub(crate) struct PendingUpload {
    pub(crate) id: u32,
    pub(crate) put: Put,
    pub(crate) log: RequestLog,
    /// Its entry in the transfers of the session.
    pub(crate) transfer: TransferGuard,
    pub(crate) state: PendingUploadState,
}

/// How far an upload is.
pub(crate) enum PendingUploadState {
    /// The session collects the data in memory, without a task. Every upload begins here, and at most
    /// one of a session stays here: the client of an earlier one may wait for `begin`.
    Collecting(CollectedContent),
    /// All data is in memory, and the upload waits for a worker.
    Queued(BufferedUpload, CompleteUpload),
    /// A worker commits the batch of the upload.
    Committing(CompleteUpload),
    /// A task writes the data as it arrives, and commits it at the `end` as a batch of one.
    Streaming(UploadReceiver),
}

/// The properties of an upload whose data is complete and in memory.
pub(crate) struct CompleteUpload {
    pub(crate) received_bytes: u64,
    /// The digest of `end`, if the client did not choose the digest of the reply.
    reply_digest: Option<Digest>,
    live: LiveUpload,
    /// Its share of the memory of the session's queued uploads, released by the drop.
    _memory: Option<OwnedSemaphorePermit>,
}

/// The collected data of an upload, as one piece.
pub(crate) enum CollectedContent {
    /// The bytes of one or more short chunks.
    Copied(Vec<u8>),
    /// One full chunk, in the buffer that it arrived in.
    FullChunk(Bytes),
}

/// The `begin` of an upload that was committed, and its final reply.
pub(crate) struct UploadAnswer {
    pub(crate) begin: Option<Bytes>,
    pub(crate) reply: Bytes,
}

/// Whether the session may collect the data of an upload in memory. One that resumes needs a reply
/// first, and one with a base may copy.
pub(crate) fn is_small(put: &Put) -> bool {
    let max_bytes = SHORT_CHUNK_BYTES as u64;
    !put.resume && put.base.is_none() && put.size.is_some_and(|size| size <= max_bytes)
}

/// The options of a `put` for the storage.
pub(crate) fn upload_options(put: &Put) -> UploadOptions {
    UploadOptions {
        size: put.size,
        if_exists: put.if_exists.unwrap_or(IfExists::Replace),
        modified: put.modified,
        mode: put.mode,
        parents: put.parents,
        algorithm: put.digest.unwrap_or_default(),
    }
}

/// The reply to a `put` whose file was committed. Unless the client chose the algorithm in `put`, it
/// gets the digest of its `end`, which was verified.
pub(crate) fn put_reply(committed: Committed, end_digest: Option<Digest>) -> PutReply {
    PutReply {
        path: committed.path.to_string(),
        size: committed.size,
        digest: end_digest.unwrap_or(committed.digest),
        version: committed.version,
    }
}

impl CollectedContent {
    fn length(&self) -> usize {
        match self {
            Self::Copied(bytes) => bytes.len(),
            Self::FullChunk(chunk) => chunk.len(),
        }
    }

    fn add(&mut self, chunk: Bytes) {
        match self {
            Self::Copied(bytes) if !bytes.is_empty() || chunk.len() < SHORT_CHUNK_BYTES => {
                bytes.extend_from_slice(&chunk);
            }
            // It is the only chunk: the data of a small upload is no longer than a full chunk.
            content => *content = Self::FullChunk(chunk),
        }
    }

    fn into_chunks(self) -> Vec<Bytes> {
        match self {
            Self::Copied(bytes) if bytes.is_empty() => Vec::new(),
            Self::Copied(bytes) => vec![bytes.into_boxed_slice().into()],
            Self::FullChunk(chunk) => vec![chunk],
        }
    }
}

impl Default for CollectedContent {
    fn default() -> Self {
        Self::Copied(Vec::new())
    }
}

impl UploadAnswer {
    /// The answer to the upload `id`, which was lost in a panic.
    pub(crate) fn panicked(id: u32) -> Self {
        let error = WireError::from(&CommandError::Internal);
        Self {
            begin: None,
            reply: encode_error(id, &error),
        }
    }
}

impl PendingUpload {
    /// The id of its request.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// An upload in the state `Collecting`, without data.
    pub(crate) fn new(id: u32, put: Put, log: RequestLog, transfer: TransferGuard) -> Self {
        Self {
            id,
            put,
            log,
            transfer,
            state: PendingUploadState::Collecting(CollectedContent::default()),
        }
    }

    /// Adds a chunk to the collected data. Returns the chunk if there is more data than declared, or
    /// if the upload does not collect any.
    pub(crate) fn collect(&mut self, chunk: Bytes) -> Option<Bytes> {
        let PendingUploadState::Collecting(content) = &mut self.state else {
            return Some(chunk);
        };
        let received = (content.length() + chunk.len()) as u64;
        if self.put.size.is_none_or(|size| received > size) {
            return Some(chunk);
        }
        content.add(chunk);
        None
    }

    /// Bytes of the collected data.
    pub(crate) fn collected_bytes(&self) -> usize {
        match &self.state {
            PendingUploadState::Collecting(content) => content.length(),
            _ => 0,
        }
    }

    fn take_collected(&mut self) -> Vec<Bytes> {
        match &mut self.state {
            PendingUploadState::Collecting(content) => std::mem::take(content).into_chunks(),
            _ => Vec::new(),
        }
    }

    /// Changes the state to `Streaming`. Returns the collected data, which the caller passes on first.
    pub(crate) fn start_streaming(&mut self, receiver: UploadReceiver) -> Vec<Bytes> {
        let collected = self.take_collected();
        self.state = PendingUploadState::Streaming(receiver);
        collected
    }

    /// Changes the state to `Queued`: `end` has come for the collected data, and `memory` is reserved.
    pub(crate) fn complete(
        &mut self,
        path: VirtualPath,
        end: &End,
        live: LiveUpload,
        memory: Option<OwnedSemaphorePermit>,
    ) {
        let received_bytes = self.collected_bytes() as u64;
        let content = BufferedUpload {
            path,
            options: upload_options(&self.put),
            content: self.take_collected(),
            expected: end.digest,
        };
        let complete = CompleteUpload {
            received_bytes,
            reply_digest: end.digest.filter(|_| self.put.digest.is_none()),
            live,
            _memory: memory,
        };
        self.state = PendingUploadState::Queued(content, complete);
    }

    /// Changes the state from `Queued` to `Committing`, and returns the content to commit.
    ///
    /// # Errors
    /// The final reply of an upload that was cancelled or taken over meanwhile.
    pub(crate) fn start_commit(mut self) -> Result<(Self, BufferedUpload), UploadAnswer> {
        let PendingUploadState::Queued(content, complete) = self.state else {
            return Err(self.answer(Err(CommandError::Internal)));
        };
        let is_taken_over = complete.live.is_taken_over();
        self.state = PendingUploadState::Committing(complete);
        if is_taken_over {
            Err(self.answer(Err(CommandError::TakenOver)))
        } else if self.transfer.cancel.is_cancelled() {
            Err(self.answer(Err(CommandError::Cancelled)))
        } else {
            Ok((self, content))
        }
    }

    /// Ends an upload that a worker has committed, or refused to: writes its log line and makes its
    /// replies.
    pub(crate) fn answer(self, outcome: Result<CommittedUpload, CommandError>) -> UploadAnswer {
        let id = self.id;
        let (bytes, digest) = match &self.state {
            PendingUploadState::Committing(complete) => {
                (complete.received_bytes, complete.reply_digest)
            }
            _ => (0, None),
        };
        let upload = outcome.as_ref().ok().map(|done| done.id.clone());
        let begin = upload.clone().map(|upload| {
            let begin = PutBegin {
                offset: 0,
                upload,
                prefix: None,
            };
            encode_begin(id, &begin)
        });
        let reply = outcome.map(|done| encode_ok(id, &put_reply(done.committed, digest)));
        let reply = self.log.close(RequestOutcome {
            reply,
            bytes,
            upload,
        });
        // The client may use the id again as soon as it has the reply.
        drop((self.transfer, self.state));
        UploadAnswer { begin, reply }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::protocol::Call;
    use crate::server::metrics::ServerMetrics;
    use crate::server::transfer::progress::TransferSubject;
    use crate::server::transfer::session_transfers::SessionTransfers;

    fn pending_upload() -> PendingUpload {
        let put = Put {
            size: Some(SHORT_CHUNK_BYTES as u64),
            ..Put::default()
        };
        let metrics = ServerMetrics::default();
        let log = RequestLog::new(&metrics, Arc::default(), 7, &Put::COMMAND, None);
        let transfers = SessionTransfers::new(Arc::new(Semaphore::new(1)));
        let session_ended = CancellationToken::new();
        let guard = transfers.register(7, &session_ended, TransferSubject::of_nothing());
        PendingUpload::new(7, put, log, guard.expect("the id is free"))
    }

    #[test]
    fn collected_data_keeps_no_larger_block_of_memory_alive() {
        let block = Bytes::from(vec![b'x'; 4 * SHORT_CHUNK_BYTES]);
        let mut upload = pending_upload();
        for start in 0..SHORT_CHUNK_BYTES {
            assert!(upload.collect(block.slice(start..=start)).is_none());
        }
        let excess = upload.collect(block.slice(..1));
        assert!(excess.is_some(), "more than declared");
        let content = upload.take_collected();
        assert_eq!(content.len(), 1, "one piece, not one for each chunk");
        assert_eq!(content[0], block[..SHORT_CHUNK_BYTES]);
        assert!(!block.as_ptr_range().contains(&content[0].as_ptr()));
        assert!(upload.take_collected().is_empty());
    }

    #[test]
    fn an_upload_of_one_full_chunk_is_not_copied() {
        let chunk = Bytes::from(vec![b'x'; SHORT_CHUNK_BYTES]);
        let mut upload = pending_upload();
        assert!(upload.collect(chunk.clone()).is_none());
        assert_eq!(upload.take_collected()[0].as_ptr(), chunk.as_ptr());
    }
}
