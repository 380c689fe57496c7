//! The writer of an upload whose data arrives in a channel: it writes the chunks, checkpoints them,
//! commits the upload at its `end`, and keeps it if the connection ends before.

use std::iter;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

use crate::protocol::{BadRequest, Digest, End};
use crate::server::disk::{OpenedFile, UserDisk};
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::server::transfer::hashing::MAX_HASH_SLICE_BYTES;
use crate::server::transfer::live_uploads::{LiveUpload, SILENCE_BEFORE_TAKEOVER};
use crate::server::transfer::running_checkpoint::RunningCheckpoint;
use crate::server::transfer::running_transfers::TransferGuard;
use crate::server::transfer::upload_channel::UploadPart;
use crate::storage::{Committed, StorageError, Upload};

/// Writes the data of one upload.
#[derive(Clone, Copy)]
pub(crate) struct UploadWriter<'a> {
    pub(crate) member: &'a Member,
    pub(crate) transfer: &'a TransferGuard,
    pub(crate) live: &'a LiveUpload,
}

/// Bytes that one run on a disk thread writes if that many have arrived. The last chunk may exceed it.
const TARGET_WRITE_BYTES: u64 = 2 * 1024 * 1024;

/// The next step of an upload.
enum WriteStep {
    Part(UploadPart),
    CheckpointDue,
    Checkpointed(Result<(), CommandError>),
    /// The upload was cancelled or taken over, or its connection has ended.
    Stopped,
    /// No data has come for the idle timeout.
    TimedOut(Duration),
}

