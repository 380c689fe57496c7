//! Users and rooms as the senders and recipients of events.

use std::sync::Arc;

use crate::messages::room::RoomName;

/// A reference to a user account.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UserRef {
    /// The account's number, which is never reused.
    pub id: i64,
    /// The user's name.
    pub name: Arc<str>,
}

/// The recipient of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipient {
    /// One user.
    User(UserRef),
    /// All members of a room.
    Room(RoomName),
}

impl Recipient {
    /// The user's name, or the room's name with its `#`.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::User(user) => &user.name,
            Self::Room(room) => room.as_str(),
        }
    }
}
