//! Small files on their way to the server, many at a time: read and hashed on blocking threads,
//! encoded into one piece, and answered in any order. No file waits for the answer to another.

use std::collections::HashMap;
use std::path::PathBuf;
use std::thread::available_parallelism;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;

use crate::client::connection::{RequestAnswer, parse};
use crate::client::session::CurrentConnection;
use crate::client::transfer::blocking::blocking;
use crate::client::transfer::progress::FileProgress;
use crate::client::transfer::send::why_refused;
use crate::client::transfer::source::SmallSource;
use crate::client::transfer::upload::check_reply;
use crate::client::{Client, ClientError, FileOptions, Progress, Session};
use crate::connection::SHORT_CHUNK_BYTES;
use crate::protocol::{
    Digest, End, MAX_CONTROL, Put, PutReply, encode_request, put_control, put_data_head,
};

/// Files whose answers are to come. Enough that a round trip of a fifth of a second costs a
/// thousand files little; fewer than the commits that a server knows again if they are retried.
const IN_FLIGHT: usize = 1000;

/// Bytes of files whose answers are to come.
const BYTES_IN_FLIGHT: u64 = 4 * 1024 * 1024;

/// Files that are read and sent in one piece.
const MAX_BATCH_FILES: usize = 64;

/// Bytes that are read and sent in one piece; one file may be more.
const MAX_BATCH_BYTES: u64 = 256 * 1024;

/// Whether a file of so many bytes goes with others.
pub(super) fn is_small(size: u64) -> bool {
    size <= SHORT_CHUNK_BYTES as u64
}

/// A file to be put.
#[derive(Debug)]
pub(super) struct SmallLocalFile {
    pub(super) local: PathBuf,
    pub(super) remote: String,
    pub(super) options: FileOptions,
    /// As it was found.
    pub(super) size: u64,
}

/// A file that is sent, as far as anyone here knows.
struct SentFile {
    file: SmallLocalFile,
    size: u64,
    digest: Digest,
    progress: FileProgress,
}

/// The result for a file.
pub(super) enum AnsweredFile {
    /// It is on the server.
    Put(SmallLocalFile, PutReply),
    /// It cannot be put.
    Failed(SmallLocalFile, ClientError),
    /// It is to be put by itself; it may be there already if `again`.
    Alone { file: SmallLocalFile, again: bool },
}

/// The small files of one job.
pub(super) struct SmallFileUploads {
    gathered: Vec<SmallLocalFile>,
    gathered_bytes: u64,
    reading: FuturesUnordered<BoxFuture<'static, Result<EncodedBatch, ClientError>>>,
    sending: FuturesUnordered<BoxFuture<'static, ()>>,
    flying: HashMap<u64, SentFile>,
    bytes: u64,
    /// Files that are read or flying.
    count: usize,
    next_ticket: u64,
    answers: mpsc::UnboundedReceiver<RequestAnswer>,
    answer_to: mpsc::UnboundedSender<RequestAnswer>,
    readers: usize,
}

/// Files that were read, encoded.
struct EncodedBatch {
    client: Client,
    frames: Bytes,
    sent: Vec<(u64, SmallLocalFile, PreparedFile)>,
    unsent: Vec<AnsweredFile>,
}

/// What is known of a file that was encoded.
struct PreparedFile {
    size: u64,
    digest: Digest,
}

impl SmallFileUploads {
    pub(super) fn new() -> Self {
        let (answer_to, answers) = mpsc::unbounded_channel();
        Self {
            gathered: Vec::new(),
            gathered_bytes: 0,
            reading: FuturesUnordered::new(),
            sending: FuturesUnordered::new(),
            flying: HashMap::new(),
            bytes: 0,
            count: 0,
            next_ticket: 0,
            answers,
            answer_to,
            readers: available_parallelism().map_or(1, usize::from),
        }
    }

    /// Whether another file may come.
    pub(super) fn has_room(&self) -> bool {
        let is_full =
            self.gathered.len() >= MAX_BATCH_FILES || self.gathered_bytes >= MAX_BATCH_BYTES;
        !is_full && self.count < IN_FLIGHT && self.bytes < BYTES_IN_FLIGHT
    }

    pub(super) fn is_idle(&self) -> bool {
        self.count == 0
    }

    pub(super) fn add(&mut self, file: SmallLocalFile) {
        self.count += 1;
        self.bytes += file.size;
        self.gathered_bytes += file.size;
        self.gathered.push(file);
    }

    /// Whether what has gathered can be read now.
    pub(super) fn can_read(&self) -> bool {
        let busy = self.reading.len() + self.sending.len();
        !self.gathered.is_empty() && busy <= self.readers
    }

    /// Begins to read what has gathered.
    pub(super) fn read(&mut self, session: &Session) {
        let files = std::mem::take(&mut self.gathered);
        self.gathered_bytes = 0;
        let first = self.next_ticket;
        self.next_ticket += files.len() as u64;
        let CurrentConnection { client, .. } = session.current();
        let answers = self.answer_to.clone();
        let encoding = blocking(move || Ok(encode(client, files, first, &answers)));
        self.reading.push(Box::pin(encoding));
    }

