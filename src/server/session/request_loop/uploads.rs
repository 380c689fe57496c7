//! Uploads. The session collects the data of a small upload without a task, and a worker commits small
//! uploads in batches. Any other upload gets a task that writes its data as it arrives.
//!
//! Only the latest upload is collected. If its client sends another request before `end`, or pauses,
//! the session opens it like a large upload: the client may wait for its `begin`.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncRead;

use crate::protocol::{CopyRange, End as PutEnd, Put};
use crate::server::commands;
use crate::server::error::CommandError;
use crate::server::session::close_reason::CloseReason;
use crate::server::session::dialect::Dialect;
use crate::server::session::member::Member;
use crate::server::session::request_log::{RequestLog, RequestOutcome};
use crate::server::session::request_loop::state::{BatchState, RequestLoop};
use crate::server::session::request_loop::transfers::duplicate_id;
use crate::server::session::responder::{ReplyOrder, Responder};
use crate::server::transfer::live_uploads::UploadKey;
use crate::server::transfer::pending_upload::{PendingUpload, PendingUploadState, is_small};
use crate::server::transfer::progress::TransferKind;

impl<R: AsyncRead + Unpin + Send> RequestLoop<'_, R> {
    pub(super) async fn put(
        &mut self,
        log: RequestLog,
        id: u32,
        put: Put,
    ) -> Result<(), CloseReason> {
        self.transfers.check_upload_id(id)?;
        let Some(transfer) = self.register(&log, id, TransferKind::Put, put.size) else {
            self.transfers.discard_upload(id);
            return self.finish(log, Err(duplicate_id(id))).await;
        };
        let upload = PendingUpload::new(id, put, log, transfer);
        if self.session.dialect == Dialect::Classic {
            // Its clients cannot resume, so a partial upload would only take up quota.
            upload.transfer.progress.discard_on_stop();
        } else if is_small(&upload.put) && !self.member.has_bandwidth_limit() {
            self.transfers.forget_upload(id);
            self.uploads.get_or_insert_default().collecting = Some(upload);
            return Ok(());
        }
        self.stream_upload(upload).await
    }

    /// Whether the session has work to start once the client pauses.
    pub(crate) fn has_unclaimed_batch(&self) -> bool {
        let uploads = self.uploads.as_ref();
        self.batches.downloads == BatchState::Unclaimed
            || self.batches.uploads == BatchState::Unclaimed
            || uploads.is_some_and(|uploads| uploads.collecting.is_some())
    }

    /// Whether the session collects the data of upload `id`.
    pub(crate) fn is_collecting(&self, id: u32) -> bool {
        let uploads = self.uploads.as_ref();
        let collecting = uploads.and_then(|uploads| uploads.collecting.as_ref());
        collecting.is_some_and(|upload| upload.id == id)
    }

    /// Adds data to the upload that is collected.
    pub(crate) async fn collect(&mut self, chunk: Bytes) -> Result<(), CloseReason> {
        let uploads = self.uploads.as_mut();
        let Some(upload) = uploads.and_then(|uploads| uploads.collecting.as_mut()) else {
            return Ok(());
        };
        let id = upload.id;
        if chunk.is_empty() {
            return self.queue_upload(&PutEnd::default()).await;
        }
        if let Some(excess) = upload.collect(chunk) {
            self.stream_collected().await?;
            self.transfers.data(id, excess).await?;
        }
        Ok(())
    }

    /// Adds the upload that was collected, and whose `end` has come, to the next batch.
    pub(crate) async fn queue_upload(&mut self, end: &PutEnd) -> Result<(), CloseReason> {
        let Some(uploads) = &mut self.uploads else {
            return Ok(());
        };
        let queue = Arc::clone(&uploads.queue);
        let Some(mut upload) = uploads.collecting.take() else {
            return Ok(());
        };
        let received = upload.collected_bytes();
        upload.transfer.progress.add_moved(received as u64);
        let path_bytes = upload.log.path().map_or(0, str::len);
        let mut memory = queue.try_reserve(received, path_bytes);
        if memory.is_none() {
            // The uploads that wait have the memory: a worker has to commit them first.
            self.start_upload_worker();
            memory = queue.reserve(received, path_bytes).await;
        }
        let member = &self.member;
        let path = match member.resolve(&upload.put.path) {
            Ok(path) => path,
            Err(error) => return self.refuse_upload(upload, error).await,
        };
        let key = UploadKey::new(member.authority.id, &path, upload.put.size);
        let live_uploads = &member.shared.live_uploads;
        let live = live_uploads.register(key, &member.session, &member.peer_left);
        upload.complete(path, end, live, memory);
        queue.add(upload);
        self.batches.uploads = BatchState::Unclaimed;
        Ok(())
    }

    /// Starts workers for all that waits: the client pauses, or sends a request of another kind.
    pub(crate) async fn start_batches(&mut self) -> Result<(), CloseReason> {
        self.start_downloads();
        self.start_uploads().await
    }

    /// Opens the upload that is collected, and starts a worker for those that are queued.
    pub(crate) async fn start_uploads(&mut self) -> Result<(), CloseReason> {
        self.stream_collected().await?;
        self.start_upload_worker();
        Ok(())
    }

    /// Opens the upload that is collected like a large one.
    pub(crate) async fn stream_collected(&mut self) -> Result<(), CloseReason> {
        let uploads = self.uploads.as_mut();
        match uploads.and_then(|uploads| uploads.collecting.take()) {
            Some(upload) => self.stream_upload(upload).await,
            None => Ok(()),
        }
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

    /// Starts a task that receives an upload, and passes on the data that was collected.
    async fn stream_upload(&mut self, mut upload: PendingUpload) -> Result<(), CloseReason> {
        let id = upload.id;
        let receiver = match self.transfers.open_upload(id, upload.put.size) {
            Ok(receiver) => receiver,
            Err(error) => return self.refuse_upload(upload, error).await,
        };
        let collected = upload.start_streaming(receiver);
        self.spawn(receive_upload(
            upload,
            self.member.clone(),
            self.responder(),
        ));
        for chunk in collected {
            self.transfers.data(id, chunk).await?;
        }
        Ok(())
    }

    /// Answers an upload with an error.
    async fn refuse_upload(
        &self,
        upload: PendingUpload,
        error: CommandError,
    ) -> Result<(), CloseReason> {
        let PendingUpload { log, transfer, .. } = upload;
        // The client may use the id again as soon as it has the reply.
        drop(transfer);
        self.finish(log, Err(error)).await
    }

    /// Passes on a `copy` of an upload. The reply is that of the upload, and so is the log line.
    pub(super) async fn copy(
        &mut self,
        log: RequestLog,
        id: u32,
        copy: CopyRange,
    ) -> Result<(), CloseReason> {
        if self.transfers.copy(id, copy).await {
            log.withdraw();
            return Ok(());
        }
        let message = format!("there is no put with id {id} that waits for data");
        let error = CommandError::invalid_field("id", message);
        self.finish(log, Err(error)).await
    }

    /// Ends the data of an upload. The reply is that of the upload, and so is the log line.
    pub(super) async fn end(
        &mut self,
        log: RequestLog,
        id: u32,
        end: PutEnd,
    ) -> Result<(), CloseReason> {
        if self.transfers.expects_end(id) {
            log.withdraw();
            self.transfers.end(id, Ok(end)).await;
            return Ok(());
        }
        let message = format!("there is no put with id {id} that waits for its end");
        let error = CommandError::invalid_field("id", message);
        self.finish(log, Err(error)).await
    }
}

/// Receives an upload in the state `Streaming`, and answers it.
async fn receive_upload(upload: PendingUpload, member: Member, responder: Responder) {
    let PendingUpload {
        id,
        put,
        log,
        transfer,
        state,
    } = upload;
    let outbox = &responder.outbox;
    let work = pin!(async move {
        match state {
            PendingUploadState::Streaming(receiver) => {
                commands::put(id, put, &member, outbox, receiver, &transfer).await
            }
            _ => RequestOutcome::from(Err(CommandError::Internal)),
        }
    });
    let order = ReplyOrder::BeforeData;
    responder.complete(log, order, None, work).await;
}
