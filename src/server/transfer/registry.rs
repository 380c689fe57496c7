//! The transfers of a session: the gets and puts that can be cancelled, and the receiver of the data
//! of each put.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::connection::SHORT_CHUNK_BYTES;
use crate::protocol::{BadRequest, End, TransferEntry};
use crate::server::error::CommandError;
use crate::server::transfer::progress::{TransferProgress, TransferSubject};

/// Bytes of all puts of a session that may wait for the disk. A chunk that is larger waits alone.
const INPUT_BUDGET: u32 = 3 * 512 * 1024;

/// Parts of one put that may wait for the disk; the budget binds first unless they are tiny.
const INPUT_QUEUE: usize = 16;

/// Puts that may wait for their data at once. Their data is behind them in the stream, so the
/// session cannot stop reading for them; it has to refuse.
const MAX_OPEN_PUTS: usize = 64;

/// Puts that were answered before their `end` came and whose data is still discarded. Beyond it the
/// oldest one is forgotten: its data would close the session.
const MAX_ANSWERED_PUTS: usize = 1024;

/// The gets and puts of a session.
#[derive(Debug)]
pub(crate) struct TransferRegistry {
    running: RunningTransfers,
    inputs: HashMap<u32, PutInput>,
    answered: AnsweredPuts,
    budget: Arc<Semaphore>,
    unfinished: Arc<Semaphore>,
}

/// The way of a put's data to the task that writes it.
#[derive(Debug)]
struct PutInput {
    parts: mpsc::Sender<PutPart>,
    declared: Option<u64>,
    received: u64,
    /// Bytes that the server had before, told by the task before it asks for more.
    offset: Arc<AtomicU64>,
}

impl PutInput {
    /// Whether the task still receives. If not, it has answered the put.
    fn is_open(&self) -> bool {
        !self.parts.is_closed()
    }
}

/// The ids of the puts that were answered last, and whose client may not know it yet: their data and
/// their `end` are discarded. The oldest id is the first.
#[derive(Debug, Default)]
struct AnsweredPuts(VecDeque<u32>);

impl AnsweredPuts {
    /// Adds an id as the latest, and forgets the oldest one beyond the limit.
    fn add(&mut self, id: u32) {
        self.remove(id);
        if self.0.len() >= MAX_ANSWERED_PUTS {
            self.0.pop_front();
        }
        self.0.push_back(id);
    }

    fn contains(&self, id: u32) -> bool {
        self.0.contains(&id)
    }

    /// Removes an id; `false` if it is not there.
    fn remove(&mut self, id: u32) -> bool {
        let place = self.0.iter().position(|answered| *answered == id);
        place.and_then(|place| self.0.remove(place)).is_some()
    }
}

/// Where a put's task receives its data, and tells how much of it the server had before.
#[derive(Debug)]
pub(crate) struct PutReceiver {
    pub(crate) parts: mpsc::Receiver<PutPart>,
    pub(crate) offset: Arc<AtomicU64>,
}

/// A message to the task of a put.
#[derive(Debug)]
pub(crate) enum PutPart {
    /// The next bytes, and the room they take until they are written.
    Chunk(Bytes, OwnedSemaphorePermit),
    /// No more data comes, and the put counts among the unfinished requests from now on. It is
    /// discarded and answered with the error if its `end` was malformed.
    End(Result<End, BadRequest>, Option<OwnedSemaphorePermit>),
}

/// Data that no put on this connection can take: the frame is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StrayData {
    #[error("data on stream {0}, which no put opened")]
    NoPut(u32),
    #[error("more than the declared {declared} bytes on stream {stream}")]
    TooMuch { stream: u32, declared: u64 },
    /// Its data could not be told from that of the other.
    #[error("a second put on stream {0}, on which one still waits for its end")]
    SecondPut(u32),
}

/// The same bytes. A short chunk is copied, so that it does not keep a large block of memory alive.
pub(crate) fn unpinned(chunk: Bytes) -> Bytes {
    if chunk.len() < SHORT_CHUNK_BYTES {
        Bytes::copy_from_slice(&chunk)
    } else {
        chunk
    }
}