    /// Resolves once something has become of some files; never while there are none.
    pub(super) async fn next(
        &mut self,
        progress: &Progress,
    ) -> Result<Vec<AnsweredFile>, ClientError> {
        loop {
            tokio::select! {
                Some(piece) = self.reading.next() => {
                    let unsent = self.send(piece?, progress);
                    if !unsent.is_empty() {
                        return Ok(unsent);
                    }
                }
                Some(()) = self.sending.next() => return Ok(Vec::new()),
                Some(answer) = self.answers.recv() => {
                    let mut landed = Vec::new();
                    landed.extend(self.finish(answer));
                    while let Ok(answer) = self.answers.try_recv() {
                        landed.extend(self.finish(answer));
                    }
                    return Ok(landed);
                }
            }
        }
    }

    /// Sends what was read. What could not be is returned.
    fn send(&mut self, piece: EncodedBatch, progress: &Progress) -> Vec<AnsweredFile> {
        for (ticket, file, PreparedFile { size, digest }) in piece.sent {
            let mut progress = progress.file(file.size);
            progress.expect(size);
            self.flying.insert(
                ticket,
                SentFile {
                    file,
                    size,
                    digest,
                    progress,
                },
            );
        }
        for landed in &piece.unsent {
            let (AnsweredFile::Put(file, _)
            | AnsweredFile::Failed(file, _)
            | AnsweredFile::Alone { file, .. }) = landed;
            self.count -= 1;
            self.bytes -= file.size;
        }
        if !piece.frames.is_empty() {
            self.sending.push(Box::pin(async move {
                // If nothing can be sent any more, all are told so.
                let _ = piece.client.line.outbox.send_encoded(piece.frames).await;
            }));
        }
        piece.unsent
    }

    fn finish(&mut self, answer: RequestAnswer) -> Option<AnsweredFile> {
        let SentFile {
            file,
            size,
            digest,
            mut progress,
        } = self.flying.remove(&answer.ticket)?;
        self.count -= 1;
        self.bytes -= file.size;
        let checked = match answer.reply {
            Some(Ok(reply)) => parse(&reply).and_then(|reply| check_reply(reply, size, digest)),
            Some(Err(error)) => Err(why_refused(error, &file.remote, Some(size))),
            None => return Some(AnsweredFile::Alone { file, again: true }),
        };
        Some(match checked {
            Ok(reply) => {
                progress.go_to(size);
                AnsweredFile::Put(file, reply)
            }
            Err(error) if error.may_pass() => AnsweredFile::Alone { file, again: true },
            Err(error) => AnsweredFile::Failed(file, error),
        })
    }
}

/// Reads and encodes the files: each its `put`, its data and its `end`.
fn encode(
    client: Client,
    files: Vec<SmallLocalFile>,
    first: u64,
    answers: &mpsc::UnboundedSender<RequestAnswer>,
) -> EncodedBatch {
    let mut frames = Vec::new();
    let (mut sent, mut unsent) = (Vec::with_capacity(files.len()), Vec::new());
    for (ticket, file) in (first..).zip(files) {
        let Ok(id) = client.line.register(ticket, answers, 0) else {
            unsent.push(AnsweredFile::Alone { file, again: false });
            continue;
        };
        let before = frames.len();
        match encode_file(&file, id, &mut frames) {
            Ok(Some(prepared)) => sent.push((ticket, file, prepared)),
            refused => {
                frames.truncate(before);
                client.line.withdraw(id);
                unsent.push(match refused {
                    Err(error) => AnsweredFile::Failed(file, error),
                    Ok(_) => AnsweredFile::Alone { file, again: false },
                });
            }
        }
    }
    EncodedBatch {
        client,
        frames: frames.into(),
        sent,
        unsent,
    }
}

/// `None` if the file is none that goes with others.
fn encode_file(
    file: &SmallLocalFile,
    id: u32,
    frames: &mut Vec<u8>,
) -> Result<Option<PreparedFile>, ClientError> {
    let Some(source) = SmallSource::open(&file.local, SHORT_CHUNK_BYTES)? else {
        return Ok(None);
    };
    let put = Put {
        path: file.remote.clone(),
        size: Some(source.size as u64),
        if_exists: file.options.if_exists,
        modified: source.modified,
        resume: false,
        parents: file.options.parents,
        digest: Some(file.options.algorithm),
    };
    let request = encode_request(id, &put);
    if request.len() > MAX_CONTROL {
        return Ok(None);
    }
    put_control(frames, &request);
    let size = source.size;
    let mut digest = Digest::compute(file.options.algorithm, &[]);
    if size > 0 {
        put_data_head(frames, id, size);
        let start = frames.len();
        if !source.read_to(frames)? {
            return Ok(None);
        }
        digest = Digest::compute(file.options.algorithm, &frames[start..]);
    } else if !source.read_to(frames)? {
        return Ok(None);
    }
    let end = End {
        digest: Some(digest),
    };
    put_control(frames, &encode_request(id, &end));
    Ok(Some(PreparedFile {
        size: size as u64,
        digest,
    }))
}
