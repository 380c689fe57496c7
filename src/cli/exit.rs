//! The errors of commands, and the exit codes that they lead to.

use std::borrow::Cow;
use std::fmt;
use std::io;

use crate::client::ClientError;
use crate::config::ConfigError;
use crate::protocol::ErrorCode;
use crate::server::TlsError;

/// The server refused a request, or a transfer failed.
const REFUSED: u8 = 1;
/// Wrong arguments or settings. The same command fails again.
pub(super) const USAGE: u8 = 2;
/// Could not connect or log in.
const NO_SESSION: u8 = 3;
/// A backup was made while files changed all the time.
const NOT_AT_REST: u8 = 4;
/// Interrupted, as shells count it.
const INTERRUPTED: u8 = 130;

/// Wrong usage; the text says what is wrong and what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(pub(super) String);

/// There is no session with the server.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoSession {
    /// The server cannot be reached or used.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Nobody has confirmed the certificate of the server, and there is no terminal to ask at.
    #[error("{error}")]
    UnknownServer {
        error: ClientError,
        /// The user in the address.
        user: Option<String>,
    },
    /// The server refuses the password, the token or the certificate.
    #[error("{error}")]
    Refused {
        error: ClientError,
        given_by: GivenBy,
    },
    /// The person at the terminal does not trust the server.
    #[error("the server at {0} is not trusted; nothing was sent to it")]
    NotTrusted(String),
    /// The token belongs to another user than the address names.
    #[error("the token is {whose}'s, not {asked}'s")]
    AnotherUser { whose: String, asked: String },
}

/// Where a password, a token or a certificate came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GivenBy {
    PasswordFile,
    TokenFile,
    Environment,
    Certificate,
    Remembered,
    Prompt,
}

/// Stopped by a signal.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(super) struct Interrupted {
    /// The server keeps the interrupted upload.
    pub(super) kept: bool,
}

/// Something failed, and was reported when it did.
#[derive(Debug, thiserror::Error)]
#[error("the command failed")]
pub(super) struct Reported;

/// The reason in full of an error about space, in place of the server's words.
#[derive(Debug)]
pub(super) struct SpaceExplained(pub(super) String);

impl fmt::Display for SpaceExplained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A transfer of several files ended after some of them.
#[derive(Debug)]
pub(super) struct StoppedEarly {
    /// `1 file`, `2 files`.
    pub(super) files: String,
}

impl fmt::Display for StoppedEarly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stopped after {}", self.files)
    }
}

/// A pattern matches no path on the server.
#[derive(Debug, thiserror::Error)]
#[error("no file or directory on the server matches {0}")]
pub(super) struct NoMatch(pub(super) String);

/// A backup was made, and something changed in each of its passes.
#[derive(Debug, thiserror::Error)]
#[error(
    "files changed during each pass, so a file that was moved may be missing; make the next \
     backup when the server is less busy"
)]
pub(super) struct NotAtRest;

/// The operation that failed, as the context of its cause, and advice, which is printed after the
/// cause.
#[derive(Debug)]
pub(super) struct FailedWithAdvice {
    pub(super) failed: String,
    pub(super) advice: &'static str,
}

impl fmt::Display for FailedWithAdvice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.failed)
    }
}

/// Shorthand for [`Usage`].
pub(super) fn usage(text: impl Into<String>) -> anyhow::Error {
    Usage(text.into()).into()
}

/// Whether nothing is left to report: the error was reported, or the reader of the output has left.
pub(super) fn is_reported(error: &anyhow::Error) -> bool {
    error.is::<Reported>() || is_broken_pipe(error)
}