impl TransferRegistry {
    /// `unfinished` bounds the requests of the session that are begun and not answered. A put
    /// counts among them from its `end` only: until then it needs frames that are still to be read.
    pub(crate) fn new(unfinished: Arc<Semaphore>) -> Self {
        Self {
            unfinished,
            running: RunningTransfers::default(),
            inputs: HashMap::new(),
            answered: AnsweredPuts::default(),
            budget: Arc::new(Semaphore::new(INPUT_BUDGET as usize)),
        }
    }

    /// Enters a get or put; `None` if its id is taken by an unfinished one.
    ///
    /// The entry is there until what is returned is dropped, so drop it before the final reply is
    /// sent: the client may use the id again as soon as it has that.
    pub(crate) fn start(
        &self,
        id: u32,
        gone: &CancellationToken,
        what: TransferSubject,
    ) -> Option<TransferGuard> {
        let cancel = gone.child_token();
        let mut running = self.running.lock();
        if running.contains_key(&id) {
            return None;
        }
        let progress = Arc::new(TransferProgress::new(what));
        let handle = TransferHandle {
            cancel: cancel.clone(),
            progress: progress.clone(),
        };
        running.insert(id, handle);
        Some(TransferGuard {
            running: self.running.clone(),
            id,
            cancel,
            progress,
        })
    }

    /// What is under way, for others to look at.
    pub(crate) fn running(&self) -> RunningTransfers {
        self.running.clone()
    }

    /// Cancels a get or put; `false` if none has that id.
    pub(crate) fn cancel(&self, id: u32) -> bool {
        self.reject(id);
        match self.running.lock().get(&id) {
            Some(handle) => {
                handle.cancel.cancel();
                true
            }
            None => false,
        }
    }

    /// Ends the requests that follow the log, which would not end otherwise.
    pub(crate) fn end_logs(&self) {
        for handle in self.running.lock().values() {
            if handle.progress.is_of_log() {
                handle.cancel.cancel();
            }
        }
    }

    /// How many requests show the log.
    pub(crate) fn followers(&self) -> usize {
        let running = self.running.lock();
        let of_log = |handle: &&TransferHandle| handle.progress.is_of_log();
        running.values().filter(of_log).count()
    }

    /// Notes that nothing is to be kept of a put, however it ends.
    pub(crate) fn reject(&self, id: u32) {
        if let Some(handle) = self.running.lock().get(&id) {
            handle.progress.reject();
        }
    }

    /// Makes sure that data on stream `id` can be no other put's.
    pub(crate) fn check_put(&self, id: u32) -> Result<(), StrayData> {
        match self.inputs.get(&id) {
            Some(input) if input.is_open() => {
                self.reject(id);
                Err(StrayData::SecondPut(id))
            }
            _ => Ok(()),
        }
    }

    /// Opens the way for the data of put `id`.
    pub(crate) fn open_put(
        &mut self,
        id: u32,
        declared: Option<u64>,
    ) -> Result<PutReceiver, CommandError> {
        if self.inputs.len() >= MAX_OPEN_PUTS {
            self.release_answered();
        }
        if self.inputs.len() >= MAX_OPEN_PUTS {
            self.ignore_put(id);
            return Err(CommandError::TooManyPuts(MAX_OPEN_PUTS));
        }
        self.answered.remove(id);
        let (parts, receiver) = mpsc::channel(INPUT_QUEUE);
        let offset = Arc::new(AtomicU64::new(0));
        self.inputs.insert(
            id,
            PutInput {
                parts,
                declared,
                received: 0,
                offset: offset.clone(),
            },
        );
        Ok(PutReceiver {
            parts: receiver,
            offset,
        })
    }

    /// Makes sure that nothing of an older put `id` is remembered.
    pub(crate) fn forget_put(&mut self, id: u32) {
        self.inputs.remove(&id);
        self.answered.remove(id);
    }

    /// From now on throws away what comes for put `id`: it was answered with an error.
    pub(crate) fn ignore_put(&mut self, id: u32) {
        self.inputs.remove(&id);
        self.answered.add(id);
    }

    /// Makes room for further puts: of those that were answered before their `end`, only the id stays.
    fn release_answered(&mut self) {
        let answered = self.inputs.extract_if(|_, input| !input.is_open());
        for (id, _) in answered {
            self.answered.add(id);
        }
    }

