//! A connection to a server: one task reads it, one writes it, and a table holds the requests that
//! wait for replies.
//!
//! The reading task passes every frame to the request with its id. A download that is not read
//! fills its queue and then holds the reading task, and with it the connection: this back-pressure
//! bounds the memory, and is why the caller of a download must read it to its end or drop it. Events that are
//! not read hold the connection in the same way, for a limited time.
//!
//! - `table`: the requests that wait, and the state of the connection.
//! - `reader`: the reading task.

mod reader;
mod table;

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::client::bandwidth::{BandwidthLimit, LimitedStream};
use crate::client::connection::reader::read_until_lost;
use crate::client::connection::table::{
    ReplyTarget, RequestGuard, RequestReply, RequestTable, TransferParts, WaitingRequest,
};
use crate::client::events::EventQueues;
use crate::client::{ClientError, Lost};
use crate::connection::{FrameSink, Outbox, Receiver, write_frames};
use crate::protocol::{Call, FrameCodec, LoginReply, MAX_CONTROL, Ping, encode_request};

pub(crate) use crate::client::connection::table::{ReceivedPart, RequestAnswer, TransferPart};

/// Requests that may be unfinished on one connection; more wait here. A server reads at least as many.
const MAX_REQUESTS: usize = 48;

/// Gets and puts among them. With more at once than the server processes, the data of the waiting ones
/// would delay all other frames.
const MAX_TRANSFERS: usize = 16;

/// Data frames of one download that may wait for their reader.
const MAX_QUEUED_PARTS: usize = 4;

/// The time for one frame to arrive from its first byte to its last, and for one to be written.
const FRAME_TIMEOUT: Duration = Duration::from_mins(2);

/// A server that sends nothing for this time while requests wait is sent a `ping`.
const SILENCE_BEFORE_PING: Duration = Duration::from_mins(4);

/// The time for the reply to that `ping`, or for any other frame.
const PING_TIMEOUT: Duration = Duration::from_mins(2);

/// The time for the reading task to find the reason of a loss that the writer noticed.
const LOSS_REASON_TIMEOUT: Duration = Duration::from_secs(1);

/// The sending side of a connection, and the table of its unfinished requests.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) outbox: Outbox,
    /// The reply to the login.
    pub(crate) login: OnceLock<LoginReply>,
    pub(crate) bandwidth: BandwidthLimit,
    table: Arc<RequestTable>,
    requests: Arc<Semaphore>,
    transfers: Arc<Semaphore>,
    /// Runs the `cancel` of a transfer that is dropped.
    pub(crate) runtime: Handle,
    cut: CancellationToken,
}

