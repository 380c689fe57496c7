//! Replies: the contents of `ok` and `begin`, one struct for each command.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::protocol::number::is_false;
use crate::protocol::{Digest, FileMode};

/// The reply without content: an empty object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Nothing {}

/// The reply to `hello`.
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

/// The reply to `login`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginReply {
    /// The user's name.
    pub user: String,
    /// The directory that the session starts in.
    pub home: String,
    /// Name and version of the server.
    pub server: String,
    /// The session's identifier, as in the server's log.
    pub session: String,
    /// The epoch of each `seq` that comes with this session; absent from older servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// Present if the request had `since`: whether this server issued that `seq`, so that it sends only
    /// later events. If not, it sends all events that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed: Option<bool>,
    /// The features, as `hello` lists them; absent from older servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
}

/// The reply to `whoami`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoamiReply {
    /// The user's name.
    pub user: String,
    /// Whether the user has the admin right.
    pub admin: bool,
    /// The current directory.
    pub cwd: String,
    /// The shared folders in the user's view.
    pub folders: Vec<FolderView>,
    /// Whether further entries do not fit in the frame. Absent if not.
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
    /// The name of the folder, which is mounted at `/` and this name.
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
    /// The most files and directories, if there is a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_limit: Option<u64>,
}

/// The reply to `ping`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeReply {
    /// The server's time.
    pub time: Timestamp,
}

/// The reply to `help`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelpReply {
    /// The commands in question.
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

/// The reply to `pwd` and `cd`.
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

/// The reply to `ls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LsReply {
    /// A page of entries, sorted by name within the page. Empty if the listing is recursive.
    pub entries: Vec<Entry>,
    /// The `cursor` of the next `ls`. Absent on the last page.
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
    /// Differs whenever the file is another; opaque. Absent for directories, and from listings unless
    /// they have digests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// A digest that the server keeps: BLAKE3 if it keeps several. A listing has it if the request asked
    /// for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// A recursive listing lacks what is in this directory.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unlisted: bool,
    /// A recursive listing: it is the root of a shared folder.
    #[serde(default, skip_serializing_if = "is_false")]
    pub shared: bool,
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
            unlisted: false,
            shared: false,
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

/// The reply to `stat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatReply {
    /// The absolute path.
    pub path: String,
    /// The entry, as in a listing, with all that is known.
    #[serde(flatten)]
    pub entry: Entry,
}

/// The reply to `setstat`: the values that the request has set.
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

/// The reply to commands that create or move an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathReply {
    /// The path of the entry.
    pub path: String,
}

/// The reply to `rm`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RmReply {
    /// The number of deleted files and directories.
    pub removed: u64,
    /// The number of entries that no view shows any more, but that could not be deleted. The server
    /// tries again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The `begin` of a `get`, before its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetBegin {
    /// Bytes of the whole file.
    pub size: u64,
    /// The offset of the first byte that follows.
    pub offset: u64,
    /// The number of bytes that follow.
    pub length: u64,
    /// When the file's contents last changed.
    pub modified: Timestamp,
    /// Its permission bits, if a client has set them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<FileMode>,
    /// The version to request when this download is resumed.
    pub version: String,
}

/// The final reply to `get`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetReply {
    /// Bytes of the whole file.
    pub size: u64,
    /// The digest of the whole file, or of the sent bytes if the request had a `length`. Absent if
    /// the request asked for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

/// The `begin` of a `put`, which is ready for data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutBegin {
    /// The offset of the first byte that the server needs.
    pub offset: u64,
    /// The upload's identifier.
    pub upload: String,
    /// The digest of the bytes before `offset`, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Digest>,
}

/// The final reply to `put`: the file is stored durably under its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutReply {
    /// The path of the file.
    pub path: String,
    /// The size in bytes.
    pub size: u64,
    /// The digest of the file.
    pub digest: Digest,
    /// The version of the file.
    pub version: String,
}

/// The reply to `uploads`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadsReply {
    /// The partial uploads, the latest first.
    pub uploads: Vec<ResumableUpload>,
    /// Whether further entries do not fit in the frame. Absent if not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// A partial upload: a put that was interrupted and can be resumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumableUpload {
    /// Its identifier.
    pub upload: String,
    /// The absolute path of the file to be written.
    pub path: String,
    /// Bytes of the whole file. Absent if the put did not declare them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Bytes that the server has.
    pub offset: u64,
    /// When the server deletes it.
    pub expires: Timestamp,
}

/// The reply to `hash`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashReply {
    /// The digest of the whole file.
    pub digest: Digest,
    /// The size in bytes.
    pub size: u64,
}

/// The reply to `df`: the use of the home or shared folder that the current directory is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DfReply {
    /// Bytes in use, with those that unfinished uploads and copies reserve.
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