    /// Passes on the data of a put. Waits while the disk is slower than the network.
    pub(crate) async fn data(&mut self, stream: u32, chunk: Bytes) -> Result<(), StrayData> {
        if chunk.is_empty() {
            let known = self.end(stream, Ok(End::default())).await;
            return if known {
                Ok(())
            } else {
                Err(StrayData::NoPut(stream))
            };
        }
        let Some(input) = self.inputs.get_mut(&stream) else {
            let is_answered = self.answered.contains(stream);
            return is_answered.then_some(()).ok_or(StrayData::NoPut(stream));
        };
        if !input.is_open() {
            return Ok(());
        }
        input.received = input.received.saturating_add(chunk.len() as u64);
        let before = input.offset.load(Ordering::Relaxed);
        if let Some(declared) = input.declared
            && input.received.saturating_add(before) > declared
        {
            self.reject(stream);
            return Err(StrayData::TooMuch { stream, declared });
        }
        let room =
            u32::try_from(chunk.len()).map_or(INPUT_BUDGET, |length| length.min(INPUT_BUDGET));
        let Ok(room) = self.budget.clone().acquire_many_owned(room).await else {
            return Ok(());
        };
        // A task that has answered already takes nothing more: the data is thrown away.
        let _ = input
            .parts
            .send(PutPart::Chunk(unpinned(chunk), room))
            .await;
        Ok(())
    }

    /// Whether an `end` with that id belongs to a put.
    pub(crate) fn expects_end(&self, id: u32) -> bool {
        self.inputs.contains_key(&id) || self.answered.contains(id)
    }

    /// Passes on the end of a put; `false` if no put has that id. Nothing is kept of a put whose `end`
    /// was malformed.
    pub(crate) async fn end(&mut self, id: u32, end: Result<End, BadRequest>) -> bool {
        let Some(input) = self.inputs.remove(&id) else {
            return self.answered.remove(id);
        };
        if end.is_err() && input.is_open() {
            self.reject(id);
        }
        let permit = self.unfinished.clone().acquire_owned().await.ok();
        let _ = input.parts.send(PutPart::End(end, permit)).await;
        true
    }

    /// Ends all puts whose `end` has not come: nothing more will.
    pub(crate) fn close_inputs(&mut self) {
        self.inputs.clear();
        self.answered = AnsweredPuts::default();
    }
}

/// The gets and puts that are not answered yet, by id.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunningTransfers(Arc<Mutex<HashMap<u32, TransferHandle>>>);

/// The controls of a get or put.
#[derive(Debug)]
struct TransferHandle {
    cancel: CancellationToken,
    progress: Arc<TransferProgress>,
}

/// Transfers of a session that are shown at most.
const MAX_LISTED_TRANSFERS: usize = 8;

