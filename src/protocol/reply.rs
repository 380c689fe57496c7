//! Replies: what the server answers, and the objects that it answers with.
//!
//! ```text
//! {"id":2,"ok":{…}}        the one final reply of a request that succeeded
//! {"id":2,"error":{…}}     the one final reply of a request that did not
//! {"id":2,"begin":{…}}     before the data of a `get`, or once a `put` is ready
//! {"error":{…}}            the bytes were no frame; the connection closes
//! {"event":…}              an event, see [`Event`]
//! ```

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Digest, ErrorCode, Event, MAX_CONTROL, WireError};

/// What a command answers that has nothing to tell: an empty object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Nothing {}

/// Answers `hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloReply {
    /// The version of the wire, 1.
    pub protocol: u32,
    /// Name and version of the server, such as `haul/0.1.0`.
    pub server: String,
    /// Optional parts of the protocol that this server offers.
    pub features: Vec<String>,
    /// The ways to log in: `password`, `token`.
    pub logins: Vec<String>,
    /// The longest control payload, in bytes.
    pub max_control: u64,
    /// The longest chunk of a data frame, in bytes.
    pub max_chunk: u64,
    /// The server's time.
    pub time: Timestamp,
}

/// Answers `login`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginReply {
    /// The user's name.
    pub user: String,
    /// The directory that the session starts in.
    pub home: String,
    /// Name and version of the server.
    pub server: String,
    /// The session's identifier, as it stands in the server's log.
    pub session: String,
}

/// Answers `whoami`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoamiReply {
    /// The user's name.
    pub user: String,
    /// Whether the user may use the commands for admins.
    pub admin: bool,
    /// The current directory.
    pub cwd: String,
    /// The shared folders in the user's view.
    pub folders: Vec<FolderView>,
    /// What the user's home may hold.
    pub quota: QuotaReply,
    /// The session's identifier.
    pub session: String,
}

/// A shared folder as a member sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderView {
    /// Its name; it is mounted at `/` and this name.
    pub name: String,
    /// What the user may do in it, such as `["list","read"]`.
    pub rights: Vec<String>,
}

/// The limits of a home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaReply {
    /// The most bytes; absent if there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// The most files; absent if there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_limit: Option<u64>,
}

/// Answers `ping`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeReply {
    /// The server's time.
    pub time: Timestamp,
}

/// Answers `help`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelpReply {
    /// The commands asked about.
    pub commands: Vec<CommandHelp>,
}

/// What a command is for and what it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandHelp {
    /// The `cmd`.
    pub name: String,
    /// One line.
    pub summary: String,
    /// Its fields, the optional ones in brackets.
    pub fields: String,
}

/// Answers `pwd` and `cd`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CwdReply {
    /// The current directory.
    pub cwd: String,
}

/// Answers `ls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LsReply {
    /// A page of entries, sorted by name within the page.
    pub entries: Vec<Entry>,
    /// Present while there is more: the `cursor` of the next `ls`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A file or directory in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name within its directory.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Bytes of a file; 0 for a directory.
    pub size: u64,
    /// When its contents last changed.
    pub modified: Timestamp,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
}

/// Answers `stat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatReply {
    /// The absolute path.
    pub path: String,
    /// What stands in a listing.
    #[serde(flatten)]
    pub entry: Entry,
    /// Differs whenever the file is another; opaque. Absent for directories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The BLAKE3 digest, if the server has it at hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

/// Answers commands that made or moved something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathReply {
    /// Where it is now.
    pub path: String,
}

/// Answers `rm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RmReply {
    /// How many files and directories are gone.
    pub removed: u64,
}

/// Begins the data of a `get`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetBegin {
    /// Bytes of the whole file.
    pub size: u64,
    /// The first byte that will come.
    pub offset: u64,
    /// How many bytes will come.
    pub length: u64,
    /// When the file's contents last changed.
    pub modified: Timestamp,
    /// The version to ask for when this download is resumed.
    pub version: String,
}

/// Ends a `get`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetReply {
    /// Bytes of the whole file.
    pub size: u64,
    /// Of the whole file, or of the bytes sent if the request had a `length`; absent if the
    /// request wanted none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

/// Says that a `put` is ready for data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutBegin {
    /// The first byte that the server still needs.
    pub offset: u64,
    /// The upload's identifier.
    pub upload: String,
    /// The digest of the bytes before `offset`, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Digest>,
}

/// Ends a `put`: the file is durable under its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutReply {
    /// The path that the file got.
    pub path: String,
    /// Its bytes.
    pub size: u64,
    /// Its digest.
    pub digest: Digest,
    /// Its version.
    pub version: String,
}

/// Answers `hash`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashReply {
    /// The digest of the whole file.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

/// Answers `df`, for the home or the shared folder around the current directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DfReply {
    /// Bytes in use, those reserved by running puts included.
    pub used: u64,
    /// The most bytes; absent if there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Files in use.
    pub files: u64,
    /// The most files; absent if there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_limit: Option<u64>,
    /// Bytes free on the server's disk.
    pub free: u64,
}

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

/// The control payload of a final reply to a request that failed.
#[must_use]
pub fn encode_error(id: u32, error: &WireError) -> Bytes {
    #[derive(Serialize)]
    struct Failed<'a> {
        id: u32,
        error: &'a WireError,
    }
    bounded(id, serde_json::to_vec(&Failed { id, error }))
}

/// The control payload that comes before the server hangs up: an error without an id.
#[must_use]
pub fn encode_refusal(error: &WireError) -> Bytes {
    #[derive(Serialize)]
    struct Refusal<'a> {
        error: &'a WireError,
    }
    bounded(0, serde_json::to_vec(&Refusal { error }))
}

/// The control payload of an event.
#[must_use]
pub fn encode_event(event: &Event) -> Bytes {
    bounded(0, serde_json::to_vec(event))
}

/// No reply is longer than a frame may be; one that would be is an error of the server's.
fn bounded(id: u32, json: serde_json::Result<Vec<u8>>) -> Bytes {
    match json {
        Ok(json) if json.len() <= MAX_CONTROL => json.into(),
        _ => encode_error(
            id,
            &WireError::new(ErrorCode::Internal, "the reply does not fit in a frame"),
        ),
    }
}

/// A control payload from a server, as a client reads it.
#[derive(Debug)]
pub enum ServerMessage {
    /// The final reply to a request: what `ok` holds, or the error.
    Reply(u32, Result<Box<RawValue>, WireError>),
    /// The `begin` of a stream.
    Begin(u32, Box<RawValue>),
    /// An event.
    Event(Event),
    /// The server hangs up, and says why.
    Refusal(WireError),
}

impl ServerMessage {
    /// Parses a control payload that came from a server.
    ///
    /// # Errors
    /// If the payload is none of the forms above. Unknown fields are ignored: a later server may
    /// say more.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Envelope {
            id: Option<u32>,
            ok: Option<Box<RawValue>>,
            error: Option<WireError>,
            begin: Option<Box<RawValue>>,
        }
        let envelope: Envelope = serde_json::from_slice(json)?;
        Ok(match envelope {
            Envelope {
                id: Some(id),
                ok: Some(ok),
                ..
            } => Self::Reply(id, Ok(ok)),
            Envelope {
                id: Some(id),
                error: Some(error),
                ..
            } => Self::Reply(id, Err(error)),
            Envelope {
                id: Some(id),
                begin: Some(begin),
                ..
            } => Self::Begin(id, begin),
            Envelope {
                error: Some(error), ..
            } => Self::Refusal(error),
            _ => Self::Event(serde_json::from_slice(json)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
