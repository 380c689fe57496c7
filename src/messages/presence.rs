//! Who is connected, who hears what is said as it comes, and up to where each user was told.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::connection::{EventQueue, QueuedEvent};
use crate::messages::UserRef;
use crate::messages::delivery::DeliveryBatch;
use crate::protocol::{Present, WhoReply};

/// The users with sessions.
#[derive(Debug, Default)]
pub(super) struct Presence {
    users: HashMap<i64, ConnectedUser>,
    sessions: HashMap<u64, Session>,
    /// The number of the last session.
    last: u64,
}

/// A user who is connected.
#[derive(Debug)]
struct ConnectedUser {
    name: Arc<str>,
    sessions: Vec<u64>,
    /// The `seq` of the last event for this user that was stored while they were here.
    last: u64,
    /// Up to where the user was told, as far as that is known.
    told: u64,
    /// The database has the user as one who is told everything as it is stored.
    live: bool,
}

#[derive(Debug)]
struct Session {
    user: i64,
    since: Timestamp,
    lane: Option<EventQueue>,
    hearing: EventStream,
    /// The last event that was put into the lane.
    queued: u64,
}

/// How a session comes to its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EventStream {
    /// By a catch-up, or not at all.
    Behind,
    /// As they come, once it has been told what was stored up to here.
    From(u64),
    /// As they come.
    Live,
}

/// What has to be kept about a user's inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inbox {
    pub(super) told: u64,
    pub(super) live: bool,
}

/// A session that has to be caught up.
#[derive(Debug)]
pub(super) struct LaggingSession {
    pub(super) session: u64,
    pub(super) user: i64,
    pub(super) lane: EventQueue,
    /// What it was told already.
    pub(super) position: u64,
}

/// What has to be done because of a change here.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) inboxes: HashMap<i64, Inbox>,
    pub(super) behind: Vec<LaggingSession>,
}

impl Presence {
    pub(super) fn enter(
        &mut self,
        user: &UserRef,
        lane: Option<EventQueue>,
        since: Timestamp,
    ) -> u64 {
        self.last += 1;
        let number = self.last;
        let here = self.users.entry(user.id).or_insert_with(|| ConnectedUser {
            name: Arc::clone(&user.name),
            sessions: Vec::new(),
            last: 0,
            told: 0,
            live: false,
        });
        here.sessions.push(number);
        let session = Session {
            user: user.id,
            since,
            lane,
            hearing: EventStream::Behind,
            queued: 0,
        };
        self.sessions.insert(number, session);
        number
    }

    /// Forgets a session that has ended.
    pub(super) fn exit(&mut self, number: u64, changes: &mut Changes) {
        let Some(session) = self.sessions.remove(&number) else {
            return;
        };
        let others_live = self.is_live(session.user);
        let Some(here) = self.users.get_mut(&session.user) else {
            return;
        };
        here.sessions.retain(|other| *other != number);
        let written = session.lane.map_or(0, |lane| lane.written());
        here.leave_off(session.user, written, others_live, changes);
        if here.sessions.is_empty() {
            self.users.remove(&session.user);
        }
    }

    /// Who is connected, by name, as many as `budget` bytes of JSON hold.
    pub(super) fn who(&self, budget: usize) -> WhoReply {
        /// JSON of an entry beside the name.
        const ENTRY: usize = 80;
        let mut here: Vec<_> = self.users.values().collect();
        here.sort_by(|a, b| a.name.cmp(&b.name));
        let mut left = budget;
        let mut users = Vec::new();
        for here in &here {
            let Some(rest) = left.checked_sub(ENTRY + here.name.len()) else {
                break;
            };
            left = rest;
            let began = here.sessions.iter().filter_map(|session| {
                let session = self.sessions.get(session);
                session.map(|session| session.since)
            });
            users.push(Present {
                user: here.name.to_string(),
                sessions: u32::try_from(here.sessions.len()).unwrap_or(u32::MAX),
                since: began.min().unwrap_or(Timestamp::UNIX_EPOCH),
            });
        }
        WhoReply {
            more: users.len() < here.len(),
            users,
        }
    }

