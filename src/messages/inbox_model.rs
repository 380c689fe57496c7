//! A model of the inbox: every event that was stored for a user is delivered or kept, for random
//! sequences of operations, crashes, backups and full disks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use proptest::prelude::*;
use sqlx::Connection as _;
use tempfile::TempDir;

use crate::clock::Clock;
use crate::connection::EventQueue;
use crate::database;
use crate::messages::{
    Messages, MessagesError, OfferedFile, Recipient, RoomName, Subscription, UserRef, copy,
};
use crate::protocol::Event;

const DAY: Duration = Duration::from_hours(24);
const USERS: usize = 3;
const ROOMS: usize = 2;

#[derive(Debug, Clone)]
enum InboxStep {
    Say {
        from: usize,
        to: usize,
    },
    SayInRoom {
        from: usize,
        room: usize,
    },
    Join {
        user: usize,
        room: usize,
    },
    Leave {
        user: usize,
        room: usize,
    },
    Offer {
        from: usize,
        to: usize,
        days: u32,
    },
    Decline {
        offer: usize,
    },
    /// A session receives everything in the inbox.
    Hear {
        user: usize,
        brings_position: bool,
    },
    /// A session reads nothing and ends.
    HearNothing {
        user: usize,
    },
    /// The user is removed, and a new user gets the name.
    ReuseName {
        user: usize,
    },
    Crash,
    Backup,
    Restore,
    SetWall {
        year: u16,
    },
    Wait {
        days: u32,
    },
    Forget {
        days: u32,
        most: u64,
    },
    FillDisk,
    EmptyDisk,
}

fn steps() -> impl Strategy<Value = Vec<InboxStep>> {
    let user = || 0..USERS;
    let room = || 0..ROOMS;
    let step = prop_oneof![
        6 => (user(), user()).prop_map(|(from, to)| InboxStep::Say { from, to }),
        6 => (user(), room()).prop_map(|(from, room)| InboxStep::SayInRoom { from, room }),
        4 => (user(), room()).prop_map(|(user, room)| InboxStep::Join { user, room }),
        2 => (user(), room()).prop_map(|(user, room)| InboxStep::Leave { user, room }),
        3 => (user(), user(), 1..9_u32).prop_map(|(from, to, days)| InboxStep::Offer { from, to, days }),
        1 => (0..9_usize).prop_map(|offer| InboxStep::Decline { offer }),
        4 => (user(), any::<bool>())
            .prop_map(|(user, brings_position)| InboxStep::Hear { user, brings_position }),
        1 => user().prop_map(|user| InboxStep::HearNothing { user }),
        1 => user().prop_map(|user| InboxStep::ReuseName { user }),
        2 => Just(InboxStep::Crash),
        1 => Just(InboxStep::Backup),
        1 => Just(InboxStep::Restore),
        2 => (1970..2099_u16).prop_map(|year| InboxStep::SetWall { year }),
        2 => (1..5_u32).prop_map(|days| InboxStep::Wait { days }),
        3 => (1..9_u32, 3..30_u64).prop_map(|(days, most)| InboxStep::Forget { days, most }),
        1 => Just(InboxStep::FillDisk),
        2 => Just(InboxStep::EmptyDisk),
    ];
    prop::collection::vec(step, 1..60)
}

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
    said: u64,
    state: InboxModelState,
    backup: Option<(TempDir, InboxModelState)>,
    is_full: bool,
    /// The events that each user has received in all sessions, and the position of each.
    told: HashMap<i64, BTreeSet<String>>,
    positions: HashMap<i64, (u64, String)>,
    /// Events that a user no longer needs. A restore may bring them back, but need not deliver them.
    ended: BTreeSet<(i64, String)>,
}