/// The error of a command that does several things in turn. If its output has no reader any more,
/// the command has stopped in the middle, which is a failure.
pub(super) fn unfinished(error: anyhow::Error) -> anyhow::Error {
    if is_broken_pipe(&error) {
        Reported.into()
    } else {
        error
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let source = match error.downcast_ref::<ClientError>() {
        Some(ClientError::Local { error, .. }) => Some(error),
        _ => error.downcast_ref::<io::Error>(),
    };
    source.is_some_and(|source| source.kind() == io::ErrorKind::BrokenPipe)
}

/// The exit code of `error`.
pub(super) fn exit_code(error: &anyhow::Error) -> u8 {
    if is_broken_pipe(error) {
        // The reader of the results has read enough.
        0
    } else if error.is::<Interrupted>() {
        INTERRUPTED
    } else if error.is::<Usage>() || is_configuration(error) {
        USAGE
    } else if error.is::<NotAtRest>() {
        NOT_AT_REST
    } else if error.is::<NoSession>() {
        NO_SESSION
    } else if let Some(ClientError::ReconnectFailed { .. }) = error.downcast_ref() {
        NO_SESSION
    } else {
        REFUSED
    }
}

fn is_configuration(error: &anyhow::Error) -> bool {
    error.is::<ConfigError>() || matches!(error.downcast_ref(), Some(TlsError::HalfSet))
}

/// The name of `error` for programs: the server's code if the server has sent one.
pub(super) fn error_code(error: &anyhow::Error) -> Cow<'static, str> {
    if error.is::<NoMatch>() {
        return ErrorCode::NotFound.as_str().into();
    }
    let client = match error.downcast_ref() {
        Some(
            NoSession::Client(error)
            | NoSession::UnknownServer { error, .. }
            | NoSession::Refused { error, .. },
        ) => Some(error),
        Some(NoSession::NotTrusted(_)) => return "not_trusted".into(),
        Some(NoSession::AnotherUser { .. }) => return "another_user".into(),
        None => error.downcast_ref::<ClientError>(),
    };
    if let Some(code) = client.and_then(ClientError::code) {
        return code.as_str().into();
    }
    let name = match client {
        Some(
            ClientError::UnknownServer { .. }
            | ClientError::ServerChanged { .. }
            | ClientError::WrongFingerprint { .. }
            | ClientError::UntrustedCertificate { .. },
        ) => "not_trusted",
        Some(
            ClientError::Local { .. }
            | ClientError::LocalChanged(_)
            | ClientError::LocalNotAFile(_)
            | ClientError::LocalBrokenLink(_)
            | ClientError::LocalExists(_),
        ) => "local_file",
        _ => match exit_code(error) {
            USAGE => "usage",
            NO_SESSION => "no_connection",
            NOT_AT_REST => "not_at_rest",
            INTERRUPTED => "interrupted",
            _ => "failed",
        },
    };
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::WireError;
    use crate::tls::Fingerprint;

    #[test]
    fn every_error_has_its_exit_code_and_its_name() {
        let unknown = ClientError::UnknownServer {
            address: "h:9000".into(),
            fingerprint: Fingerprint::of_certificate(b""),
        };
        let login = ClientError::Login(WireError::new(ErrorCode::LoginFailed, "no"));
        let not_found = ClientError::Server(WireError::new(ErrorCode::NotFound, "no"));
        for (error, code, name) in [
            (not_found.into(), 1, "not_found"),
            (usage("wrong"), 2, "usage"),
            (NoSession::from(unknown).into(), 3, "not_trusted"),
            (NoSession::from(login).into(), 3, "login_failed"),
            (Interrupted { kept: false }.into(), 130, "interrupted"),
            (Reported.into(), 1, "failed"),
            (NotAtRest.into(), 4, "not_at_rest"),
        ] {
            assert_eq!(exit_code(&error), code, "{error}");
            assert_eq!(error_code(&error), name, "{error}");
        }
    }

    #[test]
    fn a_closed_pipe_is_no_error_of_a_list_but_one_of_a_command_that_stopped_in_the_middle() {
        let broken = || anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(exit_code(&broken()), 0);
        let stopped = unfinished(broken());
        assert!(is_reported(&stopped));
        assert_eq!(exit_code(&stopped), 1);
    }
}
