//! The model's expectations of one request, and the effect of its reply on the model.

use std::sync::Arc;

use haul::protocol::{Algorithm, Digest, ErrorCode, WireError};
use haul::storage::VirtualPath;
use serde_json::{Value, json};

use super::deltas::{check_chunks, check_ranges};
use super::model::{FileModel, ModelNode, Touch};

/// Errors that a session may receive although it has broken no rule.
pub(crate) const ORDINARY: &[ErrorCode] = &[
    ErrorCode::BadRequest,
    ErrorCode::Denied,
    ErrorCode::NotFound,
    ErrorCode::Exists,
    ErrorCode::NotADirectory,
    ErrorCode::IsADirectory,
    ErrorCode::NotEmpty,
    ErrorCode::InvalidPath,
    ErrorCode::Changed,
    ErrorCode::QuotaExceeded,
    ErrorCode::SizeMismatch,
    ErrorCode::DigestMismatch,
    ErrorCode::Cancelled,
    ErrorCode::Limited,
    ErrorCode::Unsupported,
];

/// An unanswered request.
#[derive(Debug)]
pub(crate) struct Expect {
    pub(crate) cmd: &'static str,
    /// If there are any, the request must fail with one of them.
    pub(crate) must: Vec<ErrorCode>,
    /// The request may fail with one of these instead of succeeding.
    pub(crate) may: Vec<ErrorCode>,
    pub(crate) then: Then,
    pub(crate) touches: Vec<Touch>,
    /// The bytes and entries of the quota that it may hold until it is answered.
    pub(crate) holds: (u64, u64),
    pub(crate) stream: Stream,
}

/// The state of a request with data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stream {
    /// It has none.
    None,
    /// A put or get whose `begin` has not been received.
    Opening,
    /// A put that accepts data.
    Open,
    /// A put whose `end` was sent.
    Ended,
    /// A get, with the data received.
    Receiving { length: u64, content: Vec<u8> },
}

impl Stream {
    /// The received data of a get that has begun.
    fn received(&self) -> &[u8] {
        match self {
            Self::Receiving { content, .. } => content,
            other => panic!("a get that ended without a begin: {other:?}"),
        }
    }
}

/// The meaning of success.
#[derive(Debug, Clone)]
pub(crate) enum Then {
    /// The model does not know the reply.
    Anything,
    /// `ok` is exactly this.
    Is(Value),
    /// A complete file with any of the stored contents.
    GetWhole,
    Cd(VirtualPath),
    List(Vec<(String, ModelNode)>),
    Stat(VirtualPath, ModelNode),
    Mkdir(VirtualPath),
    Rm(VirtualPath),
    Mv(VirtualPath, VirtualPath),
    Cp(VirtualPath, VirtualPath),
    Hash(Arc<Vec<u8>>, Algorithm),
    Get {
        content: Arc<Vec<u8>>,
        offset: u64,
        length: Option<u64>,
        digest: Option<Algorithm>,
    },
    Put(VirtualPath, Arc<Vec<u8>>, Algorithm),
    /// The content chunks of this content.
    Chunks(Arc<Vec<u8>>),
    /// Ranges of a file, each an offset and a length.
    Ranges {
        content: Arc<Vec<u8>>,
        ranges: Vec<(u64, u64)>,
        digest: Option<Algorithm>,
    },
    /// At most these bytes and entries, or exactly these if `exact`.
    Df {
        used: (u64, u64),
        exact: bool,
    },
}

impl Expect {
    /// A request that must succeed.
    pub(crate) fn new(cmd: &'static str, then: Then) -> Self {
        Self {
            cmd,
            must: Vec::new(),
            may: Vec::new(),
            then,
            touches: Vec::new(),
            holds: (0, 0),
            stream: Stream::None,
        }
    }

