//! Which failures may pass, and when to try again.

use std::time::Duration;

use crate::client::{ClientError, Lost};
use crate::protocol::{ErrorCode, GoodbyeReason, WireError};

/// The kind of a failure, which decides what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// The same request would fail again.
    Final,
    /// The request may succeed on another connection.
    Connection,
    /// The request may succeed later on this connection.
    Temporary,
}

impl FailureKind {
    pub(super) fn classify(error: &ClientError) -> Self {
        match error {
            ClientError::Lost(Lost::Goodbye(
                GoodbyeReason::AccountClosed | GoodbyeReason::Kicked,
            )) => Self::Final,
            ClientError::Lost(
                Lost::Closed
                | Lost::Broken(_)
                | Lost::Unexpected(_)
                | Lost::HungUp
                | Lost::EventsUnread
                | Lost::Goodbye(_),
            )
            | ClientError::Connect { .. }
            | ClientError::TimedOut(_) => Self::Connection,
            ClientError::Lost(Lost::Refused(error)) | ClientError::Login(error) => {
                match Self::of_refusal(error) {
                    Self::Final => Self::Final,
                    _ => Self::Connection,
                }
            }
            ClientError::Server(error) => Self::of_refusal(error),
            _ => Self::Final,
        }
    }

    /// Some errors that the server marks as retryable are final here: a person must learn that a
    /// disk is full or fails.
    fn of_refusal(error: &WireError) -> Self {
        match error.code {
            ErrorCode::ShuttingDown => Self::Connection,
            ErrorCode::TimedOut | ErrorCode::Limited | ErrorCode::TooManyAttempts => {
                Self::Temporary
            }
            _ => Self::Final,
        }
    }
}

impl ClientError {
    /// Whether the same request may succeed later, or on another connection.
    pub(crate) fn may_pass(&self) -> bool {
        FailureKind::classify(self) != FailureKind::Final
    }

    /// The time that the server asks a client to wait before it tries again.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let (Self::Server(error) | Self::Login(error) | Self::Lost(Lost::Refused(error))) = self
        else {
            return None;
        };
        error.retry_after_ms.map(Duration::from_millis)
    }
}
