//! The sequencer: gives every event its place, keeps in one commit all that has come meanwhile, and
//! tells those who hear.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tracing::{error, warn};

use super::catch_up::{self, PAGE, Verdict};
use super::flight::{Ack, Flights, Landing};
use super::presence::{Changes, Inbox};
use super::store::{Batch, Stored, Writer};
use super::watches::Change;
use super::watching::{Ask, Observer, WAITING, Watching};
use super::{MessagesError, Party, RoomName, Shared, To};
use crate::protocol::{MembersReply, SayReply, encode_event};

/// Requests that are done in one go.
const BATCH: usize = 512;

/// Places that are reserved at a time: twice what one go can give out to messages and changes.
const BLOCK: u64 = 2048;

/// Members of a room.
const MEMBERS: usize = 1000;

/// Rooms that a user is in.
const ROOMS: usize = 100;

/// Before places are reserved again after that has failed, unless there are messages to store.
const PAUSE: Duration = Duration::from_secs(1);

type Answer<T> = oneshot::Sender<Result<T, MessagesError>>;

/// What the sequencer is asked to do.
#[derive(Debug)]
pub(super) enum Op {
    Say {
        from: Party,
        to: To,
        text: String,
        done: Answer<SayReply>,
        permit: OwnedSemaphorePermit,
    },
    Join {
        user: Party,
        room: RoomName,
        done: Answer<MembersReply>,
    },
    Leave {
        user: Party,
        room: RoomName,
        done: Answer<MembersReply>,
    },
    /// A session wants to be told what comes.
    Hear {
        user: i64,
        session: u64,
        since: Option<u64>,
    },
    /// A session was told all that was there up to `position`. If it insists it is told the rest.
    CaughtUp {
        user: i64,
        session: u64,
        position: u64,
        insists: bool,
        answer: oneshot::Sender<Verdict>,
    },
    /// A session that catches up got on.
    Progress(u64),
    /// A session has ended.
    Exit(u64),
    /// All of a flight is written, or never will be.
    Landed(u64),
    /// A session asks for what it watches.
    Watching(u64, Ask),
    /// Some of what is too old is to be dropped, or too much.
    Forget {
        oldest: Timestamp,
        most: u64,
        done: Answer<u64>,
    },
    /// Answered once all that came before is kept.
    Settle(oneshot::Sender<()>),
}

/// The one task that writes.
pub(super) struct Sequencer {
    shared: Arc<Shared>,
    writer: Writer,
    ops: mpsc::UnboundedReceiver<Op>,
    flights: Flights,
    /// The members of each room, by user.
    rooms: HashMap<RoomName, BTreeMap<i64, Arc<str>>>,
    /// The last place that was given out.
    last: u64,
    reserved: u64,
    /// What is to be kept about inboxes, until it is.
    inboxes: HashMap<i64, Inbox>,
    watching: Watching,
    /// The database has refused to reserve places at that time.
    refused: Option<Instant>,
}

/// What one go does.
#[derive(Default)]
struct Go {
    batch: Batch,
    /// Who waits for the messages of the batch, in their order.
    waiting: Vec<(Answer<SayReply>, OwnedSemaphorePermit)>,
    changes: Changes,
    /// Replies to what was told before, once this is kept.
    acks: Vec<Ack>,
    members: Vec<(Answer<MembersReply>, MembersReply)>,
    settled: Vec<oneshot::Sender<()>>,
    /// Changes of files, with their places.
    changed: Vec<(u64, Change)>,
    /// Up to there changes may have been lost.
    lost: Option<u64>,
}

impl Sequencer {
    pub(super) async fn start(
        shared: &Arc<Shared>,
        mut writer: Writer,
        ops: mpsc::UnboundedReceiver<Op>,
    ) -> Result<(Observer, Self), MessagesError> {
        let last = writer.recover().await?;
        let (observer, watching) = Watching::new(last);
        let mut sequencer = Self {
            flights: Flights::new(shared.ops.downgrade()),
            shared: Arc::clone(shared),
            rooms: HashMap::new(),
            writer,
            ops,
            last,
            reserved: last + BLOCK,
            inboxes: HashMap::new(),
            watching,
            refused: None,
        };
        sequencer.read_rooms().await?;
        let batch = Batch {
            reserved: Some(sequencer.reserved),
            ..Batch::default()
        };
        sequencer.writer.commit(&batch).await?;
        Ok((observer, sequencer))
    }

