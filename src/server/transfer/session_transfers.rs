//! The transfers of a session: those that can be cancelled, and the way of each upload's data.
//!
//! The request loop owns this, without a lock. Only [`RunningTransfers`], which it holds, is shared: with
//! the tasks of the transfers and with operators. The two tables differ in time: the entry here ends with `end` or
//! with the final reply, whichever is first; the entry in [`RunningTransfers`] ends with the final reply.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::protocol::{BadRequest, Call, CopyRange, End, MAX_COPY_BYTES};
use crate::server::error::CommandError;
use crate::server::transfer::progress::TransferSubject;
use crate::server::transfer::running_transfers::{RunningTransfers, TransferGuard};
use crate::server::transfer::upload_channel::{
    UploadPart, UploadReceiver, UploadSender, unpinned, upload_channel,
};

/// Bytes of all uploads of a session that may wait for the disk. A chunk that is larger waits alone.
const MAX_UNWRITTEN_BYTES: u32 = 3 * 512 * 1024;

/// Uploads that may wait for their data at once. Their data is behind them in the stream, so the
/// session cannot stop reading for them; it has to refuse.
const MAX_OPEN_UPLOADS: usize = 64;

/// Uploads that were answered before their `end` came and whose data is still discarded. Beyond it the
/// oldest one is forgotten: its data would close the session.
const MAX_ANSWERED_UPLOADS: usize = 1024;

/// The transfers of a session.
#[derive(Debug)]
pub(crate) struct SessionTransfers {
    running: RunningTransfers,
    /// Uploads whose `end` has not come, by id. The task of one may have answered it already.
    open: HashMap<u32, UploadSender>,
    answered: AnsweredUploads,
    /// Bounds the received bytes that are not written yet.
    unwritten: Arc<Semaphore>,
    request_permits: Arc<Semaphore>,
}

/// The ids of the uploads that were answered last, and whose client may not know it yet: their data and
/// their `end` are discarded. The oldest id is the first.
#[derive(Debug, Default)]
struct AnsweredUploads(VecDeque<u32>);

impl AnsweredUploads {
    /// Adds an id as the latest, and forgets the oldest one beyond the limit.
    fn add(&mut self, id: u32) {
        self.remove(id);
        if self.0.len() >= MAX_ANSWERED_UPLOADS {
            self.0.pop_front();
        }
        self.0.push_back(id);
    }

    fn contains(&self, id: u32) -> bool {
        self.0.contains(&id)
    }

    /// Removes an id; `false` if it is not there.
    fn remove(&mut self, id: u32) -> bool {
        let index = self.0.iter().position(|answered| *answered == id);
        index.and_then(|index| self.0.remove(index)).is_some()
    }
}

/// Data that no upload of this connection can take: the frame is bad.
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

impl SessionTransfers {
    /// `request_permits` bounds the requests of the session that are begun and not answered. An upload
    /// counts among them from its `end` only: until then it needs frames that are still to be read.
    pub(crate) fn new(request_permits: Arc<Semaphore>) -> Self {
        Self {
            request_permits,
            running: RunningTransfers::default(),
            open: HashMap::new(),
            answered: AnsweredUploads::default(),
            unwritten: Arc::new(Semaphore::new(MAX_UNWRITTEN_BYTES as usize)),
        }
    }

    /// As [`RunningTransfers::register`].
    pub(crate) fn register(
        &self,
        id: u32,
        session_ended: &CancellationToken,
        subject: TransferSubject,
    ) -> Option<TransferGuard> {
        self.running.register(id, session_ended, subject)
    }

    /// The transfers that are not answered yet.
    pub(crate) fn running(&self) -> &RunningTransfers {
        &self.running
    }

    /// Cancels a transfer, of which nothing is kept; `false` if none has that id.
    pub(crate) fn cancel(&self, id: u32) -> bool {
        self.running.discard_on_stop(id);
        self.running.cancel(id)
    }

    /// Makes sure that data on stream `id` can belong to no earlier upload.
    pub(crate) fn check_upload_id(&self, id: u32) -> Result<(), StrayData> {
        match self.open.get(&id) {
            Some(upload) if upload.is_open() => {
                self.running.discard_on_stop(id);
                Err(StrayData::SecondPut(id))
            }
            _ => Ok(()),
        }
    }

