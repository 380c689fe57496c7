//! Small puts that have come whole: while the disk works on some, the next gather, and all that
//! have gathered by then are brought to it together.
//!
//! Nothing waits for more to come. The slower the disk, the more gather, and the less each costs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::connection::{Outbox, SHORT_CHUNK_BYTES};
use crate::protocol::{Digest, End, Put, PutBegin, encode_begin, encode_ok};
use crate::server::commands::put::put_reply;
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::server::session::request_log::{RequestLog, RequestOutcome};
use crate::server::transfer::registry::TransferGuard;
use crate::server::transfer::upload_registry::ActiveUpload;
use crate::storage::{BufferedUpload, CommittedUpload, StorageError, View};

/// A put that is small enough to be held in memory, and whose end has not come yet.
pub(crate) struct PendingUpload {
    pub(crate) id: u32,
    pub(crate) put: Put,
    pub(crate) job: RequestLog,
    pub(crate) underway: TransferGuard,
    content: UploadContent,
    received: usize,
}

/// What came of a put, in one piece however many it came in.
enum UploadContent {
    Collected(Vec<u8>),
    /// All of it, in the memory that it came in.
    Whole(Bytes),
}

/// Whether all of a put can be held. What is resumed may need an answer first.
pub(crate) fn is_small(put: &Put) -> bool {
    !put.resume
        && put
            .size
            .is_some_and(|size| size <= SHORT_CHUNK_BYTES as u64)
}

impl PendingUpload {
    pub(crate) fn new(id: u32, put: Put, job: RequestLog, underway: TransferGuard) -> Self {
        Self {
            id,
            put,
            job,
            underway,
            content: UploadContent::Collected(Vec::new()),
            received: 0,
        }
    }

    /// Takes a chunk; gives it back if it is more than declared.
    pub(crate) fn take(&mut self, chunk: Bytes) -> Option<Bytes> {
        let received = self.received + chunk.len();
        if self.put.size.is_none_or(|size| received as u64 > size) {
            return Some(chunk);
        }
        self.received = received;
        match &mut self.content {
            UploadContent::Collected(collected)
                if !collected.is_empty() || chunk.len() < SHORT_CHUNK_BYTES =>
            {
                collected.extend_from_slice(&chunk);
            }
            // There is nothing before it, and nothing more than a chunk is small.
            content => *content = UploadContent::Whole(chunk),
        }
        None
    }

    /// What came, which is taken out.
    pub(crate) fn take_content(&mut self) -> Vec<Bytes> {
        match std::mem::replace(&mut self.content, UploadContent::Collected(Vec::new())) {
            UploadContent::Collected(collected) if collected.is_empty() => Vec::new(),
            UploadContent::Collected(collected) => vec![collected.into_boxed_slice().into()],
            UploadContent::Whole(chunk) => vec![chunk],
        }
    }

    /// Bytes that came.
    pub(crate) fn received(&self) -> usize {
        self.received
    }
}

/// A small put whose end has come.
pub(crate) struct ReceivedUpload {
    pub(crate) id: u32,
    pub(crate) job: RequestLog,
    pub(crate) underway: TransferGuard,
    pub(crate) active: ActiveUpload,
    pub(crate) upload: BufferedUpload,
    pub(crate) end: End,
    /// The digest that is to be answered was not chosen: it is that of the end.
    pub(crate) any_digest: bool,
    /// The room that it takes up.
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

/// Bytes of memory that the small puts of a session may take while they wait for the disk or are
/// with it. It is more than other puts have: the more of them share a sync, the less each costs.
const MAX_QUEUED_BYTES: usize = 2 * 1024 * 1024;

/// So much each takes at least, which bounds their number.
const MIN_UPLOAD_COST: usize = 4 * 1024;

/// What a put takes beside its content and its path.
const UPLOAD_OVERHEAD_BYTES: usize = 2 * 1024;

/// How often its path is in memory at once: in the request and its line of the log, in the table of
/// transfers and that of puts, as the places in the view and in the space, as what has changed, and in
/// the reply.
const PATH_COPIES: usize = 12;

/// The small puts of a session that wait for the disk.
pub(crate) struct UploadCoalescer {
    state: Mutex<CoalescerState>,
    room: Arc<Semaphore>,
}

impl Default for UploadCoalescer {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            room: Arc::new(Semaphore::new(MAX_QUEUED_BYTES)),
        }
    }
}

#[derive(Default)]
struct CoalescerState {
    waiting: Vec<ReceivedUpload>,
    /// What the user sees since the last of them.
    view: Option<View>,
    working: bool,
}

