//! `put`: a file from the client, whole under its name or not there at all.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::connection::Outbox;
use crate::protocol::{Digest, IfExists, Put, PutBegin, PutReply, encode_begin, encode_ok};
use crate::server::CommandError;
use crate::server::disk::Disk;
use crate::server::job::Outcome;
use crate::server::member::Member;
use crate::server::transfers::PutPart;
use crate::storage::{Upload, UploadOptions};

/// Takes the data of put `id` from `parts` until its end.
pub(in crate::server) async fn put(
    id: u32,
    put: Put,
    member: &Member,
    outbox: &Outbox,
    mut parts: mpsc::Receiver<PutPart>,
    cancel: &CancellationToken,
) -> Outcome {
    let mut received = 0;
    let work = async {
        let asked = put.digest;
        let mut upload = open(put, member).await?;
        let begin = PutBegin {
            offset: 0,
            upload: upload.id().to_owned(),
            prefix: None,
        };
        if let Err(closed) = outbox.send(encode_begin(id, &begin)).await {
            discard(upload, &member.disk).await?;
            return Err(closed.into());
        }
        loop {
            let next = next_part(&mut parts, member);
            let part = cancel.run_until_cancelled(next).await.flatten();
            match part {
                Some(PutPart::Chunk(chunk, room)) => {
                    received += chunk.len() as u64;
                    let work = move || {
                        upload.write(&chunk)?;
                        drop(room);
                        Ok(upload)
                    };
                    upload = member.disk.run(work).await?;
                }
                Some(PutPart::End(end, _permit)) => {
                    let mut reply = commit(upload, end.digest, &member.disk).await?;
                    if asked.is_none() {
                        // It was compared, so it is the file's in the client's own algorithm.
                        reply.digest = end.digest.unwrap_or(reply.digest);
                    }
                    return Ok(encode_ok(id, &reply));
                }
                None => {
                    discard(upload, &member.disk).await?;
                    return Err(CommandError::Cancelled);
                }
            }
        }
    };
    let reply = work.await;
    Outcome {
        reply,
        bytes: received,
    }
}

/// The next part, once the user's bandwidth has room for it. What waits here takes up the session's
/// room for data, so that in the end the server reads no more.
async fn next_part(parts: &mut mpsc::Receiver<PutPart>, member: &Member) -> Option<PutPart> {
    let part = parts.recv().await;
    if let Some(PutPart::Chunk(chunk, _)) = &part {
        member.pace_up(chunk.len()).await;
    }
    part
}

async fn open(put: Put, member: &Member) -> Result<Upload, CommandError> {
    let path = member.resolve(&put.path)?;
    let options = UploadOptions {
        size: put.size,
        if_exists: put.if_exists.unwrap_or(IfExists::Replace),
        modified: put.modified,
        parents: put.parents,
        algorithm: put.digest.unwrap_or_default(),
    };
    member
        .with_view(move |view| view.upload(&path, options))
        .await
}

async fn commit(
    upload: Upload,
    expected: Option<Digest>,
    disk: &Disk,
) -> Result<PutReply, CommandError> {
    let committed = disk.run(move || upload.commit(expected)).await?;
    Ok(PutReply {
        path: committed.path.to_string(),
        size: committed.size,
        digest: committed.digest,
        version: committed.version,
    })
}

/// Dropping an upload removes its file: not on an async thread.
async fn discard(upload: Upload, disk: &Disk) -> Result<(), CommandError> {
    let work = move || {
        drop(upload);
        Ok(())
    };
    disk.run(work).await
}
