//! The sequencer: the one task that assigns sequence numbers and writes the database.
//!
//! It receives [operations](Operation) from handles and sessions, and file changes from storage. It
//! processes all that wait as one [`CommitGroup`], commits the group, and then replies and delivers.
//! While the database refuses to write, it retries every second, refuses new messages, and still
//! delivers file changes as long as reserved sequence numbers are left.

mod commit;
mod inbox_delivery;
mod offers;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

use crate::messages::commit_group::CommitGroup;
use crate::messages::delivery::{DeliveryTracker, SayAcknowledgement};
use crate::messages::error::MessagesError;
use crate::messages::operation::{Operation, ReplySender, SessionOperation, WatchRequest, reply};
use crate::messages::recipient::{Recipient, UserRef};
use crate::messages::room::RoomName;
use crate::messages::rooms::{RoomChange, Rooms};
use crate::messages::state::MessagesState;
use crate::messages::store::event::{CommitBatch, InboxPosition, StoredEvent};
use crate::messages::store::writer::MessageWriter;
use crate::messages::watching::{ChangeDispatcher, ChangeFeed, MAX_WAITING_CHANGES};
use crate::protocol::MembersReply;
use crate::storage::FileChange;

/// The most operations in one group.
const MAX_GROUP_OPERATIONS: usize = 512;

/// Sequence numbers that are reserved at a time: twice as many as one group can use for messages
/// and file changes.
const RESERVED_SEQS: u64 = 2048;

/// The pause before a failed commit is retried, unless there are messages to store.
const RETRY_DELAY: Duration = Duration::from_secs(1);

pub(crate) struct Sequencer {
    shared: Arc<MessagesState>,
    writer: MessageWriter,
    operations: mpsc::UnboundedReceiver<Operation>,
    deliveries: DeliveryTracker,
    rooms: Rooms,
    /// The last assigned sequence number.
    last_seq: u64,
    /// The last sequence number that the database has reserved. None above it is assigned, so none
    /// is assigned twice, even after a crash.
    reserved: u64,
    /// Inbox positions that no commit has stored yet.
    unsaved_inboxes: HashMap<i64, InboxPosition>,
    /// Replies that wait until the inbox positions are stored.
    unsaved_acknowledgements: Vec<SayAcknowledgement>,
    changes: ChangeDispatcher,
    /// The time of the last commit, if it failed.
    failed_at: Option<Instant>,
}

impl Sequencer {
    /// Starts the epoch of this server. A full disk is no error: the events can still be read, and
    /// the sequencer retries.
    ///
    /// # Errors
    /// [`MessagesError::Database`] if the room members cannot be read.
    pub(crate) async fn start(
        shared: &Arc<MessagesState>,
        mut writer: MessageWriter,
        last_seq: u64,
        operations: mpsc::UnboundedReceiver<Operation>,
    ) -> Result<(ChangeFeed, Self), MessagesError> {
        writer.set_epoch(shared.epochs.current(), last_seq);
        let (change_feed, changes) = ChangeDispatcher::new(last_seq);
        let mut sequencer = Self {
            deliveries: DeliveryTracker::new(shared.operations.downgrade()),
            shared: Arc::clone(shared),
            rooms: writer.rooms().await?.into_iter().collect(),
            writer,
            operations,
            last_seq,
            reserved: last_seq + RESERVED_SEQS,
            unsaved_inboxes: HashMap::new(),
            unsaved_acknowledgements: Vec::new(),
            changes,
            failed_at: None,
        };
        let batch = CommitBatch {
            reserved: Some(sequencer.reserved),
            ..CommitBatch::default()
        };
        if let Err(error) = sequencer.writer.commit(&batch).await {
            warn!(name: "messages_unwritable", %error, "cannot store messages for now");
            sequencer.reserved = last_seq;
            sequencer.mark_failed();
        }
        Ok((change_feed, sequencer))
    }

    /// Runs until all senders of operations are dropped.
    pub(crate) async fn run(mut self) {
        let mut operations = Vec::with_capacity(MAX_GROUP_OPERATIONS);
        let mut changes = Vec::new();
        loop {
            let deadline = self.deliveries.next_deadline();
            tokio::select! {
                received = self.operations.recv_many(&mut operations, MAX_GROUP_OPERATIONS) => {
                    if received == 0 {
                        return;
                    }
                }
                () = self.changes.receive(&mut changes, MAX_GROUP_OPERATIONS) => {}
                () = sleep(RETRY_DELAY), if self.needs_retry() => {}
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
            }
            // An operation may revoke a right, so those that wait come before the changes: a session
            // that has lost a right by now must not see later changes.
            while !changes.is_empty()
                && operations.len() < MAX_GROUP_OPERATIONS
                && let Ok(operation) = self.operations.try_recv()
            {
                operations.push(operation);
            }
            self.process(&mut operations, &mut changes).await;
        }
    }

    fn needs_retry(&self) -> bool {
        self.failed_at.is_some()
            || !self.unsaved_acknowledgements.is_empty()
            || self.changes.has_lost()
    }

    fn mark_failed(&mut self) {
        self.failed_at = Some(Instant::now());
        self.shared.is_failing.store(true, Ordering::Relaxed);
    }

    async fn process(&mut self, operations: &mut Vec<Operation>, changes: &mut Vec<FileChange>) {
        let mut group = CommitGroup::default();
        for operation in operations.drain(..) {
            let begins_watch = matches!(
                operation,
                Operation::Session(_, SessionOperation::Watch(WatchRequest::Watch { .. }))
            );
            if begins_watch {
                self.commit_earlier_changes(changes, &mut group).await;
            }
            self.apply(operation, &mut group).await;
        }
        for delivery in self.deliveries.overdue(Instant::now()) {
            self.finish_delivery(delivery, &mut group);
        }
        self.assign_seqs(changes, &mut group);
        self.commit(group).await;
    }

