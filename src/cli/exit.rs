//! How the program ends: the line that says what went wrong, and the exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::cli::output::safe;
use crate::client::{ClientError, Lost};
use crate::config::ConfigError;
use crate::io_error::describe_io_error;
use crate::protocol::ErrorCode;
use crate::server::TlsError;
use crate::telemetry;

/// The server or the transfer said no.
const REFUSED: u8 = 1;
/// Wrong usage: of arguments, or of settings. It is no better the next time.
pub(super) const USAGE: u8 = 2;
/// Could not connect or log in.
const NO_SESSION: u8 = 3;
/// A backup was made while files changed all the time.
const NOT_AT_REST: u8 = 4;
/// Interrupted, as shells count it.
const INTERRUPTED: u8 = 130;

/// The command cannot be meant like this; says what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(pub(super) String);

/// No session with the server came about.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoSession {
    /// The server cannot be reached or used.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The server does not take what the user logs in with.
    #[error("{error}")]
    Refused {
        error: ClientError,
        given_by: GivenBy,
    },
    /// The person at the terminal does not know the server either.
    #[error("the server at {0} is not trusted; nothing was sent to it")]
    NotTrusted(String),
    /// A token logs in whose it is, and that is not who was asked for.
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
    /// The server keeps what it has of an upload.
    pub(super) kept: bool,
}

/// Something failed, and was reported when it did.
#[derive(Debug, thiserror::Error)]
#[error("not everything was done")]
pub(super) struct Reported;

/// A backup was made, and something changed in each of its passes.
#[derive(Debug, thiserror::Error)]
#[error(
    "files changed all the time: a file that was moved in the end may be missing; make the next \
     backup when there is less to do"
)]
pub(super) struct NotAtRest;

/// Shorthand for [`Usage`].
pub(super) fn usage(text: impl Into<String>) -> anyhow::Error {
    Usage(text.into()).into()
}

/// Says on standard error what went wrong with `what`, and returns the exit code for it.
pub(super) fn report(what: &str, error: &anyhow::Error) -> ExitCode {
    print_error(what, error);
    ExitCode::from(code(error))
}

/// The same, as a line of the log that programs know by `event`.
pub(super) fn report_in_log(event: &str, error: &anyhow::Error) -> ExitCode {
    telemetry::log_to_stderr(event, &error_chain(error));
    ExitCode::from(code(error))
}

/// Says on standard error what went wrong with `what`, in one line, or in one for each mistake of a
/// configuration.
pub(super) fn print_error(what: &str, error: &anyhow::Error) {
    if let Some(error) = error.downcast_ref::<ConfigError>() {
        for problem in error.problems() {
            let _ = writeln!(
                io::stderr(),
                "{}",
                safe(&format!("haul: {what}: {problem}"))
            );
        }
    } else if !is_told(error) {
        // Where nobody can read it, the exit code still tells.
        let _ = writeln!(io::stderr(), "{}", error_line(what, error));
    }
}

/// `haul: what: why, what to try next`, harmless to the terminal.
pub(super) fn error_line(what: &str, error: &anyhow::Error) -> String {
    let hint = match error.downcast_ref() {
        Some(NoSession::Client(error)) => trust_hint(error),
        _ => error.downcast_ref().and_then(trust_hint),
    }
    .or_else(|| hint(what, error).map(str::to_owned))
    .map_or(String::new(), |hint| format!("; {hint}"));
    safe(&format!("haul: {what}: {}{hint}", error_chain(error))).into_owned()
}

