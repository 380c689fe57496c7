//! Messages: what users say to each other and in rooms, kept until everyone has been told.
//!
//! They live in `messages.db`, an `SQLite` database in the data directory. One task, the
//! *sequencer*, gives every event its place, `seq`, commits what has to be kept in groups, and only
//! then hands it to the sessions that are there. Who is away, or reads too slowly, is told from the
//! database: by a *catch-up*, in the order of `seq`.
//!
//! ```text
//! say ─► sequencer ─► commit ─► lanes of those who hear ─► written ─► the sender's reply
//!            ▲                                      full, or too slow ─► catch-up
//!            └────────────────── is up to date ◄────────────────────────────┘
//! ```
//!
//! A message is acknowledged once it is stored and the sessions that are told at once have been
//! told, or were found to be too slow and go on from the database. So a server that is killed loses
//! nothing that was acknowledged, and tells nothing twice to who heard it as it came. Of a catch-up
//! it notes page by page how far it is: what was told after that is told again, with the same `seq`,
//! unless the client says by `since` what it has.
//!
//! Changes of files get their places from the sequencer too. They are told to those who *watch* the
//! path, and the last ones are remembered, but never kept.

mod backlog;
mod delivery;
mod epochs;
#[cfg(test)]
mod inbox_model;
mod offers;
mod operation;
mod presence;
mod room;
mod rooms;
mod sequencer;
mod store;
mod watches;
mod watching;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use crate::clock::Clock;
use crate::connection::EventQueue;
use crate::messages::epochs::Epochs;
use crate::messages::operation::{Operation, SessionOperation};
use crate::messages::presence::Presence;
use crate::messages::sequencer::Sequencer;
use crate::messages::store::MessageStore;
use crate::protocol::{HistoryReply, MAX_TEXT, MembersReply, SayReply, WhoReply};

pub use crate::messages::offers::{Claim, OfferedFile};
pub use crate::messages::room::{InvalidRoom, RoomName};
pub use crate::messages::store::copy;
pub use crate::messages::watches::{MAX_WATCHES, TooManyWatches, WatchScope, WatchedChange};
pub use crate::messages::watching::ChangeFeed;

/// Messages that may wait to be stored; who has another one waits.
const WAITING: usize = 1024;

/// What an event takes in the database beside its text, at most.
const EVENT_BYTES: u64 = 1024;

/// A user, as the accounts know them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UserRef {
    /// Never given to another user.
    pub id: i64,
    /// The user's name.
    pub name: Arc<str>,
}

/// Whom a message is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipient {
    /// One user.
    User(UserRef),
    /// All who are in a room.
    Room(RoomName),
}

/// The messages of one data directory. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub struct Messages {
    shared: Arc<MessagesState>,
    observer: ChangeFeed,
    _sequencer: Arc<AbortOnDropHandle<()>>,
}

/// What the sequencer and all others share.
#[derive(Debug)]
struct MessagesState {
    store: MessageStore,
    presence: Mutex<Presence>,
    /// What the sequencer is to do. Unbounded, but a session has few of these, and messages need a
    /// permit.
    ops: mpsc::UnboundedSender<Operation>,
    permits: Arc<Semaphore>,
    /// Offers that somebody is just answering.
    claimed: Mutex<HashSet<String>>,
    /// The last attempt to store something has failed.
    is_failing: AtomicBool,
    epochs: Epochs,
    /// Bytes that events may still take of the disk.
    disk_budget: AtomicU64,
}

impl MessagesState {
    fn presence(&self) -> MutexGuard<'_, Presence> {
        let presence = self.presence.lock();
        presence.unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what an event with a text of so many bytes may need of the disk: in the log of the
    /// database, in its tables and in their indexes.
    fn charge_disk(&self, text_bytes: usize) -> Result<(), MessagesError> {
        let bytes = 3 * (text_bytes as u64 + EVENT_BYTES);
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        let charge = |left: u64| left.checked_sub(bytes);
        let charged = self.disk_budget.fetch_update(success, failure, charge);
        charged.map(drop).map_err(|_| MessagesError::NoSpace)
    }

    fn tell_sequencer(&self, op: Operation) -> Result<(), MessagesError> {
        self.ops.send(op).map_err(|_| MessagesError::Ended)
    }

