//! Lists of chunks, ranges, and puts that copy parts of the file that they replace.

use std::collections::HashMap;
use std::sync::Arc;

use haul::protocol::{Algorithm, ContentChunk, ContentChunker, Digest, DigestChoice, ErrorCode};
use haul::storage::VirtualPath;
use serde_json::{Value, json};

use super::expect::{Expect, Then};
use super::model::ModelNode;
use super::predict::Predict;

/// The stored contents, each with the version that the server assigned.
#[derive(Debug, Default)]
pub(crate) struct KnownVersions(HashMap<VirtualPath, (Arc<Vec<u8>>, String)>);

impl KnownVersions {
    /// Records a successful put.
    pub(crate) fn note(&mut self, then: &Then, ok: &Value) {
        if let (Then::Put(path, content, _), Some(version)) = (then, ok["version"].as_str()) {
            let known = (Arc::clone(content), version.to_owned());
            self.0.insert(path.clone(), known);
        }
    }

    /// The content that was last put to `path`, and its version, which may be outdated.
    pub(crate) fn get(&self, path: &VirtualPath) -> Option<(Arc<Vec<u8>>, String)> {
        self.0.get(path).cloned()
    }
}

/// The range of a base for any two numbers; `None` if it is empty.
pub(crate) fn range_of(base: &[u8], offset: u16, length: u16, most: u64) -> Option<(usize, usize)> {
    let offset = usize::from(offset).checked_rem(base.len())?;
    let most = usize::try_from(most)
        .unwrap_or(usize::MAX)
        .min(base.len() - offset);
    let length = usize::from(length).min(most);
    (length > 0).then_some((offset, length))
}

impl Predict<'_> {
    pub(crate) fn chunks(&self, text: &str) -> (Value, Expect) {
        let expect = match self.look(text) {
            Ok((path, ModelNode::File(content))) => {
                let slash = path.as_file().is_err().then_some(ErrorCode::InvalidPath);
                let expect = self.reading("chunks", text, Then::Chunks(content));
                expect.may_fail(slash)
            }
            Ok(_) => {
                let expect = self.reading("chunks", text, Then::Anything);
                expect.fails([ErrorCode::IsADirectory])
            }
            Err(code) => self.reading("chunks", text, Then::Anything).fails([code]),
        };
        (json!({"cmd": "chunks", "path": text}), expect)
    }

    /// A get of ranges, each an offset and a length.
    pub(crate) fn ranges(
        &self,
        text: &str,
        ranges: &[(u64, u64)],
        digest: Option<DigestChoice>,
    ) -> (Value, Expect) {
        let mut request = json!({"cmd": "get", "path": text, "ranges": ranges});
        if let Some(digest) = digest {
            request["digest"] = json!(digest);
        }
        let invalid = ranges.iter().any(|(_, length)| *length == 0)
            || ranges.windows(2).any(|two| two[0].0 + two[0].1 > two[1].0);
        let invalid = invalid.then_some(ErrorCode::BadRequest);
        let expect = match self.look(text) {
            Ok((path, ModelNode::File(content))) => {
                let slash = path.as_file().is_err().then_some(ErrorCode::InvalidPath);
                let size = content.len() as u64;
                let past = ranges.iter().any(|(offset, length)| offset + length > size);
                let past = past.then_some(ErrorCode::BadRequest);
                let then = Then::Ranges {
                    content,
                    ranges: ranges.to_vec(),
                    digest: match digest {
                        None => Some(Algorithm::default()),
                        Some(DigestChoice::Of(algorithm)) => Some(algorithm),
                        Some(DigestChoice::None(_)) => None,
                    },
                };
                self.reading("get", text, then).fails(past).may_fail(slash)
            }
            Ok(_) => {
                let expect = self.reading("get", text, Then::Anything);
                expect.fails([ErrorCode::IsADirectory])
            }
            Err(code) => self.reading("get", text, Then::Anything).fails([code]),
        };
        (request, expect.fails(invalid))
    }
}

/// Checks the reply to `chunks` and the records before it.
pub(crate) fn check_chunks(ok: &Value, records: &[u8], content: &[u8]) {
    let (mut chunker, mut chunks) = (ContentChunker::default(), Vec::new());
    chunker.update(content, |chunk, _| chunks.push(chunk));
    chunker.finish(|chunk, _| chunks.push(chunk));
    let mut expected = Vec::new();
    for chunk in &chunks {
        ContentChunk::put_record(chunk, &mut expected);
    }
    assert_eq!(records, expected, "{ok}");
    let counts = (ok["count"].as_u64(), ok["size"].as_u64());
    assert_eq!(
        counts,
        (Some(chunks.len() as u64), Some(content.len() as u64))
    );
}

/// Checks the reply to a get of ranges and the bytes before it.
pub(crate) fn check_ranges(
    ok: &Value,
    received: &[u8],
    content: &[u8],
    ranges: &[(u64, u64)],
    digest: Option<Algorithm>,
) {
    let parts = ranges.iter().map(|(offset, length)| {
        let start = usize::try_from(*offset).expect("small");
        &content[start..start + usize::try_from(*length).expect("small")]
    });
    let expected = parts.collect::<Vec<_>>().concat();
    assert_eq!(received, expected, "{ok}");
    assert_eq!(ok["size"], content.len());
    let digest = digest.map(|algorithm| Digest::compute(algorithm, &expected).to_string());
    assert_eq!(ok.get("digest").and_then(Value::as_str), digest.as_deref());
}
