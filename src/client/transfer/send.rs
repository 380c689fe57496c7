//! A file on its way to the server, over as many connections as it takes.

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

/// From here on a file is worth a question before it is sent: what did an earlier attempt leave?
const MIN_RESUME_BYTES: u64 = 1024 * 1024;

/// A file, and what is known of the server's part of it.
struct FileUpload<'a> {
    session: &'a Session,
    remote: &'a str,
    options: FileOptions,
    /// Elsewhere while it is read.
    source: Option<LocalFile>,
    /// Ask what the server has of it, and go on from there.
    resume: bool,
    /// How much of the file was compared with the server's, and what has seen so much.
    compared: (u64, Hasher),
    progress: FileProgress,
}

impl Session {
    /// Puts `source`, of which so many bytes were counted as found.
    pub(crate) async fn send(
        &self,
        source: LocalFile,
        remote: &str,
        options: FileOptions,
        progress: &Progress,
    ) -> Result<PutReply, ClientError> {
        self.send_again(source, remote, options, progress, false)
            .await
    }

    /// As [`send`](Self::send); `again` if it was sent before and nobody knows whether it arrived.
    pub(crate) async fn send_again(
        &self,
        source: LocalFile,
        remote: &str,
        options: FileOptions,
        progress: &Progress,
        again: bool,
    ) -> Result<PutReply, ClientError> {
        let size = source.size;
        // A file that may be there already is no sign of an earlier attempt's success.
        let replaces = options.if_exists.unwrap_or(IfExists::Replace) == IfExists::Replace;
        let is_worth_it = replaces && size.is_some_and(|size| size >= MIN_RESUME_BYTES);
        let resume = is_worth_it || again && size.is_some();
        let pipe = (!source.is_file()).then(|| source.path().to_owned());
        let mut sending = FileUpload {
            session: self,
            remote,
            options,
            source: Some(source),
            resume,
            compared: (0, Hasher::new(options.algorithm)),
            progress: progress.file(size.unwrap_or(0)),
        };
        let _resumable = resume.then(|| self.resumable_upload());
        let mut patience = self.patience(progress);
        loop {
            let current = self.current();
            let error = match sending.attempt(&current).await {
                Ok(reply) => {
                    self.gets_on();
                    progress.finished_file();
                    return Ok(reply);
                }
                Err(ClientError::Server(error)) => why_refused(error, remote, size),
                Err(error) => error,
            };
            match (&pipe, error) {
                (Some(pipe), ClientError::Lost(lost)) => {
                    let (pipe, lost) = (pipe.clone(), Box::new(lost));
                    return Err(ClientError::PipeLost { pipe, lost });
                }
                (Some(_), error) => return Err(error),
                (None, error) => patience.after(&current, error).await?,
            }
            sending.resume = size.is_some();
        }
    }
}

/// The meaning of a server's refusal of a file of that size.
pub(crate) fn why_refused(error: WireError, remote: &str, size: Option<u64>) -> ClientError {
    if matches!(error.code, ErrorCode::QuotaExceeded | ErrorCode::NoSpace) {
        return ClientError::NoRoom {
            path: remote.to_owned(),
            size,
            error: Box::new(error),
        };
    }
    ClientError::Server(error)
}

impl FileUpload<'_> {
    /// Sends what the server lacks, over this connection.
    async fn attempt(&mut self, current: &CurrentConnection) -> Result<PutReply, ClientError> {
        let mut upload = self.begin(&current.client).await?;
        let mut hasher = Hasher::new(self.options.algorithm);
        let mut offset = 0;
        if self.resume {
            if let Some(compared) = self.compare(&mut upload).await? {
                (offset, hasher) = compared;
                upload.seen(offset, hasher.clone());
            } else {
                // Whatever is kept there is no part of this file.
                upload.cancel().await?;
                self.resume = false;
                upload = self.begin(&current.client).await?;
            }
        }
        self.progress.go_to(offset);
        let digest = self.send_from(offset, hasher, &mut upload).await?;
        upload.finish_with(digest).await
    }

    /// Not by a shared reference: a pipe is no `Sync`.
    async fn begin(&mut self, client: &Client) -> Result<UploadStream, ClientError> {
        let source = self.source.as_ref().ok_or(ClientError::Over)?;
        let options = PutOptions {
            size: source.size,
            if_exists: self.options.if_exists,
            modified: source.modified,
            parents: self.options.parents,
            algorithm: self.options.algorithm,
            resume: self.resume,
        };
        client.put(self.remote, options).await
    }

    /// Compares what the server has with the file. Where to go on, with what has seen the bytes
    /// before; `None` if they are others.
    async fn compare(
        &mut self,
        upload: &mut UploadStream,
    ) -> Result<Option<(u64, Hasher)>, ClientError> {
        let begin = upload.begun().await?;
        let fresh = Hasher::new(self.options.algorithm);
        let source = self.source.as_ref().ok_or(ClientError::Over)?;
        let (offset, prefix) = match (begin.offset, begin.prefix) {
            (0, _) => {
                self.compared = (0, fresh.clone());
                return Ok(Some((0, fresh)));
            }
            (offset, Some(prefix)) if source.size.is_some_and(|size| offset <= size) => {
                (offset, prefix)
            }
            (offset, _) => {
                let text = format!("it has {offset} bytes of the file, but not which");
                return Err(ClientError::Nonsense(text));
            }
        };
        let (known, hasher) = std::mem::replace(&mut self.compared, (0, fresh.clone()));
        // The server may have lost some of what it had.
        let from = if known <= offset {
            (known, hasher)
        } else {
            (0, fresh)
        };
        let mut source = self.source.take().ok_or(ClientError::Over)?;
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
            // The server has more of it than before: the connection before was good for something.
            self.session.gets_on();
        }
        self.compared = (offset, hasher.clone());
        Ok(Some((offset, hasher)))
    }

    /// Sends the bytes from `offset` on; the digest of the whole file.
    async fn send_from(
        &mut self,
        offset: u64,
        hasher: Hasher,
        upload: &mut UploadStream,
    ) -> Result<Digest, ClientError> {
        let mut source = self.source.take().ok_or(ClientError::Over)?;
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
            // A reader of a pipe may wait for it forever.
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

/// Reads on to `offset` from where `hasher` is.
fn hash_between(
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
            break;
        }
    }
    Ok(hasher.finish())
}
