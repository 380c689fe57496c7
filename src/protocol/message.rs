//! The control frames of a server: replies, begins of streams, events, and final errors.
//!
//! ```text
//! {"id":2,"ok":{…}}        the one final reply of a request that succeeded
//! {"id":2,"error":{…}}     the one final reply of a request that did not
//! {"id":2,"begin":{…}}     before the data of a `get`, or once a `put` is ready
//! {"error":{…}}            the bytes were no frame; the connection closes
//! {"event":…}              an event, see [`Event`]
//! ```

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::protocol::{ErrorCode, Event, MAX_CONTROL, WireError};

/// The control payload of a final reply.
#[must_use]
pub fn encode_ok<T: Serialize>(id: u32, ok: &T) -> Bytes {
    #[derive(Serialize)]
    struct Ok<'a, T> {
        id: u32,
        ok: &'a T,
    }
    bounded(id, serde_json::to_vec(&Ok { id, ok }))
}

/// The control payload that comes before a stream's data.
#[must_use]
pub fn encode_begin<T: Serialize>(id: u32, begin: &T) -> Bytes {
    #[derive(Serialize)]
    struct Begin<'a, T> {
        id: u32,
        begin: &'a T,
    }
    bounded(id, serde_json::to_vec(&Begin { id, begin }))
}

/// The control payload of the final reply to a request that failed. Texts that are too long are cut,
/// so that the reply fits in a frame.
#[must_use]
pub fn encode_error(id: u32, error: &WireError) -> Bytes {
    #[derive(Serialize)]
    struct Failed<'a> {
        id: u32,
        error: &'a WireError,
    }
    match serde_json::to_vec(&Failed { id, error }) {
        Ok(json) if json.len() <= MAX_CONTROL => json.into(),
        _ => {
            let error = &error.shortened();
            bounded(id, serde_json::to_vec(&Failed { id, error }))
        }
    }
}

/// The bytes that a list in a reply may use, so that the reply fits in a frame.
#[derive(Debug)]
pub struct ReplyBudget(usize);

/// The bytes around a reply, and those that are added once its list is complete: `id`, `ok`, `more` or a
/// `cursor`.
const ENVELOPE: usize = 256;

impl ReplyBudget {
    /// The bytes that `reply`, with an empty list, leaves for the list.
    #[must_use]
    pub fn after<T: Serialize>(reply: &T) -> Self {
        Self(MAX_CONTROL.saturating_sub(ENVELOPE + length(reply)))
    }

    /// Reserves the bytes of one more entry; `false` if they are not available.
    pub fn try_add<T: Serialize>(&mut self, entry: &T) -> bool {
        // With the comma.
        let left = self.0.checked_sub(length(entry) + 1);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }

    /// The entries that fit, in the order of `entries`, and whether others were left out.
    pub fn fill<T: Serialize>(&mut self, entries: impl IntoIterator<Item = T>) -> (Vec<T>, bool) {
        let mut filled = Vec::new();
        for entry in entries {
            if !self.try_add(&entry) {
                return (filled, true);
            }
            filled.push(entry);
        }
        (filled, false)
    }
}

/// Bytes of `value` in JSON.
fn length<T: Serialize>(value: &T) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX / 2, |json| json.len())
}

/// The control payload before the server closes the connection: an error without an id.
#[must_use]
pub fn encode_refusal(error: &WireError) -> Bytes {
    #[derive(Serialize)]
    struct RefusalMessage<'a> {
        error: &'a WireError,
    }
    bounded(0, serde_json::to_vec(&RefusalMessage { error }))
}

/// The control payload of an event.
#[must_use]
pub fn encode_event(event: &Event) -> Bytes {
    bounded(0, serde_json::to_vec(event))
}

/// Replaces a reply that is too long for a frame, which is a defect of the server, by an error.
fn bounded(id: u32, json: serde_json::Result<Vec<u8>>) -> Bytes {
    match json {
        Ok(json) if json.len() <= MAX_CONTROL => json.into(),
        _ => encode_error(
            id,
            &WireError::new(ErrorCode::Internal, "the reply does not fit in a frame"),
        ),
    }
}