    /// Never ends by itself.
    pub(super) async fn run(mut self) {
        let mut ops = Vec::with_capacity(BATCH);
        let mut changes = Vec::new();
        loop {
            let deadline = self.flights.deadline();
            tokio::select! {
                received = self.ops.recv_many(&mut ops, BATCH) => if received == 0 {
                    return;
                },
                () = self.watching.receive(&mut changes, BATCH) => {}
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
            }
            // Who has lost a right by now does not hear of what happened later.
            while !changes.is_empty()
                && ops.len() < BATCH
                && let Ok(op) = self.ops.try_recv()
            {
                ops.push(op);
            }
            self.go(&mut ops, &mut changes).await;
        }
    }

    async fn go(&mut self, ops: &mut Vec<Op>, changes: &mut Vec<Change>) {
        let mut go = Go::default();
        for op in ops.drain(..) {
            // Who is in a room hears what was said there before, and nothing else.
            let moves = matches!(op, Op::Join { .. } | Op::Leave { .. });
            if moves && !go.batch.messages.is_empty() {
                self.conclude(std::mem::take(&mut go)).await;
            }
            if matches!(op, Op::Watching(_, Ask::Watch { .. })) {
                self.place_all(changes, &mut go).await;
            }
            self.take(op, &mut go).await;
        }
        for landing in self.flights.overdue(Instant::now()) {
            self.land(landing, &mut go);
        }
        self.place(changes, &mut go);
        self.conclude(go).await;
    }

    /// Keeps all that a go has to keep in one commit, then does the rest.
    async fn conclude(&mut self, mut go: Go) {
        self.absorb(&mut go.changes);
        go.batch.inboxes = self.inboxes.clone();
        let refused = self.refused.is_some_and(|at| at.elapsed() < PAUSE);
        if self.places_left() < BLOCK / 2 && !(refused && go.batch.is_empty()) {
            go.batch.reserved = Some(self.last + BLOCK);
        }
        let kept = if go.batch.is_empty() {
            Ok(())
        } else {
            self.writer.commit(&go.batch).await
        };
        match kept {
            Ok(()) => self.finish(go),
            Err(cause) => self.fail(go, cause).await,
        }
    }

    async fn take(&mut self, op: Op, go: &mut Go) {
        match op {
            Op::Say {
                from,
                to,
                text,
                done,
                permit,
            } => match self.check_receiver(&from, &to) {
                Ok(()) => {
                    go.batch.messages.push(Stored {
                        seq: self.next(),
                        from,
                        to,
                        body: text,
                        time: Timestamp::now(),
                    });
                    go.waiting.push((done, permit));
                }
                Err(error) => answer(done, Err(error)),
            },
            Op::Join { user, room, done } => match self.join(&user, &room) {
                Ok(members) => {
                    go.batch
                        .left
                        .retain(|left| *left != (room.clone(), user.id));
                    go.batch.joined.push((room, user, self.last));
                    go.members.push((done, members));
                }
                Err(error) => answer(done, Err(error)),
            },
            Op::Leave { user, room, done } => match self.leave(&user, &room) {
                Ok(members) => {
                    go.batch
                        .joined
                        .retain(|(joined, by, _)| (joined, by.id) != (&room, user.id));
                    go.batch.left.push((room, user.id));
                    go.members.push((done, members));
                }
                Err(error) => answer(done, Err(error)),
            },
            Op::Hear {
                user,
                session,
                since,
            } => self.hear(user, session, since, go).await,
            Op::CaughtUp {
                user,
                session,
                position,
                insists,
                answer,
            } => {
                let verdict = self.caught_up(user, session, position, insists, go).await;
                // The session may have ended.
                let _ = answer.send(verdict);
            }
            Op::Progress(session) => {
                let mut presence = self.shared.presence();
                presence.progress(session, &mut go.changes);
            }
            Op::Exit(session) => {
                self.watching.forget(session);
                self.shared.presence().exit(session, &mut go.changes);
            }
            Op::Watching(session, ask) => {
                self.watching.take(&self.shared, session, ask, self.last);
            }
            Op::Landed(flight) => {
                if let Some(landing) = self.flights.land(flight) {
                    self.land(landing, go);
                }
            }
            Op::Forget { oldest, most, done } => {
                answer(done, self.writer.forget(oldest, most).await);
            }
            Op::Settle(settled) => go.settled.push(settled),
        }
    }

