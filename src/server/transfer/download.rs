//! Small downloads: a worker reads consecutive downloads as a batch and sends one buffer of frames.
//!
//! Whether a file is small is known once it is open. A large one gets a task of its own.

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use crate::protocol::{Get, encode_begin, encode_ok, put_control, put_data_head};
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
        while let Some(batch) = self.0.next_batch() {
            let answering = async {
                let (frames, permits) = read(batch, &member, &start_large).await;
                if !frames.is_empty() {
                    let _ = responder.outbox.send_encoded(frames).await;
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

/// Reads the files of a batch. Returns the frames of the replies, and the permits of the requests, which
/// are released once the frames are queued.
async fn read(
    batch: Vec<(PendingDownload, DownloadSource)>,
    member: &Member,
    start_large: &impl Fn(PendingDownload),
) -> (Bytes, Vec<Option<OwnedSemaphorePermit>>) {
    let (mut downloads, mut sources) = (Vec::new(), Vec::new());
    for (one, source) in batch {
        sources.push((one.get.clone(), source, one.transfer.cancel.clone()));
        downloads.push(one);
    }
    let read = member.disk.run(move || Ok(read_all(sources))).await;
    let mut outcomes = read.map(Vec::into_iter);
    let (mut frames, mut permits) = (Vec::new(), Vec::new());
    for one in downloads {
        let outcome = match &mut outcomes {
            Ok(outcomes) => outcomes.next().unwrap_or(Ok(None)),
            Err(CommandError::ShuttingDown) => Err(CommandError::ShuttingDown),
            Err(_) => Err(CommandError::Panicked),
        };
        match outcome {
            Ok(None) => start_large(one),
            Ok(Some(file)) => permits.push(answer(one, Ok(file), &mut frames)),
            Err(error) => permits.push(answer(one, Err(error), &mut frames)),
        }
    }
    (frames.into(), permits)
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
        download.transfer.progress.moves(bytes);
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
