//! The stable error codes and the object that carries one to a client.

use serde::{Deserialize, Serialize};

/// The kind of an error, for a program to decide on. Stable, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// The bytes are not a frame. The connection closes after this.
    BadFrame,
    /// The frame is not a valid request. `field` names the field at fault, if it is known.
    BadRequest,
    /// A command or choice of the protocol that this server does not offer.
    Unsupported,
    /// The command needs a login first.
    NotLoggedIn,
    /// Unknown user, wrong password or token, or a disabled account.
    LoginFailed,
    /// Too many failed logins; `retry_after_ms` says when to try again.
    TooManyAttempts,
    /// The user may know that the entry exists, but has no right to the operation.
    Denied,
    /// No entry of that name exists that this user may see.
    NotFound,
    /// An entry of that name already exists.
    Exists,
    /// The path must be a directory, and is not.
    NotADirectory,
    /// The path must be a file, and is a directory.
    IsADirectory,
    /// The directory is not empty.
    NotEmpty,
    /// The text is not a valid path, or not one for the operation.
    InvalidPath,
    /// The file is not the requested version, or changed while it was read.
    Changed,
    /// The user's quota does not allow it; carries `used`, `limit` and their `unit`.
    QuotaExceeded,
    /// The server's disk is full.
    NoSpace,
    /// A value or a file is larger than the server accepts.
    TooLarge,
    /// The number of received bytes is not the declared one.
    SizeMismatch,
    /// The content does not have the expected digest.
    DigestMismatch,
    /// The client cancelled it.
    Cancelled,
    /// The operation took longer than the server allows.
    TimedOut,
    /// A limit of the server was reached; `retry_after_ms` says when to try again.
    Limited,
    /// The server is stopping.
    ShuttingDown,
    /// The server failed; its log says how.
    Internal,
    /// A code that this version does not know.
    #[serde(other, skip_serializing)]
    Unknown,
}

impl ErrorCode {
    /// Every code of this version, in the order of their declaration.
    pub const ALL: [Self; 24] = [
        Self::BadFrame,
        Self::BadRequest,
        Self::Unsupported,
        Self::NotLoggedIn,
        Self::LoginFailed,
        Self::TooManyAttempts,
        Self::Denied,
        Self::NotFound,
        Self::Exists,
        Self::NotADirectory,
        Self::IsADirectory,
        Self::NotEmpty,
        Self::InvalidPath,
        Self::Changed,
        Self::QuotaExceeded,
        Self::NoSpace,
        Self::TooLarge,
        Self::SizeMismatch,
        Self::DigestMismatch,
        Self::Cancelled,
        Self::TimedOut,
        Self::Limited,
        Self::ShuttingDown,
        Self::Internal,
    ];

    /// Whether the same request may succeed later without any change by the client.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::TooManyAttempts
                | Self::NoSpace
                | Self::TimedOut
                | Self::Limited
                | Self::ShuttingDown
                | Self::Internal
        )
    }

    /// The code on the wire and in logs, such as `not_found`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadFrame => "bad_frame",
            Self::BadRequest => "bad_request",
            Self::Unsupported => "unsupported",
            Self::NotLoggedIn => "not_logged_in",
            Self::LoginFailed => "login_failed",
            Self::TooManyAttempts => "too_many_attempts",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::Exists => "exists",
            Self::NotADirectory => "not_a_directory",
            Self::IsADirectory => "is_a_directory",
            Self::NotEmpty => "not_empty",
            Self::InvalidPath => "invalid_path",
            Self::Changed => "changed",
            Self::QuotaExceeded => "quota_exceeded",
            Self::NoSpace => "no_space",
            Self::TooLarge => "too_large",
            Self::SizeMismatch => "size_mismatch",
            Self::DigestMismatch => "digest_mismatch",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Limited => "limited",
            Self::ShuttingDown => "shutting_down",
            Self::Internal => "internal",
            Self::Unknown => "unknown",
        }
    }
}

/// The unit of a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuotaUnit {
    /// Bytes in files.
    Bytes,
    /// Files, directories and links.
    Files,
}

/// The `error` of a reply: a code for programs, a message for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct WireError {
    /// The kind of the error, for a program.
    pub code: ErrorCode,
    /// The description of the error, for a person.
    pub message: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// The field of the request that is at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Bytes or entries in use, with [`ErrorCode::QuotaExceeded`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    /// Bytes or entries allowed, with [`ErrorCode::QuotaExceeded`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// The unit of `used` and `limit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<QuotaUnit>,
    /// Milliseconds to wait, with [`ErrorCode::Limited`] and [`ErrorCode::TooManyAttempts`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The valid offset, if the request had an invalid one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

impl WireError {
    /// An error with only a code and a message.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retryable: code.is_retryable(),
            field: None,
            used: None,
            limit: None,
            unit: None,
            retry_after_ms: None,
            offset: None,
        }
    }

    /// A copy with texts short enough for a frame, whatever characters they have.
    pub(super) fn shortened(&self) -> Self {
        let cut = |text: &String| match text.char_indices().nth(MAX_TEXT_CHARS) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text.clone(),
        };
        Self {
            message: cut(&self.message),
            field: self.field.as_ref().map(cut),
            ..self.clone()
        }
    }
}

/// The most characters of a text in an error. JSON needs at most six bytes for each.
const MAX_TEXT_CHARS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_written_as_it_is_named() {
        for code in [
            ErrorCode::BadFrame,
            ErrorCode::NotADirectory,
            ErrorCode::QuotaExceeded,
            ErrorCode::Internal,
        ] {
            let json = serde_json::to_string(&code).expect("a code is JSON");
            assert_eq!(json, format!("\"{}\"", code.as_str()));
        }
    }

    #[test]
    fn all_codes_are_listed_in_their_order() {
        for (number, code) in ErrorCode::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, number);
        }
        assert_eq!(ErrorCode::Unknown as usize, ErrorCode::ALL.len());
    }

    #[test]
    fn a_code_of_a_later_version_is_understood_as_unknown() {
        let code: ErrorCode = serde_json::from_str("\"on_fire\"").expect("any code parses");
        assert_eq!(code, ErrorCode::Unknown);
    }

    #[test]
    fn fields_that_do_not_apply_are_left_out() {
        let error = WireError::new(ErrorCode::NotFound, "no such file: /a");
        assert_eq!(
            serde_json::to_string(&error).expect("an error is JSON"),
            r#"{"code":"not_found","message":"no such file: /a","retryable":false}"#
        );
    }
}
