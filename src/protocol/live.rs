//! Talking: the requests and replies of messages, rooms, offers, watches and tickets.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::protocol::number::number;

/// The longest text of a message, in bytes.
pub const MAX_TEXT: usize = 8 * 1024;

/// `who`: who is connected.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Who {}

/// `say`: a message to a user, or to a room and all who are in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Say {
    /// A user's name, or a room's: `#` and its name.
    pub to: String,
    /// At most [`MAX_TEXT`] bytes, at least one.
    pub text: String,
}

/// `history`: what was said, from the latest back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// The user or the room that it was said with.
    pub with: String,
    /// Only what was said before the message with this `seq`.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "number"
    )]
    pub before: Option<u64>,
    /// The most messages in the reply, which holds fewer where they would not fit in a frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<std::num::NonZeroU32>,
}

/// `join`: from now on hear what is said in a room. The first one to join makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// `#` and its name.
    pub room: String,
}

/// `leave`: hear no more of a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leave {
    /// `#` and its name.
    pub room: String,
}

/// `send`: offer a file to another user, who gets a copy of it on the server once they accept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendTo {
    /// The user to offer it to.
    pub to: String,
    /// The file.
    pub path: String,
}

/// `offers`: the files that were offered to this user and that they have not answered.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offers {}

/// `accept`: take a file that was offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accept {
    /// Its identifier, as the event or `offers` told it.
    pub offer: String,
    /// The path that the copy gets; if absent its own name in the current directory, or a free one
    /// beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// `decline`: do not take a file that was offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decline {
    /// Its identifier.
    pub offer: String,
}

/// `watch`: hear of what changes at or below a path.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// A file or directory.
    pub path: String,
    /// Begin with the changes after the one with this `seq`.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "number"
    )]
    pub since: Option<u64>,
    /// The epoch of `since`: what the reply to the login said with which the client got it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
}

/// `unwatch`: hear no more of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unwatch {
    /// The number that `watch` answered.
    pub watch: u32,
}

/// `ticket`: the right to speak by datagram for this session.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ticket {}

/// Answers `who`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoReply {
    /// Those who are connected, by name.
    pub users: Vec<Present>,
    /// There are more, for which the frame has no room; absent if not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// A user who is connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Present {
    /// The user's name.
    pub user: String,
    /// How many sessions the user has.
    pub sessions: u32,
    /// When the oldest of them began.
    pub since: Timestamp,
}

/// Answers `say`: the message is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SayReply {
    /// Its place among all events.
    pub seq: u64,
    /// Sessions that it was sent to at once. Who has none gets it at the next login.
    pub delivered: u32,
}

/// A message as it was said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its place among all events.
    pub seq: u64,
    /// The sender.
    pub from: String,
    /// To whom: a user, or `#` and a room.
    pub to: String,
    /// The text.
    pub text: String,
    /// When.
    pub time: Timestamp,
}

/// Answers `history`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryReply {
    /// In the order of `seq`.
    pub messages: Vec<Message>,
    /// There is more before the first of them.
    pub more: bool,
}

/// Answers `join` and `leave`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersReply {
    /// The members of the room now, by name.
    pub members: Vec<String>,
}

/// Answers `send`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendReply {
    /// The offer's identifier.
    pub offer: String,
}

/// Answers `offers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffersReply {
    /// The oldest first.
    pub offers: Vec<Offer>,
    /// There are more, for which the frame has no room; absent if not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// A file that is offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The offer's place among all events.
    pub seq: u64,
    /// Who offers it.
    pub from: String,
    /// The file's name.
    pub path: String,
    /// Its bytes.
    pub size: u64,
    /// The offer's identifier.
    pub offer: String,
    /// When the offer ends.
    pub expires: Timestamp,
}

/// Answers `watch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchReply {
    /// The number to end it by, unique in the session.
    pub watch: u32,
    /// Changes up to this `seq` are told by what the client sees now.
    pub seq: u64,
}

/// Answers `ticket`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketReply {
    /// Names the ticket in each datagram.
    pub ticket: String,
    /// The key of the datagrams' HMAC, 32 bytes in hex.
    pub secret: crate::protocol::Secret,
    /// When the ticket ends, unless its session does before.
    pub expires: Timestamp,
    /// The port that takes datagrams.
    pub port: u16,
}
