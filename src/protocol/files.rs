//! The requests about files and directories that transfer no content.

use std::num::NonZeroU32;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::protocol::number::is_false;
use crate::protocol::time::optional_time;
use crate::protocol::{Algorithm, FileMode};

/// `pwd`: the current directory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pwd {}

/// `cd`: changes the current directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cd {
    /// The new current directory.
    pub path: String,
}

/// `ls`: lists a directory, one page at a time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ls {
    /// The directory; the current one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The most entries in the reply. It has fewer if they would not fit in a frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<NonZeroU32>,
    /// The `cursor` of the previous page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// List the whole tree, as lines on the stream of this request's id.
    #[serde(default, skip_serializing_if = "is_false")]
    pub recursive: bool,
    /// With `recursive`: list the versions, and the digests that the server keeps.
    #[serde(default, skip_serializing_if = "is_false")]
    pub digests: bool,
}

/// `stat`: the metadata of a file or directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stat {
    /// The file or directory.
    pub path: String,
}

/// `setstat`: set the time or the permission bits of a file or directory, at least one of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetStat {
    /// The file or directory.
    pub path: String,
    /// The modification time; unchanged if absent.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_time"
    )]
    pub modified: Option<Timestamp>,
    /// The permission bits; unchanged if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<FileMode>,
}

/// `mkdir`: creates a directory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mkdir {
    /// The path of the directory.
    pub path: String,
    /// Create missing parents too, and succeed if the directory exists.
    #[serde(default, skip_serializing_if = "is_false")]
    pub parents: bool,
    /// The permission bits of the directory, if it is made now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<FileMode>,
}

/// `rm`: removes a file or a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rm {
    /// The path to remove.
    pub path: String,
    /// Remove a directory with its content.
    #[serde(default, skip_serializing_if = "is_false")]
    pub recursive: bool,
}

/// `mv`: moves or renames a file or a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mv {
    /// The path to move.
    pub from: String,
    /// Its new path.
    pub to: String,
    /// The action if `to` exists; [`IfExists::Fail`] if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_exists: Option<IfExists>,
}

/// `cp`: copies a file, or a directory with its content, on the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cp {
    /// The path to copy.
    pub from: String,
    /// The path of the copy.
    pub to: String,
    /// The action if `to` exists; [`IfExists::Fail`] if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_exists: Option<IfExists>,
}

/// `hash`: the digest of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hash {
    /// The file.
    pub path: String,
    /// The algorithm; BLAKE3 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Algorithm>,
    /// Fail with `changed` unless the file has this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// `df`: the usage and limits of the home or shared folder that the current directory is in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Df {}

/// The action if an entry exists at the path to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IfExists {
    /// Replace it atomically.
    Replace,
    /// Fail with `exists`.
    Fail,
    /// Use a free name in the same directory. The reply has the name.
    Rename,
}
