//! What operators ask, who are users with the admin right: the requests and replies.

use std::num::NonZeroU32;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// `sessions`: the sessions that are there, and what each has under way.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sessions {
    /// The most sessions in the reply, which holds fewer where they would not fit in a frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<NonZeroU32>,
    /// The `cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// The reply to `sessions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsReply {
    /// A page of sessions, in the order in which they logged in.
    pub sessions: Vec<SessionEntry>,
    /// Present while there is more: the `cursor` of the next `sessions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A session of a user who has logged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionEntry {
    /// Its identifier, as `login` and the log say it.
    pub session: String,
    /// Its user.
    pub user: String,
    /// Where it comes from: address and port.
    pub peer: String,
    /// Whether the connection is encrypted.
    pub secure: bool,
    /// What its client speaks.
    pub dialect: SessionDialect,
    /// When its user logged in.
    pub since: Timestamp,
    /// How many gets and puts it has under way.
    pub running: u32,
    /// Some of them: those that are under way for the longest time.
    pub transfers: Vec<TransferEntry>,
}

/// What the client of a session speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SessionDialect {
    /// Frames, version 1.
    Framed,
    /// The older form.
    Classic,
    /// A dialect that this version does not know.
    #[serde(other, skip_serializing)]
    Unknown,
}

/// A get or put that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferEntry {
    /// The request's `id`.
    pub id: u32,
    /// `get` or `put`.
    pub cmd: String,
    /// The absolute path.
    pub path: String,
    /// Bytes of the whole file, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Bytes of the file up to where it is: what was skipped or there before counts.
    pub offset: u64,
    /// Bytes that this request has moved.
    pub moved: u64,
    /// When it was asked for.
    pub since: Timestamp,
}
