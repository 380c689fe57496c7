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

use crate::client::connection::{ReceivedPart, RequestAnswer, parse};
use crate::client::session::CurrentConnection;
use crate::client::transfer::blocking::blocking;
use crate::client::transfer::sink::LocalSink;
use crate::client::tree::local_target::LocalTarget;
use crate::client::{Client, ClientError, FetchedFile, FileOptions, Progress, Session};
use crate::connection::SHORT_CHUNK_BYTES;
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
const MAX_BATCH_FILES: usize = 64;

/// Whether a file of so many bytes goes with others.
pub(super) fn is_small(size: u64) -> bool {
    size <= SHORT_CHUNK_BYTES as u64
}

/// The result for a file.
pub(super) enum ReceivedFile {
    /// It is here.
    Got(LocalTarget, FetchedFile),
    /// It cannot be got.
    Failed(LocalTarget, ClientError),
    /// It is to be got by itself.
    Alone(LocalTarget, u64),
}

/// A file that is asked for.
struct RequestedFile {
    place: LocalTarget,
    size: u64,
}

/// A file that has come, and nothing of it is checked.
struct CompleteFile {
    flying: RequestedFile,
    reply: Box<RawValue>,
    came: ReceivedPart,
}

/// The result for a complete file, and its length.
struct WrittenFile {
    landed: ReceivedFile,
    size: u64,
}

/// The small files of one job.
pub(super) struct SmallFileDownloads {
    options: FileOptions,
    gathered: Vec<RequestedFile>,
    flying: HashMap<u64, RequestedFile>,
    asking: FuturesUnordered<BoxFuture<'static, ()>>,
    arrived: Vec<CompleteFile>,
    writing: FuturesUnordered<BoxFuture<'static, Result<Vec<WrittenFile>, ClientError>>>,
    writers: usize,
    /// Files and bytes that are somewhere in here.
    count: usize,
    bytes: u64,
    next_ticket: u64,
    answers: mpsc::UnboundedReceiver<RequestAnswer>,
    answer_to: mpsc::UnboundedSender<RequestAnswer>,
}

impl SmallFileDownloads {
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

    pub(super) fn add(&mut self, place: LocalTarget, size: u64) {
        self.count += 1;
        self.bytes += size;
        self.gathered.push(RequestedFile { place, size });
    }

    /// Asks for what has gathered. What cannot be asked for is returned.
    pub(super) fn ask(&mut self, session: &Session) -> Vec<ReceivedFile> {
        let mut unasked = Vec::new();
        if self.gathered.is_empty() {
            return unasked;
        }
        let CurrentConnection { client, .. } = session.current();
        let mut frames = Vec::new();
        for flying in std::mem::take(&mut self.gathered) {
            let ticket = self.next_ticket;
            self.next_ticket += 1;
            let asked = self.ask_one(&client, ticket, &flying, &mut frames);
            if asked.is_some() {
                self.flying.insert(ticket, flying);
            } else {
                self.left(flying.size);
                unasked.push(ReceivedFile::Alone(flying.place, flying.size));
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
        flying: &RequestedFile,
        frames: &mut Vec<u8>,
    ) -> Option<()> {
        let get = Get {
            path: flying.place.remote.clone(),
            offset: None,
            length: None,
            digest: Some(DigestChoice::Of(self.options.algorithm)),
            version: None,
        };
        let id = client
            .line
            .register(ticket, &self.answer_to, SHORT_CHUNK_BYTES)
            .ok()?;
        let request = encode_request(id, &get);
        if request.len() > MAX_CONTROL {
            client.line.withdraw(id);
            return None;
        }
        put_control(frames, &request);
        Some(())
    }

    /// Resolves once something has become of some files; never while there are none.
    pub(super) async fn next(
        &mut self,
        progress: &Progress,
    ) -> Result<Vec<ReceivedFile>, ClientError> {
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
                    landed.extend(self.finish(answer));
                    while let Ok(answer) = self.answers.try_recv() {
                        landed.extend(self.finish(answer));
                    }
                    if !landed.is_empty() {
                        return Ok(landed);
                    }
                }
            }
        }
    }

    fn finish(&mut self, answer: RequestAnswer) -> Option<ReceivedFile> {
        let flying = self.flying.remove(&answer.ticket)?;
        let landed = match answer.reply {
            Some(Ok(reply)) => {
                self.arrived.push(CompleteFile {
                    flying,
                    reply,
                    came: answer.came,
                });
                return None;
            }
            Some(Err(error)) => {
                let error = ClientError::Server(error);
                if error.may_pass() {
                    ReceivedFile::Alone(flying.place, flying.size)
                } else {
                    ReceivedFile::Failed(flying.place, error)
                }
            }
            None => ReceivedFile::Alone(flying.place, flying.size),
        };
        self.left(flying.size);
        Some(landed)
    }

    /// Has some of what has arrived checked and written.
    fn write(&mut self) {
        let rest = self.arrived.len().saturating_sub(MAX_BATCH_FILES);
        let arrived = self.arrived.split_off(rest);
        let options = self.options;
        let writing = blocking(move || {
            let written = arrived.into_iter().map(|arrived| {
                let size = arrived.flying.size;
                let landed = write(arrived, options);
                WrittenFile { landed, size }
            });
            Ok(written.collect())
        });
        self.writing.push(Box::pin(writing));
    }

    fn written(&mut self, written: Vec<WrittenFile>, progress: &Progress) -> Vec<ReceivedFile> {
        let landed = written.into_iter().map(|WrittenFile { landed, size }| {
            self.left(size);
            if let ReceivedFile::Got(_, fetched) = &landed {
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
fn write(arrived: CompleteFile, options: FileOptions) -> ReceivedFile {
    let CompleteFile {
        flying: RequestedFile { place, size },
        reply,
        came,
    } = arrived;
    match check(&reply, &came, options) {
        // It has grown since it was listed.
        Ok(None) => ReceivedFile::Alone(place, size),
        Ok(Some((begin, reply))) => match keep(&place, &came.chunks, &begin, options) {
            Ok(path) => {
                let (size, digest) = (reply.size, reply.digest);
                ReceivedFile::Got(place, FetchedFile { path, size, digest })
            }
            Err(error) => ReceivedFile::Failed(place, error),
        },
        Err(error) => ReceivedFile::Failed(place, error),
    }
}

/// `None` if more came than was collected.
fn check(
    reply: &RawValue,
    came: &ReceivedPart,
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
    if came.bytes > SHORT_CHUNK_BYTES {
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
    place: &LocalTarget,
    chunks: &[Bytes],
    begin: &GetBegin,
    options: FileOptions,
) -> Result<PathBuf, ClientError> {
    let if_exists = options.if_exists.unwrap_or(IfExists::Replace);
    let mut sink = if place.level == 0 {
        LocalSink::named(&place.local, if_exists)?
    } else {
        LocalSink::create(&place.local, if_exists)?
    };
    for chunk in chunks {
        sink.write(chunk)?;
    }
    sink.commit(begin.modified)
}
