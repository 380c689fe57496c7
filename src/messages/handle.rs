//! The handle to the messages of one data directory, which sessions and tasks of the server share.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use crate::clock::Clock;
use crate::connection::EventQueue;
use crate::messages::epochs::Epochs;
use crate::messages::error::MessagesError;
use crate::messages::operation::{Operation, ReplySender};
use crate::messages::recipient::{Recipient, UserRef};
use crate::messages::room::RoomName;
use crate::messages::sequencer::Sequencer;
use crate::messages::state::MessagesState;
use crate::messages::store::MessageStore;
use crate::messages::store::query::HistoryQuery;
use crate::messages::subscription::Subscription;
use crate::messages::watching::ChangeFeed;
use crate::protocol::{HistoryReply, MAX_TEXT, MembersReply, SayReply, WhoReply};

/// The messages of one data directory. Clones are cheap and share everything. The sequencer ends
/// with the last clone.
#[derive(Debug, Clone)]
pub struct Messages {
    pub(crate) shared: Arc<MessagesState>,
    change_feed: ChangeFeed,
    _sequencer: Arc<AbortOnDropHandle<()>>,
}

impl Messages {
    /// Opens the messages of the data directory `data`, and starts the sequencer. Creates the
    /// directory and the database if they do not exist.
    ///
    /// # Errors
    /// [`MessagesError::Make`] and [`MessagesError::Database`] if they cannot be created, read or
    /// written, or if a later version of haul wrote them.
    pub async fn open(data: &Path) -> Result<Self, MessagesError> {
        Self::open_with(data, Clock::system()).await
    }

    pub(crate) async fn open_with(data: &Path, clock: Clock) -> Result<Self, MessagesError> {
        let (store, mut writer) = MessageStore::open(data, clock).await?;
        let last_seq = writer.reserved;
        let epochs = Epochs::begin(std::mem::take(&mut writer.earlier_epochs), last_seq)?;
        let (sender, operations) = mpsc::unbounded_channel();
        let shared = Arc::new(MessagesState::new(store, epochs, sender));
        let (change_feed, sequencer) =
            Sequencer::start(&shared, writer, last_seq, operations).await?;
        Ok(Self {
            shared,
            change_feed,
            _sequencer: Arc::new(AbortOnDropHandle::new(tokio::spawn(sequencer.run()))),
        })
    }

    /// Checks that [`Self::open`] will accept the version of the messages of the data directory
    /// `data`. Changes nothing in them.
    ///
    /// # Errors
    /// [`MessagesError::Database`] if they cannot be read or if a later version of haul wrote them.
    pub async fn check(data: &Path) -> Result<(), MessagesError> {
        MessageStore::check(data).await
    }