impl RunningTransfers {
    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.lock().len()).unwrap_or(u32::MAX)
    }

    /// How far those are that are under way for the longest time.
    pub(crate) fn oldest(&self) -> Vec<TransferEntry> {
        let all: Vec<_> = {
            let running = self.lock();
            let each = running.iter();
            each.map(|(id, handle)| (*id, Arc::clone(&handle.progress)))
                .collect()
        };
        let mut entries: Vec<_> = all.iter().map(|(id, one)| one.entry(*id)).collect();
        entries.sort_unstable_by_key(|entry| (entry.since, entry.id));
        entries.truncate(MAX_LISTED_TRANSFERS);
        entries
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, TransferHandle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A get or put that is not answered yet.
#[derive(Debug)]
pub(crate) struct TransferGuard {
    running: RunningTransfers,
    id: u32,
    /// Cancelled by `cancel`, and at the end of the session.
    pub(crate) cancel: CancellationToken,
    /// How far it is.
    pub(crate) progress: Arc<TransferProgress>,
}

impl Drop for TransferGuard {
    fn drop(&mut self) {
        self.running.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test_transfers() -> TransferRegistry {
        TransferRegistry::new(Arc::new(Semaphore::new(8)))
    }

    #[tokio::test]
    async fn data_for_no_put_is_stray_and_data_for_an_answered_one_is_thrown_away() {
        let mut transfers = test_transfers();
        let chunk = Bytes::from_static(b"x");
        assert_eq!(
            transfers.data(7, chunk.clone()).await,
            Err(StrayData::NoPut(7))
        );
        transfers.ignore_put(7);
        assert_eq!(transfers.data(7, chunk.clone()).await, Ok(()));
        assert!(transfers.end(7, Ok(End::default())).await);
        assert_eq!(transfers.data(7, chunk).await, Err(StrayData::NoPut(7)));
    }

    #[tokio::test]
    async fn data_of_the_latest_answered_puts_is_discarded_however_many_were_answered() {
        let mut transfers = test_transfers();
        let limit = u32::try_from(MAX_ANSWERED_PUTS).expect("a small number");
        let latest = limit..2 * limit;
        for id in 0..latest.end {
            transfers.ignore_put(id);
        }
        let chunk = Bytes::from_static(b"x");
        for id in latest {
            assert_eq!(transfers.data(id, chunk.clone()).await, Ok(()), "put {id}");
        }
        let oldest = transfers.data(0, chunk).await;
        assert_eq!(oldest, Err(StrayData::NoPut(0)));
    }

    #[tokio::test]
    async fn a_put_whose_end_is_malformed_gets_the_error_and_is_discarded() {
        let mut transfers = test_transfers();
        let gone = CancellationToken::new();
        let guard = transfers.start(7, &gone, TransferSubject::of_nothing());
        let guard = guard.expect("the id is free");
        let mut receiver = transfers.open_put(7, None).expect("room");
        let bad = BadRequest {
            id: 7,
            cmd: Some("end"),
            field: Some("digest".into()),
            message: "no digest".into(),
            unsupported: false,
        };
        assert!(transfers.end(7, Err(bad.clone())).await);
        let Some(PutPart::End(Err(error), _)) = receiver.parts.recv().await else {
            panic!("the end did not arrive");
        };
        assert_eq!(error, bad);
        assert!(guard.progress.is_unwanted());
        assert!(!transfers.end(7, Err(bad)).await, "the put has ended");
    }

    #[tokio::test]
    async fn more_than_was_declared_is_stray() {
        let mut transfers = test_transfers();
        let _parts = transfers.open_put(7, Some(3)).expect("room");
        assert_eq!(transfers.data(7, Bytes::from_static(b"abc")).await, Ok(()));
        let stray = StrayData::TooMuch {
            stream: 7,
            declared: 3,
        };
        assert_eq!(
            transfers.data(7, Bytes::from_static(b"d")).await,
            Err(stray)
        );
    }

    #[tokio::test]
    async fn an_id_is_taken_until_its_transfer_is_answered() {
        let transfers = test_transfers();
        let gone = CancellationToken::new();
        let first = transfers
            .start(7, &gone, TransferSubject::of_nothing())
            .expect("free");
        assert!(
            transfers
                .start(7, &gone, TransferSubject::of_nothing())
                .is_none()
        );
        assert!(transfers.cancel(7) && first.cancel.is_cancelled());
        drop(first);
        assert!(!transfers.cancel(7));
        assert!(
            transfers
                .start(7, &gone, TransferSubject::of_nothing())
                .is_some()
        );
    }

    #[tokio::test]
    async fn puts_without_end_are_refused_before_they_are_too_many_and_remembered_within_bounds() {
        let mut transfers = test_transfers();
        let mut open = Vec::new();
        for id in 0..64 {
            open.push(transfers.open_put(id, None).expect("room"));
        }
        for id in 64..10_000 {
            let refused = transfers.open_put(id, None);
            assert!(matches!(refused, Err(CommandError::TooManyPuts(64))));
        }
        let remembered = |transfers: &TransferRegistry| {
            let (open, answered) = (transfers.inputs.len(), transfers.answered.0.len());
            assert!(open <= MAX_OPEN_PUTS, "{open} open puts");
            assert!(answered <= MAX_ANSWERED_PUTS, "{answered} answered puts");
        };
        remembered(&transfers);
        drop(open);
        for id in 10_000..20_000 {
            // The task gives up at once, and no `end` comes.
            drop(transfers.open_put(id, None).expect("room"));
        }
        remembered(&transfers);
    }

    #[tokio::test]
    async fn a_second_put_on_a_stream_that_waits_for_data_is_stray() {
        let mut transfers = test_transfers();
        let parts = transfers.open_put(7, None).expect("room");
        assert_eq!(transfers.check_put(7), Err(StrayData::SecondPut(7)));
        drop(parts);
        assert_eq!(transfers.check_put(7), Ok(()));
    }
}
