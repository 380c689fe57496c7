//! `docs/PROTOCOL.md` is correct: its sessions are run against a server, and its tables are
//! compared with the code.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::BytesMut;
use haul::config::Config;
use haul::protocol::{
    Call, ErrorCode, FrameCodec, Request, ServerMessage, WireError, encode_request,
};
use jiff::{SignedDuration, Span, SpanRelativeTo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::codec::Decoder;

use crate::harness::{PASSWORD, TestServer, frame};

const DOCUMENT: &str = include_str!("../../docs/PROTOCOL.md");

/// The source of all error codes, because an enum has no list of its variants.
const CODES: &str = include_str!("../../src/protocol/error.rs");

const PATIENCE: Duration = Duration::from_mins(1);

/// A line of the example session.
struct ExampleLine {
    text: &'static str,
    from_client: bool,
    length: [u8; 4],
    payload: Vec<u8>,
}

impl ExampleLine {
    fn parse(text: &'static str) -> Self {
        let (side, rest) = text.split_once(' ').expect("an arrow, then a space");
        let (length, payload) = rest.split_once("  ").expect("two spaces after the length");
        Self {
            text,
            from_client: match side {
                "→" => true,
                "←" => false,
                other => panic!("{other} is no side of a session"),
            },
            length: bytes_of_hex(length)
                .try_into()
                .expect("four bytes of length"),
            payload: match payload.as_bytes() {
                json @ [b'{', ..] => json.to_vec(),
                _ => bytes_of_hex(payload),
            },
        }
    }

    /// The bytes on the wire.
    fn bytes(&self) -> Vec<u8> {
        [&self.length[..], &self.payload].concat()
    }
}

fn bytes_of_hex(text: &str) -> Vec<u8> {
    let bytes = text.split(' ').map(|byte| u8::from_str_radix(byte, 16));
    bytes.collect::<Result<_, _>>().expect(text)
}

/// The written sessions, each for a new server.
fn sessions() -> Vec<Vec<ExampleLine>> {
    let blocks = DOCUMENT.split("```session\n").skip(1);
    let sessions: Vec<Vec<_>> = blocks
        .map(|block| {
            let (session, _) = block.split_once("```").expect("an end of the session");
            session.lines().map(ExampleLine::parse).collect()
        })
        .collect();
    assert_eq!(sessions.len(), 2, "the sessions are found");
    assert!(
        sessions.iter().all(|lines| lines.len() > 10),
        "each is whole"
    );
    sessions
}

/// The members whose values differ between servers according to the document.
fn varying() -> Vec<&'static str> {
    let lists = DOCUMENT.split("sends other values for ").skip(1);
    lists
        .flat_map(|rest| {
            let (list, _) = rest.split_once("other lengths").expect("its end");
            words_in_backticks(list)
        })
        .collect()
}

fn words_in_backticks(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The rows of all tables of a text, cell by cell.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let rows = text.lines().filter(|line| line.starts_with("| "));
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect())
}

/// The section under the heading that begins with `heading`.
fn section(heading: &str) -> &'static str {
    let (_, rest) = DOCUMENT
        .split_once(&format!("\n{heading}"))
        .unwrap_or_else(|| panic!("no heading begins with {heading:?}"));
    let level = heading.split(' ').next().expect("a level");
    rest.split(&format!("\n{level} ")).next().expect("a text")
}

#[test]
fn every_frame_of_the_session_is_one_frame_of_the_length_before_it() {
    for line in sessions().into_iter().flatten() {
        assert_eq!(line.bytes(), frame(&line.payload), "{}", line.text);
        let mut wire = BytesMut::from(&line.bytes()[..]);
        let decoded = FrameCodec::new().decode(&mut wire).expect(line.text);
        assert!(decoded.is_some() && wire.is_empty(), "{}", line.text);
    }
}

#[test]
fn every_request_of_the_session_is_written_as_haul_would_write_it() {
    let lines = sessions().into_iter().flatten();
    for line in lines.filter(|line| line.from_client) {
        if line.payload.starts_with(b"{") {
            let (id, request) = Request::parse(&line.payload).expect(line.text);
            let again = encode(id, &request);
            assert_eq!(again, line.payload, "{}", line.text);
        }
    }
}

fn encode(id: u32, request: &Request) -> Vec<u8> {
    fn encode(id: u32, request: &impl Call) -> Vec<u8> {
        encode_request(id, request)
    }
    match request {
        Request::Hello(request) => encode(id, request),
        Request::Login(request) => encode(id, request),
        Request::Mkdir(request) => encode(id, request),
        Request::Cd(request) => encode(id, request),
        Request::Put(request) => encode(id, request),
        Request::End(request) => encode(id, request),
        Request::Get(request) => encode(id, request),
        Request::Quit(request) => encode(id, request),
        Request::Tokens(request) => encode(id, request),
        Request::TokenAdd(request) => encode(id, request),
        Request::TokenRemove(request) => encode(id, request),
        other => panic!("the session has a {} now: add it here", other.cmd()),
    }
}

#[tokio::test]
async fn the_sessions_happen_byte_for_byte_as_the_document_shows_them() {
    for lines in sessions() {
        play(lines).await;
    }
}

async fn play(lines: Vec<ExampleLine>) {
    let server = TestServer::start().await;
    let mut stream = server.connect().await.stream;
    let play = async {
        for line in lines {
            if line.from_client {
                stream.write_all(&line.bytes()).await.expect(line.text);
                continue;
            }
            let length = stream.read_u32().await.expect(line.text);
            let mut payload = vec![0; length as usize];
            stream.read_exact(&mut payload).await.expect(line.text);
            let payload = with_values_of(&line, payload);
            let shown = (payload.escape_ascii(), line.payload.escape_ascii());
            assert_eq!(payload, line.payload, "{} is not {}", shown.0, shown.1);
        }
        let rest = stream.read_u8().await;
        assert!(rest.is_err(), "after quit the server closes");
    };
    timeout(PATIENCE, play).await.expect("the server answers");
}