impl Connection {
    /// Starts the two tasks. They end when this and every transfer of it is dropped, or when the
    /// connection is lost.
    pub(crate) fn start<R, W>(reader: R, writer: W) -> Arc<Self>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let bandwidth = BandwidthLimit::default();
        let reader = LimitedStream::new(reader, &bandwidth);
        let writer = LimitedStream::new(writer, &bandwidth);
        let (outbox, queue) = Outbox::new();
        let table = Arc::new(RequestTable::default());
        let writer = tokio::spawn(write_frames(FrameSink::new(writer), queue, FRAME_TIMEOUT));
        let receiver = Receiver::new(reader, FrameCodec::new(), FRAME_TIMEOUT);
        let cut = CancellationToken::new();
        Arc::new_cyclic(|connection| {
            tokio::spawn({
                let (connection, table, cut) =
                    (connection.clone(), Arc::clone(&table), cut.clone());
                async move {
                    let abort = writer.abort_handle();
                    let lost = tokio::select! {
                        lost = read_until_lost(receiver, writer, &table) => lost,
                        lost = watch_silence(connection, &table) => lost,
                        () = cut.cancelled() => Lost::HungUp,
                    };
                    abort.abort();
                    table.lose(lost);
                }
            });
            Self {
                outbox,
                login: OnceLock::new(),
                bandwidth,
                table,
                cut,
                requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
                transfers: Arc::new(Semaphore::new(MAX_TRANSFERS)),
                runtime: Handle::current(),
            }
        })
    }

    /// Sends a request that has no data.
    pub(crate) async fn call<C: Call>(&self, request: &C) -> Result<PendingReply, ClientError> {
        self.send(request, None, TransferParts::None).await
    }

    /// Sends a request whose data goes to the server. The first part is its begin. Parts that arrive
    /// after the receiver is dropped are discarded.
    pub(crate) async fn put<C: Call>(
        &self,
        request: &C,
    ) -> Result<(PendingReply, mpsc::Receiver<TransferPart>), ClientError> {
        let transfer = permit(&self.transfers).await;
        let (sender, parts) = mpsc::channel(1);
        let pending = self
            .send(request, Some(transfer), TransferParts::Begin(sender))
            .await?;
        Ok((pending, parts))
    }

    /// Sends a request whose data comes from the server.
    pub(crate) async fn get<C: Call>(
        &self,
        request: &C,
    ) -> Result<(PendingReply, mpsc::Receiver<TransferPart>), ClientError> {
        let transfer = permit(&self.transfers).await;
        let (sender, parts) = mpsc::channel(MAX_QUEUED_PARTS);
        let parts_to = TransferParts::Data {
            sender,
            begun: false,
        };
        let pending = self.send(request, Some(transfer), parts_to).await?;
        Ok((pending, parts))
    }

    /// Enters a request that the caller encodes and sends, and returns its id. Its final reply goes to
    /// `answers` with the number `ticket`, and with the data that came before it if that has at most
    /// `max_bytes`. The caller bounds the number of such requests.
    pub(crate) fn register(
        &self,
        ticket: u64,
        answers: &mpsc::UnboundedSender<RequestAnswer>,
        max_bytes: usize,
    ) -> Result<u32, Lost> {
        self.table.insert(WaitingRequest {
            reply: ReplyTarget::Shared(RequestGuard::new(ticket, answers.clone(), max_bytes)),
            parts: TransferParts::None,
            _permits: None,
        })
    }

    /// Removes a request that was entered and will not be sent. It gets no answer.
    pub(crate) fn withdraw(&self, id: u32) {
        if let Some(WaitingRequest {
            reply: ReplyTarget::Shared(guard),
            ..
        }) = self.table.remove(id)
        {
            guard.disarm();
        }
    }

    async fn send<C: Call>(
        &self,
        request: &C,
        transfer: Option<OwnedSemaphorePermit>,
        parts: TransferParts,
    ) -> Result<PendingReply, ClientError> {
        let permits = (permit(&self.requests).await, transfer);
        let (sender, mut reply) = oneshot::channel();
        let id = self.table.insert(WaitingRequest {
            reply: ReplyTarget::Single(sender),
            parts,
            _permits: Some(permits),
        })?;
        let unsent = Unsent {
            id,
            table: &self.table,
        };
        let json = encode_request(id, request);
        if json.len() > MAX_CONTROL {
            return Err(ClientError::TooLong {
                length: json.len(),
                limit: MAX_CONTROL,
            });
        }
        if self.outbox.send(json.into()).await.is_err() {
            // The reading task knows the reason, and may not have found it yet.
            let _ = timeout(LOSS_REASON_TIMEOUT, &mut reply).await;
            return Err(self.table.loss().into());
        }
        // It is sent: from here on the reading task removes it.
        std::mem::forget(unsent);
        Ok(PendingReply {
            id,
            reply,
            table: Arc::clone(&self.table),
        })
    }

    /// Sends a `ping` whose reply is discarded.
    async fn send_ping(&self) -> Result<(), Lost> {
        let (sender, _) = oneshot::channel();
        let id = self.table.insert(WaitingRequest {
            reply: ReplyTarget::Single(sender),
            parts: TransferParts::None,
            _permits: None,
        })?;
        let unsent = Unsent {
            id,
            table: &self.table,
        };
        let json = encode_request(id, &Ping {});
        if self.outbox.send(json.into()).await.is_ok() {
            std::mem::forget(unsent);
        }
        Ok(())
    }

    /// Notes that data of a put was sent: the server is then expected to be silent.
    pub(crate) fn sent_data(&self) {
        self.table.count_frame();
    }

    /// Whether the final reply of the request with this id is outstanding.
    pub(crate) fn is_unfinished(&self, id: u32) -> bool {
        self.table.contains(id)
    }

    /// Fails all requests, and closes the connection without sending the queued frames.
    pub(crate) fn hang_up(&self) {
        self.table.lose(Lost::HungUp);
        self.cut.cancel();
    }

    /// Changes the receiver of events.
    pub(crate) fn with_events<T>(&self, change: impl FnOnce(&mut EventQueues) -> T) -> T {
        self.table.with_events(change)
    }

    /// Why the connection is lost, if it is.
    pub(crate) fn lost(&self) -> Option<Lost> {
        self.table.lost()
    }
}

/// Resolves once requests wait and the server does not answer a `ping` either: a server process that is
/// stopped keeps its connections, and requests would wait forever.
async fn watch_silence(connection: Weak<Connection>, table: &RequestTable) -> Lost {
    loop {
        let frames = table.frames();
        sleep(SILENCE_BEFORE_PING).await;
        if !table.is_waiting_since(frames) {
            continue;
        }
        if let Some(connection) = connection.upgrade() {
            // A ping that cannot be sent has no reply either.
            let _ = timeout(PING_TIMEOUT, connection.send_ping()).await;
        }
        sleep(PING_TIMEOUT).await;
        if table.is_waiting_since(frames) {
            return Lost::Broken("the server no longer answers".into());
        }
    }
}

async fn permit(semaphore: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(semaphore)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed")
}

/// A request whose final reply is outstanding.
#[derive(Debug)]
pub(crate) struct PendingReply {
    pub(crate) id: u32,
    reply: oneshot::Receiver<RequestReply>,
    table: Arc<RequestTable>,
}

impl PendingReply {
    /// The final reply. Cancel-safe.
    pub(crate) async fn reply<T: DeserializeOwned>(&mut self) -> Result<T, ClientError> {
        if self.reply.is_terminated() {
            return Err(ClientError::TransferEnded);
        }
        match (&mut self.reply).await {
            Ok(Ok(ok)) => parse(&ok),
            Ok(Err(error)) => Err(ClientError::Server(error)),
            Err(_) => Err(self.table.loss().into()),
        }
    }
}

/// The server's reply, in the form that the request expects.
pub(crate) fn parse<T: DeserializeOwned>(json: &RawValue) -> Result<T, ClientError> {
    serde_json::from_str(json.get()).map_err(|error| ClientError::InvalidReply(error.to_string()))
}

/// Removes a request from the table unless it was sent.
struct Unsent<'a> {
    id: u32,
    table: &'a RequestTable,
}

impl Drop for Unsent<'_> {
    fn drop(&mut self) {
        self.table.remove(self.id);
    }
}
