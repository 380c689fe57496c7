//! File changes on their way from storage to the sessions that watch.
//!
//! A change passes a bounded queue, gets its `seq` from the sequencer, and goes into the event
//! queues of the sessions that watch its path. A session whose queue is full lags, and catches up
//! from the remembered changes once its queue is drained. No change is stored in the database.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;

use crate::connection::{EventQueue, QueuedEvent};
use crate::messages::error::MessagesError;
use crate::messages::operation::{Operation, SessionOperation, WatchRequest};
use crate::messages::state::MessagesState;
use crate::messages::watches::{CatchUpProgress, Watches};
use crate::protocol::{Changed, Event, WatchReply, encode_event};
use crate::storage::FileChange;

/// The most changes that may wait for the sequencer.
pub(crate) const MAX_WAITING_CHANGES: usize = 4096;

/// The most remembered changes that one step of a catch-up examines.
const MAX_CHANGES_PER_CATCH_UP: usize = 256;

/// The sender for file changes. Clones are cheap.
#[derive(Debug, Clone)]
pub struct ChangeFeed {
    sender: mpsc::Sender<FileChange>,
    lost: Arc<AtomicBool>,
}

impl ChangeFeed {
    /// Sends a change, without waiting. If the queue is full, the change is lost, and every session
    /// that watches a path receives an overflow event.
    pub fn publish(&self, change: FileChange) {
        if self.sender.try_send(change).is_err() {
            self.lost.store(true, Ordering::Release);
        }
    }
}

/// The sequencer's side: dispatches changes to the sessions that watch.
#[derive(Debug)]
pub(crate) struct ChangeDispatcher {
    watches: Watches<u64>,
    receiver: mpsc::Receiver<FileChange>,
    lost: Arc<AtomicBool>,
    /// Lagging sessions with a pending catch-up step.
    draining: HashSet<u64>,
}

impl ChangeDispatcher {
    /// A feed and its dispatcher. Changes up to `seq` are not remembered.
    pub(crate) fn new(seq: u64) -> (ChangeFeed, Self) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING_CHANGES);
        let lost = Arc::new(AtomicBool::new(false));
        let feed = ChangeFeed {
            sender,
            lost: Arc::clone(&lost),
        };
        let dispatcher = Self {
            watches: Watches::new(seq),
            receiver,
            lost,
            draining: HashSet::new(),
        };
        (feed, dispatcher)
    }

    /// Waits for changes, and receives at most `max_changes`.
    ///
    /// # Cancel safety
    /// Cancel-safe: no change is lost.
    pub(crate) async fn receive(&mut self, changes: &mut Vec<FileChange>, max_changes: usize) {
        if self.receiver.recv_many(changes, max_changes).await == 0 {
            // The feed is closed.
            std::future::pending::<()>().await;
        }
    }

    /// Receives changes that wait already, until `changes` has `max_changes`.
    pub(crate) fn try_receive(&mut self, changes: &mut Vec<FileChange>, max_changes: usize) {
        while changes.len() < max_changes
            && let Ok(change) = self.receiver.try_recv()
        {
            changes.push(change);
        }
    }

    /// Whether changes were lost since the last call.
    pub(crate) fn take_lost(&self) -> bool {
        self.lost.swap(false, Ordering::AcqRel)
    }

    /// Whether changes were lost since the last call of [`take_lost`](Self::take_lost).
    pub(crate) fn has_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Records that a change was lost.
    pub(crate) fn mark_lost(&self) {
        self.lost.store(true, Ordering::Release);
    }

    /// Queues changes for the sessions that watch their paths. Changes up to the `seq` in `lost` may
    /// be missing.
    pub(crate) fn dispatch(
        &mut self,
        shared: &Arc<MessagesState>,
        changes: Vec<(u64, FileChange)>,
        lost: Option<u64>,
    ) {
        let mut full = Vec::new();
        let presence = shared.presence();
        for (seq, change) in changes {
            for (session, event) in self.watches.record(seq, change) {
                if !push(presence.queue(session).as_ref(), event) {
                    self.watches.mark_behind(session, seq);
                    full.push(session);
                }
            }
        }
        drop(presence);
        if let Some(seq) = lost {
            self.watches.mark_lost(seq);
            full.extend(self.watches.sessions_behind());
        }
        for session in full {
            self.wait_until_drained(shared, session);
        }
    }

    /// Applies a request. `now` is the last assigned `seq`.
    pub(crate) fn apply(
        &mut self,
        shared: &Arc<MessagesState>,
        session: u64,
        request: WatchRequest,
        now: u64,
    ) {
        // A reply fails only if the requester has gone.
        match request {
            WatchRequest::Watch {
                path,
                scopes,
                since,
                done,
            } => {
                let number = self.watches.watch(session, path, scopes, since, now);
                let reply = number.map(|watch| WatchReply { watch, seq: now });
                let _ = done.send(reply.map_err(MessagesError::from));
                self.catch_up(shared, session);
            }
            WatchRequest::Unwatch { watch, done } => {
                let _ = done.send(Ok(self.watches.unwatch(session, watch)));
            }
            WatchRequest::List(done) => {
                let _ = done.send(Ok(self.watches.list(session)));
            }
            WatchRequest::Restrict { spaces } => self.watches.restrict(session, &spaces, now),
            WatchRequest::SetScopes { watch, scopes } => {
                self.watches.set_scopes(session, watch, scopes, now);
                self.catch_up(shared, session);
            }
            WatchRequest::CatchUp => {
                self.draining.remove(&session);
                self.catch_up(shared, session);
            }
        }
    }

    /// Removes a session that has ended.
    pub(crate) fn remove_session(&mut self, session: u64) {
        self.watches.remove_session(session);
        self.draining.remove(&session);
    }

    fn catch_up(&mut self, shared: &Arc<MessagesState>, session: u64) {
        if self.draining.contains(&session) || !self.watches.is_behind(session) {
            return;
        }
        let queue = shared.presence().queue(session);
        let send = |event| push(queue.as_ref(), event);
        match self
            .watches
            .catch_up(session, MAX_CHANGES_PER_CATCH_UP, send)
        {
            CatchUpProgress::Done => {}
            CatchUpProgress::QueueFull => self.wait_until_drained(shared, session),
            CatchUpProgress::More => {
                self.draining.insert(session);
                // The next step queues behind the operations of other sessions.
                let operation = SessionOperation::Watch(WatchRequest::CatchUp);
                let _ = shared.send_operation(Operation::Session(session, operation));
            }
        }
    }

    /// Schedules the next step of a catch-up for when the session's queue is drained.
    fn wait_until_drained(&mut self, shared: &Arc<MessagesState>, session: u64) {
        let queue = shared.presence().queue(session);
        let Some(queue) = queue else {
            return;
        };
        if !self.draining.insert(session) {
            return;
        }
        let shared = Arc::downgrade(shared);
        tokio::spawn(async move {
            if queue.drained().await
                && let Some(shared) = shared.upgrade()
            {
                // Fails only if the sequencer has ended.
                let _ = shared.send_operation(Operation::Session(
                    session,
                    SessionOperation::Watch(WatchRequest::CatchUp),
                ));
            }
        });
    }
}

/// Queues an event for a session. Returns `false` if the queue is full.
fn push(queue: Option<&EventQueue>, event: Changed) -> bool {
    // A session without a queue has ended.
    queue.is_none_or(|queue| {
        let json = encode_event(&Event::Changed(event));
        let event = QueuedEvent {
            inbox_seq: None,
            json,
            receipt: None,
        };
        queue.push(event).is_ok()
    })
}

#[cfg(test)]
mod tests;
