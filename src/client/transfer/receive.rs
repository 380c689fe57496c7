//! A file on its way from the server, over as many connections as it takes.

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::client::session::CurrentConnection;
use crate::client::transfer::blocking::{blocking, joined};
use crate::client::transfer::options::{FileOptions, QUEUED_CHUNKS};
use crate::client::transfer::progress::FileProgress;
use crate::client::transfer::sink::LocalSink;
use crate::client::{ClientError, FetchedFile, GetOptions, Progress, Session};
use crate::protocol::{Algorithm, Digest, ErrorCode, GetBegin, Hasher};

/// How often a file may become another while it is got.
const MAX_RESTARTS: u32 = 5;

/// A file, and what is here of it.
struct FileDownload<'a> {
    session: &'a Session,
    remote: &'a str,
    options: FileOptions,
    /// Elsewhere while it is written, and gone once it failed.
    place: Option<DownloadTarget>,
    /// Has seen the bytes that are here.
    hasher: Hasher,
    /// How many are.
    offset: u64,
    begin: Option<GetBegin>,
    restarts: u32,
    progress: FileProgress,
}

impl Session {
    /// Gets a file into `place`, of which `progress` is counted.
    pub(crate) async fn fetch(
        &self,
        remote: &str,
        place: DownloadTarget,
        options: FileOptions,
        file: FileProgress,
        progress: &Progress,
    ) -> Result<FetchedFile, ClientError> {
        let mut fetching = FileDownload {
            session: self,
            remote,
            options,
            place: Some(place),
            hasher: Hasher::new(options.algorithm),
            offset: 0,
            begin: None,
            restarts: 0,
            progress: file,
        };
        let mut patience = self.patience(progress);
        loop {
            let current = self.current();
            let error = match fetching.attempt(&current).await {
                Ok(fetched) => {
                    self.gets_on();
                    progress.finished_file();
                    return Ok(fetched);
                }
                Err(error) => error,
            };
            let outcome = if fetching.is_outdated(&error) {
                fetching.start_again().await
            } else {
                patience.after(&current, error).await
            };
            if let Err(error) = outcome {
                return Err(match fetching.place.take() {
                    Some(place) => place.given_up(error).await,
                    None => error,
                });
            }
        }
    }
}

impl FileDownload<'_> {
    /// Gets what is not here yet, over this connection.
    async fn attempt(&mut self, current: &CurrentConnection) -> Result<FetchedFile, ClientError> {
        let resumed = (self.offset > 0).then_some(self.begin.as_ref()).flatten();
        let options = GetOptions {
            offset: self.offset,
            version: resumed.map(|begin| begin.version.clone()),
            algorithm: self.options.algorithm,
            seen: Some(self.hasher.clone()),
            ..GetOptions::default()
        };
        let mut download = current.client.get(self.remote, options).await?;
        let begin = download.begin().clone();
        if begin.offset != self.offset || resumed.is_some_and(|before| before.size != begin.size) {
            let text = "another part of the file than was asked for";
            return Err(ClientError::Nonsense(text.into()));
        }
        self.progress.expect(begin.size);
        let modified = begin.modified;
        self.begin = Some(begin);
        // What is quick to hash is hashed between the network and the disk, and shares the work with
        // the thread that writes.
        let is_quick = self.options.algorithm == Algorithm::Blake3;
        // It was cloned above: what fails before this leaves it here.
        let hasher = if is_quick {
            None
        } else {
            download.take_hasher()
        };
        let place = self.place.take().ok_or(ClientError::Over)?;
        let (sender, chunks) = mpsc::channel(QUEUED_CHUNKS);
        let writing = spawn_blocking(move || write_and_hash(place, hasher, chunks));
        let mut offset = self.offset;
        while let Some(chunk) = download.chunk().await {
            let length = Bytes::len(&chunk);
            if sender.send(chunk).await.is_err() {
                // The disk said no; what it said comes below.
                break;
            }
            offset += length as u64;
            self.session.gets_on();
            self.progress.moved(length);
        }
        drop(sender);
        let (place, hasher) = joined(writing.await)?;
        let hasher = hasher.or_else(|| download.take_hasher());
        self.place = Some(place);
        self.offset = offset;
        let digest: Option<Digest> = hasher.clone().map(Hasher::finish);
        self.hasher = hasher.unwrap_or_else(|| Hasher::new(self.options.algorithm));
        let reply = download.finish_with(digest).await?;
        let place = self.place.take().ok_or(ClientError::Over)?;
        let path = blocking(move || place.into_sink().commit(modified)).await?;
        Ok(FetchedFile {
            path,
            size: reply.size,
            digest: reply.digest,
        })
    }

    /// Whether the file is no longer the one of which a part is here, and the part can be thrown
    /// away.
    fn is_outdated(&self, error: &ClientError) -> bool {
        self.offset > 0
            && self.restarts < MAX_RESTARTS
            && error.code() == Some(ErrorCode::Changed)
            && self.place.as_ref().is_some_and(DownloadTarget::can_restart)
    }

    async fn start_again(&mut self) -> Result<(), ClientError> {
        self.restarts += 1;
        let place = self.place.take().ok_or(ClientError::Over)?;
        let place = blocking(move || {
            let mut sink = place.into_sink();
            sink.restart()?;
            Ok(DownloadTarget::from_sink(sink))
        })
        .await?;
        self.place = Some(place);
        self.hasher = Hasher::new(self.options.algorithm);
        self.offset = 0;
        self.progress.go_to(0);
        Ok(())
    }
}

fn write_and_hash(
    place: DownloadTarget,
    mut hasher: Option<Hasher>,
    mut chunks: mpsc::Receiver<Bytes>,
) -> Result<(DownloadTarget, Option<Hasher>), ClientError> {
    let mut sink = place.into_sink();
    while let Some(chunk) = chunks.blocking_recv() {
        sink.write(&chunk)?;
        if let Some(hasher) = &mut hasher {
            hasher.update(&chunk);
        }
    }
    Ok((DownloadTarget::from_sink(sink), hasher))
}

/// A [`Sink`] in the hands of a task. To give one up is work for a disk, and is done on a thread
/// that may wait for it, even if the task is dropped.
pub(crate) struct DownloadTarget(Option<LocalSink>);

impl DownloadTarget {
    pub(crate) fn from_sink(sink: LocalSink) -> Self {
        Self(Some(sink))
    }

    pub(crate) async fn made(
        make: impl FnOnce() -> Result<LocalSink, ClientError> + Send + 'static,
    ) -> Result<Self, ClientError> {
        blocking(move || make().map(Self::from_sink)).await
    }

    /// For who is on a thread that may wait.
    fn into_sink(mut self) -> LocalSink {
        self.0.take().expect("it is there until self is gone")
    }

    fn can_restart(&self) -> bool {
        self.0.as_ref().is_some_and(LocalSink::can_restart)
    }

    /// Passes `error` on once nothing is left behind.
    async fn given_up(mut self, error: ClientError) -> ClientError {
        let sink = self.0.take();
        // The error is what counts, even if the runtime is shutting down.
        let _ = spawn_blocking(move || drop(sink)).await;
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
