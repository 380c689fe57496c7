//! The upload of one file, over as many connections as it takes.

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::client::session::CurrentConnection;
use crate::client::transfer::blocking::{blocking, joined};
use crate::client::transfer::options::{FileOptions, QUEUED_CHUNKS};
use crate::client::transfer::progress::FileProgress;
use crate::client::transfer::source::LocalFile;
use crate::client::{Client, ClientError, Progress, PutOptions, Session, UploadStream};
use crate::connection::SHORT_CHUNK_BYTES;
use crate::protocol::{Digest, ErrorCode, Hasher, IfExists, PutReply, WireError};

/// Files of at least this size are resumed if an earlier run was interrupted. For smaller ones the round
/// trip costs more than the bytes.
pub(crate) const MIN_RESUME_BYTES: u64 = 1024 * 1024;

/// The state of an upload.
struct FileUpload<'a> {
    session: &'a Session,
    remote: &'a str,
    options: FileOptions,
    /// `None` while a blocking thread reads it.
    source: Option<LocalFile>,
    /// Resume after the bytes that the server has.
    resume: bool,
    /// The number of bytes that were compared with the server's, and the hasher after them.
    compared: (u64, Hasher),
    progress: FileProgress,
}

impl Session {
    /// Puts `source`, which was found with `found` bytes. With `repeated` an earlier request for it may
    /// have succeeded although its reply did not arrive.
    pub(crate) async fn send(
        &self,
        source: LocalFile,
        remote: &str,
        found: u64,
        options: FileOptions,
        progress: &Progress,
        repeated: bool,
    ) -> Result<PutReply, ClientError> {
        let size = source.size;
        // With another action, a file of that name may be a result of this upload or an older file.
        let replaces = options.if_exists.unwrap_or(IfExists::Replace) == IfExists::Replace;
        let is_resumable = replaces && size.is_some_and(|size| size >= MIN_RESUME_BYTES);
        let resume = is_resumable || repeated && size.is_some();
        let pipe = (!source.is_file()).then(|| source.path().to_owned());
        let mut file = progress.file(found).named(remote);
        if let Some(size) = size {
            file.expect(size);
        }
        let mut upload = FileUpload {
            session: self,
            remote,
            options,
            source: Some(source),
            resume,
            compared: (0, Hasher::new(options.algorithm)),
            progress: file,
        };
        let _resumable = resume.then(|| self.resumable_upload());
        let mut budget = self.retry_budget(progress);
        loop {
            let current = self.current();
            let compared = upload.compared.0;
            let error = match upload.attempt(&current).await {
                Ok(reply) => {
                    self.note_success();
                    progress.finished_file();
                    return Ok(reply);
                }
                Err(ClientError::Server(error)) => refusal(error, remote, size),
                Err(error) => error,
            };
            if upload.compared.0 > compared {
                budget.note_advance();
            }
            match (&pipe, error) {
                (Some(pipe), ClientError::Lost(lost)) => {
                    let (pipe, lost) = (pipe.clone(), Box::new(lost));
                    return Err(ClientError::PipeLost { pipe, lost });
                }
                (Some(_), error) => return Err(error),
                (None, error) => budget.wait_after(&current, error).await?,
            }
            upload.resume = size.is_some();
        }
    }
}

/// The error for the server's refusal of a file.
pub(crate) fn refusal(error: WireError, remote: &str, size: Option<u64>) -> ClientError {
    if matches!(error.code, ErrorCode::QuotaExceeded | ErrorCode::NoSpace) {
        return ClientError::NoSpace {
            path: remote.to_owned(),
            size,
            error: Box::new(error),
        };
    }
    ClientError::Server(error)
}

