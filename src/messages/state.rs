//! The state that message handles, the sequencer and the catch-up tasks share.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::messages::epochs::Epochs;
use crate::messages::error::MessagesError;
use crate::messages::operation::{Operation, ReplySender};
use crate::messages::presence::Presence;
use crate::messages::store::MessageStore;

/// The most bytes that an event takes in the database besides its text.
const MAX_EVENT_OVERHEAD_BYTES: u64 = 1024;

/// The state that message handles, the sequencer and the catch-up tasks share.
#[derive(Debug)]
pub(crate) struct MessagesState {
    pub(crate) store: MessageStore,
    presence: Mutex<Presence>,
    /// The queue of the sequencer. It is unbounded, but a session has few operations in it, and a
    /// message needs one of the `permits`.
    pub(crate) operations: mpsc::UnboundedSender<Operation>,
    pub(crate) permits: Arc<Semaphore>,
    /// The offers that a session is answering at the moment.
    claimed_offers: Mutex<HashSet<String>>,
    /// Whether the last commit failed.
    pub(crate) is_failing: AtomicBool,
    pub(crate) epochs: Epochs,
    /// The bytes of disk space that events may still use.
    pub(crate) disk_budget: AtomicU64,
}

impl MessagesState {
    /// The most messages that may wait for a commit.
    pub(crate) const MAX_UNSTORED_MESSAGES: usize = 1024;

    pub(crate) fn new(
        store: MessageStore,
        epochs: Epochs,
        operations: mpsc::UnboundedSender<Operation>,
    ) -> Self {
        Self {
            store,
            presence: Mutex::default(),
            operations,
            permits: Arc::new(Semaphore::new(Self::MAX_UNSTORED_MESSAGES)),
            claimed_offers: Mutex::default(),
            is_failing: AtomicBool::new(false),
            epochs,
            disk_budget: AtomicU64::new(u64::MAX),
        }
    }

    pub(crate) fn presence(&self) -> MutexGuard<'_, Presence> {
        self.presence.lock()
    }

    pub(crate) fn claimed_offers(&self) -> MutexGuard<'_, HashSet<String>> {
        self.claimed_offers.lock()
    }

    /// Charges the disk budget for an event with a text of `text_bytes`: for the write-ahead log,
    /// the table and its indexes.
    pub(crate) fn charge_disk(&self, text_bytes: usize) -> Result<(), MessagesError> {
        let bytes = 3 * (text_bytes as u64 + MAX_EVENT_OVERHEAD_BYTES);
        self.disk_budget
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(bytes)
            })
            .map(drop)
            .map_err(|_| MessagesError::NoSpace)
    }

    /// Queues an operation for the sequencer.
    pub(crate) fn send_operation(&self, operation: Operation) -> Result<(), MessagesError> {
        self.operations
            .send(operation)
            .map_err(|_| MessagesError::Ended)
    }

    /// Queues an operation for the sequencer, and waits for its reply.
    pub(crate) async fn request<T>(
        &self,
        operation: impl FnOnce(ReplySender<T>) -> Operation,
    ) -> Result<T, MessagesError> {
        let (done, reply) = oneshot::channel();
        self.send_operation(operation(done))?;
        reply.await.unwrap_or(Err(MessagesError::Ended))
    }
}
