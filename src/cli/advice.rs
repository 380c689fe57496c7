//! Advice for the user about an error: the next thing to try.

use crate::cli::exit::{FailedWithAdvice, GivenBy, Interrupted, NoSession, SpaceExplained};
use crate::client::{ClientError, Lost};
use crate::protocol::ErrorCode;

/// Advice about `error` of the command `command`, which may be followed by a path.
pub(super) fn advice(command: &str, error: &anyhow::Error) -> Option<String> {
    if let Some(FailedWithAdvice { advice, .. }) = error.downcast_ref() {
        return Some((*advice).to_owned());
    }
    if error.downcast_ref::<SpaceExplained>().is_some() {
        return None;
    }
    let client = match error.downcast_ref() {
        Some(NoSession::Client(error)) => Some(error),
        Some(NoSession::UnknownServer { error, user }) => {
            return trust_advice(error, user.as_deref());
        }
        _ => error.downcast_ref::<ClientError>(),
    };
    let about_trust = client.and_then(|error| trust_advice(error, None));
    about_trust.or_else(|| fixed_advice(command, error).map(str::to_owned))
}

fn fixed_advice(command: &str, error: &anyhow::Error) -> Option<&'static str> {
    if let Some(error) = error.downcast_ref() {
        return no_session_advice(error);
    }
    if let Some(Interrupted { kept: true }) = error.downcast_ref() {
        return Some(
            "the server keeps the interrupted upload for a while; run the same command again to resume it",
        );
    }
    if error.is::<Interrupted>() {
        return match command.split(' ').next().unwrap_or_default() {
            "get" => Some(
                "complete files and the parts of large ones are kept; run the same command again to continue",
            ),
            "put" | "sync" => Some("complete files stay; run the same command again to continue"),
            _ => None,
        };
    }
    match error.downcast_ref::<ClientError>()? {
        ClientError::Lost(_) | ClientError::ReconnectFailed { .. }
            if command.starts_with("put") =>
        {
            Some("run the same command again to resume it")
        }
        ClientError::ReconnectFailed { .. } => Some("try again"),
        ClientError::LocalExists(_) => Some("add `--if-exists replace` or `--if-exists rename`"),
        ClientError::LocalNotAFile(_) => {
            Some("to upload from a pipe, run `haul put - NAME < FIFO`")
        }
        ClientError::LocalChanged(_) => Some("try again when no program writes to it"),
        ClientError::DigestMismatch { .. } | ClientError::Lost(_) | ClientError::TimedOut(_) => {
            Some("try again")
        }
        ClientError::Server(refusal) => match refusal.code {
            ErrorCode::Exists if command.starts_with("mkdir") => {
                Some("with `-p`, an existing directory is no error")
            }
            ErrorCode::Exists => Some("add `--if-exists replace` or `--if-exists rename`"),
            ErrorCode::NotFound if command.starts_with("put") || command.starts_with("mkdir") => {
                Some("add `--parents` to create missing directories")
            }
            ErrorCode::NotEmpty => Some("to remove it with its content, run `haul rm -r`"),
            ErrorCode::QuotaExceeded | ErrorCode::NoSpace => {
                Some("`haul df` shows how much space is used")
            }
            _ => None,
        },
        _ => None,
    }
}

fn no_session_advice(error: &NoSession) -> Option<&'static str> {
    match error {
        NoSession::Client(ClientError::Connect { .. }) => {
            Some("check that the server runs, or name another with `--server URL`")
        }
        NoSession::Client(ClientError::TimedOut(_) | ClientError::Lost(Lost::NotHaul(_))) => {
            Some("check the port")
        }
        NoSession::Refused { error, given_by } if error.code() == Some(ErrorCode::LoginFailed) => {
            match given_by {
                GivenBy::PasswordFile => Some("the password came from `--password-file`"),
                GivenBy::TokenFile => Some("the token came from `--token-file`"),
                GivenBy::Environment => Some("the password came from HAUL_PASSWORD"),
                GivenBy::Certificate => Some("the certificate came from `--cert`"),
                GivenBy::Remembered => {
                    Some("the login was saved by `haul connect`; run `haul connect` again")
                }
                GivenBy::Prompt => None,
            }
        }
        _ => None,
    }
}

/// Advice about a server that is not trusted.
fn trust_advice(error: &ClientError, user: Option<&str>) -> Option<String> {
    let user = user.map_or(String::new(), |user| format!("{user}@"));
    match error {
        ClientError::UnknownServer {
            address,
            fingerprint,
        } => Some(format!(
            "if the server prints the same fingerprint when it starts, run \
             `haul connect --fingerprint {fingerprint} haul://{user}{address}`, or add \
             `--fingerprint {fingerprint}` here"
        )),
        ClientError::ServerChanged { address, got, .. } => Some(format!(
            "ask the operator of the server; only if the operator confirms the new fingerprint, run \
             `haul connect --fingerprint {got} haul://{address}`"
        )),
        ClientError::WrongFingerprint { .. } => {
            Some("the expected fingerprint came from `--fingerprint` or HAUL_FINGERPRINT".into())
        }
        ClientError::UntrustedCertificate { fingerprint, .. } => Some(format!(
            "only if the operator of the server confirms that fingerprint, add \
             `--fingerprint {fingerprint}`"
        )),
        ClientError::ReconnectFailed { cause, .. } => trust_advice(cause, None),
        ClientError::NoTls {
            server,
            known: false,
        } => Some(format!(
            "to connect without encryption, write `haul+plain://{server}`"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit::usage;
    use crate::protocol::WireError;
    use crate::tls::Fingerprint;

    #[test]
    fn a_refused_login_names_the_source_of_the_password() {
        for (given_by, expected) in [
            (
                GivenBy::Environment,
                Some("the password came from HAUL_PASSWORD"),
            ),
            (
                GivenBy::Remembered,
                Some("the login was saved by `haul connect`; run `haul connect` again"),
            ),
            (GivenBy::Prompt, None),
        ] {
            let error = ClientError::Login(WireError::new(ErrorCode::LoginFailed, "no"));
            let error = NoSession::Refused { error, given_by }.into();
            assert_eq!(advice("ls", &error).as_deref(), expected);
        }
    }

    #[test]
    fn advice_about_an_unknown_server_keeps_the_user() {
        let error = ClientError::UnknownServer {
            address: "h:9000".into(),
            fingerprint: Fingerprint::of_certificate(b""),
        };
        let user = Some("alice".to_owned());
        let error = NoSession::UnknownServer { error, user }.into();
        let advice = advice("connect", &error).expect("advice");
        assert!(advice.contains(" haul://alice@h:9000`"), "{advice}");
    }

    #[test]
    fn only_commands_with_if_exists_are_advised_to_use_it() {
        let error = ClientError::Server(WireError::new(ErrorCode::Exists, "there")).into();
        let about = |command| advice(command, &error).expect("advice");
        assert!(about("put a").contains("--if-exists"));
        assert!(about("mkdir").starts_with("with `-p`"));
        assert_eq!(advice("ls", &usage("wrong")), None);
    }
}
