//! The line to the server: one task reads it, one writes it, and a table knows who waits for what.
//!
//! The reader hands every frame to the call with its id. A download that is not read fills its
//! queue and then holds the reader, and with it the connection: that is the back-pressure that
//! keeps memory bounded, and why whoever begins a download must go on reading it. Events that are
//! not read hold it in the same way, but not for ever.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::client::events::EventReceiver;
use crate::client::{ClientError, Lost};
use crate::connection::{FrameSink, Outbox, ReceiveError, Receiver, write_frames};
use crate::protocol::{
    Call, Event, Frame, FrameCodec, FrameError, GoodbyeReason, LoginReply, MAX_CONTROL, Ping,
    ServerMessage, WireError, encode_request,
};

/// Requests that may be unfinished on one connection; more wait here. Below what a server takes
/// before it stops reading.
const REQUESTS: usize = 48;

/// Gets and puts among them. A server that is asked for more at once than it moves would have to
/// leave the data of the others standing in front of everything else.
const TRANSFERS: usize = 16;

/// Data frames of one download that may wait for their reader.
const MAX_QUEUED_PARTS: usize = 4;

/// For one frame to arrive from its first byte to its last, and for one to be taken.
const FRAME_TIMEOUT: Duration = Duration::from_mins(2);

/// A server that sends nothing for so long while requests wait is asked whether it is there.
const SILENCE: Duration = Duration::from_mins(4);

/// For its answer, behind what is on its way, or for anything else that it sends.
const PROBE_TIMEOUT: Duration = Duration::from_mins(2);

/// For the reason of a loss to be known once the loss is.
const GRACE: Duration = Duration::from_secs(1);

/// The sending side of a connection and the table of what is unfinished on it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) outbox: Outbox,
    /// The reply to the login.
    pub(crate) login: OnceLock<LoginReply>,
    table: Arc<RequestTable>,
    requests: Arc<Semaphore>,
    transfers: Arc<Semaphore>,
    /// For what a dropped transfer still has to say.
    pub(crate) runtime: Handle,
    cut: CancellationToken,
}

/// A part of a download's stream.
#[derive(Debug)]
pub(crate) enum TransferPart {
    /// The reply that comes before the data.
    Begin(Box<RawValue>),
    /// The next bytes.
    Chunk(Bytes),
}

impl TransferPart {
    fn kind(&self) -> &'static str {
        match self {
            Self::Begin(_) => "a begin",
            Self::Chunk(_) => "data",
        }
    }
}

