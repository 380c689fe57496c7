//! Why a command failed, and the one place where that becomes a code on the wire.

use std::time::Duration;

use rustix::io::Errno;

use crate::accounts::{AccountsError, FolderName, UserName};
use crate::connection::OutboxClosed;
use crate::messages::MessagesError;
use crate::protocol::{BadRequest, ErrorCode, QuotaUnit, WireError};
use crate::server::accept::connection_limiter::UserLimitError;
use crate::server::authority::SuspensionCause;
use crate::storage::StorageError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The payload is not a request of the protocol.
    #[error(transparent)]
    BadRequest(#[from] BadRequest),
    /// The command does not accept the value of a field.
    #[error("{message}")]
    InvalidField {
        /// The field's name on the wire.
        field: &'static str,
        /// Why the command does not accept the value.
        message: String,
    },
    /// The server has no datagram port.
    #[error("this server does not accept datagrams")]
    NoDatagrams,
    /// The command needs a login first.
    #[error("`{0}` needs a login; log in first")]
    NotLoggedIn(&'static str),
    /// Only users with the admin right may use the command.
    #[error("only users with the admin right may use `{0}`")]
    AdminsOnly(&'static str),
    /// The server runs inside another program, which is responsible for this.
    #[error("this server does not offer `{0}`, because it runs inside another program")]
    NotOffered(&'static str),
    /// `kick` names no session, or no other session than its own.
    #[error("there is no other session with this id or of this user")]
    NoSuchSession,
    /// The session is already logged in.
    #[error("this session is already logged in as {0}; open another connection for another user")]
    LoggedIn(String),
    /// The login was refused, or the accounts could not be read.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
    /// A password or token came without encryption from another machine.
    #[error(
        "this server accepts passwords and tokens without encryption only from its own machine; \
         connect with TLS, or ask its operator to set auth.plaintext_logins"
    )]
    PlaintextLogin,
    /// Users may not create their own accounts here.
    #[error("this server does not let users create accounts; ask its operator for one")]
    RegisterClosed,
    /// Another user has the requested name.
    #[error("user {0} already exists; choose another name")]
    NameTaken(UserName),
    /// A folder with this name exists.
    #[error("folder {0} already exists; choose another name")]
    FolderExists(FolderName),
    /// No folder has this name.
    #[error("there is no folder {0}")]
    NoSuchFolder(FolderName),
    /// The user has no rights in the folder.
    #[error("user {user} has no rights in folder {folder}")]
    NoSuchGrant {
        /// The folder.
        folder: FolderName,
        /// The user.
        user: UserName,
    },
    /// The user has no token with this number.
    #[error("user {user} has no token {id}")]
    NoSuchToken {
        /// The user.
        user: UserName,
        /// The token's number.
        id: i64,
    },
    /// The user has the maximum number of tokens.
    #[error("user {user} has {max} tokens, which is the limit for one user; remove one first")]
    TooManyTokens {
        /// The user.
        user: UserName,
        /// The most tokens of a user.
        max: usize,
    },
    /// A session that was opened by a token cannot give access that outlives the token.
    #[error(
        "a session that logged in by a token cannot create administrators, nor tokens for itself or \
         for administrators, nor set their passwords; log in with your password"
    )]
    AccessByToken,
    /// The secret of a ticket would be sent without encryption to another machine.
    #[error(
        "this server issues tickets only over encrypted connections, because a ticket has a secret"
    )]
    PlaintextTicket,
    /// The file operation failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The message operation failed.
    #[error(transparent)]
    Messages(#[from] MessagesError),
    /// The receiver of a message or of an offer does not exist.
    #[error("there is no user {}", .0.escape_debug())]
    NoSuchUser(String),
    /// The user exceeds the rate of messages.
    #[error("you send messages too fast; try again in {}", seconds(*.0))]
    TooManyMessages(Duration),
    /// The session has no unfinished get or put with the id that `cancel` names.
    #[error("there is no unfinished get or put with id {0}")]
    NoTransfer(u32),
    /// The session has no watch with the number that `unwatch` names.
    #[error("there is no watch {0}")]
    NoWatch(u32),
    /// Too many puts are waiting for their data at once.
    #[error("{0} puts on this connection are waiting for their data; send it before the next put")]
    TooManyPuts(usize),
    /// The user has the maximum number of files open.
    #[error("you have too many files open; finish some of your transfers first")]
    TooManyFiles,
    /// Too many requests follow the log at once.
    #[error("{0} requests of this session already follow the log; cancel one first")]
    TooManyFollowers(usize),
    /// Too many logins have failed.
    #[error("too many logins failed; try again in {}", seconds(*.0))]
    TooManyAttempts(Duration),
    /// The queue of password hashes is full.
    #[error("too many users are logging in at once; try again in a moment")]
    TooManyLogins,
    /// The user has the maximum number of sessions.
    #[error("you have {0} sessions, which is the limit for one user; end another first")]
    TooManySessions(usize),
    /// The connection is closed to make room for others.
    #[error("the server has too many connections; try again in a moment")]
    Evicted,
    /// The user's rights are unknown at the moment.
    #[error("cannot check your rights: {0}; try again in a moment")]
    Suspended(SuspensionCause),
    /// The account, or the token that the session logged in with, is no longer valid.
    #[error("your account is closed, or your token is no longer valid")]
    AccountClosed,
    /// The client cancelled it.
    #[error("cancelled")]
    Cancelled,
    /// Another session of the user has asked to resume the same put.
    #[error("cancelled: another session has resumed this upload")]
    TakenOver,
    /// No data arrived for a put.
    #[error("no data arrived for {}; the server keeps the data before that, and you can resume the upload", seconds(*.0))]
    SilentPut(Duration),
    /// The user has no partial upload with this path.
    #[error("you have no interrupted upload of this file")]
    NoUpload,
    /// The server is stopping.
    #[error("the server is stopping")]
    ShuttingDown,
    /// The connection is closed, so no reply can be sent.
    #[error(transparent)]
    Closed(#[from] OutboxClosed),
    /// A defect of the server; its log has the details.
    #[error("the server failed during this request; its log has the details")]
    Internal,
}

/// How long a client should wait when a limit is reached for the moment.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The same if many others are waiting, or a person must act first.
const RETRY_LATER: Duration = Duration::from_secs(1);

/// Whole seconds, rounded up.
fn seconds(duration: Duration) -> String {
    match duration.as_millis().div_ceil(1000) {
        1 => "1 second".into(),
        seconds => format!("{seconds} seconds"),
    }
}

fn retry_after(error: &CommandError, code: ErrorCode) -> Option<Duration> {
    match error {
        CommandError::TooManyAttempts(wait) | CommandError::TooManyMessages(wait) => Some(*wait),
        CommandError::TooManyLogins
        | CommandError::TooManySessions(_)
        | CommandError::Evicted
        | CommandError::Suspended(_)
        | CommandError::Storage(StorageError::Suspended { .. })
        | CommandError::Messages(
            MessagesError::TooManyMade(_) | MessagesError::TooManyOpen { .. },
        ) => Some(RETRY_LATER),
        // The user must remove a token first.
        CommandError::TooManyTokens { .. } => None,
        _ => (code == ErrorCode::Limited).then_some(RETRY_AFTER),
    }
}

impl From<UserLimitError> for CommandError {
    fn from(error: UserLimitError) -> Self {
        match error {
            UserLimitError::Evicted => Self::Evicted,
            UserLimitError::TooMany(limit) => Self::TooManySessions(limit),
        }
    }
}

fn is_out_of_descriptors(error: &std::io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE)
    )
}

