//! Downloads, and requests that send a tree's entries or the log.

use std::pin::pin;
use std::sync::Arc;

use tokio::io::AsyncRead;
use tokio::sync::Semaphore;
use tracing::Instrument;

use crate::protocol::{Chunks, Get, Logs, Ls};
use crate::server::commands;
use crate::server::error::CommandError;
use crate::server::session::close_reason::CloseReason;
use crate::server::session::member::Member;
use crate::server::session::request_log::RequestLog;
use crate::server::session::request_loop::state::{BatchState, RequestLoop};
use crate::server::session::responder::{ReplyOrder, Responder};
use crate::server::transfer::download::{DownloadSource, PendingDownload};
use crate::server::transfer::progress::{TransferKind, TransferSubject};
use crate::server::transfer::running_transfers::TransferGuard;

/// Requests of a session at once that follow the log.
const MAX_FOLLOWERS: usize = 4;

impl<R: AsyncRead + Unpin + Send> RequestLoop<'_, R> {
    pub(super) async fn get(
        &mut self,
        log: RequestLog,
        id: u32,
        get: Get,
    ) -> Result<(), CloseReason> {
        let Some(transfer) = self.register(&log, id, TransferKind::Get, None) else {
            return self.finish(log, Err(duplicate_id(id))).await;
        };
        let path = match self.member.resolve(&get.path) {
            Ok(path) => path,
            Err(error) => {
                drop(transfer);
                return self.finish(log, Err(error)).await;
            }
        };
        let permit = if let Ok(permit) = self.request_permits.clone().try_acquire_owned() {
            Some(permit)
        } else {
            // Queued downloads may hold the permits, so they must start.
            self.start_downloads();
            self.permit().await
        };
        let download = PendingDownload {
            id,
            get,
            log,
            transfer,
            permit,
        };
        if self.member.has_bandwidth_limit() {
            let permits = Arc::clone(&self.download_permits);
            let (member, responder) = (self.member.clone(), self.responder());
            self.spawn(send_large(download, member, responder, permits));
            return Ok(());
        }
        let view = self.member.view();
        let downloads = self.downloads.get_or_insert_default();
        downloads.add(download, DownloadSource { view, path });
        self.batches.downloads = BatchState::Unclaimed;
        Ok(())
    }

    /// Starts a worker for the downloads that wait, unless one runs: it takes them then.
    pub(super) fn start_downloads(&mut self) {
        self.batches.downloads = BatchState::Claimed;
        let Some(queue) = self.downloads.as_ref().filter(|queue| queue.claim_worker()) else {
            return;
        };
        let queue = Arc::clone(queue);
        let (member, responder) = (self.member.clone(), self.responder());
        let permits = Arc::clone(&self.download_permits);
        let tasks = self.session.tasks.clone();
        let activity = self.idle.last_activity();
        self.spawn(async move {
            let (large_member, large_responder) = (member.clone(), responder.clone());
            queue
                .work(member, responder, |download| {
                    let member = large_member.clone();
                    let responder = large_responder.clone();
                    let sending = send_large(download, member, responder, Arc::clone(&permits));
                    let activity = activity.clone();
                    let work = async move {
                        sending.await;
                        activity.record();
                    };
                    tasks.spawn(work.in_current_span());
                })
                .await;
        });
    }

    /// Sends the records of content chunks from a task.
    pub(super) async fn chunks(
        &mut self,
        log: RequestLog,
        id: u32,
        chunks: Chunks,
    ) -> Result<(), CloseReason> {
        let Some(transfer) = self.register(&log, id, TransferKind::Chunks, None) else {
            return self.finish(log, Err(duplicate_id(id))).await;
        };
        let permit = self.permit().await;
        let (member, responder) = (self.member.clone(), self.responder());
        self.spawn(async move {
            let outbox = &responder.outbox;
            let work =
                pin!(async move { commands::chunks(id, chunks, &member, outbox, &transfer).await });
            let order = ReplyOrder::AfterData;
            responder.complete(log, order, permit, work).await;
        });
        Ok(())
    }

    /// Sends log lines from a task until it is cancelled.
    pub(super) async fn logs(
        &mut self,
        log: RequestLog,
        id: u32,
        logs: Logs,
    ) -> Result<(), CloseReason> {
        if logs.follow && self.transfers.running().count_log_requests() >= MAX_FOLLOWERS {
            let refused = CommandError::TooManyFollowers(MAX_FOLLOWERS);
            return self.finish(log, Err(refused)).await;
        }
        let Some(transfer) = self.register(&log, id, TransferKind::Logs, None) else {
            return self.finish(log, Err(duplicate_id(id))).await;
        };
        // A follower takes no permit, because it would hold it until the session ends.
        let permit = if logs.follow {
            None
        } else {
            self.permit().await
        };
        let member = self.member.clone();
        let responder = self.responder();
        let drain = self.session.shutdown.drain.clone();
        self.spawn(async move {
            let outbox = &responder.outbox;
            let work = pin!(async move {
                commands::logs(id, logs, &member, outbox, &transfer, &drain).await
            });
            let order = ReplyOrder::AfterData;
            responder.complete(log, order, permit, work).await;
        });
        Ok(())
    }

    /// Sends the entries of a tree from a task.
    pub(super) async fn list_tree(
        &mut self,
        log: RequestLog,
        id: u32,
        ls: Ls,
    ) -> Result<(), CloseReason> {
        let Some(transfer) = self.register(&log, id, TransferKind::Listing, None) else {
            return self.finish(log, Err(duplicate_id(id))).await;
        };
        let permit = self.permit().await;
        let (member, responder) = (self.member.clone(), self.responder());
        let listings = Arc::clone(&self.listings);
        self.spawn(async move {
            let outbox = &responder.outbox;
            let work = pin!(async move {
                commands::list_tree(id, ls, &member, outbox, &listings, &transfer).await
            });
            let order = ReplyOrder::AfterData;
            responder.complete(log, order, permit, work).await;
        });
        Ok(())
    }

    /// Registers a transfer; `None` if its id is that of an unfinished one.
    pub(super) fn register(
        &self,
        log: &RequestLog,
        id: u32,
        kind: TransferKind,
        size: Option<u64>,
    ) -> Option<TransferGuard> {
        let subject = TransferSubject {
            kind,
            path: log.path().unwrap_or_default().to_owned(),
            size,
            traffic: Arc::clone(&self.session.shared.traffic),
        };
        self.transfers
            .register(id, &self.session.session_ended, subject)
    }
}

/// Sends one file in chunks, once `sending` has a permit.
async fn send_large(
    download: PendingDownload,
    member: Member,
    responder: Responder,
    sending: Arc<Semaphore>,
) {
    let PendingDownload {
        id,
        get,
        log,
        transfer,
        permit,
    } = download;
    let outbox = &responder.outbox;
    let work =
        pin!(async move { commands::get(id, get, &member, outbox, &sending, &transfer).await });
    let order = ReplyOrder::AfterData;
    responder.complete(log, order, permit, work).await;
}

pub(super) fn duplicate_id(id: u32) -> CommandError {
    let message = format!("id {id} is that of an unfinished get, put, ls, chunks or logs");
    CommandError::invalid_field("id", message)
}
