//! Whole files: disk and digest on a blocking thread while the network moves the next bytes.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{JoinError, spawn_blocking};

use super::local::{Sink, Source};
use super::{Client, ClientError, Download, GetOptions, Progress, PutOptions};
use crate::protocol::{Algorithm, Digest, Hasher, IfExists, PutReply};

/// Chunks between the disk and the network.
const BETWEEN: usize = 4;

/// How files are moved.
#[derive(Debug, Clone, Copy, Default)]
pub struct FileOptions {
    /// What to do if there is a file of that name on the receiving side; replace it if absent.
    pub if_exists: Option<IfExists>,
    /// The digest that both sides compute and compare.
    pub algorithm: Algorithm,
    /// Make missing directories on the server.
    pub parents: bool,
}

/// A file that was got, whole and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Where it is now.
    pub path: PathBuf,
    /// Its bytes.
    pub size: u64,
    /// The digest that both sides agree on.
    pub digest: Option<Digest>,
}

impl Client {
    /// Gets a file into the path `local`, which names it only once it is whole and checked. Its
    /// modification time is kept. Nothing is synced to the disk: what was got shortly before the
    /// power fails may have to be got again.
    ///
    /// # Errors
    /// What the server, the connection or the local disk says. Nothing is left behind then.
    pub async fn get_file(
        &self,
        remote: &str,
        local: &Path,
        options: FileOptions,
        progress: &Progress,
    ) -> Result<Fetched, ClientError> {
        let if_exists = options.if_exists.unwrap_or(IfExists::Replace);
        let local = local.to_owned();
        let place = Place::made(move || Sink::named(&local, if_exists)).await?;
        let download = match self.get(remote, get_options(options)).await {
            Ok(download) => download,
            Err(error) => return Err(place.given_up(error).await),
        };
        progress.found_file(download.begin().length);
        progress.found_all();
        receive(download, place, progress).await
    }

    /// Gets a file into a pipe, checked at the end only.
    ///
    /// # Errors
    /// What the server, the connection or the pipe says.
    pub async fn get_into(
        &self,
        remote: &str,
        writer: impl Write + Send + 'static,
        options: FileOptions,
        progress: &Progress,
    ) -> Result<Fetched, ClientError> {
        let download = self.get(remote, get_options(options)).await?;
        progress.found_file(download.begin().length);
        progress.found_all();
        let sink = Sink::Stream(Box::new(writer), "standard output".into());
        receive(download, Place(Some(sink)), progress).await
    }

    /// Puts the file `local`. Its modification time is kept.
    ///
    /// # Errors
    /// What the server, the connection or the local disk says.
    pub async fn put_file(
        &self,
        local: &Path,
        remote: &str,
        options: FileOptions,
        progress: &Progress,
    ) -> Result<PutReply, ClientError> {
        let local = local.to_owned();
        let source = blocking(move || Source::open(&local)).await?;
        progress.found_file(source.size.unwrap_or(0));
        progress.found_all();
        self.send(source, remote, options, progress).await
    }

    /// Puts what comes from a pipe.
    ///
    /// # Errors
    /// What the server, the connection or the pipe says.
    pub async fn put_from(
        &self,
        reader: impl Read + Send + 'static,
        remote: &str,
        options: FileOptions,
        progress: &Progress,
    ) -> Result<PutReply, ClientError> {
        let source = Source::pipe("standard input", reader);
        progress.found_file(0);
        self.send(source, remote, options, progress).await
    }

    /// [`get_file`](Self::get_file) of what was counted already, to a name that the user chose or
    /// that the server did.
    pub(super) async fn get_found(
        &self,
        remote: &str,
        local: PathBuf,
        named_by_user: bool,
        options: FileOptions,
        progress: &Progress,
    ) -> Result<Fetched, ClientError> {
        let if_exists = options.if_exists.unwrap_or(IfExists::Replace);
        let sink = if named_by_user {
            Sink::named
        } else {
            Sink::beside
        };
        let place = Place::made(move || sink(&local, if_exists)).await?;
        match self.get(remote, get_options(options)).await {
            Ok(download) => receive(download, place, progress).await,
            Err(error) => Err(place.given_up(error).await),
        }
    }

    /// [`put_file`](Self::put_file) of what was counted already.
    pub(super) async fn put_found(
        &self,
        local: PathBuf,
        remote: &str,
        options: FileOptions,
        progress: &Progress,
    ) -> Result<PutReply, ClientError> {
        let source = blocking(move || Source::open(&local)).await?;
        self.send(source, remote, options, progress).await
    }

