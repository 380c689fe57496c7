//! The database of messages: what is kept, and how it is read back.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use sqlx::FromRow;
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnection;

use super::offers::{self, OfferedFile};
use super::presence::Inbox;
use super::{MessagesError, Party, RoomName, To};
use crate::database::{self, ConnectionPool, OpenError};
use crate::protocol::{Event, HistoryReply, Message, Offer, encode_event};

static MIGRATIONS: Migrator = sqlx::migrate!("src/messages/migrations");

/// Connections that read at once; each is a thread.
const READERS: usize = 2;

/// Events that are dropped at a time: what comes meanwhile waits.
const FORGOTTEN_AT_ONCE: i64 = 500;

/// JSON of a message in `history` beside its texts, in bytes.
const ENTRY: usize = 120;

const COLUMNS: &str = "seq, sent_by, addressee, body, time";

/// What reads.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) readers: ConnectionPool,
}

/// What writes: one connection, the sequencer's, which is opened anew after a failure.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) connection: ConnectionPool,
    /// Events in the database.
    kept: u64,
    /// The last event that an earlier server has kept.
    before: u64,
    /// The database knows that the earlier server is gone.
    recovered: bool,
}

/// Copies the messages of the data directory `data`, as they are at one moment, into the new file
/// `to`.
///
/// # Errors
/// [`MessagesError`] if they can not be read or written.
pub async fn copy(data: &Path, to: &Path) -> Result<(), MessagesError> {
    Ok(database::copy(data, "messages.db", to).await?)
}

/// A message or an offer that is to be stored.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) seq: u64,
    pub(super) from: Party,
    pub(super) to: To,
    /// The text of a message, the identifier of an offer.
    pub(super) body: String,
    pub(super) time: Timestamp,
    /// What is offered, if it is an offer.
    pub(super) file: Option<OfferedFile>,
}

impl Stored {
    /// The event as its receivers get it.
    pub(super) fn event(&self) -> Event {
        if let Some(file) = &self.file {
            return Event::Offer(Offer {
                seq: self.seq,
                from: self.from.name.to_string(),
                path: offers::name_of(&file.path),
                size: file.size,
                offer: self.body.clone(),
                expires: file.expires,
            });
        }
        Event::Message(Message {
            seq: self.seq,
            from: self.from.name.to_string(),
            to: self.to.as_str().to_owned(),
            text: self.body.clone(),
            time: self.time,
        })
    }
}

impl To {
    fn as_str(&self) -> &str {
        match self {
            Self::User(user) => &user.name,
            Self::Room(room) => room.as_str(),
        }
    }
}

/// All that one commit keeps.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) messages: Vec<Stored>,
    pub(super) joined: Vec<(RoomName, Party, u64)>,
    pub(super) left: Vec<(RoomName, i64)>,
    /// Offers that end.
    pub(super) closed: Vec<String>,
    /// All offers end whose time is over by then.
    pub(super) expired: Option<Timestamp>,
    pub(super) inboxes: HashMap<i64, Inbox>,
    /// Places up to here are taken from now on.
    pub(super) reserved: Option<u64>,
}

impl Batch {
    /// Whether something is said in `room`.
    pub(super) fn speaks_in(&self, room: &RoomName) -> bool {
        let mut said = self.messages.iter();
        said.any(|message| matches!(&message.to, To::Room(to) if to == room))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.joined.is_empty()
            && self.left.is_empty()
            && self.closed.is_empty()
            && self.expired.is_none()
            && self.inboxes.is_empty()
            && self.reserved.is_none()
    }
}

/// A row of `events`.
#[derive(Debug, FromRow)]
struct Row {
    seq: i64,
    sent_by: String,
    addressee: String,
    body: String,
    time: i64,
}

impl Row {
    fn seq(&self) -> u64 {
        unsigned(self.seq)
    }

    fn into_message(self) -> Message {
        Message {
            seq: self.seq(),
            time: time(self.time),
            from: self.sent_by,
            to: self.addressee,
            text: self.body,
        }
    }
}

impl From<OpenError> for MessagesError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Make { path, source } => Self::Make { path, source },
            OpenError::Open(source) => failed("open", source),
        }
    }
}

impl Store {
    pub(super) async fn open(data: &Path) -> Result<(Self, Writer), MessagesError> {
        let (options, _) = database::open(data, "messages.db", &MIGRATIONS).await?;
        let readers = ConnectionPool::new(options.clone(), READERS);
        let writer = Writer {
            connection: ConnectionPool::new(options, 1),
            kept: 0,
            before: 0,
            recovered: false,
        };
        Ok((Self { readers }, writer))
    }