    /// Queues a message for the sequencer. Messages are stored in the order in which this future
    /// resolves.
    ///
    /// # Errors
    /// [`MessagesError::EmptyText`], [`MessagesError::TextTooLong`], [`MessagesError::TextWithNul`],
    /// [`MessagesError::NoSpace`]. The pending message fails with [`MessagesError::NoSuchRoom`],
    /// [`MessagesError::NotInRoom`] or [`MessagesError::Database`].
    ///
    /// # Cancel safety
    /// If the future is dropped before it resolves, the message is not sent.
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
        self.send_message(text.len(), |done, permit| Operation::Say {
            from,
            to,
            text,
            done,
            permit,
        })
        .await
    }

    /// Queues an event with a text of `text_bytes`, once fewer than
    /// [`MessagesState::MAX_UNSTORED_MESSAGES`] wait.
    pub(crate) async fn send_message(
        &self,
        text_bytes: usize,
        operation: impl FnOnce(ReplySender<SayReply>, OwnedSemaphorePermit) -> Operation,
    ) -> Result<PendingMessage, MessagesError> {
        self.shared.charge_disk(text_bytes)?;
        let permit = Arc::clone(&self.shared.permits).acquire_owned().await;
        let permit = permit.map_err(|_| MessagesError::Ended)?;
        let (done, reply) = oneshot::channel();
        self.shared.send_operation(operation(done, permit))?;
        Ok(PendingMessage(reply))
    }

    /// One page of the messages that match the query.
    ///
    /// # Errors
    /// [`MessagesError::NoSuchRoom`], [`MessagesError::NotInRoom`], [`MessagesError::Database`].
    pub async fn history(&self, query: &HistoryQuery) -> Result<HistoryReply, MessagesError> {
        self.shared.store.history(query).await
    }

    /// Adds `user` to `room`, which exists as long as it has members. Returns the members.
    ///
    /// # Errors
    /// [`MessagesError::RoomFull`], [`MessagesError::TooManyRooms`], [`MessagesError::Database`].
    pub async fn join(&self, user: UserRef, room: RoomName) -> Result<MembersReply, MessagesError> {
        self.shared.charge_disk(0)?;
        self.shared
            .request(|done| Operation::Join { user, room, done })
            .await
    }

    /// Removes `user` from `room`. Returns the remaining members.
    ///
    /// # Errors
    /// [`MessagesError::NoSuchRoom`], [`MessagesError::NotInRoom`], [`MessagesError::Database`].
    pub async fn leave(
        &self,
        user: UserRef,
        room: RoomName,
    ) -> Result<MembersReply, MessagesError> {
        self.shared
            .request(|done| Operation::Leave { user, room, done })
            .await
    }

    /// The connected users by name, as many as `budget` bytes of JSON hold.
    #[must_use]
    pub fn who(&self, budget: usize) -> WhoReply {
        self.shared.presence().list(budget)
    }

    /// Registers a session of `user` until the returned subscription is dropped.
    ///
    /// With a `queue` the session can watch paths. With `inbox` as well, it receives the events that
    /// the user has not received yet, and then every new one. `since` is the `seq` up to which the
    /// client has its events; 0 means that it has none.
    #[must_use]
    pub fn subscribe(
        &self,
        user: &UserRef,
        queue: Option<EventQueue>,
        inbox: bool,
        since: Option<u64>,
    ) -> Subscription {
        Subscription::start(&self.shared, user, queue, inbox, since)
    }

    /// The sender for file changes.
    #[must_use]
    pub fn change_feed(&self) -> ChangeFeed {
        self.change_feed.clone()
    }

    /// Deletes messages and offers that are older than `keep` of run time, whether they were
    /// delivered or not. If more than `max_events` remain, deletes the oldest events of the senders
    /// with the most, down to an equal share, so that no sender displaces the events of others.
    /// Returns the number of deleted events.
    ///
    /// # Errors
    /// [`MessagesError::Database`].
    pub async fn prune(&self, keep: Duration, max_events: u64) -> Result<u64, MessagesError> {
        let mut total = 0;
        loop {
            let deleted = self
                .shared
                .request(|done| Operation::Prune {
                    keep,
                    max_events,
                    done,
                })
                .await?;
            if deleted == 0 {
                return Ok(total);
            }
            total += deleted;
        }
    }

    /// Whether the last commit failed. The sequencer retries every second.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.shared.is_failing.load(Ordering::Relaxed)
    }

    /// The epoch of this server. A client stores it with a `seq`, and sends both to resume.
    #[must_use]
    pub fn epoch(&self) -> &str {
        self.shared.epochs.current()
    }

    /// Whether this database issued `seq` in `epoch`. If so, a client that has the event lacks only
    /// the later ones.
    #[must_use]
    pub fn has_issued(&self, seq: u64, epoch: Option<&str>) -> bool {
        self.shared.epochs.has_issued(seq, epoch)
    }

    /// Sets the bytes of disk space that events may use from now on. Without a call there is no
    /// limit.
    pub fn set_disk_budget(&self, bytes: u64) {
        self.shared.disk_budget.store(bytes, Ordering::Relaxed);
    }

    /// The number of messages that wait for a commit.
    #[must_use]
    pub fn waiting_count(&self) -> usize {
        let free = self.shared.permits.available_permits();
        MessagesState::MAX_UNSTORED_MESSAGES.saturating_sub(free)
    }

    /// Waits until all operations that were queued before are committed.
    pub async fn flush(&self) {
        let (sender, flushed) = oneshot::channel();
        if self.shared.send_operation(Operation::Flush(sender)).is_ok() {
            // Fails only if the sequencer has ended, which commits nothing any more.
            let _ = flushed.await;
        }
    }
}

/// A queued message or offer.
#[derive(Debug)]
pub struct PendingMessage(oneshot::Receiver<Result<SayReply, MessagesError>>);

impl PendingMessage {
    /// Waits until the event is stored and each live session has received it or lags.
    ///
    /// # Errors
    /// See [`Messages::say`] and [`Messages::offer`].
    pub async fn stored(self) -> Result<SayReply, MessagesError> {
        self.0.await.unwrap_or(Err(MessagesError::Ended))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_and_joins_are_rejected_when_the_disk_budget_is_used_up() {
        let directory = tempfile::tempdir().expect("a directory");
        let messages = Messages::open(directory.path()).await.expect("messages");
        let user = |id: i64| UserRef {
            id,
            name: format!("user{id}").into(),
        };
        let say = || messages.say(user(1), Recipient::User(user(2)), "x".repeat(1000));
        messages.set_disk_budget(10_000);
        say().await.expect("room").stored().await.expect("stored");
        assert!(matches!(say().await, Err(MessagesError::NoSpace)));
        let room: RoomName = "#ops".parse().expect("a room");
        messages
            .join(user(1), room.clone())
            .await
            .expect("there is as much as that needs");
        let refused = messages.join(user(2), room).await;
        assert!(matches!(refused, Err(MessagesError::NoSpace)));
        messages.set_disk_budget(u64::MAX);
        say().await.expect("room").stored().await.expect("stored");
    }
}