fn messages_code(error: &MessagesError) -> ErrorCode {
    match error {
        MessagesError::EmptyText | MessagesError::TextWithNul => ErrorCode::BadRequest,
        MessagesError::TextTooLong(_) => ErrorCode::TooLarge,
        MessagesError::NoSuchRoom(_) | MessagesError::NoSuchOffer => ErrorCode::NotFound,
        MessagesError::NotInRoom(_) => ErrorCode::Denied,
        MessagesError::RoomFull { .. }
        | MessagesError::TooManyRooms(_)
        | MessagesError::TooManyWatches(_)
        | MessagesError::TooManyMade(_)
        | MessagesError::TooManyOpen { .. } => ErrorCode::Limited,
        MessagesError::NoSpace => ErrorCode::NoSpace,
        error if error.is_full_disk() => ErrorCode::NoSpace,
        MessagesError::Make { .. }
        | MessagesError::Database { .. }
        | MessagesError::NoRandomness(_)
        | MessagesError::Ended => ErrorCode::Internal,
    }
}

impl CommandError {
    /// The command does not accept the value of `field`, for the reason in `message`.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers pass both texts and errors"
    )]
    pub(crate) fn invalid_field(field: &'static str, message: impl ToString) -> Self {
        Self::InvalidField {
            field,
            message: message.to_string(),
        }
    }
}