    pub(super) fn find(&self, name: &str) -> Option<UserRef> {
        let found = self.users.iter().find(|(_, here)| &*here.name == name);
        found.map(|(id, here)| UserRef {
            id: *id,
            name: Arc::clone(&here.name),
        })
    }

    /// Where a session is told what comes, if it is.
    pub(super) fn lane(&self, number: u64) -> Option<EventQueue> {
        self.sessions.get(&number)?.lane.clone()
    }

    /// Up to where the sessions of the user that are told as it comes have been told, if there are
    /// any.
    pub(super) fn told_live(&self, user: i64) -> Option<u64> {
        let here = self.users.get(&user)?;
        let live = self.live_sessions(user);
        let written = live.filter_map(|session| session.lane.as_ref().map(EventQueue::written));
        // A session to which nothing was written yet has its user's place all the same.
        written.max().map(|written| written.max(here.told))
    }

    /// Begins to catch up with a session: it and its user were told up to there.
    pub(super) fn begin(
        &mut self,
        number: u64,
        position: u64,
        told: u64,
    ) -> Option<LaggingSession> {
        let session = self.sessions.get_mut(&number)?;
        session.queued = position;
        let here = self.users.get_mut(&session.user)?;
        here.told = here.told.max(told);
        Some(LaggingSession {
            session: number,
            user: session.user,
            lane: session.lane.clone()?,
            position,
        })
    }

    /// Notes that a session that catches up got on.
    pub(super) fn progress(&mut self, number: u64, changes: &mut Changes) {
        let Some(session) = self.sessions.get(&number) else {
            return;
        };
        let others_live = self.is_live(session.user);
        let written = session.lane.as_ref().map_or(0, EventQueue::written);
        if let Some(here) = self.users.get_mut(&session.user)
            && !here.live
        {
            here.leave_off(session.user, written, others_live, changes);
        }
    }

    /// Whether something was stored for the user of a session after `position`; `None` if the
    /// session has ended.
    pub(super) fn misses(&self, number: u64, position: u64) -> Option<bool> {
        let session = self.sessions.get(&number)?;
        let here = self.users.get(&session.user)?;
        Some(here.last > position)
    }

    /// From now on a session that was told all up to `position` is told as it comes.
    pub(super) fn go_live(&mut self, number: u64, position: u64, changes: &mut Changes) {
        if let Some(session) = self.sessions.get_mut(&number) {
            session.queued = position;
            session.hearing = EventStream::Live;
            let user = session.user;
            self.note_live(user, changes);
        }
    }

