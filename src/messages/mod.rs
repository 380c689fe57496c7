//! The boundary to events: messages, room membership, offers and file changes.
//!
//! The messages live in `messages.db`, an `SQLite` database in the data directory. One task, the
//! sequencer, assigns a sequence number (`seq`) to every event, commits events in
//! groups, and then queues them for the sessions that are up to date. A session that connects later
//! or reads too slowly catches up from the database, in the order of `seq`, in a task of its own.
//!
//! ```text
//! say ─► sequencer ─► commit ─► event queues of live sessions ─► written ─► reply to the sender
//!            ▲                              │ full or too slow
//!            └──────── up to date ◄──── catch-up from the database
//! ```
//!
//! # Guarantees
//! - The sender gets its reply after the commit, and after each live session has either received
//!   the event or been switched to a catch-up. A crash therefore loses no acknowledged event.
//! - A live session receives each event once. The progress of a catch-up is stored once per page, so
//!   a crash repeats at most one page, with the same `seq`. A client that passes `since` at its
//!   login skips the events that it has.
//! - File changes get their `seq` from the sequencer too. They go to the sessions that watch the
//!   path. The most recent ones are kept in memory for sessions that lag; none are stored.
//!
//! # Tasks and locks
//! The sequencer is the only writer of the database. Each lagging session has one catch-up task. The
//! lock on `presence` is never held across an await.

mod backlog;
mod commit_group;
mod delivery;
mod epochs;
mod error;
mod handle;
#[cfg(test)]
mod inbox_model;
mod offers;
mod operation;
mod presence;
mod recipient;
mod room;
mod rooms;
mod sequencer;
mod state;
mod store;
mod subscription;
mod watches;
mod watching;

pub use crate::messages::error::MessagesError;
pub use crate::messages::handle::{Messages, PendingMessage};
pub use crate::messages::offers::OfferClaim;
pub use crate::messages::recipient::{Recipient, UserRef};
pub use crate::messages::room::{InvalidRoom, RoomName};
pub use crate::messages::store::copy;
pub use crate::messages::store::event::OfferedFile;
pub use crate::messages::store::query::HistoryQuery;
pub use crate::messages::subscription::Subscription;
pub use crate::messages::watches::{MAX_WATCHES, TooManyWatches};
pub use crate::messages::watching::ChangeFeed;