impl UploadCoalescer {
    /// Room for one of so many bytes, with a path of so many; absent if that would have to be waited
    /// for.
    pub(crate) fn try_room(&self, content: usize, path: usize) -> Option<OwnedSemaphorePermit> {
        let charge = charge(content, path);
        self.room.clone().try_acquire_many_owned(charge).ok()
    }

    /// As [`Self::try_room`], once there is.
    pub(crate) async fn room(&self, content: usize, path: usize) -> Option<OwnedSemaphorePermit> {
        let charge = charge(content, path);
        self.room.clone().acquire_many_owned(charge).await.ok()
    }

    /// Adds one, of a user who sees `view`.
    pub(crate) fn add(&self, whole: ReceivedUpload, view: &View) {
        let mut state = self.lock();
        state.view = Some(view.clone());
        state.waiting.push(whole);
    }

    /// Whether some wait and nobody works on them; whoever asks is to do so then.
    pub(crate) fn wants_worker(&self) -> bool {
        let mut state = self.lock();
        let wanted = !state.working && !state.waiting.is_empty();
        state.working |= wanted;
        wanted
    }

    /// All that wait, for the one who works on them; none if that is over.
    fn take(&self) -> Option<(Vec<ReceivedUpload>, View)> {
        let mut state = self.lock();
        let view = state.view.take();
        state.working = view.is_some();
        Some((std::mem::take(&mut state.waiting), view?))
    }

    fn lock(&self) -> MutexGuard<'_, CoalescerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits and answers until none wait.
    pub(crate) async fn work(&self, member: Member, outbox: Outbox, gone: CancellationToken) {
        while let Some((waiting, view)) = self.take() {
            let answers = commit(waiting, view, &member).await;
            let sending = async {
                for answer in answers {
                    let UploadAnswers(begin, reply) = answer;
                    if let Some(begin) = begin {
                        outbox.send(begin).await?;
                    }
                    outbox.send(reply).await?;
                }
                Ok::<_, crate::connection::OutboxClosed>(())
            };
            gone.run_until_cancelled(sending).await;
        }
    }
}

/// The room that a put takes.
fn charge(content: usize, path: usize) -> u32 {
    let bytes = UPLOAD_OVERHEAD_BYTES + content + PATH_COPIES * path;
    u32::try_from(bytes.clamp(MIN_UPLOAD_COST, MAX_QUEUED_BYTES)).unwrap_or(u32::MAX)
}

/// What is said to one put: its begin, if it came to that, and its final reply.
struct UploadAnswers(Option<Bytes>, Bytes);

/// A put while its file is with the disk.
struct UploadTicket {
    id: u32,
    job: RequestLog,
    underway: TransferGuard,
    active: ActiveUpload,
    received: u64,
    given: Option<Digest>,
    _room: Option<OwnedSemaphorePermit>,
}

impl UploadTicket {
    fn answer(self, outcome: Result<CommittedUpload, CommandError>) -> UploadAnswers {
        let (id, bytes, given) = (self.id, self.received, self.given);
        let upload = outcome.as_ref().ok().map(|done| done.id.clone());
        let begin = outcome.as_ref().ok().map(|done| {
            let begin = PutBegin {
                offset: 0,
                upload: done.id.clone(),
                prefix: None,
            };
            encode_begin(id, &begin)
        });
        let reply = outcome.map(|done| {
            let mut reply = put_reply(done.committed);
            reply.digest = given.unwrap_or(reply.digest);
            encode_ok(id, &reply)
        });
        let reply = self.job.close(RequestOutcome {
            reply,
            bytes,
            upload,
        });
        // The client may use the id again as soon as it has the reply.
        drop(self.underway);
        UploadAnswers(begin, reply)
    }

    /// Why nothing more is to happen to it, if so.
    fn stopped(&self) -> Option<CommandError> {
        if self.active.is_taken() {
            Some(CommandError::TakenOver)
        } else if self.underway.cancel.is_cancelled() {
            Some(CommandError::Cancelled)
        } else {
            None
        }
    }
}

/// Waits, on no thread, until all is counted that the uploads need room in. What is wrong with it
/// the commit says of each.
async fn wait_for_counts(view: &View, uploads: &[BufferedUpload], member: &Member) {
    for upload in uploads {
        while view.needs_count(&upload.path) {
            let (counting, path) = (view.clone(), upload.path.clone());
            let counted = member.disk.run(move || counting.count(&path)).await;
            let Err(CommandError::Storage(StorageError::Counting { path, end })) = counted else {
                break;
            };
            if end.wait(&path).await.is_err() {
                break;
            }
        }
    }
}

