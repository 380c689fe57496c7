//! Small files on their way from the server, many at a time: asked for in one piece, collected as
//! they come in any order, and checked and written together on blocking threads.

use std::collections::HashMap;
use std::path::PathBuf;
use std::thread::available_parallelism;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::client::connection::{Answer, Came, parse};
use crate::client::session::Current;
use crate::client::transfer::file::blocking;
use crate::client::transfer::sink::Sink;
use crate::client::tree::down::Place;
use crate::client::{Client, ClientError, Fetched, FileOptions, Progress, Session};
use crate::connection::CHUNK;
use crate::protocol::{
    Digest, DigestChoice, Get, GetBegin, GetReply, Hasher, IfExists, MAX_CONTROL, encode_request,
    put_control,
};

/// Files whose answers are to come. Enough that a round trip of a fifth of a second costs a
/// thousand files little.
const IN_FLIGHT: usize = 1000;

/// Bytes of files whose answers are to come or that are not written yet.
const BYTES_IN_FLIGHT: u64 = 8 * 1024 * 1024;

/// Files that are asked for, or written, in one piece.
const TOGETHER: usize = 64;

/// Whether a file of so many bytes goes with others.
pub(super) fn is_small(size: u64) -> bool {
    size <= CHUNK as u64
}

/// What has become of a file.
pub(super) enum Landed {
    /// It is here.
    Got(Place, Fetched),
    /// It can not be got.
    Failed(Place, ClientError),
    /// It is to be got by itself.
    Alone(Place, u64),
}

/// A file that is asked for.
struct Flying {
    place: Place,
    size: u64,
}

/// A file that has come, and nothing of it is checked.
struct Arrived {
    flying: Flying,
    reply: Box<RawValue>,
    came: Came,
}

/// What has become of a file that had come, and how many bytes it was found with.
struct Written {
    landed: Landed,
    size: u64,
}

/// The small files of one job.
pub(super) struct Small {
    options: FileOptions,
    gathered: Vec<Flying>,
    flying: HashMap<u64, Flying>,
    asking: FuturesUnordered<BoxFuture<'static, ()>>,
    arrived: Vec<Arrived>,
    writing: FuturesUnordered<BoxFuture<'static, Result<Vec<Written>, ClientError>>>,
    writers: usize,
    /// Files and bytes that are somewhere in here.
    count: usize,
    bytes: u64,
    next_ticket: u64,
    answers: mpsc::UnboundedReceiver<Answer>,
    answer_to: mpsc::UnboundedSender<Answer>,
}

impl Small {
    pub(super) fn new(options: FileOptions) -> Self {
        let (answer_to, answers) = mpsc::unbounded_channel();
        Self {
            options,
            gathered: Vec::new(),
            flying: HashMap::new(),
            asking: FuturesUnordered::new(),
            arrived: Vec::new(),
            writing: FuturesUnordered::new(),
            writers: available_parallelism().map_or(1, usize::from),
            count: 0,
            bytes: 0,
            next_ticket: 0,
            answers,
            answer_to,
        }
    }

    /// Whether another file may come.
    pub(super) fn has_room(&self) -> bool {
        self.count < IN_FLIGHT && self.bytes < BYTES_IN_FLIGHT
    }

    pub(super) fn is_idle(&self) -> bool {
        self.count == 0
    }

    pub(super) fn add(&mut self, place: Place, size: u64) {
        self.count += 1;
        self.bytes += size;
        self.gathered.push(Flying { place, size });
    }

    /// Asks for what has gathered. What can not be asked for is returned.
    pub(super) fn ask(&mut self, session: &Session) -> Vec<Landed> {
        let mut unasked = Vec::new();
        if self.gathered.is_empty() {
            return unasked;
        }
        let Current { client, .. } = session.current();
        let mut frames = Vec::new();
        for flying in std::mem::take(&mut self.gathered) {
            let ticket = self.next_ticket;
            self.next_ticket += 1;
            let asked = self.ask_one(&client, ticket, &flying, &mut frames);
            if asked.is_some() {
                self.flying.insert(ticket, flying);
            } else {
                self.left(flying.size);
                unasked.push(Landed::Alone(flying.place, flying.size));
            }
        }
        if !frames.is_empty() {
            self.asking.push(Box::pin(async move {
                // If nothing can be sent any more, all are told so.
                let _ = client.line.outbox.send_encoded(frames.into()).await;
            }));
        }
        unasked
    }

    fn ask_one(
        &self,
        client: &Client,
        ticket: u64,
        flying: &Flying,
        frames: &mut Vec<u8>,
    ) -> Option<()> {
        let get = Get {
            path: flying.place.remote.clone(),
            offset: None,
            length: None,
            digest: Some(DigestChoice::Of(self.options.algorithm)),
            version: None,
        };
        let id = client.line.enter(ticket, &self.answer_to, CHUNK).ok()?;
        let request = encode_request(id, &get);
        if request.len() > MAX_CONTROL {
            client.line.withdraw(id);
            return None;
        }
        put_control(frames, &request);
        Some(())
    }

