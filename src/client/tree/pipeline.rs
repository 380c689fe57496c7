//! Many small files at a time over one connection: their requests are outstanding together, and no
//! file waits for the reply to another.
//!
//! Both directions of a tree use it. A direction says how one request is encoded and what its reply
//! means ([`PipelinedTransfer`]). The step of them that uses the disk runs on blocking threads, in
//! batches, on at most as many threads as there are processors; the other step is cheap and runs
//! where the pipeline is polled.
//!
//! Files and bytes between [`Pipeline::add`] and their result are bounded by
//! [`PipelineLimits`](crate::client::tree::direction::PipelineLimits). The pipeline neither retries nor waits for a connection: a file whose request
//! is lost with its connection, or whose failure may pass, is handed back to be moved separately.

use std::collections::{HashMap, HashSet};
use std::thread::available_parallelism;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::client::connection::{ReceivedPart, RequestAnswer};
use crate::client::session::CurrentConnection;
use crate::client::transfer::blocking::blocking;
use crate::client::tree::direction::{
    DiskStep, FinishedFile, FoundFile, PipelinedTransfer, TransferAttempt,
};
use crate::client::{Client, ClientError, Progress, Session};
use crate::connection::SHORT_CHUNK_BYTES;

/// Files whose results are outstanding. With a round trip of 200 ms a thousand files still take less than a
/// second, and it is below the number of commits that a server recognizes when they are repeated.
const MAX_OUTSTANDING_FILES: usize = 1000;

/// Files that one blocking thread processes at a time.
const MAX_DISK_BATCH_FILES: usize = 64;

/// Whether a file of this size belongs in a pipeline.
pub(super) fn is_small(size: u64) -> bool {
    size <= SHORT_CHUNK_BYTES as u64
}

/// The end of a file's way through a pipeline.
pub(super) enum PipelineOutcome<T: PipelinedTransfer> {
    Finished(FinishedFile<T>),
    /// The file must be moved separately.
    Separate(FoundFile<T::File>, TransferAttempt),
}

/// The small files of one job, see the module's documentation.
pub(super) struct Pipeline<T: PipelinedTransfer> {
    direction: T,
    session: Session,
    progress: Progress,
    queued: Vec<FoundFile<T::File>>,
    queued_bytes: u64,
    encoding: FuturesUnordered<BoxFuture<'static, Result<EncodedBatch<T>, ClientError>>>,
    sending: FuturesUnordered<BoxFuture<'static, ()>>,
    outstanding: HashMap<u64, OutstandingFile<T>>,
    /// Requests that were lost with their connection before they were noted as outstanding.
    lost_early: HashSet<u64>,
    answered: Vec<AnsweredFile<T>>,
    completing: FuturesUnordered<BoxFuture<'static, Result<Vec<CompletedFile<T>>, ClientError>>>,
    /// Files and bytes from `add` to their outcome.
    files: usize,
    bytes: u64,
    next_ticket: u64,
    answers: mpsc::UnboundedReceiver<RequestAnswer>,
    answer_sender: mpsc::UnboundedSender<RequestAnswer>,
    disk_threads: usize,
}

/// A file whose request was encoded.
struct OutstandingFile<T: PipelinedTransfer> {
    found: FoundFile<T::File>,
    expected: T::Expected,
}

/// Files that were encoded together, each with its ticket.
struct EncodedBatch<T: PipelinedTransfer> {
    client: Client,
    frames: Bytes,
    encoded: Vec<(u64, OutstandingFile<T>)>,
    failed: Vec<(u64, FoundFile<T::File>, Option<ClientError>)>,
}

/// A file whose successful reply was received.
struct AnsweredFile<T: PipelinedTransfer> {
    file: OutstandingFile<T>,
    reply: Box<RawValue>,
    received: ReceivedPart,
}

struct CompletedFile<T: PipelinedTransfer> {
    found: FoundFile<T::File>,
    result: Result<Option<T::Moved>, ClientError>,
}

impl<T: PipelinedTransfer> Pipeline<T> {
    pub(super) fn new(direction: T, session: &Session, progress: &Progress) -> Self {
        let (answer_sender, answers) = mpsc::unbounded_channel();
        Self {
            direction,
            session: session.clone(),
            progress: progress.clone(),
            queued: Vec::new(),
            queued_bytes: 0,
            encoding: FuturesUnordered::new(),
            sending: FuturesUnordered::new(),
            outstanding: HashMap::new(),
            lost_early: HashSet::new(),
            answered: Vec::new(),
            completing: FuturesUnordered::new(),
            files: 0,
            bytes: 0,
            next_ticket: 0,
            answers,
            answer_sender,
            disk_threads: available_parallelism().map_or(1, usize::from),
        }
    }