impl UploadWriter<'_> {
    /// Reads back the bytes of a partial upload, so that hashing can continue after them.
    pub(crate) async fn read_back(
        self,
        mut upload: Box<Upload>,
    ) -> Result<Box<Upload>, CommandError> {
        let mut is_complete = upload.written() == 0;
        // A session hashes one file at a time; sessions share the digest permits.
        let hashing = self.member.hash_permit.clone();
        let mut session_permit = None;
        while !is_complete {
            let waiting = async {
                if session_permit.is_none() {
                    session_permit = hashing.acquire().await.ok();
                }
                self.member.disk.acquire_digest().await
            };
            let grant = tokio::select! {
                biased;
                () = self.stopped() => None,
                grant = waiting => grant.ok(),
            };
            let Some(grant) = grant else {
                // Data cannot be written before all earlier bytes are hashed.
                return Err(self.stop(upload, UnwrittenChunks::default()).await);
            };
            let work = move || match upload.hash_prefix(MAX_HASH_SLICE_BYTES) {
                Err(suspended @ StorageError::Suspended { .. }) => {
                    upload.keep()?;
                    Err(suspended)
                }
                hashed => Ok((upload, hashed?)),
            };
            (upload, is_complete) = self.member.disk.run_with_grant(grant, work).await?;
            self.live.record_activity();
        }
        Ok(upload)
    }

    /// Receives the data of the upload until its end, and commits it. Returns the digest of the `end`,
    /// too. Parts of `base` are copied where the client says so. Adds the received bytes to `received`.
    pub(crate) async fn receive(
        self,
        mut upload: Box<Upload>,
        base: Option<OpenedFile>,
        mut parts: mpsc::Receiver<UploadPart>,
        received: &mut u64,
    ) -> Result<(Committed, Option<Digest>), CommandError> {
        let disk = &self.member.disk;
        let mut checkpoint = RunningCheckpoint::default();
        let mut last_data_at = Instant::now();
        let mut next = None;
        loop {
            let waiting = (&mut next, &mut parts);
            let step = self.next_step(&upload, waiting, &mut checkpoint, last_data_at);
            match step.await {
                WriteStep::CheckpointDue => {
                    if let Some(due) = upload.begin_checkpoint() {
                        checkpoint.start(due, disk);
                    }
                }
                WriteStep::Checkpointed(Ok(())) => upload.checkpointed(),
                // After a failed sync the file cannot be trusted.
                WriteStep::Checkpointed(Err(error)) => {
                    discard(upload, disk).await?;
                    return Err(error);
                }
                WriteStep::Part(UploadPart::Chunk(chunk, permit)) => {
                    if !self.wait_for_bandwidth(chunk.len()).await {
                        let unwritten = UnwrittenChunks::of(Some(chunk), parts);
                        *received += unwritten.length();
                        return Err(self.stop_after(checkpoint, upload, unwritten).await);
                    }
                    let before = upload.written();
                    let written = self.write(upload, (chunk, permit), parts).await?;
                    (upload, parts, next) = (written.upload, written.parts, written.next);
                    if let Some(suspended) = written.suspended {
                        return Err(self.keep_suspended(upload, checkpoint, suspended).await);
                    }
                    *received += upload.written() - before;
                    self.transfer.progress.add_moved(upload.written() - before);
                    self.live.record_activity();
                    last_data_at = Instant::now();
                }
                WriteStep::Part(UploadPart::Copy(range)) => {
                    let copied = self.copy(upload, base.as_ref(), range).await?;
                    (upload, next) = (copied.upload, copied.rest.map(UploadPart::Copy));
                    if let Some(suspended) = copied.suspended {
                        return Err(self.keep_suspended(upload, checkpoint, suspended).await);
                    }
                    last_data_at = Instant::now();
                }
                WriteStep::Part(UploadPart::End(end, _permit)) => {
                    return self.end(upload, base, checkpoint, end).await;
                }
                WriteStep::Stopped => {
                    let unwritten = match next {
                        // The data behind an unfinished copy has no known position.
                        Some(_) => UnwrittenChunks::default(),
                        None => UnwrittenChunks::of(None, parts),
                    };
                    *received += unwritten.length();
                    return Err(self.stop_after(checkpoint, upload, unwritten).await);
                }
                WriteStep::TimedOut(idle_timeout) => {
                    let unwritten = UnwrittenChunks::default();
                    self.stop_after(checkpoint, upload, unwritten).await;
                    return Err(CommandError::SilentPut(idle_timeout));
                }
            }
        }
    }

    /// # Cancel safety
    /// Cancel safe: a part that is not returned is returned by the next call.
    async fn next_step(
        self,
        upload: &Upload,
        (next, parts): (&mut Option<UploadPart>, &mut mpsc::Receiver<UploadPart>),
        checkpoint: &mut RunningCheckpoint,
        last_data_at: Instant,
    ) -> WriteStep {
        let due = upload.checkpoint_due();
        let is_ending = matches!(next, Some(UploadPart::End(..)));
        if due == Some(Duration::ZERO) && !is_ending {
            return WriteStep::CheckpointDue;
        }
        let next_part = async {
            match next.take() {
                Some(part) => Some(part),
                None => parts.recv().await,
            }
        };
        tokio::select! {
            biased;
            () = self.stopped() => WriteStep::Stopped,
            done = checkpoint.done() => WriteStep::Checkpointed(done),
            part = next_part => part.map_or(WriteStep::Stopped, WriteStep::Part),
            () = sleep(due.unwrap_or_default()), if due.is_some() => WriteStep::CheckpointDue,
            timeout = self.idle_since(last_data_at) => WriteStep::TimedOut(timeout),
        }
    }

    /// Waits until the user's bandwidth allows `bytes`; `false` if the upload stops first. Waiting
    /// chunks hold the session's budget, which stops the reader.
    async fn wait_for_bandwidth(self, bytes: usize) -> bool {
        let mut throttle = pin!(self.member.throttle_upload(bytes));
        loop {
            self.live.record_activity();
            tokio::select! {
                biased;
                () = self.stopped() => return false,
                () = &mut throttle => return true,
                // An upload that waits for bandwidth is alive.
                () = sleep(SILENCE_BEFORE_TAKEOVER / 2) => {}
            }
        }
    }

    /// Writes a chunk, and other chunks that have arrived. With a bandwidth limit each chunk waits for
    /// itself.
    async fn write(
        self,
        upload: Box<Upload>,
        chunk: (Bytes, OwnedSemaphorePermit),
        parts: mpsc::Receiver<UploadPart>,
    ) -> Result<WriteResult, CommandError> {
        let target_bytes = if self.member.has_bandwidth_limit() {
            0
        } else {
            TARGET_WRITE_BYTES
        };
        let work = move || write_chunks(upload, chunk, parts, target_bytes);
        self.member.disk.run(work).await
    }

    /// Commits the upload, or discards it if its base has changed, its `end` was malformed or its last checkpoint failed.
    async fn end(
        self,
        upload: Box<Upload>,
        base: Option<OpenedFile>,
        mut checkpoint: RunningCheckpoint,
        end: Result<End, BadRequest>,
    ) -> Result<(Committed, Option<Digest>), CommandError> {
        let disk = &self.member.disk;
        let checkpointed = checkpoint.wait().await;
        let end = match checkpointed.and(end.map_err(CommandError::from)) {
            Ok(end) => end,
            Err(error) => {
                discard(upload, disk).await?;
                return Err(error);
            }
        };
        let read = base.map(|base| base.share());
        let work = move || {
            let upload = keep_unless_accessible(upload)?;
            if let Some(base) = read {
                base.check_unchanged()?;
            }
            upload.commit(end.digest)
        };
        Ok((disk.run(work).await?, end.digest))
    }

    /// Resolves when no data has come for the idle timeout, and returns it.
    pub(crate) async fn idle_since(self, last_data_at: Instant) -> Duration {
        match self.member.shared.config().limits.idle_timeout {
            Some(idle_timeout) => {
                sleep_until(last_data_at + idle_timeout).await;
                idle_timeout
            }
            None => std::future::pending().await,
        }
    }

    /// Resolves once the upload is cancelled or taken over, or its session has ended.
    pub(crate) async fn stopped(self) {
        tokio::select! {
            () = self.transfer.cancel.cancelled() => {}
            () = self.live.taken_over() => {}
        }
    }

    /// Keeps the upload for a resume while the access of its user is suspended, once no checkpoint
    /// runs.
    async fn keep_suspended(
        self,
        upload: Box<Upload>,
        mut checkpoint: RunningCheckpoint,
        suspended: StorageError,
    ) -> CommandError {
        let disk = &self.member.disk;
        let kept = match checkpoint.wait().await {
            Ok(()) => disk.run(move || upload.keep().map(drop)).await,
            Err(error) => discard(upload, disk).await.and(Err(error)),
        };
        kept.err().unwrap_or_else(|| suspended.into())
    }

    /// As [`Self::stop`], once no checkpoint runs.
    async fn stop_after(
        self,
        mut checkpoint: RunningCheckpoint,
        upload: Box<Upload>,
        unwritten: UnwrittenChunks,
    ) -> CommandError {
        if let Err(error) = checkpoint.wait().await {
            let discarded = discard(upload, &self.member.disk).await;
            return discarded.err().unwrap_or(error);
        }
        self.stop(upload, unwritten).await
    }

    /// Keeps the received data, unless it is unwanted, and returns the reason of the stop.
    pub(crate) async fn stop(
        self,
        mut upload: Box<Upload>,
        unwritten: UnwrittenChunks,
    ) -> CommandError {
        let disk = &self.member.disk;
        let stopped = if self.transfer.progress.is_discarded_on_stop() {
            discard(upload, disk).await
        } else {
            self.transfer.progress.add_moved(unwritten.length());
            let work = move || {
                match unwritten.0.iter().try_for_each(|chunk| upload.write(chunk)) {
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
        self.stop_reason()
    }

    /// The reason why an upload was stopped.
    pub(crate) fn stop_reason(self) -> CommandError {
        if self.live.is_taken_over() {
            CommandError::TakenOver
        } else {
            CommandError::Cancelled
        }
    }
}

/// The received data of an upload that has stopped, as far as it is not written. Data that is kept
/// need not be sent again.
#[derive(Debug, Default)]
pub(crate) struct UnwrittenChunks(Vec<Bytes>);

impl UnwrittenChunks {
    /// The `first` chunk, if it was received but not written, and those that wait in the channel.
    pub(crate) fn of(first: Option<Bytes>, mut parts: mpsc::Receiver<UploadPart>) -> Self {
        let waiting = iter::from_fn(|| match parts.try_recv() {
            Ok(UploadPart::Chunk(chunk, _permit)) => Some(chunk),
            _ => None,
        });
        Self(first.into_iter().chain(waiting).collect())
    }

    fn length(&self) -> u64 {
        self.0.iter().map(|chunk| chunk.len() as u64).sum()
    }
}

/// The values that the disk thread hands back, and a part that it received but did not write.
struct WriteResult {
    upload: Box<Upload>,
    parts: mpsc::Receiver<UploadPart>,
    next: Option<UploadPart>,
    /// Why the last chunk was not written, if the chunks before it can still be kept.
    suspended: Option<StorageError>,
}

/// Writes a chunk, and other chunks that have arrived, until there are `target_bytes` or none waits.
fn write_chunks(
    mut upload: Box<Upload>,
    mut chunk: (Bytes, OwnedSemaphorePermit),
    mut parts: mpsc::Receiver<UploadPart>,
    target_bytes: u64,
) -> Result<WriteResult, StorageError> {
    let target = upload.written() + target_bytes;
    let mut suspended = None;
    let next = loop {
        let (bytes, permit) = chunk;
        match upload.write(&bytes) {
            Err(error @ StorageError::Suspended { .. }) => {
                suspended = Some(error);
                break None;
            }
            written => written?,
        }
        drop((bytes, permit));
        if upload.written() >= target {
            break None;
        }
        chunk = match parts.try_recv() {
            Ok(UploadPart::Chunk(bytes, permit)) => (bytes, permit),
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
fn keep_unless_accessible(upload: Box<Upload>) -> Result<Box<Upload>, StorageError> {
    match upload.check_access() {
        Err(suspended @ StorageError::Suspended { .. }) => {
            upload.keep()?;
            Err(suspended)
        }
        _ => Ok(upload),
    }
}

/// Drops an upload, which removes its file, on a disk thread.
pub(crate) async fn discard(upload: Box<Upload>, disk: &UserDisk) -> Result<(), CommandError> {
    let work = move || {
        drop(upload);
        Ok(())
    };
    disk.run(work).await
}
