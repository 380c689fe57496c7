//! Uploads that are cut off, and how a session goes on with them.

use std::collections::HashSet;
use std::io;

use serde_json::{Value, json};

use super::model::{Change, PlannedEnding, PlannedUpload, TreeNode, UploadContent};
use super::session::{Fuse, ModelSession, count};
use crate::blocking_client::{BlockingSession, ReceivedFrame, UploadOffer};

impl ModelSession {
    /// Remembers what is sent, to know it again when it is offered.
    pub(super) fn remember(&mut self, path: &str, size: &Value, content: &UploadContent) {
        if let Some(size) = size.as_u64() {
            let sent = self.sent.entry((path.to_owned(), size)).or_default();
            sent.push(content.clone());
        }
    }

    /// Notes what is kept after a restart: each one's name, path, declared length and bytes. What is
    /// not among it will never be offered.
    pub(super) fn learn<'a>(
        &mut self,
        kept: impl Iterator<Item = (&'a str, &'a str, Option<u64>, u64)>,
    ) {
        self.kept.clear();
        let mut paths = HashSet::new();
        for (id, path, size, bytes) in kept {
            let bytes = usize::try_from(bytes).expect("small");
            self.kept.insert(id.to_owned(), (path.to_owned(), bytes));
            paths.extend(size.map(|size| (path.to_owned(), size)));
        }
        self.sent.retain(|to, _| paths.contains(to));
    }

    /// Goes on with an upload that was cut off. As a client does that finds other bytes in their
    /// place, it begins anew then.
    pub(super) fn go_on(
        &mut self,
        line: &mut BlockingSession,
        fuse: &Fuse,
        put: PlannedUpload,
    ) -> io::Result<()> {
        let mut request = put.request();
        request["id"] = json!(1);
        request["size"] = json!(put.content.bytes().len());
        self.remember(&put.path, &request["size"], &put.content);
        self.unfinished = vec![Change::Put(put.clone())];
        line.send(&request)?;
        fuse.burn();
        let reply = match line.offer()? {
            Err(refused) => refused,
            Ok(offer) if self.is_of(&offer, &put) => {
                send_remaining(line, fuse, &offer, put.content.bytes())?
            }
            Ok(_) => {
                count(&self.tally.others);
                self.unfinished.clear();
                return self.begin_anew(line, fuse, put);
            }
        };
        self.unfinished.clear();
        self.settle(&Change::Put(put), &reply);
        Ok(())
    }

    /// Whether the beginning of `put` is offered. If not, it must be that of something else that
    /// was sent to the same path with the same length, never a mixture.
    fn is_of(&self, offer: &UploadOffer, put: &PlannedUpload) -> bool {
        let (path, size) = (put.path.clone(), put.content.bytes().len());
        if let Some((of, bytes)) = self.kept.get(&offer.upload) {
            assert_eq!((&path, offer.offset), (of, *bytes), "not what was listed");
        }
        let Some(prefix) = &offer.prefix else {
            assert_eq!(offer.offset, 0, "no digest of {path}");
            return true;
        };
        let is_of = |content: &UploadContent| {
            let beginning = content.bytes().get(..offer.offset);
            beginning.is_some_and(|bytes| *prefix == digest(blake3::hash(bytes)))
        };
        if is_of(&put.content) {
            count(&self.tally.resumed);
            return true;
        }
        let is_there = match self.tree.get(&path) {
            Some(TreeNode::File {
                size: there,
                digest: hash,
            }) => size == offer.offset && *there == size as u64 && *prefix == digest(*hash),
            _ => false,
        };
        let sent = self.sent.get(&(path.clone(), size as u64));
        assert!(
            is_there || sent.is_some_and(|sent| sent.iter().any(is_of)),
            "nobody ever sent to {path} the {} of {size} bytes that are offered",
            offer.offset
        );
        false
    }

    /// Has what is offered discarded, and sends all.
    fn begin_anew(
        &mut self,
        line: &mut BlockingSession,
        fuse: &Fuse,
        put: PlannedUpload,
    ) -> io::Result<()> {
        line.send(&json!({"id": 99, "cmd": "cancel", "target": 1}))?;
        for _ in 0..2 {
            let reply = line.final_reply()?;
            let expected = match reply["id"].as_u64() {
                Some(1) => reply["error"]["code"] == "cancelled",
                _ => reply["ok"].is_object(),
            };
            assert!(expected, "{reply}");
        }
        let anew = PlannedUpload {
            resume: false,
            ..put
        };
        self.upload(line, fuse, &[anew])
    }

    /// Begins an upload that goes on beside all else and is cut off in the end.
    pub(super) fn begin_endless(&mut self, line: &mut BlockingSession) -> io::Result<()> {
        let put = self.put_to_abandon("endless");
        let size = json!(put.content.bytes().len());
        self.remember(&put.path, &size, &put.content);
        line.send(&json!({"id": 8, "cmd": "put", "path": put.path, "size": size}))?;
        let reply = line.reply()?;
        if reply.get("begin").is_some() {
            self.endless = Some((put, 0));
            line.beside = Some(8);
        } else {
            assert_eq!(reply["error"]["code"], "quota_exceeded", "{reply}");
        }
        Ok(())
    }

    /// Sends a little more of the upload that never ends.
    pub(super) fn feed_endless(&mut self, line: &mut BlockingSession) -> io::Result<()> {
        if let Some((put, sent)) = &mut self.endless {
            let rest = &put.content.bytes()[*sent..];
            let piece = &rest[..rest.len().saturating_sub(1).min(30_000)];
            if !piece.is_empty() {
                *sent += piece.len();
                line.send_data(8, piece)?;
            }
        }
        Ok(())
    }

    /// Sends a part of an upload; then this session ends.
    pub(super) fn abandon(&mut self, line: &mut BlockingSession) -> io::Result<()> {
        let put = self.put_to_abandon("abandoned");
        let content = put.content.clone();
        let size = json!(content.bytes().len());
        self.remember(&put.path, &size, &content);
        line.send(&json!({"id": 7, "cmd": "put", "path": put.path, "size": size}))?;
        self.cut.push(put);
        let content = content.bytes();
        let sent = usize::try_from(self.chance.below(content.len() as u64 + 1)).expect("small");
        for chunk in content[..sent].chunks(100_000) {
            line.send_data(7, chunk)?;
        }
        if self.chance.one_in(2)
            && let ReceivedFrame::Data(_) = line.receive()?
        {
            panic!("data that nobody asked for");
        }
        Ok(())
    }

    /// Records the upload that the server's death has cut off, to resume it.
    pub(super) fn note_cut_off(&mut self) {
        for change in &self.unfinished {
            count(&self.tally.unfinished);
            if let Change::Put(put) = change
                && put.ending == PlannedEnding::Right
            {
                self.cut.push(PlannedUpload {
                    resume: true,
                    ..put.clone()
                });
            }
        }
    }
}

/// Sends what is behind that which is offered.
fn send_remaining(
    line: &mut BlockingSession,
    fuse: &Fuse,
    offer: &UploadOffer,
    content: &[u8],
) -> io::Result<Value> {
    for chunk in content[offer.offset..].chunks(65_536.max(content.len() / 16)) {
        line.send_data(1, chunk)?;
        fuse.burn();
    }
    line.send_end(1, content)?;
    fuse.burn_to_commit();
    fuse.answer(line)
}

fn digest(hash: blake3::Hash) -> String {
    format!("blake3:{}", hash.to_hex())
}
