//! The connected users, their sessions, and which of them are live.
//!
//! A *live* session receives every event as soon as it is stored. Any other session lags, and a
//! catch-up delivers its events from the database.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::connection::{EventQueue, QueuedEvent};
use crate::messages::delivery::DeliveryBatch;
use crate::messages::recipient::UserRef;
use crate::messages::store::event::InboxPosition;
use crate::protocol::{Present, WhoReply};

/// The connected users and their sessions.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    users: HashMap<i64, ConnectedUser>,
    sessions: HashMap<u64, ConnectedSession>,
    /// The number of the newest session.
    last_session: u64,
}

/// A user who is connected.
#[derive(Debug)]
struct ConnectedUser {
    name: Arc<str>,
    sessions: Vec<u64>,
    /// The `seq` of the last event for this user that was stored since the user connected.
    last_seq: u64,
    /// The `seq` up to which events were delivered to the user, as far as it is known.
    delivered: u64,
    /// Whether the database marks the user as live.
    live: bool,
}

#[derive(Debug)]
struct ConnectedSession {
    user: i64,
    since: Timestamp,
    queue: Option<EventQueue>,
    stream: EventStream,
    /// The `seq` of the last queued event.
    queued: u64,
}

/// How a session gets its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EventStream {
    /// From a catch-up, or not at all.
    Behind,
    /// As they are stored. The session becomes live when it has written everything up to this `seq`.
    LiveAfter(u64),
    /// As they are stored.
    Live,
}

/// A session that needs a catch-up.
#[derive(Debug)]
pub(crate) struct LaggingSession {
    pub(crate) session: u64,
    pub(crate) user: i64,
    pub(crate) queue: EventQueue,
    /// The `seq` up to which the session has its events.
    pub(crate) position: u64,
}

/// The follow-up work of changes in [`Presence`].
#[derive(Debug, Default)]
pub(crate) struct PresenceChanges {
    /// Inbox positions to store.
    pub(crate) inboxes: HashMap<i64, InboxPosition>,
    /// Sessions to start a catch-up for.
    pub(crate) lagging: Vec<LaggingSession>,
}

impl Presence {
    pub(crate) fn add_session(
        &mut self,
        user: &UserRef,
        queue: Option<EventQueue>,
        since: Timestamp,
    ) -> u64 {
        self.last_session += 1;
        let number = self.last_session;
        let entry = self.users.entry(user.id).or_insert_with(|| ConnectedUser {
            name: Arc::clone(&user.name),
            sessions: Vec::new(),
            last_seq: 0,
            delivered: 0,
            live: false,
        });
        entry.sessions.push(number);
        let session = ConnectedSession {
            user: user.id,
            since,
            queue,
            stream: EventStream::Behind,
            queued: 0,
        };
        self.sessions.insert(number, session);
        number
    }

    /// Removes a session that has ended.
    pub(crate) fn remove_session(&mut self, number: u64, changes: &mut PresenceChanges) {
        let Some(session) = self.sessions.remove(&number) else {
            return;
        };
        let others_live = self.is_live(session.user);
        let Some(entry) = self.users.get_mut(&session.user) else {
            return;
        };
        entry.sessions.retain(|other| *other != number);
        let written = session.queue.map_or(0, |queue| queue.written_seq());
        entry.record_delivered(session.user, written, others_live, changes);
        if entry.sessions.is_empty() {
            self.users.remove(&session.user);
        }
    }

    /// The connected users by name, as many as `budget` bytes of JSON hold.
    pub(crate) fn list(&self, budget: usize) -> WhoReply {
        /// The most bytes of JSON that an entry needs besides the name.
        const ENTRY_BYTES: usize = 80;
        let mut entry: Vec<_> = self.users.values().collect();
        entry.sort_by(|a, b| a.name.cmp(&b.name));
        let mut left = budget;
        let mut users = Vec::new();
        for entry in &entry {
            let Some(rest) = left.checked_sub(ENTRY_BYTES + entry.name.len()) else {
                break;
            };
            left = rest;
            let began = entry.sessions.iter().filter_map(|session| {
                let session = self.sessions.get(session);
                session.map(|session| session.since)
            });
            users.push(Present {
                user: entry.name.to_string(),
                sessions: u32::try_from(entry.sessions.len()).unwrap_or(u32::MAX),
                since: began.min().unwrap_or(Timestamp::UNIX_EPOCH),
            });
        }
        WhoReply {
            more: users.len() < entry.len(),
            users,
        }
    }

