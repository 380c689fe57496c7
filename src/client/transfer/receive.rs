//! The download of one file, over as many connections as it takes.

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::client::session::CurrentConnection;
use crate::client::transfer::blocking::{blocking, joined};
use crate::client::transfer::options::{FileOptions, ListedContent, QUEUED_CHUNKS};
use crate::client::transfer::progress::FileProgress;
use crate::client::transfer::sink::LocalSink;
use crate::client::{ClientError, FetchedFile, GetOptions, Progress, Session};
use crate::protocol::{Algorithm, Digest, ErrorCode, GetBegin, Hasher};

/// How often a file may change on the server during its download.
const MAX_RESTARTS: u32 = 5;

/// The state of a download.
struct FileDownload<'a> {
    session: &'a Session,
    remote: &'a str,
    options: FileOptions,
    /// `None` while a blocking thread writes it, and after it failed.
    target: Option<DownloadTarget>,
    /// Its state after the bytes that arrived.
    hasher: Hasher,
    /// The number of bytes that arrived.
    offset: u64,
    /// The version of the file that arrives, once it is known.
    version: Option<String>,
    /// The size of that file, once it is known.
    size: Option<u64>,
    /// The first bytes were written by an earlier run, perhaps before a loss of power.
    has_old_bytes: bool,
    restarts: u32,
    found: ListedContent,
    progress: FileProgress,
}

impl Session {
    /// Gets a file, which was listed as `found`, into `target`.
    pub(crate) async fn fetch(
        &self,
        remote: &str,
        target: DownloadTarget,
        found: ListedContent,
        options: FileOptions,
        progress: &Progress,
    ) -> Result<FetchedFile, ClientError> {
        let mut download = FileDownload {
            session: self,
            remote,
            options,
            target: Some(target),
            hasher: Hasher::new(options.algorithm),
            offset: 0,
            version: None,
            size: None,
            has_old_bytes: false,
            restarts: 0,
            found,
            progress: progress.file(found.size).named(remote),
        };
        download.resume().await?;
        let mut budget = self.retry_budget(progress);
        loop {
            let current = self.current();
            let offset = download.offset;
            let error = match download.attempt(&current).await {
                Ok(fetched) => {
                    self.note_success();
                    progress.finished_file();
                    return Ok(fetched);
                }
                Err(error) => error,
            };
            if download.offset > offset {
                budget.note_advance();
            }
            let outcome = if download.can_restart_after(&error) {
                download.restart().await
            } else {
                budget.wait_after(&current, error).await
            };
            if let Err(error) = outcome {
                return Err(match download.target.take() {
                    Some(target) => target.end_with(error).await,
                    None => error,
                });
            }
        }
    }
}