    async fn apply(&mut self, operation: Operation, group: &mut CommitGroup) {
        match operation {
            Operation::Say {
                from,
                to,
                text,
                done,
                permit,
            } => {
                let event = self.message(from, to, text);
                group.add_event(event, done, permit);
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
                let event = self.offer(from, to, offer, file, keep, group).await;
                group.add_event(event, done, permit);
            }
            Operation::CloseOffer { offer, done } => {
                group.batch.closed.push(offer);
                group.offer_replies.push(done);
            }
            Operation::ExpireOffers(done) => self.expire_offers(done, group).await,
            Operation::Join { user, room, done } => self.join(user, room, done, group),
            Operation::Leave { user, room, done } => self.leave(user, room, done, group),
            Operation::Prune {
                keep,
                max_events,
                done,
            } => reply(done, self.writer.prune(keep, max_events).await),
            Operation::Flush(done) => group.flush_replies.push(done),
            Operation::Session(session, operation) => {
                self.apply_session_operation(session, operation, group)
                    .await;
            }
            Operation::DeliveryFinished(number) => {
                if let Some(delivery) = self.deliveries.finish(number) {
                    self.finish_delivery(delivery, group);
                }
            }
        }
    }

    async fn apply_session_operation(
        &mut self,
        session: u64,
        operation: SessionOperation,
        group: &mut CommitGroup,
    ) {
        match operation {
            SessionOperation::Subscribe { user, since } => {
                self.begin_catch_up(user, session, since, group).await;
            }
            SessionOperation::CaughtUp {
                user,
                position,
                force,
                done,
            } => {
                let verdict = self
                    .finish_catch_up(user, session, position, force, group)
                    .await;
                // The session may have ended.
                let _ = done.send(verdict);
            }
            SessionOperation::Progress => {
                let mut presence = self.shared.presence();
                presence.record_progress(session, &mut group.presence);
            }
            SessionOperation::Watch(request) => {
                self.changes
                    .apply(&self.shared, session, request, self.last_seq);
            }
            SessionOperation::Close => {
                self.changes.remove_session(session);
                self.shared
                    .presence()
                    .remove_session(session, &mut group.presence);
            }
        }
    }

    fn message(
        &mut self,
        from: UserRef,
        to: Recipient,
        text: String,
    ) -> Result<StoredEvent, MessagesError> {
        let members = match &to {
            Recipient::User(_) => None,
            Recipient::Room(room) => Some(self.rooms.members_for(&from, room)?),
        };
        let mut message = self.new_event(from, to, text);
        message.members = members;
        Ok(message)
    }

    fn join(
        &mut self,
        user: UserRef,
        room: RoomName,
        done: ReplySender<MembersReply>,
        group: &mut CommitGroup,
    ) {
        let is_new = match self.rooms.join(&user, &room) {
            Ok(is_new) => is_new,
            Err(error) => return reply(done, Err(error)),
        };
        let members = self.rooms.member_names(&room);
        group.membership_replies.push((done, members));
        if is_new {
            let change = RoomChange::Joined(room.clone(), user.clone());
            group.room_changes.push(change);
            group.batch.joined.push((room, user, self.last_seq));
        }
    }

    fn leave(
        &mut self,
        user: UserRef,
        room: RoomName,
        done: ReplySender<MembersReply>,
        group: &mut CommitGroup,
    ) {
        if let Err(error) = self.rooms.leave(&user, &room) {
            return reply(done, Err(error));
        }
        let members = self.rooms.member_names(&room);
        group.membership_replies.push((done, members));
        // A membership that begins and ends in this group is not stored.
        let joined = &mut group.batch.joined;
        joined.retain(|(joined, by, _)| (joined, by.id) != (&room, user.id));
        group.batch.left.push((room.clone(), user.id));
        group.room_changes.push(RoomChange::Left(room, user));
    }

    /// An event with the next sequence number.
    fn new_event(&mut self, from: UserRef, to: Recipient, body: String) -> StoredEvent {
        StoredEvent {
            seq: self.next_seq(),
            from,
            to,
            body,
            time: self.writer.uptime.clock.wall(),
            uptime: self.writer.uptime.now(),
            members: None,
            offer: None,
        }
    }

    fn next_seq(&mut self) -> u64 {
        self.last_seq += 1;
        self.shared.epochs.record(self.last_seq);
        self.last_seq
    }

    fn reserved_left(&self) -> u64 {
        self.reserved.saturating_sub(self.last_seq)
    }

    /// Assigns sequence numbers to file changes, which are delivered even if the commit fails. They
    /// only use numbers that are reserved. The last reserved number announces that changes were
    /// lost.
    fn assign_seqs(&mut self, changes: &mut Vec<FileChange>, group: &mut CommitGroup) {
        for change in changes.drain(..) {
            if self.reserved_left() > 1 {
                group.file_changes.push((self.next_seq(), change));
            } else {
                self.changes.mark_lost();
            }
        }
        if self.reserved_left() > 0 && self.changes.take_lost() {
            group.lost_up_to = Some(self.next_seq());
        }
    }

    /// Commits the changes that happened before a watch begins, which the watch must not report.
    async fn commit_earlier_changes(
        &mut self,
        changes: &mut Vec<FileChange>,
        group: &mut CommitGroup,
    ) {
        for _ in 0..=MAX_WAITING_CHANGES / MAX_GROUP_OPERATIONS {
            if changes.is_empty() {
                self.changes.try_receive(changes, MAX_GROUP_OPERATIONS);
            }
            if changes.is_empty() {
                return;
            }
            self.assign_seqs(changes, group);
            self.commit(std::mem::take(group)).await;
        }
    }
}