    /// The event queue of a session, if the session exists and has one.
    pub(crate) fn queue(&self, number: u64) -> Option<EventQueue> {
        self.sessions.get(&number)?.queue.clone()
    }

    /// The `seq` up to which the user's live sessions have written events; `None` if there are none.
    pub(crate) fn live_position(&self, user: i64) -> Option<u64> {
        let entry = self.users.get(&user)?;
        let live = self.live_sessions(user);
        let written =
            live.filter_map(|session| session.queue.as_ref().map(EventQueue::written_seq));
        // A live session that has written nothing yet counts with its user's position.
        written.max().map(|written| written.max(entry.delivered))
    }

    /// Prepares a catch-up of a session that has its events up to `position`; its user has them up to
    /// `delivered`.
    pub(crate) fn begin_catch_up(
        &mut self,
        number: u64,
        position: u64,
        delivered: u64,
    ) -> Option<LaggingSession> {
        let session = self.sessions.get_mut(&number)?;
        session.queued = position;
        let entry = self.users.get_mut(&session.user)?;
        entry.delivered = entry.delivered.max(delivered);
        Some(LaggingSession {
            session: number,
            user: session.user,
            queue: session.queue.clone()?,
            position,
        })
    }

    /// Stores the progress of a catch-up.
    pub(crate) fn record_progress(&mut self, number: u64, changes: &mut PresenceChanges) {
        let Some(session) = self.sessions.get(&number) else {
            return;
        };
        let others_live = self.is_live(session.user);
        let written = session.queue.as_ref().map_or(0, EventQueue::written_seq);
        if let Some(entry) = self.users.get_mut(&session.user)
            && !entry.live
        {
            entry.record_delivered(session.user, written, others_live, changes);
        }
    }

    /// Whether an event for the user of a session was stored after `position`; `None` if the session
    /// has ended.
    pub(crate) fn has_missed(&self, number: u64, position: u64) -> Option<bool> {
        let session = self.sessions.get(&number)?;
        let entry = self.users.get(&session.user)?;
        Some(entry.last_seq > position)
    }

    /// Makes a session live that has its events up to `position`.
    pub(crate) fn set_live(&mut self, number: u64, position: u64, changes: &mut PresenceChanges) {
        if let Some(session) = self.sessions.get_mut(&number) {
            session.queued = position;
            session.stream = EventStream::Live;
            let user = session.user;
            self.mark_user_live(user, changes);
        }
    }

