//! Events: the frames that the server sends without a request.

use serde::{Deserialize, Serialize};

use crate::protocol::{Message, Offer};

/// A frame without an `id`, sent to a logged-in session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A message to this user, or in a room that the user is in.
    Message(Message),
    /// A file that another user offers to this user.
    Offer(Offer),
    /// A change at or below a path that this session watches.
    Changed(Changed),
    /// The server is about to close this connection.
    Goodbye {
        /// The reason.
        reason: GoodbyeReason,
    },
    /// An event that this version does not know.
    #[serde(other, skip_serializing)]
    Unknown,
}

/// A change at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The sequence number of the event.
    pub seq: u64,
    /// The absolute path.
    pub path: String,
    /// The kind of the change.
    pub kind: ChangeKind,
    /// The earlier path of a moved entry, if the session watches that path too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The user who made the change. Absent from an overflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// The kind of a change at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChangeKind {
    /// A file has new content: it was put, copied or accepted.
    Written,
    /// A file, or a directory with its content, was removed.
    Removed,
    /// A file, or a directory with its content, was moved here from another path.
    Moved,
    /// A directory was created, perhaps with content.
    Made,
    /// Too many changes below the path to report them all. List it again.
    Overflow,
    /// A kind that this version does not know.
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
    /// The session was idle for too long.
    Idle,
    /// An operator has ended the session.
    Kicked,
    /// A reason that this version does not know.
    #[serde(other, skip_serializing)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_written_as_the_protocol_shows_them() {
        let json = |event: &Event| serde_json::to_string(event).expect("an event is JSON");
        let time = "2026-03-01T12:00:00Z".parse().expect("a time");
        let message = Event::Message(Message {
            seq: 41,
            from: "bob".into(),
            to: "#ops".into(),
            text: "backup is up".into(),
            time,
        });
        assert_eq!(
            json(&message),
            r##"{"event":"message","seq":41,"from":"bob","to":"#ops","text":"backup is up","time":"2026-03-01T12:00:00Z"}"##
        );
        let offer = Event::Offer(Offer {
            seq: 42,
            from: "bob".into(),
            to: None,
            path: "report.pdf".into(),
            size: 81234,
            offer: "7".into(),
            expires: time,
        });
        assert_eq!(
            json(&offer),
            r#"{"event":"offer","seq":42,"from":"bob","path":"report.pdf","size":81234,"offer":"7","expires":"2026-03-01T12:00:00Z"}"#
        );
        let changed = Event::Changed(Changed {
            seq: 43,
            path: "/team/a.csv".into(),
            kind: ChangeKind::Written,
            from: None,
            by: Some("bob".into()),
        });
        assert_eq!(
            json(&changed),
            r#"{"event":"changed","seq":43,"path":"/team/a.csv","kind":"written","by":"bob"}"#
        );
        for event in [message, offer, changed] {
            let parsed: Event = serde_json::from_str(&json(&event)).expect("an event");
            assert_eq!(parsed, event);
        }
    }

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
