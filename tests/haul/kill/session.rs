//! One of the sessions that change things until the server dies under them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;

use serde_json::{Value, json};

use super::model::{Change, Ending, Node, Tree, bytes};
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
    pub(crate) token: String,
    /// What is in the files that all sessions of its user write.
    pub(crate) registers: Arc<Registers>,
    /// The same of the folder, which all sessions write.
    pub(crate) team: Arc<Registers>,
    pub(crate) has_quota: bool,
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
            match self.work(&mut line, fuse) {
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
        for _ in &self.unfinished {
            count(&self.tally.unfinished);
        }
    }

    /// Does this and that; returns to begin another session.
    fn work(&mut self, line: &mut Line, fuse: &Fuse) -> io::Result<()> {
        loop {
            if bytes(&self.tree) > PLENTY {
                let change = self.removal();
                self.change(line, fuse, &change)?;
            }
            match self.chance.below(100) {
                0..45 => {
                    let (change, content) = self.put();
                    self.upload(line, fuse, &[(change, content)])?;
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
                80..97 => self.use_register(line, fuse)?,
                97 => {
                    self.abandon(line)?;
                    return Ok(());
                }
                _ => return Ok(()),
            }
        }
    }

    fn put(&mut self) -> (Change, Vec<u8>) {
        let parents = self.chance.one_in(8);
        let mut dir = self.some_dir();
        if parents {
            let (a, b) = (self.chance.below(3), self.chance.below(2));
            dir = format!("{dir}/p{a}/q{b}");
        }
        let content = self.content();
        let change = Change::Put {
            path: format!("{dir}/f{}.bin", self.chance.below(6)),
            node: Node::file(&content),
            if_exists: self.if_exists(),
            parents: parents || self.chance.one_in(10),
            ending: match self.chance.below(20) {
                0 => Ending::WrongDigest,
                1 => Ending::TooShort,
                2 => Ending::Cancel,
                _ => Ending::Right,
            },
        };
        (change, content)
    }

    /// To different files at once.
    fn two_puts(&mut self) -> Vec<(Change, Vec<u8>)> {
        let dir = self.some_dir();
        let mut put = |name: &str| {
            let content = self.content();
            let change = Change::Put {
                path: format!("{dir}/{name}.bin"),
                node: Node::file(&content),
                if_exists: "replace",
                parents: false,
                ending: Ending::Right,
            };
            (change, content)
        };
        vec![put("left"), put("right")]
    }

    fn small_change(&mut self) -> Change {
        let some = |tree: Vec<String>, chance: &mut Chance| {
            (!tree.is_empty()).then(|| chance.pick(&tree).clone())
        };
        let dir = self.some_dir();
        let file = some(self.files(), &mut self.chance);
        let movable = some(self.inner_dirs(), &mut self.chance);
        let if_exists = self.if_exists();
        let to = format!("{dir}/f{}.bin", self.chance.below(6));
        match (self.chance.below(8), file, movable) {
            (0, _, _) => Change::MakeDir {
                path: format!("{dir}/d{}", self.chance.below(3)),
                parents: false,
            },
            (1, _, _) => Change::MakeDir {
                path: format!("{dir}/p{}/q0", self.chance.below(3)),
                parents: true,
            },
            (2 | 3, Some(from), _) if from != to => Change::Move {
                from,
                to,
                if_exists,
            },
            (4, Some(from), _) if from != to => Change::Copy {
                from,
                to,
                if_exists,
            },
            (5, _, Some(from)) if !dir.starts_with(&from) => Change::Move {
                to: format!("{dir}/m{}", self.chance.below(2)),
                from,
                if_exists: "rename",
            },
            (6, _, Some(from)) if !dir.starts_with(&from) => Change::Copy {
                to: format!("{dir}/c{}", self.chance.below(2)),
                from,
                if_exists: "rename",
            },
            _ => self.removal(),
        }
    }

    fn removal(&mut self) -> Change {
        let mut paths = self.files();
        if self.chance.one_in(3) {
            paths = self.inner_dirs();
        }
        if paths.is_empty() {
            let path = self.some_dir();
            return Change::MakeDir {
                path,
                parents: true,
            };
        }
        let path = self.chance.pick(&paths).clone();
        Change::Remove { path }
    }

    /// Sends the data of puts in turns, and takes their replies.
    fn upload(
        &mut self,
        line: &mut Line,
        fuse: &Fuse,
        puts: &[(Change, Vec<u8>)],
    ) -> io::Result<()> {
        self.unfinished = puts.iter().map(|(change, _)| change.clone()).collect();
        let chunk = *self.chance.pick(&[700, 4096, 65_536, 131_072, 1 << 20]);
        let mut rest = Vec::new();
        for (id, (change, content)) in (1..).zip(puts) {
            let mut request = change.request();
            request["id"] = json!(id);
            let Change::Put { ending, .. } = change else {
                continue;
            };
            match *ending {
                Ending::TooShort => request["size"] = json!(content.len() + 1),
                _ if self.chance.one_in(3) => {}
                _ => request["size"] = json!(content.len()),
            }
            line.send(&request)?;
            let size = chunk.max(content.len() / 16);
            rest.push((id, *ending, content.chunks(size), blake3::hash(content)));
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
                    continue;
                }
                Ending::WrongDigest => hex.replace_range(..8, "00000000"),
                Ending::Right | Ending::TooShort => {}
            }
            let digest = format!("blake3:{hex}");
            line.send(&json!({"id": id, "cmd": "end", "digest": digest}))?;
            fuse.burn();
        }
        let mut changes: Vec<_> = puts
            .iter()
            .map(|(change, _)| Some(change.clone()))
            .collect();
        self.take_replies(line, fuse, &mut changes)
    }

    fn take_replies(
        &mut self,
        line: &mut Line,
        fuse: &Fuse,
        changes: &mut [Option<Change>],
    ) -> io::Result<()> {
        let cancels = changes.iter().flatten().any(
            |change| matches!(change, Change::Put { ending, .. } if *ending == Ending::Cancel),
        );
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
        if code == Some("quota_exceeded") && self.has_quota {
            count(&self.tally.refused);
            return;
        }
        match (change.outcome(&self.tree), code) {
            (Ok((after, path)), None) => {
                let told = reply["ok"]["path"].as_str();
                assert_eq!(told, path.as_deref(), "{change:?}");
                if let Change::Put { node, .. } = change {
                    assert_is(node, &reply["ok"]);
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
                let begun = registers.begin_write(&path, Some(Node::file(&content)));
                let reply = line.put(json!({"path": path}), &content)?;
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

    /// Sends a part of an upload; then this session ends.
    fn abandon(&mut self, line: &mut Line) -> io::Result<()> {
        let content = self.content();
        let path = format!("{}/abandoned.bin", self.some_dir());
        line.send(&json!({"id": 7, "cmd": "put", "path": path, "size": content.len() + 1}))?;
        if !content.is_empty() {
            line.send_data(7, &content)?;
        }
        if self.chance.one_in(2)
            && let Frame::Data(_) = line.receive()?
        {
            panic!("data that nobody asked for");
        }
        Ok(())
    }

    fn if_exists(&mut self) -> &'static str {
        match self.chance.below(5) {
            0 => "fail",
            1 => "rename",
            _ => "replace",
        }
    }

    fn content(&mut self) -> Vec<u8> {
        let length = match self.chance.below(40) {
            0..3 => 0,
            3..15 => self.chance.below(100),
            15..33 => self.chance.below(65_537),
            33..35 => 131_071 + self.chance.below(3),
            35..39 => self.chance.below(400_000),
            _ => self.chance.below(4 << 20),
        };
        self.chance.bytes(length)
    }

    fn files(&self) -> Vec<String> {
        let files = self.tree.iter().filter(|(_, node)| **node != Node::Dir);
        files.map(|(path, _)| path.clone()).collect()
    }

    fn dirs(&self) -> Vec<String> {
        let dirs = self.tree.iter().filter(|(_, node)| **node == Node::Dir);
        dirs.map(|(path, _)| path.clone()).collect()
    }

    /// All but the session's own roots.
    fn inner_dirs(&self) -> Vec<String> {
        let mut dirs = self.dirs();
        dirs.retain(|dir| !self.roots.contains(dir));
        dirs
    }

    /// One that is not deep, so that they do not grow without end.
    fn some_dir(&mut self) -> String {
        let mut dirs = self.dirs();
        dirs.retain(|dir| dir.matches('/').count() < 5);
        self.chance.pick(&dirs).clone()
    }
}

fn assert_is(node: &Node, reply: &Value) {
    let Node::File { size, digest } = node else {
        panic!("no file");
    };
    assert_eq!(reply["size"], *size);
    assert_eq!(reply["digest"], format!("blake3:{}", digest.to_hex()));
}
