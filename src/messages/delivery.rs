//! A flight: what was handed to sessions in one go, until it is written or they are too slow.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;

use crate::connection::DeliveryReceipt;
use crate::messages::MessagesError;
use crate::messages::operation::Operation;
use crate::protocol::SayReply;

/// How long the reply to a message waits for sessions to take it. Who takes longer is told from the
/// database.
const PATIENCE: Duration = Duration::from_millis(200);

/// A reply that waits.
#[derive(Debug)]
pub(crate) struct Ack {
    pub(crate) done: oneshot::Sender<Result<SayReply, MessagesError>>,
    pub(crate) reply: SayReply,
    /// Bounds the messages that are not acknowledged, and the flights with them.
    pub(crate) permit: OwnedSemaphorePermit,
}

impl Ack {
    pub(crate) fn send(self) {
        drop(self.permit);
        // Whoever asked may have gone away.
        let _ = self.done.send(Ok(self.reply));
    }
}

/// Events on their way to be written.
#[derive(Debug)]
pub(crate) struct DeliveryBatch {
    number: u64,
    receipt: DeliveryReceipt,
    /// The sessions, and the last event for each.
    sessions: HashMap<u64, u64>,
    pub(crate) acks: Vec<Ack>,
}

impl DeliveryBatch {
    /// A receipt for an event that goes to a session.
    pub(crate) fn board(&mut self, session: u64, seq: u64) -> DeliveryReceipt {
        self.sessions.insert(session, seq);
        self.receipt.clone()
    }
}

/// The flights that have not landed.
#[derive(Debug)]
pub(crate) struct DeliveryBatches {
    last: u64,
    flying: HashMap<u64, Landing>,
    deadlines: VecDeque<(Instant, u64)>,
    ops: mpsc::WeakUnboundedSender<Operation>,
}

/// A flight that has landed, in time or not.
#[derive(Debug)]
pub(crate) struct Landing {
    pub(crate) sessions: HashMap<u64, u64>,
    pub(crate) acks: Vec<Ack>,
}

impl DeliveryBatches {
    pub(crate) fn new(ops: mpsc::WeakUnboundedSender<Operation>) -> Self {
        Self {
            last: 0,
            flying: HashMap::new(),
            deadlines: VecDeque::new(),
            ops,
        }
    }

    /// The next flight.
    pub(crate) fn prepare(&mut self) -> DeliveryBatch {
        self.last += 1;
        let landed = Landed {
            flight: self.last,
            ops: self.ops.clone(),
        };
        DeliveryBatch {
            number: self.last,
            receipt: DeliveryReceipt::new(Arc::new(landed)),
            sessions: HashMap::new(),
            acks: Vec::new(),
        }
    }

    /// Lets it go. Once its last receipt is dropped, the sequencer hears of it.
    pub(crate) fn start(&mut self, flight: DeliveryBatch, now: Instant) {
        let landing = Landing {
            sessions: flight.sessions,
            acks: flight.acks,
        };
        self.flying.insert(flight.number, landing);
        self.deadlines.push_back((now + PATIENCE, flight.number));
    }

    /// The flight of that number, if it has not landed yet.
    pub(crate) fn land(&mut self, number: u64) -> Option<Landing> {
        let landing = self.flying.remove(&number);
        while let Some((_, first)) = self.deadlines.front()
            && !self.flying.contains_key(first)
        {
            self.deadlines.pop_front();
        }
        landing
    }

    /// The flights for which nobody waits any longer.
    pub(crate) fn overdue(&mut self, now: Instant) -> Vec<Landing> {
        let mut landings = Vec::new();
        while let Some((deadline, first)) = self.deadlines.front().copied()
            && deadline <= now
        {
            landings.extend(self.land(first));
        }
        landings
    }

    /// When the first flight is overdue.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }
}

/// Tells the sequencer once the last receipt is dropped.
struct Landed {
    flight: u64,
    ops: mpsc::WeakUnboundedSender<Operation>,
}

impl Drop for Landed {
    fn drop(&mut self) {
        if let Some(ops) = self.ops.upgrade() {
            // Without a sequencer nobody waits.
            let _ = ops.send(Operation::Landed(self.flight));
        }
    }
}
