//! Requests: every command a client can send, with its fields and the reply it gets.
//!
//! A request is one JSON object: `{"id":2,"cmd":"cd","path":"reports"}`. It is parsed into the
//! struct of its command in one pass, so that a duplicate, unknown, missing or ill-typed field is
//! refused by name and nothing is silently dropped.

use std::fmt;

use jiff::Timestamp;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::reply::{
    CwdReply, DfReply, GetReply, HashReply, HelloReply, HelpReply, LoginReply, LsReply, Nothing,
    PathReply, PutReply, RmReply, StatReply, TimeReply, WhoamiReply,
};
use super::{Algorithm, CommandHelp, Digest, MAX_NUMBER};

/// A request that has a reply of its own type: one line checks both ends.
pub trait Call: Serialize + DeserializeOwned + Send + 'static {
    /// The command's name on the wire.
    const CMD: &'static str;
    /// What `ok` holds.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
}

/// Declares every command once: its struct, its name, its reply and its line of help.
macro_rules! requests {
    ($($cmd:literal $request:ident -> $reply:ident, $fields:literal, $summary:literal;)*) => {
        /// A parsed request, one variant a command.
        #[derive(Debug, Clone, PartialEq)]
        #[expect(missing_docs, reason = "each variant is the struct of its name")]
        pub enum Request {
            $($request($request),)*
        }

        impl Request {
            /// Parses a control payload that came from a client.
            ///
            /// # Errors
            /// [`BadRequest`], with the request's id where it could be read, if the payload is not
            /// one JSON object with a known `cmd` and exactly its fields, each within its range.
            pub fn parse(json: &[u8]) -> Result<(u32, Self), BadRequest> {
                let head = parse_head(json)?;
                let request = match &*head.cmd {
                    $($cmd => Self::$request(parse_fields(json, head.id)?),)*
                    other => return Err(BadRequest::unknown_command(head.id, other)),
                };
                Ok((head.id, request))
            }

            /// The command's name on the wire.
            #[must_use]
            pub fn cmd(&self) -> &'static str {
                match self {
                    $(Self::$request(_) => $cmd,)*
                }
            }

            /// Name, summary and fields of every command, in the order of the documentation.
            #[must_use]
            pub fn help() -> Vec<CommandHelp> {
                vec![$(CommandHelp {
                    name: $cmd.into(),
                    summary: $summary.into(),
                    fields: $fields.into(),
                },)*]
            }
        }

        $(impl Call for $request {
            const CMD: &'static str = $cmd;
            type Reply = $reply;
        })*
    };
}

requests! {
    "hello"  Hello  -> HelloReply,  "",                         "what this server is and offers; works before login";
    "login"  Login  -> LoginReply,  "user password | token",    "start a session as a user";
    "whoami" Whoami -> WhoamiReply, "",                         "who this session is, with its folders and quota";
    "ping"   Ping   -> TimeReply,   "",                         "the server's time";
    "quit"   Quit   -> Nothing,     "",                         "end the session; the server closes";
    "help"   Help   -> HelpReply,   "[about]",                  "every command, or one, with its fields";
    "pwd"    Pwd    -> CwdReply,    "",                         "the current directory";
    "cd"     Cd     -> CwdReply,    "path",                     "change the current directory";
    "ls"     Ls     -> LsReply,     "[path limit cursor]",      "list a directory, a page at a time";
    "stat"   Stat   -> StatReply,   "path",                     "size, time, version and known digest of a file or directory";
    "mkdir"  Mkdir  -> PathReply,   "path [parents]",           "make a directory";
    "rm"     Rm     -> RmReply,     "path [recursive]",         "remove a file or a directory";
    "mv"     Mv     -> PathReply,   "from to [if_exists]",      "move or rename";
    "cp"     Cp     -> PathReply,   "from to [if_exists]",      "copy a file on the server";
    "get"    Get    -> GetReply,    "path [offset length digest version]", "receive a file as data frames";
    "put"    Put    -> PutReply,    "path [size if_exists modified resume parents digest]", "send a file as data frames";
    "end"    End    -> Nothing,     "[digest]",                 "all data of the put with this id was sent";
    "cancel" Cancel -> Nothing,     "target",                   "end an unfinished get or put";
    "hash"   Hash   -> HashReply,   "path [digest]",            "the digest of a file, computed by the server";
    "df"     Df     -> DfReply,     "",                         "use and limits of the space around the current directory";
}

