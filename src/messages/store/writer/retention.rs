//! The deletion of old events, and of those above the limit.

use std::time::Duration;

use sqlx::sqlite::SqliteConnection;

use crate::messages::error::MessagesError;
use crate::messages::store::columns::{milliseconds_column, to_column, write_error};
use crate::messages::store::writer::{MessageWriter, save_uptime};

/// The most events that one transaction deletes. Commits wait for it meanwhile.
const MAX_PRUNED_AT_ONCE: u64 = 500;

/// How often the uptime is stored while nothing else is. After a crash, the uptime is behind by at
/// most as much.
const UPTIME_SAVE_INTERVAL: Duration = Duration::from_mins(10);

pub(crate) const DELETE_OLD: &str = "\
    DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE seq > 0 ORDER BY seq LIMIT ?1) \
    AND uptime <= ?2 RETURNING sender";

pub(crate) const DELETE_OF_SENDER: &str = "\
    DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE sender = ?1 ORDER BY seq LIMIT ?2) \
    RETURNING sender";

impl MessageWriter {
    /// Deletes a bounded number of the events that are older than `keep`. If there are none, deletes
    /// the oldest events of senders that exceed their share of `max_events`. Returns the number of
    /// deleted events; 0 means that the retention limits hold.
    pub(crate) async fn prune(
        &mut self,
        keep: Duration,
        max_events: u64,
    ) -> Result<u64, MessagesError> {
        let uptime = self.uptime.now();
        let mut transaction = self.pool.write().await.map_err(write_error)?;
        let mut deleted = match uptime.checked_sub(keep) {
            Some(oldest) => delete_old(&mut transaction, oldest)
                .await
                .map_err(write_error)?,
            None => Vec::new(),
        };
        if deleted.is_empty() {
            for (sender, surplus) in self.counts.surplus(max_events) {
                let left = MAX_PRUNED_AT_ONCE.saturating_sub(deleted.len() as u64);
                if left == 0 {
                    break;
                }
                let senders = delete_of_sender(&mut transaction, sender, surplus.min(left)).await;
                deleted.extend(senders.map_err(write_error)?);
            }
        }
        let is_due = uptime.saturating_sub(self.stored_uptime) >= UPTIME_SAVE_INTERVAL;
        if is_due {
            save_uptime(&mut transaction, uptime)
                .await
                .map_err(write_error)?;
        }
        transaction.commit().await.map_err(write_error)?;
        if is_due {
            self.stored_uptime = uptime;
        }
        for sender in &deleted {
            self.counts.remove(*sender);
        }
        Ok(deleted.len() as u64)
    }
}

/// Deletes a bounded number of the first events that were stored by the uptime `oldest`, and returns
/// their senders. Events are stored in the order of `seq`.
async fn delete_old(
    connection: &mut SqliteConnection,
    oldest: Duration,
) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar(DELETE_OLD)
        .bind(to_column(MAX_PRUNED_AT_ONCE))
        .bind(milliseconds_column(oldest))
        .fetch_all(connection)
        .await
}

/// Deletes the first events of a sender, and returns the sender once for each.
async fn delete_of_sender(
    connection: &mut SqliteConnection,
    sender: i64,
    events: u64,
) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar(DELETE_OF_SENDER)
        .bind(sender)
        .bind(to_column(events))
        .fetch_all(connection)
        .await
}
