//! Where accounts, folders and tokens are managed: in a data directory on this machine, or on a server
//! by an administrator. `haul user`, `folder` and `token` and their namesakes under `haul admin` are
//! the same commands on the two.

use std::ops::Not;

use jiff::Timestamp;
use serde::Serialize;

use crate::accounts;
use crate::accounts::{FolderName, NewUser, TokenExpiry, TokenLabel, UserChange, UserName};
use crate::protocol::Secret;
use crate::storage::{Rights, SpaceLimits};

/// A user as lists show it.
#[derive(Debug, Serialize)]
pub(super) struct UserObject {
    pub(super) name: String,
    pub(super) admin: bool,
    pub(super) disabled: bool,
    pub(super) quota: Option<u64>,
    pub(super) files: Option<u64>,
    pub(super) created: Timestamp,
}

/// A folder as lists show it.
#[derive(Debug, Serialize)]
pub(super) struct FolderObject {
    pub(super) name: String,
    pub(super) quota: Option<u64>,
    pub(super) files: Option<u64>,
    pub(super) created: Timestamp,
    pub(super) members: Vec<FolderMemberObject>,
    /// Whether there are more members than the server lists.
    #[serde(skip_serializing_if = "Not::not")]
    pub(super) more: bool,
}

/// A member of a folder as lists show it.
#[derive(Debug, Serialize)]
pub(super) struct FolderMemberObject {
    pub(super) user: String,
    pub(super) rights: Vec<String>,
}

/// A token as lists show it.
#[derive(Debug, Serialize)]
pub(super) struct TokenObject {
    pub(super) id: u64,
    pub(super) label: String,
    pub(super) created: Timestamp,
    pub(super) expires: Option<Timestamp>,
    /// Whether it opened the session that lists it.
    #[serde(skip_serializing_if = "Not::not")]
    pub(super) current: bool,
}

/// A new token.
#[derive(Debug)]
pub(super) struct NewToken {
    pub(super) id: u64,
    pub(super) token: Secret,
    pub(super) expires: Option<Timestamp>,
}

/// A place where accounts, folders and tokens are managed. Each change stands in the audit there.
pub(super) trait Administration {
    /// All users, by name.
    async fn users(&self) -> anyhow::Result<Vec<UserObject>>;

    /// Checks a new password if that is possible before the change.
    fn check_password(&self, password: &Secret) -> anyhow::Result<()>;

    /// Adds a user.
    async fn add_user(
        &self,
        name: &UserName,
        password: &Secret,
        new: NewUser,
    ) -> anyhow::Result<()>;

    /// Changes a user.
    async fn set_user(&self, name: &UserName, change: UserChange) -> anyhow::Result<()>;

    /// Sets the password of a user.
    async fn set_password(&self, name: &UserName, password: &Secret) -> anyhow::Result<()>;

    /// Removes a user; whether it had files.
    async fn remove_user(&self, name: &UserName) -> anyhow::Result<bool>;

    /// All folders, by name.
    async fn folders(&self) -> anyhow::Result<Vec<FolderObject>>;

    /// Adds a folder.
    async fn add_folder(&self, folder: &FolderName, limits: SpaceLimits) -> anyhow::Result<()>;

    /// Gives a user rights in a folder, in place of earlier ones.
    async fn grant(
        &self,
        folder: &FolderName,
        user: &UserName,
        rights: Rights,
    ) -> anyhow::Result<()>;

    /// Takes all rights in a folder from a user.
    async fn revoke(&self, folder: &FolderName, user: &UserName) -> anyhow::Result<()>;

    /// Removes a folder; whether it had files.
    async fn remove_folder(&self, folder: &FolderName) -> anyhow::Result<bool>;

    /// The tokens of a user.
    async fn tokens(&self, user: &UserName) -> anyhow::Result<Vec<TokenObject>>;

    /// Makes a token for a user; without an expiry it expires in 365 days.
    async fn issue_token(
        &self,
        user: &UserName,
        label: &TokenLabel,
        expiry: Option<TokenExpiry>,
    ) -> anyhow::Result<NewToken>;

    /// Revokes a token of a user.
    async fn remove_token(&self, user: &UserName, id: u64) -> anyhow::Result<()>;
}

impl From<accounts::User> for UserObject {
    fn from(user: accounts::User) -> Self {
        Self {
            name: user.name.into(),
            admin: user.admin,
            disabled: user.disabled,
            quota: user.limits.bytes,
            files: user.limits.files,
            created: user.created,
        }
    }
}

impl From<accounts::Folder> for FolderObject {
    fn from(folder: accounts::Folder) -> Self {
        let member = |member: accounts::FolderMember| FolderMemberObject {
            user: member.user.into(),
            rights: member.rights.names(),
        };
        Self {
            name: folder.name.into(),
            quota: folder.limits.bytes,
            files: folder.limits.files,
            created: folder.created,
            members: folder.members.into_iter().map(member).collect(),
            more: false,
        }
    }
}

impl From<accounts::Token> for TokenObject {
    fn from(token: accounts::Token) -> Self {
        Self {
            // The database numbers them from 1.
            id: token.id.unsigned_abs(),
            label: token.label,
            created: token.created,
            expires: token.expires,
            current: false,
        }
    }
}
