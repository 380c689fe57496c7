//! Conversions between Rust values and columns, and the errors of the database.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::database::DatabaseOpenError;
use crate::messages::error::MessagesError;

impl From<DatabaseOpenError> for MessagesError {
    fn from(error: DatabaseOpenError) -> Self {
        match error {
            DatabaseOpenError::Create { path, source } => Self::Make { path, source },
            DatabaseOpenError::Open(source) => database_error("open", source),
        }
    }
}

fn database_error(doing: &'static str, source: sqlx::Error) -> MessagesError {
    MessagesError::Database {
        doing,
        source: Arc::new(source),
    }
}

pub(crate) fn read_error(source: sqlx::Error) -> MessagesError {
    database_error("read", source)
}

pub(crate) fn write_error(source: sqlx::Error) -> MessagesError {
    database_error("store", source)
}

/// A number as a column. `SQLite` has no larger ones, and neither has the wire.
pub(crate) fn to_column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn milliseconds_column(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

pub(crate) fn from_column(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// The time of a column. Clamps values that [`Timestamp`] cannot represent.
pub(crate) fn timestamp(microseconds: i64) -> Timestamp {
    let outermost = if microseconds < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    };
    Timestamp::from_microsecond(microseconds).unwrap_or(outermost)
}
