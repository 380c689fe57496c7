//! Events: what the server says without being asked.

use serde::{Deserialize, Serialize};

/// A frame without an `id`, sent to a logged-in session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The server is about to close this connection.
    Goodbye {
        /// Why.
        reason: GoodbyeReason,
    },
    /// An event that this version does not know.
    #[serde(other, skip_serializing)]
    Unknown,
}

/// Why the server closes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GoodbyeReason {
    /// The server is stopping.
    ShuttingDown,
    /// The account was disabled or removed.
    AccountClosed,
    /// Nothing was asked and nothing moved for too long.
    Idle,
    /// A reason that this version does not know.
    #[serde(other, skip_serializing)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goodbye_is_written_as_the_protocol_shows_it() {
        let goodbye = Event::Goodbye {
            reason: GoodbyeReason::ShuttingDown,
        };
        assert_eq!(
            serde_json::to_string(&goodbye).expect("an event is JSON"),
            r#"{"event":"goodbye","reason":"shutting_down"}"#
        );
    }
}