impl From<&CommandError> for WireError {
    fn from(error: &CommandError) -> Self {
        use CommandError as E;
        use ErrorCode as Code;
        use StorageError as S;
        let code = match error {
            E::NotOffered(_) | E::NoDatagrams => Code::Unsupported,
            E::BadRequest(bad) if bad.unsupported => Code::Unsupported,
            E::BadRequest(_) | E::InvalidField { .. } | E::LoggedIn(_) => Code::BadRequest,
            E::NotLoggedIn(_) => Code::NotLoggedIn,
            E::Accounts(AccountsError::LoginFailed) => Code::LoginFailed,
            E::AdminsOnly(_)
            | E::AccountClosed
            | E::Accounts(AccountsError::WrongPassword)
            | E::PlaintextLogin
            | E::PlaintextTicket
            | E::AccessByToken
            | E::RegisterClosed => Code::Denied,
            E::NameTaken(_) | E::FolderExists(_) => Code::Exists,
            E::NoTransfer(_)
            | E::NoWatch(_)
            | E::NoUpload
            | E::NoSuchUser(_)
            | E::NoSuchFolder(_)
            | E::NoSuchGrant { .. }
            | E::NoSuchToken { .. }
            | E::NoSuchSession => Code::NotFound,
            E::Messages(error) => messages_code(error),
            E::TooManyAttempts(_) => Code::TooManyAttempts,
            E::TooManyMessages(_)
            | E::TooManyPuts(_)
            | E::TooManyFiles
            | E::TooManyFollowers(_)
            | E::TooManyLogins
            | E::TooManySessions(_)
            | E::TooManyTokens { .. }
            | E::Suspended(_)
            | E::Evicted => Code::Limited,
            E::Cancelled | E::TakenOver | E::Closed(_) => Code::Cancelled,
            E::SilentPut(_) => Code::TimedOut,
            E::ShuttingDown => Code::ShuttingDown,
            E::Accounts(_) | E::Internal => Code::Internal,
            E::Storage(error) => match error {
                S::NotFound { .. } => Code::NotFound,
                S::Exists { .. } => Code::Exists,
                S::NotADirectory { .. } => Code::NotADirectory,
                S::IsADirectory { .. } => Code::IsADirectory,
                S::NotEmpty { .. } => Code::NotEmpty,
                S::Denied { .. } => Code::Denied,
                S::InvalidPath(_) => Code::InvalidPath,
                S::Changed { .. } => Code::Changed,
                S::QuotaExceeded { .. } | S::QuotaReached { .. } => Code::QuotaExceeded,
                S::NoSpace { .. } => Code::NoSpace,
                S::SizeMismatch { .. } => Code::SizeMismatch,
                S::DigestMismatch { .. } => Code::DigestMismatch,
                S::OffsetOutOfRange { .. } | S::BadCursor { .. } => Code::BadRequest,
                S::Cancelled { .. } => Code::Cancelled,
                S::Counting { .. } | S::Suspended { .. } => Code::Limited,
                S::Io { source, .. } if is_out_of_descriptors(source) => Code::Limited,
                S::OtherFileSystem { .. } => Code::Unsupported,
                S::FileTooLarge { .. } => Code::TooLarge,
                S::InUse { .. } | S::Unusable { .. } | S::Io { .. } => Code::Internal,
            },
        };
        let mut wire = Self::new(code, error.to_string());
        let wait = retry_after(error, code).map(|wait| wait.as_millis().max(1));
        wire.retry_after_ms = wait.and_then(|ms| u64::try_from(ms).ok());
        match error {
            E::BadRequest(bad) => wire.field.clone_from(&bad.field),
            E::InvalidField { field, .. } => wire.field = Some((*field).into()),
            E::NoDatagrams => wire.field = Some("cmd".into()),
            E::Messages(
                MessagesError::EmptyText
                | MessagesError::TextTooLong(_)
                | MessagesError::TextWithNul,
            ) => wire.field = Some("text".into()),

            E::Storage(S::OffsetOutOfRange { size, .. }) => {
                wire.field = Some("offset".into());
                wire.offset = Some(*size);
            }
            E::Storage(S::BadCursor { .. }) => wire.field = Some("cursor".into()),
            E::Storage(S::QuotaExceeded {
                used, limit, files, ..
            }) => {
                let unit = if *files {
                    QuotaUnit::Files
                } else {
                    QuotaUnit::Bytes
                };
                wire.unit = Some(unit);
                wire.used = Some(*used);
                wire.limit = Some(*limit);
            }
            _ => {}
        }
        wire
    }
}
