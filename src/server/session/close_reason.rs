//! The reasons for which a session ends.

use crate::connection::{OutboxClosed, ReceiveError};
use crate::protocol::{ErrorCode, FrameError, GoodbyeReason, WireError};
use crate::server::transfer::session_transfers::StrayData;

/// Why a session ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CloseReason {
    #[error("the peer closed the connection")]
    Disconnected,
    #[error("the client quit")]
    Quit,
    #[error("goodbye, {}", reason_text(*.0))]
    Goodbye(GoodbyeReason),
    #[error("{0}")]
    BadFrame(FrameError),
    #[error("{0}")]
    Stray(StrayData),
    #[error("{0}")]
    TimedOut(String),
    #[error(
        "the server has too many connections, and this one has not logged in; try again in a moment"
    )]
    Evicted,
    #[error("the connection sent more than {0} frames before a login")]
    TooManyFrames(usize),
    #[error("{0} logins failed on this connection")]
    TooManyFailures(usize),
    #[error("too many wrong passwords in one session")]
    Guessing,
}

/// How long a peer should wait before it reconnects after the server closed for a limit.
const RETRY_AFTER_MS: u64 = 1000;

/// Why the server says goodbye, for a person.
pub(crate) fn reason_text(reason: GoodbyeReason) -> &'static str {
    match reason {
        GoodbyeReason::ShuttingDown => "the server is stopping",
        GoodbyeReason::AccountClosed => "the account is closed",
        GoodbyeReason::Idle => "the session was idle for too long",
        GoodbyeReason::Kicked => "an operator has ended the session",
        GoodbyeReason::Unknown => "for no known reason",
    }
}

impl CloseReason {
    /// The error that the peer gets before the connection closes; `None` if it has left or knows the reason.
    pub(crate) fn refusal(&self) -> Option<WireError> {
        let code = match self {
            Self::BadFrame(FrameError::Io(_) | FrameError::Truncated)
            | Self::Disconnected
            | Self::Quit
            | Self::Goodbye(_) => return None,
            Self::BadFrame(_) | Self::Stray(_) => ErrorCode::BadFrame,
            Self::TimedOut(_) => ErrorCode::TimedOut,
            Self::Evicted | Self::TooManyFrames(_) => ErrorCode::Limited,
            Self::TooManyFailures(_) | Self::Guessing => ErrorCode::TooManyAttempts,
        };
        let mut refusal = WireError::new(code, self.to_string());
        if matches!(code, ErrorCode::Limited | ErrorCode::TooManyAttempts) {
            refusal.retry_after_ms = Some(RETRY_AFTER_MS);
        }
        Some(refusal)
    }
}

impl From<OutboxClosed> for CloseReason {
    fn from(_: OutboxClosed) -> Self {
        Self::Disconnected
    }
}

impl From<StrayData> for CloseReason {
    fn from(stray: StrayData) -> Self {
        Self::Stray(stray)
    }
}

impl From<ReceiveError> for CloseReason {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Frame(error) => Self::BadFrame(error),
            ReceiveError::TimedOut(_) => Self::TimedOut(error.to_string()),
        }
    }
}