    /// Opens the channel for the data of upload `id`.
    pub(crate) fn open_upload(
        &mut self,
        id: u32,
        declared: Option<u64>,
    ) -> Result<UploadReceiver, CommandError> {
        if self.open.len() >= MAX_OPEN_UPLOADS {
            self.release_answered();
        }
        if self.open.len() >= MAX_OPEN_UPLOADS {
            self.discard_upload(id);
            return Err(CommandError::TooManyPuts(MAX_OPEN_UPLOADS));
        }
        self.answered.remove(id);
        let (sender, receiver) = upload_channel(declared);
        self.open.insert(id, sender);
        Ok(receiver)
    }

    /// Forgets an earlier upload `id`.
    pub(crate) fn forget_upload(&mut self, id: u32) {
        self.open.remove(&id);
        self.answered.remove(id);
    }

    /// Discards what comes for upload `id` from now on: it was answered with an error.
    pub(crate) fn discard_upload(&mut self, id: u32) {
        self.open.remove(&id);
        self.answered.add(id);
    }

    /// Makes room for further uploads: of those that were answered before their `end`, only the id
    /// stays.
    fn release_answered(&mut self) {
        let answered = self.open.extract_if(|_, upload| !upload.is_open());
        for (id, _) in answered {
            self.answered.add(id);
        }
    }

    /// Passes on the data of an upload. Waits while the disk is slower than the network.
    pub(crate) async fn data(&mut self, stream: u32, chunk: Bytes) -> Result<(), StrayData> {
        if chunk.is_empty() {
            let is_known = self.end(stream, Ok(End::default())).await;
            return is_known.then_some(()).ok_or(StrayData::NoPut(stream));
        }
        let Some(upload) = self.open.get_mut(&stream) else {
            let is_answered = self.answered.contains(stream);
            return is_answered.then_some(()).ok_or(StrayData::NoPut(stream));
        };
        if !upload.is_open() {
            return Ok(());
        }
        if let Err(declared) = upload.count(chunk.len() as u64) {
            self.running.discard_on_stop(stream);
            return Err(StrayData::TooMuch { stream, declared });
        }
        let bytes = u32::try_from(chunk.len()).unwrap_or(MAX_UNWRITTEN_BYTES);
        let share = bytes.min(MAX_UNWRITTEN_BYTES);
        let Ok(permit) = self.unwritten.clone().acquire_many_owned(share).await else {
            return Ok(());
        };
        upload
            .send(UploadPart::Chunk(unpinned(chunk), permit))
            .await;
        Ok(())
    }

    /// Passes on a `copy` of an upload; `false` if no upload has that id. A `copy` that is not valid ends
    /// its upload.
    pub(crate) async fn copy(&mut self, id: u32, copy: CopyRange) -> bool {
        let Some(upload) = self.open.get_mut(&id) else {
            return self.answered.contains(id);
        };
        if !upload.is_open() {
            return true;
        }
        let message = if copy.length == 0 || copy.length > MAX_COPY_BYTES {
            format!("a copy has 1 to {MAX_COPY_BYTES} bytes")
        } else if let Err(declared) = upload.count(copy.length) {
            format!("the copy exceeds the declared size of {declared} bytes")
        } else {
            let end = copy.offset.saturating_add(copy.length);
            upload.send(UploadPart::Copy(copy.offset..end)).await;
            return true;
        };
        let bad = BadRequest {
            id,
            cmd: Some(CopyRange::CMD),
            field: Some("length".into()),
            message,
            unsupported: false,
        };
        self.fail(id, bad).await
    }

    /// Ends an upload that is answered with the error `bad`; `false` if no upload has that id. Nothing is
    /// kept of it, and what still comes for it is discarded.
    pub(crate) async fn fail(&mut self, id: u32, bad: BadRequest) -> bool {
        let is_open = self.open.contains_key(&id);
        if is_open {
            self.end(id, Err(bad)).await;
            self.answered.add(id);
        }
        is_open || self.answered.contains(id)
    }

    /// Whether an `end` with that id belongs to an upload.
    pub(crate) fn expects_end(&self, id: u32) -> bool {
        self.open.contains_key(&id) || self.answered.contains(id)
    }

    /// Passes on the end of an upload; `false` if no upload has that id. Nothing is kept of an upload
    /// whose `end` was malformed.
    pub(crate) async fn end(&mut self, id: u32, end: Result<End, BadRequest>) -> bool {
        let Some(upload) = self.open.remove(&id) else {
            return self.answered.remove(id);
        };
        if end.is_err() && upload.is_open() {
            self.running.discard_on_stop(id);
        }
        let permit = self.request_permits.clone().acquire_owned().await.ok();
        upload.send(UploadPart::End(end, permit)).await;
        true
    }

