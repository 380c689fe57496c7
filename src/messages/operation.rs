//! The operations that the sequencer performs for handles, sessions and its own tasks.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::messages::error::MessagesError;
use crate::messages::recipient::{Recipient, UserRef};
use crate::messages::room::RoomName;
use crate::messages::store::event::OfferedFile;
use crate::protocol::{MembersReply, SayReply, WatchReply};
use crate::storage::VisiblePath;

/// The channel for the reply to an operation.
pub(crate) type ReplySender<T> = oneshot::Sender<Result<T, MessagesError>>;

/// Sends a reply. The requester may have gone, which is no error.
pub(crate) fn reply<T>(done: ReplySender<T>, result: Result<T, MessagesError>) {
    let _ = done.send(result);
}

/// An operation of the sequencer.
#[derive(Debug)]
pub(crate) enum Operation {
    /// Store and deliver a message.
    Say {
        from: UserRef,
        to: Recipient,
        text: String,
        done: ReplySender<SayReply>,
        permit: OwnedSemaphorePermit,
    },
    /// Store and deliver an offer.
    Offer {
        from: UserRef,
        to: UserRef,
        offer: String,
        file: OfferedFile,
        keep: Duration,
        done: ReplySender<SayReply>,
        permit: OwnedSemaphorePermit,
    },
    /// Close an offer.
    CloseOffer {
        offer: String,
        done: ReplySender<()>,
    },
    /// Close all offers that have expired.
    ExpireOffers(ReplySender<()>),
    Join {
        user: UserRef,
        room: RoomName,
        done: ReplySender<MembersReply>,
    },
    Leave {
        user: UserRef,
        room: RoomName,
        done: ReplySender<MembersReply>,
    },
    /// An operation of the session with this number.
    Session(u64, SessionOperation),
    /// The delivery batch with this number has no receipts left.
    DeliveryFinished(u64),
    /// Delete a bounded number of events that are older than `keep`, or more than `max_events`.
    Prune {
        keep: Duration,
        max_events: u64,
        done: ReplySender<u64>,
    },
    /// Reply once all operations before this one are committed.
    Flush(oneshot::Sender<()>),
}

/// An operation of one session.
#[derive(Debug)]
pub(crate) enum SessionOperation {
    /// Start to deliver the user's inbox to the session.
    Subscribe {
        user: i64,
        since: Option<u64>,
    },
    /// The catch-up has delivered everything up to `position`. With `force`, the sequencer delivers
    /// the remaining events itself.
    CaughtUp {
        user: i64,
        position: u64,
        force: bool,
        done: oneshot::Sender<CatchUpVerdict>,
    },
    /// The catch-up has delivered a page.
    Progress,
    Watch(WatchRequest),
    /// The session has ended.
    Close,
}

/// The result of an attempt to finish a catch-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CatchUpVerdict {
    /// The session is live: it receives every new event.
    Live,
    /// New events have arrived. The session has everything up to this `seq`.
    Behind(u64),
}

/// An operation on the watches of a session.
#[derive(Debug)]
pub(crate) enum WatchRequest {
    Watch {
        path: String,
        scopes: Vec<VisiblePath>,
        since: Option<u64>,
        done: ReplySender<WatchReply>,
    },
    Unwatch {
        watch: u32,
        done: ReplySender<bool>,
    },
    /// Reply with the numbers and paths of the watches.
    List(ReplySender<Vec<(u32, String)>>),
    /// Remove everything that is not in one of these spaces.
    Restrict {
        spaces: Vec<Arc<str>>,
    },
    SetScopes {
        watch: u32,
        scopes: Vec<VisiblePath>,
    },
    /// The event queue of a session that lags is drained.
    CatchUp,
}