/// `hello`: what this server is and offers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {}

/// `login`: by `user` and `password`, or by `token`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The user's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// A token in place of both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
}

/// `whoami`: who this session is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whoami {}

/// `ping`: the server's time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ping {}

/// `quit`: end the session.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quit {}

/// `help`: what can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Help {
    /// One command only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
}

/// `pwd`: the current directory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pwd {}

/// `cd`: change the current directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cd {
    /// The directory to go to.
    pub path: String,
}

/// `ls`: list a directory, a page at a time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ls {
    /// The directory; the current one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The most entries in one reply; a reply holds fewer where they would not fit in a frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Where the page before this one ended, as its reply said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// `stat`: what is known of a file or directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stat {
    /// The file or directory.
    pub path: String,
}

/// `mkdir`: make a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mkdir {
    /// The directory to make.
    pub path: String,
    /// Make missing parents too, and do not mind if the directory is there.
    #[serde(default, skip_serializing_if = "is_false")]
    pub parents: bool,
}

/// `rm`: remove a file or a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rm {
    /// What to remove.
    pub path: String,
    /// Remove a directory with all that it holds.
    #[serde(default, skip_serializing_if = "is_false")]
    pub recursive: bool,
}

/// `mv`: move or rename.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mv {
    /// What to move.
    pub from: String,
    /// Its new path.
    pub to: String,
    /// What to do if there is something at `to`; [`IfExists::Fail`] if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_exists: Option<IfExists>,
}

/// `cp`: copy a file on the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cp {
    /// The file to copy.
    pub from: String,
    /// The path of the copy.
    pub to: String,
    /// What to do if there is something at `to`; [`IfExists::Fail`] if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_exists: Option<IfExists>,
}

/// `get`: receive a file as data frames on the stream of this request's id.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Get {
    /// The file.
    pub path: String,
    /// The first byte to send; 0 if absent.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "number"
    )]
    pub offset: Option<u64>,
    /// How many bytes to send; all to the end if absent.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "number"
    )]
    pub length: Option<u64>,
    /// The digest wanted in the final reply; BLAKE3 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<DigestChoice>,
    /// Fail with `changed` unless the file is still of this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// `put`: send a file as data frames on the stream of this request's id, then `end`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Put {
    /// The path under which the file appears once it is whole.
    pub path: String,
    /// How many bytes will come; if absent, the end says.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "number"
    )]
    pub size: Option<u64>,
    /// What to do if there is a file of that name; [`IfExists::Replace`] if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_exists: Option<IfExists>,
    /// The file's modification time; now if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<Timestamp>,
    /// Go on with what the server kept of an earlier attempt, if it kept anything.
    #[serde(default, skip_serializing_if = "is_false")]
    pub resume: bool,
    /// Make missing directories on the way.
    #[serde(default, skip_serializing_if = "is_false")]
    pub parents: bool,
    /// The digest wanted in the final reply; that of `end`, or BLAKE3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Algorithm>,
}

/// `end`: all data of the put with this id was sent.
///
/// It has no reply of its own: the put's final reply answers both.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// The digest of all bytes; the file is refused if the server's differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

/// `cancel`: end an unfinished get or put, which is then answered `cancelled`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    /// The id of the get or put.
    pub target: u32,
}

/// `hash`: the digest of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hash {
    /// The file.
    pub path: String,
    /// The algorithm; BLAKE3 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Algorithm>,
}

/// `df`: use and limits of the space around the current directory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Df {}

