//! The requests of operators, who are users with the admin right, and their replies.

use std::num::NonZeroU32;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::protocol::number::number;
use crate::protocol::reply::FolderView;

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
    /// The dialect of its client.
    pub dialect: SessionDialect,
    /// When its user logged in.
    pub since: Timestamp,
    /// How many gets and puts it has under way.
    pub running: u32,
    /// Some of them: those that are under way for the longest time.
    pub transfers: Vec<TransferEntry>,
}

/// The dialect that the client of a session speaks.
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

/// A get or put that is under way, or a `logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferEntry {
    /// The request's `id`.
    pub id: u32,
    /// `get`, `put` or `logs`.
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
    /// Bytes of them in a second, over the last seconds.
    #[serde(default)]
    pub rate: u64,
    /// When it was asked for.
    pub since: Timestamp,
}

/// `logs`: the last lines of the log as data frames, and with `follow` those that come.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logs {
    /// Go on with the lines that come, until it is cancelled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follow: bool,
    /// How many of the lines that are there come first; if absent, all that are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u32>,
    /// Begin after the line with this number, rather than with the last ones.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "number"
    )]
    pub since: Option<u64>,
    /// Only lines about sessions of this user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Only lines about this command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Only lines about this absolute path or what is below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Only lines of this level or a graver one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<LogLevel>,
    /// Only lines with this code in `event`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Only lines about this session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// How grave a line of the log is, the gravest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Something is lost or refused that should not be.
    Error,
    /// Somebody should look.
    Warn,
    /// What is done.
    Info,
    /// For who looks for a fault.
    Debug,
    /// The same, in every detail.
    Trace,
}

/// The frame before the lines of `logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsBegin {
    /// The number of the first line that is looked at.
    pub line: u64,
}

/// The final reply to `logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsReply {
    /// Lines that were sent.
    pub lines: u64,
    /// Lines that were gone before they could be looked at.
    pub missed: u64,
}

/// `log_level`: what is logged, and for a while something else.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetLogLevel {
    /// The level to log from now on, as in the setting `log.level`; absent to change nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// After so many seconds the setting counts again; absent for until the settings are read again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
}

/// The reply to `log_level`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLevelReply {
    /// What is logged now.
    pub level: String,
    /// The setting `log.level`.
    pub setting: String,
}

/// `kick`: end a session, or all of a user. What they have under way is cut off.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kick {
    /// The session to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The user whose sessions to end, but for the one that asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// The reply to `kick`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KickReply {
    /// Sessions that were ended.
    pub kicked: u64,
}

/// `reload`: read the settings and the certificate again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReloadSettings {
    /// Only say what would change.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// The reply to `reload`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReloadReply {
    /// Settings that have, or would have, another value from now on.
    pub changed: Vec<SettingChange>,
    /// Settings that would have one after a restart.
    pub needs_restart: Vec<SettingChange>,
    /// There are more of either, for which the frame has no room; absent if not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// What is wrong with the settings: then nothing has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Why the certificate cannot be used: then the one in use stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_refused: Option<String>,
}

/// A setting with another value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingChange {
    /// Its name, such as `limits.sessions`.
    pub setting: String,
    /// Its value now, as in a configuration file.
    pub from: String,
    /// The other value.
    pub to: String,
}

/// `drain`: stop as on SIGTERM: what runs may end, nothing new begins, then the server ends.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// Seconds for what runs, rather than the setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
}

/// The reply to `drain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainReply {
    /// Sessions that are open.
    pub sessions: u64,
    /// Milliseconds after which what still runs is cut off.
    pub within_ms: u64,
}

/// `users`: who has an account.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Users {
    /// The most users in the reply, which holds fewer where they would not fit in a frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<NonZeroU32>,
    /// The `cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// The reply to `users`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsersReply {
    /// A page of users, by name.
    pub users: Vec<UserEntry>,
    /// Present while there is more: the `cursor` of the next `users`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A user who has an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserEntry {
    /// The name.
    pub user: String,
    /// Whether the user has the admin right.
    pub admin: bool,
    /// Whether the account is kept from logging in.
    pub disabled: bool,
    /// Sessions that are there.
    pub sessions: u64,
    /// Bytes in the home, if the server has counted them since its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    /// Most bytes; absent means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Files, directories and links in the home, if the server has counted them since its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Most of these; absent means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_limit: Option<u64>,
    /// When the account was made.
    pub created: Timestamp,
    /// The shared folders that the user sees.
    pub folders: Vec<FolderView>,
    /// There are more of them, for which the frame has no room; absent if not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}
