//! The database of messages: schema, readers and the one writer.
//!
//! [`MessageStore`] reads on a few pooled connections, from any task. [`MessageWriter`] belongs to
//! the sequencer, which is the only task that changes the database.

pub(crate) mod columns;
pub(crate) mod event;
mod event_counts;
pub(crate) mod offers;
pub(crate) mod query;
pub(crate) mod run_time;
pub(crate) mod writer;

use std::path::Path;
use std::sync::LazyLock;

use sqlx::migrate::Migrator;

use crate::clock::Clock;
use crate::database;
use crate::database::ConnectionPool;
use crate::messages::error::MessagesError;
use crate::messages::recipient::UserRef;
use crate::messages::store::event::OfferedFile;
use crate::messages::store::offers::OfferParty;
use crate::messages::store::query::{Backlog, HistoryQuery};
use crate::messages::store::run_time::RunTime;
use crate::messages::store::writer::MessageWriter;
use crate::protocol::{HistoryReply, OffersReply};

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

/// The most connections that read at once; each is a thread. A query looks at few more rows than
/// it returns.
const MAX_READERS: usize = 4;

/// Copies the messages of the data directory `data`, as they are at one moment, to the new file
/// `to`.
///
/// # Errors
/// [`MessagesError`] if the database cannot be read or the copy cannot be written.
pub async fn copy(data: &Path, to: &Path) -> Result<(), MessagesError> {
    Ok(database::copy(data, "messages.db", to).await?)
}

/// The reading side of the database.
#[derive(Debug)]
pub(crate) struct MessageStore {
    pub(crate) readers: ConnectionPool,
    pub(crate) uptime: RunTime,
}

impl MessageStore {
    pub(crate) async fn check(data: &Path) -> Result<(), MessagesError> {
        Ok(database::check(data, "messages.db", &MIGRATIONS).await?)
    }

    /// Opens the database, and loads into the writer what an earlier server left.
    pub(crate) async fn open(
        data: &Path,
        clock: Clock,
    ) -> Result<(Self, MessageWriter), MessagesError> {
        let (options, _) = database::open(data, "messages.db", &MIGRATIONS).await?;
        let pool = ConnectionPool::new(options.clone(), 1);
        let writer = MessageWriter::load(pool, RunTime::start(clock)).await?;
        let store = Self {
            readers: ConnectionPool::new(options, MAX_READERS),
            uptime: writer.uptime.clone(),
        };
        Ok((store, writer))
    }

    /// The next events for `user` after `position`, from at most `limit` rows.
    pub(crate) async fn backlog(
        &self,
        user: i64,
        position: u64,
        limit: usize,
    ) -> Result<Backlog, MessagesError> {
        query::backlog(&self.readers, user, position, limit, self.uptime.now()).await
    }

    /// One page of the messages that match the query.
    pub(crate) async fn history(
        &self,
        query: &HistoryQuery,
    ) -> Result<HistoryReply, MessagesError> {
        query::history(&self.readers, query).await
    }

    /// The open offers to `user`, or with `sent` from `user`, the oldest first, as many as `budget` bytes of JSON hold.
    pub(crate) async fn open_offers(
        &self,
        user: i64,
        sent: bool,
        budget: usize,
    ) -> Result<OffersReply, MessagesError> {
        offers::list_open(&self.readers, user, sent, self.uptime.now(), budget).await
    }

    /// The sender and the file of an open offer, if `user` is the given party to it.
    pub(crate) async fn find_offer(
        &self,
        offer: &str,
        user: i64,
        party: OfferParty,
    ) -> Result<Option<(UserRef, OfferedFile)>, MessagesError> {
        offers::find_open(&self.readers, offer, user, party, self.uptime.now()).await
    }
}

#[cfg(test)]
pub(crate) mod tests;