    async fn ask<T>(
        &self,
        op: impl FnOnce(oneshot::Sender<Result<T, MessagesError>>) -> Operation,
    ) -> Result<T, MessagesError> {
        let (done, answer) = oneshot::channel();
        self.tell_sequencer(op(done))?;
        answer.await.unwrap_or(Err(MessagesError::Ended))
    }
}

impl Messages {
    /// Opens the messages of the data directory `data`. Directory and database are made where they
    /// are missing.
    ///
    /// # Errors
    /// [`MessagesError::Make`] and [`MessagesError::Database`] if they can not be made, read or
    /// written, or if a later version of haul wrote them.
    pub async fn open(data: &Path) -> Result<Self, MessagesError> {
        Self::open_with(data, Clock::system()).await
    }

    async fn open_with(data: &Path, clock: Clock) -> Result<Self, MessagesError> {
        let (mut store, mut writer) = MessageStore::open(data, clock).await?;
        let (last, begun) = writer.look().await?;
        store.uptime = writer.uptime.clone();
        let (ops, waiting) = mpsc::unbounded_channel();
        let shared = Arc::new(MessagesState {
            store,
            presence: Mutex::default(),
            ops,
            permits: Arc::new(Semaphore::new(WAITING)),
            claimed: Mutex::default(),
            is_failing: AtomicBool::new(false),
            epochs: Epochs::begin(begun, last)?,
            disk_budget: AtomicU64::new(u64::MAX),
        });
        let (observer, sequencer) = Sequencer::start(&shared, writer, last, waiting).await?;
        Ok(Self {
            shared,
            observer,
            _sequencer: Arc::new(AbortOnDropHandle::new(tokio::spawn(sequencer.run()))),
        })
    }

    /// Makes sure that [`Self::open`] will not refuse the messages of the data directory `data` for
    /// their version. Changes nothing in them.
    ///
    /// # Errors
    /// [`MessagesError::Database`] if they cannot be read or if a later version of haul wrote them.
    pub async fn check(data: &Path) -> Result<(), MessagesError> {
        MessageStore::check(data).await
    }

    /// Takes a message. The first await puts it in its place among the others; what is returned
    /// then resolves once it is stored and those who hear at once were told.
    ///
    /// # Errors
    /// [`MessagesError::EmptyText`], [`MessagesError::TextTooLong`], [`MessagesError::TextWithNul`].
    /// What is returned: [`MessagesError::NoSuchRoom`], [`MessagesError::NotInRoom`],
    /// [`MessagesError::Database`].
    pub async fn say(
        &self,
        from: UserRef,
        to: Recipient,
        text: String,
    ) -> Result<PendingMessage, MessagesError> {
        if text.is_empty() {
            return Err(MessagesError::EmptyText);
        }
        if text.len() > MAX_TEXT {
            return Err(MessagesError::TextTooLong(text.len()));
        }
        if text.contains('\0') {
            return Err(MessagesError::TextWithNul);
        }
        self.shared.charge_disk(text.len())?;
        let permit = Arc::clone(&self.shared.permits).acquire_owned().await;
        let permit = permit.map_err(|_| MessagesError::Ended)?;
        let (done, said) = oneshot::channel();
        self.shared.tell_sequencer(Operation::Say {
            from,
            to,
            text,
            done,
            permit,
        })?;
        Ok(PendingMessage(said))
    }

    /// What was said between `user` and `with`, or in the room `with`: the last `limit` messages
    /// before `before`, fewer where they would take more than `budget` bytes of JSON.
    ///
    /// # Errors
    /// [`MessagesError::NoSuchRoom`], [`MessagesError::NotInRoom`], [`MessagesError::Database`].
    pub async fn history(
        &self,
        user: &UserRef,
        with: &Recipient,
        before: Option<u64>,
        limit: usize,
        budget: usize,
    ) -> Result<HistoryReply, MessagesError> {
        let store = &self.shared.store;
        store.history(user, with, before, limit, budget).await
    }

