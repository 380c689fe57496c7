//! The label and the expiry of a new token.

use std::str::FromStr;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan};

/// The most characters of a label.
pub const MAX_LABEL_CHARS: usize = 100;

/// The days after which a token expires unless its maker says otherwise.
pub const DEFAULT_TOKEN_DAYS: i64 = 365;

/// The purpose of a token, as one line of text. The default is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenLabel(String);

impl TokenLabel {
    /// The label as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text is not a valid label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a label has at most {MAX_LABEL_CHARS} characters, no control characters and no marks that \
     reorder text"
)]
pub struct InvalidLabel;

impl FromStr for TokenLabel {
    type Err = InvalidLabel;

    fn from_str(text: &str) -> Result<Self, InvalidLabel> {
        if text.chars().any(is_unprintable) || text.chars().count() > MAX_LABEL_CHARS {
            return Err(InvalidLabel);
        }
        Ok(Self(text.into()))
    }
}

/// Whether a character could drive a terminal, or reorder the text beside it (Unicode UAX #9).
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// When a new token expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenExpiry {
    /// It does not.
    Never,
    /// At a time to come.
    At(Timestamp),
}

/// The text or time is not a valid expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidExpiry {
    /// The time is not in the future.
    #[error("that is not in the future")]
    Past,
    /// The text is neither a span nor a time.
    #[error("expected a time from now such as 90d, a time such as 2027-01-31T00:00Z, or \"never\"")]
    Syntax,
}

impl TokenExpiry {
    /// Expires at `time`.
    ///
    /// # Errors
    /// [`InvalidExpiry::Past`] unless `time` is in the future.
    pub fn at(time: Timestamp) -> Result<Self, InvalidExpiry> {
        if time > Timestamp::now() {
            Ok(Self::At(time))
        } else {
            Err(InvalidExpiry::Past)
        }
    }

    /// The time, if there is one.
    #[must_use]
    pub fn timestamp(self) -> Option<Timestamp> {
        match self {
            Self::Never => None,
            Self::At(time) => Some(time),
        }
    }

    fn after(span: Span) -> Option<Timestamp> {
        let now = Timestamp::now().to_zoned(TimeZone::UTC);
        now.checked_add(span).ok().map(|time| time.timestamp())
    }
}

impl Default for TokenExpiry {
    /// In [`DEFAULT_TOKEN_DAYS`].
    fn default() -> Self {
        // A year from now is out of range in the last year that a timestamp can express only.
        Self::after(DEFAULT_TOKEN_DAYS.days()).map_or(Self::Never, Self::At)
    }
}

impl FromStr for TokenExpiry {
    type Err = InvalidExpiry;

    fn from_str(text: &str) -> Result<Self, InvalidExpiry> {
        if text == "never" {
            return Ok(Self::Never);
        }
        let time = match text.parse::<Span>() {
            Ok(span) => Self::after(span),
            Err(_) => text.parse().ok(),
        };
        Self::at(time.ok_or(InvalidExpiry::Syntax)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_expires_after_a_span_at_a_time_or_never() {
        for text in ["90d", "6 months", "1h 30m", "P1Y", "2999-01-31T00:00Z"] {
            let expiry: TokenExpiry = text.parse().expect(text);
            assert!(expiry.timestamp() > Some(Timestamp::now()), "{text}");
        }
        assert_eq!("never".parse(), Ok(TokenExpiry::Never));
        for text in ["", "0s", "-1d", "soon", "2001-01-31T00:00Z", "99999 years"] {
            assert!(text.parse::<TokenExpiry>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_token_expires_after_a_year_by_default() {
        let expires = TokenExpiry::default().timestamp().expect("a time");
        let days = expires.duration_since(Timestamp::now()).as_hours() / 24;
        assert!((364..=365).contains(&days), "{days}");
    }

    #[test]
    fn a_label_that_could_drive_a_terminal_or_is_too_long_is_refused() {
        assert!("backup of the büro".parse::<TokenLabel>().is_ok());
        assert!("ü".repeat(100).parse::<TokenLabel>().is_ok());
        for text in [
            "a\nb",
            "\x1b[2J",
            "\u{9b}",
            "a\u{202e}fdp",
            &"x".repeat(101),
        ] {
            assert_eq!(text.parse::<TokenLabel>(), Err(InvalidLabel), "{text:?}");
        }
    }
}
