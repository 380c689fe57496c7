//! The two formats of a log line, JSON and text for people. No value can break a line or control a
//! terminal.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use jiff::Timestamp;
use tracing::Level;

use crate::config::LogFormat;

/// The shape of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineFormat {
    /// One JSON object.
    Json,
    /// For people.
    Text {
        /// With the level in colour.
        colour: bool,
    },
}

/// The format of an output; colour only on terminals, unless `NO_COLOR` is set.
pub(super) fn resolve_format(format: LogFormat, is_terminal: bool) -> LineFormat {
    let colour = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    match format {
        LogFormat::Auto if is_terminal => LineFormat::Text { colour },
        LogFormat::Text => LineFormat::Text { colour },
        LogFormat::Auto | LogFormat::Json => LineFormat::Json,
    }
}

/// The value of a field. Cheap to clone: those of a span are in every line of it.
#[derive(Debug, Clone)]
pub(super) enum FieldValue {
    Text(Arc<str>),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Bool(bool),
}

impl From<&str> for FieldValue {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

/// The time in the format of a line.
pub(super) fn time(time: Timestamp) -> impl fmt::Display {
    time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ")
}

/// Writes a line for a person: time, level and message, then the fields.
pub(super) fn write_for_people<'n, 'v>(
    line: &mut String,
    (time, level, message): (&str, Level, &str),
    fields: impl Iterator<Item = (&'n str, &'v FieldValue)>,
    colour: bool,
) -> fmt::Result {
    let colour = match level {
        _ if !colour => None,
        Level::ERROR => Some(31),
        Level::WARN => Some(33),
        Level::INFO => Some(32),
        _ => Some(34),
    };
    write_escaped(line, time)?;
    match colour {
        Some(code) => write!(line, " \x1b[{code}m{level:>5}\x1b[0m ")?,
        None => write!(line, " {level:>5} ")?,
    }
    write_escaped(line, message)?;
    for (name, value) in fields {
        line.push(' ');
        write_escaped(line, name)?;
        line.push('=');
        match value {
            FieldValue::Text(text) if is_plain(text) => line.push_str(text),
            _ => write_value(line, value)?,
        }
    }
    line.push('\n');
    Ok(())
}

/// Whether a value needs no quotes.
fn is_plain(text: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || "-_./:@+,#*~%[]()".contains(c);
    !text.is_empty() && text.chars().all(plain)
}

/// Writes JSON.
pub(super) fn write_value(line: &mut String, value: &FieldValue) -> fmt::Result {
    match value {
        FieldValue::Text(text) => write_text(line, text),
        FieldValue::Signed(number) => write!(line, "{number}"),
        FieldValue::Unsigned(number) => write!(line, "{number}"),
        FieldValue::Float(number) => write!(line, "{}", serde_json::Value::from(*number)),
        FieldValue::Bool(value) => write!(line, "{value}"),
    }
}

/// Writes a JSON string. Characters that control a terminal are escaped.
pub(super) fn write_text(line: &mut String, text: &str) -> fmt::Result {
    let needs_no_escape = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if text.bytes().all(needs_no_escape) {
        line.push('"');
        line.push_str(text);
        line.push('"');
        return Ok(());
    }
    write_escaped(line, &serde_json::Value::from(text).to_string())
}

/// Writes text, with JSON escapes for characters that could break the line, control a terminal or
/// change the direction of the text.
pub(super) fn write_escaped(line: &mut String, text: &str) -> fmt::Result {
    for character in text.chars() {
        match character {
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            _ if character.is_control() || reorders(character) => {
                write!(line, "\\u{:04x}", u32::from(character))?;
            }
            _ => line.push(character),
        }
    }
    Ok(())
}

/// Whether it is a line or paragraph separator, or changes the direction of the text.
fn reorders(character: char) -> bool {
    matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_text_on_a_terminal_and_json_anywhere_else() {
        assert!(matches!(
            resolve_format(LogFormat::Auto, true),
            LineFormat::Text { .. }
        ));
        assert_eq!(resolve_format(LogFormat::Auto, false), LineFormat::Json);
        assert_eq!(resolve_format(LogFormat::Json, true), LineFormat::Json);
        assert_eq!(
            resolve_format(LogFormat::Text, false),
            LineFormat::Text { colour: false }
        );
    }
}
