//! An upload as its bytes come: written, made safe now and then, kept if it is cut off.

use std::iter;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

use crate::protocol::Digest;
use crate::server::disk::UserDisk;
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::server::transfer::hashing::MAX_HASH_TURN_BYTES;
use crate::server::transfer::registry::{PutPart, TransferGuard};
use crate::server::transfer::upload_registry::{ActiveUpload, SILENCE};
use crate::storage::{Checkpoint, Committed, StorageError, Upload};

/// How a put receives.
#[derive(Clone, Copy)]
pub(crate) struct UploadReceiver<'a> {
    pub(crate) member: &'a Member,
    pub(crate) underway: &'a TransferGuard,
    pub(crate) active: &'a ActiveUpload,
}

/// Bytes that are written in one go at most, if they come as fast as that.
const MAX_WRITE_BYTES: u64 = 2 * 1024 * 1024;

/// The next step of an upload.
enum ReceiveStep {
    Part(PutPart),
    CheckpointDue,
    Synced(Result<(), CommandError>),
    /// Nothing more will come.
    Stopped,
    /// Nothing has come for too long.
    Silent(Duration),
}

impl UploadReceiver<'_> {
    /// Reads back what was kept, so that the hash can go on from there.
    pub(crate) async fn read_back(
        self,
        mut upload: Box<Upload>,
    ) -> Result<Box<Upload>, CommandError> {
        let mut all = upload.written() == 0;
        // One at a time in each session; the turns are among sessions.
        let hashing_now = self.member.hashing.clone();
        let mut alone = None;
        while !all {
            let waiting = async {
                if alone.is_none() {
                    alone = hashing_now.acquire().await.ok();
                }
                self.member.disk.acquire_digest().await
            };
            let turn = tokio::select! {
                biased;
                () = self.stopped() => None,
                turn = waiting => turn.ok(),
            };
            let Some(turn) = turn else {
                // Data that has come for it cannot be written yet.
                return Err(self.stop(upload, UnwrittenChunks::default()).await);
            };
            let work = move || match upload.hash_prefix(MAX_HASH_TURN_BYTES) {
                Err(suspended @ StorageError::Suspended { .. }) => {
                    upload.keep()?;
                    Err(suspended)
                }
                all => Ok((upload, all?)),
            };
            (upload, all) = self.member.disk.run_with_grant(turn, work).await?;
            self.active.sign_of_life();
        }
        Ok(upload)
    }

    /// Waits until the user's bandwidth has room for what has come; `false` if the put is to end
    /// first. Waiting chunks hold the session's input budget, which stops the reader.
    async fn paced(&self, length: usize) -> bool {
        let mut pace = pin!(self.member.pace_up(length));
        loop {
            self.active.sign_of_life();
            tokio::select! {
                biased;
                () = self.stopped() => return false,
                () = &mut pace => return true,
                // As long as it waits for this, it is alive.
                () = sleep(SILENCE / 2) => {}
            }
        }
    }

    /// Takes the data of the upload until its end, and commits it. Answers with the digest that the
    /// client gave, too, and counts in `received` what came.
    pub(crate) async fn receive(
        self,
        mut upload: Box<Upload>,
        mut parts: mpsc::Receiver<PutPart>,
        received: &mut u64,
    ) -> Result<(Committed, Option<Digest>), CommandError> {
        let disk = &self.member.disk;
        let mut syncing = PendingSync(None);
        let mut heard = Instant::now();
        let mut next = None;
        loop {
            let turn = match next.take() {
                Some(part) if !self.is_stopped() => ReceiveStep::Part(part),
                _ => self.turn(&upload, &mut parts, &mut syncing, heard).await,
            };
            match turn {
                ReceiveStep::CheckpointDue => {
                    if let Some(checkpoint) = upload.begin_checkpoint() {
                        syncing.begin(checkpoint, disk);
                    }
                }
                ReceiveStep::Synced(Ok(())) => upload.checkpointed(),
                // After a failed sync the file cannot be trusted.
                ReceiveStep::Synced(Err(error)) => {
                    discard(upload, disk).await?;
                    return Err(error);
                }
                ReceiveStep::Part(PutPart::Chunk(chunk, room)) => {
                    if !self.paced(chunk.len()).await {
                        let rest = UnwrittenChunks::of(Some(chunk), parts);
                        *received += rest.length();
                        return Err(self.stop_synced(upload, rest, syncing).await);
                    }
                    let most = if self.member.is_paced() {
                        0
                    } else {
                        MAX_WRITE_BYTES
                    };
                    let before = upload.written();
                    let work = move || write(upload, (chunk, room), parts, most);
                    let wrote = disk.run(work).await?;
                    (upload, parts, next) = (wrote.upload, wrote.parts, wrote.next);
                    if let Some(suspended) = wrote.suspended {
                        return Err(self.keep_suspended(upload, syncing, suspended).await);
                    }
                    let came = upload.written() - before;
                    *received += came;
                    self.underway.progress.moves(came);
                    self.active.sign_of_life();
                    heard = Instant::now();
                }
                ReceiveStep::Part(PutPart::End(end, _permit)) => {
                    let synced = syncing.wait().await;
                    let end = match synced.and(end.map_err(CommandError::from)) {
                        Ok(end) => end,
                        Err(error) => {
                            discard(upload, disk).await?;
                            return Err(error);
                        }
                    };
                    let work = move || unless_suspended(upload)?.commit(end.digest);
                    let committed = disk.run(work).await?;
                    return Ok((committed, end.digest));
                }
                ReceiveStep::Stopped => {
                    let rest = UnwrittenChunks::of(None, parts);
                    *received += rest.length();
                    return Err(self.stop_synced(upload, rest, syncing).await);
                }
                ReceiveStep::Silent(patience) => {
                    self.stop_synced(upload, UnwrittenChunks::default(), syncing)
                        .await;
                    return Err(CommandError::SilentPut(patience));
                }
            }
        }
    }

    /// Cancel-safe: what is not returned comes at the next turn.
    async fn turn(
        self,
        upload: &Upload,
        parts: &mut mpsc::Receiver<PutPart>,
        syncing: &mut PendingSync,
        heard: Instant,
    ) -> ReceiveStep {
        let due = upload.checkpoint_due();
        if due == Some(Duration::ZERO) {
            return ReceiveStep::CheckpointDue;
        }
        tokio::select! {
            biased;
            () = self.stopped() => ReceiveStep::Stopped,
            done = syncing.done() => ReceiveStep::Synced(done),
            part = parts.recv() => part.map_or(ReceiveStep::Stopped, ReceiveStep::Part),
            () = sleep(due.unwrap_or_default()), if due.is_some() => ReceiveStep::CheckpointDue,
            patience = self.silent_since(heard) => ReceiveStep::Silent(patience),
        }
    }

    /// Resolves when no data has come for the idle timeout.
    pub(crate) async fn silent_since(self, heard: Instant) -> Duration {
        match self.member.shared.config().limits.idle_timeout {
            Some(patience) => {
                sleep_until(heard + patience).await;
                patience
            }
            None => std::future::pending().await,
        }
    }

    fn is_stopped(self) -> bool {
        self.underway.cancel.is_cancelled() || self.active.is_taken()
    }

    /// Resolves once nobody waits for this put any more.
    pub(crate) async fn stopped(self) {
        tokio::select! {
            () = self.underway.cancel.cancelled() => {}
            () = self.active.taken() => {}
        }
    }

    /// Keeps the upload for a resume while the access of its user is suspended, once no checkpoint is
    /// under way.
    async fn keep_suspended(
        self,
        upload: Box<Upload>,
        mut syncing: PendingSync,
        suspended: StorageError,
    ) -> CommandError {
        let disk = &self.member.disk;
        let kept = match syncing.wait().await {
            Ok(()) => disk.run(move || upload.keep().map(drop)).await,
            Err(error) => discard(upload, disk).await.and(Err(error)),
        };
        kept.err().unwrap_or_else(|| suspended.into())
    }

    /// As [`Self::stop`], once no checkpoint is under way.
    async fn stop_synced(
        self,
        upload: Box<Upload>,
        rest: UnwrittenChunks,
        mut syncing: PendingSync,
    ) -> CommandError {
        if let Err(error) = syncing.wait().await {
            let discarded = discard(upload, &self.member.disk).await;
            return discarded.err().unwrap_or(error);
        }
        self.stop(upload, rest).await
    }

    /// Keeps what came, unless it is unwanted, and says why the put ends.
    pub(crate) async fn stop(self, mut upload: Box<Upload>, rest: UnwrittenChunks) -> CommandError {
        let disk = &self.member.disk;
        let stopped = if self.underway.progress.is_unwanted() {
            discard(upload, disk).await
        } else {
            self.underway.progress.moves(rest.length());
            let work = move || {
                match rest.0.iter().try_for_each(|chunk| upload.write(chunk)) {
                    // Earlier data is complete.
                    Ok(()) | Err(StorageError::Suspended { .. }) => upload.keep().map(drop),
                    Err(error) => Err(error),
                }
            };
            disk.run(work).await
        };
        if let Err(error) = stopped
            && self.member.lines.allows(0)
        {
            warn!(name: "upload_not_kept", %error, "an upload that was cut off could not be kept");
        }
        self.reason()
    }

    /// Why a put ends that was stopped.
    pub(crate) fn reason(self) -> CommandError {
        if self.active.is_taken() {
            CommandError::TakenOver
        } else {
            CommandError::Cancelled
        }
    }
}

