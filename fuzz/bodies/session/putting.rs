//! An open put from the client's point of view.

use std::sync::Arc;

use haul::protocol::{Algorithm, Digest, ErrorCode, IfExists};
use haul::storage::VirtualPath;
use serde_json::{Value, json};

use super::expect::{Expect, Stream, Then};
use super::model::{FileModel, Touch};
use super::script::EndDigest;

/// A put whose `end` was not sent.
#[derive(Debug, Clone)]
pub(crate) struct UnfinishedPut {
    pub(crate) id: u32,
    pub(crate) path: Result<VirtualPath, ErrorCode>,
    pub(crate) size: Option<u64>,
    pub(crate) if_exists: IfExists,
    pub(crate) parents: bool,
    pub(crate) digest: Option<Algorithm>,
    pub(crate) sent: Vec<u8>,
    /// The base of copies, if it still has the named version.
    pub(crate) base: Option<Arc<Vec<u8>>>,
}

impl UnfinishedPut {
    /// The expectation before its `end`.
    pub(crate) fn expect_begin(&self, tree: &FileModel) -> Expect {
        let touches = self.path.as_ref().ok().map(Touch::reads);
        Expect {
            holds: self.holds(tree),
            stream: Stream::Opening,
            ..Expect::new("put", Then::Anything)
        }
        .touching(touches)
        .fails(self.errors(tree))
        .may_fail(self.base.as_ref().map(|_| ErrorCode::Changed))
    }

    /// The expectation after its `end`, if it is not answered yet; `before` is the previous one.
    pub(crate) fn expect_end(&self, tree: &FileModel, end: EndDigest, before: Expect) -> Expect {
        let mut errors = self.errors(tree);
        if self.size.is_some_and(|size| size != self.sent.len() as u64) {
            errors.push(ErrorCode::SizeMismatch);
        }
        if matches!(end, EndDigest::Wrong(_)) {
            errors.push(ErrorCode::DigestMismatch);
        }
        let then = match &self.path {
            Err(_) => Then::Anything,
            Ok(path) => {
                let path = tree.publish(path, false, self.if_exists);
                let of_end = match end {
                    EndDigest::Right(hash) => Some(Algorithm::from(hash)),
                    _ => None,
                };
                let algorithm = self.digest.or(of_end).unwrap_or_default();
                Then::Put(path, Arc::new(self.sent.clone()), algorithm)
            }
        };
        // An error in the request may already have been answered.
        let may = [before.may, before.must].concat();
        let expect = Expect {
            holds: (before.holds.0, self.holds(tree).1),
            stream: Stream::Ended,
            ..Expect::new("put", then)
        };
        expect
            .touching(self.landing_touch(tree))
            .fails(errors)
            .may_fail(may)
    }

    /// The bytes and entries of the quota that it may hold.
    fn holds(&self, tree: &FileModel) -> (u64, u64) {
        let parent = self.path.as_ref().ok().and_then(VirtualPath::parent);
        let made = parent.filter(|_| self.parents);
        let made = made.map_or(0, |parent| tree.missing(&parent));
        (self.size.unwrap_or(0), 1 + made)
    }

    pub(crate) fn landing_touch(&self, tree: &FileModel) -> Option<Touch> {
        let path = self.path.as_ref().ok()?;
        Some(tree.publish_touch(path, self.if_exists, self.parents))
    }

    fn errors(&self, tree: &FileModel) -> Vec<ErrorCode> {
        match &self.path {
            Ok(path) => tree.publish_errors(path, false, self.if_exists, self.parents),
            Err(code) => vec![*code],
        }
    }

    pub(crate) fn end_frame(&self, end: EndDigest) -> Vec<u8> {
        let digest = match end {
            EndDigest::EmptyFrame => return data(self.id, &[]),
            EndDigest::None => None,
            EndDigest::Right(hash) => Some(Digest::compute(hash.into(), &self.sent)),
            EndDigest::Wrong(hash) => Some(Digest::compute(hash.into(), b"others")),
        };
        let mut request = json!({"id": self.id, "cmd": "end"});
        if let Some(digest) = digest {
            request["digest"] = digest.to_string().into();
        }
        control(&request)
    }
}

pub(crate) fn control(request: &Value) -> Vec<u8> {
    frame(request.to_string().as_bytes())
}

pub(crate) fn data(stream: u32, chunk: &[u8]) -> Vec<u8> {
    let mut payload = vec![1];
    payload.extend(stream.to_be_bytes());
    payload.extend(chunk);
    frame(&payload)
}

pub(crate) fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload");
    [&length.to_be_bytes(), payload].concat()
}