/// What to do if there is something at the path to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IfExists {
    /// Put the new file in its place, at once and whole.
    Replace,
    /// Answer `exists`.
    Fail,
    /// Take a free name beside it; the reply says which.
    Rename,
}

/// The digest that a `get` asks for: an algorithm's name, or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected `blake3`, `sha256`, `md5` or `none`")]
pub enum DigestChoice {
    /// A digest by this algorithm.
    Of(Algorithm),
    /// No digest.
    None(NoDigest),
}

/// The word `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoDigest {
    /// No digest.
    #[serde(rename = "none")]
    None,
}

impl DigestChoice {
    /// No digest.
    pub const NONE: Self = Self::None(NoDigest::None);
}

/// A password or token: it travels, and it never shows in a log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes the text out of sight.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the one place that checks or sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The payload is not a request; the session goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadRequest {
    /// The request's id, 0 where it could not be read.
    pub id: u32,
    /// The field at fault, where one is.
    pub field: Option<String>,
    /// What is wrong, for a person.
    pub message: String,
    /// The command is part of the protocol, but not of this server.
    pub unsupported: bool,
}

impl BadRequest {
    /// A request whose `field` makes no sense for the reason in `message`.
    #[must_use]
    pub fn of_field(id: u32, field: &str, message: impl Into<String>) -> Self {
        Self {
            id,
            field: Some(field.into()),
            message: message.into(),
            unsupported: false,
        }
    }

    fn unknown_command(id: u32, cmd: &str) -> Self {
        let unsupported = NOT_OFFERED.contains(&cmd);
        let message = if unsupported {
            format!("this server does not offer `{cmd}`; `help` lists what it does")
        } else {
            format!(
                "unknown command `{}`; `help` lists them",
                cmd.escape_default()
            )
        };
        Self {
            unsupported,
            ..Self::of_field(id, "cmd", message)
        }
    }
}

/// Commands of version 1 that this server answers with `unsupported`.
const NOT_OFFERED: &[&str] = &[
    "passwd", "uploads", "discard", "who", "say", "history", "join", "leave", "send", "accept",
    "decline", "watch", "unwatch", "ticket", "sessions", "kick", "logs", "reload", "users",
];

/// The control payload of a request.
///
/// # Panics
/// Never: every request serialises.
#[must_use]
pub fn encode_request<C: Call>(id: u32, request: &C) -> Vec<u8> {
    #[derive(Serialize)]
    struct Envelope<'a, C> {
        id: u32,
        cmd: &'static str,
        #[serde(flatten)]
        request: &'a C,
    }
    serde_json::to_vec(&Envelope {
        id,
        cmd: C::CMD,
        request,
    })
    .expect("a request is a struct of plain values")
}

/// The two fields that every request has; the others are looked at once `cmd` is known.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    id: u32,
    cmd: String,
}

fn parse_head(json: &[u8]) -> Result<Head, BadRequest> {
    // An array also fits a derived struct; the codec lets only objects through, a caller may not.
    if json.first() != Some(&b'{') {
        return Err(BadRequest {
            id: 0,
            field: None,
            message: "a request is one JSON object".into(),
            unsupported: false,
        });
    }
    let mut fault = Fault::default();
    parse_noting(json, &mut fault, |_| true).map_err(|error| fault.into_bad_request(0, &error))
}

fn parse_fields<T: DeserializeOwned>(json: &[u8], id: u32) -> Result<T, BadRequest> {
    let mut fault = Fault::default();
    parse_noting(json, &mut fault, |key| key != "id" && key != "cmd")
        .map_err(|error| fault.into_bad_request(id, &error))
}

/// Parses a `T` from those members of the object `json` whose key is `wanted`, and notes in
/// `fault` the key at which it failed.
fn parse_noting<T: DeserializeOwned>(
    json: &[u8],
    fault: &mut Fault,
    wanted: fn(&str) -> bool,
) -> Result<T, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = deserializer.deserialize_map(Members {
        fault,
        wanted,
        value: std::marker::PhantomData,
    })?;
    deserializer.end()?;
    Ok(value)
}