    /// A request that may succeed or fail with an ordinary error.
    pub(crate) fn anything(cmd: &'static str) -> Self {
        Self {
            may: ORDINARY.to_vec(),
            ..Self::new(cmd, Then::Anything)
        }
    }

    pub(crate) fn fails(mut self, codes: impl IntoIterator<Item = ErrorCode>) -> Self {
        self.must.extend(codes);
        self
    }

    pub(crate) fn may_fail(mut self, codes: impl IntoIterator<Item = ErrorCode>) -> Self {
        self.may.extend(codes);
        self
    }

    pub(crate) fn touching(mut self, touches: impl IntoIterator<Item = Touch>) -> Self {
        self.touches.extend(touches);
        self
    }

    /// Whether it has begun and continues without the client.
    pub(crate) fn is_running(&self) -> bool {
        self.stream != Stream::Open
    }

    /// Whether it is a put that only an `end`, a `cancel` or a bad frame can end.
    pub(crate) fn is_sure_to_be_open(&self) -> bool {
        let unsure = [ErrorCode::Cancelled, ErrorCode::QuotaExceeded];
        let may_fail = self.may.iter().any(|code| unsure.contains(code));
        self.stream == Stream::Open && !may_fail
    }

    /// Processes a `begin`.
    pub(crate) fn begin(&mut self, begin: &Value) {
        assert!(
            self.must.is_empty() || self.stream == Stream::Ended,
            "{self:?}"
        );
        match (self.cmd, &self.stream) {
            ("put", Stream::Opening) => {
                self.stream = Stream::Open;
                self.touches.clear();
            }
            ("put", Stream::Ended) => {}
            ("get", Stream::Opening) => {
                self.stream = Stream::Receiving {
                    length: begin["length"].as_u64().expect("a length"),
                    content: Vec::new(),
                };
            }
            ("chunks", Stream::Opening) => {
                self.stream = Stream::Receiving {
                    length: u64::MAX,
                    content: Vec::new(),
                };
            }
            _ => panic!("{begin} for {self:?}"),
        }
    }

    /// Whether its success changes files.
    pub(crate) fn changes_files(&self) -> bool {
        match self.cmd {
            "put" => self.stream == Stream::Ended,
            cmd => matches!(cmd, "cp" | "rm" | "mv" | "mkdir"),
        }
    }

    pub(crate) fn check_error(&self, error: &WireError) {
        let allowed = self.must.contains(&error.code) || self.may.contains(&error.code);
        assert!(allowed, "{error:?} for {self:?}");
        assert_eq!(error.retryable, error.code.is_retryable());
        assert!(!error.message.contains(char::is_control), "{error:?}");
        if error.code == ErrorCode::QuotaExceeded {
            let (used, limit) = (error.used.expect("used"), error.limit.expect("limit"));
            assert!(used <= limit && error.unit.is_some(), "{error:?}");
        }
    }