    /// Ends all uploads whose `end` has not come: nothing more will.
    pub(crate) fn close_uploads(&mut self) {
        self.open.clear();
        self.answered = AnsweredUploads::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test_transfers() -> SessionTransfers {
        SessionTransfers::new(Arc::new(Semaphore::new(8)))
    }

    #[tokio::test]
    async fn data_of_no_upload_is_stray_and_data_of_an_answered_one_is_discarded() {
        let mut transfers = test_transfers();
        let chunk = Bytes::from_static(b"x");
        assert_eq!(
            transfers.data(7, chunk.clone()).await,
            Err(StrayData::NoPut(7))
        );
        transfers.discard_upload(7);
        assert_eq!(transfers.data(7, chunk.clone()).await, Ok(()));
        assert!(transfers.end(7, Ok(End::default())).await);
        assert_eq!(transfers.data(7, chunk).await, Err(StrayData::NoPut(7)));
    }

    #[tokio::test]
    async fn data_of_the_latest_answered_uploads_is_discarded_however_many_were_answered() {
        let mut transfers = test_transfers();
        let limit = u32::try_from(MAX_ANSWERED_UPLOADS).expect("a small number");
        let latest = limit..2 * limit;
        for id in 0..latest.end {
            transfers.discard_upload(id);
        }
        let chunk = Bytes::from_static(b"x");
        for id in latest {
            let data = transfers.data(id, chunk.clone()).await;
            assert_eq!(data, Ok(()), "upload {id}");
        }
        let oldest = transfers.data(0, chunk).await;
        assert_eq!(oldest, Err(StrayData::NoPut(0)));
    }

    #[tokio::test]
    async fn an_upload_whose_end_is_malformed_gets_the_error_and_is_discarded() {
        let mut transfers = test_transfers();
        let session_ended = CancellationToken::new();
        let guard = transfers.register(7, &session_ended, TransferSubject::of_nothing());
        let guard = guard.expect("the id is free");
        let mut receiver = transfers.open_upload(7, None).expect("room");
        let bad = BadRequest {
            id: 7,
            cmd: Some("end"),
            field: Some("digest".into()),
            message: "no digest".into(),
            unsupported: false,
        };
        assert!(transfers.end(7, Err(bad.clone())).await);
        let Some(UploadPart::End(Err(error), _)) = receiver.parts.recv().await else {
            panic!("the end did not arrive");
        };
        assert_eq!(error, bad);
        assert!(guard.progress.is_discarded_on_stop());
        assert!(!transfers.end(7, Err(bad)).await, "the upload has ended");
    }

    #[tokio::test]
    async fn more_than_the_declared_size_is_stray() {
        let mut transfers = test_transfers();
        let _receiver = transfers.open_upload(7, Some(3)).expect("room");
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
    async fn open_and_answered_uploads_are_bounded() {
        let mut transfers = test_transfers();
        let check_bounds = |transfers: &SessionTransfers| {
            let (open, answered) = (transfers.open.len(), transfers.answered.0.len());
            assert!(open <= MAX_OPEN_UPLOADS, "{open} open uploads");
            assert!(
                answered <= MAX_ANSWERED_UPLOADS,
                "{answered} answered uploads"
            );
        };
        let mut open = Vec::new();
        for id in 0..64 {
            open.push(transfers.open_upload(id, None).expect("room"));
        }
        for id in 64..10_000 {
            let refused = transfers.open_upload(id, None);
            assert!(matches!(refused, Err(CommandError::TooManyPuts(64))));
        }
        check_bounds(&transfers);
        drop(open);
        for id in 10_000..20_000 {
            // The task gives up at once, and no `end` comes.
            drop(transfers.open_upload(id, None).expect("room"));
        }
        check_bounds(&transfers);
    }

    #[tokio::test]
    async fn a_second_put_on_a_stream_that_waits_for_data_is_stray() {
        let mut transfers = test_transfers();
        let receiver = transfers.open_upload(7, None).expect("room");
        assert_eq!(transfers.check_upload_id(7), Err(StrayData::SecondPut(7)));
        drop(receiver);
        assert_eq!(transfers.check_upload_id(7), Ok(()));
    }
}