/// The error and its causes, but for what an outer one has said already.
fn error_chain(error: &anyhow::Error) -> String {
    let mut text = describe_cause(error.as_ref());
    for cause in error.chain().skip(1).map(describe_cause) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

fn describe_cause(error: &(dyn std::error::Error + 'static)) -> String {
    match error.downcast_ref() {
        Some(error) => describe_io_error(error),
        None => error.to_string(),
    }
}

/// Whether there is nothing to add: it was reported, or whoever read our output has left.
fn is_told(error: &anyhow::Error) -> bool {
    error.is::<Reported>() || is_broken_pipe(error)
}

/// The error of a command that does several things in turn. If nobody reads its output any more it has
/// stopped in the middle, which is no success.
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

fn code(error: &anyhow::Error) -> u8 {
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

/// Why arguments make no sense, in one line.
pub(super) fn parsing(what: &str, error: &clap::Error) -> String {
    let text = error.render().to_string();
    let mut lines = text.lines().map(str::trim);
    let first = lines.next().unwrap_or_default();
    let mut line = first.trim_start_matches("error: ").to_owned();
    for tip in lines.filter_map(|line| line.strip_prefix("tip: ")) {
        line.push_str("; ");
        line.push_str(tip);
    }
    line.push_str("; see `haul ");
    line.push_str(what);
    line.push_str(" --help`");
    line
}

fn hint(what: &str, error: &anyhow::Error) -> Option<&'static str> {
    if let Some(error) = error.downcast_ref() {
        return no_session_hint(error);
    }
    if let Some(Interrupted { kept: true }) = error.downcast_ref() {
        return Some(
            "the server keeps what arrived for a while; the same command goes on from there",
        );
    }
    match error.downcast_ref::<ClientError>()? {
        ClientError::Lost(_) | ClientError::ReconnectFailed { .. } if what.starts_with("put") => {
            Some("the same command goes on where this one stopped")
        }
        ClientError::ReconnectFailed { .. } => Some("try again"),
        ClientError::LocalExists(_) => Some("`--if-exists replace` or `rename` would go on"),
        ClientError::LocalNotAFile(_) => Some("use `haul put - NAME < FIFO`"),
        ClientError::LocalChanged(_) => Some("try again when nothing writes to it"),
        ClientError::DigestMismatch { .. } | ClientError::Lost(_) | ClientError::TimedOut(_) => {
            Some("try again")
        }
        ClientError::Server(refusal) => match refusal.code {
            ErrorCode::Exists if what == "mkdir" => {
                Some("`-p` is content with a directory that is there")
            }
            ErrorCode::Exists => Some("`--if-exists replace` or `rename` would go on"),
            ErrorCode::NotFound if what.starts_with("put") || what.starts_with("mkdir") => {
                Some("`--parents` makes missing directories")
            }
            ErrorCode::NotEmpty => Some("`rm -r` removes what is in it too"),
            ErrorCode::QuotaExceeded | ErrorCode::NoSpace => Some("`haul df` shows what is used"),
            _ => None,
        },
        _ => None,
    }
}

fn no_session_hint(error: &NoSession) -> Option<&'static str> {
    match error {
        NoSession::Client(ClientError::Connect { .. }) => {
            Some("is a server running there? `--server URL` names another")
        }
        NoSession::Client(ClientError::TimedOut(_) | ClientError::Lost(Lost::NotHaul(_))) => {
            Some("is that the right port?")
        }
        NoSession::Refused { error, given_by } if error.code() == Some(ErrorCode::LoginFailed) => {
            match given_by {
                GivenBy::PasswordFile => Some("the password is that of `--password-file`"),
                GivenBy::TokenFile => Some("the token is that of `--token-file`"),
                GivenBy::Environment => Some("the password is that of HAUL_PASSWORD"),
                GivenBy::Certificate => Some("the certificate is that of `--cert`"),
                GivenBy::Remembered => {
                    Some("it is what `haul connect` remembered; type that again to log in anew")
                }
                GivenBy::Prompt => None,
            }
        }
        _ => None,
    }
}

/// Advice about a server that is not trusted.
fn trust_hint(error: &ClientError) -> Option<String> {
    match error {
        ClientError::UnknownServer {
            address,
            fingerprint,
        } => Some(format!(
            "if that is what the server says of itself when it starts, type \
             `haul connect --fingerprint {fingerprint} haul://{address}`, or give \
             `--fingerprint` here"
        )),
        ClientError::ServerChanged { address, got, .. } => Some(format!(
            "ask who runs the server; only if they know the new fingerprint, type \
             `haul connect --fingerprint {got} haul://{address}`"
        )),
        ClientError::WrongFingerprint { .. } => {
            Some("it is what `--fingerprint` or HAUL_FINGERPRINT says".into())
        }
        ClientError::UntrustedCertificate { fingerprint, .. } => Some(format!(
            "only if whoever runs the server confirms that fingerprint, \
             `--fingerprint {fingerprint}` would trust it all the same"
        )),
        ClientError::ReconnectFailed { cause, .. } => trust_hint(cause),
        ClientError::NoTls {
            server,
            known: false,
        } => Some(format!(
            "`haul+plain://{server}` would connect without encryption"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::WireError;
    use crate::tls::Fingerprint;

    fn refused(code: ErrorCode, message: &str) -> ClientError {
        ClientError::Server(WireError::new(code, message))
    }

    #[test]
    fn every_ending_has_its_exit_code() {
        let unknown = ClientError::UnknownServer {
            address: "h:9000".into(),
            fingerprint: Fingerprint::of_certificate(b""),
        };
        let login = ClientError::Login(WireError::new(ErrorCode::LoginFailed, "no"));
        for (error, expected) in [
            (refused(ErrorCode::NotFound, "no").into(), 1),
            (usage("wrong"), 2),
            (NoSession::from(unknown).into(), 3),
            (NoSession::from(login).into(), 3),
            (Interrupted { kept: false }.into(), 130),
            (Reported.into(), 1),
            (NotAtRest.into(), 4),
        ] {
            assert_eq!(code(&error), expected, "{error}");
        }
    }

    #[test]
    fn a_reader_that_leaves_is_no_error_of_a_list_and_one_of_what_stops_in_the_middle() {
        let broken = || anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(code(&broken()), 0);
        let stopped = unfinished(broken());
        assert!(is_told(&stopped));
        assert_eq!(code(&stopped), 1);
    }

    #[test]
    fn who_is_refused_is_told_where_the_password_came_from() {
        for (given_by, hint) in [
            (
                GivenBy::Environment,
                "; the password is that of HAUL_PASSWORD",
            ),
            (
                GivenBy::Remembered,
                "; it is what `haul connect` remembered; type that again to log in anew",
            ),
            (GivenBy::Prompt, ""),
        ] {
            let error = ClientError::Login(WireError::new(ErrorCode::LoginFailed, "no"));
            let error = NoSession::Refused { error, given_by }.into();
            assert_eq!(
                error_line("ls", &error),
                format!("haul: ls: login refused: no{hint}")
            );
        }
    }

    #[test]
    fn no_cause_is_told_twice() {
        let cause = || anyhow::anyhow!("the disk fails");
        let error = cause().context("cannot read it: the disk fails");
        assert_eq!(
            error_line("df", &error),
            "haul: df: cannot read it: the disk fails"
        );
        let error = cause().context("cannot read it");
        assert_eq!(
            error_line("df", &error),
            "haul: df: cannot read it: the disk fails"
        );
    }

    #[test]
    fn only_what_takes_if_exists_is_told_of_it() {
        let error = refused(ErrorCode::Exists, "there").into();
        assert!(error_line("put a", &error).contains("--if-exists"));
        assert!(
            error_line("mkdir", &error).ends_with("`-p` is content with a directory that is there")
        );
    }

    #[test]
    fn a_message_of_the_server_cannot_drive_the_terminal() {
        let error = refused(ErrorCode::NotFound, "no such file: \x1b[2J\u{202e}\n").into();
        assert_eq!(
            error_line("stat", &error),
            "haul: stat: no such file: \\u{1b}[2J\\u{202e}\\n"
        );
    }
}
