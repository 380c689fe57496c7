//! Completes a request: log line, metrics and audit, then the final reply.
//!
//! Tasks of a session own a clone. They hold no socket: the session's writer sends the reply.

use std::future::Future;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use crate::connection::Outbox;
use crate::server::session::request_log::{RequestLog, RequestOutcome};

/// Sends the replies of a session's tasks until the session ends. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Responder {
    pub(crate) outbox: Outbox,
    /// Cancelled once the session has ended: no reply is sent then.
    pub(crate) session_ended: CancellationToken,
}

/// The position of a reply relative to the file data that the session still has to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyOrder {
    /// The reply overtakes queued data.
    BeforeData,
    /// The reply follows queued data, which may be the request's own.
    AfterData,
}

impl Responder {
    /// Runs `work`, closes the request's log entry, sends the reply and releases `permit`.
    ///
    /// A client may use a request's id again as soon as it has the reply. `work` must therefore own
    /// the request's [`TransferGuard`](crate::server::transfer::running_transfers::TransferGuard), if it has
    /// one: the guard is dropped when `work` completes. Callers pin `work`, which keeps the tasks
    /// small.
    pub(crate) async fn complete<T: Into<RequestOutcome>>(
        &self,
        log: RequestLog,
        order: ReplyOrder,
        permit: Option<OwnedSemaphorePermit>,
        work: impl Future<Output = T>,
    ) {
        let outcome = log.guard(work).await;
        let reply = log.close(outcome);
        match order {
            ReplyOrder::BeforeData => {
                let sending = self.outbox.send(reply);
                self.session_ended.run_until_cancelled(sending).await;
            }
            ReplyOrder::AfterData => {
                let sending = self.outbox.send_after_data(reply);
                self.session_ended.run_until_cancelled(sending).await;
            }
        }
        drop(permit);
    }
}