/// The member of the object that was being read.
#[derive(Default)]
struct Fault {
    field: Option<String>,
}

impl Fault {
    fn into_bad_request(self, id: u32, error: &serde_json::Error) -> BadRequest {
        let text = error.to_string();
        // serde names a missing field in its message only.
        let missing = text
            .strip_prefix("missing field `")
            .and_then(|rest| rest.split('`').next());
        let field = match (missing, error.classify()) {
            (Some(name), _) => Some(name.to_owned()),
            (None, serde_json::error::Category::Data) => self.field,
            _ => None,
        };
        let message = match &field {
            Some(field) if missing.is_none() => {
                format!("field `{}`: {text}", field.escape_default())
            }
            _ => text,
        };
        BadRequest {
            id,
            field,
            message,
            unsupported: false,
        }
    }
}

struct Members<'a, T> {
    fault: &'a mut Fault,
    wanted: fn(&str) -> bool,
    value: std::marker::PhantomData<T>,
}

impl<'de, T: DeserializeOwned> Visitor<'de> for Members<'_, T> {
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

/// A map that hides the unwanted members and remembers the last key it gave out.
struct Noting<'a, A> {
    map: A,
    fault: &'a mut Fault,
    wanted: fn(&str) -> bool,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Noting<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        while let Some(key) = self.map.next_key::<String>()? {
            if (self.wanted)(&key) {
                self.fault.field = Some(key.clone());
                return seed
                    .deserialize(serde::de::value::StringDeserializer::new(key))
                    .map(Some);
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

/// A whole number that every JSON library reads exactly.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match Option::<u64>::deserialize(deserializer)? {
        Some(number) if number >= MAX_NUMBER => Err(D::Error::custom(format_args!(
            "{number} is out of range: numbers are below 2^53"
        ))),
        number => Ok(number),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(json: &str) -> BadRequest {
        Request::parse(json.as_bytes()).expect_err(json)
    }

    #[test]
    fn a_request_is_parsed_into_the_struct_of_its_command() {
        let (id, request) =
            Request::parse(br#"{"id":2,"cmd":"cd","path":"reports"}"#).expect("a sound request");
        assert_eq!(id, 2);
        assert_eq!(
            request,
            Request::Cd(Cd {
                path: "reports".into()
            })
        );
    }

    #[test]
    fn an_absent_id_is_0_and_the_order_of_fields_does_not_matter() {
        let (id, request) =
            Request::parse(br#"{"path":"x","cmd":"stat"}"#).expect("a sound request");
        assert_eq!((id, request.cmd()), (0, "stat"));
    }

    #[test]
    fn an_unknown_field_is_refused_by_name_with_the_id() {
        let bad = refused(r#"{"id":3,"cmd":"pwd","verbose":true}"#);
        assert_eq!((bad.id, bad.field.as_deref()), (3, Some("verbose")));
    }

    #[test]
    fn a_missing_field_is_refused_by_name() {
        let bad = refused(r#"{"id":3,"cmd":"cd"}"#);
        assert_eq!((bad.id, bad.field.as_deref()), (3, Some("path")));
        assert_eq!(refused(r#"{"id":3}"#).field.as_deref(), Some("cmd"));
    }

    #[test]
    fn a_duplicate_field_is_refused_by_name() {
        for (json, field) in [
            (r#"{"id":1,"cmd":"cd","path":"a","path":"b"}"#, "path"),
            (r#"{"id":1,"cmd":"cd","cmd":"rm","path":"a"}"#, "cmd"),
            (r#"{"id":1,"id":2,"cmd":"cd","path":"a"}"#, "id"),
        ] {
            assert_eq!(refused(json).field.as_deref(), Some(field), "{json}");
        }
    }

    #[test]
    fn a_number_out_of_range_is_refused_by_name() {
        for value in [
            "-1",
            "1e3",
            "1.5",
            "9007199254740992",
            "18446744073709551616",
            "1e999",
            "\"5\"",
        ] {
            let json = format!(r#"{{"id":4,"cmd":"get","path":"a","offset":{value}}}"#);
            let bad = refused(&json);
            assert!(
                bad.field.as_deref() == Some("offset") || value == "1e999",
                "{json}: {bad:?}"
            );
        }
        let largest = br#"{"cmd":"get","path":"a","offset":9007199254740991}"#;
        assert!(Request::parse(largest).is_ok());
    }

    #[test]
    fn an_id_out_of_range_is_refused_by_name() {
        for value in ["-1", "4294967296", "1.0", "null", "\"1\""] {
            let bad = refused(&format!(r#"{{"cmd":"pwd","id":{value}}}"#));
            assert_eq!(bad.field.as_deref(), Some("id"), "{value}");
        }
    }

    #[test]
    fn an_unknown_command_is_bad_and_one_of_a_later_feature_is_unsupported() {
        let bad = refused(r#"{"id":5,"cmd":"fly"}"#);
        assert_eq!(
            (bad.field.as_deref(), bad.unsupported),
            (Some("cmd"), false)
        );
        assert!(refused(r#"{"id":5,"cmd":"watch","path":"/"}"#).unsupported);
    }

    #[test]
    fn what_is_no_single_json_object_is_refused() {
        let deep = format!("{}{}", r#"{"cmd":"#, "[".repeat(100_000));
        for json in [
            "",
            "{",
            "[7]",
            "null",
            r#"{"cmd":"pwd"}x"#,
            r#"{"cmd":"pwd"}{"cmd":"pwd"}"#,
            "\u{feff}{\"cmd\":\"pwd\"}",
            r#"{"cmd":"cd","path":"\ud800"}"#,
            r#"{"cmd":["pwd"]}"#,
            &deep,
        ] {
            refused(json);
        }
        assert!(
            Request::parse(b"{\"cmd\":\"cd\",\"path\":\"\xff\"}").is_err(),
            "invalid UTF-8"
        );
        assert!(
            Request::parse(b"{\"cmd\":\"cd\",\"path\":\"\xc0\xaf\"}").is_err(),
            "overlong"
        );
    }

    #[test]
    fn a_secret_never_shows_in_debug_output() {
        let (_, login) = Request::parse(br#"{"cmd":"login","user":"a","password":"hunter2"}"#)
            .expect("a sound request");
        let shown = format!("{login:?}");
        assert!(
            !shown.contains("hunter2") && shown.contains("***"),
            "{shown}"
        );
    }

    #[test]
    fn a_get_may_ask_for_a_digest_or_for_none() {
        for (word, choice) in [
            ("sha256", DigestChoice::Of(Algorithm::Sha256)),
            ("none", DigestChoice::NONE),
        ] {
            let json = format!(r#"{{"cmd":"get","path":"a","digest":"{word}"}}"#);
            let Ok((_, Request::Get(get))) = Request::parse(json.as_bytes()) else {
                panic!("{json} is sound");
            };
            assert_eq!(get.digest, Some(choice));
        }
        let bad = refused(r#"{"cmd":"get","path":"a","digest":"crc32"}"#);
        assert_eq!(bad.field.as_deref(), Some("digest"));
    }

    proptest! {
        #[test]
        fn a_put_reads_back_as_it_was_written(
            id: u32,
            path: String,
            size in prop::option::of(0..MAX_NUMBER),
            resume: bool,
            parents: bool,
        ) {
            let put = Put { path, size, resume, parents, ..Put::default() };
            let parsed = Request::parse(&encode_request(id, &put));
            prop_assert_eq!(parsed, Ok((id, Request::Put(put))));
        }

        #[test]
        fn arbitrary_bytes_are_a_request_or_refused_and_never_a_panic(bytes: Vec<u8>) {
            let _ = Request::parse(&bytes);
            let mut object = b"{\"cmd\":\"ls\",".to_vec();
            object.extend(bytes);
            let _ = Request::parse(&object);
        }
    }
}
