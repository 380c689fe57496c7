use bytes::Bytes;

use super::*;
use crate::messages::delivery::DeliveryTracker;

fn user_ref(id: i64, name: &str) -> UserRef {
    let name = name.into();
    UserRef { id, name }
}

fn batch() -> DeliveryBatch {
    let (operations, _receiver) = tokio::sync::mpsc::unbounded_channel();
    DeliveryTracker::new(operations.downgrade()).new_batch()
}

/// A live session of user 1 that has received the events up to 10.
fn live(presence: &mut Presence) -> (u64, EventQueue) {
    let queue = EventQueue::default();
    let (user, now) = (user_ref(1, "alice"), Timestamp::now());
    let session = presence.add_session(&user, Some(queue.clone()), now);
    presence
        .begin_catch_up(session, 10, 10)
        .expect("a registered session");
    presence.set_live(session, 10, &mut PresenceChanges::default());
    (session, queue)
}

fn deliver(presence: &mut Presence, seq: u64, changes: &mut PresenceChanges) -> u32 {
    presence.deliver(1, seq, &Bytes::from_static(b"{}"), &mut batch(), changes)
}

fn write_all(queue: &EventQueue) {
    let mut last = None;
    while let Some(event) = queue.try_next() {
        last = event.inbox_seq;
    }
    queue.mark_written(last);
}

const fn position_without_live_session(delivered: u64) -> InboxPosition {
    InboxPosition {
        delivered,
        live: false,
    }
}

#[test]
fn a_session_that_ends_stores_the_position_that_it_has_written() {
    let mut presence = Presence::default();
    let (session, queue) = live(&mut presence);
    assert_eq!(
        deliver(&mut presence, 11, &mut PresenceChanges::default()),
        1
    );
    write_all(&queue);
    assert_eq!(
        deliver(&mut presence, 12, &mut PresenceChanges::default()),
        1
    );
    let mut changes = PresenceChanges::default();
    presence.remove_session(session, &mut changes);
    assert_eq!(
        changes.inboxes.get(&1),
        Some(&position_without_live_session(11))
    );
    assert_eq!(presence.list(1000).users, []);
}

#[test]
fn a_session_that_ends_stores_nothing_while_another_one_is_live() {
    let mut presence = Presence::default();
    let (first, queue) = live(&mut presence);
    let (second, _) = live(&mut presence);
    assert_eq!(
        deliver(&mut presence, 11, &mut PresenceChanges::default()),
        2
    );
    write_all(&queue);
    let mut changes = PresenceChanges::default();
    presence.remove_session(second, &mut changes);
    assert!(changes.inboxes.is_empty());
    presence.remove_session(first, &mut changes);
    assert_eq!(
        changes.inboxes.get(&1),
        Some(&position_without_live_session(11))
    );
}

#[test]
fn a_live_session_without_written_events_keeps_the_position_of_its_user() {
    let mut presence = Presence::default();
    assert_eq!(presence.live_position(1), None);
    let (_session, queue) = live(&mut presence);
    assert_eq!(presence.live_position(1), Some(10));
    deliver(&mut presence, 11, &mut PresenceChanges::default());
    assert_eq!(presence.live_position(1), Some(10));
    write_all(&queue);
    assert_eq!(presence.live_position(1), Some(11));
}

#[test]
fn a_session_that_takes_too_long_catches_up_from_the_last_queued_event() {
    let mut presence = Presence::default();
    let (session, queue) = live(&mut presence);
    deliver(&mut presence, 11, &mut PresenceChanges::default());
    write_all(&queue);
    deliver(&mut presence, 12, &mut PresenceChanges::default());
    let mut changes = PresenceChanges::default();
    presence.finish_delivery(session, 11, &mut changes);
    assert!(changes.lagging.is_empty(), "event 11 is written");
    presence.finish_delivery(session, 12, &mut changes);
    assert_eq!(changes.lagging.len(), 1);
    assert_eq!(changes.lagging[0].position, 12);
    assert_eq!(
        changes.inboxes.get(&1),
        Some(&position_without_live_session(11))
    );
    assert_eq!(
        deliver(&mut presence, 13, &mut changes),
        0,
        "the session lags"
    );
    assert_eq!(presence.has_missed(session, 12), Some(true));
    let mut changes = PresenceChanges::default();
    presence.set_live(session, 13, &mut changes);
    let live = changes.inboxes.get(&1).map(|inbox| inbox.live);
    assert_eq!(
        (live, presence.has_missed(session, 13)),
        (Some(true), Some(false))
    );
}

#[test]
fn a_session_with_a_full_queue_lags_and_delays_no_other() {
    let mut presence = Presence::default();
    let (_session, _full) = live(&mut presence);
    let (_other, queue) = live(&mut presence);
    let mut changes = PresenceChanges::default();
    let mut seq = 10;
    while changes.lagging.is_empty() {
        seq += 1;
        let sessions = deliver(&mut presence, seq, &mut changes);
        write_all(&queue);
        assert!(sessions >= 1, "the other session receives it");
    }
    assert!(
        changes.inboxes.is_empty(),
        "the user still has a live session"
    );
    assert_eq!(changes.lagging[0].position, seq - 1);
}

#[test]
fn connected_users_are_listed_by_name_within_the_budget() {
    let mut presence = Presence::default();
    for (id, name) in [(1, "bob"), (2, "alice"), (3, "carol"), (2, "alice")] {
        let now = Timestamp::now();
        presence.add_session(&user_ref(id, name), None, now);
    }
    let complete = presence.list(10_000);
    let names: Vec<_> = complete
        .users
        .iter()
        .map(|user| (&*user.user, user.sessions))
        .collect();
    assert_eq!(names, [("alice", 2), ("bob", 1), ("carol", 1)]);
    assert!(!complete.more);
    let partial = presence.list(200);
    assert_eq!((partial.users.len(), partial.more), (2, true));
}