    /// Checks `ok`, and applies the effect of the request to the model.
    pub(crate) fn succeed(self, ok: &Value, tree: &mut FileModel, cwd: &mut VirtualPath) {
        assert!(self.must.is_empty(), "{ok} for {self:?}");
        let context = format!("{ok} for {self:?}");
        match self.then {
            Then::Anything | Then::GetWhole => {}
            Then::Is(expected) => assert_eq!(ok, &expected, "{context}"),
            Then::Cd(path) => {
                assert_eq!(ok["cwd"], path.as_str(), "{context}");
                *cwd = path;
            }
            Then::List(expected) => {
                let entries = ok["entries"].as_array().expect("entries");
                let actual: Vec<_> = entries.iter().map(without_time).collect();
                let expected: Vec<_> = expected
                    .iter()
                    .map(|(name, node)| entry(name, node))
                    .collect();
                assert_eq!(actual, expected, "{context}");
                assert!(ok.get("cursor").is_none(), "{context}");
            }
            Then::Stat(path, node) => {
                let name = path.name().unwrap_or("/");
                let actual = json!({"name": ok["name"], "kind": ok["kind"], "size": ok["size"]});
                assert_eq!(actual, entry(name, &node), "{context}");
                assert_eq!(ok["path"], path.as_str(), "{context}");
                if let (Some(digest), ModelNode::File(content)) = (ok["digest"].as_str(), node) {
                    check_digest(digest, &content);
                }
            }
            Then::Mkdir(path) => {
                assert_eq!(ok["path"], path.as_str(), "{context}");
                tree.make_dirs(&path);
            }
            Then::Rm(path) => assert_eq!(ok["removed"], tree.remove(&path), "{context}"),
            Then::Mv(from, to) => {
                assert_eq!(ok["path"], to.as_str(), "{context}");
                tree.rename(&from, &to);
            }
            Then::Cp(from, to) => {
                assert_eq!(ok["path"], to.as_str(), "{context}");
                tree.copy(&from, &to);
            }
            Then::Hash(bytes, algorithm) => {
                let digest = Digest::compute(algorithm, &bytes).to_string();
                assert_eq!(
                    *ok,
                    json!({"digest": digest, "size": bytes.len()}),
                    "{context}"
                );
            }
            Then::Get {
                content,
                offset,
                length,
                digest,
            } => check_get(ok, &self.stream, &content, (offset, length), digest),
            Then::Chunks(file) => check_chunks(ok, self.stream.received(), &file),
            Then::Ranges {
                content,
                ranges,
                digest,
            } => check_ranges(ok, self.stream.received(), &content, &ranges, digest),
            Then::Put(path, bytes, algorithm) => {
                assert_eq!(self.stream, Stream::Ended, "{context}");
                let digest = Digest::compute(algorithm, &bytes).to_string();
                assert_eq!(ok["path"], path.as_str(), "{context}");
                assert_eq!(ok["size"], bytes.len(), "{context}");
                assert_eq!(ok["digest"], digest, "{context}");
                tree.put(&path, bytes);
            }
            Then::Df { used, exact } => {
                let actual = (ok["used"].as_u64(), ok["files"].as_u64());
                let actual = (actual.0.expect("bytes"), actual.1.expect("files"));
                assert!(actual.0 <= used.0 && actual.1 <= used.1, "{context}");
                assert!(!exact || actual == used, "{context}");
            }
        }
    }
}

fn check_get(
    ok: &Value,
    stream: &Stream,
    whole: &[u8],
    (offset, length): (u64, Option<u64>),
    digest: Option<Algorithm>,
) {
    let Stream::Receiving { content, .. } = stream else {
        panic!("a get that ended without a begin: {ok}");
    };
    let rest = &whole[usize::try_from(offset).expect("small")..];
    let end = length.map_or(rest.len(), |length| {
        rest.len().min(usize::try_from(length).expect("small"))
    });
    assert_eq!(content, &rest[..end], "{ok}");
    assert_eq!(ok["size"], whole.len());
    // A requested range has its own digest.
    let digested = if length.is_some() { content } else { whole };
    let expected = digest.map(|algorithm| Digest::compute(algorithm, digested).to_string());
    assert_eq!(
        ok.get("digest").and_then(Value::as_str),
        expected.as_deref()
    );
}

fn check_digest(digest: &str, content: &[u8]) {
    let digest: Digest = digest.parse().expect("a digest");
    assert_eq!(digest, Digest::compute(digest.algorithm(), content));
}

/// An entry of a listing according to the model.
fn entry(name: &str, node: &ModelNode) -> Value {
    match node {
        ModelNode::Dir => json!({"name": name, "kind": "dir", "size": 0}),
        ModelNode::File(content) => json!({"name": name, "kind": "file", "size": content.len()}),
    }
}

fn without_time(entry: &Value) -> Value {
    let mut entry = entry.clone();
    let time = entry.as_object_mut().expect("an object").remove("modified");
    assert!(time.is_some());
    entry
}