    async fn send(
        &self,
        source: Source,
        remote: &str,
        options: FileOptions,
        progress: &Progress,
    ) -> Result<PutReply, ClientError> {
        let put = PutOptions {
            size: source.size,
            if_exists: options.if_exists,
            modified: source.modified,
            parents: options.parents,
            algorithm: options.algorithm,
        };
        let algorithm = options.algorithm;
        let (sender, mut chunks) = mpsc::channel(BETWEEN);
        let reading = spawn_blocking(move || read_and_hash(source, algorithm, &sender));
        let mut upload = self.put(remote, put).await?;
        while let Some(chunk) = chunks.recv().await {
            let length = Bytes::len(&chunk);
            upload.write_unhashed(chunk).await?;
            progress.moved(length);
        }
        let digest = joined(reading.await)?;
        let reply = upload.finish_with(digest).await?;
        progress.finished_file();
        Ok(reply)
    }
}

fn get_options(options: FileOptions) -> GetOptions {
    GetOptions {
        algorithm: options.algorithm,
        ..GetOptions::default()
    }
}

/// Moves a download into its place.
async fn receive(
    mut download: Download,
    place: Place,
    progress: &Progress,
) -> Result<Fetched, ClientError> {
    let modified = download.begin().modified;
    let hasher = download.take_hasher();
    let (sender, chunks) = mpsc::channel(BETWEEN);
    let writing = spawn_blocking(move || write_and_hash(place, hasher, chunks));
    while let Some(chunk) = download.raw_chunk().await {
        let length = Bytes::len(&chunk);
        if sender.send(chunk).await.is_err() {
            // The disk said no; what it said comes below.
            break;
        }
        progress.moved(length);
    }
    drop(sender);
    let (place, digest) = joined(writing.await)?;
    let reply = match download.finish_with(digest).await {
        Ok(reply) => reply,
        Err(error) => return Err(place.given_up(error).await),
    };
    let path = blocking(move || place.into_sink().commit(modified)).await?;
    progress.finished_file();
    Ok(Fetched {
        path,
        size: reply.size,
        digest: reply.digest,
    })
}

fn read_and_hash(
    mut source: Source,
    algorithm: Algorithm,
    chunks: &mpsc::Sender<Bytes>,
) -> Result<Digest, ClientError> {
    let mut hasher = Hasher::new(algorithm);
    while let Some(chunk) = source.next_chunk()? {
        hasher.update(&chunk);
        if chunks.blocking_send(chunk).is_err() {
            break;
        }
    }
    Ok(hasher.finish())
}

fn write_and_hash(
    place: Place,
    mut hasher: Option<Hasher>,
    mut chunks: mpsc::Receiver<Bytes>,
) -> Result<(Place, Option<Digest>), ClientError> {
    let mut sink = place.into_sink();
    while let Some(chunk) = chunks.blocking_recv() {
        sink.write(&chunk)?;
        if let Some(hasher) = &mut hasher {
            hasher.update(&chunk);
        }
    }
    Ok((Place(Some(sink)), hasher.map(Hasher::finish)))
}

/// A [`Sink`] in the hands of a task. To give one up is work for a disk, and is done on a thread
/// that may wait for it, even if the task is dropped.
struct Place(Option<Sink>);

impl Place {
    async fn made(
        make: impl FnOnce() -> Result<Sink, ClientError> + Send + 'static,
    ) -> Result<Self, ClientError> {
        blocking(move || make().map(|sink| Self(Some(sink)))).await
    }

    /// For who is on a thread that may wait.
    fn into_sink(mut self) -> Sink {
        self.0.take().expect("it is there until self is gone")
    }

    /// Passes `error` on once nothing is left behind.
    async fn given_up(mut self, error: ClientError) -> ClientError {
        let sink = self.0.take();
        // The error is what counts, even if the runtime is shutting down.
        let _ = spawn_blocking(move || drop(sink)).await;
        error
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let (Some(sink), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn_blocking(move || drop(sink));
        }
    }
}

/// Runs what may wait for a disk on a thread that may wait.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ClientError> + Send + 'static,
) -> Result<T, ClientError> {
    joined(spawn_blocking(work).await)
}

fn joined<T>(outcome: Result<Result<T, ClientError>, JoinError>) -> Result<T, ClientError> {
    match outcome.map_err(JoinError::try_into_panic) {
        Ok(outcome) => outcome,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime is shutting down.
        Err(Err(_)) => Err(ClientError::Over),
    }
}
