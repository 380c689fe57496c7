//! A line of the log, parsed from its JSON, for people who follow it remotely.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use crate::telemetry::format::{FieldValue, write_for_people};

/// The line in the format [`LogFormat::Text`](crate::config::LogFormat::Text); `None` if it is not a line
/// of haul's log. Nothing in it can control a terminal.
#[must_use]
pub fn format_for_people(json: &str, colour: bool) -> Option<String> {
    let ParsedLine(mut fields) = serde_json::from_str(json).ok()?;
    let mut remove = |wanted: &str| {
        let index = fields.iter().position(|(name, _)| name == wanted)?;
        match fields.remove(index) {
            (_, FieldValue::Text(text)) => Some(text),
            _ => None,
        }
    };
    let (time, level, message) = (remove("time")?, remove("level")?, remove("message")?);
    let shown = fields
        .iter()
        .filter(|(name, _)| !HIDDEN_FIELDS.contains(&&**name));
    let shown = shown.map(|(name, value)| (&**name, value));
    let mut text = String::new();
    let level = level.parse().ok()?;
    write_for_people(&mut text, (&time, level, &message), shown, colour).ok()?;
    text.pop();
    Some(text)
}

/// Fields that are for programs.
const HIDDEN_FIELDS: &[&str] = &["event", "audit", "line"];

/// The fields of a line, in their order.
struct ParsedLine(Vec<(String, FieldValue)>);

impl<'de> Deserialize<'de> for ParsedLine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ParsedLineVisitor)
    }
}

struct ParsedLineVisitor;

impl<'de> Visitor<'de> for ParsedLineVisitor {
    type Value = ParsedLine;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a line of the log")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ParsedLine, A::Error> {
        let mut fields = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, serde_json::Value>()? {
            fields.push((name, field_value(value)));
        }
        Ok(ParsedLine(fields))
    }
}

fn field_value(value: serde_json::Value) -> FieldValue {
    match value {
        serde_json::Value::Bool(value) => FieldValue::Bool(value),
        serde_json::Value::String(text) => FieldValue::Text(text.into()),
        serde_json::Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => FieldValue::Unsigned(number),
            (None, Some(number)) => FieldValue::Signed(number),
            (None, None) => FieldValue::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        other => FieldValue::Text(other.to_string().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_followed_line_has_the_text_format_of_the_server() {
        let json = r#"{"time":"2026-01-02T03:04:05.678Z","level":"warn","event":"put_failed",
            "message":"put failed","path":"/a b.bin","bytes":3000000,"took":0.25,"resumed":true,
            "session":"5f3a","line":7}"#;
        assert_eq!(
            format_for_people(json, false).expect("a line"),
            "2026-01-02T03:04:05.678Z  WARN put failed path=\"/a b.bin\" bytes=3000000 took=0.25 \
             resumed=true session=5f3a"
        );
    }

    #[test]
    fn a_forged_line_cannot_control_a_terminal_and_invalid_lines_are_none() {
        let json =
            r#"{"time":"\u001b[2J","level":"info","message":"\u001b]0;x","\u001b[1m":"\u009b"}"#;
        let text = format_for_people(json, false).expect("a line");
        assert!(!text.contains(char::is_control), "{text:?}");
        assert_eq!(format_for_people("[]", false), None);
        assert_eq!(format_for_people(r#"{"time":"now"}"#, false), None);
    }
}
