//! A line of the log, read back from its JSON: to be shown to a person who follows it from afar.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use crate::telemetry::line::{Value, write_for_people};

/// The line as a person reads it, as [`LogFormat::Text`](crate::config::LogFormat::Text) has it;
/// `None` if it is no line of haul's log. Nothing in it can drive a terminal.
#[must_use]
pub fn for_people(json: &str, colour: bool) -> Option<String> {
    let ReadLine(mut fields) = serde_json::from_str(json).ok()?;
    let mut take = |wanted: &str| {
        let place = fields.iter().position(|(name, _)| name == wanted)?;
        match fields.remove(place) {
            (_, Value::Text(text)) => Some(text),
            _ => None,
        }
    };
    let (time, level, message) = (take("time")?, take("level")?, take("message")?);
    let shown = fields.iter().filter(|(name, _)| !HIDDEN.contains(&&**name));
    let shown = shown.map(|(name, value)| (&**name, value));
    let mut text = String::new();
    let level = level.parse().ok()?;
    write_for_people(&mut text, (&time, level, &message), shown, colour).ok()?;
    text.pop();
    Some(text)
}

/// Fields that are for programs.
const HIDDEN: &[&str] = &["event", "audit", "line"];

/// The fields of a line, in their order.
struct ReadLine(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for ReadLine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(InOrder)
    }
}

struct InOrder;

impl<'de> Visitor<'de> for InOrder {
    type Value = ReadLine;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a line of the log")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ReadLine, A::Error> {
        let mut fields = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, serde_json::Value>()? {
            fields.push((name, value_of(value)));
        }
        Ok(ReadLine(fields))
    }
}

fn value_of(value: serde_json::Value) -> Value {
    match value {
        serde_json::Value::Bool(value) => Value::Bool(value),
        serde_json::Value::String(text) => Value::Text(text.into()),
        serde_json::Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => Value::Unsigned(number),
            (None, Some(number)) => Value::Signed(number),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        other => Value::Text(other.to_string().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_followed_reads_like_one_on_the_terminal_of_the_server() {
        let json = r#"{"time":"2026-01-02T03:04:05.678Z","level":"warn","event":"put_failed",
            "message":"put failed","path":"/a b.bin","bytes":3000000,"took":0.25,"resumed":true,
            "session":"5f3a","line":7}"#;
        assert_eq!(
            for_people(json, false).expect("a line"),
            "2026-01-02T03:04:05.678Z  WARN put failed path=\"/a b.bin\" bytes=3000000 took=0.25 \
             resumed=true session=5f3a"
        );
    }

    #[test]
    fn what_a_server_makes_up_drives_no_terminal_and_what_is_no_line_is_none() {
        let json =
            r#"{"time":"\u001b[2J","level":"info","message":"\u001b]0;x","\u001b[1m":"\u009b"}"#;
        let text = for_people(json, false).expect("a line");
        assert!(!text.contains(char::is_control), "{text:?}");
        assert_eq!(for_people("[]", false), None);
        assert_eq!(for_people(r#"{"time":"now"}"#, false), None);
    }
}