/// The data of a put whose connection has ended that is not written yet. It need not be sent again.
#[derive(Debug, Default)]
pub(crate) struct UnwrittenChunks(Vec<Bytes>);

impl UnwrittenChunks {
    /// The chunk that was taken last, if it was not written, and those that wait behind it.
    pub(crate) fn of(taken: Option<Bytes>, mut parts: mpsc::Receiver<PutPart>) -> Self {
        let waiting = iter::from_fn(|| match parts.try_recv() {
            Ok(PutPart::Chunk(chunk, _room)) => Some(chunk),
            _ => None,
        });
        Self(taken.into_iter().chain(waiting).collect())
    }

    fn length(&self) -> u64 {
        self.0.iter().map(|chunk| chunk.len() as u64).sum()
    }
}

/// The values that the disk thread hands back, and a part that it received but did not write.
struct WriteResult {
    upload: Box<Upload>,
    parts: mpsc::Receiver<PutPart>,
    next: Option<PutPart>,
    /// Why the last chunk was not written, where that says nothing against those before it.
    suspended: Option<StorageError>,
}

/// Writes a chunk, and other chunks that have arrived, up to a number of bytes.
fn write(
    mut upload: Box<Upload>,
    mut part: (Bytes, OwnedSemaphorePermit),
    mut parts: mpsc::Receiver<PutPart>,
    most: u64,
) -> Result<WriteResult, StorageError> {
    let end = upload.written() + most;
    let mut suspended = None;
    let next = loop {
        let (chunk, room) = part;
        match upload.write(&chunk) {
            Err(why @ StorageError::Suspended { .. }) => {
                suspended = Some(why);
                break None;
            }
            written => written?,
        }
        drop((chunk, room));
        if upload.written() >= end {
            break None;
        }
        part = match parts.try_recv() {
            Ok(PutPart::Chunk(chunk, room)) => (chunk, room),
            Ok(end) => break Some(end),
            Err(_) => break None,
        };
    };
    Ok(WriteResult {
        upload,
        parts,
        next,
        suspended,
    })
}

