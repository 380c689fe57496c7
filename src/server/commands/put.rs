//! `put`: a file from the client, whole under its name or not there at all.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::time::Instant;

use crate::connection::Outbox;
use crate::protocol::{Digest, IfExists, Put, PutBegin, PutReply, encode_begin, encode_ok};
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::server::session::request_log::RequestOutcome;
use crate::server::transfer::registry::{PutPart, PutReceiver, TransferGuard};
use crate::server::transfer::upload::{UnwrittenChunks, UploadReceiver};
use crate::server::transfer::upload_registry::UploadKey;
use crate::storage::{
    AlreadyCommitted, BegunUpload, BufferedUpload, Committed, UploadOptions, VirtualPath,
};

/// Takes the data of put `id` until its end.
pub(crate) async fn put(
    id: u32,
    put: Put,
    member: &Member,
    outbox: &Outbox,
    incoming: PutReceiver,
    underway: &TransferGuard,
) -> RequestOutcome {
    let (mut received, mut named) = (0, None);
    let work = async {
        let path = member.resolve(&put.path)?;
        let key = UploadKey::new(member.authority.id, &path, put.size);
        let puts = &member.shared.uploads;
        let taking = async { put.resume && puts.take_over(&key, &member.session).await };
        // After a disconnect there is nothing to take over, and nothing of this put to keep: its client
        // does not know the offset before `begin`, so data that it sent has no known position.
        let resume = tokio::select! {
            biased;
            resume = taking => resume,
            () = underway.cancel.cancelled() => return Err(CommandError::Cancelled),
        };
        if underway.cancel.is_cancelled() && underway.progress.is_unwanted() {
            return Err(CommandError::Cancelled);
        }
        let active = puts.register(key, &member.session, &member.gone);
        // The session must not stop reading for this upload, so it fails instead of waiting.
        let _descriptors = member.disk.try_acquire_file()?;
        let putting = PutInProgress {
            id,
            outbox,
            reception: UploadReceiver {
                member,
                underway,
                active: &active,
            },
        };
        let (committed, given) = match open(path, &put, member, resume).await? {
            BegunUpload::Upload(upload) => {
                named = Some(upload.id().to_owned());
                let upload = putting.reception.read_back(upload).await?;
                let (offset, prefix) = (upload.written(), upload.prefix());
                underway.progress.begins(put.size, offset);
                let begun = putting.begin(&incoming, upload.id(), offset, prefix);
                if let Err(closed) = begun.await {
                    let rest = UnwrittenChunks::of(None, incoming.parts);
                    putting.reception.stop(upload, rest).await;
                    return Err(closed);
                }
                let receiving = putting.reception;
                receiving
                    .receive(upload, incoming.parts, &mut received)
                    .await?
            }
            BegunUpload::AlreadyThere(there) => {
                named = Some(there.id().to_owned());
                putting.confirm(there, incoming).await?
            }
        };
        let mut reply = put_reply(committed);
        if put.digest.is_none() {
            // The digest of `end` was verified, so the reply uses its algorithm.
            reply.digest = given.unwrap_or(reply.digest);
        }
        Ok(encode_ok(id, &reply))
    };
    let reply = Box::pin(work).await;
    RequestOutcome {
        reply,
        bytes: received,
        upload: named,
    }
}

/// A registered upload.
struct PutInProgress<'a> {
    id: u32,
    outbox: &'a Outbox,
    reception: UploadReceiver<'a>,
}

impl PutInProgress<'_> {
    /// Says what the client need not send.
    async fn begin(
        &self,
        incoming: &PutReceiver,
        upload: &str,
        offset: u64,
        prefix: Option<Digest>,
    ) -> Result<(), CommandError> {
        incoming.offset.store(offset, Ordering::Relaxed);
        let begin = PutBegin {
            offset,
            upload: upload.to_owned(),
            prefix,
        };
        Ok(self.outbox.send(encode_begin(self.id, &begin)).await?)
    }

    /// Waits for the end of a put whose file is there already, and answers it as the first was.
    async fn confirm(
        &self,
        there: Box<AlreadyCommitted>,
        mut incoming: PutReceiver,
    ) -> Result<(Committed, Option<Digest>), CommandError> {
        let disk = &self.reception.member.disk;
        let prefix = Some(there.digest());
        let begun = self
            .begin(&incoming, there.id(), there.size(), prefix)
            .await;
        let part = match begun {
            Ok(()) => tokio::select! {
                biased;
                () = self.reception.stopped() => None,
                part = incoming.parts.recv() => part,
                patience = self.reception.silent_since(Instant::now()) => {
                    return Err(CommandError::SilentPut(patience));
                }
            },
            Err(_) => None,
        };
        let work = move || match part {
            Some(PutPart::End(Ok(end), _permit)) => {
                let committed = there.confirm(end.digest)?;
                Ok(Ok((committed, end.digest)))
            }
            Some(PutPart::End(Err(bad), _permit)) => Ok(Err(Some(bad))),
            Some(PutPart::Chunk(chunk, _)) => Err(there.size_exceeded(chunk.len() as u64)),
            None => Ok(Err(None)),
        };
        let confirmed = disk.run(work).await?;
        confirmed.map_err(|bad| match bad {
            Some(malformed_end) => malformed_end.into(),
            None => self.reception.reason(),
        })
    }
}

async fn open(
    path: VirtualPath,
    put: &Put,
    member: &Member,
    resume: bool,
) -> Result<BegunUpload, CommandError> {
    let options = options(put);
    let session = member.session.clone();
    member
        .with_counted_view(move |view| view.begin(&path, options, &session, resume))
        .await
}

fn options(put: &Put) -> UploadOptions {
    UploadOptions {
        size: put.size,
        if_exists: put.if_exists.unwrap_or(IfExists::Replace),
        modified: put.modified,
        parents: put.parents,
        algorithm: put.digest.unwrap_or_default(),
    }
}

/// A put whose data is all there.
pub(crate) fn small_upload(
    path: VirtualPath,
    put: &Put,
    content: Vec<Bytes>,
    expected: Option<Digest>,
) -> BufferedUpload {
    BufferedUpload {
        path,
        options: options(put),
        content,
        expected,
    }
}

/// The reply to a put whose file is in its place.
pub(crate) fn put_reply(committed: Committed) -> PutReply {
    PutReply {
        path: committed.path.to_string(),
        size: committed.size,
        digest: committed.digest,
        version: committed.version,
    }
}
