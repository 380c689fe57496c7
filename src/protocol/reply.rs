//! Replies: what `ok` and `begin` hold, one struct a command.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::protocol::{Digest, FileMode};

/// The reply without content: an empty object.
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
    /// The ways to log in on this connection: `password`, `token`, `certificate`.
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
    /// The epoch of each `seq` that comes with this session; absent from older servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// With `since`: whether that was given out by this server, so that what came after it is sent.
    /// If not, all that is kept is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed: Option<bool>,
    /// The features, as `hello` lists them; absent from older servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
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
    /// There are more, for which the frame has no room; absent if not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// The limits of the user's home.
    pub quota: QuotaReply,
    /// The session's identifier.
    pub session: String,
}

/// A shared folder as a member sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderView {
    /// Its name; it is mounted at `/` and this name.
    pub name: String,
    /// The user's rights in it, such as `["list","read"]`.
    pub rights: Vec<String>,
}

/// The limits of a home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaReply {
    /// The most bytes; absent if there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// The most files and directories, if that was set.
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

/// The purpose and the fields of a command.
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

/// Begins the lines of a recursive `ls`: each is an [`Entry`], whose `name` is its path relative to the
/// directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LsBegin {
    /// The absolute path of the directory.
    pub path: String,
}

/// Answers `ls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LsReply {
    /// A page of entries, sorted by name within the page. Empty if the listing is recursive.
    pub entries: Vec<Entry>,
    /// Present while there is more: the `cursor` of the next `ls`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A file or directory in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name within its directory; in a recursive listing its path relative to the directory that is
    /// listed.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// Bytes of a file; 0 for a directory.
    pub size: u64,
    /// When its contents last changed.
    pub modified: Timestamp,
    /// Its permission bits, if a client has set them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<FileMode>,
    /// Differs whenever the file is another; opaque. Absent for directories, and from a page that is
    /// not recursive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// A digest that the server keeps: BLAKE3 if it keeps several. A listing has it if the request asked
    /// for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

impl Entry {
    /// An entry of which nothing else is known.
    #[must_use]
    pub fn new(name: impl Into<String>, kind: Kind, size: u64, modified: Timestamp) -> Self {
        Self {
            name: name.into(),
            kind,
            size,
            modified,
            mode: None,
            version: None,
            digest: None,
        }
    }
}

/// The kind of an entry.
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
    /// The entry, as in a listing, with all that is known.
    #[serde(flatten)]
    pub entry: Entry,
}

/// Answers `setstat`: the values that the request has set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetStatReply {
    /// The absolute path.
    pub path: String,
    /// The modification time, as the server's file system stores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<Timestamp>,
    /// The permission bits. Absent, too, if the server's file system keeps no attributes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<FileMode>,
}

/// Answers commands that made or moved something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathReply {
    /// Where it is now.
    pub path: String,
}

/// Answers `rm`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RmReply {
    /// How many files and directories are deleted.
    pub removed: u64,
    /// How many are out of sight, but could not be deleted: the server tries again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
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
    /// Its permission bits, if a client has set them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<FileMode>,
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

/// Answers `uploads`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadsReply {
    /// The puts that can be resumed, the one that was cut off last first.
    pub uploads: Vec<ResumableUpload>,
    /// There are more, for which the frame has no room; absent if not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// A put that was cut off and can be resumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumableUpload {
    /// Its identifier.
    pub upload: String,
    /// The absolute path that it is for.
    pub path: String,
    /// Bytes of the whole file; absent if they were not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Bytes that the server has.
    pub offset: u64,
    /// When the server drops it.
    pub expires: Timestamp,
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
    /// Files, directories and links.
    pub files: u64,
    /// The most of these; absent if there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_limit: Option<u64>,
    /// Bytes free on the server's disk.
    pub free: u64,
}