    /// Queues the last missed events for a session, and every new event from now on. Returns `false`
    /// if the queue is full.
    pub(crate) fn queue_missed(
        &mut self,
        number: u64,
        missed: Vec<(u64, bytes::Bytes)>,
        batch: &mut DeliveryBatch,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&number) else {
            return true;
        };
        for (seq, json) in missed {
            if !session.push(number, seq, json, batch) {
                return false;
            }
        }
        session.stream = EventStream::LiveAfter(session.queued);
        true
    }

    /// The `seq` of the last event that was queued for a session.
    pub(crate) fn queued_position(&self, number: u64) -> Option<u64> {
        self.sessions.get(&number).map(|session| session.queued)
    }

    /// Queues an event for the live sessions of a user, and returns their number.
    pub(crate) fn deliver(
        &mut self,
        user: i64,
        seq: u64,
        json: &bytes::Bytes,
        batch: &mut DeliveryBatch,
        changes: &mut PresenceChanges,
    ) -> u32 {
        let Some(entry) = self.users.get_mut(&user) else {
            return 0;
        };
        entry.last_seq = seq;
        let mut delivered = 0;
        let mut full = Vec::new();
        for number in &entry.sessions {
            let Some(session) = self.sessions.get_mut(number) else {
                continue;
            };
            if session.stream == EventStream::Behind {
                continue;
            }
            if session.push(*number, seq, json.clone(), batch) {
                delivered += 1;
            } else {
                full.push(*number);
            }
        }
        for number in full {
            self.set_behind(number, changes);
        }
        delivered
    }

    /// Ends a delivery to a session: either it has written everything up to `seq`, or it is too slow
    /// and lags from now on.
    pub(crate) fn finish_delivery(&mut self, number: u64, seq: u64, changes: &mut PresenceChanges) {
        let Some(session) = self.sessions.get_mut(&number) else {
            return;
        };
        let written = session.queue.as_ref().map_or(0, EventQueue::written_seq);
        match session.stream {
            EventStream::Behind => {}
            _ if written < seq => self.set_behind(number, changes),
            EventStream::LiveAfter(from) if written >= from => {
                session.stream = EventStream::Live;
                let user = session.user;
                self.mark_user_live(user, changes);
            }
            EventStream::LiveAfter(_) | EventStream::Live => {}
        }
    }

    fn set_behind(&mut self, number: u64, changes: &mut PresenceChanges) {
        let Some(session) = self.sessions.get_mut(&number) else {
            return;
        };
        session.stream = EventStream::Behind;
        let user = session.user;
        if let Some(queue) = &session.queue {
            changes.lagging.push(LaggingSession {
                session: number,
                user,
                queue: queue.clone(),
                position: session.queued,
            });
        }
        let written = session.queue.as_ref().map_or(0, EventQueue::written_seq);
        let others_live = self.is_live(user);
        if let Some(entry) = self.users.get_mut(&user) {
            entry.record_delivered(user, written, others_live, changes);
        }
    }

    fn mark_user_live(&mut self, user: i64, changes: &mut PresenceChanges) {
        if let Some(entry) = self.users.get_mut(&user)
            && !entry.live
        {
            entry.live = true;
            let inbox = InboxPosition {
                delivered: entry.delivered,
                live: true,
            };
            changes.inboxes.insert(user, inbox);
        }
    }

    fn is_live(&self, user: i64) -> bool {
        self.live_sessions(user).next().is_some()
    }

    fn live_sessions(&self, user: i64) -> impl Iterator<Item = &ConnectedSession> {
        let entry = self.users.get(&user).into_iter();
        entry
            .flat_map(|entry| &entry.sessions)
            .filter_map(|number| self.sessions.get(number))
            .filter(|session| session.stream == EventStream::Live)
    }
}

impl ConnectedUser {
    /// Records that a session, which is not live, has written everything up to `written`.
    fn record_delivered(
        &mut self,
        user: i64,
        written: u64,
        others_live: bool,
        changes: &mut PresenceChanges,
    ) {
        let has_progressed = written > self.delivered;
        self.delivered = self.delivered.max(written);
        if others_live || !(self.live || has_progressed) {
            return;
        }
        self.live = false;
        let inbox = InboxPosition {
            delivered: self.delivered,
            live: false,
        };
        changes.inboxes.insert(user, inbox);
    }
}

impl ConnectedSession {
    /// Queues an event. Returns `false` if the queue is full.
    fn push(
        &mut self,
        number: u64,
        seq: u64,
        json: bytes::Bytes,
        batch: &mut DeliveryBatch,
    ) -> bool {
        let Some(queue) = &self.queue else {
            return false;
        };
        let event = QueuedEvent {
            inbox_seq: Some(seq),
            json,
            receipt: Some(batch.receipt_for(number, seq)),
        };
        let pushed = queue.push(event).is_ok();
        if pushed {
            self.queued = seq;
        }
        pushed
    }
}

#[cfg(test)]
mod tests;
