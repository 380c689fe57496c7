//! Requests that move data: uploads, downloads, and the log.

use std::pin::pin;
use std::sync::Arc;

use tokio::io::AsyncRead;
use tokio::sync::Semaphore;
use tracing::Instrument;

use crate::protocol::{End as PutEnd, Get, Logs, Put};
use crate::server::commands;
use crate::server::error::CommandError;
use crate::server::session::close_reason::CloseReason;
use crate::server::session::dialect::Dialect;
use crate::server::session::member::Member;
use crate::server::session::request_log::RequestLog;
use crate::server::session::request_loop::state::{BatchState, RequestLoop};
use crate::server::session::responder::{ReplyOrder, Responder};
use crate::server::transfer::download::{DownloadSource, PendingDownload};
use crate::server::transfer::progress::{Direction, TransferSubject};
use crate::server::transfer::registry::TransferGuard;
use crate::server::transfer::small_upload;

/// Requests of a session at once that follow the log.
const MAX_FOLLOWERS: usize = 4;

impl<R: AsyncRead + Unpin + Send> RequestLoop<'_, R> {
    pub(super) async fn get(
        &mut self,
        log: RequestLog,
        id: u32,
        get: Get,
    ) -> Result<(), CloseReason> {
        let Some(transfer) = self.start(&log, id, Direction::Get, None) else {
            return self.finish(log, Err(duplicate_id(id))).await;
        };
        let path = match self.member.resolve(&get.path) {
            Ok(path) => path,
            Err(error) => {
                drop(transfer);
                return self.finish(log, Err(error)).await;
            }
        };
        let permit = if let Ok(permit) = self.unfinished.clone().try_acquire_owned() {
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
        if self.member.is_paced() {
            let sending = Arc::clone(&self.sending);
            let (member, responder) = (self.member.clone(), self.responder());
            self.spawn(send_large(download, member, responder, sending));
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
        let sending = Arc::clone(&self.sending);
        let tasks = self.session.tasks.clone();
        let life = self.idle.life();
        self.spawn(async move {
            let (large_member, large_responder) = (member.clone(), responder.clone());
            queue
                .work(member, responder, |download| {
                    let member = large_member.clone();
                    let responder = large_responder.clone();
                    let sending = send_large(download, member, responder, Arc::clone(&sending));
                    let life = life.clone();
                    let work = async move {
                        sending.await;
                        life.touch();
                    };
                    tasks.spawn(work.in_current_span());
                })
                .await;
        });
    }

    /// Sends log lines from a task until it is cancelled.
    pub(super) async fn logs(
        &mut self,
        log: RequestLog,
        id: u32,
        logs: Logs,
    ) -> Result<(), CloseReason> {
        if logs.follow && self.transfers.followers() >= MAX_FOLLOWERS {
            let refused = CommandError::TooManyFollowers(MAX_FOLLOWERS);
            return self.finish(log, Err(refused)).await;
        }
        let Some(transfer) = self.start(&log, id, Direction::Logs, None) else {
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

    pub(super) async fn put(
        &mut self,
        log: RequestLog,
        id: u32,
        put: Put,
    ) -> Result<(), CloseReason> {
        self.transfers.check_put(id)?;
        let Some(transfer) = self.start(&log, id, Direction::Put, put.size) else {
            self.transfers.ignore_put(id);
            return self.finish(log, Err(duplicate_id(id))).await;
        };
        if self.session.dialect == Dialect::Classic {
            // What is kept could not be resumed, and would only take up the quota.
            self.transfers.reject(id);
        } else if small_upload::is_small(&put) && !self.member.is_paced() {
            self.collect(log, id, put, transfer);
            return Ok(());
        }
        self.open_put(log, id, put, transfer).await
    }

    /// Enters a transfer; `None` if its id is taken.
    pub(super) fn start(
        &self,
        log: &RequestLog,
        id: u32,
        direction: Direction,
        size: Option<u64>,
    ) -> Option<TransferGuard> {
        let what = TransferSubject {
            direction,
            path: log.path().unwrap_or_default().to_owned(),
            size,
            traffic: Arc::clone(&self.session.shared.traffic),
        };
        self.transfers.start(id, &self.session.gone, what)
    }

    /// Has a task take the data of a put as it comes.
    pub(super) async fn open_put(
        &mut self,
        log: RequestLog,
        id: u32,
        put: Put,
        transfer: TransferGuard,
    ) -> Result<(), CloseReason> {
        let incoming = match self.transfers.open_put(id, put.size) {
            Ok(incoming) => incoming,
            Err(error) => {
                drop(transfer);
                return self.finish(log, Err(error)).await;
            }
        };
        let member = self.member.clone();
        let responder = self.responder();
        self.spawn(async move {
            let outbox = &responder.outbox;
            let work = pin!(async move {
                commands::put(id, put, &member, outbox, incoming, &transfer).await
            });
            let order = ReplyOrder::BeforeData;
            responder.complete(log, order, None, work).await;
        });
        Ok(())
    }

    /// Ends the data of a put. The reply is that of the put, and so is the log line.
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
        self.finish(log, Err(CommandError::invalid_field("id", message)))
            .await
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

fn duplicate_id(id: u32) -> CommandError {
    let message = format!("id {id} is that of an unfinished get, put or logs");
    CommandError::invalid_field("id", message)
}
