//! The requests of a connection that wait for replies, and the state of the connection.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::client::Lost;
use crate::client::events::{EventQueues, EventSender};
use crate::protocol::WireError;

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

/// The requests that wait for replies.
#[derive(Debug, Default)]
pub(super) struct RequestTable(Mutex<ConnectionState>);

#[derive(Debug, Default)]
struct ConnectionState {
    waiting: HashMap<u32, WaitingRequest>,
    last_id: u32,
    /// Frames that were received, and data frames that were sent.
    frames: u64,
    phase: ConnectionPhase,
    events: EventQueues,
}

/// What the reading task of a connection does.
#[derive(Debug, Default)]
enum ConnectionPhase {
    /// It waits for the next frame. If requests wait too, the server is expected to send one.
    #[default]
    Reading,
    /// It waits for the reader of a download or of the events. Meanwhile the server cannot be blamed for
    /// its silence.
    Delivering,
    /// It has ended. No request is accepted any more.
    Lost(Lost),
}

/// A request without its final reply. It keeps its permits until then, even if its caller was dropped.
#[derive(Debug)]
pub(super) struct WaitingRequest {
    pub(super) reply: ReplyTarget,
    pub(super) parts: TransferParts,
    pub(super) _permits: Option<(OwnedSemaphorePermit, Option<OwnedSemaphorePermit>)>,
}

/// The frames that may come before the final reply of a request, and their receiver.
#[derive(Debug)]
pub(super) enum TransferParts {
    /// No such frames.
    None,
    /// The begin of a put.
    Begin(mpsc::Sender<TransferPart>),
    /// The begin of a get, and its data.
    Data {
        sender: mpsc::Sender<TransferPart>,
        begun: bool,
    },
}

