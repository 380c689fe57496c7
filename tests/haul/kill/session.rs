//! A session that changes files until the server is killed.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;

use serde_json::{Value, json};

use super::model::{
    Change, ModelTree, PlannedEnding, PlannedUpload, TreeNode, UploadContent, bytes,
};
use super::register::{Registers, StartedOperation};
use crate::blocking_client::BlockingSession;
use crate::random::Chance;

/// A session removes an entry if its files have more bytes than this.
const PLENTY: u64 = 2 << 20;

/// A countdown of sent and received frames, which triggers the kill.
#[derive(Debug)]
pub(crate) struct Fuse {
    left: AtomicI64,
    burnt: SyncSender<()>,
    /// Once it has reached zero, no reply is processed any more.
    deafens: bool,
}

impl Fuse {
    pub(crate) fn new(length: u64, deafens: bool, burnt: SyncSender<()>) -> Self {
        Self {
            left: AtomicI64::new(length.cast_signed()),
            burnt,
            deafens,
        }
    }

    pub(super) fn burn(&self) {
        self.burn_by(1);
    }

    /// Counts down faster at a commit, so that kills hit commits more often.
    pub(super) fn burn_to_commit(&self) {
        self.burn_by(20);
    }

    /// The reply to a change. If it is lost, the change may have been made or not.
    pub(super) fn answer(&self, client: &mut BlockingSession) -> io::Result<Value> {
        let reply = client.final_reply()?;
        while self.deafens && self.left.load(Ordering::Relaxed) <= 0 {
            client.receive()?;
        }
        self.burn();
        Ok(reply)
    }

    fn burn_by(&self, length: i64) {
        let left = self.left.fetch_sub(length, Ordering::Relaxed);
        if (1..=length).contains(&left) {
            let _ = self.burnt.try_send(());
        }
    }
}

/// Counters over all sessions and rounds.
#[derive(Debug, Default)]
pub(crate) struct RunCounts {
    pub(crate) acknowledged: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) read: AtomicU64,
    pub(crate) unfinished: AtomicU64,
    pub(crate) unfinished_and_done: AtomicU64,
    pub(crate) resumed: AtomicU64,
    /// The number of offers to resume that were of another upload.
    pub(crate) others: AtomicU64,
    pub(crate) discarded: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A session with its model. No other session changes its directories.
pub(crate) struct ModelSession {
    pub(crate) roots: [String; 2],
    pub(crate) tree: ModelTree,
    /// Requested changes without a reply.
    pub(crate) unfinished: Vec<Change>,
    /// Interrupted uploads to be resumed.
    pub(crate) cut: Vec<PlannedUpload>,
    /// The background upload, and the number of its sent bytes.
    pub(crate) endless: Option<(PlannedUpload, usize)>,
    /// The contents that were sent to a path with a declared length, any of which may be kept.
    pub(crate) sent: HashMap<(String, u64), Vec<UploadContent>>,
    /// The path and the length of each partial upload at the server's start.
    pub(crate) kept: HashMap<String, (String, usize)>,
    pub(crate) token: String,
    /// The contents of the files that all sessions of its user write.
    pub(crate) registers: Arc<Registers>,
    /// The contents of the files of the folder, which all sessions write.
    pub(crate) team: Arc<Registers>,
    pub(crate) chance: Chance,
    pub(crate) tally: Arc<RunCounts>,
}