impl Connection {
    /// Starts the two tasks. They end when the line and all that came of it is dropped, or when
    /// the connection does.
    pub(crate) fn start<R, W>(reader: R, writer: W) -> Arc<Self>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let (outbox, queue) = Outbox::new();
        let table = Arc::new(RequestTable::default());
        let writer = tokio::spawn(write_frames(FrameSink::new(writer), queue, FRAME_TIMEOUT));
        let receiver = Receiver::new(reader, FrameCodec::new(), FRAME_TIMEOUT);
        let cut = CancellationToken::new();
        Arc::new_cyclic(|line| {
            tokio::spawn({
                let (line, table, cut) = (line.clone(), Arc::clone(&table), cut.clone());
                async move {
                    let abort = writer.abort_handle();
                    let lost = tokio::select! {
                        lost = read_until_lost(receiver, writer, &table) => lost,
                        lost = silent(line, &table) => lost,
                        () = cut.cancelled() => Lost::HungUp,
                    };
                    abort.abort();
                    table.lose(lost);
                }
            });
            Self {
                outbox,
                login: OnceLock::new(),
                table,
                cut,
                requests: Arc::new(Semaphore::new(REQUESTS)),
                transfers: Arc::new(Semaphore::new(TRANSFERS)),
                runtime: Handle::current(),
            }
        })
    }

    /// Sends a request that has no data.
    pub(crate) async fn call<C: Call>(&self, request: &C) -> Result<PendingReply, ClientError> {
        self.send(request, None, TransferParts::Nothing).await
    }

    /// Sends a request whose data flows this way. The first part that comes is its begin; what
    /// comes after the receiver is dropped is thrown away.
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

    /// Enters a request that whoever calls this encodes and sends. Its final reply goes to
    /// `answers` under the number `ticket`, with up to `most` bytes of the file that came before it.
    /// Bounded by who sends it, not here.
    pub(crate) fn register(
        &self,
        ticket: u64,
        answers: &mpsc::UnboundedSender<RequestAnswer>,
        most: usize,
    ) -> Result<u32, Lost> {
        self.table.enter(WaitingRequest {
            reply: ReplyTo::Many(RequestGuard {
                number: ticket,
                answers: Some(answers.clone()),
                most,
                came: ReceivedPart::default(),
            }),
            parts: TransferParts::Nothing,
            _permits: None,
        })
    }

    /// Takes out a request that was entered and will not be sent.
    pub(crate) fn withdraw(&self, id: u32) {
        if let Some(WaitingRequest {
            reply: ReplyTo::Many(mut ticket),
            ..
        }) = self.table.leave(id)
        {
            ticket.answers = None;
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
        let id = self.table.enter(WaitingRequest {
            reply: ReplyTo::One(sender),
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
            // The reader, which knows why, may not have come to it.
            let _ = timeout(GRACE, &mut reply).await;
            return Err(self.table.why_lost().into());
        }
        // It is sent: from here on the reader takes it out.
        std::mem::forget(unsent);
        Ok(PendingReply {
            id,
            reply,
            table: Arc::clone(&self.table),
        })
    }

    /// Asks whether the server is there. Nobody waits for the reply itself.
    async fn probe(&self) -> Result<(), Lost> {
        let (sender, _) = oneshot::channel();
        let id = self.table.enter(WaitingRequest {
            reply: ReplyTo::One(sender),
            parts: TransferParts::Nothing,
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

    /// Notes that data of a put was sent, of which the server may say nothing for long.
    pub(crate) fn sent_data(&self) {
        self.table.lock().moved += 1;
    }

    /// Whether the request of this id still has its final reply to come.
    pub(crate) fn is_unfinished(&self, id: u32) -> bool {
        self.table.lock().waiting.contains_key(&id)
    }

    /// Fails all who wait, and closes the connection with whatever was to be sent.
    pub(crate) fn hang_up(&self) {
        self.table.lose(Lost::HungUp);
        self.cut.cancel();
    }

    /// Changes where events go. Of a connection that is lost none will come.
    pub(crate) fn with_events<T>(&self, change: impl FnOnce(&mut EventReceiver) -> T) -> T {
        let mut state = self.table.lock();
        let changed = change(&mut state.hearing);
        if state.lost.is_some() {
            state.hearing.end();
        }
        changed
    }

    /// Why the connection is gone, if it is.
    pub(crate) fn lost(&self) -> Option<Lost> {
        self.table.lock().lost.clone()
    }
}

async fn permit(semaphore: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(semaphore)
        .acquire_owned()
        .await
        .expect("no one closes it")
}

/// A request whose final reply is to come.
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
            return Err(ClientError::Over);
        }
        match (&mut self.reply).await {
            Ok(Ok(ok)) => parse(&ok),
            Ok(Err(error)) => Err(ClientError::Server(error)),
            Err(_) => Err(self.table.why_lost().into()),
        }
    }
}

/// The server's reply, in the form that the request expects.
pub(crate) fn parse<T: DeserializeOwned>(json: &RawValue) -> Result<T, ClientError> {
    serde_json::from_str(json.get()).map_err(|error| ClientError::Nonsense(error.to_string()))
}

/// Takes a request out of the table unless it was sent.
struct Unsent<'a> {
    id: u32,
    table: &'a RequestTable,
}

impl Drop for Unsent<'_> {
    fn drop(&mut self) {
        self.table.leave(self.id);
    }
}

/// The requests that wait for replies.
#[derive(Debug, Default)]
struct RequestTable(Mutex<ConnectionState>);

#[derive(Debug, Default)]
struct ConnectionState {
    waiting: HashMap<u32, WaitingRequest>,
    last_id: u32,
    /// Frames that came from the server, and data that was sent.
    moved: u64,
    /// The reader waits for whoever reads a download or the events.
    is_delivering: bool,
    lost: Option<Lost>,
    hearing: EventReceiver,
}

/// A request without its final reply. It keeps its permits until then, wanted or not.
#[derive(Debug)]
struct WaitingRequest {
    reply: ReplyTo,
    parts: TransferParts,
    _permits: Option<(OwnedSemaphorePermit, Option<OwnedSemaphorePermit>)>,
}

/// The frames that may come before the final reply of a request, and their receiver.
#[derive(Debug)]
enum TransferParts {
    Nothing,
    /// The begin of a put.
    Begin(mpsc::Sender<TransferPart>),
    /// The begin of a get, and its data.
    Data {
        sender: mpsc::Sender<TransferPart>,
        begun: bool,
    },
}

impl TransferParts {
    /// Where `part` goes, if the request lets it come now.
    fn sender_for(&mut self, part: &TransferPart) -> Option<mpsc::Sender<TransferPart>> {
        match (&mut *self, part) {
            (Self::Begin(sender), TransferPart::Begin(_)) => {
                let sender = sender.clone();
                *self = Self::Nothing;
                Some(sender)
            }
            (Self::Data { sender, begun }, TransferPart::Begin(_)) if !*begun => {
                *begun = true;
                Some(sender.clone())
            }
            (Self::Data { sender, .. }, TransferPart::Chunk(_)) => Some(sender.clone()),
            _ => None,
        }
    }
}

