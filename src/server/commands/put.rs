//! `put`: a file from the client, whole under its name or not there at all.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use crate::connection::Outbox;
use crate::protocol::{Digest, Put, PutBegin, encode_begin, encode_ok};
use crate::server::disk::OpenedFile;
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::server::session::request_log::RequestOutcome;
use crate::server::transfer::live_uploads::UploadKey;
use crate::server::transfer::pending_upload::{put_reply, upload_options};
use crate::server::transfer::running_transfers::TransferGuard;
use crate::server::transfer::upload_channel::{UploadPart, UploadReceiver};
use crate::server::transfer::upload_writer::{UnwrittenChunks, UploadWriter};
use crate::storage::{
    AlreadyCommitted, BegunUpload, Committed, StorageError, StoredFile, View, VirtualPath,
};

/// Receives the data of put `id` until its end, and commits the file.
pub(crate) async fn put(
    id: u32,
    put: Put,
    member: &Member,
    outbox: &Outbox,
    receiver: UploadReceiver,
    transfer: &TransferGuard,
) -> RequestOutcome {
    let (mut bytes, mut upload_id) = (0, None);
    let work = async {
        let path = member.resolve(&put.path)?;
        let key = UploadKey::new(member.authority.id, &path, put.size);
        let live_uploads = &member.shared.live_uploads;
        let taking_over =
            async { put.resume && live_uploads.take_over(&key, &member.session).await };
        // After a disconnect there is nothing to take over, and nothing of this put to keep: its client
        // does not know the offset before `begin`, so data that it sent has no known position.
        let resume = tokio::select! {
            biased;
            resume = taking_over => resume,
            () = transfer.cancel.cancelled() => return Err(CommandError::Cancelled),
        };
        if transfer.cancel.is_cancelled() && transfer.progress.is_discarded_on_stop() {
            return Err(CommandError::Cancelled);
        }
        let live = live_uploads.register(key, &member.session, &member.peer_left);
        // The session must not stop reading for this upload, so it fails instead of waiting.
        let _descriptors = member.disk.try_acquire_file()?;
        let upload = OpenPut {
            id,
            outbox,
            writer: UploadWriter {
                member,
                transfer,
                live: &live,
            },
        };
        let (begun, base) = begin(path, &put, member, resume).await?;
        upload_id = Some(begun.id().to_owned());
        let (committed, end_digest) = match begun {
            BegunUpload::Upload(staged) => {
                let writer = upload.writer;
                let staged = writer.read_back(staged).await?;
                let (offset, prefix) = (staged.written(), staged.prefix());
                transfer.progress.set_start(put.size, offset);
                let begun = upload.send_begin(&receiver, staged.id(), offset, prefix);
                if let Err(closed) = begun.await {
                    let unwritten = UnwrittenChunks::of(None, receiver.parts);
                    writer.stop(staged, unwritten).await;
                    return Err(closed);
                }
                let parts = receiver.parts;
                writer.receive(staged, base, parts, &mut bytes).await?
            }
            BegunUpload::AlreadyCommitted(found) => upload.confirm(found, receiver).await?,
        };
        let end_digest = end_digest.filter(|_| put.digest.is_none());
        Ok(encode_ok(id, &put_reply(committed, end_digest)))
    };
    let reply = Box::pin(work).await;
    RequestOutcome {
        reply,
        bytes,
        upload: upload_id,
    }
}

/// A put that is registered as a live upload.
struct OpenPut<'a> {
    id: u32,
    outbox: &'a Outbox,
    writer: UploadWriter<'a>,
}

impl OpenPut<'_> {
    /// Tells the client the first byte that it has to send.
    async fn send_begin(
        &self,
        receiver: &UploadReceiver,
        upload: &str,
        offset: u64,
        prefix: Option<Digest>,
    ) -> Result<(), CommandError> {
        receiver.offset.store(offset, Ordering::Relaxed);
        let begin = PutBegin {
            offset,
            upload: upload.to_owned(),
            prefix,
        };
        Ok(self.outbox.send(encode_begin(self.id, &begin)).await?)
    }

    /// Waits for the end of a put whose file was committed before, and answers it as the first.
    async fn confirm(
        &self,
        found: Box<AlreadyCommitted>,
        mut receiver: UploadReceiver,
    ) -> Result<(Committed, Option<Digest>), CommandError> {
        let disk = &self.writer.member.disk;
        let prefix = Some(found.digest());
        let begun = self.send_begin(&receiver, found.id(), found.size(), prefix);
        let part = match begun.await {
            Ok(()) => tokio::select! {
                biased;
                () = self.writer.stopped() => None,
                part = receiver.parts.recv() => part,
                idle_timeout = self.writer.idle_since(Instant::now()) => {
                    return Err(CommandError::SilentPut(idle_timeout));
                }
            },
            Err(_) => None,
        };
        let work = move || match part {
            Some(UploadPart::End(Ok(end), _permit)) => {
                let committed = found.confirm(end.digest)?;
                Ok(Ok((committed, end.digest)))
            }
            Some(UploadPart::End(Err(bad), _permit)) => Ok(Err(Some(bad))),
            Some(UploadPart::Copy(range)) => Err(found.size_exceeded(range.end - range.start)),
            Some(UploadPart::Chunk(chunk, _)) => Err(found.size_exceeded(chunk.len() as u64)),
            None => Ok(Err(None)),
        };
        let confirmed = disk.run(work).await?;
        confirmed.map_err(|bad| match bad {
            Some(malformed_end) => malformed_end.into(),
            None => self.writer.stop_reason(),
        })
    }
}

/// Begins the upload, and opens the base that the put names.
async fn begin(
    path: VirtualPath,
    put: &Put,
    member: &Member,
    resume: bool,
) -> Result<(BegunUpload, Option<OpenedFile>), CommandError> {
    let options = upload_options(put);
    let session = member.session.clone();
    let Some(version) = put.base.clone() else {
        let work = move |view: &View| view.begin(&path, options, &session, resume);
        return Ok((member.with_counted_view(work).await?, None));
    };
    let descriptors = member.disk.try_acquire_file()?;
    let begun = member.with_counted_view(move |view| {
        match view.begin(&path, options, &session, resume)? {
            BegunUpload::Upload(upload) => match open_base(view, &path, &version) {
                Ok(base) => Ok((BegunUpload::Upload(upload), Some(base))),
                Err(error) => {
                    // The client sends the whole file instead, and may resume this upload with it.
                    upload.keep()?;
                    Err(error)
                }
            },
            found @ BegunUpload::AlreadyCommitted(_) => Ok((found, None)),
        }
    });
    let (begun, base) = begun.await?;
    let base = base.map(|base| OpenedFile::new(base, member.disk.clone(), descriptors));
    Ok((begun, base))
}

/// Opens the base of a put. A file that is gone has changed, too.
fn open_base(view: &View, path: &VirtualPath, version: &str) -> Result<StoredFile, StorageError> {
    match view.open(path, Some(version)) {
        Err(StorageError::NotFound { .. }) => Err(StorageError::changed(path)),
        opened => opened,
    }
}
