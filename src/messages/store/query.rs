//! The queries for the backlog of an inbox and the history of a conversation.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, TryStreamExt as _};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};

use crate::database::ConnectionPool;
use crate::messages::error::MessagesError;
use crate::messages::recipient::{Recipient, UserRef};
use crate::messages::room::RoomName;
use crate::messages::store::columns::{
    from_column, milliseconds_column, read_error, timestamp, to_column,
};
use crate::messages::store::event::file_name;
use crate::protocol::{Event, HistoryReply, Message, Offer, encode_event};

/// The most bytes of JSON that a message in `history` needs besides its texts.
const MESSAGE_ENTRY_BYTES: usize = 120;

/// The next events for a user after a `seq`: direct messages, offers, and the messages in the user's
/// rooms. A single statement reads a single state of the database, so it cannot skip events that are
/// stored while it runs.
pub(crate) const BACKLOG: &str = "\
    SELECT e.seq, e.kind, e.sender, e.sent_by, e.addressee, e.body, e.time, \
           o.path, o.size, o.expires, o.ends \
    FROM (SELECT seq FROM ( \
            SELECT seq FROM (SELECT seq FROM events WHERE receiver = ?1 AND seq > ?2 \
                             ORDER BY seq LIMIT ?3) \
            UNION ALL \
            SELECT said.seq FROM members CROSS JOIN events AS said ON said.seq IN ( \
                SELECT seq FROM events WHERE room = members.room AND seq > MAX(members.since, ?2) \
                ORDER BY seq LIMIT ?3) \
            WHERE members.user = ?1) \
          ORDER BY seq LIMIT ?3) AS page \
    CROSS JOIN events AS e ON e.seq = page.seq \
    LEFT JOIN offers AS o ON o.event = e.seq";

/// The messages in a room before a `seq`, the latest first.
pub(crate) const ROOM_HISTORY: &str = "\
    SELECT seq, sent_by, addressee, body, time FROM events \
    WHERE room = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3";

/// The messages between two users before a `seq`, the latest first.
pub(crate) const DIRECT_HISTORY: &str = "\
    SELECT seq, sent_by, addressee, body, time FROM events \
    WHERE sender = ?1 AND receiver = ?2 AND kind = 0 AND seq < ?3 \
    UNION ALL \
    SELECT seq, sent_by, addressee, body, time FROM events \
    WHERE sender = ?2 AND receiver = ?1 AND ?1 <> ?2 AND kind = 0 AND seq < ?3 \
    ORDER BY seq DESC LIMIT ?4";

/// A row of `events`.
#[derive(Debug)]
struct EventRow {
    seq: i64,
    sent_by: String,
    addressee: String,
    body: String,
    time: i64,
}

impl FromRow<'_, SqliteRow> for EventRow {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            seq: row.try_get("seq")?,
            sent_by: row.try_get("sent_by")?,
            addressee: row.try_get("addressee")?,
            body: row.try_get("body")?,
            time: row.try_get("time")?,
        })
    }
}

impl EventRow {
    fn seq(&self) -> u64 {
        from_column(self.seq)
    }

    fn into_message(self) -> Message {
        Message {
            seq: self.seq(),
            time: timestamp(self.time),
            from: self.sent_by,
            to: self.addressee,
            text: self.body,
        }
    }
}

/// A row of the backlog: an event, with the offered file if it is an offer.
#[derive(Debug)]
struct BacklogRow {
    row: EventRow,
    kind: i64,
    sender: i64,
    path: Option<String>,
    size: Option<i64>,
    expires: Option<i64>,
    ends: Option<i64>,
}

impl FromRow<'_, SqliteRow> for BacklogRow {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            row: EventRow::from_row(row)?,
            kind: row.try_get("kind")?,
            sender: row.try_get("sender")?,
            path: row.try_get("path")?,
            size: row.try_get("size")?,
            expires: row.try_get("expires")?,
            ends: row.try_get("ends")?,
        })
    }
}

impl BacklogRow {
    /// The event, or `None` if `user` does not receive it: an own message in a room or an expired
    /// offer.
    fn into_event(self, user: i64, uptime: Duration) -> Option<Event> {
        if self.kind == 0 {
            let is_own = self.sender == user && RoomName::is_room(&self.row.addressee);
            return (!is_own).then(|| Event::Message(self.row.into_message()));
        }
        self.ends
            .filter(|ends| *ends > milliseconds_column(uptime))?;
        Some(Event::Offer(Offer {
            seq: self.row.seq(),
            path: file_name(&self.path?),
            size: from_column(self.size?),
            from: self.row.sent_by,
            to: None,
            offer: self.row.body,
            expires: timestamp(self.expires?),
        }))
    }
}