    /// The next events for `user` after `position`, at most `most`, as they go into a lane.
    pub(super) async fn missed(
        &self,
        user: i64,
        position: u64,
        most: usize,
    ) -> Result<Vec<(u64, Bytes)>, MessagesError> {
        missed(&self.readers, user, position, most).await
    }

    /// Makes sure that `user` is in `room`.
    pub(super) async fn check_member(
        &self,
        user: &Party,
        room: &RoomName,
    ) -> Result<(), MessagesError> {
        let mut transaction = self.readers.read().await.map_err(reading)?;
        let members: Vec<i64> = sqlx::query_scalar("SELECT user FROM members WHERE room = ?")
            .bind(room.as_str())
            .fetch_all(&mut *transaction)
            .await
            .map_err(reading)?;
        transaction.commit().await.map_err(reading)?;
        match members {
            members if members.contains(&user.id) => Ok(()),
            members if members.is_empty() => Err(MessagesError::NoSuchRoom(room.clone())),
            _ => Err(MessagesError::NotInRoom(room.clone())),
        }
    }

    pub(super) async fn history(
        &self,
        user: &Party,
        with: &To,
        before: Option<u64>,
        limit: usize,
        budget: usize,
    ) -> Result<HistoryReply, MessagesError> {
        let before = integer(before.unwrap_or(i64::MAX as u64));
        // One more than asked for tells whether there is more.
        let limit = limit.saturating_add(1);
        let mut transaction = self.readers.read().await.map_err(reading)?;
        let rows: Vec<Row> = match with {
            To::Room(room) => {
                let query = format!(
                    "SELECT {COLUMNS} FROM events WHERE room = ? AND seq < ? \
                     ORDER BY seq DESC LIMIT ?"
                );
                let rows = sqlx::query_as(sqlx::AssertSqlSafe(query)).bind(room.as_str());
                let rows = rows.bind(before).bind(integer(limit as u64));
                rows.fetch_all(&mut *transaction).await.map_err(reading)?
            }
            To::User(other) => {
                let query = format!(
                    "SELECT {COLUMNS} FROM events WHERE kind = 0 AND seq < ?3 AND \
                     ((sender = ?1 AND receiver = ?2) OR (sender = ?2 AND receiver = ?1)) \
                     ORDER BY seq DESC LIMIT ?4"
                );
                let rows = sqlx::query_as(sqlx::AssertSqlSafe(query)).bind(user.id);
                let rows = rows.bind(other.id).bind(before);
                let rows = rows.bind(integer(limit as u64));
                rows.fetch_all(&mut *transaction).await.map_err(reading)?
            }
        };
        transaction.commit().await.map_err(reading)?;
        Ok(page(rows, limit - 1, budget))
    }
}

/// The latest of `rows`, which begin with the last, in the order of `seq`.
fn page(rows: Vec<Row>, limit: usize, budget: usize) -> HistoryReply {
    let found = rows.len();
    let mut left = budget;
    let mut messages = Vec::new();
    for row in rows.into_iter().take(limit) {
        let text = serde_json::to_string(&row.body).map_or(0, |text| text.len());
        let size = ENTRY + row.sent_by.len() + row.addressee.len() + text;
        match left.checked_sub(size) {
            Some(rest) => left = rest,
            None if messages.is_empty() => left = 0,
            None => break,
        }
        messages.push(row.into_message());
    }
    messages.reverse();
    HistoryReply {
        more: messages.len() < found,
        messages,
    }
}

