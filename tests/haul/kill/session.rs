//! One of the sessions that change things until the server dies under them.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;

use serde_json::{Value, json};

use super::model::{Change, Ending, Node, Put, Tree, bytes};
use super::register::{Begun, Registers};
use crate::blocking::{Frame, Line};
use crate::chance::Chance;

/// A session removes something when its files come to more bytes than this.
const PLENTY: u64 = 2 << 20;

/// Burns down as frames are sent and received, and says when it has.
#[derive(Debug)]
pub(crate) struct Fuse {
    left: AtomicI64,
    burnt: SyncSender<()>,
}

impl Fuse {
    pub(crate) fn new(length: u64, burnt: SyncSender<()>) -> Self {
        Self {
            left: AtomicI64::new(length.cast_signed()),
            burnt,
        }
    }

    fn burn(&self) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            let _ = self.burnt.try_send(());
        }
    }
}

/// What was done, in all sessions and rounds.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) acknowledged: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) read: AtomicU64,
    pub(crate) unfinished: AtomicU64,
    pub(crate) unfinished_and_done: AtomicU64,
    pub(crate) resumed: AtomicU64,
    pub(crate) discarded: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A session and what it knows: its directories are changed by nobody else.
pub(crate) struct Session {
    pub(crate) roots: [String; 2],
    pub(crate) tree: Tree,
    /// Changes of the tree that were asked for and not answered.
    pub(crate) unfinished: Vec<Change>,
    /// Uploads that were cut off, to be gone on with.
    pub(crate) cut: Vec<Put>,
    /// An upload that never ends, and how much of it was sent.
    pub(crate) endless: Option<(Put, usize)>,
    /// Lengths of uploads, so that no two that may be kept have the same.
    pub(crate) lengths: HashSet<u64>,
    pub(crate) token: String,
    /// What is in the files that all sessions of its user write.
    pub(crate) registers: Arc<Registers>,
    /// The same of the folder, which all sessions write.
    pub(crate) team: Arc<Registers>,
    pub(crate) chance: Chance,
    pub(crate) tally: Arc<Tally>,
}