async fn commit(waiting: Vec<ReceivedUpload>, view: View, member: &Member) -> Vec<UploadAnswers> {
    let mut tickets = Vec::with_capacity(waiting.len());
    let mut uploads = Vec::with_capacity(waiting.len());
    for whole in waiting {
        let received = whole.upload.content.iter().map(|piece| piece.len() as u64);
        tickets.push(UploadTicket {
            id: whole.id,
            job: whole.job,
            underway: whole.underway,
            active: whole.active,
            received: received.sum(),
            given: whole.end.digest.filter(|_| whole.any_digest),
            _room: whole.room,
        });
        uploads.push(whole.upload);
    }
    let mut answers = Vec::with_capacity(tickets.len());
    let (mut going, mut staying) = (Vec::new(), Vec::new());
    for (ticket, upload) in tickets.into_iter().zip(uploads) {
        if let Some(why) = ticket.stopped() {
            answers.push(ticket.answer(Err(why)));
        } else {
            going.push(upload);
            staying.push(ticket);
        }
    }
    wait_for_counts(&view, &going, member).await;
    let session = member.session.clone();
    let work = move || Ok(view.commit_all(going, &session));
    match member.disk.run_batch(staying.len(), work).await {
        Ok(outcomes) => {
            let each = staying.into_iter().zip(outcomes);
            answers
                .extend(each.map(|(ticket, outcome)| ticket.answer(outcome.map_err(Into::into))));
        }
        Err(error) => {
            let is_shutdown = matches!(error, CommandError::ShuttingDown);
            let why = || {
                if is_shutdown {
                    CommandError::ShuttingDown
                } else {
                    CommandError::Panicked
                }
            };
            answers.extend(staying.into_iter().map(|ticket| ticket.answer(Err(why()))));
        }
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::metrics::ServerMetrics;
    use crate::server::transfer::progress::TransferSubject;
    use crate::server::transfer::registry::TransferRegistry;

    /// Puts that get room at once.
    fn admitted(content: usize, path: usize) -> usize {
        let gathered = UploadCoalescer::default();
        let rooms = std::iter::from_fn(|| gathered.try_room(content, path));
        rooms.collect::<Vec<_>>().len()
    }

    #[test]
    fn what_small_puts_take_is_bounded_whatever_is_large_about_them() {
        assert_eq!(admitted(10, 50), 512, "usual ones");
        for (content, path) in [
            (10, 3800),
            (SHORT_CHUNK_BYTES, 50),
            (SHORT_CHUNK_BYTES, 4096),
            (0, 4096),
        ] {
            let all = admitted(content, path) * (content + PATH_COPIES * path);
            assert!(all <= MAX_QUEUED_BYTES, "{content} and {path}: {all} bytes");
        }
        assert_eq!(admitted(SHORT_CHUNK_BYTES, 4096), 11);
    }

    fn held() -> PendingUpload {
        let put = Put {
            size: Some(SHORT_CHUNK_BYTES as u64),
            ..Put::default()
        };
        let job = RequestLog::new(&ServerMetrics::default(), Arc::default(), 7, "put", None);
        let transfers = TransferRegistry::new(Arc::new(Semaphore::new(1)));
        let gone = CancellationToken::new();
        let underway = transfers.start(7, &gone, TransferSubject::of_nothing());
        PendingUpload::new(7, put, job, underway.expect("the id is free"))
    }

    #[test]
    fn what_is_held_keeps_no_more_in_memory_than_came_for_it() {
        let block = Bytes::from(vec![b'x'; 4 * SHORT_CHUNK_BYTES]);
        let mut held = held();
        for start in 0..SHORT_CHUNK_BYTES {
            assert!(held.take(block.slice(start..=start)).is_none());
        }
        assert!(held.take(block.slice(..1)).is_some(), "more than declared");
        let content = held.take_content();
        assert_eq!(content.len(), 1, "one piece, not one for each that came");
        assert_eq!(content[0], block[..SHORT_CHUNK_BYTES]);
        assert!(!block.as_ptr_range().contains(&content[0].as_ptr()));
        assert!(held.take_content().is_empty());
    }

    #[test]
    fn a_put_that_is_one_chunk_is_not_copied() {
        let chunk = Bytes::from(vec![b'x'; SHORT_CHUNK_BYTES]);
        let mut held = held();
        assert!(held.take(chunk.clone()).is_none());
        assert_eq!(held.take_content()[0].as_ptr(), chunk.as_ptr());
    }
}