    /// Resolves once something has become of some files; never while there are none.
    pub(super) async fn next(&mut self, progress: &Progress) -> Result<Vec<Landed>, ClientError> {
        loop {
            if !self.arrived.is_empty() && self.writing.len() < self.writers {
                self.write();
            }
            tokio::select! {
                biased;
                Some(written) = self.writing.next() => {
                    return Ok(self.written(written?, progress));
                }
                Some(()) = self.asking.next() => {}
                Some(answer) = self.answers.recv() => {
                    let mut landed = Vec::new();
                    landed.extend(self.land(answer));
                    while let Ok(answer) = self.answers.try_recv() {
                        landed.extend(self.land(answer));
                    }
                    if !landed.is_empty() {
                        return Ok(landed);
                    }
                }
            }
        }
    }

    fn land(&mut self, answer: Answer) -> Option<Landed> {
        let flying = self.flying.remove(&answer.ticket)?;
        let landed = match answer.reply {
            Some(Ok(reply)) => {
                self.arrived.push(Arrived {
                    flying,
                    reply,
                    came: answer.came,
                });
                return None;
            }
            Some(Err(error)) => {
                let error = ClientError::Server(error);
                if error.may_pass() {
                    Landed::Alone(flying.place, flying.size)
                } else {
                    Landed::Failed(flying.place, error)
                }
            }
            None => Landed::Alone(flying.place, flying.size),
        };
        self.left(flying.size);
        Some(landed)
    }

    /// Has some of what has arrived checked and written.
    fn write(&mut self) {
        let rest = self.arrived.len().saturating_sub(TOGETHER);
        let arrived = self.arrived.split_off(rest);
        let options = self.options;
        let writing = blocking(move || {
            let written = arrived.into_iter().map(|arrived| {
                let size = arrived.flying.size;
                let landed = write(arrived, options);
                Written { landed, size }
            });
            Ok(written.collect())
        });
        self.writing.push(Box::pin(writing));
    }

    fn written(&mut self, written: Vec<Written>, progress: &Progress) -> Vec<Landed> {
        let landed = written.into_iter().map(|Written { landed, size }| {
            self.left(size);
            if let Landed::Got(_, fetched) = &landed {
                let mut file = progress.file(size);
                file.expect(fetched.size);
                file.go_to(fetched.size);
            }
            landed
        });
        landed.collect()
    }

    /// A file that was found with so many bytes is no longer in here.
    fn left(&mut self, size: u64) {
        self.count -= 1;
        self.bytes -= size;
    }
}

/// Checks a file and gives it its name.
fn write(arrived: Arrived, options: FileOptions) -> Landed {
    let Arrived {
        flying: Flying { place, size },
        reply,
        came,
    } = arrived;
    match check(&reply, &came, options) {
        // It has grown since it was listed.
        Ok(None) => Landed::Alone(place, size),
        Ok(Some((begin, reply))) => match keep(&place, &came.chunks, &begin, options) {
            Ok(path) => {
                let (size, digest) = (reply.size, reply.digest);
                Landed::Got(place, Fetched { path, size, digest })
            }
            Err(error) => Landed::Failed(place, error),
        },
        Err(error) => Landed::Failed(place, error),
    }
}

/// `None` if more came than was collected.
fn check(
    reply: &RawValue,
    came: &Came,
    options: FileOptions,
) -> Result<Option<(GetBegin, GetReply)>, ClientError> {
    let nonsense = |what: &str| ClientError::Nonsense(what.into());
    let begin = came.begin.as_deref();
    let begin: GetBegin = parse(begin.ok_or_else(|| nonsense("a get that did not begin"))?)?;
    let reply: GetReply = parse(reply)?;
    let is_whole = begin.offset == 0 && begin.length == begin.size && reply.size == begin.size;
    if !is_whole || came.bytes as u64 != begin.size {
        return Err(nonsense("another number of bytes than it announced"));
    }
    if came.bytes > CHUNK {
        return Ok(None);
    }
    let server = reply
        .digest
        .ok_or_else(|| nonsense("no digest to compare"))?;
    let local = digest_of(&came.chunks, options);
    if server != local {
        return Err(ClientError::DigestMismatch { server, local });
    }
    Ok(Some((begin, reply)))
}

fn digest_of(chunks: &[Bytes], options: FileOptions) -> Digest {
    let mut hasher = Hasher::new(options.algorithm);
    for chunk in chunks {
        hasher.update(chunk);
    }
    hasher.finish()
}

fn keep(
    place: &Place,
    chunks: &[Bytes],
    begin: &GetBegin,
    options: FileOptions,
) -> Result<PathBuf, ClientError> {
    let if_exists = options.if_exists.unwrap_or(IfExists::Replace);
    let mut sink = if place.level == 0 {
        Sink::named(&place.local, if_exists)?
    } else {
        Sink::beside(&place.local, if_exists)?
    };
    for chunk in chunks {
        sink.write(chunk)?;
    }
    sink.commit(begin.modified)
}