/// The server's frame, with the document's values where they vary.
fn with_values_of(line: &ExampleLine, sent: Vec<u8>) -> Vec<u8> {
    if !sent.starts_with(b"{") {
        return sent;
    }
    let mut json = String::from_utf8(sent).expect("UTF-8");
    let document = str::from_utf8(&line.payload).expect("UTF-8");
    for member in varying() {
        if let (Some(value), Some(shown)) = (value_of(&json, member), value_of(document, member)) {
            let value = json[value].to_owned();
            json = json.replace(&value, &document[shown]);
        }
    }
    json.into_bytes()
}

/// The position of the text of a string member.
fn value_of(json: &str, member: &str) -> Option<std::ops::Range<usize>> {
    let before = format!("\"{member}\":\"");
    let start = json.find(&before)? + before.len();
    let length = json[start..].find('"')?;
    Some(start..start + length)
}

#[test]
fn the_session_logs_in_as_the_tests_do() {
    assert!(section("## 1.").contains(&format!("the password `{PASSWORD}`")));
}

#[test]
fn every_written_example_is_what_the_document_says() {
    let mut examples = 0;
    for line in DOCUMENT.lines().filter(|line| !line.contains('…')) {
        let line = line.trim_start();
        if let Some(request) = line.strip_prefix("→ {") {
            Request::parse(format!("{{{request}").as_bytes()).expect(line);
            examples += 1;
        } else if let Some(message) = line.strip_prefix("← {") {
            ServerMessage::parse(format!("{{{message}").as_bytes()).expect(line);
            examples += 1;
        } else if line.starts_with("{\"code\"") {
            let error: WireError = serde_json::from_str(line).expect(line);
            assert_ne!(error.code, ErrorCode::Unknown, "{line}");
            assert_eq!(error.retryable, error.code.is_retryable(), "{line}");
            examples += 1;
        }
    }
    assert!(examples > 5, "only {examples} examples were found");
}

#[test]
fn every_command_is_documented_with_all_its_fields() {
    for command in Request::help() {
        let heading = match &*command.name {
            "get" => "## 7. Downloads: `get`".to_owned(),
            "put" | "end" | "copy" => "## 8. Uploads: `put`".to_owned(),
            name => format!("### `{name}`\n"),
        };
        let fields: BTreeSet<_> = rows(section(&heading))
            .flat_map(|row| words_in_backticks(row[0]))
            .collect();
        let words = command.fields.split([' ', '[', ']', '|']);
        for field in words.filter(|field| !field.is_empty()) {
            assert!(fields.contains(field), "{}: {field}", command.name);
        }
    }
}

#[test]
fn every_error_code_is_in_the_table_with_its_retryable_flag() {
    let documented: BTreeSet<_> = rows(section("## 9. Errors"))
        .filter_map(|row| match row[1] {
            "yes" => Some((words_in_backticks(row[0])[0], true)),
            "no" => Some((words_in_backticks(row[0])[0], false)),
            _ => None,
        })
        .collect();
    let names = CODES
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Self::")?.split_once("=> \""))
        .map(|(_, name)| name.trim_end_matches("\","));
    let codes: BTreeSet<_> = names
        .filter(|name| *name != "unknown")
        .map(|name| {
            let code: ErrorCode = serde_json::from_value(name.into()).expect(name);
            assert_eq!(code.as_str(), name);
            (name, code.is_retryable())
        })
        .collect();
    assert!(codes.len() >= 24, "{codes:?}");
    assert_eq!(documented, codes);
}

#[tokio::test]
async fn a_disabled_optional_command_is_unsupported() {
    let commands: Vec<_> = rows(section("## 14."))
        .flat_map(|row| words_in_backticks(row[0]))
        .collect();
    assert_eq!(commands.len(), 4, "the table is read");
    let server = TestServer::start_with(|config| config.server.datagrams = false).await;
    server.add_admin("root").await;
    let mut root = server.log_in("root").await;
    for command in commands {
        root.fails(serde_json::json!({"cmd": command}), "unsupported")
            .await;
    }
}

#[test]
fn every_configurable_limit_has_the_documented_default() {
    let settings: toml::Table = Config::default().to_string().parse().expect("TOML");
    let mut limits = settings["limits"].as_table().expect("a section").clone();
    for unnoticed in ["disk_threads", "hashing"] {
        limits.remove(unnoticed).expect("no client notices it");
    }
    for row in rows(section("## 12.")) {
        let Some(name) = row[2].trim_matches('`').strip_prefix("limits.") else {
            continue;
        };
        let value = limits.remove(name).expect(name);
        let documented = row[1];
        match value.as_str() {
            Some("") => assert_eq!(documented, "none", "{name}"),
            Some(value) if value.ends_with('B') => {
                assert_eq!(documented.replace(' ', ""), value, "{name}");
            }
            Some(value) => assert_eq!(duration(documented), duration(value), "{name}"),
            None => assert_eq!(documented.replace(' ', ""), value.to_string(), "{name}"),
        }
    }
    assert!(limits.is_empty(), "not in the document: {limits:?}");
}

fn duration(text: &str) -> SignedDuration {
    let span = text.parse::<Span>().expect(text);
    let days = SpanRelativeTo::days_are_24_hours();
    span.to_duration(days).expect(text)
}
