//! Offers: files that users hand to each other, by reference, until they are answered.
//!
//! An offer is open as long as it is in the database, which is for so long as servers run on that;
//! when it expires by the clock on the wall is what its receiver is told. Who answers it *claims* it first, so that it
//! is answered once; a claim that is dropped leaves it open.

use std::collections::HashSet;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use data_encoding::HEXLOWER;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};
use tokio::sync::oneshot;

use crate::messages::operation::Operation;
use crate::messages::store::{CommitBatch, Writer, integer, milliseconds, reading, time, unsigned};
use crate::messages::{Messages, MessagesError, MessagesState, PendingMessage, Recipient, UserRef};
use crate::protocol::{Offer, OffersReply};

/// JSON of an offer in `offers` beside its file's name, in bytes.
const ENTRY: usize = 256;

/// The file of an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedFile {
    /// Its absolute path, as the sender sees it. Not for the receiver's eyes.
    pub path: String,
    /// What it was when it was offered.
    pub version: String,
    /// Its bytes then.
    pub size: u64,
}

/// An open offer that nobody else can answer meanwhile. Dropping it leaves the offer open.
#[derive(Debug)]
pub struct Claim {
    /// Who offers it.
    pub from: UserRef,
    /// What is offered.
    pub file: OfferedFile,
    hold: Hold,
}

#[derive(Debug)]
struct Hold {
    shared: Arc<MessagesState>,
    offer: String,
}

#[derive(Debug)]
struct Row {
    offer: String,
    event: i64,
    offered_by: i64,
    sent_by: String,
    path: String,
    version: String,
    size: i64,
    expires: i64,
}

impl FromRow<'_, SqliteRow> for Row {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            offer: row.try_get("offer")?,
            event: row.try_get("event")?,
            offered_by: row.try_get("offered_by")?,
            sent_by: row.try_get("sent_by")?,
            path: row.try_get("path")?,
            version: row.try_get("version")?,
            size: row.try_get("size")?,
            expires: row.try_get("expires")?,
        })
    }
}

pub(super) const SELECT: &str = "SELECT offer, event, offered_by, sent_by, path, version, size, expires \
                      FROM offers JOIN events ON events.seq = offers.event";

/// Ends the offer of this name: a trigger removes its row with the event.
pub(super) const CLOSE: &str = "DELETE FROM events WHERE seq IN (SELECT event FROM offers WHERE offer = ?) \
                     RETURNING sender";

/// The same for those that end by this uptime.
pub(super) const EXPIRE: &str = "DELETE FROM events WHERE seq IN (SELECT event FROM offers WHERE ends <= ?) \
                      RETURNING sender";

/// Whether there are any.
pub(super) const HAS_EXPIRED: &str = "SELECT EXISTS (SELECT 1 FROM offers WHERE ends <= ?)";

/// How many offers a user has made, and how many another one has been made, that are open.
pub(super) const OPEN_OFFERS: &str = "SELECT (SELECT COUNT(*) FROM offers WHERE offered_by = ?1 AND ends > ?3), \
     (SELECT COUNT(*) FROM offers WHERE offered_to = ?2 AND ends > ?3)";

