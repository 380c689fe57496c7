//! Small uploads: the session collects their data in memory, and a worker commits them in batches.
//!
//! A small upload is one of two types. A [`PendingUpload`] still receives data; a session has at
//! most one. A [`ReceivedUpload`] has its `end` and belongs to a batch, until it is answered. The
//! session reserves memory for it first, which bounds all that wait.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::connection::SHORT_CHUNK_BYTES;
use crate::protocol::{Digest, Put, PutBegin, encode_begin, encode_ok};
use crate::server::commands::put::put_reply;
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::server::session::request_log::{RequestLog, RequestOutcome};
use crate::server::session::responder::Responder;
use crate::server::transfer::coalescer::Coalescer;
use crate::server::transfer::registry::TransferGuard;
use crate::server::transfer::upload_registry::ActiveUpload;
use crate::storage::{BufferedUpload, CommittedUpload, StorageError, View};

/// A small upload whose data is collected in memory until its `end`.
pub(crate) struct PendingUpload {
    pub(crate) id: u32,
    pub(crate) put: Put,
    pub(crate) log: RequestLog,
    pub(crate) transfer: TransferGuard,
    content: CollectedContent,
    received: usize,
}

/// The data of an upload, as one piece.
enum CollectedContent {
    /// The bytes of one or more short chunks.
    Copied(Vec<u8>),
    /// One full chunk, in the buffer that it arrived in.
    FullChunk(Bytes),
}

/// Whether the session may collect an upload in memory. One that resumes needs a reply first.
pub(crate) fn is_small(put: &Put) -> bool {
    !put.resume
        && put
            .size
            .is_some_and(|size| size <= SHORT_CHUNK_BYTES as u64)
}

impl PendingUpload {
    pub(crate) fn new(id: u32, put: Put, log: RequestLog, transfer: TransferGuard) -> Self {
        Self {
            id,
            put,
            log,
            transfer,
            content: CollectedContent::Copied(Vec::new()),
            received: 0,
        }
    }

    /// Adds a chunk; returns it if it exceeds the declared size.
    pub(crate) fn push(&mut self, chunk: Bytes) -> Option<Bytes> {
        let received = self.received + chunk.len();
        if self.put.size.is_none_or(|size| received as u64 > size) {
            return Some(chunk);
        }
        self.received = received;
        match &mut self.content {
            CollectedContent::Copied(collected)
                if !collected.is_empty() || chunk.len() < SHORT_CHUNK_BYTES =>
            {
                collected.extend_from_slice(&chunk);
            }
            // It is the only chunk: a small upload has at most one chunk of data.
            content => *content = CollectedContent::FullChunk(chunk),
        }
        None
    }

    /// Removes and returns the data.
    pub(crate) fn take_content(&mut self) -> Vec<Bytes> {
        match std::mem::replace(&mut self.content, CollectedContent::Copied(Vec::new())) {
            CollectedContent::Copied(collected) if collected.is_empty() => Vec::new(),
            CollectedContent::Copied(collected) => vec![collected.into_boxed_slice().into()],
            CollectedContent::FullChunk(chunk) => vec![chunk],
        }
    }

    /// Bytes of the data so far.
    pub(crate) fn received(&self) -> usize {
        self.received
    }
}

/// A small upload with all its data, until it is answered.
pub(crate) struct ReceivedUpload {
    pub(crate) id: u32,
    pub(crate) log: RequestLog,
    pub(crate) transfer: TransferGuard,
    pub(crate) active: ActiveUpload,
    /// Bytes of its data.
    pub(crate) received: u64,
    /// The digest of `end`, if the client did not choose the digest of the reply.
    pub(crate) reply_digest: Option<Digest>,
    /// Its share of [`MAX_PENDING_BYTES`].
    pub(crate) memory: Option<OwnedSemaphorePermit>,
}

/// A small upload that waits for the disk.
pub(crate) struct QueuedUpload {
    pub(crate) upload: ReceivedUpload,
    pub(crate) content: BufferedUpload,
    /// The files that the user sees.
    pub(crate) view: View,
}

/// Bytes of memory for the small uploads of a session until they are answered. It is more than
/// other uploads have: the more small ones share a sync, the less each costs.
const MAX_PENDING_BYTES: usize = 2 * 1024 * 1024;

/// The least charge for an upload, in bytes, which bounds the number of uploads.
const MIN_CHARGE_BYTES: usize = 4 * 1024;

