//! The requests of operators, who are users with the admin right, and their replies.

use std::num::NonZeroU32;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::protocol::number::number;
use crate::protocol::reply::FolderView;

/// `sessions`: lists the sessions with their unfinished transfers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sessions {
    /// The most sessions in the reply. It has fewer if they would not fit in a frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<NonZeroU32>,
    /// The `cursor` of the previous page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// The reply to `sessions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsReply {
    /// A page of sessions, in the order in which they logged in.
    pub sessions: Vec<SessionEntry>,
    /// The `cursor` of the next `sessions`. Absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A session of a logged-in user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionEntry {
    /// The session's identifier, as in the reply to `login` and in the log.
    pub session: String,
    /// The user's name.
    pub user: String,
    /// The address and port of the client.
    pub peer: String,
    /// Whether the connection is encrypted.
    pub secure: bool,
    /// The dialect of its client.
    pub dialect: SessionDialect,
    /// When its user logged in.
    pub since: Timestamp,
    /// The number of its unfinished gets and puts.
    pub running: u32,
    /// Some of them, the oldest first.
    pub transfers: Vec<TransferEntry>,
}

/// The dialect that the client of a session speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SessionDialect {
    /// Frames, version 1.
    Framed,
    /// The classic dialect.
    Classic,
    /// A dialect that this version does not know.
    #[serde(other, skip_serializing)]
    Unknown,
}

/// An unfinished get, put or `logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferEntry {
    /// The request's `id`.
    pub id: u32,
    /// `get`, `put` or `logs`.
    pub cmd: String,
    /// The absolute path.
    pub path: String,
    /// Bytes of the whole file, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The present position in the file, in bytes. It includes bytes that were skipped or stored before.
    pub offset: u64,
    /// Bytes that this request has transferred.
    pub moved: u64,
    /// Bytes per second over the last seconds.
    #[serde(default)]
    pub rate: u64,
    /// When the server received the request.
    pub since: Timestamp,
}

/// `logs`: the last lines of the log as data frames, and with `follow` new lines as they appear.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logs {
    /// Continue with new lines, until it is cancelled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follow: bool,
    /// The number of present lines to send first. If absent, all that the server keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u32>,
    /// Begin after the line with this number, instead of with the last lines.
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
    /// Only lines about paths at and below this absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Only lines of this level or a more severe one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<LogLevel>,
    /// Only lines with this code in `event`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Only lines about this session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// The severity of a line of the log, the most severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// A failure that an operator must fix.
    Error,
    /// A condition that an operator should look at.
    Warn,
    /// Normal operation.
    Info,
    /// Details for diagnosis.
    Debug,
    /// All details.
    Trace,
}

/// The frame before the lines of `logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsBegin {
    /// The number of the first line that is examined.
    pub line: u64,
}

/// The final reply to `logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsReply {
    /// The number of sent lines.
    pub lines: u64,
    /// The number of lines that were deleted before they could be examined.
    pub missed: u64,
}

/// `log_level`: reads the log level, or changes it for some time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetLogLevel {
    /// The level to log from now on, as in the setting `log.level`; absent to change nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// The number of seconds after which the setting applies again. If absent, it applies again when
    /// the settings are read again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
}

/// The reply to `log_level`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLevelReply {
    /// The present level.
    pub level: String,
    /// The setting `log.level`.
    pub setting: String,
}

/// `kick`: ends a session, or all sessions of a user. Their unfinished transfers are cut off.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kick {
    /// The identifier of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The user whose sessions end, except for the session that makes the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// The reply to `kick`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KickReply {
    /// The number of ended sessions.
    pub kicked: u64,
}

/// `reload`: reads the settings and the certificate again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReloadSettings {
    /// Only report what would change.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// The reply to `reload`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReloadReply {
    /// The settings that changed, or would change, at once.
    pub changed: Vec<SettingChange>,
    /// The settings that would change after a restart.
    pub needs_restart: Vec<SettingChange>,
    /// Whether further settings do not fit in the frame. Absent if not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// The error in the settings, in which case nothing has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Why the new certificate cannot be used, in which case the present one stays.
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

/// `drain`: stops the server as SIGTERM does: running requests may finish, and no new ones start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// The seconds that running requests have to finish, instead of the setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
}

/// The reply to `drain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainReply {
    /// The number of open sessions.
    pub sessions: u64,
    /// The milliseconds after which unfinished requests are cut off.
    pub within_ms: u64,
}

/// `users`: lists the accounts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Users {
    /// The most users in the reply. It has fewer if they would not fit in a frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<NonZeroU32>,
    /// The `cursor` of the previous page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// The reply to `users`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsersReply {
    /// A page of users, by name.
    pub users: Vec<UserEntry>,
    /// The `cursor` of the next `users`. Absent on the last page.
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
    /// Whether the account is disabled.
    pub disabled: bool,
    /// The number of the user's sessions.
    pub sessions: u64,
    /// Bytes in the home, if the server has counted them since its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    /// The most bytes. Absent if there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Files, directories and links in the home, if the server has counted them since its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// The most of these. Absent if there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_limit: Option<u64>,
    /// When the account was created.
    pub created: Timestamp,
    /// The shared folders that the user sees.
    pub folders: Vec<FolderView>,
    /// Whether further folders do not fit in the frame. Absent if not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}