impl Messages {
    /// Offers a file of `from` to `to` for as long as `keep`: the identifier, and what resolves once
    /// the offer is stored and those who hear at once were told.
    ///
    /// # Errors
    /// [`MessagesError::NoRandomness`]. What is returned: [`MessagesError::TooManyMade`],
    /// [`MessagesError::TooManyOpen`], [`MessagesError::Database`].
    pub async fn offer(
        &self,
        from: UserRef,
        to: UserRef,
        file: OfferedFile,
        keep: Duration,
    ) -> Result<(String, PendingMessage), MessagesError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(MessagesError::NoRandomness)?;
        let offer = HEXLOWER.encode(&random);
        self.shared.charge_disk(file.path.len())?;
        let permit = Arc::clone(&self.shared.permits).acquire_owned().await;
        let permit = permit.map_err(|_| MessagesError::Ended)?;
        let (done, said) = oneshot::channel();
        self.shared.tell_sequencer(Operation::Offer {
            from,
            to,
            offer: offer.clone(),
            file,
            keep,
            done,
            permit,
        })?;
        Ok((offer, PendingMessage(said)))
    }

    /// The open offers to `user`, the oldest first, as many as `budget` bytes of JSON hold.
    ///
    /// # Errors
    /// [`MessagesError::Database`].
    pub async fn offers(&self, user: i64, budget: usize) -> Result<OffersReply, MessagesError> {
        let readers = &self.shared.store.readers;
        let mut transaction = readers.read().await.map_err(reading)?;
        let uptime = self.shared.store.uptime.now();
        let open = open(&mut transaction, user, uptime).await?;
        transaction.commit().await.map_err(reading)?;
        let (found, mut left) = (open.len(), budget);
        let mut offers = Vec::with_capacity(found);
        for offer in open {
            let name = serde_json::to_string(&offer.path).map_or(0, |name| name.len());
            let Some(rest) = left.checked_sub(ENTRY + name) else {
                break;
            };
            left = rest;
            offers.push(offer);
        }
        Ok(OffersReply {
            more: offers.len() < found,
            offers,
        })
    }

    /// Claims an offer to `user`, to accept it.
    ///
    /// # Errors
    /// [`MessagesError::NoSuchOffer`], [`MessagesError::Database`].
    pub async fn claim_to_accept(&self, user: i64, offer: &str) -> Result<Claim, MessagesError> {
        self.claim(user, offer, "offered_to = ?2").await
    }

    /// Claims an offer to or from `user`, to decline or withdraw it.
    ///
    /// # Errors
    /// [`MessagesError::NoSuchOffer`], [`MessagesError::Database`].
    pub async fn claim_to_decline(&self, user: i64, offer: &str) -> Result<Claim, MessagesError> {
        self.claim(user, offer, "?2 IN (offered_to, offered_by)")
            .await
    }

    async fn claim(&self, user: i64, offer: &str, by: &str) -> Result<Claim, MessagesError> {
        let hold = Hold::take(&self.shared, offer).ok_or(MessagesError::NoSuchOffer)?;
        let query = format!("{SELECT} WHERE offer = ?1 AND {by} AND ends > ?3");
        let readers = &self.shared.store.readers;
        let mut transaction = readers.read().await.map_err(reading)?;
        let found: Option<Row> = sqlx::query_as(sqlx::AssertSqlSafe(query))
            .bind(offer)
            .bind(user)
            .bind(milliseconds(self.shared.store.uptime.now()))
            .fetch_optional(&mut *transaction)
            .await
            .map_err(reading)?;
        transaction.commit().await.map_err(reading)?;
        let row = found.ok_or(MessagesError::NoSuchOffer)?;
        Ok(Claim {
            from: UserRef {
                id: row.offered_by,
                name: row.sent_by.into(),
            },
            file: OfferedFile {
                path: row.path,
                version: row.version,
                size: unsigned(row.size),
            },
            hold,
        })
    }

    /// Removes the offers since which servers have run for as long as they were to be kept.
    ///
    /// # Errors
    /// [`MessagesError::Database`].
    pub async fn expire_offers(&self) -> Result<(), MessagesError> {
        self.shared.ask(Operation::Expire).await
    }
}

impl Claim {
    /// Ends the offer.
    ///
    /// # Errors
    /// [`MessagesError::Database`]: it is open still.
    pub async fn close(self) -> Result<(), MessagesError> {
        let (done, closed) = oneshot::channel();
        let offer = self.hold.offer.clone();
        let op = Operation::Close { offer, done };
        self.hold.shared.tell_sequencer(op)?;
        closed.await.unwrap_or(Err(MessagesError::Ended))
    }
}

impl Hold {
    fn take(shared: &Arc<MessagesState>, offer: &str) -> Option<Self> {
        let is_first = claimed(shared).insert(offer.to_owned());
        is_first.then(|| Self {
            shared: Arc::clone(shared),
            offer: offer.to_owned(),
        })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        claimed(&self.shared).remove(&self.offer);
    }
}

fn claimed(shared: &MessagesState) -> MutexGuard<'_, HashSet<String>> {
    let claimed = shared.claimed.lock();
    claimed.unwrap_or_else(PoisonError::into_inner)
}

/// What a receiver is told of the file's path: its last component.
pub(super) fn name_of(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

/// The offers to `user` that are open: a bounded number.
async fn open(
    connection: &mut SqliteConnection,
    user: i64,
    uptime: Duration,
) -> Result<Vec<Offer>, MessagesError> {
    let query = format!("{SELECT} WHERE offered_to = ? AND ends > ? ORDER BY event");
    let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(query))
        .bind(user)
        .bind(milliseconds(uptime))
        .fetch_all(connection)
        .await
        .map_err(reading)?;
    let offers = rows.into_iter().map(|row| Offer {
        seq: unsigned(row.event),
        from: row.sent_by,
        path: name_of(&row.path),
        size: unsigned(row.size),
        offer: row.offer,
        expires: time(row.expires),
    });
    Ok(offers.collect())
}

impl Writer {
    /// Whether the time of an offer is over by this uptime.
    pub(super) async fn has_expired(&mut self, uptime: Duration) -> Result<bool, MessagesError> {
        let mut transaction = self.connection.read().await.map_err(reading)?;
        let expired: bool = sqlx::query_scalar(HAS_EXPIRED)
            .bind(milliseconds(uptime))
            .fetch_one(&mut *transaction)
            .await
            .map_err(reading)?;
        transaction.commit().await.map_err(reading)?;
        Ok(expired)
    }

    /// How many offers of `from`, and how many to `to`, are open.
    pub(super) async fn open_offers(
        &mut self,
        from: i64,
        to: i64,
    ) -> Result<(usize, usize), MessagesError> {
        let mut transaction = self.connection.read().await.map_err(reading)?;
        let (made, open): (i64, i64) = sqlx::query_as(OPEN_OFFERS)
            .bind(from)
            .bind(to)
            .bind(milliseconds(self.uptime.now()))
            .fetch_one(&mut *transaction)
            .await
            .map_err(reading)?;
        transaction.commit().await.map_err(reading)?;
        let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
        Ok((count(made), count(open)))
    }
}

