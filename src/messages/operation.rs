//! What the sequencer is asked to do.

use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::messages::backlog::Verdict;
use crate::messages::offers::OfferedFile;
use crate::messages::watching::WatchRequest;
use crate::messages::{MessagesError, Recipient, RoomName, UserRef};
use crate::protocol::{MembersReply, SayReply};

/// Who waits for an answer.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, MessagesError>>;

/// What the sequencer is asked to do.
#[derive(Debug)]
pub(crate) enum Operation {
    Say {
        from: UserRef,
        to: Recipient,
        text: String,
        done: Answer<SayReply>,
        permit: OwnedSemaphorePermit,
    },
    Offer {
        from: UserRef,
        to: UserRef,
        offer: String,
        file: OfferedFile,
        keep: Duration,
        done: Answer<SayReply>,
        permit: OwnedSemaphorePermit,
    },
    /// An offer ends.
    Close { offer: String, done: Answer<()> },
    /// All offers end whose time is over.
    Expire(Answer<()>),
    Join {
        user: UserRef,
        room: RoomName,
        done: Answer<MembersReply>,
    },
    Leave {
        user: UserRef,
        room: RoomName,
        done: Answer<MembersReply>,
    },
    /// A session asks something for itself.
    Session(u64, SessionOperation),
    /// All of a flight is written, or never will be.
    Landed(u64),
    /// Some of what is older than `keep` is to be dropped, or more than `most`.
    Forget {
        keep: Duration,
        most: u64,
        done: Answer<u64>,
    },
    /// Answered once all that came before is kept.
    Settle(oneshot::Sender<()>),
}

/// What a session asks for itself.
#[derive(Debug)]
pub(crate) enum SessionOperation {
    /// It wants to be told what comes.
    Hear { user: i64, since: Option<u64> },
    /// It was told all that was there up to `position`. If it insists it is told the rest.
    CaughtUp {
        user: i64,
        position: u64,
        insists: bool,
        answer: oneshot::Sender<Verdict>,
    },
    /// It catches up, and got on.
    Progress,
    /// It asks for what it watches.
    Watching(WatchRequest),
    /// It has ended.
    Exit,
}

/// Answers who waits, if anybody still does.
pub(crate) fn answer<T>(done: Answer<T>, result: Result<T, MessagesError>) {
    let _ = done.send(result);
}
