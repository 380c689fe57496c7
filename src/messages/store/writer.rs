//! The one writer of the database: commits and epochs. Retention is in a module of its own.

pub(crate) mod retention;

use std::time::Duration;

use sqlx::sqlite::SqliteConnection;

use crate::database::ConnectionPool;
use crate::messages::epochs;
use crate::messages::error::MessagesError;
use crate::messages::recipient::{Recipient, UserRef};
use crate::messages::room::RoomName;
use crate::messages::store::columns::{
    from_column, milliseconds_column, read_error, to_column, write_error,
};
use crate::messages::store::event::{CommitBatch, StoredEvent};
use crate::messages::store::event_counts::EventCounts;
use crate::messages::store::query::Backlog;
use crate::messages::store::run_time::RunTime;
use crate::messages::store::{offers, query};

/// The writing side of the database. It belongs to the sequencer.
#[derive(Debug)]
pub(crate) struct MessageWriter {
    /// A pool of one connection, which is reopened after a failure.
    pool: ConnectionPool,
    pub(crate) uptime: RunTime,
    /// The last sequence number that earlier servers reserved.
    pub(crate) reserved: u64,
    /// The epochs of earlier servers in their order, each with the last `seq` before it.
    pub(crate) earlier_epochs: Vec<(String, u64)>,
    /// The uptime in the database.
    stored_uptime: Duration,
    counts: EventCounts,
    /// The `seq` of the last event that an earlier server stored.
    last_stored_earlier: u64,
    /// The epoch of this server, until a commit has stored it.
    new_epoch: Option<NewEpoch>,
}

#[derive(Debug)]
struct NewEpoch {
    name: String,
    /// The last `seq` before it.
    after: u64,
}

impl MessageWriter {
    /// Loads what earlier servers left. Writes nothing, because the disk may be full.
    pub(crate) async fn load(
        pool: ConnectionPool,
        mut uptime: RunTime,
    ) -> Result<Self, MessagesError> {
        let mut transaction = pool.read().await.map_err(read_error)?;
        let (reserved, counter_uptime, last, last_uptime): (i64, i64, i64, i64) = sqlx::query_as(
            "SELECT reserved, counter.uptime, COALESCE(seq, 0), COALESCE(events.uptime, 0) \
             FROM counter LEFT JOIN events ON seq = (SELECT MAX(seq) FROM events)",
        )
        .fetch_one(&mut *transaction)
        .await
        .map_err(read_error)?;
        let by_sender: Vec<(i64, i64)> =
            sqlx::query_as("SELECT sender, COUNT(*) FROM events GROUP BY sender")
                .fetch_all(&mut *transaction)
                .await
                .map_err(read_error)?;
        let epochs: Vec<(String, i64)> =
            sqlx::query_as("SELECT epoch, after FROM epochs ORDER BY number")
                .fetch_all(&mut *transaction)
                .await
                .map_err(read_error)?;
        transaction.commit().await.map_err(read_error)?;
        let mut counts = EventCounts::default();
        for (sender, events) in by_sender {
            counts.add(sender, from_column(events));
        }
        let stored_uptime = Duration::from_millis(from_column(counter_uptime.max(last_uptime)));
        uptime.continue_from(stored_uptime);
        let epochs = epochs.into_iter();
        Ok(Self {
            pool,
            uptime,
            reserved: from_column(reserved),
            earlier_epochs: epochs
                .map(|(epoch, after)| (epoch, from_column(after)))
                .collect(),
            stored_uptime,
            counts,
            last_stored_earlier: from_column(last),
            new_epoch: None,
        })
    }

    /// Stores the epoch of this server with the next commit. `after` is the last `seq` before it.
    pub(crate) fn set_epoch(&mut self, epoch: &str, after: u64) {
        let name = epoch.to_owned();
        self.new_epoch = Some(NewEpoch { name, after });
    }

    /// The members of all rooms.
    pub(crate) async fn rooms(&mut self) -> Result<Vec<(RoomName, UserRef)>, MessagesError> {
        let mut transaction = self.pool.read().await.map_err(read_error)?;
        let rows: Vec<(String, i64, String)> =
            sqlx::query_as("SELECT room, user, name FROM members")
                .fetch_all(&mut *transaction)
                .await
                .map_err(read_error)?;
        transaction.commit().await.map_err(read_error)?;
        let members = rows.into_iter().filter_map(|(room, id, name)| {
            let name = name.into();
            Some((room.parse().ok()?, UserRef { id, name }))
        });
        Ok(members.collect())
    }