/// A control payload from a server, parsed.
#[derive(Debug)]
pub enum ServerMessage {
    /// The final reply to a request: the content of `ok`, or the error.
    Reply(u32, Result<Box<RawValue>, WireError>),
    /// The `begin` of a stream.
    Begin(u32, Box<RawValue>),
    /// An event.
    Event(Event),
    /// The server closes the connection for this reason.
    Refusal(WireError),
}

impl ServerMessage {
    /// Parses a control payload that came from a server.
    ///
    /// # Errors
    /// If the payload has none of the forms above. Unknown fields are ignored, because a later server
    /// may send more.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct MessageEnvelope {
            id: Option<u32>,
            ok: Option<Box<RawValue>>,
            error: Option<WireError>,
            begin: Option<Box<RawValue>>,
        }
        let envelope: MessageEnvelope = serde_json::from_slice(json)?;
        Ok(match envelope {
            MessageEnvelope {
                id: Some(id),
                ok: Some(ok),
                ..
            } => Self::Reply(id, Ok(ok)),
            MessageEnvelope {
                id: Some(id),
                error: Some(error),
                ..
            } => Self::Reply(id, Err(error)),
            MessageEnvelope {
                id: Some(id),
                begin: Some(begin),
                ..
            } => Self::Begin(id, begin),
            MessageEnvelope {
                error: Some(error), ..
            } => Self::Refusal(error),
            _ => Self::Event(serde_json::from_slice(json)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{CwdReply, Nothing};

    fn text(json: &Bytes) -> &str {
        std::str::from_utf8(json).expect("JSON is UTF-8")
    }

    #[test]
    fn replies_are_written_as_the_protocol_shows_them() {
        let cwd = CwdReply {
            cwd: "/reports".into(),
        };
        assert_eq!(
            text(&encode_ok(2, &cwd)),
            r#"{"id":2,"ok":{"cwd":"/reports"}}"#
        );
        assert_eq!(text(&encode_ok(3, &Nothing {})), r#"{"id":3,"ok":{}}"#);
        let error = WireError::new(ErrorCode::NotFound, "no such directory: /a");
        assert_eq!(
            text(&encode_error(4, &error)),
            r#"{"id":4,"error":{"code":"not_found","message":"no such directory: /a","retryable":false}}"#
        );
        assert!(text(&encode_refusal(&error)).starts_with(r#"{"error":{"code":"#));
    }

    #[test]
    fn every_form_of_reply_is_told_apart() {
        let error = WireError::new(ErrorCode::Denied, "no");
        let parse = |json: Bytes| ServerMessage::parse(&json).expect("a sound message");
        assert!(matches!(
            parse(encode_ok(1, &Nothing {})),
            ServerMessage::Reply(1, Ok(_))
        ));
        assert!(matches!(
            parse(encode_error(2, &error)),
            ServerMessage::Reply(2, Err(_))
        ));
        assert!(matches!(
            parse(encode_begin(3, &Nothing {})),
            ServerMessage::Begin(3, _)
        ));
        assert!(matches!(
            parse(encode_refusal(&error)),
            ServerMessage::Refusal(_)
        ));
        let goodbye = Bytes::from_static(br#"{"event":"goodbye","reason":"shutting_down"}"#);
        assert!(matches!(
            parse(goodbye),
            ServerMessage::Event(Event::Goodbye { .. })
        ));
        let later = Bytes::from_static(br#"{"event":"eclipse","seq":9}"#);
        assert!(matches!(parse(later), ServerMessage::Event(Event::Unknown)));
    }

    #[test]
    fn a_reply_over_the_limit_becomes_an_error_instead_of_a_bad_frame() {
        let cwd = CwdReply {
            cwd: "x".repeat(MAX_CONTROL),
        };
        assert!(text(&encode_ok(2, &cwd)).contains("internal"));
    }
}