/// A page of the events that a user has not received yet.
#[derive(Debug)]
pub(crate) struct Backlog {
    /// The events as JSON, in the order of their `seq`.
    pub(crate) events: Vec<(u64, Bytes)>,
    /// The `seq` up to which the page covers the inbox.
    pub(crate) position: u64,
    /// Whether the inbox had no further events when the page was read.
    pub(crate) is_complete: bool,
}

/// The next events for `user` after `position`, from at most `limit` rows.
pub(crate) async fn backlog(
    pool: &ConnectionPool,
    user: i64,
    position: u64,
    limit: usize,
    uptime: Duration,
) -> Result<Backlog, MessagesError> {
    let mut transaction = pool.read().await.map_err(read_error)?;
    let rows: Vec<BacklogRow> = sqlx::query_as(BACKLOG)
        .bind(user)
        .bind(to_column(position))
        .bind(to_column(limit as u64))
        .fetch_all(&mut *transaction)
        .await
        .map_err(read_error)?;
    transaction.commit().await.map_err(read_error)?;
    let is_complete = rows.len() < limit;
    let mut last = position;
    let mut events = Vec::with_capacity(rows.len());
    for row in rows {
        let seq = row.row.seq();
        last = last.max(seq);
        if let Some(event) = row.into_event(user, uptime) {
            events.push((seq, encode_event(&event)));
        }
    }
    events.sort_unstable_by_key(|(seq, _)| *seq);
    Ok(Backlog {
        events,
        position: last,
        is_complete,
    })
}

/// A query for one page of messages: those between two users, or in a room.
#[derive(Debug, Clone)]
pub struct HistoryQuery {
    /// The user who asks.
    pub user: UserRef,
    /// The other user, or the room.
    pub with: Recipient,
    /// The `seq` before which the page ends; without it the page ends with the latest message.
    pub before: Option<u64>,
    /// The most messages of the page.
    pub limit: usize,
    /// The most bytes of JSON for the page. A single message may exceed it.
    pub max_json_bytes: usize,
}

/// The last messages before `before` that match the query.
pub(crate) async fn history(
    pool: &ConnectionPool,
    query: &HistoryQuery,
) -> Result<HistoryReply, MessagesError> {
    let before = to_column(query.before.unwrap_or(i64::MAX as u64));
    // One row more than the limit shows whether there are more messages.
    let max_rows = to_column(query.limit.saturating_add(1) as u64);
    let mut transaction = pool.read().await.map_err(read_error)?;
    let user = &query.user;
    let statement = match &query.with {
        Recipient::Room(room) => {
            check_member(&mut transaction, user, room).await?;
            sqlx::query_as(ROOM_HISTORY).bind(room.as_str())
        }
        Recipient::User(other) => sqlx::query_as(DIRECT_HISTORY).bind(user.id).bind(other.id),
    };
    let rows = statement
        .bind(before)
        .bind(max_rows)
        .fetch(&mut *transaction);
    let page = collect_page(rows, query.limit, query.max_json_bytes)
        .await
        .map_err(read_error)?;
    transaction.commit().await.map_err(read_error)?;
    Ok(page)
}

/// Fails unless `user` is a member of `room`.
async fn check_member(
    connection: &mut SqliteConnection,
    user: &UserRef,
    room: &RoomName,
) -> Result<(), MessagesError> {
    let query = "SELECT EXISTS (SELECT 1 FROM members WHERE room = ?1 AND user = ?2), \
                 EXISTS (SELECT 1 FROM members WHERE room = ?1)";
    let found: (bool, bool) = sqlx::query_as(query)
        .bind(room.as_str())
        .bind(user.id)
        .fetch_one(connection)
        .await
        .map_err(read_error)?;
    match found {
        (true, _) => Ok(()),
        (false, true) => Err(MessagesError::NotInRoom(room.clone())),
        (false, false) => Err(MessagesError::NoSuchRoom(room.clone())),
    }
}

/// Collects messages from `rows`, which start with the latest, up to `limit` messages or `budget`
/// bytes of JSON, but at least one. Reads one row more than it returns.
async fn collect_page(
    mut rows: impl Stream<Item = Result<EventRow, sqlx::Error>> + Unpin,
    limit: usize,
    budget: usize,
) -> Result<HistoryReply, sqlx::Error> {
    let mut left = budget;
    let mut messages = Vec::new();
    let mut more = false;
    while let Some(row) = rows.try_next().await? {
        let text = serde_json::to_string(&row.body).map_or(0, |text| text.len());
        let size = MESSAGE_ENTRY_BYTES + row.sent_by.len() + row.addressee.len() + text;
        if messages.len() == limit || (size > left && !messages.is_empty()) {
            more = true;
            break;
        }
        left = left.saturating_sub(size);
        messages.push(row.into_message());
    }
    messages.reverse();
    Ok(HistoryReply { messages, more })
}
