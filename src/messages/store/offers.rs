//! The offers in the database. An offer is open while its row exists and its time is not over.

use std::time::Duration;

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};

use crate::database::ConnectionPool;
use crate::messages::error::MessagesError;
use crate::messages::recipient::{Recipient, UserRef};
use crate::messages::store::columns::{
    from_column, milliseconds_column, read_error, timestamp, to_column,
};
use crate::messages::store::event::{CommitBatch, OfferedFile, file_name};
use crate::protocol::{Offer, OffersReply};

/// The most bytes of JSON that an offer in `offers` needs besides its file's name.
pub(crate) const OFFER_ENTRY_BYTES: usize = 384;

#[derive(Debug)]
struct OfferRow {
    offer: String,
    event: i64,
    offered_by: i64,
    sent_by: String,
    addressee: String,
    path: String,
    version: String,
    size: i64,
    expires: i64,
}

impl FromRow<'_, SqliteRow> for OfferRow {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            offer: row.try_get("offer")?,
            event: row.try_get("event")?,
            offered_by: row.try_get("offered_by")?,
            sent_by: row.try_get("sent_by")?,
            addressee: row.try_get("addressee")?,
            path: row.try_get("path")?,
            version: row.try_get("version")?,
            size: row.try_get("size")?,
            expires: row.try_get("expires")?,
        })
    }
}

pub(crate) const SELECT_OFFERS: &str = "SELECT offer, event, offered_by, sent_by, addressee, path, version, size, expires \
                      FROM offers JOIN events ON events.seq = offers.event";

/// Deletes the event of an offer. A trigger deletes the offer with it.
pub(crate) const CLOSE_OFFER: &str = "DELETE FROM events WHERE seq IN (SELECT event FROM offers WHERE offer = ?) \
                     RETURNING sender";

/// Deletes the events of the offers that have expired by an uptime.
pub(crate) const EXPIRE_OFFERS: &str = "DELETE FROM events WHERE seq IN (SELECT event FROM offers WHERE ends <= ?) \
                      RETURNING sender";

/// Whether an offer has expired by an uptime.
pub(crate) const HAS_EXPIRED_OFFERS: &str = "SELECT EXISTS (SELECT 1 FROM offers WHERE ends <= ?)";

/// The numbers of open offers from one user and of open offers to another.
pub(crate) const COUNT_OPEN_OFFERS: &str = "SELECT (SELECT COUNT(*) FROM offers WHERE offered_by = ?1 AND ends > ?3), \
     (SELECT COUNT(*) FROM offers WHERE offered_to = ?2 AND ends > ?3)";

/// The party to an offer that a user has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OfferParty {
    Receiver,
    SenderOrReceiver,
}

/// The open offers to `user`, or with `sent` from `user`, the oldest first, as many as `budget` bytes of
/// JSON hold.
pub(crate) async fn list_open(
    pool: &ConnectionPool,
    user: i64,
    sent: bool,
    uptime: Duration,
    budget: usize,
) -> Result<OffersReply, MessagesError> {
    let party = if sent { "offered_by" } else { "offered_to" };
    let query = format!("{SELECT_OFFERS} WHERE {party} = ? AND ends > ? ORDER BY event");
    let mut transaction = pool.read().await.map_err(read_error)?;
    let rows: Vec<OfferRow> = sqlx::query_as(sqlx::AssertSqlSafe(query))
        .bind(user)
        .bind(milliseconds_column(uptime))
        .fetch_all(&mut *transaction)
        .await
        .map_err(read_error)?;
    transaction.commit().await.map_err(read_error)?;
    let (found, mut left) = (rows.len(), budget);
    let mut offers = Vec::with_capacity(found);
    for row in rows {
        // The receiver does not see where the file is.
        let path = if sent { row.path } else { file_name(&row.path) };
        let path_bytes = serde_json::to_string(&path).map_or(0, |json| json.len());
        let Some(still_left) = left.checked_sub(OFFER_ENTRY_BYTES + path_bytes) else {
            break;
        };
        left = still_left;
        offers.push(Offer {
            seq: from_column(row.event),
            from: row.sent_by,
            to: sent.then_some(row.addressee),
            path,
            size: from_column(row.size),
            offer: row.offer,
            expires: timestamp(row.expires),
        });
    }
    Ok(OffersReply {
        more: offers.len() < found,
        offers,
    })
}

