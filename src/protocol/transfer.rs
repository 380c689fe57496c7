//! The requests that transfer files, and those about partial uploads.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::protocol::delta::RequestedRange;
use crate::protocol::number::{is_false, number};
use crate::protocol::time::optional_time;
use crate::protocol::{Algorithm, Digest, FileMode, IfExists};

/// `get`: sends a file to the client as data frames on the stream of this request's id.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Get {
    /// The file.
    pub path: String,
    /// The offset of the first byte; 0 if absent.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "number"
    )]
    pub offset: Option<u64>,
    /// The number of bytes; all to the end of the file if absent.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "number"
    )]
    pub length: Option<u64>,
    /// The parts of the file to send, in ascending order, in place of `offset` and `length`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranges: Option<Vec<RequestedRange>>,
    /// The algorithm of the digest in the final reply; BLAKE3 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<DigestChoice>,
    /// Fail with `changed` unless the file has this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// `put`: stores a file that the client sends as data frames on the stream of this request's id, and
/// ends with `end`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Put {
    /// The path of the file, which appears there once it is complete.
    pub path: String,
    /// The number of bytes. If absent, it is known at the end.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "number"
    )]
    pub size: Option<u64>,
    /// The action if the file exists; [`IfExists::Replace`] if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_exists: Option<IfExists>,
    /// The file's modification time; now if absent.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_time"
    )]
    pub modified: Option<Timestamp>,
    /// The file's permission bits; none are known if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<FileMode>,
    /// Resume the partial upload of an earlier attempt, if there is one.
    #[serde(default, skip_serializing_if = "is_false")]
    pub resume: bool,
    /// Create missing parent directories.
    #[serde(default, skip_serializing_if = "is_false")]
    pub parents: bool,
    /// The algorithm of the digest in the final reply. If absent, that of the digest in `end`, or BLAKE3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Algorithm>,
    /// The version of the file now at the path, whose parts `copy` may name. The put fails with `changed`
    /// unless the file is of this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
}

/// `end`: the client has sent all data of the put with this id.
///
/// It has no reply of its own: the put's final reply answers both.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// The digest of all bytes. The server discards the file if its own digest differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

/// `cancel`: cancels an unfinished get or put, which then gets the reply `cancelled`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    /// The id of the get or put.
    pub target: u32,
}

/// `uploads`: lists the partial uploads, which can be resumed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uploads {}

/// `discard`: deletes a partial upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Discard {
    /// The identifier of the upload, from `begin` or `uploads`.
    pub upload: String,
}

/// The digest that a `get` requests: the name of an algorithm, or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected `blake3`, `sha256`, `md5` or `none`")]
pub enum DigestChoice {
    /// A digest of this algorithm.
    Of(Algorithm),
    /// No digest.
    None(NoDigest),
}

/// The word `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoDigest {
    /// No digest.
    #[serde(rename = "none")]
    None,
}

impl DigestChoice {
    /// No digest.
    pub const NONE: Self = Self::None(NoDigest::None);
}
