//! Errors of the log.

use std::io;
use std::path::PathBuf;

use crate::io_error::describe_io_error;

/// Why logging failed.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be parsed.
    #[error("log.level: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// The filter contains a word that is not a level.
    #[error("{} is not a log level; use error, warn, info, debug or trace", .0.escape_debug())]
    NoLevel(String),
    /// The log file cannot be written.
    #[error("cannot write the log file {}: {reason}; check {setting}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
        /// The setting that names it.
        setting: &'static str,
    },
    /// The thread of the log cannot be started.
    #[error("cannot start the thread of the log: {}", describe_io_error(.0))]
    Thread(io::Error),
    /// This process logs already.
    #[error("the log was started already")]
    Started,
    /// The log has ended.
    #[error("the log has ended")]
    Ended,
}
