//! The requests about accounts, shared folders and tokens, and their replies.
//!
//! Users ask about their own tokens. Everything else is for users with the admin right.

use std::num::NonZeroU32;
use std::ops::Not;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::protocol::Secret;
use crate::protocol::number::number;
use crate::protocol::time::optional_time;

/// `tokens`: the tokens of this user, or of another one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// Another user; only a user with the admin right may name one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The most tokens in the reply, which holds fewer if they do not fit in a frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<NonZeroU32>,
    /// The `cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// The reply to `tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokensReply {
    /// A page of tokens, the oldest first.
    pub tokens: Vec<TokenEntry>,
    /// Present while there is more: the `cursor` of the next `tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenEntry {
    /// Its number, by which it is removed.
    pub number: u64,
    /// Its purpose.
    pub label: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it expires; absent means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Whether it opened the session that asks; absent if not.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub current: bool,
}

/// `token_add`: make a token for this user, or for another one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenAdd {
    /// Another user; only a user with the admin right may name one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Its purpose; empty if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// When it expires; in 365 days if absent.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_time"
    )]
    pub expires: Option<Timestamp>,
    /// It does not expire; excludes `expires`.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub never_expires: bool,
}

/// The reply to `token_add`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenAddReply {
    /// The token. The server keeps only its hash and cannot show it again.
    pub token: Secret,
    /// Its number, by which it is removed.
    pub number: u64,
    /// When it expires; absent means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

/// `token_remove`: revoke a token of this user, or of another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRemove {
    /// Its number, as in the reply to `tokens`.
    pub number: u64,
    /// Another user; only a user with the admin right may name one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// `user_add`: make an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserAdd {
    /// The name.
    pub user: String,
    /// The password.
    pub password: Secret,
    /// Whether the user has the admin right.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub admin: bool,
    /// The most bytes in the home; absent means no limit.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "number"
    )]
    pub limit: Option<u64>,
    /// The most files and directories in the home; absent means what the bytes imply.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "number"
    )]
    pub files_limit: Option<u64>,
}

/// `user_set`: change an account. What is absent stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserSet {
    /// The user.
    pub user: String,
    /// Whether the user has the admin right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<bool>,
    /// Whether the user cannot log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// The most bytes in the home.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "number"
    )]
    pub limit: Option<u64>,
    /// Remove the limit of bytes; excludes `limit`.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub no_limit: bool,
    /// The most files and directories in the home.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "number"
    )]
    pub files_limit: Option<u64>,
    /// Remove the limit of files; excludes `files_limit`.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub no_files_limit: bool,
}

/// `user_passwd`: set the password of another user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserPasswd {
    /// The user.
    pub user: String,
    /// The password from now on.
    pub password: Secret,
}

/// `user_remove`: remove an account. The server sets its files aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserRemove {
    /// The user.
    pub user: String,
}

/// The reply to `user_remove` and `folder_remove`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedReply {
    /// Whether there were files, which are set aside in the server's data directory.
    pub had_files: bool,
}

/// `folders`: the shared folders with their members.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Folders {
    /// The most folders in the reply, which holds fewer if they do not fit in a frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<NonZeroU32>,
    /// The `cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// The reply to `folders`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoldersReply {
    /// A page of folders, by name.
    pub folders: Vec<FolderEntry>,
    /// Present while there is more: the `cursor` of the next `folders`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A shared folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderEntry {
    /// The name.
    pub folder: String,
    /// The most bytes; absent means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// The most files and directories; absent means what the bytes imply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_limit: Option<u64>,
    /// When the folder was made.
    pub created: Timestamp,
    /// The users who see it, by name.
    pub members: Vec<FolderMemberEntry>,
    /// There are more members than fit in a frame; absent if not.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub more: bool,
}

/// A user who sees a shared folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderMemberEntry {
    /// The user.
    pub user: String,
    /// The names of the user's rights.
    pub rights: Vec<String>,
}

/// `folder_add`: make a shared folder, which nobody sees yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderAdd {
    /// The name.
    pub folder: String,
    /// The most bytes; absent means no limit.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "number"
    )]
    pub limit: Option<u64>,
    /// The most files and directories; absent means what the bytes imply.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "number"
    )]
    pub files_limit: Option<u64>,
}

/// `folder_grant`: give a user rights in a shared folder, in place of earlier ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderGrant {
    /// The folder.
    pub folder: String,
    /// The user.
    pub user: String,
    /// The names of the rights.
    pub rights: Vec<String>,
}

/// `folder_revoke`: take all rights in a shared folder from a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderRevoke {
    /// The folder.
    pub folder: String,
    /// The user.
    pub user: String,
}

/// `folder_remove`: remove a shared folder. The server sets its files aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderRemove {
    /// The folder.
    pub folder: String,
}
