//! Parsing a request: one pass per struct, and a refusal that names the field at fault.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{CowStrDeserializer, MapAccessDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::protocol::command::CommandInfo;

/// The payload is not a request. The session continues.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadRequest {
    /// The request's id, 0 where it could not be read.
    pub id: u32,
    /// The command, if the protocol has it. Any other text is not repeated, because it may be a
    /// password in the wrong field.
    pub cmd: Option<&'static str>,
    /// The field at fault, if one is.
    pub field: Option<String>,
    /// What is wrong, for a person.
    pub message: String,
    /// The command is part of the protocol, but not of this server.
    pub unsupported: bool,
}

/// The longest part of a request that an error repeats.
const MAX_QUOTED: usize = 200;

/// The two fields that every request has.
#[derive(Deserialize)]
pub(super) struct IdAndCmd {
    #[serde(default)]
    pub(super) id: u32,
    pub(super) cmd: String,
}

/// The `id` of a request whose other fields do not matter.
#[derive(Deserialize)]
struct IdOnly {
    #[serde(default)]
    id: u32,
}

impl IdAndCmd {
    /// Reads `id` and `cmd`, wherever they are in the object.
    pub(super) fn parse(json: &[u8]) -> Result<Self, BadRequest> {
        // A derived struct also accepts an array. The codec rejects arrays, but other callers may not.
        if json.first() != Some(&b'{') {
            return Err(BadRequest {
                id: 0,
                cmd: None,
                field: None,
                message: "a request must be one JSON object".into(),
                unsupported: false,
            });
        }
        let mut fault = ParseFault::default();
        parse_noting(json, &mut fault, |_| true)
            .map_err(|error| fault.into_bad_request(readable_id(json), None, &error))
    }
}

/// The answer to a request with an unknown command.
pub(super) fn unknown_command(id: u32, cmd: &str) -> BadRequest {
    let cmd = quoted(cmd);
    BadRequest {
        id,
        cmd: None,
        field: Some("cmd".into()),
        message: format!("unknown command `{cmd}`; `help` lists them"),
        unsupported: false,
    }
}

/// The id of a request whose `cmd` is missing or invalid; 0 if the id cannot be read either.
fn readable_id(json: &[u8]) -> u32 {
    let parsed = parse_noting::<IdOnly>(json, &mut ParseFault::default(), |key| key == "id");
    parsed.map_or(0, |IdOnly { id }| id)
}

/// A request with a known command, whose other fields are not read yet. A caller can decide by the
/// command alone whether it reads them.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// The request's id.
    pub id: u32,
    /// The command's row in the table of commands.
    pub command: &'static CommandInfo,
    pub(super) json: &'a [u8],
}

impl RequestHead<'_> {
    /// Reads all other fields, which are those of `cmd`.
    pub(super) fn fields<T: DeserializeOwned>(self, cmd: &'static str) -> Result<T, BadRequest> {
        fields(self.id, cmd, self.json, |key| key != "id" && key != "cmd")
    }
}

/// Reads those fields of a request that are `wanted`, which are all those of `cmd`.
pub(super) fn fields<T: DeserializeOwned>(
    id: u32,
    cmd: &'static str,
    json: &[u8],
    wanted: fn(&str) -> bool,
) -> Result<T, BadRequest> {
    let mut fault = ParseFault::default();
    parse_noting(json, &mut fault, wanted)
        .map_err(|error| fault.into_bad_request(id, Some(cmd), &error))
}

/// A text of the client within a message: of bounded length and without control characters.
fn quoted(text: &str) -> String {
    text.chars()
        .take(MAX_QUOTED)
        .flat_map(char::escape_debug)
        .collect()
}

/// Parses a `T` from those members of the object `json` whose key is `wanted`, and notes in
/// `fault` the key at which it failed.
fn parse_noting<'de, T: DeserializeOwned>(
    json: &'de [u8],
    fault: &mut ParseFault<'de>,
    wanted: fn(&str) -> bool,
) -> Result<T, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = deserializer.deserialize_map(JsonMembers {
        fault,
        wanted,
        value: PhantomData,
    })?;
    deserializer.end()?;
    Ok(value)
}

/// The member of the object that was being read.
#[derive(Default)]
struct ParseFault<'de> {
    field: Option<Cow<'de, str>>,
}

impl ParseFault<'_> {
    fn into_bad_request(
        self,
        id: u32,
        cmd: Option<&'static str>,
        error: &serde_json::Error,
    ) -> BadRequest {
        let text = error.to_string();
        // serde names a missing field in its message only.
        let missing = text
            .strip_prefix("missing field `")
            .and_then(|rest| rest.split('`').next());
        let field = match (missing, error.classify()) {
            (Some(name), _) => Some(name.to_owned()),
            (None, serde_json::error::Category::Data) => self.field.as_deref().map(quoted),
            _ => None,
        };
        let message = match &field {
            Some(field) if missing.is_none() => format!("field `{field}`: {}", quoted(&text)),
            _ => quoted(&text),
        };
        BadRequest {
            id,
            cmd,
            field,
            message,
            unsupported: false,
        }
    }
}

struct JsonMembers<'a, 'de, T> {
    fault: &'a mut ParseFault<'de>,
    wanted: fn(&str) -> bool,
    value: PhantomData<T>,
}

impl<'de, T: DeserializeOwned> Visitor<'de> for JsonMembers<'_, 'de, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(Noting {
            map,
            fault: self.fault,
            wanted: self.wanted,
        }))
    }
}

/// A key, which is copied only if it has escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// A map that skips the unwanted members and records the last key that it returned.
struct Noting<'a, 'de, A> {
    map: A,
    fault: &'a mut ParseFault<'de>,
    wanted: fn(&str) -> bool,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Noting<'_, 'de, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        while let Some(Key(key)) = self.map.next_key()? {
            if (self.wanted)(&key) {
                self.fault.field = Some(key.clone());
                return seed.deserialize(CowStrDeserializer::new(key)).map(Some);
            }
            self.map.next_value::<IgnoredAny>()?;
        }
        self.fault.field = None;
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

#[cfg(test)]
mod tests;