impl FileDownload<'_> {
    /// Continues the part file of an interrupted run.
    async fn resume(&mut self) -> Result<(), ClientError> {
        let mut target = self.target.take().ok_or(ClientError::TransferEnded)?;
        let algorithm = self.options.algorithm;
        let (target, part) = blocking(move || {
            let part = target.sink_mut().resume(algorithm)?;
            Ok((target, part))
        })
        .await?;
        self.target = Some(target);
        if let Some((version, hasher, length)) = part {
            self.version = Some(version);
            self.hasher = hasher;
            self.offset = length;
            self.has_old_bytes = length > 0;
        }
        Ok(())
    }

    /// Gets the bytes that have not arrived yet, over this connection.
    async fn attempt(&mut self, current: &CurrentConnection) -> Result<FetchedFile, ClientError> {
        let options = GetOptions {
            offset: self.offset,
            version: self.version.clone().filter(|_| self.offset > 0),
            algorithm: self.options.algorithm,
            hashed: Some(self.hasher.clone()),
            ..GetOptions::default()
        };
        let mut download = current.client.get(self.remote, options).await?;
        let begin = download.begin().clone();
        let is_same_file = self.offset == 0 || self.size.is_none_or(|size| size == begin.size);
        if begin.offset != self.offset || !is_same_file {
            let text = "another part of a file than was requested";
            return Err(ClientError::InvalidReply(text.into()));
        }
        self.found.check(&begin)?;
        self.progress.expect(begin.size);
        self.progress.go_to(self.offset);
        let GetBegin {
            modified,
            mode,
            version,
            size,
            ..
        } = begin;
        self.version = Some(version.clone());
        self.size = Some(size);
        // A fast digest is computed on this task, in parallel with the thread that writes.
        let is_quick = self.options.algorithm == Algorithm::Blake3;
        // It is a clone: after an earlier failure `self.hasher` is still valid.
        let hasher = if is_quick {
            None
        } else {
            download.take_hasher()
        };
        let mut target = self.target.take().ok_or(ClientError::TransferEnded)?;
        let (sender, chunks) = mpsc::channel(QUEUED_CHUNKS);
        let writing = spawn_blocking(move || {
            target.sink_mut().begin(&version, size)?;
            write_and_hash(target, hasher, chunks)
        });
        let mut offset = self.offset;
        while let Some(chunk) = download.chunk().await {
            let length = Bytes::len(&chunk);
            if sender.send(chunk).await.is_err() {
                // The writer failed; its error is returned below.
                break;
            }
            offset += length as u64;
            self.session.note_success();
            self.progress.moved(length);
        }
        drop(sender);
        let (target, hasher) = joined(writing.await)?;
        let hasher = hasher.or_else(|| download.take_hasher());
        self.target = Some(target);
        self.offset = offset;
        let digest: Option<Digest> = hasher.clone().map(Hasher::finish);
        self.hasher = hasher.unwrap_or_else(|| Hasher::new(self.options.algorithm));
        let reply = download.finish_with(digest).await?;
        let target = self.target.take().ok_or(ClientError::TransferEnded)?;
        let path = blocking(move || target.into_sink().commit(modified, mode)).await?;
        Ok(FetchedFile {
            path,
            size: reply.size,
            digest: reply.digest,
        })
    }

    /// Whether the bytes here are useless, because the file on the server has changed or an earlier run left
    /// damaged ones, and the download can start again.
    fn can_restart_after(&self, error: &ClientError) -> bool {
        let is_damaged = matches!(error, ClientError::DigestMismatch { .. });
        self.offset > 0
            && self.restarts < MAX_RESTARTS
            && (error.code() == Some(ErrorCode::Changed) || is_damaged && self.has_old_bytes)
            && self
                .target
                .as_ref()
                .is_some_and(DownloadTarget::can_restart)
    }

    async fn restart(&mut self) -> Result<(), ClientError> {
        self.restarts += 1;
        let target = self.target.take().ok_or(ClientError::TransferEnded)?;
        let target = blocking(move || {
            let mut sink = target.into_sink();
            sink.restart()?;
            Ok(DownloadTarget::from_sink(sink))
        })
        .await?;
        self.target = Some(target);
        self.hasher = Hasher::new(self.options.algorithm);
        self.offset = 0;
        self.version = None;
        self.size = None;
        self.has_old_bytes = false;
        self.progress.go_to(0);
        Ok(())
    }
}

fn write_and_hash(
    target: DownloadTarget,
    mut hasher: Option<Hasher>,
    mut chunks: mpsc::Receiver<Bytes>,
) -> Result<(DownloadTarget, Option<Hasher>), ClientError> {
    let mut sink = target.into_sink();
    while let Some(chunk) = chunks.blocking_recv() {
        if let Err(error) = sink.write(&chunk) {
            // Its bytes may be what fills the disk.
            sink.discard();
            return Err(error);
        }
        if let Some(hasher) = &mut hasher {
            hasher.update(&chunk);
        }
    }
    Ok((DownloadTarget::from_sink(sink), hasher))
}

/// A [`LocalSink`] that is owned by a task. Its drop closes a file and may remove it, so it runs on a blocking
/// thread, even if the task is dropped.
pub(crate) struct DownloadTarget(Option<LocalSink>);

impl DownloadTarget {
    pub(crate) fn from_sink(sink: LocalSink) -> Self {
        Self(Some(sink))
    }

    pub(crate) async fn open(
        open: impl FnOnce() -> Result<LocalSink, ClientError> + Send + 'static,
    ) -> Result<Self, ClientError> {
        blocking(move || open().map(Self::from_sink)).await
    }

    /// For callers on a blocking thread.
    fn into_sink(mut self) -> LocalSink {
        self.0.take().expect("only `self` by value takes it")
    }

    fn sink_mut(&mut self) -> &mut LocalSink {
        self.0.as_mut().expect("only `self` by value takes it")
    }

    fn can_restart(&self) -> bool {
        self.0.as_ref().is_some_and(LocalSink::can_restart)
    }

    /// Closes the part file, and returns `error`. The part file is kept for a later run if that may
    /// succeed.
    async fn end_with(mut self, error: ClientError) -> ClientError {
        let is_kept = error.may_pass() || matches!(error, ClientError::ReconnectFailed { .. });
        if let Some(sink) = self.0.take() {
            // If the runtime is shutting down, the error is still the result.
            let _ = spawn_blocking(move || if is_kept { drop(sink) } else { sink.discard() }).await;
        }
        error
    }
}

impl Drop for DownloadTarget {
    fn drop(&mut self) {
        if let (Some(sink), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn_blocking(move || drop(sink));
        }
    }
}
