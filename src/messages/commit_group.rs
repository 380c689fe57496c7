//! The work of one group commit: the database changes and the replies that wait for them.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::messages::delivery::SayAcknowledgement;
use crate::messages::error::MessagesError;
use crate::messages::operation::{ReplySender, reply};
use crate::messages::presence::PresenceChanges;
use crate::messages::recipient::Recipient;
use crate::messages::rooms::RoomChange;
use crate::messages::store::event::{CommitBatch, StoredEvent};
use crate::protocol::{MembersReply, SayReply};
use crate::storage::FileChange;

/// The operations of one group commit.
#[derive(Default)]
pub(crate) struct CommitGroup {
    pub(crate) batch: CommitBatch,
    /// The replies to the messages of the batch, in the same order.
    pub(crate) message_replies: Vec<(ReplySender<SayReply>, OwnedSemaphorePermit)>,
    pub(crate) presence: PresenceChanges,
    /// Replies to messages of earlier groups whose delivery has finished. They wait for this commit,
    /// which stores the inbox positions.
    pub(crate) acknowledgements: Vec<SayAcknowledgement>,
    pub(crate) membership_replies: Vec<(ReplySender<MembersReply>, MembersReply)>,
    /// The changes to undo if the commit fails.
    pub(crate) room_changes: Vec<RoomChange>,
    pub(crate) offer_replies: Vec<ReplySender<()>>,
    pub(crate) flush_replies: Vec<oneshot::Sender<()>>,
    /// File changes with their `seq`.
    pub(crate) file_changes: Vec<(u64, FileChange)>,
    /// File changes up to this `seq` may have been lost.
    pub(crate) lost_up_to: Option<u64>,
}

impl CommitGroup {
    /// Adds an event, or replies with the error.
    pub(crate) fn add_event(
        &mut self,
        event: Result<StoredEvent, MessagesError>,
        done: ReplySender<SayReply>,
        permit: OwnedSemaphorePermit,
    ) {
        match event {
            Ok(event) => {
                self.batch.messages.push(event);
                self.message_replies.push((done, permit));
            }
            Err(error) => reply(done, Err(error)),
        }
    }

    /// The numbers of offers in this group from the user `from` and to `to`.
    pub(crate) fn count_offers(&self, from: i64, to: &Recipient) -> (usize, usize) {
        let (mut made, mut received) = (0, 0);
        for event in self
            .batch
            .messages
            .iter()
            .filter(|event| event.offer.is_some())
        {
            made += usize::from(event.from.id == from);
            received += usize::from(event.to == *to);
        }
        (made, received)
    }

    /// Fails all requests of the group with the error of the commit.
    pub(crate) fn fail_requests(&mut self, doing: &'static str, source: &Arc<sqlx::Error>) {
        let error = || MessagesError::Database {
            doing,
            source: Arc::clone(source),
        };
        for (done, _permit) in self.message_replies.drain(..) {
            reply(done, Err(error()));
        }
        for (done, _) in self.membership_replies.drain(..) {
            reply(done, Err(error()));
        }
        for done in self.offer_replies.drain(..) {
            reply(done, Err(error()));
        }
    }
}