impl Session {
    /// Works until the server is gone.
    pub(crate) fn run(&mut self, address: &str, fuse: &Fuse) {
        let error = loop {
            let Ok(mut line) = Line::log_in(address, &self.token) else {
                return;
            };
            let end = self.work(&mut line, fuse);
            self.cut.extend(self.endless.take().map(|(put, _)| put));
            match end {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        let gone = [
            io::ErrorKind::UnexpectedEof,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::BrokenPipe,
        ];
        assert!(gone.contains(&error.kind()), "{error}");
        for change in &self.unfinished {
            count(&self.tally.unfinished);
            if let Change::Put(put) = change
                && put.ending == Ending::Right
            {
                self.cut.push(Put {
                    resume: true,
                    ..put.clone()
                });
            }
        }
    }

    /// Does this and that; returns to begin another session.
    fn work(&mut self, line: &mut Line, fuse: &Fuse) -> io::Result<()> {
        while let Some(put) = self.cut.pop() {
            if !self.chance.one_in(4) {
                self.go_on(line, fuse, put)?;
            }
        }
        if self.chance.one_in(2) {
            self.begin_endless(line)?;
        }
        loop {
            self.feed_endless(line)?;
            if bytes(&self.tree) > PLENTY {
                let change = self.removal();
                self.change(line, fuse, &change)?;
            }
            match self.chance.below(100) {
                0..45 => {
                    let put = self.put();
                    self.upload(line, fuse, &[put])?;
                }
                45..52 => {
                    let puts = self.two_puts();
                    self.upload(line, fuse, &puts)?;
                }
                52..70 => {
                    let change = self.small_change();
                    self.change(line, fuse, &change)?;
                }
                70..80 => self.read(line, fuse)?,
                80..96 => self.use_register(line, fuse)?,
                96 | 97 => {
                    self.abandon(line)?;
                    return Ok(());
                }
                _ => return Ok(()),
            }
        }
    }

    /// Sends the data of puts in turns, and takes their replies.
    fn upload(&mut self, line: &mut Line, fuse: &Fuse, puts: &[Put]) -> io::Result<()> {
        let mut changes: Vec<_> = puts.iter().cloned().map(Change::Put).map(Some).collect();
        self.unfinished = changes.iter().flatten().cloned().collect();
        let chunk = *self.chance.pick(&[700, 4096, 65_536, 131_072, 1 << 20]);
        let mut rest = Vec::new();
        for (id, put) in (1..).zip(puts) {
            let content = put.content.bytes();
            let mut request = put.request();
            request["id"] = json!(id);
            match put.ending {
                Ending::TooShort => request["size"] = json!(content.len() + 1),
                _ if self.chance.one_in(3) => {}
                _ => request["size"] = json!(content.len()),
            }
            line.send(&request)?;
            let size = chunk.max(content.len() / 16);
            rest.push((id, put.ending, content.chunks(size), blake3::hash(content)));
        }
        while let Some((id, ending, mut chunks, digest)) = rest.pop() {
            fuse.burn();
            if let Some(chunk) = chunks.next() {
                line.send_data(id, chunk)?;
                rest.insert(0, (id, ending, chunks, digest));
                continue;
            }
            let mut hex = digest.to_hex().to_string();
            match ending {
                Ending::Cancel => {
                    line.send(&json!({"id": 99, "cmd": "cancel", "target": id}))?;
                    // It comes too late, whatever the server is doing.
                    line.send(&json!({"id": id, "cmd": "end"}))?;
                    continue;
                }
                Ending::WrongDigest => hex.replace_range(..8, "00000000"),
                Ending::Right | Ending::TooShort => {}
            }
            let digest = format!("blake3:{hex}");
            line.send(&json!({"id": id, "cmd": "end", "digest": digest}))?;
            fuse.burn();
        }
        self.take_replies(line, fuse, &mut changes)
    }

    fn take_replies(
        &mut self,
        line: &mut Line,
        fuse: &Fuse,
        changes: &mut [Option<Change>],
    ) -> io::Result<()> {
        let cancels = changes.iter().flatten().any(is_cancelled);
        let mut answers = changes.len() + usize::from(cancels);
        while answers > 0 {
            let reply = line.final_reply()?;
            fuse.burn();
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

    /// Goes on with an upload that was cut off.
    fn go_on(&mut self, line: &mut Line, fuse: &Fuse, put: Put) -> io::Result<()> {
        let content = put.content.clone();
        let content = content.bytes();
        let mut request = put.request();
        request["id"] = json!(1);
        request["size"] = json!(content.len());
        let change = Change::Put(put);
        self.unfinished = vec![change.clone()];
        line.send(&request)?;
        fuse.burn();
        let mut reply = line.reply()?;
        if let Some(offset) = reply["begin"]["offset"].as_u64() {
            let offset = usize::try_from(offset).expect("small");
            if offset > 0 {
                let prefix = blake3::hash(&content[..offset]).to_hex();
                assert_eq!(reply["begin"]["prefix"], format!("blake3:{prefix}"));
                count(&self.tally.resumed);
            }
            for chunk in content[offset..].chunks(65_536.max(content.len() / 16)) {
                line.send_data(1, chunk)?;
                fuse.burn();
            }
            let digest = format!("blake3:{}", blake3::hash(content).to_hex());
            line.send(&json!({"id": 1, "cmd": "end", "digest": digest}))?;
            fuse.burn();
            reply = line.final_reply()?;
        }
        fuse.burn();
        self.unfinished.clear();
        self.settle(&change, &reply);
        Ok(())
    }

    fn change(&mut self, line: &mut Line, fuse: &Fuse, change: &Change) -> io::Result<()> {
        self.unfinished = vec![change.clone()];
        let mut request = change.request();
        request["id"] = json!(1);
        line.send(&request)?;
        fuse.burn();
        let reply = line.final_reply()?;
        fuse.burn();
        self.unfinished.clear();
        self.settle(change, &reply);
        Ok(())
    }

    /// Compares an answer with what it must be, and takes it in.
    fn settle(&mut self, change: &Change, reply: &Value) {
        let code = reply["error"]["code"].as_str();
        let is_cancelled = is_cancelled(change) && code == Some("cancelled");
        if code == Some("quota_exceeded") || is_cancelled {
            count(&self.tally.refused);
            return;
        }
        match (change.outcome(&self.tree), code) {
            (Ok((after, path)), None) => {
                let told = reply["ok"]["path"].as_str();
                assert_eq!(told, path.as_deref(), "{change:?}");
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

    fn read(&mut self, line: &mut Line, fuse: &Fuse) -> io::Result<()> {
        let files = self.files();
        if files.is_empty() {
            return Ok(());
        }
        let path = self.chance.pick(&files);
        let (content, reply) = line.get(path)?;
        fuse.burn();
        assert!(reply["ok"].is_object(), "{path}: {reply}");
        assert_eq!(Some(&Node::file(&content)), self.tree.get(path), "{path}");
        count(&self.tally.read);
        Ok(())
    }

    fn use_register(&mut self, line: &mut Line, fuse: &Fuse) -> io::Result<()> {
        let (dir, registers) = if self.chance.one_in(2) {
            ("/team/shared", Arc::clone(&self.team))
        } else {
            ("/shared", Arc::clone(&self.registers))
        };
        let path = format!("{dir}/r{}.bin", self.chance.below(2));
        match self.chance.below(6) {
            0 | 1 => {
                let begun = registers.begin_read(&path);
                let (content, reply) = line.get(&path)?;
                fuse.burn();
                let found = match reply["error"]["code"].as_str() {
                    None => Some(Node::file(&content)),
                    Some("not_found") => None,
                    Some(_) => panic!("{path}: {reply}"),
                };
                registers.end_read(&begun, found.as_ref());
                count(&self.tally.read);
            }
            2 => {
                let begun = registers.begin_write(&path, None);
                fuse.burn();
                let reply = line.call(&json!({"cmd": "rm", "path": path}))?;
                fuse.burn();
                self.end_write(&registers, &begun, &reply, "not_found");
            }
            _ => {
                let content = self.content();
                let begun = registers.begin_write(&path, Some(content.node()));
                let reply = line.put(json!({"path": path}), content.bytes())?;
                fuse.burn();
                self.end_write(&registers, &begun, &reply, "quota_exceeded");
            }
        }
        Ok(())
    }

    fn end_write(&self, registers: &Registers, begun: &Begun, reply: &Value, may_fail: &str) {
        let code = reply["error"]["code"].as_str();
        assert!(code.is_none_or(|code| code == may_fail), "{reply}");
        registers.end_write(begun, code.is_none());
        count(if code.is_none() {
            &self.tally.acknowledged
        } else {
            &self.tally.refused
        });
    }

    /// Begins an upload that goes on beside all else and is cut off in the end.
    fn begin_endless(&mut self, line: &mut Line) -> io::Result<()> {
        let put = self.put_to_abandon("endless");
        let size = put.content.bytes().len();
        line.send(&json!({"id": 8, "cmd": "put", "path": put.path, "size": size}))?;
        let reply = line.reply()?;
        if reply.get("begin").is_some() {
            self.endless = Some((put, 0));
        } else {
            assert_eq!(reply["error"]["code"], "quota_exceeded", "{reply}");
        }
        Ok(())
    }

    /// Sends a little more of the upload that never ends.
    fn feed_endless(&mut self, line: &mut Line) -> io::Result<()> {
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
    fn abandon(&mut self, line: &mut Line) -> io::Result<()> {
        let put = self.put_to_abandon("abandoned");
        let content = put.content.clone();
        let content = content.bytes();
        line.send(&json!({"id": 7, "cmd": "put", "path": put.path, "size": content.len()}))?;
        self.cut.push(put);
        let sent = usize::try_from(self.chance.below(content.len() as u64 + 1)).expect("small");
        for chunk in content[..sent].chunks(100_000) {
            line.send_data(7, chunk)?;
        }
        if self.chance.one_in(2)
            && let Frame::Data(_) = line.receive()?
        {
            panic!("data that nobody asked for");
        }
        Ok(())
    }
}

/// Whether it is a put that is cancelled before its end, whatever else is wrong with it.
fn is_cancelled(change: &Change) -> bool {
    matches!(change, Change::Put(put) if put.ending == Ending::Cancel)
}

fn assert_is(node: &Node, reply: &Value) {
    let Node::File { size, digest } = node else {
        panic!("no file");
    };
    assert_eq!(reply["size"], *size);
    assert_eq!(reply["digest"], format!("blake3:{}", digest.to_hex()));
}
