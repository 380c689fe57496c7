//! A model of the inbox: every event that was stored for a user is delivered or kept, for random
//! sequences of operations, crashes, backups and full disks.

mod checks;
mod steps;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use crate::clock::Clock;
use crate::connection::EventQueue;
use crate::messages::inbox_model::steps::{InboxStep, steps};
use crate::messages::store::tests::{fill_disk, free_disk};
use crate::messages::{
    Messages, MessagesError, OfferedFile, Recipient, RoomName, Subscription, UserRef, copy,
};
use crate::protocol::Event;

const DAY: Duration = Duration::from_hours(24);
const USERS: usize = 3;
const ROOMS: usize = 2;

/// An acknowledged event.
#[derive(Debug, Clone)]
struct AcknowledgedEvent {
    from: i64,
    /// The monotonic time of the event, and how long it is kept if it is an offer.
    at: Duration,
    keep: Option<Duration>,
    room: Option<usize>,
    /// The users that must receive it.
    to: BTreeSet<i64>,
}

/// The state that a backup restores.
#[derive(Debug, Clone, Default)]
struct InboxModelState {
    stored: BTreeMap<String, AcknowledgedEvent>,
    members: [BTreeSet<i64>; ROOMS],
}

struct InboxModel {
    directory: TempDir,
    clock: Clock,
    messages: Messages,
    users: Vec<UserRef>,
    last_id: i64,
    sent: u64,
    state: InboxModelState,
    backup: Option<(TempDir, InboxModelState)>,
    is_full: bool,
    /// The events that each user has received in all sessions, and the position of each.
    received: HashMap<i64, BTreeSet<String>>,
    positions: HashMap<i64, (u64, String)>,
    /// Events that a user no longer needs. A restore may bring them back, but need not deliver them.
    ended: BTreeSet<(i64, String)>,
}