/// The sender and the file of an open offer, if `user` is the given party to it.
pub(crate) async fn find_open(
    pool: &ConnectionPool,
    offer: &str,
    user: i64,
    party: OfferParty,
    uptime: Duration,
) -> Result<Option<(UserRef, OfferedFile)>, MessagesError> {
    let is_party = match party {
        OfferParty::Receiver => "offered_to = ?2",
        OfferParty::SenderOrReceiver => "?2 IN (offered_to, offered_by)",
    };
    let query = format!("{SELECT_OFFERS} WHERE offer = ?1 AND {is_party} AND ends > ?3");
    let mut transaction = pool.read().await.map_err(read_error)?;
    let found: Option<OfferRow> = sqlx::query_as(sqlx::AssertSqlSafe(query))
        .bind(offer)
        .bind(user)
        .bind(milliseconds_column(uptime))
        .fetch_optional(&mut *transaction)
        .await
        .map_err(read_error)?;
    transaction.commit().await.map_err(read_error)?;
    Ok(found.map(|row| {
        let from = UserRef {
            id: row.offered_by,
            name: row.sent_by.into(),
        };
        let file = OfferedFile {
            path: row.path,
            version: row.version,
            size: from_column(row.size),
        };
        (from, file)
    }))
}

/// Whether an offer has expired by `uptime`.
pub(crate) async fn has_expired(
    pool: &ConnectionPool,
    uptime: Duration,
) -> Result<bool, MessagesError> {
    let mut transaction = pool.read().await.map_err(read_error)?;
    let has_expired: bool = sqlx::query_scalar(HAS_EXPIRED_OFFERS)
        .bind(milliseconds_column(uptime))
        .fetch_one(&mut *transaction)
        .await
        .map_err(read_error)?;
    transaction.commit().await.map_err(read_error)?;
    Ok(has_expired)
}

/// The numbers of open offers from `from` and of open offers to `to`.
pub(crate) async fn count_open(
    pool: &ConnectionPool,
    from: i64,
    to: i64,
    uptime: Duration,
) -> Result<(usize, usize), MessagesError> {
    let mut transaction = pool.read().await.map_err(read_error)?;
    let (made, received): (i64, i64) = sqlx::query_as(COUNT_OPEN_OFFERS)
        .bind(from)
        .bind(to)
        .bind(milliseconds_column(uptime))
        .fetch_one(&mut *transaction)
        .await
        .map_err(read_error)?;
    transaction.commit().await.map_err(read_error)?;
    let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
    Ok((count(made), count(received)))
}

/// Stores the new offers of a batch and deletes those that it closes. Returns the senders of the
/// deleted ones. The events of the new offers are stored with the messages.
pub(crate) async fn write(
    connection: &mut SqliteConnection,
    batch: &CommitBatch,
) -> Result<Vec<i64>, sqlx::Error> {
    for event in &batch.messages {
        let (Some(offer), Recipient::User(receiver)) = (&event.offer, &event.to) else {
            continue;
        };
        let file = &offer.file;
        sqlx::query("INSERT INTO offers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(&event.body)
            .bind(to_column(event.seq))
            .bind(event.from.id)
            .bind(receiver.id)
            .bind(&file.path)
            .bind(&file.version)
            .bind(to_column(file.size))
            .bind(offer.expires.as_microsecond())
            .bind(milliseconds_column(offer.ends))
            .execute(&mut *connection)
            .await?;
    }
    let mut senders = Vec::new();
    for offer in &batch.closed {
        let query = sqlx::query_scalar::<_, i64>(CLOSE_OFFER).bind(offer);
        senders.extend(query.fetch_all(&mut *connection).await?);
    }
    if let Some(uptime) = batch.expired {
        let query = sqlx::query_scalar::<_, i64>(EXPIRE_OFFERS).bind(milliseconds_column(uptime));
        senders.extend(query.fetch_all(&mut *connection).await?);
    }
    Ok(senders)
}