/// Bytes of memory that an upload needs besides its content and its path.
const OVERHEAD_BYTES: usize = 2 * 1024;

/// Copies of an upload's path in memory at the same time: in the request and its log line, in two
/// registries, in the resolved paths of the view and the space, in the change, and in the reply.
const PATH_COPIES: usize = 12;

/// The small uploads of a session that wait for the disk.
pub(crate) struct UploadQueue {
    queue: Coalescer<QueuedUpload>,
    memory: Arc<Semaphore>,
}

impl Default for UploadQueue {
    fn default() -> Self {
        Self {
            queue: Coalescer::default(),
            memory: Arc::new(Semaphore::new(MAX_PENDING_BYTES)),
        }
    }
}

impl UploadQueue {
    /// Reserves memory for an upload; `None` if the session has to wait for it.
    pub(crate) fn try_reserve(
        &self,
        content_bytes: usize,
        path_bytes: usize,
    ) -> Option<OwnedSemaphorePermit> {
        let charge = charge(content_bytes, path_bytes);
        self.memory.clone().try_acquire_many_owned(charge).ok()
    }

    /// Waits for memory for an upload and reserves it.
    pub(crate) async fn reserve(
        &self,
        content_bytes: usize,
        path_bytes: usize,
    ) -> Option<OwnedSemaphorePermit> {
        let charge = charge(content_bytes, path_bytes);
        self.memory.clone().acquire_many_owned(charge).await.ok()
    }

    /// Adds an upload to the next batch.
    pub(crate) fn add(&self, upload: QueuedUpload) {
        self.queue.add(upload);
    }

    /// Whether the caller must start a worker with [`Self::work`].
    pub(crate) fn claim_worker(&self) -> bool {
        self.queue.claim_worker()
    }

    /// Commits and answers batches until no upload waits.
    pub(crate) async fn work(&self, member: Member, responder: Responder) {
        while let Some(batch) = self.queue.next_batch() {
            let answers = commit(batch, &member).await;
            let sending = async {
                for Answer(begin, reply) in answers {
                    if let Some(begin) = begin {
                        responder.outbox.send(begin).await?;
                    }
                    responder.outbox.send(reply).await?;
                }
                Ok::<_, crate::connection::OutboxClosed>(())
            };
            responder.gone.run_until_cancelled(sending).await;
        }
    }
}

/// Bytes of memory that an upload is charged.
fn charge(content_bytes: usize, path_bytes: usize) -> u32 {
    let bytes = OVERHEAD_BYTES + content_bytes + PATH_COPIES * path_bytes;
    u32::try_from(bytes.clamp(MIN_CHARGE_BYTES, MAX_PENDING_BYTES)).unwrap_or(u32::MAX)
}

/// The `begin` of an upload that was committed, and its final reply.
struct Answer(Option<Bytes>, Bytes);

impl ReceivedUpload {
    fn answer(self, outcome: Result<CommittedUpload, CommandError>) -> Answer {
        let (id, bytes, digest) = (self.id, self.received, self.reply_digest);
        let upload = outcome.as_ref().ok().map(|done| done.id.clone());
        let begin = outcome.as_ref().ok().map(|done| {
            let begin = PutBegin {
                offset: 0,
                upload: done.id.clone(),
                prefix: None,
            };
            encode_begin(id, &begin)
        });
        let reply = outcome.map(|done| {
            let mut reply = put_reply(done.committed);
            reply.digest = digest.unwrap_or(reply.digest);
            encode_ok(id, &reply)
        });
        let reply = self.log.close(RequestOutcome {
            reply,
            bytes,
            upload,
        });
        // The client may use the id again as soon as it has the reply.
        drop(self.transfer);
        drop(self.memory);
        Answer(begin, reply)
    }

    /// The reason to discard the upload, if there is one.
    fn stop_reason(&self) -> Option<CommandError> {
        if self.active.is_taken() {
            Some(CommandError::TakenOver)
        } else if self.transfer.cancel.is_cancelled() {
            Some(CommandError::Cancelled)
        } else {
            None
        }
    }
}

/// Waits, without a thread, until the spaces of the uploads are counted. The commit reports errors
/// for each upload.
async fn wait_for_counts(view: &View, uploads: &[BufferedUpload], member: &Member) {
    for upload in uploads {
        while view.needs_count(&upload.path) {
            let (counting, path) = (view.clone(), upload.path.clone());
            let counted = member.disk.run(move || counting.count(&path)).await;
            let Err(CommandError::Storage(StorageError::Counting { path, end })) = counted else {
                break;
            };
            if end.wait(&path).await.is_err() {
                break;
            }
        }
    }
}