impl FileUpload<'_> {
    /// Sends the bytes that the server does not have, over this connection.
    async fn attempt(&mut self, current: &CurrentConnection) -> Result<PutReply, ClientError> {
        let mut upload = self.begin(&current.client).await?;
        let mut hasher = Hasher::new(self.options.algorithm);
        let mut offset = 0;
        if self.resume {
            if let Some(compared) = self.compare(&mut upload).await? {
                (offset, hasher) = compared;
                upload.continue_at(offset, hasher.clone());
            } else {
                // The server has a part of another content.
                upload.cancel().await?;
                self.resume = false;
                upload = self.begin(&current.client).await?;
            }
        }
        self.progress.go_to(offset);
        let digest = self.send_from(offset, hasher, &mut upload).await?;
        upload.finish_with(digest).await
    }

    /// Takes `&mut self` because a pipe is not `Sync`.
    async fn begin(&mut self, client: &Client) -> Result<UploadStream, ClientError> {
        let keeps_modes = client.has_feature("mode");
        let source = self.source.as_ref().ok_or(ClientError::TransferEnded)?;
        let options = PutOptions {
            size: source.size,
            if_exists: self.options.if_exists,
            modified: source.modified,
            mode: source.mode.filter(|_| keeps_modes),
            parents: self.options.parents,
            algorithm: self.options.algorithm,
            resume: self.resume,
        };
        client.put(self.remote, options).await
    }

    /// Compares the server's part with the file. Returns the offset to continue at with the hasher after the
    /// bytes before it, or `None` if they differ.
    async fn compare(
        &mut self,
        upload: &mut UploadStream,
    ) -> Result<Option<(u64, Hasher)>, ClientError> {
        let begin = upload.begun().await?;
        let fresh = Hasher::new(self.options.algorithm);
        let source = self.source.as_ref().ok_or(ClientError::TransferEnded)?;
        let (offset, prefix) = match (begin.offset, begin.prefix) {
            (0, _) => {
                self.compared = (0, fresh.clone());
                return Ok(Some((0, fresh)));
            }
            (offset, Some(prefix)) if source.size.is_some_and(|size| offset <= size) => {
                (offset, prefix)
            }
            (offset, _) => {
                let text = format!("an offset of {offset} bytes without a digest of them");
                return Err(ClientError::InvalidReply(text));
            }
        };
        let (known, hasher) = std::mem::replace(&mut self.compared, (0, fresh.clone()));
        // The server may have lost bytes since the last attempt.
        let from = if known <= offset {
            (known, hasher)
        } else {
            (0, fresh)
        };
        let mut source = self.source.take().ok_or(ClientError::TransferEnded)?;
        let (source, hasher) = blocking(move || {
            let hasher = hash_between(&mut source, from, offset)?;
            Ok((source, hasher))
        })
        .await?;
        self.source = Some(source);
        if hasher.clone().finish() != prefix {
            return Ok(None);
        }
        if offset > known {
            // The server has more bytes than before: the last connection transferred some.
            self.session.note_success();
        }
        self.compared = (offset, hasher.clone());
        Ok(Some((offset, hasher)))
    }

    /// Sends the bytes from `offset` on, and returns the digest of the file.
    async fn send_from(
        &mut self,
        offset: u64,
        hasher: Hasher,
        upload: &mut UploadStream,
    ) -> Result<Digest, ClientError> {
        let mut source = self.source.take().ok_or(ClientError::TransferEnded)?;
        let is_file = source.is_file();
        let (sender, mut chunks) = mpsc::channel(QUEUED_CHUNKS);
        let reading = spawn_blocking(move || {
            if is_file {
                source.go_to(offset)?;
            }
            let digest = read_and_hash(&mut source, hasher, &sender)?;
            Ok((source, digest))
        });
        let mut outcome = Ok(());
        while let Some(chunk) = chunks.recv().await {
            let length = Bytes::len(&chunk);
            outcome = upload.write_unhashed(chunk).await;
            if outcome.is_err() {
                break;
            }
            self.progress.moved(length);
        }
        drop(chunks);
        if let Err(error) = outcome {
            // The reader of a pipe may wait forever.
            if is_file {
                self.source = Some(joined(reading.await)?.0);
            }
            return Err(error);
        }
        let (source, digest) = joined(reading.await)?;
        self.source = Some(source);
        Ok(digest)
    }
}

/// Hashes the bytes from the position of `hasher` to `offset`.
pub(crate) fn hash_between(
    source: &mut LocalFile,
    (mut at, mut hasher): (u64, Hasher),
    offset: u64,
) -> Result<Hasher, ClientError> {
    source.go_to(at)?;
    while at < offset {
        let limit = usize::try_from(offset - at)
            .map_or(SHORT_CHUNK_BYTES, |rest| rest.min(SHORT_CHUNK_BYTES));
        let Some(part) = source.next_part(limit)? else {
            return Err(ClientError::LocalChanged(source.path().into()));
        };
        hasher.update(&part);
        at += part.len() as u64;
    }
    source.check_unchanged()?;
    Ok(hasher)
}

fn read_and_hash(
    source: &mut LocalFile,
    mut hasher: Hasher,
    chunks: &mpsc::Sender<Bytes>,
) -> Result<Digest, ClientError> {
    while let Some(chunk) = source.next_chunk()? {
        hasher.update(&chunk);
        if chunks.blocking_send(chunk).is_err() {
            // The connection was lost: nobody needs the digest.
            return Ok(hasher.finish());
        }
    }
    source.finish(hasher)
}
