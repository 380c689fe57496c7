//! The sequencer: gives every event its place, keeps in one commit all that has come meanwhile, and
//! tells those who hear.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{error, info, warn};

use crate::messages::backlog;
use crate::messages::backlog::{PAGE, Verdict};
use crate::messages::delivery::{Ack, DeliveryBatches, Landing};
use crate::messages::operation::{Answer, Operation, SessionOperation, answer};
use crate::messages::presence::{Changes, Inbox};
use crate::messages::rooms::{RoomChange, Rooms};
use crate::messages::store::{CommitBatch, Stored, StoredOffer, Writer};
use crate::messages::watches::WatchedChange;
use crate::messages::watching::{ChangeFeed, WAITING, WatchRequest, Watching};
use crate::messages::{MessagesError, MessagesState, Recipient, UserRef};
use crate::protocol::{MembersReply, SayReply, encode_event};

/// Requests that are done in one go.
const BATCH: usize = 512;

/// Places that are reserved at a time: twice what one go can give out to messages and changes.
const BLOCK: u64 = 2048;

/// Open offers of one user, and as many to one user.
const OFFERS: usize = 100;

/// Before places are reserved again after that has failed, unless there are messages to store.
const PAUSE: Duration = Duration::from_secs(1);

/// The one task that writes.
pub(super) struct Sequencer {
    shared: Arc<MessagesState>,
    writer: Writer,
    ops: mpsc::UnboundedReceiver<Operation>,
    flights: DeliveryBatches,
    rooms: Rooms,
    /// The last place that was given out.
    last: u64,
    reserved: u64,
    /// What is to be kept about inboxes, until it is.
    inboxes: HashMap<i64, Inbox>,
    /// Replies that wait for that.
    held: Vec<Ack>,
    watching: Watching,
    /// The database has refused to reserve places at that time.
    refused: Option<Instant>,
}

/// What one go does.
#[derive(Default)]
struct Go {
    batch: CommitBatch,
    /// Who waits for the messages of the batch, in their order.
    waiting: Vec<(Answer<SayReply>, OwnedSemaphorePermit)>,
    changes: Changes,
    /// Replies to what was told before, once this is kept.
    acks: Vec<Ack>,
    members: Vec<(Answer<MembersReply>, MembersReply)>,
    /// What is to be undone if nothing is kept.
    room_changes: Vec<RoomChange>,
    /// Who waits for offers to be ended.
    closing: Vec<Answer<()>>,
    settled: Vec<oneshot::Sender<()>>,
    /// Changes of files, with their places.
    changed: Vec<(u64, WatchedChange)>,
    /// Up to there changes may have been lost.
    lost: Option<u64>,
}

impl Go {
    /// Stores an event, if it is allowed.
    fn store(
        &mut self,
        event: Result<Stored, MessagesError>,
        done: Answer<SayReply>,
        permit: OwnedSemaphorePermit,
    ) {
        match event {
            Ok(event) => {
                self.batch.messages.push(event);
                self.waiting.push((done, permit));
            }
            Err(error) => answer(done, Err(error)),
        }
    }
}