impl ModelSession {
    /// Works until the connection is lost.
    pub(crate) fn run(&mut self, address: &str, fuse: &Fuse) {
        let error = loop {
            let Ok(mut client) = BlockingSession::log_in(address, &self.token) else {
                return;
            };
            let end = self.work(&mut client, fuse);
            self.cut.extend(self.endless.take().map(|(put, _)| put));
            match end {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        let disconnects = [
            io::ErrorKind::UnexpectedEof,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::BrokenPipe,
        ];
        assert!(disconnects.contains(&error.kind()), "{error}");
        self.note_cut_off();
    }

    /// Performs random operations; returns when the session ends.
    fn work(&mut self, client: &mut BlockingSession, fuse: &Fuse) -> io::Result<()> {
        while let Some(put) = self.cut.pop() {
            if !self.chance.one_in(4) {
                self.go_on(client, fuse, put)?;
            }
        }
        if self.chance.one_in(2) {
            self.begin_endless(client)?;
        }
        loop {
            self.feed_endless(client)?;
            if bytes(&self.tree) > PLENTY {
                let change = self.removal();
                self.change(client, fuse, &change)?;
            }
            match self.chance.below(100) {
                0..45 => {
                    let put = self.put();
                    self.upload(client, fuse, &[put])?;
                }
                45..52 => {
                    let puts = self.two_puts();
                    self.upload(client, fuse, &puts)?;
                }
                52..70 => {
                    let change = self.small_change();
                    self.change(client, fuse, &change)?;
                }
                70..80 => self.read(client, fuse)?,
                80..96 => self.use_register(client, fuse)?,
                96 | 97 => {
                    self.abandon(client)?;
                    return Ok(());
                }
                _ => return Ok(()),
            }
        }
    }

    /// Sends the data of puts alternately, and processes their replies.
    pub(super) fn upload(
        &mut self,
        client: &mut BlockingSession,
        fuse: &Fuse,
        puts: &[PlannedUpload],
    ) -> io::Result<()> {
        let mut changes: Vec<_> = puts.iter().cloned().map(Change::Put).map(Some).collect();
        self.unfinished = changes.iter().flatten().cloned().collect();
        let chunk = *self.chance.pick(&[700, 4096, 65_536, 131_072, 1 << 20]);
        let mut rest = Vec::new();
        for (id, put) in (1..).zip(puts) {
            let content = put.content.bytes();
            let mut request = put.request();
            request["id"] = json!(id);
            match put.ending {
                PlannedEnding::TooShort => request["size"] = json!(content.len() + 1),
                _ if self.chance.one_in(3) => {}
                _ => request["size"] = json!(content.len()),
            }
            self.remember(&put.path, &request["size"], &put.content);
            client.send(&request)?;
            let size = chunk.max(content.len() / 16);
            rest.push((id, put.ending, content.chunks(size), blake3::hash(content)));
        }
        while let Some((id, ending, mut chunks, digest)) = rest.pop() {
            fuse.burn();
            if let Some(chunk) = chunks.next() {
                client.send_data(id, chunk)?;
                rest.insert(0, (id, ending, chunks, digest));
                continue;
            }
            let mut hex = digest.to_hex().to_string();
            match ending {
                PlannedEnding::Cancel => {
                    client.send(&json!({"id": 99, "cmd": "cancel", "target": id}))?;
                    // The cancel is too late, whatever the server is doing.
                    client.send(&json!({"id": id, "cmd": "end"}))?;
                    continue;
                }
                PlannedEnding::WrongDigest => hex.replace_range(..8, "00000000"),
                PlannedEnding::Right | PlannedEnding::TooShort => {}
            }
            let digest = format!("blake3:{hex}");
            client.send(&json!({"id": id, "cmd": "end", "digest": digest}))?;
            fuse.burn_to_commit();
        }
        self.take_replies(client, fuse, &mut changes)
    }

    fn take_replies(
        &mut self,
        client: &mut BlockingSession,
        fuse: &Fuse,
        changes: &mut [Option<Change>],
    ) -> io::Result<()> {
        let cancels = changes.iter().flatten().any(is_cancelled);
        let mut answers = changes.len() + usize::from(cancels);
        while answers > 0 {
            let reply = fuse.answer(client)?;
            answers -= 1;
            if reply["id"] == 99 {
                continue;
            }
            let index = usize::try_from(reply["id"].as_u64().expect("an id")).expect("small");
            if let Some(change) = changes[index - 1].take() {
                self.unfinished = changes.iter().flatten().cloned().collect();
                self.settle(&change, &reply);
            }
        }
        Ok(())
    }

    fn change(
        &mut self,
        client: &mut BlockingSession,
        fuse: &Fuse,
        change: &Change,
    ) -> io::Result<()> {
        self.unfinished = vec![change.clone()];
        let mut request = change.request();
        request["id"] = json!(1);
        client.send(&request)?;
        fuse.burn_to_commit();
        let reply = fuse.answer(client)?;
        self.unfinished.clear();
        self.settle(change, &reply);
        Ok(())
    }

    /// Compares a reply with the expected one, and updates the model.
    pub(super) fn settle(&mut self, change: &Change, reply: &Value) {
        let code = reply["error"]["code"].as_str();
        let is_cancelled = is_cancelled(change) && code == Some("cancelled");
        if code == Some("quota_exceeded") || is_cancelled {
            count(&self.tally.refused);
            return;
        }
        match (change.outcome(&self.tree), code) {
            (Ok((after, path)), None) => {
                let replied_path = reply["ok"]["path"].as_str();
                assert_eq!(replied_path, path.as_deref(), "{change:?}");
                if let Change::Put(put) = change {
                    assert_is(&put.content.node(), &reply["ok"]);
                }
                self.tree = after;
                count(&self.tally.acknowledged);
            }
            (Err(expected), Some(code)) if code == expected => count(&self.tally.refused),
            (outcome, _) => panic!("{change:?} was answered {reply}, not {outcome:?}"),
        }
    }

    fn read(&mut self, client: &mut BlockingSession, fuse: &Fuse) -> io::Result<()> {
        let files = self.files();
        if files.is_empty() {
            return Ok(());
        }
        let path = self.chance.pick(&files);
        let (content, reply) = client.get(path)?;
        fuse.burn();
        assert!(reply["ok"].is_object(), "{path}: {reply}");
        assert_eq!(
            Some(&TreeNode::file(&content)),
            self.tree.get(path),
            "{path}"
        );
        count(&self.tally.read);
        Ok(())
    }

    fn use_register(&mut self, client: &mut BlockingSession, fuse: &Fuse) -> io::Result<()> {
        let (dir, registers) = if self.chance.one_in(2) {
            ("/team/shared", Arc::clone(&self.team))
        } else {
            ("/shared", Arc::clone(&self.registers))
        };
        let path = format!("{dir}/r{}.bin", self.chance.below(2));
        match self.chance.below(6) {
            0 | 1 => {
                let begun = registers.begin_read(&path);
                let (content, reply) = client.get(&path)?;
                fuse.burn();
                let found = match reply["error"]["code"].as_str() {
                    None => Some(TreeNode::file(&content)),
                    Some("not_found") => None,
                    Some(_) => panic!("{path}: {reply}"),
                };
                registers.end_read(&begun, found.as_ref());
                count(&self.tally.read);
            }
            2 => {
                let begun = registers.begin_write(&path, None);
                fuse.burn();
                let reply = client.call(&json!({"cmd": "rm", "path": path}))?;
                fuse.burn();
                self.end_write(&registers, &begun, &reply, "not_found");
            }
            _ => {
                let content = self.content();
                let begun = registers.begin_write(&path, Some(content.node()));
                let reply = client.put(json!({"path": path}), content.bytes())?;
                fuse.burn();
                self.end_write(&registers, &begun, &reply, "quota_exceeded");
            }
        }
        Ok(())
    }

    fn end_write(
        &self,
        registers: &Registers,
        begun: &StartedOperation,
        reply: &Value,
        may_fail: &str,
    ) {
        let code = reply["error"]["code"].as_str();
        assert!(code.is_none_or(|code| code == may_fail), "{reply}");
        registers.end_write(begun, code.is_none());
        count(if code.is_none() {
            &self.tally.acknowledged
        } else {
            &self.tally.refused
        });
    }
}

/// Whether it is a put that is cancelled before its `end`.
fn is_cancelled(change: &Change) -> bool {
    matches!(change, Change::Put(put) if put.ending == PlannedEnding::Cancel)
}

fn assert_is(node: &TreeNode, reply: &Value) {
    let TreeNode::File { size, digest } = node else {
        panic!("no file");
    };
    assert_eq!(reply["size"], *size);
    assert_eq!(reply["digest"], format!("blake3:{}", digest.to_hex()));
}