impl InboxModel {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let clock = Clock::manual();
        let messages = open(&directory, &clock).await;
        let users = (0_i64..)
            .zip(0..USERS)
            .map(|(id, slot)| user_in_slot(id, slot));
        let users: Vec<_> = users.collect();
        Self {
            directory,
            clock,
            messages,
            users,
            last_id: 1000,
            sent: 0,
            state: InboxModelState::default(),
            backup: None,
            is_full: false,
            received: HashMap::new(),
            positions: HashMap::new(),
            ended: BTreeSet::new(),
        }
    }

    fn text(&mut self) -> String {
        self.sent += 1;
        format!("text {}", self.sent)
    }

    async fn apply(&mut self, step: InboxStep) {
        match step {
            InboxStep::Say { from, to } => {
                let to = self.users[to].clone();
                let text = self.text();
                self.say(
                    from,
                    Recipient::User(to.clone()),
                    &text,
                    None,
                    [to.id].into(),
                )
                .await;
            }
            InboxStep::SayInRoom { from, room } => {
                let id = self.users[from].id;
                let members = &self.state.members[room];
                let is_member = members.contains(&id);
                let to = members.iter().copied().filter(|member| *member != id);
                let to = to.collect();
                let text = self.text();
                let stored = self
                    .say(from, Recipient::Room(name(room)), &text, Some(room), to)
                    .await;
                assert!(is_member || !stored);
            }
            InboxStep::Join { user, room } => {
                let user = self.users[user].clone();
                let joined = self.messages.join(user.clone(), name(room)).await;
                if joined.is_ok() {
                    self.state.members[room].insert(user.id);
                }
                assert!(joined.is_ok() || self.is_full);
            }
            InboxStep::Leave { user, room } => {
                let user = self.users[user].clone();
                if self.messages.leave(user.clone(), name(room)).await.is_ok() {
                    assert!(self.state.members[room].remove(&user.id));
                    for (text, stored) in &mut self.state.stored {
                        if stored.room == Some(room) && stored.to.remove(&user.id) {
                            self.ended.insert((user.id, text.clone()));
                        }
                    }
                }
            }
            InboxStep::Offer { from, to, days } => self.offer(from, to, days * DAY).await,
            InboxStep::Decline { offer } => self.decline(offer).await,
            InboxStep::Receive {
                user,
                brings_position,
            } => self.receive(user, brings_position).await,
            InboxStep::ConnectWithoutReading { user } => {
                let queue = EventQueue::default();
                let subscription = self.subscribe(user, &queue, None);
                self.messages.flush().await;
                queue.close();
                drop(subscription);
            }
            InboxStep::ReuseName { user } => {
                let removed = self.users[user].id;
                for stored in self.state.stored.values_mut() {
                    stored.to.remove(&removed);
                }
                self.last_id += 1;
                self.users[user] = user_in_slot(self.last_id, user);
            }
            InboxStep::Crash => self.messages = open(&self.directory, &self.clock).await,
            InboxStep::Backup if !self.is_full => {
                let directory = tempfile::tempdir().expect("a directory");
                let to = directory.path().join("messages.db");
                copy(self.directory.path(), &to).await.expect("copied");
                self.backup = Some((directory, self.state.clone()));
            }
            InboxStep::Restore => {
                if let Some((directory, state)) = self.backup.take() {
                    self.messages = open(&directory, &self.clock).await;
                    self.directory = directory;
                    self.state = state;
                    self.is_full = false;
                    self.forget_removed_users();
                }
            }
            InboxStep::SetWall { year } => {
                let wall = format!("{year}-01-01T00:00:00Z");
                self.clock.set_wall(wall.parse().expect("a time"));
            }
            InboxStep::Wait { days } => self.clock.advance(days * DAY),
            InboxStep::Prune { days, most } => self.prune(days * DAY, most).await,
            InboxStep::FillDisk if !self.is_full => {
                fill_disk(&self.directory).await;
                self.is_full = true;
            }
            InboxStep::FreeDisk if self.is_full => {
                free_disk(&self.directory).await;
                self.is_full = false;
            }
            InboxStep::Backup | InboxStep::FillDisk | InboxStep::FreeDisk => {}
        }
        self.check_offers().await;
    }

    /// A restored database knows users that were removed since. They never log in.
    fn forget_removed_users(&mut self) {
        let current: BTreeSet<_> = self.users.iter().map(|user| user.id).collect();
        for stored in self.state.stored.values_mut() {
            stored.to.retain(|id| current.contains(id));
        }
    }

    async fn say(
        &mut self,
        from: usize,
        to: Recipient,
        text: &str,
        room: Option<usize>,
        receivers: BTreeSet<i64>,
    ) -> bool {
        let from = self.users[from].clone();
        let pending = self.messages.say(from.clone(), to, text.to_owned()).await;
        let outcome = pending.expect("a text").stored().await;
        let is_refused = matches!(
            outcome,
            Err(MessagesError::NotInRoom(_) | MessagesError::NoSuchRoom(_))
        );
        assert!(outcome.is_ok() || self.is_full || is_refused, "{outcome:?}");
        if outcome.is_ok() {
            self.store(text, from.id, None, room, receivers);
        }
        outcome.is_ok()
    }

    fn store(
        &mut self,
        text: &str,
        from: i64,
        keep: Option<Duration>,
        room: Option<usize>,
        to: BTreeSet<i64>,
    ) {
        let at = self.clock.elapsed();
        let stored = AcknowledgedEvent {
            from,
            at,
            keep,
            room,
            to,
        };
        self.state.stored.insert(text.to_owned(), stored);
    }

    async fn offer(&mut self, from: usize, to: usize, keep: Duration) {
        let (from, to) = (self.users[from].clone(), self.users[to].clone());
        let file = OfferedFile {
            path: "/a".into(),
            version: "1".into(),
            size: 1,
        };
        let offering = self.messages.offer(from.clone(), to.clone(), file, keep);
        let (offer, pending) = offering.await.expect("random bytes");
        if pending.stored().await.is_ok() {
            self.store(&offer, from.id, Some(keep), None, [to.id].into());
        } else {
            assert!(self.is_full);
        }
    }

    async fn decline(&mut self, number: usize) {
        let offers = self.state.stored.iter();
        let mut offers = offers.filter(|(_, stored)| stored.keep.is_some());
        let Some((offer, stored)) = offers.nth(number) else {
            return;
        };
        let (offer, from) = (offer.clone(), stored.from);
        // An expired offer cannot be claimed.
        let Ok(claim) = self.messages.claim_to_decline(from, &offer).await else {
            return;
        };
        if claim.close().await.is_ok() {
            self.end(|text| *text == offer);
        } else {
            assert!(self.is_full);
        }
    }

    fn subscribe(&self, user: usize, queue: &EventQueue, since: Option<u64>) -> Subscription {
        let user = &self.users[user];
        self.messages
            .subscribe(user, Some(queue.clone()), true, since)
    }

    /// Receives events up to a message that the session sends itself.
    async fn receive(&mut self, user: usize, brings_position: bool) {
        if self.is_full {
            return;
        }
        let id = self.users[user].id;
        let position = self.positions.get(&id).filter(|_| brings_position);
        // The server does the same at a login.
        let since = position.map(|(seq, epoch)| {
            let is_known = self.messages.has_issued(*seq, Some(epoch));
            if is_known { *seq } else { 0 }
        });
        let queue = EventQueue::default();
        let subscription = self.subscribe(user, &queue, since);
        let mark = self.text();
        let to = Recipient::User(self.users[user].clone());
        assert!(self.say_without_waiting(user, to, &mark).await);
        loop {
            let event = queue.next().await;
            let seq = event.inbox_seq.expect("an event of the inbox");
            queue.mark_written(Some(seq));
            let text = match serde_json::from_slice(&event.json).expect("an event") {
                Event::Message(message) => message.text,
                Event::Offer(offer) => offer.offer,
                other => panic!("{other:?}"),
            };
            self.positions
                .insert(id, (seq, self.messages.epoch().to_owned()));
            if let Some(stored) = self.state.stored.get(&text) {
                assert!(stored.to.contains(&id), "{text} is not for {id}");
            }
            let is_mark = text == mark;
            self.received.entry(id).or_default().insert(text);
            if is_mark {
                break;
            }
        }
        queue.close();
        drop(subscription);
        self.messages.flush().await;
    }

    /// Sends a message without waiting for its delivery, because this test is one of the receivers.
    async fn say_without_waiting(&mut self, from: usize, to: Recipient, text: &str) -> bool {
        let from = self.users[from].clone();
        let pending = self.messages.say(from.clone(), to, text.to_owned()).await;
        let pending = pending.expect("a text");
        let id = from.id;
        self.store(text, id, None, None, [id].into());
        tokio::spawn(pending.stored());
        true
    }

    /// Removes the events that satisfy `is_over` from those to deliver.
    fn end(&mut self, is_over: impl Fn(&String) -> bool) {
        let ended = self.state.stored.extract_if(.., |text, _| is_over(text));
        for (text, stored) in ended {
            let to = stored.to.into_iter();
            self.ended.extend(to.map(|id| (id, text.clone())));
        }
    }
}

async fn open(directory: &TempDir, clock: &Clock) -> Messages {
    let messages = Messages::open_with(directory.path(), clock.clone()).await;
    messages.expect("messages")
}

fn user_in_slot(id: i64, slot: usize) -> UserRef {
    let name = format!("user{slot}").into();
    UserRef { id, name }
}

fn name(room: usize) -> RoomName {
    format!("#room{room}").parse().expect("a room")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn every_stored_event_is_delivered_or_kept(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let mut model = InboxModel::new().await;
            for step in steps {
                model.apply(step).await;
            }
            model.check_all_is_received().await;
        });
    }
}
