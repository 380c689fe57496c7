//! The requests and replies of messages, rooms, offers, watches and tickets.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::protocol::number::number;

/// The longest text of a message, in bytes.
pub const MAX_TEXT: usize = 8 * 1024;

/// `who`: lists the connected users.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Who {}

/// `say`: sends a message to a user, or to all members of a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Say {
    /// The name of a user, or `#` and the name of a room.
    pub to: String,
    /// 1 to [`MAX_TEXT`] bytes.
    pub text: String,
}

/// `history`: past messages, the latest page first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// The other user, or the room.
    pub with: String,
    /// Only messages before the one with this `seq`.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "number"
    )]
    pub before: Option<u64>,
    /// The most messages in the reply. It has fewer if they would not fit in a frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<std::num::NonZeroU32>,
}

/// `join`: enters a room, to receive its messages. The first user who joins creates the room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// `#` and the name of the room.
    pub room: String,
}

/// `leave`: leaves a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leave {
    /// `#` and the name of the room.
    pub room: String,
}

/// `send`: offers a file to another user. If the user accepts, the server copies the file to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendTo {
    /// The user who gets the offer.
    pub to: String,
    /// The file.
    pub path: String,
}

/// `offers`: lists the open offers to this user, or those that this user has made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offers {
    /// List the offers that this user has made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sent: bool,
}

/// `accept`: copies an offered file to this user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accept {
    /// The identifier of the offer, from the event or from `offers`.
    pub offer: String,
    /// The path of the copy. If absent, the file's own name in the current directory, with a number
    /// if that name is in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// `decline`: rejects an offer, or withdraws one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decline {
    /// The identifier of the offer.
    pub offer: String,
}

/// `watch`: reports changes at and below a path.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// A file or directory.
    pub path: String,
    /// Reports the changes after the one with this `seq`, too.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "number"
    )]
    pub since: Option<u64>,
    /// The epoch of `since`: the `epoch` in the reply to the login of the session that received it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
}

/// `unwatch`: ends a watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unwatch {
    /// The number of the watch, from the reply to `watch`.
    pub watch: u32,
}

/// `ticket`: issues a ticket, which is the right to send datagrams for this session.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ticket {}

/// The reply to `who`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoReply {
    /// The connected users, sorted by name.
    pub users: Vec<Present>,
    /// Whether further entries do not fit in the frame. Absent if not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// A user who is connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Present {
    /// The user's name.
    pub user: String,
    /// The number of the user's sessions.
    pub sessions: u32,
    /// When the oldest of them started.
    pub since: Timestamp,
}

/// The reply to `say`: the message is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SayReply {
    /// The sequence number of the event.
    pub seq: u64,
    /// The number of sessions that it was delivered to at once. A receiver without a session gets it
    /// at the next login.
    pub delivered: u32,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The sequence number of the event.
    pub seq: u64,
    /// The sender.
    pub from: String,
    /// The receiver: a user, or `#` and the name of a room.
    pub to: String,
    /// The text.
    pub text: String,
    /// When the server stored it.
    pub time: Timestamp,
}

/// The reply to `history`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryReply {
    /// The messages in the order of `seq`.
    pub messages: Vec<Message>,
    /// Whether there are earlier messages.
    pub more: bool,
}

/// The reply to `join` and `leave`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersReply {
    /// The present members of the room, sorted by name.
    pub members: Vec<String>,
}

/// The reply to `send`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendReply {
    /// The offer's identifier.
    pub offer: String,
}

/// The reply to `offers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffersReply {
    /// The open offers, the oldest first.
    pub offers: Vec<Offer>,
    /// Whether further entries do not fit in the frame. Absent if not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// An offered file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The sequence number of the event.
    pub seq: u64,
    /// The user who offers it.
    pub from: String,
    /// The user to whom it is offered, in a list of the offers that a user has made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The file's name; in such a list its path.
    pub path: String,
    /// The size in bytes.
    pub size: u64,
    /// The offer's identifier.
    pub offer: String,
    /// When the offer expires.
    pub expires: Timestamp,
}

/// The reply to `watch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchReply {
    /// The number of the watch, unique in the session.
    pub watch: u32,
    /// Changes up to this `seq` are not reported: a listing that the client reads now shows them.
    pub seq: u64,
}

/// The reply to `ticket`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketReply {
    /// Identifies the ticket in each datagram.
    pub ticket: String,
    /// The key of the datagrams' HMAC, 32 bytes in hex.
    pub secret: crate::protocol::Secret,
    /// When the ticket expires. It ends earlier if its session ends.
    pub expires: Timestamp,
    /// The port that accepts datagrams.
    pub port: u16,
}
