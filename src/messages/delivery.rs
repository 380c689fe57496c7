//! Deliveries: events that were queued for live sessions, until each session has them or is too slow.
//!
//! The sender of an event gets its reply when the delivery has finished.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;

use crate::connection::DeliveryReceipt;
use crate::messages::error::MessagesError;
use crate::messages::operation::Operation;
use crate::protocol::SayReply;

/// How long the reply to a message waits for live sessions. A session that takes longer catches up
/// from the database.
const MAX_DELIVERY_WAIT: Duration = Duration::from_millis(200);

/// The reply to the sender of an event.
#[derive(Debug)]
pub(crate) struct SayAcknowledgement {
    pub(crate) done: oneshot::Sender<Result<SayReply, MessagesError>>,
    pub(crate) reply: SayReply,
    /// Bounds the messages without a reply, and thereby the deliveries.
    pub(crate) permit: OwnedSemaphorePermit,
}

impl SayAcknowledgement {
    pub(crate) fn send(self) {
        drop(self.permit);
        // The sender may have gone.
        let _ = self.done.send(Ok(self.reply));
    }
}

/// Events that are queued for sessions together.
#[derive(Debug)]
pub(crate) struct DeliveryBatch {
    number: u64,
    receipt: DeliveryReceipt,
    /// The `seq` of the last event for each session.
    sessions: HashMap<u64, u64>,
    pub(crate) acknowledgements: Vec<SayAcknowledgement>,
}

impl DeliveryBatch {
    /// Adds an event for a session, and returns the receipt to queue it with.
    pub(crate) fn receipt_for(&mut self, session: u64, seq: u64) -> DeliveryReceipt {
        self.sessions.insert(session, seq);
        self.receipt.clone()
    }
}

/// The deliveries that have not finished.
#[derive(Debug)]
pub(crate) struct DeliveryTracker {
    last_number: u64,
    unfinished: HashMap<u64, FinishedDelivery>,
    deadlines: VecDeque<(Instant, u64)>,
    operations: mpsc::WeakUnboundedSender<Operation>,
}

/// A delivery whose events are all written, or whose time is over.
#[derive(Debug)]
pub(crate) struct FinishedDelivery {
    pub(crate) sessions: HashMap<u64, u64>,
    pub(crate) acknowledgements: Vec<SayAcknowledgement>,
}

impl DeliveryTracker {
    pub(crate) fn new(operations: mpsc::WeakUnboundedSender<Operation>) -> Self {
        Self {
            last_number: 0,
            unfinished: HashMap::new(),
            deadlines: VecDeque::new(),
            operations,
        }
    }

    /// An empty batch.
    pub(crate) fn new_batch(&mut self) -> DeliveryBatch {
        self.last_number += 1;
        let notice = CompletionNotice {
            batch: self.last_number,
            operations: self.operations.clone(),
        };
        DeliveryBatch {
            number: self.last_number,
            receipt: DeliveryReceipt::new(Arc::new(notice)),
            sessions: HashMap::new(),
            acknowledgements: Vec::new(),
        }
    }

    /// Tracks a batch. When its last receipt is dropped, the sequencer gets
    /// [`Operation::DeliveryFinished`].
    pub(crate) fn start(&mut self, batch: DeliveryBatch, now: Instant) {
        let delivery = FinishedDelivery {
            sessions: batch.sessions,
            acknowledgements: batch.acknowledgements,
        };
        self.unfinished.insert(batch.number, delivery);
        self.deadlines
            .push_back((now + MAX_DELIVERY_WAIT, batch.number));
    }

    /// Ends the delivery with this number; `None` if it has ended already.
    pub(crate) fn finish(&mut self, number: u64) -> Option<FinishedDelivery> {
        let delivery = self.unfinished.remove(&number);
        while let Some((_, first)) = self.deadlines.front()
            && !self.unfinished.contains_key(first)
        {
            self.deadlines.pop_front();
        }
        delivery
    }

    /// Ends the deliveries whose time is over.
    pub(crate) fn overdue(&mut self, now: Instant) -> Vec<FinishedDelivery> {
        let mut overdue = Vec::new();
        while let Some((deadline, first)) = self.deadlines.front().copied()
            && deadline <= now
        {
            overdue.extend(self.finish(first));
        }
        overdue
    }

    /// The time at which the next delivery is overdue.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }
}

/// Notifies the sequencer when the last receipt is dropped.
struct CompletionNotice {
    batch: u64,
    operations: mpsc::WeakUnboundedSender<Operation>,
}

impl Drop for CompletionNotice {
    fn drop(&mut self) {
        if let Some(operations) = self.operations.upgrade() {
            // Fails only if the sequencer has ended.
            let _ = operations.send(Operation::DeliveryFinished(self.batch));
        }
    }
}
