//! Errors of the message boundary.

use std::path::PathBuf;
use std::sync::Arc;

use crate::io_error::describe_io_error;
use crate::messages::room::RoomName;
use crate::messages::watches::TooManyWatches;
use crate::protocol::MAX_TEXT;

/// An error of the message boundary. The text is meant for people.
#[derive(Debug, thiserror::Error)]
pub enum MessagesError {
    /// The text of a message is empty.
    #[error("the text is empty")]
    EmptyText,
    /// The text of a message has this many bytes, which is too many.
    #[error("the text has {0} bytes; the limit is {MAX_TEXT}")]
    TextTooLong(usize),
    /// The text contains a NUL, at which a database or a terminal could end it.
    #[error("the text contains a NUL character")]
    TextWithNul,
    /// The room has no members.
    #[error("there is no room {0}; create it with `join`")]
    NoSuchRoom(RoomName),
    /// The user is not a member of the room.
    #[error("you are not in {0}; `join` it first")]
    NotInRoom(RoomName),
    /// The room has the maximum number of members.
    #[error("{room} is full: it has {most} members")]
    RoomFull {
        /// The room.
        room: RoomName,
        /// The limit.
        most: usize,
    },
    /// The user is in the maximum number of rooms.
    #[error("you are in {0} rooms, which is the limit; `leave` one first")]
    TooManyRooms(usize),
    /// The session has the maximum number of watches.
    #[error(transparent)]
    TooManyWatches(#[from] TooManyWatches),
    /// The offer does not exist, is not for this user, was answered, has expired, or is being
    /// answered at the moment.
    #[error("there is no such offer; it was answered or withdrawn, or it has expired")]
    NoSuchOffer,
    /// The user has the maximum number of open offers to others.
    #[error("{0} of your offers are open, which is the limit; withdraw one with `decline`")]
    TooManyMade(usize),
    /// The receiver has the maximum number of open offers.
    #[error("{user} has {most} open offers, which is the limit")]
    TooManyOpen {
        /// The receiver.
        user: Arc<str>,
        /// The limit.
        most: usize,
    },
    /// The remaining disk space is reserved for the accounts.
    #[error(
        "the server's disk is nearly full, so it stores no messages until its operator frees some space"
    )]
    NoSpace,
    /// The system provides no random bytes.
    #[error("the system provides no random bytes: {0}")]
    NoRandomness(getrandom::Error),
    /// The database could not be created.
    #[error("cannot create {}: {}", path.display(), describe_io_error(source))]
    Make {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The database failed.
    #[error("cannot {doing} the messages in messages.db: {source}")]
    Database {
        /// The failed operation: `open`, `read` or `store`.
        doing: &'static str,
        /// The cause.
        source: Arc<sqlx::Error>,
    },
    /// The sequencer has ended.
    #[error("the server no longer accepts messages")]
    Ended,
}

impl MessagesError {
    /// Whether the cause is a full disk.
    #[must_use]
    pub fn is_full_disk(&self) -> bool {
        /// `SQLITE_FULL`, <https://sqlite.org/rescode.html#full>.
        const FULL: &str = "13";
        let Self::Database { source, .. } = self else {
            return false;
        };
        let error = source.as_database_error();
        error.is_some_and(|error| error.code().as_deref() == Some(FULL))
    }
}