    /// Whether another file may be added.
    pub(super) fn has_capacity(&self) -> bool {
        let limits = T::LIMITS;
        self.queued.len() < limits.batch_files
            && self.queued_bytes < limits.batch_bytes
            && self.files < MAX_OUTSTANDING_FILES
            && self.bytes < limits.outstanding_bytes
    }

    pub(super) fn is_idle(&self) -> bool {
        self.files == 0
    }

    pub(super) fn add(&mut self, found: FoundFile<T::File>) {
        self.files += 1;
        self.bytes += found.size;
        self.queued_bytes += found.size;
        self.queued.push(found);
    }

    /// Whether [`start`](Self::start) would send anything now.
    pub(super) fn can_start(&self) -> bool {
        let has_thread = match T::DISK_STEP {
            // One batch more than there are threads may wait to be sent, so that a single thread can read
            // while the connection is busy.
            DiskStep::Encode => {
                self.encoding.len() < self.disk_threads
                    && self.encoding.len() + self.sending.len() <= self.disk_threads
            }
            DiskStep::Complete => true,
        };
        has_thread && !self.queued.is_empty()
    }

    /// Begins to encode and send the files that were added. Returns those that cannot be sent.
    pub(super) fn start(&mut self) -> Vec<PipelineOutcome<T>> {
        let files = std::mem::take(&mut self.queued);
        self.queued_bytes = 0;
        let first = self.next_ticket;
        self.next_ticket += files.len() as u64;
        let CurrentConnection { client, .. } = self.session.current();
        let (direction, answers) = (self.direction.clone(), self.answer_sender.clone());
        match T::DISK_STEP {
            DiskStep::Encode => {
                let encoding =
                    blocking(move || Ok(encode(&direction, client, files, first, &answers)));
                self.encoding.push(Box::pin(encoding));
                Vec::new()
            }
            DiskStep::Complete => {
                let batch = encode(&direction, client, files, first, &answers);
                self.send(batch)
            }
        }
    }

    /// Resolves once a file has an outcome, or [`can_start`](Self::can_start) may have changed. Pending
    /// while the pipeline is idle. Cancel-safe.
    ///
    /// # Errors
    /// Only if the runtime is shutting down.
    pub(super) async fn next(&mut self) -> Result<Vec<PipelineOutcome<T>>, ClientError> {
        loop {
            if !self.answered.is_empty() && self.completing.len() < self.disk_threads {
                self.complete_batch();
            }
            tokio::select! {
                biased;
                Some(completed) = self.completing.next() => {
                    let completed = completed?;
                    return Ok(completed.into_iter().map(|file| self.completed(file)).collect());
                }
                Some(batch) = self.encoding.next() => {
                    let unsent = self.send(batch?);
                    if !unsent.is_empty() {
                        return Ok(unsent);
                    }
                }
                Some(()) = self.sending.next() => return Ok(Vec::new()),
                Some(answer) = self.answers.recv() => {
                    let mut outcomes = Vec::new();
                    outcomes.extend(self.accept(answer));
                    while let Ok(answer) = self.answers.try_recv() {
                        outcomes.extend(self.accept(answer));
                    }
                    if !outcomes.is_empty() {
                        return Ok(outcomes);
                    }
                }
            }
        }
    }

    /// Sends the encoded files. Returns the others.
    fn send(&mut self, batch: EncodedBatch<T>) -> Vec<PipelineOutcome<T>> {
        let mut unsent = Vec::new();
        for (ticket, found, error) in batch.failed {
            self.lost_early.remove(&ticket);
            self.remove(&found);
            unsent.push(match error {
                Some(error) => PipelineOutcome::Finished((found.file, Err(error))),
                None => PipelineOutcome::Separate(found, TransferAttempt::First),
            });
        }
        for (ticket, file) in batch.encoded {
            if self.lost_early.remove(&ticket) {
                self.remove(&file.found);
                unsent.push(PipelineOutcome::Separate(
                    file.found,
                    TransferAttempt::First,
                ));
            } else {
                self.outstanding.insert(ticket, file);
            }
        }
        if !batch.frames.is_empty() {
            self.sending.push(Box::pin(async move {
                // If it cannot be sent, the connection is lost, and each request is answered so.
                let _ = batch
                    .client
                    .connection
                    .outbox
                    .send_encoded(batch.frames)
                    .await;
            }));
        }
        unsent
    }