impl InboxModel {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let clock = Clock::manual();
        let messages = open(&directory, &clock).await;
        let users = (0_i64..).zip(0..USERS).map(|(id, slot)| party(id, slot));
        let users: Vec<_> = users.collect();
        Self {
            directory,
            clock,
            messages,
            users,
            last_id: 1000,
            said: 0,
            state: InboxModelState::default(),
            backup: None,
            is_full: false,
            told: HashMap::new(),
            positions: HashMap::new(),
            ended: BTreeSet::new(),
        }
    }

    fn text(&mut self) -> String {
        self.said += 1;
        format!("text {}", self.said)
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
            InboxStep::Hear {
                user,
                brings_position,
            } => self.hear(user, brings_position).await,
            InboxStep::HearNothing { user } => {
                let lane = EventQueue::default();
                let attendance = self.subscribe(user, &lane, None);
                self.messages.flush().await;
                lane.close();
                drop(attendance);
            }
            InboxStep::ReuseName { user } => {
                let gone = self.users[user].id;
                for stored in self.state.stored.values_mut() {
                    stored.to.remove(&gone);
                }
                self.last_id += 1;
                self.users[user] = party(self.last_id, user);
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
                    self.forget_who_is_gone();
                }
            }
            InboxStep::SetWall { year } => {
                let wall = format!("{year}-01-01T00:00:00Z");
                self.clock.set_wall(wall.parse().expect("a time"));
            }
            InboxStep::Wait { days } => self.clock.advance(days * DAY),
            InboxStep::Forget { days, most } => self.forget(days * DAY, most).await,
            InboxStep::FillDisk if !self.is_full => {
                self.execute(FILL).await;
                self.is_full = true;
            }
            InboxStep::EmptyDisk if self.is_full => {
                self.execute(EMPTY).await;
                self.is_full = false;
            }
            InboxStep::Backup | InboxStep::FillDisk | InboxStep::EmptyDisk => {}
        }
        self.check_offers().await;
    }

    /// A restored database knows users that were removed since. They never log in.
    fn forget_who_is_gone(&mut self) {
        let there: BTreeSet<_> = self.users.iter().map(|user| user.id).collect();
        for stored in self.state.stored.values_mut() {
            stored.to.retain(|id| there.contains(id));
        }
    }

    async fn say(
        &mut self,
        from: usize,
        to: Recipient,
        text: &str,
        room: Option<usize>,
        hear: BTreeSet<i64>,
    ) -> bool {
        let from = self.users[from].clone();
        let said = self.messages.say(from.clone(), to, text.to_owned()).await;
        let outcome = said.expect("a text").stored().await;
        let is_refused = matches!(
            outcome,
            Err(MessagesError::NotInRoom(_) | MessagesError::NoSuchRoom(_))
        );
        assert!(outcome.is_ok() || self.is_full || is_refused, "{outcome:?}");
        if outcome.is_ok() {
            self.store(text, from.id, None, room, hear);
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
        let (offer, said) = offering.await.expect("random bytes");
        if said.stored().await.is_ok() {
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
        // One whose time is over cannot be claimed.
        let Ok(claim) = self.messages.claim_to_decline(from, &offer).await else {
            return;
        };
        if claim.close().await.is_ok() {
            self.end(|text| *text == offer);
        } else {
            assert!(self.is_full);
        }
    }

    fn subscribe(&self, user: usize, lane: &EventQueue, since: Option<u64>) -> Subscription {
        let user = &self.users[user];
        self.messages
            .subscribe(user, Some(lane.clone()), true, since)
    }

    /// Receives events up to a message that the session sends itself.
    async fn hear(&mut self, user: usize, brings_position: bool) {
        if self.is_full {
            return;
        }
        let id = self.users[user].id;
        let position = self.positions.get(&id).filter(|_| brings_position);
        // As the server does at the login.
        let since = position.map(|(seq, epoch)| {
            let is_known = self.messages.has_issued(*seq, Some(epoch));
            if is_known { *seq } else { 0 }
        });
        let lane = EventQueue::default();
        let attendance = self.subscribe(user, &lane, since);
        let mark = self.text();
        let to = Recipient::User(self.users[user].clone());
        assert!(self.say_later(user, to, &mark).await);
        loop {
            let event = lane.next().await;
            let seq = event.inbox_seq.expect("of the inbox");
            lane.mark_written(Some(seq));
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
            self.told.entry(id).or_default().insert(text);
            if is_mark {
                break;
            }
        }
        lane.close();
        drop(attendance);
        self.messages.flush().await;
    }

    /// Sends a message without waiting for its delivery, because this test is one of the receivers.
    async fn say_later(&mut self, from: usize, to: Recipient, text: &str) -> bool {
        let from = self.users[from].clone();
        let said = self.messages.say(from.clone(), to, text.to_owned()).await;
        let said = said.expect("a text");
        let id = from.id;
        self.store(text, id, None, None, [id].into());
        tokio::spawn(said.stored());
        true
    }

    async fn forget(&mut self, keep: Duration, most: u64) {
        let before = self.rows().await;
        let now = self.clock.elapsed();
        let _ = self.messages.expire_offers().await;
        let expired = self.rows().await;
        for text in before.keys().filter(|text| !expired.contains_key(*text)) {
            let stored = &self.state.stored[text];
            let offered = stored.keep.expect("only offers end");
            assert!(
                now.saturating_sub(stored.at) >= offered,
                "{text} ended too early"
            );
        }
        let outcome = self.messages.prune(keep, most).await;
        let after = self.rows().await;
        let is_old = |text: &String| now.saturating_sub(self.state.stored[text].at) >= keep;
        // Who has no more than an equal share loses nothing but what is old.
        let senders: BTreeSet<_> = expired.values().map(|(_, sender)| *sender).collect();
        for sender in senders.iter().copied() {
            let of = |rows: &BTreeMap<String, (i64, i64)>| {
                let rows = rows.iter().filter(|(_, (_, by))| *by == sender);
                let rows = rows.map(|(text, (seq, _))| (*seq, text.clone()));
                rows.collect::<BTreeMap<_, _>>()
            };
            let (had, has) = (of(&expired), of(&after));
            let young = had.values().filter(|text| !is_old(text)).count();
            let share = usize::try_from(most).expect("few") / senders.len();
            assert!(has.len() >= young.min(share), "{sender}: {had:?} {has:?}");
            if let Some(first) = has.keys().next() {
                let skipped = had.range(first..).count();
                assert_eq!(skipped, has.len(), "the oldest go first");
            }
        }
        if outcome.is_ok() {
            assert!(after.len() as u64 <= most);
        }
        self.end(|text| before.contains_key(text) && !after.contains_key(text));
    }

    /// Removes the events that satisfy `over` from those to deliver.
    fn end(&mut self, over: impl Fn(&String) -> bool) {
        let ended = self.state.stored.extract_if(.., |text, _| over(text));
        for (text, stored) in ended {
            let to = stored.to.into_iter();
            self.ended.extend(to.map(|id| (id, text.clone())));
        }
    }

    /// Events by their text, with place and sender.
    async fn rows(&self) -> BTreeMap<String, (i64, i64)> {
        let readers = &self.messages.shared.store.readers;
        let mut transaction = readers.read().await.expect("readable");
        let rows: Vec<(String, i64, i64)> =
            sqlx::query_as("SELECT body, seq, sender FROM events ORDER BY seq")
                .fetch_all(&mut *transaction)
                .await
                .expect("readable");
        transaction.commit().await.expect("ended");
        let rows = rows.into_iter();
        rows.map(|(text, seq, sender)| (text, (seq, sender)))
            .collect()
    }

    /// Checks that each offer has its event and vice versa.
    async fn check_offers(&self) {
        let readers = &self.messages.shared.store.readers;
        let mut transaction = readers.read().await.expect("readable");
        let query = "SELECT (SELECT COUNT(*) FROM offers WHERE event NOT IN \
                     (SELECT seq FROM events WHERE kind = 1)), \
                     (SELECT COUNT(*) FROM events WHERE kind = 1 AND seq NOT IN \
                     (SELECT event FROM offers))";
        let apart: (i64, i64) = sqlx::query_as(query)
            .fetch_one(&mut *transaction)
            .await
            .expect("readable");
        transaction.commit().await.expect("ended");
        assert_eq!(apart, (0, 0));
    }

    /// Lets every user log in with their position, and checks that they have received everything.
    async fn check_all_is_received(&mut self) {
        self.apply(InboxStep::EmptyDisk).await;
        for user in 0..USERS {
            self.hear(user, true).await;
            let id = self.users[user].id;
            let told = self.told.entry(id).or_default();
            let stored = self.state.stored.iter();
            let now = self.clock.elapsed();
            let is_over = |stored: &AcknowledgedEvent| {
                stored
                    .keep
                    .is_some_and(|keep| now.saturating_sub(stored.at) >= keep)
            };
            let expected = stored.filter(|(_, stored)| stored.to.contains(&id) && !is_over(stored));
            for (text, _) in expected {
                let is_told = told.contains(text) || self.ended.contains(&(id, text.clone()));
                assert!(is_told, "{id} was never told {text}");
            }
        }
    }

    async fn execute(&self, statements: &'static str) {
        let file = self.directory.path().join("messages.db");
        let mut connection = database::connect(&file).await.expect("opens");
        let done = sqlx::raw_sql(statements).execute(&mut connection).await;
        done.expect("done");
        connection.close().await.expect("closed");
    }
}

/// Every write fails as on a full disk: `SQLite` rolls back by itself.
const FILL: &str = "\
    CREATE TRIGGER full_events BEFORE INSERT ON events \
    BEGIN SELECT RAISE(ROLLBACK, 'the disk is full'); END; \
    CREATE TRIGGER full_members BEFORE INSERT ON members \
    BEGIN SELECT RAISE(ROLLBACK, 'the disk is full'); END; \
    CREATE TRIGGER full_left BEFORE DELETE ON members \
    BEGIN SELECT RAISE(ROLLBACK, 'the disk is full'); END; \
    CREATE TRIGGER full_inboxes BEFORE INSERT ON inboxes \
    BEGIN SELECT RAISE(ROLLBACK, 'the disk is full'); END; \
    CREATE TRIGGER full_counter BEFORE UPDATE ON counter \
    BEGIN SELECT RAISE(ROLLBACK, 'the disk is full'); END";

const EMPTY: &str = "\
    DROP TRIGGER full_events; DROP TRIGGER full_members; DROP TRIGGER full_left; \
    DROP TRIGGER full_inboxes; DROP TRIGGER full_counter";

async fn open(directory: &TempDir, clock: &Clock) -> Messages {
    let messages = Messages::open_with(directory.path(), clock.clone()).await;
    messages.expect("messages")
}

fn party(id: i64, slot: usize) -> UserRef {
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