    /// The `seq` up to which events were delivered to `user`, who has no live session.
    pub(crate) async fn delivered(&mut self, user: i64) -> Result<u64, MessagesError> {
        let mut transaction = self.pool.read().await.map_err(read_error)?;
        let inbox: Option<(i64, bool)> =
            sqlx::query_as("SELECT told, live FROM inboxes WHERE user = ?")
                .bind(user)
                .fetch_optional(&mut *transaction)
                .await
                .map_err(read_error)?;
        transaction.commit().await.map_err(read_error)?;
        Ok(match inbox {
            None => 0,
            Some((delivered, false)) => from_column(delivered),
            Some((delivered, true)) => from_column(delivered).max(self.last_stored_earlier),
        })
    }

    /// The next events for `user` after `position`, from at most `limit` rows.
    pub(crate) async fn backlog(
        &mut self,
        user: i64,
        position: u64,
        limit: usize,
    ) -> Result<Backlog, MessagesError> {
        query::backlog(&self.pool, user, position, limit, self.uptime.now()).await
    }

    /// Whether an offer in the database has expired by `uptime`.
    pub(crate) async fn has_expired_offers(
        &mut self,
        uptime: Duration,
    ) -> Result<bool, MessagesError> {
        offers::has_expired(&self.pool, uptime).await
    }

    /// The numbers of open offers from `from` and of open offers to `to`.
    pub(crate) async fn count_open_offers(
        &mut self,
        from: i64,
        to: i64,
    ) -> Result<(usize, usize), MessagesError> {
        offers::count_open(&self.pool, from, to, self.uptime.now()).await
    }

    /// Stores the batch in one transaction. What is committed survives a power cut.
    pub(crate) async fn commit(&mut self, batch: &CommitBatch) -> Result<(), MessagesError> {
        let uptime = self.uptime.now();
        let mut transaction = self.pool.write().await.map_err(write_error)?;
        if let Some(epoch) = &self.new_epoch {
            begin_epoch(&mut transaction, epoch, self.last_stored_earlier)
                .await
                .map_err(write_error)?;
        }
        let closed_offers = write_batch(&mut transaction, batch)
            .await
            .map_err(write_error)?;
        if batch.reserved.is_some() {
            save_uptime(&mut transaction, uptime)
                .await
                .map_err(write_error)?;
        }
        transaction.commit().await.map_err(write_error)?;
        self.new_epoch = None;
        if batch.reserved.is_some() {
            self.stored_uptime = uptime;
        }
        for message in &batch.messages {
            self.counts.add(message.from.id, 1);
        }
        for sender in closed_offers {
            self.counts.remove(sender);
        }
        Ok(())
    }
}

async fn save_uptime(
    connection: &mut SqliteConnection,
    uptime: Duration,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE counter SET uptime = ?")
        .bind(milliseconds_column(uptime))
        .execute(connection)
        .await?;
    Ok(())
}

/// Stores an epoch. Users who were live have received all that earlier servers stored, which ends at
/// `last_stored`.
async fn begin_epoch(
    connection: &mut SqliteConnection,
    epoch: &NewEpoch,
    last_stored: u64,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE inboxes SET live = FALSE, told = MAX(told, ?) WHERE live")
        .bind(to_column(last_stored))
        .execute(&mut *connection)
        .await?;
    sqlx::query("INSERT INTO epochs (epoch, after) VALUES (?, ?)")
        .bind(&epoch.name)
        .bind(to_column(epoch.after))
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM epochs WHERE number <= (SELECT MAX(number) FROM epochs) - ?")
        .bind(epochs::MAX_EPOCHS)
        .execute(&mut *connection)
        .await?;
    Ok(())
}

/// Stores the batch, and returns the senders of the offers that it closed.
async fn write_batch(
    connection: &mut SqliteConnection,
    batch: &CommitBatch,
) -> Result<Vec<i64>, sqlx::Error> {
    if !batch.messages.is_empty() {
        write_messages(connection, &batch.messages).await?;
    }
    let closed_offers = offers::write(connection, batch).await?;
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
            .bind(to_column(*since))
            .execute(&mut *connection)
            .await?;
    }
    for (user, inbox) in &batch.inboxes {
        sqlx::query("INSERT OR REPLACE INTO inboxes VALUES (?, ?, ?)")
            .bind(user)
            .bind(to_column(inbox.delivered))
            .bind(inbox.live)
            .execute(&mut *connection)
            .await?;
    }
    if let Some(reserved) = batch.reserved {
        sqlx::query("UPDATE counter SET reserved = ?")
            .bind(to_column(reserved))
            .execute(&mut *connection)
            .await?;
    }
    Ok(closed_offers)
}

/// Stores all messages with one statement: the cost is per statement, not per row.
async fn write_messages(
    connection: &mut SqliteConnection,
    messages: &[StoredEvent],
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
            let StoredEvent {
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
                milliseconds_column(*uptime),
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
