//! Interrupted uploads, and their resumption.

use std::collections::HashSet;
use std::io;

use serde_json::{Value, json};

use super::model::{Change, PlannedEnding, PlannedUpload, TreeNode, UploadContent};
use super::session::{Fuse, ModelSession, count};
use crate::blocking_client::{BlockingSession, ReceivedFrame, UploadOffer};

impl ModelSession {
    /// Records the content that is sent, to recognise it when the server offers to resume it.
    pub(super) fn remember(&mut self, path: &str, size: &Value, content: &UploadContent) {
        if let Some(size) = size.as_u64() {
            let sent = self.sent.entry((path.to_owned(), size)).or_default();
            sent.push(content.clone());
        }
    }

    /// Records the partial uploads after a restart: the id, path, declared length and bytes of
    /// each. The server must not offer any others.
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

    /// Resumes an interrupted upload. If the server offers other bytes, starts it again from the
    /// beginning, as a client does.
    pub(super) fn go_on(
        &mut self,
        client: &mut BlockingSession,
        fuse: &Fuse,
        put: PlannedUpload,
    ) -> io::Result<()> {
        let mut request = put.request();
        request["id"] = json!(1);
        request["size"] = json!(put.content.bytes().len());
        self.remember(&put.path, &request["size"], &put.content);
        self.unfinished = vec![Change::Put(put.clone())];
        client.send(&request)?;
        fuse.burn();
        let reply = match client.offer()? {
            Err(refused) => refused,
            Ok(offer) if self.is_of(&offer, &put) => {
                send_remaining(client, fuse, &offer, put.content.bytes())?
            }
            Ok(_) => {
                count(&self.tally.others);
                self.unfinished.clear();
                return self.begin_anew(client, fuse, put);
            }
        };
        self.unfinished.clear();
        self.settle(&Change::Put(put), &reply);
        Ok(())
    }

    /// Whether the offered bytes are a prefix of `put`. If not, they must be a prefix of another
    /// upload to the same path with the same length, never a mixture.
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

    /// Discards the offered upload, and sends all bytes.
    fn begin_anew(
        &mut self,
        client: &mut BlockingSession,
        fuse: &Fuse,
        put: PlannedUpload,
    ) -> io::Result<()> {
        client.send(&json!({"id": 99, "cmd": "cancel", "target": 1}))?;
        for _ in 0..2 {
            let reply = client.final_reply()?;
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
        self.upload(client, fuse, &[anew])
    }

    /// Begins an upload that runs in the background until it is interrupted.
    pub(super) fn begin_endless(&mut self, client: &mut BlockingSession) -> io::Result<()> {
        let put = self.put_to_abandon("endless");
        let size = json!(put.content.bytes().len());
        self.remember(&put.path, &size, &put.content);
        client.send(&json!({"id": 8, "cmd": "put", "path": put.path, "size": size}))?;
        let reply = client.reply()?;
        if reply.get("begin").is_some() {
            self.endless = Some((put, 0));
            client.beside = Some(8);
        } else {
            assert_eq!(reply["error"]["code"], "quota_exceeded", "{reply}");
        }
        Ok(())
    }

    /// Sends some bytes of the background upload.
    pub(super) fn feed_endless(&mut self, client: &mut BlockingSession) -> io::Result<()> {
        if let Some((put, sent)) = &mut self.endless {
            let rest = &put.content.bytes()[*sent..];
            let piece = &rest[..rest.len().saturating_sub(1).min(30_000)];
            if !piece.is_empty() {
                *sent += piece.len();
                client.send_data(8, piece)?;
            }
        }
        Ok(())
    }

    /// Sends a part of an upload; the session ends afterwards.
    pub(super) fn abandon(&mut self, client: &mut BlockingSession) -> io::Result<()> {
        let put = self.put_to_abandon("abandoned");
        let content = put.content.clone();
        let size = json!(content.bytes().len());
        self.remember(&put.path, &size, &content);
        client.send(&json!({"id": 7, "cmd": "put", "path": put.path, "size": size}))?;
        self.cut.push(put);
        let content = content.bytes();
        let sent = usize::try_from(self.chance.below(content.len() as u64 + 1)).expect("small");
        for chunk in content[..sent].chunks(100_000) {
            client.send_data(7, chunk)?;
        }
        if self.chance.one_in(2)
            && let ReceivedFrame::Data(_) = client.receive()?
        {
            panic!("data that nobody asked for");
        }
        Ok(())
    }

    /// Records the upload that the kill has interrupted, to resume it.
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

/// Sends the bytes after the offered ones.
fn send_remaining(
    client: &mut BlockingSession,
    fuse: &Fuse,
    offer: &UploadOffer,
    content: &[u8],
) -> io::Result<Value> {
    for chunk in content[offer.offset..].chunks(65_536.max(content.len() / 16)) {
        client.send_data(1, chunk)?;
        fuse.burn();
    }
    client.send_end(1, content)?;
    fuse.burn_to_commit();
    fuse.answer(client)
}

fn digest(hash: blake3::Hash) -> String {
    format!("blake3:{}", hash.to_hex())
}
