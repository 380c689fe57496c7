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
    #[error("this server takes no datagrams")]
    NoDatagrams,
    /// The command needs a login first.
    #[error("log in first: `{0}` needs a user")]
    NotLoggedIn(&'static str),
    /// The command needs the admin right.
    #[error("`{0}` is for users with the admin right")]
    AdminsOnly(&'static str),
    /// The server runs within another program, which does that.
    #[error("this server does not offer `{0}`: it runs within another program")]
    NotOffered(&'static str),
    /// Nobody is there whom `kick` names.
    #[error("no such session, or no other one of that user")]
    NoSuchSession,
    /// The session has its user already.
    #[error("this session is that of {0} already; open another connection for another user")]
    LoggedIn(String),
    /// The login was refused, or the accounts could not be read.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
    /// A password or token came in the clear from another machine.
    #[error(
        "this server takes passwords and tokens without encryption from its own machine only; \
         its operator can allow it with auth.plaintext_logins"
    )]
    PlaintextLogin,
    /// Nobody makes an account for themselves here.
    #[error("accounts are made by those who run this server; ask them for one")]
    RegisterClosed,
    /// Somebody has the name that was asked for.
    #[error("there is a user {0} already; choose another name")]
    NameTaken(UserName),
    /// A folder with this name exists.
    #[error("there is a folder {0} already; choose another name")]
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
    /// The user has as many tokens as one may have.
    #[error("user {user} has {max} tokens, as many as one user may have; remove one of them first")]
    TooManyTokens {
        /// The user.
        user: UserName,
        /// The most tokens of a user.
        max: usize,
    },
    /// A token opened the session that wants to make another one.
    #[error("a session that a token opened cannot make tokens; log in with your password")]
    TokenByToken,
    /// A ticket would go in the clear to another machine.
    #[error(
        "this server gives tickets over encrypted connections only: their secret goes with them"
    )]
    PlaintextTicket,
    /// The files said no.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Something could not be said or heard.
    #[error(transparent)]
    Messages(#[from] MessagesError),
    /// A message to nobody, or an offer.
    #[error("there is no user {}", .0.escape_debug())]
    NoSuchUser(String),
    /// The user says more than one may.
    #[error("you say too much at once; try again in {}", seconds(*.0))]
    TooMuchSaid(Duration),
    /// No unfinished get or put has the id that `cancel` names.
    #[error("there is no unfinished get or put with id {0}")]
    NoTransfer(u32),
    /// The session has no watch of the number that `unwatch` names.
    #[error("there is no watch {0}")]
    NoWatch(u32),
    /// Too many puts wait for their data at once.
    #[error("{0} puts wait for their data on this connection; send it before opening more")]
    TooManyPuts(usize),
    /// The user has as many files open as one may have now.
    #[error(
        "you have as many files open as one user may have now; finish some of the transfers first"
    )]
    TooManyFiles,
    /// Too many requests follow the log at once.
    #[error("{0} requests of this session follow the log; cancel one first")]
    TooManyFollowers(usize),
    /// The login comes after too many that failed.
    #[error("too many logins failed; the next may come in {}", seconds(*.0))]
    TooManyAttempts(Duration),
    /// As many logins wait for their password to be hashed as may.
    #[error("too many log in at once; try again in a moment")]
    TooManyLogins,
    /// The user has as many sessions as one may have.
    #[error("you have {0} sessions, as many as one user may have at once; end another first")]
    TooManySessions(usize),
    /// The connection has to go for others.
    #[error("too many are connected; try again in a moment")]
    Evicted,
    /// Nobody knows what the user may do now.
    #[error("{0}, so it does not know what you may do; try again in a moment")]
    Suspended(SuspensionCause),
    /// The account, or the token that the session was opened by, is closed.
    #[error("the account is closed")]
    AccountClosed,
    /// The client cancelled it.
    #[error("cancelled")]
    Cancelled,
    /// Another session of the user has asked to resume the same put.
    #[error("cancelled: another session goes on with this upload")]
    TakenOver,
    /// Nothing came for a put.
    #[error("nothing came for {}; what came before is kept, to be resumed", seconds(*.0))]
    SilentPut(Duration),
    /// The user has no kept upload of that name.
    #[error("there is no such upload that could be resumed")]
    NoUpload,
    /// The server is stopping.
    #[error("the server is stopping")]
    ShuttingDown,
    /// The connection is gone: nobody will read the answer.
    #[error(transparent)]
    Closed(#[from] OutboxClosed),
    /// A defect of the server; its log has the details.
    #[error("the server failed while it worked on this; its log says more")]
    Panicked,
}

/// How long a client should wait when something it needs is used up for the moment.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The same where many are waiting for it, or it takes a person to free it.
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
        CommandError::TooManyAttempts(wait) | CommandError::TooMuchSaid(wait) => Some(*wait),
        CommandError::TooManyLogins
        | CommandError::TooManySessions(_)
        | CommandError::TooManyTokens { .. }
        | CommandError::Evicted
        | CommandError::Suspended(_)
        | CommandError::Storage(StorageError::Suspended { .. })
        | CommandError::Messages(
            MessagesError::TooManyMade(_) | MessagesError::TooManyOpen { .. },
        ) => Some(RETRY_LATER),
        _ => (code == ErrorCode::Limited).then_some(RETRY_AFTER),
    }
}

impl From<UserLimitError> for CommandError {
    fn from(unseated: UserLimitError) -> Self {
        match unseated {
            UserLimitError::Evicted => Self::Evicted,
            UserLimitError::TooMany(most) => Self::TooManySessions(most),
        }
    }
}

fn is_out_of_descriptors(error: &std::io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE)
    )
}

fn code_of(error: &MessagesError) -> ErrorCode {
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
            | E::TokenByToken
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
            E::Messages(error) => code_of(error),
            E::TooManyAttempts(_) => Code::TooManyAttempts,
            E::TooMuchSaid(_)
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
            E::Accounts(_) | E::Panicked => Code::Internal,
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