    /// Processes the answer to one request. `None` if it has no outcome yet.
    fn accept(&mut self, answer: RequestAnswer) -> Option<PipelineOutcome<T>> {
        let Some(file) = self.outstanding.remove(&answer.ticket) else {
            self.lost_early.insert(answer.ticket);
            return None;
        };
        let error = match answer.reply {
            Some(Ok(reply)) => {
                let answered = AnsweredFile {
                    file,
                    reply,
                    received: answer.received,
                };
                return match T::DISK_STEP {
                    DiskStep::Encode => {
                        let completed = complete(&self.direction, answered);
                        Some(self.completed(completed))
                    }
                    DiskStep::Complete => {
                        self.answered.push(answered);
                        None
                    }
                };
            }
            Some(Err(error)) => Some(T::refusal(&file.found.file, &file.expected, error)),
            None => None,
        };
        self.remove(&file.found);
        Some(match error {
            Some(error) if !error.may_pass() => {
                PipelineOutcome::Finished((file.found.file, Err(error)))
            }
            _ => PipelineOutcome::Separate(file.found, TransferAttempt::Repeated),
        })
    }

    /// Begins to complete the files that were answered first on a blocking thread.
    fn complete_batch(&mut self) {
        let files = self.answered.len().min(MAX_DISK_BATCH_FILES);
        let batch: Vec<_> = self.answered.drain(..files).collect();
        let direction = self.direction.clone();
        let completing = blocking(move || {
            let completed = batch.into_iter().map(|file| complete(&direction, file));
            Ok(completed.collect())
        });
        self.completing.push(Box::pin(completing));
    }

    fn completed(&mut self, completed: CompletedFile<T>) -> PipelineOutcome<T> {
        let CompletedFile { found, result } = completed;
        self.remove(&found);
        match result.transpose() {
            None => PipelineOutcome::Separate(found, TransferAttempt::Repeated),
            Some(Err(error)) => PipelineOutcome::Finished((found.file, Err(error))),
            Some(Ok(moved)) => {
                let bytes = T::moved_bytes(&moved);
                let mut file = self.progress.file(found.size);
                file.expect(bytes);
                file.moved(usize::try_from(bytes).unwrap_or(usize::MAX));
                self.progress.finished_file();
                self.session.note_success();
                PipelineOutcome::Finished((found.file, Ok(moved)))
            }
        }
    }

    fn remove(&mut self, found: &FoundFile<T::File>) {
        self.files -= 1;
        self.bytes -= found.size;
    }
}

/// Encodes files, whose tickets are numbered from `first`, and enters their requests.
fn encode<T: PipelinedTransfer>(
    direction: &T,
    client: Client,
    files: Vec<FoundFile<T::File>>,
    first: u64,
    answers: &mpsc::UnboundedSender<RequestAnswer>,
) -> EncodedBatch<T> {
    let mut frames = Vec::new();
    let (mut encoded, mut failed) = (Vec::with_capacity(files.len()), Vec::new());
    for (ticket, found) in (first..).zip(files) {
        let limit = T::LIMITS.received_bytes;
        let Ok(id) = client.connection.register(ticket, answers, limit) else {
            failed.push((ticket, found, None));
            continue;
        };
        let start = frames.len();
        match direction.encode(&found.file, id, &mut frames) {
            Ok(Some(expected)) => encoded.push((ticket, OutstandingFile { found, expected })),
            unsent => {
                frames.truncate(start);
                client.connection.withdraw(id);
                failed.push((ticket, found, unsent.err()));
            }
        }
    }
    EncodedBatch {
        client,
        frames: frames.into(),
        encoded,
        failed,
    }
}

fn complete<T: PipelinedTransfer>(direction: &T, answered: AnsweredFile<T>) -> CompletedFile<T> {
    let AnsweredFile {
        file: OutstandingFile { found, expected },
        reply,
        received,
    } = answered;
    let result = direction.complete(&found.file, expected, &reply, received);
    CompletedFile { found, result }
}

#[cfg(test)]
mod tests;
