//! The end of a classic conversation.

use std::io;
use std::time::Duration;

use crate::server::classic::frame::ClassicFrameError;

/// Why a classic conversation ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClassicClose {
    #[error("the client closed the connection")]
    Disconnected,
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    BadFrame(#[from] ClassicFrameError),
    #[error("a frame was not complete within {0:?}")]
    TimedOut(Duration),
    /// The session was closed with an error.
    #[error("{0}")]
    Refused(String),
    /// The session ended regularly.
    #[error("goodbye, {0}")]
    Goodbye(&'static str),
    /// The session ended without a reason.
    #[error("the session has ended")]
    SessionGone,
    /// The rest of an announced file cannot be sent.
    #[error("a file could not be sent completely: {0}")]
    CutShort(String),
}