async fn commit(batch: Vec<QueuedUpload>, member: &Member) -> Vec<Answer> {
    let mut answers = Vec::with_capacity(batch.len());
    let (mut uploads, mut contents) = (Vec::new(), Vec::new());
    let mut latest_view = None;
    for QueuedUpload {
        upload,
        content,
        view,
    } in batch
    {
        latest_view = Some(view);
        if let Some(reason) = upload.stop_reason() {
            answers.push(upload.answer(Err(reason)));
        } else {
            uploads.push(upload);
            contents.push(content);
        }
    }
    let Some(view) = latest_view else {
        return answers;
    };
    wait_for_counts(&view, &contents, member).await;
    let session = member.session.clone();
    let work = move || Ok(view.commit_all(contents, &session));
    match member.disk.run_batch(uploads.len(), work).await {
        Ok(outcomes) => {
            let each = uploads.into_iter().zip(outcomes);
            answers
                .extend(each.map(|(upload, outcome)| upload.answer(outcome.map_err(Into::into))));
        }
        Err(error) => {
            let is_shutdown = matches!(error, CommandError::ShuttingDown);
            let reason = || {
                if is_shutdown {
                    CommandError::ShuttingDown
                } else {
                    CommandError::Panicked
                }
            };
            answers.extend(
                uploads
                    .into_iter()
                    .map(|upload| upload.answer(Err(reason()))),
            );
        }
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_util::sync::CancellationToken;

    use crate::protocol::Call;
    use crate::server::metrics::ServerMetrics;
    use crate::server::transfer::progress::TransferSubject;
    use crate::server::transfer::registry::TransferRegistry;

    /// Puts that get room at once.
    fn admitted(content: usize, path: usize) -> usize {
        let queue = UploadQueue::default();
        let rooms = std::iter::from_fn(|| queue.try_reserve(content, path));
        rooms.collect::<Vec<_>>().len()
    }

    #[test]
    fn what_small_puts_take_is_bounded_whatever_is_large_about_them() {
        assert_eq!(admitted(10, 50), 512, "usual ones");
        for (content, path) in [
            (10, 3800),
            (SHORT_CHUNK_BYTES, 50),
            (SHORT_CHUNK_BYTES, 4096),
            (0, 4096),
        ] {
            let all = admitted(content, path) * (content + PATH_COPIES * path);
            assert!(
                all <= MAX_PENDING_BYTES,
                "{content} and {path}: {all} bytes"
            );
        }
        assert_eq!(admitted(SHORT_CHUNK_BYTES, 4096), 11);
    }

    fn held() -> PendingUpload {
        let put = Put {
            size: Some(SHORT_CHUNK_BYTES as u64),
            ..Put::default()
        };
        let job = RequestLog::new(
            &ServerMetrics::default(),
            Arc::default(),
            7,
            &Put::COMMAND,
            None,
        );
        let transfers = TransferRegistry::new(Arc::new(Semaphore::new(1)));
        let gone = CancellationToken::new();
        let underway = transfers.start(7, &gone, TransferSubject::of_nothing());
        PendingUpload::new(7, put, job, underway.expect("the id is free"))
    }

    #[test]
    fn what_is_held_keeps_no_more_in_memory_than_came_for_it() {
        let block = Bytes::from(vec![b'x'; 4 * SHORT_CHUNK_BYTES]);
        let mut held = held();
        for start in 0..SHORT_CHUNK_BYTES {
            assert!(held.push(block.slice(start..=start)).is_none());
        }
        assert!(held.push(block.slice(..1)).is_some(), "more than declared");
        let content = held.take_content();
        assert_eq!(content.len(), 1, "one piece, not one for each that came");
        assert_eq!(content[0], block[..SHORT_CHUNK_BYTES]);
        assert!(!block.as_ptr_range().contains(&content[0].as_ptr()));
        assert!(held.take_content().is_empty());
    }

    #[test]
    fn a_put_that_is_one_chunk_is_not_copied() {
        let chunk = Bytes::from(vec![b'x'; SHORT_CHUNK_BYTES]);
        let mut held = held();
        assert!(held.push(chunk.clone()).is_none());
        assert_eq!(held.take_content()[0].as_ptr(), chunk.as_ptr());
    }
}