    /// Tells a session the last it has missed, and from now on everything as it comes; `false` if
    /// there is no room for it.
    pub(super) fn tell_missed(
        &mut self,
        number: u64,
        missed: Vec<(u64, bytes::Bytes)>,
        flight: &mut DeliveryBatch,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&number) else {
            return true;
        };
        for (seq, json) in missed {
            if !session.push(number, seq, json, flight) {
                return false;
            }
        }
        session.hearing = EventStream::From(session.queued);
        true
    }

    /// The last event that was put into the lane of a session.
    pub(super) fn queued(&self, number: u64) -> Option<u64> {
        self.sessions.get(&number).map(|session| session.queued)
    }

    /// Tells the sessions of a user that hear, and says how many those are.
    pub(super) fn tell(
        &mut self,
        user: i64,
        seq: u64,
        json: &bytes::Bytes,
        flight: &mut DeliveryBatch,
        changes: &mut Changes,
    ) -> u32 {
        let Some(here) = self.users.get_mut(&user) else {
            return 0;
        };
        here.last = seq;
        let mut told = 0;
        let mut full = Vec::new();
        for number in &here.sessions {
            let Some(session) = self.sessions.get_mut(number) else {
                continue;
            };
            if session.hearing == EventStream::Behind {
                continue;
            }
            if session.push(*number, seq, json.clone(), flight) {
                told += 1;
            } else {
                full.push(*number);
            }
        }
        for number in full {
            self.fall_behind(number, changes);
        }
        told
    }

    /// A session was to be told up to `seq` by now: it was, or it is too slow.
    pub(super) fn landed(&mut self, number: u64, seq: u64, changes: &mut Changes) {
        let Some(session) = self.sessions.get_mut(&number) else {
            return;
        };
        let written = session.lane.as_ref().map_or(0, EventQueue::written);
        match session.hearing {
            EventStream::Behind => {}
            _ if written < seq => self.fall_behind(number, changes),
            EventStream::From(from) if written >= from => {
                session.hearing = EventStream::Live;
                let user = session.user;
                self.note_live(user, changes);
            }
            EventStream::From(_) | EventStream::Live => {}
        }
    }

    fn fall_behind(&mut self, number: u64, changes: &mut Changes) {
        let Some(session) = self.sessions.get_mut(&number) else {
            return;
        };
        session.hearing = EventStream::Behind;
        let user = session.user;
        if let Some(lane) = &session.lane {
            changes.behind.push(LaggingSession {
                session: number,
                user,
                lane: lane.clone(),
                position: session.queued,
            });
        }
        let written = session.lane.as_ref().map_or(0, EventQueue::written);
        let others_live = self.is_live(user);
        if let Some(here) = self.users.get_mut(&user) {
            here.leave_off(user, written, others_live, changes);
        }
    }

    fn note_live(&mut self, user: i64, changes: &mut Changes) {
        if let Some(here) = self.users.get_mut(&user)
            && !here.live
        {
            here.live = true;
            let inbox = Inbox {
                told: here.told,
                live: true,
            };
            changes.inboxes.insert(user, inbox);
        }
    }

    fn is_live(&self, user: i64) -> bool {
        self.live_sessions(user).next().is_some()
    }

    fn live_sessions(&self, user: i64) -> impl Iterator<Item = &Session> {
        let here = self.users.get(&user).into_iter();
        here.flat_map(|here| &here.sessions)
            .filter_map(|number| self.sessions.get(number))
            .filter(|session| session.hearing == EventStream::Live)
    }
}

impl ConnectedUser {
    /// A session of the user is told no more as it comes; it was told up to `written`.
    fn leave_off(&mut self, user: i64, written: u64, others_live: bool, changes: &mut Changes) {
        let got_on = written > self.told;
        self.told = self.told.max(written);
        if others_live || !(self.live || got_on) {
            return;
        }
        self.live = false;
        let inbox = Inbox {
            told: self.told,
            live: false,
        };
        changes.inboxes.insert(user, inbox);
    }
}

