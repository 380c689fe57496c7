//! Times on the wire: one form of RFC 3339, in the years 0 to 9999.

use jiff::Timestamp;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// The bytes of a time up to its seconds; digits are `0`.
const DATE_AND_TIME: &[u8] = b"0000-00-00T00:00:00";

/// The most digits of a fraction of a second.
const MAX_FRACTION_DIGITS: usize = 9;

/// Reads an optional time of a request. The library accepts more: signed years, other separators, annotations.
pub(super) fn optional_time<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Timestamp>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let expected = "expected a time of RFC 3339 in the years 0 to 9999, as 2026-03-01T12:00:00Z";
    parse(&text)
        .map(Some)
        .ok_or_else(|| D::Error::custom(expected))
}

fn parse(text: &str) -> Option<Timestamp> {
    let (head, tail) = text.as_bytes().split_at_checked(DATE_AND_TIME.len())?;
    let rest = match tail.strip_prefix(b".") {
        None => tail,
        Some(tail) => {
            let digits = tail.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if !(1..=MAX_FRACTION_DIGITS).contains(&digits) {
                return None;
            }
            &tail[digits..]
        }
    };
    let is_sound = has_form(head, DATE_AND_TIME)
        && (has_form(rest, b"Z") || has_form(rest, b"+00:00") || has_form(rest, b"-00:00"));
    let time: Timestamp = is_sound.then(|| text.parse().ok())??;
    // An offset may lead to the year before 0, which the format cannot express.
    (!time.to_string().starts_with('-')).then_some(time)
}

/// Whether `text` is as `form`, with any digits.
fn has_form(text: &[u8], form: &[u8]) -> bool {
    text.len() == form.len()
        && text.iter().zip(form).all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            form => byte.eq_ignore_ascii_case(form),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_one_form_with_any_offset() {
        for (text, utc) in [
            ("2026-03-01T12:00:00Z", "2026-03-01T12:00:00Z"),
            ("2026-03-01t12:00:00.5z", "2026-03-01T12:00:00.5Z"),
            (
                "2026-03-01T12:00:00.123456789+02:00",
                "2026-03-01T10:00:00.123456789Z",
            ),
            ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z"),
            ("1969-12-31T23:59:59-01:30", "1970-01-01T01:29:59Z"),
        ] {
            let time = parse(text).map(|time| time.to_string());
            assert_eq!(time.as_deref(), Some(utc), "{text}");
        }
    }

    #[test]
    fn other_forms_and_years_are_refused() {
        for text in [
            "",
            "2026-03-01",
            "2026-03-01 12:00:00Z",
            "2026-03-01T12:00Z",
            "2026-03-01T12:00:00",
            "2026-03-01T12:00:00.Z",
            "2026-03-01T12:00:00,5Z",
            "2026-03-01T12:00:00.1234567890Z",
            "2026-03-01T12:00:00+02",
            "2026-03-01T12:00:00Z[UTC]",
            "20260301T120000Z",
            "2026-02-30T12:00:00Z",
            "-000001-12-31T23:00:00Z",
            "+002026-03-01T12:00:00Z",
            "0000-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-23:59",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
