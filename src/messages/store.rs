//! The database of messages: what is kept, and how it is read back.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, TryStreamExt as _};
use jiff::Timestamp;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};

use crate::clock::Clock;
use crate::database;
use crate::database::{ConnectionPool, OpenError};
use crate::messages::epochs;
use crate::messages::offers;
use crate::messages::offers::OfferedFile;
use crate::messages::presence::Inbox;
use crate::messages::rooms::Members;
use crate::messages::{MessagesError, Recipient, RoomName, UserRef};
use crate::protocol::{Event, HistoryReply, Message, Offer, encode_event};

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    database::migrator(&[
        (1, "messages", include_str!("migrations/0001_messages.sql")),
        (
            2,
            "retention",
            include_str!("migrations/0002_retention.sql"),
        ),
    ])
});

/// Connections that read at once; each is a thread. No read looks at more rows than it returns, but
/// for a few that are filtered out.
const READERS: usize = 4;

/// Events that are dropped at a time: what comes meanwhile waits.
const FORGOTTEN_AT_ONCE: u64 = 500;

/// How often the uptime is kept where nothing else is. A server that is killed has run for so much
/// less than it did.
const UPTIME_KEPT_EVERY: Duration = Duration::from_mins(10);

/// JSON of a message in `history` beside its texts, in bytes.
const ENTRY: usize = 120;

/// Events for a user after a place, in order: of direct messages and offers, and of each room that
/// the user is in, at most as many as are wanted. One statement reads one state of the database, so
/// that nothing is passed over which is stored while it runs.
const BACKLOG: &str = "\
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

/// What was said in a room before a place, the latest first.
const ROOM_HISTORY: &str = "\
    SELECT seq, sent_by, addressee, body, time FROM events \
    WHERE room = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3";

/// What two users said to each other before a place, the latest first.
const DIRECT_HISTORY: &str = "\
    SELECT seq, sent_by, addressee, body, time FROM events \
    WHERE sender = ?1 AND receiver = ?2 AND kind = 0 AND seq < ?3 \
    UNION ALL \
    SELECT seq, sent_by, addressee, body, time FROM events \
    WHERE sender = ?2 AND receiver = ?1 AND ?1 <> ?2 AND kind = 0 AND seq < ?3 \
    ORDER BY seq DESC LIMIT ?4";

const DROP_OLD: &str = "\
    DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE seq > 0 ORDER BY seq LIMIT ?1) \
    AND uptime <= ?2 RETURNING sender";

const DROP_OF_SENDER: &str = "\
    DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE sender = ?1 ORDER BY seq LIMIT ?2) \
    RETURNING sender";

/// What reads.
#[derive(Debug)]
pub(super) struct MessageStore {
    pub(super) readers: ConnectionPool,
    pub(super) uptime: RunTime,
}

/// How long servers have run on the database, all of them together. Nobody sets it.
#[derive(Debug, Clone)]
pub(super) struct RunTime {
    pub(super) clock: Clock,
    /// When this server began, by the clock.
    started: Duration,
    /// The uptime then.
    before: Duration,
}

impl RunTime {
    pub(super) fn now(&self) -> Duration {
        self.before + self.clock.elapsed().saturating_sub(self.started)
    }
}

/// What writes: one connection, the sequencer's, which is opened anew after a failure.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) connection: ConnectionPool,
    pub(super) uptime: RunTime,
    /// The uptime that the database knows.
    kept_uptime: Duration,
    /// Events in the database, by sender.
    kept: KeptCounts,
    /// The last event that an earlier server has kept.
    before: u64,
    /// What the database does not know yet: that another server has begun.
    begins: Option<Beginning>,
}

/// A server begins.
#[derive(Debug)]
struct Beginning {
    epoch: String,
    /// The places up to here were given out before.
    after: u64,
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
    pub(super) from: UserRef,
    pub(super) to: Recipient,
    /// The text of a message, the identifier of an offer.
    pub(super) body: String,
    pub(super) time: Timestamp,
    /// The uptime at that time.
    pub(super) uptime: Duration,
    /// Who was in the room when it was said, if it was said in one.
    pub(super) members: Option<Members>,
    /// What is offered, if it is an offer.
    pub(super) offer: Option<StoredOffer>,
}