impl Session {
    /// Puts an event into the lane; `false` if it has no room.
    fn push(
        &mut self,
        number: u64,
        seq: u64,
        json: bytes::Bytes,
        flight: &mut DeliveryBatch,
    ) -> bool {
        let Some(lane) = &self.lane else {
            return false;
        };
        let event = QueuedEvent {
            inbox: Some(seq),
            json,
            receipt: Some(flight.board(number, seq)),
        };
        let pushed = lane.push(event).is_ok();
        if pushed {
            self.queued = seq;
        }
        pushed
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::messages::delivery::DeliveryBatches;

    fn party(id: i64, name: &str) -> UserRef {
        let name = name.into();
        UserRef { id, name }
    }

    fn flight() -> DeliveryBatch {
        let (ops, _waiting) = tokio::sync::mpsc::unbounded_channel();
        DeliveryBatches::new(ops.downgrade()).prepare()
    }

    /// A session of user 1 that hears as it comes, after it was told up to 10.
    fn live(presence: &mut Presence) -> (u64, EventQueue) {
        let lane = EventQueue::default();
        let (user, now) = (party(1, "alice"), Timestamp::now());
        let session = presence.enter(&user, Some(lane.clone()), now);
        presence.begin(session, 10, 10).expect("it is there");
        presence.go_live(session, 10, &mut Changes::default());
        (session, lane)
    }

    fn tell(presence: &mut Presence, seq: u64, changes: &mut Changes) -> u32 {
        presence.tell(1, seq, &Bytes::from_static(b"{}"), &mut flight(), changes)
    }

    fn write_all(lane: &EventQueue) {
        let mut last = None;
        while let Some(event) = lane.try_next() {
            last = event.inbox;
        }
        lane.note_written(last);
    }

    const fn away(told: u64) -> Inbox {
        Inbox { told, live: false }
    }

    #[test]
    fn who_leaves_is_kept_as_told_up_to_what_was_written() {
        let mut presence = Presence::default();
        let (session, lane) = live(&mut presence);
        assert_eq!(tell(&mut presence, 11, &mut Changes::default()), 1);
        write_all(&lane);
        assert_eq!(tell(&mut presence, 12, &mut Changes::default()), 1);
        let mut changes = Changes::default();
        presence.exit(session, &mut changes);
        assert_eq!(changes.inboxes.get(&1), Some(&away(11)));
        assert_eq!(presence.who(1000).users, []);
    }

    #[test]
    fn as_long_as_another_session_hears_nothing_is_kept_of_one_that_leaves() {
        let mut presence = Presence::default();
        let (one, lane) = live(&mut presence);
        let (other, _) = live(&mut presence);
        assert_eq!(tell(&mut presence, 11, &mut Changes::default()), 2);
        write_all(&lane);
        let mut changes = Changes::default();
        presence.exit(other, &mut changes);
        assert!(changes.inboxes.is_empty());
        presence.exit(one, &mut changes);
        assert_eq!(changes.inboxes.get(&1), Some(&away(11)));
    }

    #[test]
    fn a_user_whose_only_session_was_told_nothing_yet_is_told_nothing_again() {
        let mut presence = Presence::default();
        assert_eq!(presence.told_live(1), None);
        let (_session, lane) = live(&mut presence);
        assert_eq!(presence.told_live(1), Some(10));
        tell(&mut presence, 11, &mut Changes::default());
        assert_eq!(presence.told_live(1), Some(10));
        write_all(&lane);
        assert_eq!(presence.told_live(1), Some(11));
    }

    #[test]
    fn a_session_that_takes_too_long_is_caught_up_from_what_it_was_handed() {
        let mut presence = Presence::default();
        let (session, lane) = live(&mut presence);
        tell(&mut presence, 11, &mut Changes::default());
        write_all(&lane);
        tell(&mut presence, 12, &mut Changes::default());
        let mut changes = Changes::default();
        presence.landed(session, 11, &mut changes);
        assert!(changes.behind.is_empty(), "it is written");
        presence.landed(session, 12, &mut changes);
        assert_eq!(changes.behind.len(), 1);
        assert_eq!(changes.behind[0].position, 12);
        assert_eq!(changes.inboxes.get(&1), Some(&away(11)));
        assert_eq!(tell(&mut presence, 13, &mut changes), 0, "it is behind");
        assert_eq!(presence.misses(session, 12), Some(true));
        let mut changes = Changes::default();
        presence.go_live(session, 13, &mut changes);
        let live = changes.inboxes.get(&1).map(|inbox| inbox.live);
        assert_eq!(
            (live, presence.misses(session, 13)),
            (Some(true), Some(false))
        );
    }

    #[test]
    fn a_full_lane_holds_up_nobody_and_is_caught_up() {
        let mut presence = Presence::default();
        let (_session, _full) = live(&mut presence);
        let (_other, lane) = live(&mut presence);
        let mut changes = Changes::default();
        let mut seq = 10;
        while changes.behind.is_empty() {
            seq += 1;
            let told = tell(&mut presence, seq, &mut changes);
            write_all(&lane);
            assert!(told >= 1, "the other hears");
        }
        assert!(changes.inboxes.is_empty(), "its user is told still");
        assert_eq!(changes.behind[0].position, seq - 1);
    }

    #[test]
    fn who_lists_users_by_name_as_many_as_fit() {
        let mut presence = Presence::default();
        for (id, name) in [(1, "bob"), (2, "alice"), (3, "carol"), (2, "alice")] {
            let now = Timestamp::now();
            presence.enter(&party(id, name), None, now);
        }
        let all = presence.who(10_000);
        let names: Vec<_> = all
            .users
            .iter()
            .map(|user| (&*user.user, user.sessions))
            .collect();
        assert_eq!(names, [("alice", 2), ("bob", 1), ("carol", 1)]);
        assert!(!all.more);
        let some = presence.who(200);
        assert_eq!((some.users.len(), some.more), (2, true));
        assert_eq!(presence.find("bob"), Some(party(1, "bob")));
        assert_eq!(presence.find("dave"), None);
    }
}
