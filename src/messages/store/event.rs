//! The values that one commit stores: events, memberships and inbox positions.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::messages::recipient::{Recipient, UserRef};
use crate::messages::room::RoomName;
use crate::messages::rooms::RoomMembers;
use crate::protocol::{Event, Message, Offer};

/// The file of an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedFile {
    /// The absolute path in the view of the sender. The receiver only sees its last component.
    pub path: String,
    /// The version of the file at the time of the offer.
    pub version: String,
    /// The size at that time, in bytes.
    pub size: u64,
}

/// A message or an offer in the form in which it is stored.
#[derive(Debug, Clone)]
pub(crate) struct StoredEvent {
    pub(crate) seq: u64,
    pub(crate) from: UserRef,
    pub(crate) to: Recipient,
    /// The text of a message, the identifier of an offer.
    pub(crate) body: String,
    pub(crate) time: Timestamp,
    /// The uptime of the database at that time.
    pub(crate) uptime: Duration,
    /// The members of the room at that time, for a message in a room.
    pub(crate) members: Option<RoomMembers>,
    /// The offer, if the event is one.
    pub(crate) offer: Option<StoredOffer>,
}

/// The part of an offer that a message does not have.
#[derive(Debug, Clone)]
pub(crate) struct StoredOffer {
    pub(crate) file: OfferedFile,
    /// The wall-clock time of the expiry, which the receiver sees.
    pub(crate) expires: Timestamp,
    /// The uptime of the database at which the offer expires.
    pub(crate) ends: Duration,
}

impl StoredEvent {
    /// The event in the form in which receivers get it.
    pub(crate) fn to_event(&self) -> Event {
        if let Some(StoredOffer { file, expires, .. }) = &self.offer {
            return Event::Offer(Offer {
                seq: self.seq,
                from: self.from.name.to_string(),
                to: None,
                path: file_name(&file.path),
                size: file.size,
                offer: self.body.clone(),
                expires: *expires,
            });
        }
        Event::Message(Message {
            seq: self.seq,
            from: self.from.name.to_string(),
            to: self.to.as_str().to_owned(),
            text: self.body.clone(),
            time: self.time,
        })
    }
}

/// The changes of one commit.
#[derive(Debug, Default)]
pub(crate) struct CommitBatch {
    pub(crate) messages: Vec<StoredEvent>,
    /// New members, each with the last `seq` before the join. Applied after `left`, which names
    /// none of them.
    pub(crate) joined: Vec<(RoomName, UserRef, u64)>,
    pub(crate) left: Vec<(RoomName, i64)>,
    /// The identifiers of offers to close.
    pub(crate) closed: Vec<String>,
    /// Close all offers that expire by this uptime.
    pub(crate) expired: Option<Duration>,
    pub(crate) inboxes: HashMap<i64, InboxPosition>,
    /// Reserve the sequence numbers up to this one.
    pub(crate) reserved: Option<u64>,
}

impl CommitBatch {
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.joined.is_empty()
            && self.left.is_empty()
            && self.closed.is_empty()
            && self.expired.is_none()
            && self.inboxes.is_empty()
            && self.reserved.is_none()
    }
}

/// The state of a user's inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InboxPosition {
    /// The `seq` up to which events were delivered.
    pub(crate) delivered: u64,
    /// Whether a session receives every event as soon as it is stored. If so, `delivered` lags.
    pub(crate) live: bool,
}

/// The last component of a path, which is all of it that a receiver sees.
pub(crate) fn file_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}