async fn missed(
    connections: &ConnectionPool,
    user: i64,
    position: u64,
    most: usize,
) -> Result<Vec<(u64, Bytes)>, MessagesError> {
    let mut transaction = connections.read().await.map_err(reading)?;
    let connection = &mut *transaction;
    let most_rows = integer(most as u64);
    let query = format!(
        "SELECT {COLUMNS} FROM events \
         WHERE kind = 0 AND receiver = ? AND seq > ? ORDER BY seq LIMIT ?"
    );
    let mut rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(query))
        .bind(user)
        .bind(integer(position))
        .bind(most_rows)
        .fetch_all(&mut *connection)
        .await
        .map_err(reading)?;
    let rooms: Vec<(String, i64)> =
        sqlx::query_as("SELECT room, since FROM members WHERE user = ?")
            .bind(user)
            .fetch_all(&mut *connection)
            .await
            .map_err(reading)?;
    for (room, since) in rooms {
        let query = format!(
            "SELECT {COLUMNS} FROM events WHERE room = ? AND seq > ? AND sender <> ? \
             ORDER BY seq LIMIT ?"
        );
        let said: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(query))
            .bind(room)
            .bind(since.max(integer(position)))
            .bind(user)
            .bind(most_rows)
            .fetch_all(&mut *connection)
            .await
            .map_err(reading)?;
        rows.extend(said);
    }
    let messages = rows.into_iter().map(Row::into_message);
    let messages = messages.map(|message| (message.seq, Event::Message(message)));
    let offers = offers::open(connection, user, position, most).await?;
    transaction.commit().await.map_err(reading)?;
    let offers = offers
        .into_iter()
        .map(|offer| (offer.seq, Event::Offer(offer)));
    let mut events: Vec<_> = messages.chain(offers).collect();
    events.sort_by_key(|(seq, _)| *seq);
    events.truncate(most);
    let events = events.into_iter();
    Ok(events
        .map(|(seq, event)| (seq, encode_event(&event)))
        .collect())
}

impl Writer {
    /// Looks at what an earlier server has left; says which places are taken. Nothing is written:
    /// the disk may be full.
    pub(super) async fn look(&mut self) -> Result<u64, MessagesError> {
        let mut transaction = self.connection.read().await.map_err(reading)?;
        let (reserved, kept, last): (i64, i64, i64) = sqlx::query_as(
            "SELECT (SELECT reserved FROM counter), (SELECT COUNT(*) FROM events), \
             (SELECT COALESCE(MAX(seq), 0) FROM events)",
        )
        .fetch_one(&mut *transaction)
        .await
        .map_err(reading)?;
        transaction.commit().await.map_err(reading)?;
        self.kept = unsigned(kept);
        self.before = unsigned(last);
        Ok(unsigned(reserved))
    }

    /// Who is in which room.
    pub(super) async fn rooms(&mut self) -> Result<Vec<(RoomName, Party)>, MessagesError> {
        let mut transaction = self.connection.read().await.map_err(reading)?;
        let rows: Vec<(String, i64, String)> =
            sqlx::query_as("SELECT room, user, name FROM members")
                .fetch_all(&mut *transaction)
                .await
                .map_err(reading)?;
        transaction.commit().await.map_err(reading)?;
        let members = rows.into_iter().filter_map(|(room, id, name)| {
            let name = name.into();
            Some((room.parse().ok()?, Party { id, name }))
        });
        Ok(members.collect())
    }

    /// Up to where a user was told who is not told as it is stored now.
    pub(super) async fn told(&mut self, user: i64) -> Result<u64, MessagesError> {
        let mut transaction = self.connection.read().await.map_err(reading)?;
        let inbox: Option<(i64, bool)> =
            sqlx::query_as("SELECT told, live FROM inboxes WHERE user = ?")
                .bind(user)
                .fetch_optional(&mut *transaction)
                .await
                .map_err(reading)?;
        transaction.commit().await.map_err(reading)?;
        Ok(match inbox {
            None => 0,
            Some((told, false)) => unsigned(told),
            Some((told, true)) => unsigned(told).max(self.before),
        })
    }

    /// As [`Store::missed`].
    pub(super) async fn missed(
        &mut self,
        user: i64,
        position: u64,
        most: usize,
    ) -> Result<Vec<(u64, Bytes)>, MessagesError> {
        missed(&self.connection, user, position, most).await
    }