    /// Has `user` hear what is said in `room` from now on, and says who is in it.
    ///
    /// # Errors
    /// [`MessagesError::RoomFull`], [`MessagesError::TooManyRooms`], [`MessagesError::Database`].
    pub async fn join(&self, user: UserRef, room: RoomName) -> Result<MembersReply, MessagesError> {
        self.shared.charge_disk(0)?;
        self.shared
            .ask(|done| Operation::Join { user, room, done })
            .await
    }

    /// Has `user` hear no more of `room`, and says who is left in it.
    ///
    /// # Errors
    /// [`MessagesError::NoSuchRoom`], [`MessagesError::NotInRoom`], [`MessagesError::Database`].
    pub async fn leave(
        &self,
        user: UserRef,
        room: RoomName,
    ) -> Result<MembersReply, MessagesError> {
        self.shared
            .ask(|done| Operation::Leave { user, room, done })
            .await
    }

    /// Who is connected, by name, as many as `budget` bytes of JSON hold.
    #[must_use]
    pub fn who(&self, budget: usize) -> WhoReply {
        self.shared.presence().who(budget)
    }

    /// The user of that name, if they are connected.
    #[must_use]
    pub fn present(&self, name: &str) -> Option<UserRef> {
        self.shared.presence().find(name)
    }

    /// Counts a session of `user` among those who are connected until the returned value is
    /// dropped. With a `lane` it may watch, and with `inbox` it is sent what the user has not been
    /// told yet, then everything as it comes; `since` says what it has already, 0 for nothing.
    #[must_use]
    pub fn attend(
        &self,
        user: &UserRef,
        lane: Option<EventQueue>,
        inbox: bool,
        since: Option<u64>,
    ) -> Subscription {
        let hears = inbox && lane.is_some();
        let session =
            self.shared
                .presence()
                .enter(user, lane, self.shared.store.uptime.clock.wall());
        if hears {
            let op = Operation::Session(
                session,
                SessionOperation::Hear {
                    user: user.id,
                    since,
                },
            );
            // Without a sequencer there is nothing to hear.
            let _ = self.shared.tell_sequencer(op);
        }
        Subscription {
            shared: Arc::clone(&self.shared),
            session,
        }
    }

    /// Where changes of files are told.
    #[must_use]
    pub fn observer(&self) -> ChangeFeed {
        self.observer.clone()
    }

    /// Drops messages and offers since which servers have run for longer than `keep`, whether
    /// everyone has heard them or not. If more than `most` are left, drops the oldest of those who
    /// have said the most, down to a share that is the same for all: nobody can displace what
    /// others have said. Says how many.
    ///
    /// # Errors
    /// [`MessagesError::Database`].
    pub async fn forget(&self, keep: Duration, most: u64) -> Result<u64, MessagesError> {
        let mut all = 0;
        loop {
            let dropped = self
                .shared
                .ask(|done| Operation::Forget { keep, most, done })
                .await?;
            if dropped == 0 {
                return Ok(all);
            }
            all += dropped;
        }
    }

    /// Whether nothing can be stored at the moment. The sequencer tries again each second.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.shared.is_failing.load(Ordering::Relaxed)
    }

    /// The epoch of this server: a `seq` that a client brings back goes with the one it is of.
    #[must_use]
    pub fn epoch(&self) -> &str {
        self.shared.epochs.current()
    }

    /// Whether the place `seq` of `epoch` was given out here, so that what comes after it is all
    /// that a client lacks which has that.
    #[must_use]
    pub fn has_given(&self, seq: u64, epoch: Option<&str>) -> bool {
        self.shared.epochs.has_given(seq, epoch)
    }

    /// Says how many bytes of the disk events may take from now on. Without a word they may take all.
    pub fn set_disk_budget(&self, bytes: u64) {
        self.shared.disk_budget.store(bytes, Ordering::Relaxed);
    }

    /// Messages that wait to be stored.
    #[must_use]
    pub fn waiting(&self) -> usize {
        WAITING.saturating_sub(self.shared.permits.available_permits())
    }

    /// Waits until all that was asked before is kept.
    pub async fn settle(&self) {
        let (settled, done) = oneshot::channel();
        if self
            .shared
            .tell_sequencer(Operation::Settle(settled))
            .is_ok()
        {
            // If the sequencer is gone, nothing more will be kept.
            let _ = done.await;
        }
    }
}

