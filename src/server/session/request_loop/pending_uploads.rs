//! Small uploads: the session collects their data without a task and commits them in batches.
//!
//! Only the latest upload can be pending. If its client sends another request before `end`, or
//! pauses, the session opens it like a large upload: the client may wait for its `begin`.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncRead;

use crate::protocol::{End as PutEnd, Put};
use crate::server::commands::put::small_upload;
use crate::server::session::close_reason::CloseReason;
use crate::server::session::request_log::RequestLog;
use crate::server::session::request_loop::state::{BatchState, RequestLoop};
use crate::server::transfer::registry::TransferGuard;
use crate::server::transfer::small_upload::{PendingUpload, QueuedUpload, ReceivedUpload};
use crate::server::transfer::upload_registry::UploadKey;

impl<R: AsyncRead + Unpin + Send> RequestLoop<'_, R> {
    /// Whether the session has work to start once the client pauses.
    pub(crate) fn has_unclaimed_batch(&self) -> bool {
        let uploads = self.uploads.as_ref();
        self.batches.downloads == BatchState::Unclaimed
            || self.batches.uploads == BatchState::Unclaimed
            || uploads.is_some_and(|uploads| uploads.pending.is_some())
    }

    /// Whether upload `id` is the pending one.
    pub(crate) fn is_pending(&self, id: u32) -> bool {
        let pending = self.uploads.as_ref().and_then(|one| one.pending.as_ref());
        pending.is_some_and(|pending| pending.id == id)
    }

    /// Makes an upload the pending one.
    pub(crate) fn collect(&mut self, log: RequestLog, id: u32, put: Put, transfer: TransferGuard) {
        self.transfers.forget_put(id);
        let uploads = self.uploads.get_or_insert_default();
        uploads.pending = Some(PendingUpload::new(id, put, log, transfer));
    }

    /// Adds data to the pending upload.
    pub(crate) async fn push_data(&mut self, chunk: Bytes) -> Result<(), CloseReason> {
        let Some(pending) = self.uploads.as_mut().and_then(|one| one.pending.as_mut()) else {
            return Ok(());
        };
        let id = pending.id;
        if chunk.is_empty() {
            return self.complete_upload(PutEnd::default()).await;
        }
        if let Some(excess) = pending.push(chunk) {
            self.open_pending().await?;
            self.transfers.data(id, excess).await?;
        }
        Ok(())
    }

    /// Adds the pending upload, whose `end` has come, to the next batch.
    pub(crate) async fn complete_upload(&mut self, end: PutEnd) -> Result<(), CloseReason> {
        let Some(uploads) = &mut self.uploads else {
            return Ok(());
        };
        let queue = Arc::clone(&uploads.queue);
        let Some(mut pending) = uploads.pending.take() else {
            return Ok(());
        };
        let received = pending.received();
        pending.transfer.progress.moves(received as u64);
        let path_bytes = pending.log.path().map_or(0, str::len);
        let mut memory = queue.try_reserve(received, path_bytes);
        if memory.is_none() {
            // The uploads that wait have the memory: a worker has to commit them first.
            self.start_upload_worker();
            memory = queue.reserve(received, path_bytes).await;
        }
        let path = match self.member.resolve(&pending.put.path) {
            Ok(path) => path,
            Err(error) => {
                drop(pending.transfer);
                return self.finish(pending.log, Err(error)).await;
            }
        };
        let data = pending.take_content();
        let member = &self.member;
        let key = UploadKey::new(member.authority.id, &path, pending.put.size);
        let registry = &member.shared.uploads;
        queue.add(QueuedUpload {
            content: small_upload(path, &pending.put, data, end.digest),
            view: member.view(),
            upload: ReceivedUpload {
                id: pending.id,
                active: registry.register(key, &member.session, &member.gone),
                received: received as u64,
                reply_digest: end.digest.filter(|_| pending.put.digest.is_none()),
                log: pending.log,
                transfer: pending.transfer,
                memory,
            },
        });
        self.batches.uploads = BatchState::Unclaimed;
        Ok(())
    }

    /// Starts workers for all that waits: the client pauses, or sends a request of another kind.
    pub(crate) async fn start_batches(&mut self) -> Result<(), CloseReason> {
        self.start_downloads();
        self.start_uploads().await
    }

    /// Opens the pending upload and starts a worker for those that wait.
    pub(crate) async fn start_uploads(&mut self) -> Result<(), CloseReason> {
        self.open_pending().await?;
        self.start_upload_worker();
        Ok(())
    }

    /// Opens the pending upload like a large one.
    pub(crate) async fn open_pending(&mut self) -> Result<(), CloseReason> {
        let Some(mut pending) = self.uploads.as_mut().and_then(|one| one.pending.take()) else {
            return Ok(());
        };
        let id = pending.id;
        let data = pending.take_content();
        self.open_put(pending.log, id, pending.put, pending.transfer)
            .await?;
        for chunk in data {
            self.transfers.data(id, chunk).await?;
        }
        Ok(())
    }

    /// Starts a worker for the uploads that wait, unless one runs: it takes them then.
    fn start_upload_worker(&mut self) {
        self.batches.uploads = BatchState::Claimed;
        let Some(uploads) = self.uploads.as_ref().filter(|one| one.queue.claim_worker()) else {
            return;
        };
        let queue = Arc::clone(&uploads.queue);
        let (member, responder) = (self.member.clone(), self.responder());
        self.spawn(async move { queue.work(member, responder).await });
    }
}