    /// Drops some of the events from before `oldest`, and of the oldest that are more than `most`.
    /// Says how many, 0 if there are none.
    pub(super) async fn forget(
        &mut self,
        oldest: Timestamp,
        most: u64,
    ) -> Result<u64, MessagesError> {
        let mut transaction = self.connection.write().await.map_err(storing)?;
        // They came in the order of their places, so only the first ones are looked at.
        let old: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM (SELECT time FROM events ORDER BY seq LIMIT ?) WHERE time < ?",
        )
        .bind(FORGOTTEN_AT_ONCE)
        .bind(oldest.as_microsecond())
        .fetch_one(&mut *transaction)
        .await
        .map_err(reading)?;
        if self.kept > most {
            // Offers that have ended are among those that were counted.
            let kept: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM events")
                .fetch_one(&mut *transaction)
                .await
                .map_err(reading)?;
            self.kept = unsigned(kept);
        }
        let surplus = integer(self.kept.saturating_sub(most));
        let dropped = sqlx::query(
            "DELETE FROM events WHERE seq IN (SELECT seq FROM events ORDER BY seq LIMIT ?)",
        )
        .bind(old.max(surplus).min(FORGOTTEN_AT_ONCE))
        .execute(&mut *transaction)
        .await
        .map_err(storing)?;
        transaction.commit().await.map_err(storing)?;
        self.kept -= dropped.rows_affected().min(self.kept);
        Ok(dropped.rows_affected())
    }

    /// Keeps all of it or nothing; what is kept survives a power cut.
    pub(super) async fn commit(&mut self, batch: &Batch) -> Result<(), MessagesError> {
        let mut transaction = self.connection.write().await.map_err(storing)?;
        if !self.recovered {
            let ended = end_earlier_server(&mut transaction, self.before).await;
            ended.map_err(storing)?;
        }
        write(&mut transaction, batch).await.map_err(storing)?;
        transaction.commit().await.map_err(storing)?;
        self.recovered = true;
        self.kept += batch.messages.len() as u64;
        Ok(())
    }
}

/// Who was told everything as it was stored has been told all that a server that is gone has kept.
async fn end_earlier_server(
    connection: &mut SqliteConnection,
    before: u64,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE inboxes SET live = FALSE, told = MAX(told, ?) WHERE live")
        .bind(integer(before))
        .execute(&mut *connection)
        .await?;
    Ok(())
}

async fn write(connection: &mut SqliteConnection, batch: &Batch) -> Result<(), sqlx::Error> {
    if !batch.messages.is_empty() {
        write_messages(connection, &batch.messages).await?;
    }
    offers::write(connection, batch).await?;
    for (room, user, since) in &batch.joined {
        sqlx::query("INSERT OR IGNORE INTO members VALUES (?, ?, ?, ?)")
            .bind(room.as_str())
            .bind(user.id)
            .bind(&*user.name)
            .bind(integer(*since))
            .execute(&mut *connection)
            .await?;
    }
    for (room, user) in &batch.left {
        sqlx::query("DELETE FROM members WHERE room = ? AND user = ?")
            .bind(room.as_str())
            .bind(user)
            .execute(&mut *connection)
            .await?;
    }
    for (user, inbox) in &batch.inboxes {
        sqlx::query("INSERT OR REPLACE INTO inboxes VALUES (?, ?, ?)")
            .bind(user)
            .bind(integer(inbox.told))
            .bind(inbox.live)
            .execute(&mut *connection)
            .await?;
    }
    if let Some(reserved) = batch.reserved {
        sqlx::query("UPDATE counter SET reserved = ?")
            .bind(integer(reserved))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// All in one statement: it is the statements that cost, not the rows.
async fn write_messages(
    connection: &mut SqliteConnection,
    messages: &[Stored],
) -> Result<(), sqlx::Error> {
    type Values<'a> = (
        u64,
        i64,
        &'a str,
        Option<i64>,
        Option<&'a str>,
        &'a str,
        &'a str,
        i64,
        u8,
    );
    let rows: Vec<Values<'_>> = messages
        .iter()
        .map(|message| {
            let (receiver, room) = match &message.to {
                To::User(user) => (Some(user.id), None),
                To::Room(room) => (None, Some(room.as_str())),
            };
            let Stored {
                seq,
                from,
                to,
                body,
                time,
                file,
            } = message;
            let time = time.as_microsecond();
            (
                *seq,
                from.id,
                &*from.name,
                receiver,
                room,
                to.as_str(),
                &**body,
                time,
                u8::from(file.is_some()),
            )
        })
        .collect();
    let json = serde_json::to_string(&rows).map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query(
        "INSERT INTO events SELECT value ->> 0, value ->> 8, value ->> 1, value ->> 2, value ->> 3, \
         value ->> 4, value ->> 5, value ->> 6, value ->> 7 FROM json_each(?)",
    )
    .bind(json)
    .execute(&mut *connection)
    .await?;
    Ok(())
}

fn failed(doing: &'static str, source: sqlx::Error) -> MessagesError {
    MessagesError::Database {
        doing,
        source: Arc::new(source),
    }
}

pub(super) fn reading(source: sqlx::Error) -> MessagesError {
    failed("read", source)
}

fn storing(source: sqlx::Error) -> MessagesError {
    failed("store", source)
}

/// A number as `SQLite` keeps it; there are no larger ones on the wire.
pub(super) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(super) fn time(microseconds: i64) -> Timestamp {
    Timestamp::from_microsecond(microseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}