/// A message on its way to be stored.
#[derive(Debug)]
pub struct PendingMessage(oneshot::Receiver<Result<SayReply, MessagesError>>);

impl PendingMessage {
    /// Waits until the message is stored and those who hear at once were told.
    ///
    /// # Errors
    /// As [`Messages::say`] says.
    pub async fn done(self) -> Result<SayReply, MessagesError> {
        self.0.await.unwrap_or(Err(MessagesError::Ended))
    }
}

/// A session that is there. Dropping it ends that.
#[derive(Debug)]
pub struct Subscription {
    shared: Arc<MessagesState>,
    session: u64,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // The sequencer has to know up to where it was told. If there is none, nothing is to know.
        let _ = self
            .shared
            .tell_sequencer(Operation::Session(self.session, SessionOperation::Exit));
    }
}

/// Why something could not be said or heard. The text names the thing and what can be done.
#[derive(Debug, thiserror::Error)]
pub enum MessagesError {
    /// A message without a text.
    #[error("the text is empty")]
    EmptyText,
    /// A text of so many bytes.
    #[error("the text has {0} bytes; the most are {MAX_TEXT}")]
    TextTooLong(usize),
    /// A text that databases and terminals could take for its end.
    #[error("the text has a NUL character in it")]
    TextWithNul,
    /// Nobody is in it.
    #[error("there is no room {0}; `join` makes it")]
    NoSuchRoom(RoomName),
    /// Others are in it.
    #[error("you are not in {0}; `join` it first")]
    NotInRoom(RoomName),
    /// A room has so many members.
    #[error("{room} is full: it has {most} members")]
    RoomFull {
        /// The room.
        room: RoomName,
        /// The most that can be in a room.
        most: usize,
    },
    /// A user is in so many rooms.
    #[error("you are in {0} rooms, which are the most; `leave` one first")]
    TooManyRooms(usize),
    /// A session watches so many paths.
    #[error(transparent)]
    TooManyWatches(#[from] TooManyWatches),
    /// There is none of that name, or not for this user, or it was answered or has expired, or is
    /// just being answered.
    #[error("there is no such offer; it may have been answered, withdrawn, or have expired")]
    NoSuchOffer,
    /// So many offers of the user are open.
    #[error("{0} of your offers are open, which are the most; withdraw one with `decline`")]
    TooManyMade(usize),
    /// So many offers to a user are open.
    #[error("{user} has {most} open offers, which are the most")]
    TooManyOpen {
        /// The receiver.
        user: Arc<str>,
        /// The most that can be open.
        most: usize,
    },
    /// The disk is so full that the rest is kept for the accounts.
    #[error(
        "the server's disk is nearly full: no messages are stored until its operator makes room"
    )]
    NoSpace,
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    NoRandomness(getrandom::Error),
    /// The database could not be made.
    #[error("can not make {}: {source}", path.display())]
    Make {
        /// What was to be made.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The database failed.
    #[error("can not {doing} the messages in messages.db: {source}")]
    Database {
        /// What was to be done: `open`, `read` or `store`.
        doing: &'static str,
        /// What `SQLite` says.
        source: Arc<sqlx::Error>,
    },
    /// The sequencer is gone.
    #[error("messages are no longer taken")]
    Ended,
}

impl MessagesError {
    /// Whether the disk has no room for it.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_and_joins_are_refused_where_the_disk_has_room_for_accounts_only() {
        let directory = tempfile::tempdir().expect("a directory");
        let messages = Messages::open(directory.path()).await.expect("messages");
        let user = |id: i64| UserRef {
            id,
            name: format!("user{id}").into(),
        };
        let say = || messages.say(user(1), Recipient::User(user(2)), "x".repeat(1000));
        messages.set_disk_budget(10_000);
        say().await.expect("room").done().await.expect("stored");
        assert!(matches!(say().await, Err(MessagesError::NoSpace)));
        let room: RoomName = "#ops".parse().expect("a room");
        messages
            .join(user(1), room.clone())
            .await
            .expect("there is as much as that needs");
        let refused = messages.join(user(2), room).await;
        assert!(matches!(refused, Err(MessagesError::NoSpace)));
        messages.set_disk_budget(u64::MAX);
        say().await.expect("room").done().await.expect("stored");
    }
}