    fn places_left(&self) -> u64 {
        self.reserved.saturating_sub(self.last)
    }

    /// Gives changes their places. They are told even if nothing can be kept, but never in a place
    /// that could be given out once more after a restart.
    fn place(&mut self, changes: &mut Vec<Change>, go: &mut Go) {
        for change in changes.drain(..) {
            if self.places_left() > 1 {
                go.changed.push((self.next(), change));
            } else {
                self.watching.note_lost();
            }
        }
        if self.places_left() > 1 && self.watching.has_lost() {
            go.lost = Some(self.next());
        }
    }

    /// Who begins to watch does not hear of what happened before they asked.
    async fn place_all(&mut self, changes: &mut Vec<Change>, go: &mut Go) {
        for _ in 0..=WAITING / BATCH {
            self.place(changes, go);
            self.conclude(std::mem::take(go)).await;
            self.watching.try_receive(changes, BATCH);
            if changes.is_empty() {
                return;
            }
        }
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn check_receiver(&self, from: &Party, to: &To) -> Result<(), MessagesError> {
        let To::Room(room) = to else {
            return Ok(());
        };
        match self.rooms.get(room) {
            None => Err(MessagesError::NoSuchRoom(room.clone())),
            Some(members) if !members.contains_key(&from.id) => {
                Err(MessagesError::NotInRoom(room.clone()))
            }
            Some(_) => Ok(()),
        }
    }

    fn join(&mut self, user: &Party, room: &RoomName) -> Result<MembersReply, MessagesError> {
        let members = self.rooms.get(room);
        if !members.is_some_and(|members| members.contains_key(&user.id)) {
            if members.is_some_and(|members| members.len() >= MEMBERS) {
                return Err(MessagesError::RoomFull {
                    room: room.clone(),
                    most: MEMBERS,
                });
            }
            let rooms = self.rooms.values();
            if rooms
                .filter(|members| members.contains_key(&user.id))
                .count()
                >= ROOMS
            {
                return Err(MessagesError::TooManyRooms(ROOMS));
            }
            let members = self.rooms.entry(room.clone()).or_default();
            members.insert(user.id, Arc::clone(&user.name));
        }
        Ok(names(self.rooms.get(room)))
    }

    fn leave(&mut self, user: &Party, room: &RoomName) -> Result<MembersReply, MessagesError> {
        let Some(members) = self.rooms.get_mut(room) else {
            return Err(MessagesError::NoSuchRoom(room.clone()));
        };
        if members.remove(&user.id).is_none() {
            return Err(MessagesError::NotInRoom(room.clone()));
        }
        if members.is_empty() {
            self.rooms.remove(room);
        }
        Ok(names(self.rooms.get(room)))
    }

    /// Begins to tell a session what its user was not told, or what it says it lacks.
    async fn hear(&mut self, user: i64, session: u64, since: Option<u64>, go: &mut Go) {
        self.absorb(&mut go.changes);
        let live = self.shared.presence().told_live(user);
        let kept = self.inboxes.get(&user).map(|inbox| inbox.told);
        let told = match live.or(kept) {
            Some(told) => told,
            None => match self.writer.told(user).await {
                Ok(told) => told,
                Err(error) => {
                    // Twice is better than never.
                    warn!(%error, "can not tell up to where a user was told");
                    0
                }
            },
        };
        let position = since.map_or(told, |since| since.min(self.last));
        let told = told.max(position);
        let mut presence = self.shared.presence();
        go.changes
            .behind
            .extend(presence.begin(session, position, told));
    }

    /// Lets a session hear from now on, unless it has missed too much for one go.
    async fn caught_up(
        &mut self,
        user: i64,
        session: u64,
        position: u64,
        insists: bool,
        go: &mut Go,
    ) -> Verdict {
        {
            let mut presence = self.shared.presence();
            match presence.misses(session, position) {
                None => return Verdict::Hears,
                Some(false) => {
                    presence.go_live(session, position, &mut go.changes);
                    return Verdict::Hears;
                }
                Some(true) if !insists => return Verdict::NotYet(position),
                Some(true) => {}
            }
        }
        let missed = match self.writer.missed(user, position, PAGE).await {
            Ok(missed) if missed.len() < PAGE => missed,
            _ => return Verdict::NotYet(position),
        };
        let mut flight = self.flights.prepare();
        let last = missed.last().map_or(position, |(seq, _)| *seq);
        let mut presence = self.shared.presence();
        let all = presence.tell_missed(session, missed, &mut flight);
        let told = presence.queued(session).unwrap_or(last);
        drop(presence);
        self.flights.start(flight, Instant::now());
        if all {
            Verdict::Hears
        } else {
            Verdict::NotYet(told)
        }
    }

    fn land(&mut self, landing: Landing, go: &mut Go) {
        let mut presence = self.shared.presence();
        for (session, seq) in landing.sessions {
            presence.landed(session, seq, &mut go.changes);
        }
        go.acks.extend(landing.acks);
    }

    /// Takes over what has to be kept, and has those caught up who need it.
    fn absorb(&mut self, changes: &mut Changes) {
        self.inboxes.extend(changes.inboxes.drain());
        for behind in changes.behind.drain(..) {
            catch_up::begin(&self.shared, behind);
        }
    }

    /// All is kept: tells those who hear, and those who asked.
    fn finish(&mut self, go: Go) {
        self.inboxes.clear();
        if let Some(reserved) = go.batch.reserved {
            self.reserved = reserved;
            self.refused = None;
        }
        for ack in go.acks {
            ack.send();
        }
        for (done, members) in go.members {
            answer(done, Ok(members));
        }
        self.publish(go.batch.messages, go.waiting);
        self.watching.tell(&self.shared, go.changed, go.lost);
        for settled in go.settled {
            // Whoever asked may have gone away.
            let _ = settled.send(());
        }
    }

    fn publish(
        &mut self,
        messages: Vec<Stored>,
        waiting: Vec<(Answer<SayReply>, OwnedSemaphorePermit)>,
    ) {
        if messages.is_empty() {
            return;
        }
        let mut flight = self.flights.prepare();
        let mut changes = Changes::default();
        let mut presence = self.shared.presence();
        for (message, (done, permit)) in messages.into_iter().zip(waiting) {
            let json = encode_event(&message.event());
            let seq = message.seq;
            let mut tell = |user| presence.tell(user, seq, &json, &mut flight, &mut changes);
            let delivered = match &message.to {
                To::User(user) => tell(user.id),
                To::Room(room) => {
                    let members = self.rooms.get(room).into_iter().flat_map(BTreeMap::keys);
                    let others = members.filter(|member| **member != message.from.id);
                    others.map(|member| tell(*member)).sum()
                }
            };
            let reply = SayReply { seq, delivered };
            flight.acks.push(Ack {
                done,
                reply,
                permit,
            });
        }
        drop(presence);
        self.absorb(&mut changes);
        self.flights.start(flight, Instant::now());
    }

    /// Nothing of it is kept.
    async fn fail(&mut self, go: Go, cause: MessagesError) {
        error!(error = %cause, "can not store messages");
        self.refused = Some(Instant::now());
        self.watching.tell(&self.shared, go.changed, go.lost);
        let MessagesError::Database { doing, source } = &cause else {
            return;
        };
        let failed = || MessagesError::Database {
            doing,
            source: Arc::clone(source),
        };
        for (done, _permit) in go.waiting {
            answer(done, Err(failed()));
        }
        for (done, _) in go.members {
            answer(done, Err(failed()));
        }
        // They are stored, only not who was told.
        for ack in go.acks {
            ack.send();
        }
        if let Err(error) = self.read_rooms().await {
            warn!(%error, "can not read who is in which room");
        }
    }

    async fn read_rooms(&mut self) -> Result<(), MessagesError> {
        let members = self.writer.rooms().await?;
        self.rooms.clear();
        for (room, user) in members {
            self.rooms
                .entry(room)
                .or_default()
                .insert(user.id, user.name);
        }
        Ok(())
    }
}

fn names(members: Option<&BTreeMap<i64, Arc<str>>>) -> MembersReply {
    let names = members.into_iter().flat_map(BTreeMap::values);
    let mut members: Vec<_> = names.map(ToString::to_string).collect();
    members.sort();
    MembersReply { members }
}

fn answer<T>(done: Answer<T>, result: Result<T, MessagesError>) {
    // Whoever asked may have gone away.
    let _ = done.send(result);
}
