//! Small downloads: a worker reads consecutive downloads as a batch and sends one buffer of frames.
//!
//! Whether a file is small is known once it is open. A large one gets a task of its own.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use crate::protocol::{
    Get, WireError, encode_begin, encode_error, encode_ok, put_control, put_data_head,
};
use crate::server::commands;
use crate::server::commands::get::SmallFileReply;
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::server::session::request_log::{RequestLog, RequestOutcome};
use crate::server::session::responder::Responder;
use crate::server::transfer::coalescer::Coalescer;
use crate::server::transfer::running_transfers::TransferGuard;
use crate::storage::{View, VirtualPath};

/// Bytes of file data in a batch. A download after the limit is started on its own.
const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// A download that is not answered yet.
pub(crate) struct PendingDownload {
    pub(crate) id: u32,
    pub(crate) get: Get,
    pub(crate) log: RequestLog,
    pub(crate) transfer: TransferGuard,
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

/// The file of a download.
pub(crate) struct DownloadSource {
    pub(crate) view: View,
    pub(crate) path: VirtualPath,
}

/// The downloads of a session that wait for its worker.
#[derive(Default)]
pub(crate) struct DownloadQueue(Coalescer<(PendingDownload, DownloadSource)>);

impl DownloadQueue {
    /// Adds a download to the next batch.
    pub(crate) fn add(&self, download: PendingDownload, source: DownloadSource) {
        self.0.add((download, source));
    }

    /// Whether the caller must start a worker with [`Self::work`].
    pub(crate) fn claim_worker(&self) -> bool {
        self.0.claim_worker()
    }

    /// Reads and answers batches of small files until no download waits. Calls `start_large` for a
    /// download that does not fit into a batch.
    ///
    /// The worker needs no permit of the concurrent large downloads: a session has one worker, and
    /// small files do not wait for large ones.
    pub(crate) async fn work(
        &self,
        member: Member,
        responder: Responder,
        start_large: impl Fn(PendingDownload),
    ) {
        while let Some(batch) = self.0.next_batch(usize::MAX) {
            let answering = async {
                let ids: Vec<u32> = batch.iter().map(|(download, _)| download.id).collect();
                let reading = AssertUnwindSafe(read(batch, &member)).catch_unwind();
                let ReadBatch {
                    frames,
                    permits,
                    large,
                } = reading.await.unwrap_or_else(|_| ReadBatch::panicked(&ids));
                large.into_iter().for_each(&start_large);
                if !frames.is_empty() {
                    let _ = responder.outbox.send_encoded(frames.into()).await;
                }
                drop(permits);
            };
            if responder
                .session_ended
                .run_until_cancelled(answering)
                .await
                .is_none()
            {
                // The session drops the downloads that still wait.
                return;
            }
        }
    }
}

/// A small file, or `None` for a download that does not fit into a batch.
type BatchedFile = Result<Option<SmallFileReply>, CommandError>;

/// The outcome of a batch.
#[derive(Default)]
struct ReadBatch {
    /// The replies.
    frames: Vec<u8>,
    /// The permits of the requests, which are released once the frames are queued.
    permits: Vec<Option<OwnedSemaphorePermit>>,
    /// The downloads that do not fit into a batch.
    large: Vec<PendingDownload>,
}

impl ReadBatch {
    /// The replies to the downloads `ids`, which were lost in a panic.
    fn panicked(ids: &[u32]) -> Self {
        let error = WireError::from(&CommandError::Internal);
        let mut batch = Self::default();
        for &id in ids {
            put_control(&mut batch.frames, &encode_error(id, &error));
        }
        batch
    }

    fn add(&mut self, download: PendingDownload, outcome: Result<SmallFileReply, CommandError>) {
        self.permits
            .push(answer(download, outcome, &mut self.frames));
    }
}

/// Reads the files of a batch.
async fn read(batch: Vec<(PendingDownload, DownloadSource)>, member: &Member) -> ReadBatch {
    let (mut downloads, mut sources) = (Vec::new(), Vec::new());
    for (one, source) in batch {
        sources.push((one.get.clone(), source, one.transfer.cancel.clone()));
        downloads.push(one);
    }
    let read = member.disk.run(move || Ok(read_all(sources))).await;
    let mut outcomes = read.map(Vec::into_iter);
    let mut answered = ReadBatch::default();
    for one in downloads {
        let outcome = match &mut outcomes {
            Ok(outcomes) => outcomes.next().unwrap_or(Ok(None)),
            Err(CommandError::ShuttingDown) => Err(CommandError::ShuttingDown),
            Err(_) => Err(CommandError::Internal),
        };
        match outcome {
            Ok(None) => answered.large.push(one),
            Ok(Some(file)) => answered.add(one, Ok(file)),
            Err(error) => answered.add(one, Err(error)),
        }
    }
    answered
}

/// Reads the small files. It blocks on the disk.
fn read_all(sources: Vec<(Get, DownloadSource, CancellationToken)>) -> Vec<BatchedFile> {
    let mut bytes = 0;
    let read = sources.into_iter().map(|(get, source, cancel)| {
        if cancel.is_cancelled() {
            return Err(CommandError::Cancelled);
        }
        if bytes >= MAX_BATCH_BYTES {
            return Ok(None);
        }
        let file = commands::get_small(&source.view, source.path, &get)?;
        bytes += file.as_ref().map_or(0, |file| file.content.len());
        Ok(file)
    });
    read.collect()
}

/// Closes the log entry of a download and appends the frames of its replies.
fn answer(
    download: PendingDownload,
    outcome: Result<SmallFileReply, CommandError>,
    frames: &mut Vec<u8>,
) -> Option<OwnedSemaphorePermit> {
    let id = download.id;
    let mut bytes = 0;
    let reply = outcome.map(|file| {
        put_control(frames, &encode_begin(id, &file.begin));
        if !file.content.is_empty() {
            put_data_head(frames, id, file.content.len());
            frames.extend_from_slice(&file.content);
        }
        bytes = file.content.len() as u64;
        download.transfer.progress.add_moved(bytes);
        encode_ok(id, &file.reply)
    });
    put_control(
        frames,
        &download.log.close(RequestOutcome {
            reply,
            bytes,
            upload: None,
        }),
    );
    // The client may use the id again as soon as it has the reply.
    drop(download.transfer);
    download.permit
}