/// Keeps the upload for a resume if access is suspended, and returns the error.
fn unless_suspended(upload: Box<Upload>) -> Result<Box<Upload>, StorageError> {
    match upload.check_access() {
        Err(suspended @ StorageError::Suspended { .. }) => {
            upload.keep()?;
            Err(suspended)
        }
        _ => Ok(upload),
    }
}

/// Dropping an upload removes its file: not on an async thread.
async fn discard(upload: Box<Upload>, disk: &UserDisk) -> Result<(), CommandError> {
    let work = move || {
        drop(upload);
        Ok(())
    };
    disk.run(work).await
}

/// The checkpoint that is being made, if one is, while the upload goes on.
struct PendingSync(Option<JoinHandle<Result<(), CommandError>>>);

impl PendingSync {
    fn begin(&mut self, checkpoint: Checkpoint, disk: &UserDisk) {
        let disk = disk.clone();
        let work = async move { disk.run(move || checkpoint.run()).await };
        self.0 = Some(tokio::spawn(work));
    }

    /// Resolves when the running checkpoint ends; never if none runs.
    async fn done(&mut self) -> Result<(), CommandError> {
        let Some(task) = &mut self.0 else {
            return std::future::pending().await;
        };
        let done = task.await;
        self.0 = None;
        done.unwrap_or(Err(CommandError::Panicked))
    }

    /// Waits for the one that is being made.
    async fn wait(&mut self) -> Result<(), CommandError> {
        match self.0 {
            Some(_) => self.done().await,
            None => Ok(()),
        }
    }
}