/// Keeps what a batch says about offers, and returns who has made those that ended. Their events
/// are kept with the messages.
pub(super) async fn write(
    connection: &mut SqliteConnection,
    batch: &CommitBatch,
) -> Result<Vec<i64>, sqlx::Error> {
    for event in &batch.messages {
        let (Some(stored), Recipient::User(receiver)) = (&event.offer, &event.to) else {
            continue;
        };
        let file = &stored.file;
        sqlx::query("INSERT INTO offers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(&event.body)
            .bind(integer(event.seq))
            .bind(event.from.id)
            .bind(receiver.id)
            .bind(&file.path)
            .bind(&file.version)
            .bind(integer(file.size))
            .bind(stored.expires.as_microsecond())
            .bind(milliseconds(stored.ends))
            .execute(&mut *connection)
            .await?;
    }
    let mut ended = Vec::new();
    for offer in &batch.closed {
        let query = sqlx::query_scalar::<_, i64>(CLOSE).bind(offer);
        ended.extend(query.fetch_all(&mut *connection).await?);
    }
    if let Some(uptime) = batch.expired {
        let query = sqlx::query_scalar::<_, i64>(EXPIRE).bind(milliseconds(uptime));
        ended.extend(query.fetch_all(&mut *connection).await?);
    }
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(id: i64) -> UserRef {
        let name = format!("user{id}").into();
        UserRef { id, name }
    }

    fn file() -> OfferedFile {
        OfferedFile {
            path: "/secret/a b".into(),
            version: "1".into(),
            size: 7,
        }
    }

    async fn rows(messages: &Messages) -> (i64, i64) {
        let query = "SELECT (SELECT COUNT(*) FROM offers), (SELECT COUNT(*) FROM events)";
        let readers = &messages.shared.store.readers;
        let mut transaction = readers.read().await.expect("readable");
        let counted = sqlx::query_as(query).fetch_one(&mut *transaction);
        counted.await.expect("counted")
    }

    async fn offer(messages: &Messages, keep: Duration) -> String {
        let begun = messages.offer(party(1), party(2), file(), keep).await;
        let (offer, said) = begun.expect("begun");
        said.done().await.expect("stored");
        offer
    }

    #[tokio::test]
    async fn what_has_expired_is_neither_told_nor_claimed_and_then_removed_with_its_event() {
        let directory = tempfile::tempdir().expect("a directory");
        let messages = Messages::open(directory.path()).await.expect("messages");
        let over = offer(&messages, Duration::ZERO).await;
        let open = offer(&messages, Duration::MAX).await;
        let claimed = messages.claim_to_accept(2, &over).await;
        assert!(matches!(claimed, Err(MessagesError::NoSuchOffer)));
        let backlog = messages.shared.store.backlog(2, 0, 10).await;
        assert_eq!(backlog.expect("read").events.len(), 1);
        assert_eq!(rows(&messages).await, (2, 2));
        messages.expire_offers().await.expect("removed");
        assert_eq!(rows(&messages).await, (1, 1));
        let listed = messages.offers(2, 1 << 16).await.expect("read").offers;
        assert_eq!((&*listed[0].offer, &*listed[0].path), (&*open, "a b"));
    }

    #[tokio::test]
    async fn a_claim_keeps_others_away_until_it_is_dropped_and_closing_it_ends_the_offer() {
        let directory = tempfile::tempdir().expect("a directory");
        let messages = Messages::open(directory.path()).await.expect("messages");
        let offer = offer(&messages, Duration::MAX).await;
        let claim = messages.claim_to_accept(2, &offer).await.expect("claimed");
        assert_eq!((claim.from.id, &*claim.file.path), (1, "/secret/a b"));
        for user in [1, 2] {
            let second = messages.claim_to_decline(user, &offer).await;
            assert!(matches!(second, Err(MessagesError::NoSuchOffer)));
        }
        drop(claim);
        let claim = messages.claim_to_decline(1, &offer).await;
        claim.expect("claimed").close().await.expect("closed");
        assert_eq!(rows(&messages).await, (0, 0));
        let again = messages.claim_to_accept(2, &offer).await;
        assert!(matches!(again, Err(MessagesError::NoSuchOffer)));
        let claimed = messages.shared.claimed.lock().expect("sound");
        assert!(claimed.is_empty());
    }

    #[tokio::test]
    async fn a_list_ends_where_its_frame_does_and_says_so() {
        let directory = tempfile::tempdir().expect("a directory");
        let messages = Messages::open(directory.path()).await.expect("messages");
        let first = offer(&messages, Duration::MAX).await;
        offer(&messages, Duration::MAX).await;
        let reply = messages.offers(2, ENTRY + 100).await.expect("read");
        assert_eq!((&*reply.offers[0].offer, reply.offers.len()), (&*first, 1));
        assert!(reply.more);
    }
}
