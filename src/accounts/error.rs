//! Errors of the account boundary.

use std::path::PathBuf;

use crate::accounts::name::{FolderName, UserName};
use crate::io_error::describe_io_error;
use crate::storage::StorageError;

/// The most bytes of a password. A longer one is rejected without hashing it.
pub(crate) const MAX_PASSWORD_BYTES: usize = 1024;

/// The name of the accounts database in an incomplete backup. Accounts cannot be opened next to it:
/// a new user would get the files of an old one.
pub const UNFINISHED_BACKUP: &str = "haul.db.unfinished";

/// An error of the account boundary. The text is meant for people.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// The user is unknown, the password or token is wrong, the token has expired, or the account is
    /// disabled. The error does not say which of these, so that it cannot be used to find accounts.
    #[error("wrong user name or password, or the account is disabled")]
    LoginFailed,
    /// The old password is wrong.
    #[error("the old password is wrong")]
    WrongPassword,
    /// The new password is empty.
    #[error("the password is empty; choose one of at least one character")]
    EmptyPassword,
    /// The new password has fewer characters than the setting `auth.min_password` asks for.
    #[error("the password is too short; choose one of at least {0} characters")]
    PasswordTooShort(usize),
    /// The new password is too long.
    #[error("the password is longer than {MAX_PASSWORD_BYTES} bytes; choose a shorter one")]
    PasswordTooLong,
    /// A user with this name exists.
    #[error(
        "user {0} already exists; choose another name, or change the user with `haul user set`"
    )]
    UserExists(UserName),
    /// No user has this name.
    #[error("there is no user {0}; `haul user list` shows all users")]
    NoSuchUser(UserName),
    /// A folder with this name exists.
    #[error("folder {0} already exists; choose another name")]
    FolderExists(FolderName),
    /// No folder has this name.
    #[error("there is no folder {0}; `haul folder list` shows all folders")]
    NoSuchFolder(FolderName),
    /// The user has no rights in the folder.
    #[error("user {user} has no rights in folder {folder}; `haul folder list` shows all rights")]
    NoSuchGrant {
        /// The folder.
        folder: FolderName,
        /// The user.
        user: UserName,
    },
    /// The user has no token with this number.
    #[error("user {user} has no token {id}; `haul token list {user}` shows all tokens")]
    NoSuchToken {
        /// The user.
        user: UserName,
        /// The token's number.
        id: i64,
    },
    /// The change is for an administrator who has lost the admin right.
    #[error("this change needs the admin right, which its administrator has lost")]
    NotAdmin,
    /// The user has as many tokens as one may have.
    #[error("user {user} has {max} tokens, as many as one user may have; remove one of them first")]
    TooManyTokens {
        /// The user.
        user: UserName,
        /// The most tokens of a user.
        max: usize,
    },
    /// A password could not be hashed or compared.
    #[error("cannot check passwords: {reason}")]
    Hashing {
        /// The cause.
        reason: String,
    },
    /// The files of a removed user or folder could not be set aside.
    #[error(transparent)]
    Files(#[from] StorageError),
    /// A user or folder is removed, but its files could not be set aside.
    #[error(
        "{what} {name} is removed, but its files could not be set aside: {source}; \
         they will be set aside when another {what} with this name is added"
    )]
    FilesLeftBehind {
        /// `user` or `folder`.
        what: &'static str,
        /// The name of the user or folder.
        name: String,
        /// The cause.
        source: Box<AccountsError>,
    },
    /// A token could not be generated.
    #[error("the system provides no random bytes: {reason}")]
    NoRandomness {
        /// The cause.
        reason: String,
    },
    /// The directory is an incomplete backup.
    #[error(
        "{} is an incomplete backup, because it contains {UNFINISHED_BACKUP}; use another backup",
        .0.display()
    )]
    UnfinishedBackup(PathBuf),
    /// The file system failed.
    #[error("cannot {doing} {}: {}", path.display(), describe_io_error(source))]
    Io {
        /// The failed operation, such as `create`.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The database failed.
    #[error("cannot {doing} the accounts in haul.db: {source}")]
    Database {
        /// The failed operation: `open`, `read` or `change`.
        doing: &'static str,
        /// The cause.
        source: sqlx::Error,
    },
}
