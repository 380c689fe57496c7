//! The queue of a session's small uploads whose data is complete, and the worker that commits them in
//! batches.
//!
//! The session reserves memory for each upload before it adds it, which bounds the uploads that wait.
//! The locks are those of the [`Coalescer`] and of the semaphore.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::connection::OutboxClosed;
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::server::session::responder::Responder;
use crate::server::transfer::coalescer::Coalescer;
use crate::server::transfer::pending_upload::{PendingUpload, UploadAnswer};
use crate::storage::{BufferedUpload, StorageError, View};

/// Bytes of memory for the small uploads of a session until they are answered. It is more than
/// other uploads have: the more small ones share a sync, the less each costs.
const MAX_PENDING_BYTES: usize = 2 * 1024 * 1024;

/// The least charge for an upload, in bytes, which bounds the number of uploads.
const MIN_CHARGE_BYTES: usize = 4 * 1024;

/// Uploads that are committed and answered together. About as many fit into the memory beside them, so that
/// the session receives the next batch meanwhile.
const MAX_BATCH_UPLOADS: usize = 160;

/// Bytes of memory that an upload needs besides its content and its path.
const OVERHEAD_BYTES: usize = 2 * 1024;

/// Copies of an upload's path in memory at the same time: in the request, in its log line, in the
/// running transfers, twice in the live uploads, in the buffered upload, in both resolved paths, in
/// the directory above them, in the change, in the committed file, and in the reply.
const PATH_COPIES: usize = 12;

/// The small uploads of a session that wait for the disk.
pub(crate) struct UploadQueue {
    queue: Coalescer<PendingUpload>,
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

    /// Adds an upload in the state `Queued` to the next batch.
    pub(crate) fn add(&self, upload: PendingUpload) {
        self.queue.add(upload);
    }

    /// Whether the caller must start a worker with [`Self::work`].
    pub(crate) fn claim_worker(&self) -> bool {
        self.queue.claim_worker()
    }

    /// Commits and answers batches until no upload waits.
    pub(crate) async fn work(&self, member: Member, responder: Responder) {
        while let Some(batch) = self.queue.next_batch(MAX_BATCH_UPLOADS) {
            let ids: Vec<u32> = batch.iter().map(PendingUpload::id).collect();
            let committing = AssertUnwindSafe(commit(batch, &member)).catch_unwind();
            let answers = committing
                .await
                .unwrap_or_else(|_| ids.into_iter().map(UploadAnswer::panicked).collect());
            let sending = async {
                for UploadAnswer { begin, reply } in answers {
                    if let Some(begin) = begin {
                        responder.outbox.send(begin).await?;
                    }
                    responder.outbox.send(reply).await?;
                }
                Ok::<_, OutboxClosed>(())
            };
            responder.session_ended.run_until_cancelled(sending).await;
        }
    }
}

/// Bytes of memory that an upload is charged.
fn charge(content_bytes: usize, path_bytes: usize) -> u32 {
    let bytes = OVERHEAD_BYTES + content_bytes + PATH_COPIES * path_bytes;
    u32::try_from(bytes.clamp(MIN_CHARGE_BYTES, MAX_PENDING_BYTES)).unwrap_or(u32::MAX)
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

async fn commit(batch: Vec<PendingUpload>, member: &Member) -> Vec<UploadAnswer> {
    let mut answers = Vec::with_capacity(batch.len());
    let (mut uploads, mut contents) = (Vec::new(), Vec::new());
    for upload in batch {
        match upload.start_commit() {
            Ok((upload, content)) => {
                uploads.push(upload);
                contents.push(content);
            }
            Err(answer) => answers.push(answer),
        }
    }
    if uploads.is_empty() {
        return answers;
    }
    let view = member.view();
    wait_for_counts(&view, &contents, member).await;
    let session = Arc::clone(&member.session);
    let descriptors = View::descriptors_for(&contents);
    let work = move |granted| Ok(view.commit_all(contents, &session, granted));
    match member.disk.run_batch(descriptors, work).await {
        Ok(outcomes) => {
            let each = uploads.into_iter().zip(outcomes);
            answers
                .extend(each.map(|(upload, outcome)| upload.answer(outcome.map_err(Into::into))));
        }
        Err(error) => {
            let is_shutdown = matches!(error, CommandError::ShuttingDown);
            answers.extend(uploads.into_iter().map(|upload| {
                upload.answer(Err(if is_shutdown {
                    CommandError::ShuttingDown
                } else {
                    CommandError::Internal
                }))
            }));
        }
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::SHORT_CHUNK_BYTES;

    /// The number of uploads that get memory without waiting.
    fn reservations(content_bytes: usize, path_bytes: usize) -> usize {
        let queue = UploadQueue::default();
        let permits = std::iter::from_fn(|| queue.try_reserve(content_bytes, path_bytes));
        permits.collect::<Vec<_>>().len()
    }

    #[test]
    fn the_memory_of_queued_uploads_is_bounded_whatever_is_large_about_them() {
        assert_eq!(reservations(10, 50), 512, "usual ones");
        for (content, path) in [
            (10, 3800),
            (SHORT_CHUNK_BYTES, 50),
            (SHORT_CHUNK_BYTES, 4096),
            (0, 4096),
        ] {
            let all = reservations(content, path) * (content + PATH_COPIES * path);
            assert!(
                all <= MAX_PENDING_BYTES,
                "{content} and {path}: {all} bytes"
            );
        }
        assert_eq!(reservations(SHORT_CHUNK_BYTES, 4096), 11);
    }
}
