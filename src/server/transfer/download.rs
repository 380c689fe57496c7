//! Gets that were asked for one behind the other: small files are read together and leave together.
//!
//! Nothing waits for more to come. While some are read the next gather; what turns out to be large
//! goes its own way.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::connection::Outbox;
use crate::protocol::{Get, encode_begin, encode_ok, put_control, put_data_head};
use crate::server::commands;
use crate::server::commands::get::SmallFileReply;
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::server::session::request_log::{RequestLog, RequestOutcome};
use crate::server::transfer::registry::TransferGuard;
use crate::storage::{View, VirtualPath};

/// Bytes that are read before something is sent. What comes then goes its own way.
const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// A get that is not answered yet.
pub(crate) struct PendingDownload {
    pub(crate) id: u32,
    pub(crate) get: Get,
    pub(crate) job: RequestLog,
    pub(crate) underway: TransferGuard,
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

/// Where a get finds its file.
pub(crate) struct DownloadSource {
    pub(crate) view: View,
    pub(crate) path: VirtualPath,
}

/// Where answers go, and until when. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Responder {
    pub(crate) outbox: Outbox,
    pub(crate) gone: CancellationToken,
    /// Bounds the gets that send bit by bit at once.
    pub(crate) sending: Arc<Semaphore>,
}

/// The gets of a session that nobody works on yet.
#[derive(Default)]
pub(crate) struct DownloadCoalescer(Mutex<DownloadQueueState>);

#[derive(Default)]
struct DownloadQueueState {
    waiting: Vec<(PendingDownload, DownloadSource)>,
    working: bool,
}

impl DownloadCoalescer {
    pub(crate) fn add(&self, asked: PendingDownload, place: DownloadSource) {
        self.lock().waiting.push((asked, place));
    }

    /// Whether some wait and nobody works on them; whoever asks is to do so then.
    pub(crate) fn wants_worker(&self) -> bool {
        let mut state = self.lock();
        let wanted = !state.working && !state.waiting.is_empty();
        state.working |= wanted;
        wanted
    }

    /// All that wait, for the one who works on them; none if that is over.
    fn take(&self) -> Vec<(PendingDownload, DownloadSource)> {
        let mut state = self.lock();
        state.working = !state.waiting.is_empty();
        std::mem::take(&mut state.waiting)
    }

    fn lock(&self) -> MutexGuard<'_, DownloadQueueState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads and answers until none wait. What is large is given to `alone`.
    ///
    /// It takes no turn among the gets that send at once: there is one such worker in a session,
    /// and what is small does not wait for what is large.
    pub(crate) async fn work(
        &self,
        member: Member,
        out: Responder,
        alone: impl Fn(PendingDownload),
    ) {
        loop {
            let waiting = self.take();
            if waiting.is_empty() {
                return;
            }
            let answering = async {
                let (frames, permits) = read(waiting, &member, &alone).await;
                if !frames.is_empty() {
                    let _ = out.outbox.send_encoded(frames).await;
                }
                drop(permits);
            };
            if out.gone.run_until_cancelled(answering).await.is_none() {
                // What gathers now is dropped with the session.
                return;
            }
        }
    }
}

/// What has become of a get: its file, or nothing if it is to go its own way.
type Read = Result<Option<SmallFileReply>, CommandError>;

/// The answers, encoded, and what the requests hold until those have left.
async fn read(
    waiting: Vec<(PendingDownload, DownloadSource)>,
    member: &Member,
    alone: &impl Fn(PendingDownload),
) -> (Bytes, Vec<Option<OwnedSemaphorePermit>>) {
    let (mut asked, mut wanted) = (Vec::new(), Vec::new());
    for (one, place) in waiting {
        wanted.push((one.get.clone(), place, one.underway.cancel.clone()));
        asked.push(one);
    }
    let read = member.disk.run(move || Ok(read_all(wanted))).await;
    let mut outcomes = read.map(Vec::into_iter);
    let (mut frames, mut permits) = (Vec::new(), Vec::new());
    for one in asked {
        let outcome = match &mut outcomes {
            Ok(outcomes) => outcomes.next().unwrap_or(Ok(None)),
            Err(CommandError::ShuttingDown) => Err(CommandError::ShuttingDown),
            Err(_) => Err(CommandError::Panicked),
        };
        match outcome {
            Ok(None) => alone(one),
            Ok(Some(file)) => permits.push(answer(one, Ok(file), &mut frames)),
            Err(error) => permits.push(answer(one, Err(error), &mut frames)),
        }
    }
    (frames.into(), permits)
}

/// To be run where blocking is allowed.
fn read_all(wanted: Vec<(Get, DownloadSource, CancellationToken)>) -> Vec<Read> {
    let mut bytes = 0;
    let read = wanted.into_iter().map(|(get, place, cancel)| {
        if cancel.is_cancelled() {
            return Err(CommandError::Cancelled);
        }
        if bytes >= MAX_BATCH_BYTES {
            return Ok(None);
        }
        let file = commands::get_small(&place.view, place.path, &get)?;
        bytes += file.as_ref().map_or(0, |file| file.content.len());
        Ok(file)
    });
    read.collect()
}

/// Writes the line in the log and adds the frames of the answer.
fn answer(
    asked: PendingDownload,
    outcome: Result<SmallFileReply, CommandError>,
    frames: &mut Vec<u8>,
) -> Option<OwnedSemaphorePermit> {
    let id = asked.id;
    let mut bytes = 0;
    let reply = outcome.map(|file| {
        put_control(frames, &encode_begin(id, &file.begin));
        if !file.content.is_empty() {
            put_data_head(frames, id, file.content.len());
            frames.extend_from_slice(&file.content);
        }
        bytes = file.content.len() as u64;
        asked.underway.progress.moves(bytes);
        encode_ok(id, &file.reply)
    });
    put_control(
        frames,
        &asked.job.close(RequestOutcome {
            reply,
            bytes,
            upload: None,
        }),
    );
    // The client may use the id again as soon as it has the reply.
    drop(asked.underway);
    asked.permit
}