impl TransferParts {
    /// The receiver of `part`, if the request allows this part now.
    fn sender_for(&mut self, part: &TransferPart) -> Option<mpsc::Sender<TransferPart>> {
        match (&mut *self, part) {
            (Self::Begin(sender), TransferPart::Begin(_)) => {
                let sender = sender.clone();
                *self = Self::None;
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
pub(super) type RequestReply = Result<Box<RawValue>, WireError>;

/// The result of a request that was entered with a ticket; no reply if the connection is lost.
#[derive(Debug)]
pub(crate) struct RequestAnswer {
    pub(crate) ticket: u64,
    pub(crate) reply: Option<RequestReply>,
    pub(crate) received: ReceivedPart,
}

/// The parts that came before a final reply.
#[derive(Debug, Default)]
pub(crate) struct ReceivedPart {
    pub(crate) begin: Option<Box<RawValue>>,
    /// The bytes of the file, unless there were more than the limit of the request.
    pub(crate) chunks: Vec<Bytes>,
    /// The number of bytes that arrived.
    pub(crate) bytes: usize,
}

/// The receiver of a final reply.
#[derive(Debug)]
pub(super) enum ReplyTarget {
    /// The caller of one request.
    Single(oneshot::Sender<RequestReply>),
    /// A caller that receives the replies of many requests in one queue.
    Shared(RequestGuard),
}

impl ReplyTarget {
    /// The receiver may have been dropped.
    pub(super) fn send(self, reply: RequestReply) {
        match self {
            Self::Single(sender) => {
                let _ = sender.send(reply);
            }
            Self::Shared(mut guard) => guard.answer(Some(reply)),
        }
    }
}

/// One request of a shared queue. It is answered even if it is dropped, so that no request is lost.
#[derive(Debug)]
pub(super) struct RequestGuard {
    ticket: u64,
    /// `None` once it is answered.
    answers: Option<mpsc::UnboundedSender<RequestAnswer>>,
    max_bytes: usize,
    received: ReceivedPart,
}

impl RequestGuard {
    pub(super) fn new(
        ticket: u64,
        answers: mpsc::UnboundedSender<RequestAnswer>,
        max_bytes: usize,
    ) -> Self {
        Self {
            ticket,
            answers: Some(answers),
            max_bytes,
            received: ReceivedPart::default(),
        }
    }

    /// Drops it without an answer.
    pub(super) fn disarm(mut self) {
        self.answers = None;
    }

    fn collect(&mut self, part: TransferPart) {
        match part {
            TransferPart::Begin(begin) => self.received.begin = Some(begin),
            TransferPart::Chunk(chunk) => {
                self.received.bytes = self.received.bytes.saturating_add(chunk.len());
                if self.received.bytes <= self.max_bytes {
                    self.received.chunks.push(chunk);
                } else {
                    self.received.chunks = Vec::new();
                }
            }
        }
    }

    fn answer(&mut self, reply: Option<RequestReply>) {
        if let Some(answers) = self.answers.take() {
            let _ = answers.send(RequestAnswer {
                ticket: self.ticket,
                reply,
                received: std::mem::take(&mut self.received),
            });
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

    /// Enters a request and returns its id.
    pub(super) fn insert(&self, waiting: WaitingRequest) -> Result<u32, Lost> {
        let mut state = self.lock();
        if let ConnectionPhase::Lost(lost) = &state.phase {
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

    pub(super) fn contains(&self, id: u32) -> bool {
        self.lock().waiting.contains_key(&id)
    }

    pub(super) fn remove(&self, id: u32) -> Option<WaitingRequest> {
        self.lock().waiting.remove(&id)
    }

    pub(super) fn frames(&self) -> u64 {
        self.lock().frames
    }

    pub(super) fn count_frame(&self) {
        self.lock().frames += 1;
    }

    /// Whether requests wait for the server, and no frame has moved since there were `frames`.
    pub(super) fn is_waiting_since(&self, frames: u64) -> bool {
        let state = self.lock();
        state.frames == frames
            && matches!(state.phase, ConnectionPhase::Reading)
            && !state.waiting.is_empty()
    }

    /// Waits until the receiver of a part or an event has capacity for it.
    pub(super) async fn deliver<T>(&self, delivery: impl Future<Output = T>) -> T {
        self.set_phase(ConnectionPhase::Delivering);
        let delivered = delivery.await;
        self.set_phase(ConnectionPhase::Reading);
        delivered
    }

    /// A lost connection stays lost.
    fn set_phase(&self, phase: ConnectionPhase) {
        let mut state = self.lock();
        if !matches!(state.phase, ConnectionPhase::Lost(_)) {
            state.phase = phase;
        }
    }

    /// Collects a part for a shared queue, or returns it with its receiver.
    pub(super) fn route(
        &self,
        id: u32,
        part: TransferPart,
    ) -> Result<Option<(mpsc::Sender<TransferPart>, TransferPart)>, Lost> {
        let mut state = self.lock();
        let waiting = state.waiting.get_mut(&id);
        let waiting = waiting.ok_or_else(|| unexpected(part.kind(), id))?;
        if let ReplyTarget::Shared(guard) = &mut waiting.reply {
            guard.collect(part);
            return Ok(None);
        }
        match waiting.parts.sender_for(&part) {
            Some(sender) => Ok(Some((sender, part))),
            None => Err(unexpected(part.kind(), id)),
        }
    }

    pub(super) fn event_sender(&self) -> Option<EventSender> {
        self.lock().events.sender()
    }

    /// Changes the receiver of events. Those of a lost connection have ended.
    pub(super) fn with_events<T>(&self, change: impl FnOnce(&mut EventQueues) -> T) -> T {
        let mut state = self.lock();
        let changed = change(&mut state.events);
        if matches!(state.phase, ConnectionPhase::Lost(_)) {
            state.events.end();
        }
        changed
    }

    /// Fails the requests that wait, and all later ones. The first reason stays.
    pub(super) fn lose(&self, lost: Lost) {
        let waiting = {
            let mut state = self.lock();
            if !matches!(state.phase, ConnectionPhase::Lost(_)) {
                state.phase = ConnectionPhase::Lost(lost);
            }
            state.events.end();
            std::mem::take(&mut state.waiting)
        };
        drop(waiting);
    }

    pub(super) fn lost(&self) -> Option<Lost> {
        match &self.lock().phase {
            ConnectionPhase::Lost(lost) => Some(lost.clone()),
            _ => None,
        }
    }

    /// Why a request got no reply.
    pub(super) fn loss(&self) -> Lost {
        self.lost().unwrap_or(Lost::Closed)
    }
}

pub(super) fn unexpected(kind: &str, id: u32) -> Lost {
    Lost::Unexpected(format!("{kind} with the id {id}"))
}