/// A final reply.
type RequestReply = Result<Box<RawValue>, WireError>;

/// The result of a request that was entered under a guard; no reply if the connection is lost.
#[derive(Debug)]
pub(crate) struct RequestAnswer {
    pub(crate) ticket: u64,
    pub(crate) reply: Option<RequestReply>,
    pub(crate) came: ReceivedPart,
}

/// The parts that came before a final reply.
#[derive(Debug, Default)]
pub(crate) struct ReceivedPart {
    pub(crate) begin: Option<Box<RawValue>>,
    /// The bytes of the file, unless there were too many.
    pub(crate) chunks: Vec<Bytes>,
    pub(crate) bytes: usize,
}

/// Who waits for a final reply.
#[derive(Debug)]
enum ReplyTo {
    One(oneshot::Sender<RequestReply>),
    /// One who waits for many.
    Many(RequestGuard),
}

impl ReplyTo {
    /// Whoever asked may have gone away.
    fn tell(self, reply: RequestReply) {
        match self {
            Self::One(sender) => {
                let _ = sender.send(reply);
            }
            Self::Many(mut ticket) => ticket.answer(Some(reply)),
        }
    }
}

/// The key that tells the replies of many requests apart.
#[derive(Debug)]
struct RequestGuard {
    number: u64,
    answers: Option<mpsc::UnboundedSender<RequestAnswer>>,
    /// Bytes of a file that are kept for who asked.
    most: usize,
    came: ReceivedPart,
}

impl RequestGuard {
    fn take_part(&mut self, part: TransferPart) {
        match part {
            TransferPart::Begin(begin) => self.came.begin = Some(begin),
            TransferPart::Chunk(chunk) => {
                self.came.bytes = self.came.bytes.saturating_add(chunk.len());
                if self.came.bytes <= self.most {
                    self.came.chunks.push(chunk);
                } else {
                    self.came.chunks = Vec::new();
                }
            }
        }
    }

    fn answer(&mut self, reply: Option<RequestReply>) {
        let ticket = self.number;
        if let Some(answers) = self.answers.take() {
            let came = std::mem::take(&mut self.came);
            let answer = RequestAnswer {
                ticket,
                reply,
                came,
            };
            let _ = answers.send(answer);
        }
    }
}

impl Drop for RequestGuard {
    /// The connection is lost.
    fn drop(&mut self) {
        self.answer(None);
    }
}

impl RequestTable {
    fn lock(&self) -> MutexGuard<'_, ConnectionState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, waiting: WaitingRequest) -> Result<u32, Lost> {
        let mut state = self.lock();
        if let Some(lost) = &state.lost {
            return Err(lost.clone());
        }
        loop {
            state.last_id = state.last_id.wrapping_add(1);
            let id = state.last_id;
            if id != 0 && !state.waiting.contains_key(&id) {
                state.waiting.insert(id, waiting);
                return Ok(id);
            }
        }
    }

    fn moved(&self) -> u64 {
        self.lock().moved
    }

    /// Whether requests wait for the server and nothing has moved since so much had.
    fn waits_since(&self, moved: u64) -> bool {
        let state = self.lock();
        state.moved == moved && !state.is_delivering && !state.waiting.is_empty()
    }

    /// Waits for whoever reads what arrives. Meanwhile the server is not to blame for the silence.
    async fn delivering<T>(&self, delivery: impl Future<Output = T>) -> T {
        self.lock().is_delivering = true;
        let delivered = delivery.await;
        self.lock().is_delivering = false;
        delivered
    }

    fn leave(&self, id: u32) -> Option<WaitingRequest> {
        self.lock().waiting.remove(&id)
    }

    /// Collects a part for who waits for many, or says where it goes.
    fn take(
        &self,
        id: u32,
        part: TransferPart,
    ) -> Result<Option<(mpsc::Sender<TransferPart>, TransferPart)>, Lost> {
        let mut state = self.lock();
        let waiting = state.waiting.get_mut(&id);
        let waiting = waiting.ok_or_else(|| unexpected(part.kind(), id))?;
        if let ReplyTo::Many(ticket) = &mut waiting.reply {
            ticket.take_part(part);
            return Ok(None);
        }
        match waiting.parts.sender_for(&part) {
            Some(sender) => Ok(Some((sender, part))),
            None => Err(unexpected(part.kind(), id)),
        }
    }

    /// Fails what waits and whatever comes.
    fn lose(&self, lost: Lost) {
        let waiting = {
            let mut state = self.lock();
            state.lost.get_or_insert(lost);
            state.hearing.end();
            std::mem::take(&mut state.waiting)
        };
        drop(waiting);
    }

    fn why_lost(&self) -> Lost {
        self.lock().lost.clone().unwrap_or(Lost::Closed)
    }
}

