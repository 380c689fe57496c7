use bytes::Bytes;

use super::*;
use crate::messages::delivery::DeliveryTracker;

fn party(id: i64, name: &str) -> UserRef {
    let name = name.into();
    UserRef { id, name }
}

fn batch() -> DeliveryBatch {
    let (ops, _waiting) = tokio::sync::mpsc::unbounded_channel();
    DeliveryTracker::new(ops.downgrade()).new_batch()
}

/// A live session of user 1 that has its events up to 10.
fn live(presence: &mut Presence) -> (u64, EventQueue) {
    let queue = EventQueue::default();
    let (user, now) = (party(1, "alice"), Timestamp::now());
    let session = presence.add_session(&user, Some(queue.clone()), now);
    presence
        .begin_catch_up(session, 10, 10)
        .expect("it is there");
    presence.set_live(session, 10, &mut PresenceChanges::default());
    (session, queue)
}

fn tell(presence: &mut Presence, seq: u64, changes: &mut PresenceChanges) -> u32 {
    presence.deliver(1, seq, &Bytes::from_static(b"{}"), &mut batch(), changes)
}

fn write_all(queue: &EventQueue) {
    let mut last = None;
    while let Some(event) = queue.try_next() {
        last = event.inbox_seq;
    }
    queue.mark_written(last);
}

const fn away(delivered: u64) -> InboxPosition {
    InboxPosition {
        delivered,
        live: false,
    }
}

#[test]
fn a_session_that_ends_stores_the_position_that_it_has_written() {
    let mut presence = Presence::default();
    let (session, queue) = live(&mut presence);
    assert_eq!(tell(&mut presence, 11, &mut PresenceChanges::default()), 1);
    write_all(&queue);
    assert_eq!(tell(&mut presence, 12, &mut PresenceChanges::default()), 1);
    let mut changes = PresenceChanges::default();
    presence.remove_session(session, &mut changes);
    assert_eq!(changes.inboxes.get(&1), Some(&away(11)));
    assert_eq!(presence.list(1000).users, []);
}

#[test]
fn a_session_that_ends_stores_nothing_while_another_one_is_live() {
    let mut presence = Presence::default();
    let (one, queue) = live(&mut presence);
    let (other, _) = live(&mut presence);
    assert_eq!(tell(&mut presence, 11, &mut PresenceChanges::default()), 2);
    write_all(&queue);
    let mut changes = PresenceChanges::default();
    presence.remove_session(other, &mut changes);
    assert!(changes.inboxes.is_empty());
    presence.remove_session(one, &mut changes);
    assert_eq!(changes.inboxes.get(&1), Some(&away(11)));
}

#[test]
fn a_live_session_without_written_events_keeps_the_position_of_its_user() {
    let mut presence = Presence::default();
    assert_eq!(presence.live_position(1), None);
    let (_session, queue) = live(&mut presence);
    assert_eq!(presence.live_position(1), Some(10));
    tell(&mut presence, 11, &mut PresenceChanges::default());
    assert_eq!(presence.live_position(1), Some(10));
    write_all(&queue);
    assert_eq!(presence.live_position(1), Some(11));
}

#[test]
fn a_session_that_takes_too_long_is_caught_up_from_what_it_was_handed() {
    let mut presence = Presence::default();
    let (session, queue) = live(&mut presence);
    tell(&mut presence, 11, &mut PresenceChanges::default());
    write_all(&queue);
    tell(&mut presence, 12, &mut PresenceChanges::default());
    let mut changes = PresenceChanges::default();
    presence.finish_delivery(session, 11, &mut changes);
    assert!(changes.lagging.is_empty(), "it is written");
    presence.finish_delivery(session, 12, &mut changes);
    assert_eq!(changes.lagging.len(), 1);
    assert_eq!(changes.lagging[0].position, 12);
    assert_eq!(changes.inboxes.get(&1), Some(&away(11)));
    assert_eq!(tell(&mut presence, 13, &mut changes), 0, "it lags");
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
        let told = tell(&mut presence, seq, &mut changes);
        write_all(&queue);
        assert!(told >= 1, "the other session receives it");
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
        presence.add_session(&party(id, name), None, now);
    }
    let all = presence.list(10_000);
    let names: Vec<_> = all
        .users
        .iter()
        .map(|user| (&*user.user, user.sessions))
        .collect();
    assert_eq!(names, [("alice", 2), ("bob", 1), ("carol", 1)]);
    assert!(!all.more);
    let some = presence.list(200);
    assert_eq!((some.users.len(), some.more), (2, true));
}