/// What a stored offer has beside its event.
#[derive(Debug, Clone)]
pub(super) struct StoredOffer {
    pub(super) file: OfferedFile,
    /// When the offer ends.
    pub(super) expires: Timestamp,
    /// The uptime at which it is removed.
    pub(super) ends: Duration,
}

impl Stored {
    /// The event as its receivers get it.
    pub(super) fn event(&self) -> Event {
        if let Some(StoredOffer { file, expires, .. }) = &self.offer {
            return Event::Offer(Offer {
                seq: self.seq,
                from: self.from.name.to_string(),
                path: offers::name_of(&file.path),
                size: file.size,
                offer: self.body.clone(),
                expires: *expires,
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

impl Recipient {
    fn as_str(&self) -> &str {
        match self {
            Self::User(user) => &user.name,
            Self::Room(room) => room.as_str(),
        }
    }
}

/// All that one commit keeps.
#[derive(Debug, Default)]
pub(super) struct CommitBatch {
    pub(super) messages: Vec<Stored>,
    /// After those who left: nobody leaves whom this has.
    pub(super) joined: Vec<(RoomName, UserRef, u64)>,
    pub(super) left: Vec<(RoomName, i64)>,
    /// Offers that end.
    pub(super) closed: Vec<String>,
    /// All offers end whose time is over by this uptime.
    pub(super) expired: Option<Duration>,
    pub(super) inboxes: HashMap<i64, Inbox>,
    /// Places up to here are taken from now on.
    pub(super) reserved: Option<u64>,
}

impl CommitBatch {
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
#[derive(Debug)]
struct Row {
    seq: i64,
    sent_by: String,
    addressee: String,
    body: String,
    time: i64,
}

impl FromRow<'_, SqliteRow> for Row {
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

/// A row of the backlog: an event, and what is offered if it is an offer.
#[derive(Debug)]
struct BacklogRow {
    row: Row,
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
            row: Row::from_row(row)?,
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
    /// The event, if `user` is told of it: nobody hears in a room what they said themselves.
    fn into_event(self, user: i64, uptime: Duration) -> Option<Event> {
        if self.kind == 0 {
            let is_own = self.sender == user && RoomName::is_meant(&self.row.addressee);
            return (!is_own).then(|| Event::Message(self.row.into_message()));
        }
        self.ends.filter(|ends| *ends > milliseconds(uptime))?;
        Some(Event::Offer(Offer {
            seq: self.row.seq(),
            path: offers::name_of(&self.path?),
            size: unsigned(self.size?),
            from: self.row.sent_by,
            offer: self.row.body,
            expires: time(self.expires?),
        }))
    }
}

/// A part of what a user was not told yet.
#[derive(Debug)]
pub(super) struct Backlog {
    /// In order, as they go into a lane.
    pub(super) events: Vec<(u64, Bytes)>,
    /// All up to here has been read.
    pub(super) position: u64,
    /// There was nothing more when it was read.
    pub(super) is_complete: bool,
}

impl From<OpenError> for MessagesError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Make { path, source } => Self::Make { path, source },
            OpenError::Open(source) => failed("open", source),
        }
    }
}

impl MessageStore {
    pub(super) async fn check(data: &Path) -> Result<(), MessagesError> {
        Ok(database::check(data, "messages.db", &MIGRATIONS).await?)
    }

    pub(super) async fn open(data: &Path, clock: Clock) -> Result<(Self, Writer), MessagesError> {
        let (options, _) = database::open(data, "messages.db", &MIGRATIONS).await?;
        let readers = ConnectionPool::new(options.clone(), READERS);
        let uptime = RunTime {
            started: clock.elapsed(),
            before: Duration::ZERO,
            clock,
        };
        let writer = Writer {
            connection: ConnectionPool::new(options, 1),
            uptime: uptime.clone(),
            kept_uptime: Duration::ZERO,
            kept: KeptCounts::default(),
            before: 0,
            begins: None,
        };
        Ok((Self { readers, uptime }, writer))
    }

    /// The next events for `user` after `position`, from at most `limit` rows.
    pub(super) async fn backlog(
        &self,
        user: i64,
        position: u64,
        limit: usize,
    ) -> Result<Backlog, MessagesError> {
        let now = self.uptime.now();
        backlog(&self.readers, user, position, limit, now).await
    }

    /// What was said between `user` and `with`, or in the room `with` if the user is in it.
    pub(super) async fn history(
        &self,
        user: &UserRef,
        with: &Recipient,
        before: Option<u64>,
        limit: usize,
        budget: usize,
    ) -> Result<HistoryReply, MessagesError> {
        let before = integer(before.unwrap_or(i64::MAX as u64));
        // One more than asked for tells whether there is more.
        let rows = integer(limit.saturating_add(1) as u64);
        let mut transaction = self.readers.read().await.map_err(reading)?;
        let query = match with {
            Recipient::Room(room) => {
                check_member(&mut transaction, user, room).await?;
                sqlx::query_as(ROOM_HISTORY).bind(room.as_str())
            }
            Recipient::User(other) => sqlx::query_as(DIRECT_HISTORY).bind(user.id).bind(other.id),
        };
        let rows = query.bind(before).bind(rows).fetch(&mut *transaction);
        let page = page(rows, limit, budget).await.map_err(reading)?;
        transaction.commit().await.map_err(reading)?;
        Ok(page)
    }
}

/// Makes sure that `user` is in `room`.
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
        .map_err(reading)?;
    match found {
        (true, _) => Ok(()),
        (false, true) => Err(MessagesError::NotInRoom(room.clone())),
        (false, false) => Err(MessagesError::NoSuchRoom(room.clone())),
    }
}

/// The latest of `rows`, which begin with the last, in the order of `seq`. Reads no more of them
/// than fit.
async fn page(
    mut rows: impl Stream<Item = Result<Row, sqlx::Error>> + Unpin,
    limit: usize,
    budget: usize,
) -> Result<HistoryReply, sqlx::Error> {
    let mut left = budget;
    let mut messages = Vec::new();
    let mut more = false;
    while let Some(row) = rows.try_next().await? {
        let text = serde_json::to_string(&row.body).map_or(0, |text| text.len());
        let size = ENTRY + row.sent_by.len() + row.addressee.len() + text;
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

async fn backlog(
    connections: &ConnectionPool,
    user: i64,
    position: u64,
    limit: usize,
    uptime: Duration,
) -> Result<Backlog, MessagesError> {
    let mut transaction = connections.read().await.map_err(reading)?;
    let rows: Vec<BacklogRow> = sqlx::query_as(BACKLOG)
        .bind(user)
        .bind(integer(position))
        .bind(integer(limit as u64))
        .fetch_all(&mut *transaction)
        .await
        .map_err(reading)?;
    transaction.commit().await.map_err(reading)?;
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

impl Writer {
    /// Looks at what an earlier server has left; says which places are taken, and which epochs have
    /// begun after which places. Nothing is written: the disk may be full.
    pub(super) async fn look(&mut self) -> Result<(u64, Vec<(String, u64)>), MessagesError> {
        let mut transaction = self.connection.read().await.map_err(reading)?;
        let (reserved, uptime, last, last_uptime): (i64, i64, i64, i64) = sqlx::query_as(
            "SELECT reserved, counter.uptime, COALESCE(seq, 0), COALESCE(events.uptime, 0) \
             FROM counter LEFT JOIN events ON seq = (SELECT MAX(seq) FROM events)",
        )
        .fetch_one(&mut *transaction)
        .await
        .map_err(reading)?;
        let kept: Vec<(i64, i64)> =
            sqlx::query_as("SELECT sender, COUNT(*) FROM events GROUP BY sender")
                .fetch_all(&mut *transaction)
                .await
                .map_err(reading)?;
        let epochs: Vec<(String, i64)> =
            sqlx::query_as("SELECT epoch, after FROM epochs ORDER BY number")
                .fetch_all(&mut *transaction)
                .await
                .map_err(reading)?;
        transaction.commit().await.map_err(reading)?;
        for (sender, events) in kept {
            self.kept.add(sender, unsigned(events));
        }
        self.before = unsigned(last);
        self.kept_uptime = Duration::from_millis(unsigned(uptime.max(last_uptime)));
        self.uptime.before = self.kept_uptime;
        let epochs = epochs.into_iter();
        let epochs = epochs.map(|(epoch, after)| (epoch, unsigned(after)));
        Ok((unsigned(reserved), epochs.collect()))
    }

    /// Has the next commit begin an epoch.
    pub(super) fn begin(&mut self, epoch: &str, after: u64) {
        let epoch = epoch.to_owned();
        self.begins = Some(Beginning { epoch, after });
    }

    /// Who is in which room.
    pub(super) async fn rooms(&mut self) -> Result<Vec<(RoomName, UserRef)>, MessagesError> {
        let mut transaction = self.connection.read().await.map_err(reading)?;
        let rows: Vec<(String, i64, String)> =
            sqlx::query_as("SELECT room, user, name FROM members")
                .fetch_all(&mut *transaction)
                .await
                .map_err(reading)?;
        transaction.commit().await.map_err(reading)?;
        let members = rows.into_iter().filter_map(|(room, id, name)| {
            let name = name.into();
            Some((room.parse().ok()?, UserRef { id, name }))
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

    /// As [`Store::backlog`].
    pub(super) async fn backlog(
        &mut self,
        user: i64,
        position: u64,
        limit: usize,
    ) -> Result<Backlog, MessagesError> {
        let now = self.uptime.now();
        backlog(&self.connection, user, position, limit, now).await
    }

    /// Drops some of the events that are older than `keep`, and of the oldest of those who have more
    /// than their share of `most`. Says how many, 0 if there are none.
    pub(super) async fn forget(&mut self, keep: Duration, most: u64) -> Result<u64, MessagesError> {
        let uptime = self.uptime.now();
        let mut transaction = self.connection.write().await.map_err(storing)?;
        let mut dropped = match uptime.checked_sub(keep) {
            Some(oldest) => drop_old(&mut transaction, oldest).await.map_err(storing)?,
            None => Vec::new(),
        };
        if dropped.is_empty() {
            for (sender, surplus) in self.kept.surplus(most) {
                let left = FORGOTTEN_AT_ONCE.saturating_sub(dropped.len() as u64);
                if left == 0 {
                    break;
                }
                let surplus = surplus.min(left);
                let said = drop_of(&mut transaction, sender, surplus).await;
                dropped.extend(said.map_err(storing)?);
            }
        }
        let is_due = uptime.saturating_sub(self.kept_uptime) >= UPTIME_KEPT_EVERY;
        if is_due {
            keep_uptime(&mut transaction, uptime)
                .await
                .map_err(storing)?;
        }
        transaction.commit().await.map_err(storing)?;
        if is_due {
            self.kept_uptime = uptime;
        }
        for sender in &dropped {
            self.kept.remove(*sender);
        }
        Ok(dropped.len() as u64)
    }

    /// Keeps all of it or nothing; what is kept survives a power cut.
    pub(super) async fn commit(&mut self, batch: &CommitBatch) -> Result<(), MessagesError> {
        let uptime = self.uptime.now();
        let mut transaction = self.connection.write().await.map_err(storing)?;
        if let Some(beginning) = &self.begins {
            let begun = begin(&mut transaction, beginning, self.before).await;
            begun.map_err(storing)?;
        }
        let ended = write(&mut transaction, batch).await.map_err(storing)?;
        if batch.reserved.is_some() {
            keep_uptime(&mut transaction, uptime)
                .await
                .map_err(storing)?;
        }
        transaction.commit().await.map_err(storing)?;
        self.begins = None;
        if batch.reserved.is_some() {
            self.kept_uptime = uptime;
        }
        for message in &batch.messages {
            self.kept.add(message.from.id, 1);
        }
        for sender in ended {
            self.kept.remove(sender);
        }
        Ok(())
    }
}

/// How many events of each sender are in the database.
#[derive(Debug, Default)]
struct KeptCounts {
    of: HashMap<i64, u64>,
    total: u64,
}

impl KeptCounts {
    fn add(&mut self, sender: i64, events: u64) {
        *self.of.entry(sender).or_default() += events;
        self.total += events;
    }

    fn remove(&mut self, sender: i64) {
        if let Some(events) = self.of.get_mut(&sender) {
            *events -= 1;
            self.total -= 1;
            if *events == 0 {
                self.of.remove(&sender);
            }
        }
    }

    /// Who has more than the share of `most` that is the same for all, and by how much: an event
    /// goes only because of what its own sender has said.
    fn surplus(&self, most: u64) -> Vec<(i64, u64)> {
        if self.total <= most {
            return Vec::new();
        }
        let mut counts: Vec<_> = self.of.values().copied().collect();
        counts.sort_unstable();
        let (mut left, mut share) = (most, 0);
        for (number, count) in counts.iter().enumerate() {
            let senders = (counts.len() - number) as u64;
            share = left / senders;
            if *count > share {
                break;
            }
            left -= count;
        }
        let above = self.of.iter().filter(|(_, count)| **count > share);
        above
            .map(|(sender, count)| (*sender, count - share))
            .collect()
    }
}

/// Drops the first events, a bounded number, as far as they were stored by this uptime; returns their
/// senders. Events are stored in the order of their places.
async fn drop_old(
    connection: &mut SqliteConnection,
    oldest: Duration,
) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar(DROP_OLD)
        .bind(integer(FORGOTTEN_AT_ONCE))
        .bind(milliseconds(oldest))
        .fetch_all(connection)
        .await
}

/// Drops the first events of a sender, and returns the sender for each.
async fn drop_of(
    connection: &mut SqliteConnection,
    sender: i64,
    events: u64,
) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar(DROP_OF_SENDER)
        .bind(sender)
        .bind(integer(events))
        .fetch_all(connection)
        .await
}

async fn keep_uptime(
    connection: &mut SqliteConnection,
    uptime: Duration,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE counter SET uptime = ?")
        .bind(milliseconds(uptime))
        .execute(connection)
        .await?;
    Ok(())
}

/// Begins an epoch. Who was told everything as it was stored has been told all that a server that is
/// gone has kept.
async fn begin(
    connection: &mut SqliteConnection,
    beginning: &Beginning,
    before: u64,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE inboxes SET live = FALSE, told = MAX(told, ?) WHERE live")
        .bind(integer(before))
        .execute(&mut *connection)
        .await?;
    sqlx::query("INSERT INTO epochs (epoch, after) VALUES (?, ?)")
        .bind(&beginning.epoch)
        .bind(integer(beginning.after))
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM epochs WHERE number <= (SELECT MAX(number) FROM epochs) - ?")
        .bind(epochs::REMEMBERED)
        .execute(&mut *connection)
        .await?;
    Ok(())
}

/// Returns who has made the offers that ended.
async fn write(
    connection: &mut SqliteConnection,
    batch: &CommitBatch,
) -> Result<Vec<i64>, sqlx::Error> {
    if !batch.messages.is_empty() {
        write_messages(connection, &batch.messages).await?;
    }
    let ended = offers::write(connection, batch).await?;
    for (room, user) in &batch.left {
        sqlx::query("DELETE FROM members WHERE room = ? AND user = ?")
            .bind(room.as_str())
            .bind(user)
            .execute(&mut *connection)
            .await?;
    }
    for (room, user, since) in &batch.joined {
        sqlx::query("INSERT OR IGNORE INTO members VALUES (?, ?, ?, ?)")
            .bind(room.as_str())
            .bind(user.id)
            .bind(&*user.name)
            .bind(integer(*since))
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
    Ok(ended)
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
        i64,
    );
    let rows: Vec<Values<'_>> = messages
        .iter()
        .map(|message| {
            let (receiver, room) = match &message.to {
                Recipient::User(user) => (Some(user.id), None),
                Recipient::Room(room) => (None, Some(room.as_str())),
            };
            let Stored {
                seq,
                from,
                to,
                body,
                time,
                uptime,
                members: _,
                offer,
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
                u8::from(offer.is_some()),
                milliseconds(*uptime),
            )
        })
        .collect();
    let json = serde_json::to_string(&rows).map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query(
        "INSERT INTO events SELECT value ->> 0, value ->> 8, value ->> 1, value ->> 2, value ->> 3, \
         value ->> 4, value ->> 5, value ->> 6, value ->> 7, value ->> 9 FROM json_each(?)",
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

pub(super) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(super) fn time(microseconds: i64) -> Timestamp {
    let outermost = if microseconds < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    };
    Timestamp::from_microsecond(microseconds).unwrap_or(outermost)
}

#[cfg(test)]
mod tests;