/// Hands out what arrives until nothing more can; why that is.
async fn read_until_lost<R: AsyncRead + Unpin>(
    mut receiver: Receiver<R>,
    mut writer: JoinHandle<std::io::Result<()>>,
    table: &RequestTable,
) -> Lost {
    let mut goodbye = None;
    let lost = loop {
        let frame = tokio::select! {
            biased;
            frame = receiver.next() => frame,
            end = &mut writer => break why_unwritable(end),
        };
        table.lock().moved += 1;
        match frame {
            Ok(Some(Frame::Data { stream, chunk })) => {
                if let Err(lost) = deliver(table, stream, TransferPart::Chunk(chunk)).await {
                    break lost;
                }
            }
            Ok(Some(Frame::Control(json))) => match ServerMessage::parse(&json) {
                Ok(message) => {
                    if let Err(lost) = hand_out(table, message, &mut goodbye).await {
                        break lost;
                    }
                }
                Err(error) => break Lost::NotHaul(error.to_string()),
            },
            Ok(None) => break Lost::Closed,
            Err(ReceiveError::Frame(FrameError::Io(error))) => {
                break crate::client::tls::why_broken(&error);
            }
            Err(ReceiveError::Frame(FrameError::Truncated)) => {
                break Lost::Broken(FrameError::Truncated.to_string());
            }
            Err(ReceiveError::Frame(error)) => break Lost::NotHaul(error.to_string()),
            Err(error @ ReceiveError::TimedOut(_)) => break Lost::Broken(error.to_string()),
        }
    };
    goodbye.map_or(lost, Lost::Goodbye)
}

/// Resolves once requests wait and the server is silent although it was asked whether it is there:
/// a process that was stopped keeps its connections, and would keep them waiting for ever.
async fn silent(line: Weak<Connection>, table: &RequestTable) -> Lost {
    loop {
        let moved = table.moved();
        sleep(SILENCE).await;
        if !table.waits_since(moved) {
            continue;
        }
        if let Some(line) = line.upgrade() {
            // If it cannot be sent, that is silence, too.
            let _ = timeout(PROBE_TIMEOUT, line.probe()).await;
        }
        sleep(PROBE_TIMEOUT).await;
        if table.waits_since(moved) {
            return Lost::Broken("the server does not answer any more".into());
        }
    }
}

/// Gives one message to who waits for it. An error ends the connection.
///
/// A reply that answers no request is such an error: a damaged byte may have made it from one that
/// somebody waits for, who would wait for ever.
async fn hand_out(
    table: &RequestTable,
    message: ServerMessage,
    goodbye: &mut Option<GoodbyeReason>,
) -> Result<(), Lost> {
    match message {
        ServerMessage::Reply(id, reply) => match (table.leave(id), reply) {
            (Some(waiting), reply) => waiting.reply.tell(reply),
            (None, Ok(_)) => return Err(unexpected("a reply", id)),
            (None, Err(error)) => {
                return Err(unexpected(&format!("an error ({error})"), id));
            }
        },
        ServerMessage::Begin(id, begin) => deliver(table, id, TransferPart::Begin(begin)).await?,
        ServerMessage::Event(Event::Goodbye { reason }) => *goodbye = Some(reason),
        // Newer servers may say more.
        ServerMessage::Event(Event::Unknown) => {}
        ServerMessage::Event(event) => {
            let ears = table.lock().hearing.ears();
            if let Some(ears) = ears
                && !table.delivering(ears.deliver(event)).await
            {
                return Err(Lost::Unheard);
            }
        }
        ServerMessage::Refusal(error) => return Err(Lost::Refused(error)),
    }
    Ok(())
}

/// Waits for room in the queue of a download. What nobody reads any more is thrown away.
async fn deliver(table: &RequestTable, id: u32, part: TransferPart) -> Result<(), Lost> {
    if let Some((parts, part)) = table.take(id, part)? {
        let _ = table.delivering(parts.send(part)).await;
    }
    Ok(())
}

fn unexpected(what: &str, id: u32) -> Lost {
    Lost::Unexpected(format!("{what} with the id {id}"))
}

fn why_unwritable(end: Result<std::io::Result<()>, tokio::task::JoinError>) -> Lost {
    match end {
        Ok(Ok(())) => Lost::Closed,
        Ok(Err(error)) => Lost::Broken(error.to_string()),
        Err(error) => Lost::Broken(error.to_string()),
    }
}