impl Sequencer {
    pub(super) async fn start(
        shared: &Arc<MessagesState>,
        mut writer: Writer,
        last: u64,
        ops: mpsc::UnboundedReceiver<Operation>,
    ) -> Result<(ChangeFeed, Self), MessagesError> {
        writer.begin(shared.epochs.current(), last);
        let (observer, watching) = Watching::new(last);
        let mut sequencer = Self {
            flights: DeliveryBatches::new(shared.ops.downgrade()),
            shared: Arc::clone(shared),
            rooms: writer.rooms().await?.into_iter().collect(),
            writer,
            ops,
            last,
            reserved: last + BLOCK,
            inboxes: HashMap::new(),
            held: Vec::new(),
            watching,
            refused: None,
        };
        let batch = CommitBatch {
            reserved: Some(sequencer.reserved),
            ..CommitBatch::default()
        };
        if let Err(error) = sequencer.writer.commit(&batch).await {
            // The disk may be full: what is there can be read, and room be made.
            warn!(name: "messages_unwritable", %error, "nothing can be said for now");
            sequencer.reserved = last;
            sequencer.refuse();
        }
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
                () = sleep(PAUSE), if self.wants_retry() => {}
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

    /// Something is to be tried again that has failed, whether anything else happens or not.
    fn wants_retry(&self) -> bool {
        self.refused.is_some() || !self.held.is_empty() || self.watching.is_lost()
    }

    /// The database takes nothing.
    fn refuse(&mut self) {
        self.refused = Some(Instant::now());
        self.shared.is_failing.store(true, Ordering::Relaxed);
    }

    async fn go(&mut self, ops: &mut Vec<Operation>, changes: &mut Vec<WatchedChange>) {
        let mut go = Go::default();
        for op in ops.drain(..) {
            if matches!(
                op,
                Operation::Session(_, SessionOperation::Watching(WatchRequest::Watch { .. }))
            ) {
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
        let was_refused = self.refused.is_some();
        let refused = self.refused.is_some_and(|at| at.elapsed() < PAUSE);
        if !(refused && go.batch.is_empty()) {
            go.batch.inboxes = std::mem::take(&mut self.inboxes);
        }
        if self.inboxes.is_empty() {
            go.acks.append(&mut self.held);
        } else {
            self.held.append(&mut go.acks);
        }
        let wants_places = self.places_left() < BLOCK / 2 || was_refused;
        if wants_places && !(refused && go.batch.is_empty()) {
            go.batch.reserved = Some(self.last + BLOCK);
        }
        if !go.batch.is_empty() {
            if let Err(cause) = self.writer.commit(&go.batch).await {
                self.fail(go, &cause);
                return;
            }
            if self.refused.take().is_some() {
                info!(name: "messages_stored_again", "messages can be stored again");
            }
            self.shared.is_failing.store(false, Ordering::Relaxed);
        }
        self.finish(go);
    }

    async fn take(&mut self, op: Operation, go: &mut Go) {
        match op {
            Operation::Say {
                from,
                to,
                text,
                done,
                permit,
            } => {
                let members = match &to {
                    Recipient::User(_) => Ok(None),
                    Recipient::Room(room) => self.rooms.members_for(&from, room).map(Some),
                };
                let message = members.map(|members| {
                    let mut message = self.event(from, to, text);
                    message.members = members;
                    message
                });
                go.store(message, done, permit);
            }
            Operation::Offer {
                from,
                to,
                offer,
                file,
                keep,
                done,
                permit,
            } => {
                let allowed = self.check_offer(&from, &to, go).await;
                let event = allowed.map(|()| {
                    let mut event = self.event(from, Recipient::User(to), offer);
                    let expires = SignedDuration::try_from(keep).unwrap_or(SignedDuration::MAX);
                    let expires = event.time.saturating_add(expires);
                    event.offer = Some(StoredOffer {
                        file,
                        expires: expires.unwrap_or(Timestamp::MAX),
                        ends: event.uptime.saturating_add(keep),
                    });
                    event
                });
                go.store(event, done, permit);
            }
            Operation::Close { offer, done } => {
                go.batch.closed.push(offer);
                go.closing.push(done);
            }
            Operation::Expire(done) => {
                let uptime = self.writer.uptime.now();
                match self.writer.has_expired(uptime).await {
                    Ok(false) => answer(done, Ok(())),
                    Ok(true) => {
                        go.batch.expired = Some(uptime);
                        go.closing.push(done);
                    }
                    Err(error) => answer(done, Err(error)),
                }
            }
            Operation::Join { user, room, done } => match self.rooms.join(&user, &room) {
                Ok(is_new) => {
                    let members = self.rooms.names(&room);
                    if is_new {
                        let change = RoomChange::Joined(room.clone(), user.clone());
                        go.room_changes.push(change);
                        go.batch.joined.push((room, user, self.last));
                    }
                    go.members.push((done, members));
                }
                Err(error) => answer(done, Err(error)),
            },
            Operation::Leave { user, room, done } => match self.rooms.leave(&user, &room) {
                Ok(()) => {
                    let joined = &mut go.batch.joined;
                    joined.retain(|(joined, by, _)| (joined, by.id) != (&room, user.id));
                    go.members.push((done, self.rooms.names(&room)));
                    go.batch.left.push((room.clone(), user.id));
                    go.room_changes.push(RoomChange::Left(room, user));
                }
                Err(error) => answer(done, Err(error)),
            },
            Operation::Forget { keep, most, done } => {
                answer(done, self.writer.forget(keep, most).await);
            }
            Operation::Settle(settled) => go.settled.push(settled),
            Operation::Session(session, op) => self.take_of(session, op, go).await,
            Operation::Landed(flight) => {
                if let Some(landing) = self.flights.land(flight) {
                    self.land(landing, go);
                }
            }
        }
    }

    /// Takes what a session asks for itself.
    async fn take_of(&mut self, session: u64, op: SessionOperation, go: &mut Go) {
        match op {
            SessionOperation::Hear { user, since } => self.hear(user, session, since, go).await,
            SessionOperation::CaughtUp {
                user,
                position,
                insists,
                answer,
            } => {
                let verdict = self.caught_up(user, session, position, insists, go).await;
                // The session may have ended.
                let _ = answer.send(verdict);
            }
            SessionOperation::Progress => {
                let mut presence = self.shared.presence();
                presence.progress(session, &mut go.changes);
            }
            SessionOperation::Watching(ask) => {
                self.watching.take(&self.shared, session, ask, self.last);
            }
            SessionOperation::Exit => {
                self.watching.forget(session);
                self.shared.presence().exit(session, &mut go.changes);
            }
        }
    }

    /// An event in the next place.
    fn event(&mut self, from: UserRef, to: Recipient, body: String) -> Stored {
        Stored {
            seq: self.next(),
            from,
            to,
            body,
            time: self.writer.uptime.clock.wall(),
            uptime: self.writer.uptime.now(),
            members: None,
            offer: None,
        }
    }

    fn places_left(&self) -> u64 {
        self.reserved.saturating_sub(self.last)
    }

    /// Gives changes their places. They are told even if nothing can be kept, but never in a place
    /// that could be given out once more after a restart: the last one tells that there are more.
    fn place(&mut self, changes: &mut Vec<WatchedChange>, go: &mut Go) {
        for change in changes.drain(..) {
            if self.places_left() > 1 {
                go.changed.push((self.next(), change));
            } else {
                self.watching.note_lost();
            }
        }
        if self.places_left() > 0 && self.watching.has_lost() {
            go.lost = Some(self.next());
        }
    }

    /// Who begins to watch does not hear of what happened before they asked.
    async fn place_all(&mut self, changes: &mut Vec<WatchedChange>, go: &mut Go) {
        for _ in 0..=WAITING / BATCH {
            if changes.is_empty() {
                self.watching.try_receive(changes, BATCH);
            }
            if changes.is_empty() {
                return;
            }
            self.place(changes, go);
            self.conclude(std::mem::take(go)).await;
        }
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.shared.epochs.note(self.last);
        self.last
    }

    /// Refuses an offer where too many of either user are open, with those of this go.
    async fn check_offer(
        &mut self,
        from: &UserRef,
        to: &UserRef,
        go: &Go,
    ) -> Result<(), MessagesError> {
        let (mut made, mut open) = self.writer.open_offers(from.id, to.id).await?;
        for event in go
            .batch
            .messages
            .iter()
            .filter(|event| event.offer.is_some())
        {
            made += usize::from(event.from.id == from.id);
            open += usize::from(event.to == Recipient::User(to.clone()));
        }
        if made >= OFFERS {
            return Err(MessagesError::TooManyMade(OFFERS));
        }
        if open >= OFFERS {
            let user = Arc::clone(&to.name);
            return Err(MessagesError::TooManyOpen { user, most: OFFERS });
        }
        Ok(())
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
                    warn!(
                        name: "told_unreadable",
                        %error,
                        "can not tell up to where a user was told"
                    );
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
        let backlog = match self.writer.backlog(user, position, PAGE).await {
            Ok(backlog) if backlog.is_complete => backlog,
            _ => return Verdict::NotYet(position),
        };
        if backlog.events.is_empty() {
            // It was an offer that is no longer open.
            let mut presence = self.shared.presence();
            presence.go_live(session, backlog.position, &mut go.changes);
            return Verdict::Hears;
        }
        let mut flight = self.flights.prepare();
        let mut presence = self.shared.presence();
        let all = presence.tell_missed(session, backlog.events, &mut flight);
        let told = presence.queued(session).unwrap_or(backlog.position);
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
            backlog::begin(&self.shared, behind);
        }
    }

    /// All is kept: tells those who hear, and those who asked.
    fn finish(&mut self, go: Go) {
        if let Some(reserved) = go.batch.reserved {
            self.reserved = reserved;
        }
        for ack in go.acks {
            ack.send();
        }
        for (done, members) in go.members {
            answer(done, Ok(members));
        }
        for done in go.closing {
            answer(done, Ok(()));
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
                Recipient::User(user) => tell(user.id),
                Recipient::Room(_) => {
                    let members = message.members.iter().flat_map(|members| members.keys());
                    let others = members.filter(|member| **member != message.from.id);
                    others.copied().map(tell).sum()
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
    fn fail(&mut self, go: Go, cause: &MessagesError) {
        error!(name: "messages_not_stored", error = %cause, "can not store messages");
        self.refuse();
        for change in go.room_changes.into_iter().rev() {
            self.rooms.undo(change);
        }
        self.watching.tell(&self.shared, go.changed, go.lost);
        let MessagesError::Database { doing, source } = cause else {
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
        for done in go.closing {
            answer(done, Err(failed()));
        }
        // They are stored, only not who was told: were they acknowledged now, a server that is
        // killed would take them for told.
        self.held.extend(go.acks);
        for (user, inbox) in go.batch.inboxes {
            self.inboxes.entry(user).or_insert(inbox);
        }
    }
}
