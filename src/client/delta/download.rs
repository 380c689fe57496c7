//! The download of a changed file: parts that the local old version has are not received.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use futures::future::try_join;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::client::delta::assembly::{Assembly, AssemblyPart};
use crate::client::delta::chunk_list::{
    ChunkIndex, ChunkList, DeltaBytes, MAX_CHUNKS, add_chunk, is_worth_while,
};
use crate::client::delta::plan::{AssemblyStep, next_ranges, plan_steps, skip_bytes};
use crate::client::delta::ranges::RangeSource;
use crate::client::delta::resumption::ResumptionProgress;
use crate::client::transfer::blocking::{blocking, joined};
use crate::client::transfer::options::{FetchedFile, FileOptions, ListedContent, QUEUED_CHUNKS};
use crate::client::transfer::progress::FileProgress;
use crate::client::transfer::sink::LocalSink;
use crate::client::transfer::source::LocalFile;
use crate::client::{Client, ClientError, Progress, Session};
use crate::connection::LONG_CHUNK_BYTES;
use crate::protocol::{ContentChunker, Digest, Hash, HashReply, IfExists, Stat, StatReply};

impl Session {
    /// As [`get_file`](Self::get_file), but receives only what differs from the file that it replaces, if
    /// both are larger than 4 MiB.
    ///
    /// # Errors
    /// Those of [`get_file`](Self::get_file).
    pub async fn get_delta(
        &self,
        remote: &str,
        local: &Path,
        options: FileOptions,
        progress: &Progress,
    ) -> Result<(FetchedFile, DeltaBytes), ClientError> {
        progress.found_file(0);
        progress.found_all();
        self.get_found_delta(remote, local.to_owned(), 0, options, progress)
            .await
    }

    /// [`get_delta`](Self::get_delta) of a file that was counted with `found` bytes.
    pub(crate) async fn get_found_delta(
        &self,
        remote: &str,
        local: PathBuf,
        found: u64,
        options: FileOptions,
        progress: &Progress,
    ) -> Result<(FetchedFile, DeltaBytes), ClientError> {
        if options.if_exists.unwrap_or(IfExists::Replace) == IfExists::Replace {
            let resumption = ResumptionProgress::new(self);
            let download = DeltaDownload {
                remote,
                local: &local,
                options,
                resumption: &resumption,
            };
            let attempt = |client: Client| async move {
                let mut file = progress.file(found);
                let got = download.attempt(&client, &mut file).await;
                if !matches!(got, Ok(Some(_))) {
                    file.go_to(0);
                    file.expect(found);
                }
                got
            };
            let has_advanced = || resumption.has_advanced();
            let retried = self.retry_resumable(progress, has_advanced, attempt);
            if let Ok(Some(got)) = Box::pin(retried).await {
                progress.finished_file();
                progress.saved(got.1.saved);
                return Ok(got);
            }
        }
        let found = ListedContent::from_size(found);
        let whole = self.get_found(remote, local, false, found, options, progress);
        let fetched = whole.await?;
        let transferred = fetched.size;
        Ok((
            fetched,
            DeltaBytes {
                transferred,
                saved: 0,
            },
        ))
    }
}

/// A changed file.
#[derive(Clone, Copy)]
struct DeltaDownload<'a> {
    remote: &'a str,
    local: &'a Path,
    options: FileOptions,
    resumption: &'a ResumptionProgress<'a>,
}

impl DeltaDownload<'_> {
    /// Gets the changes over one connection; `None` if the whole file must be got. Bytes that an earlier
    /// attempt has written are not received again.
    async fn attempt(
        self,
        client: &Client,
        progress: &mut FileProgress,
    ) -> Result<Option<(FetchedFile, DeltaBytes)>, ClientError> {
        let local = self.local.to_owned();
        let Some(old) = blocking(move || open_old(&local)).await? else {
            return Ok(None);
        };
        let path = self.remote.to_owned();
        let stat = client.call(Stat { path }).await?;
        let version = stat.entry.version.clone();
        let version = version.filter(|_| is_worth_while(stat.entry.size));
        let Some(version) = version else {
            return Ok(None);
        };
        let Some((list, old, index)) = self.list_both(client, old, &version).await? else {
            return Ok(None);
        };
        if list.size != stat.entry.size {
            return Err(ClientError::InvalidReply("a list of another size".into()));
        }
        let mut bytes = DeltaBytes {
            transferred: list.wire_bytes(),
            saved: 0,
        };
        let mut steps = plan_steps(&list.chunks, &index);
        drop((list, index));
        let (size, algorithm) = (stat.entry.size, self.options.algorithm);
        let of = version.clone();
        let assembly = blocking(move || Assembly::open(old, &of, size, algorithm)).await?;
        skip_bytes(&mut steps, assembly.length());
        self.resumption.resumed_at(assembly.length());
        progress.expect(size);
        progress.go_to(assembly.length());
        let hash = client.call(Hash {
            path: self.remote.to_owned(),
            digest: Some(algorithm),
            version: Some(version.clone()),
        });
        let source = RangeSource {
            client,
            remote: self.remote,
            version: &version,
        };
        let assembled = assemble(source, assembly, steps, |origin, length| {
            progress.moved(usize::try_from(length).unwrap_or(usize::MAX));
            match origin {
                PartOrigin::Local => bytes.saved += length,
                PartOrigin::Remote => bytes.transferred += length,
            }
        });
        let (hash, (sink, digest)) = try_join(hash, assembled).await?;
        let fetched = commit(sink, digest, hash, &stat).await?;
        Ok(Some((fetched, bytes)))
    }

    /// Lists the chunks of the file on the server and, at the same time, cuts the old version. `None` if
    /// one of them cannot be used.
    async fn list_both(
        self,
        client: &Client,
        old: LocalFile,
        version: &str,
    ) -> Result<Option<(ChunkList, LocalFile, ChunkIndex)>, ClientError> {
        let stop = CancellationToken::new();
        let _stopped_at_the_end = stop.clone().drop_guard();
        let stopped = stop.clone();
        let cutting = blocking(move || cut(old, &stopped));
        let listing = async {
            let list = ChunkList::fetch(client, self.remote, Some(version.to_owned())).await?;
            if list.is_none() {
                stop.cancel();
            }
            Ok(list)
        };
        let (list, cut) = try_join(listing, cutting).await?;
        Ok(list.zip(cut).map(|(list, (old, index))| (list, old, index)))
    }
}

/// Opens the old version; `None` if it is no regular file of enough bytes.
fn open_old(path: &Path) -> Result<Option<LocalFile>, ClientError> {
    let metadata = path
        .symlink_metadata()
        .map_err(|error| ClientError::local("read", path, error))?;
    if !metadata.is_file() || !is_worth_while(metadata.len()) {
        return Ok(None);
    }
    LocalFile::open(path).map(Some)
}

/// Cuts the old version; `None` if it has too many chunks, or nobody needs them any more.
fn cut(
    mut old: LocalFile,
    stop: &CancellationToken,
) -> Result<Option<(LocalFile, ChunkIndex)>, ClientError> {
    let (mut chunker, mut index, mut position) = (ContentChunker::default(), ChunkIndex::new(), 0);
    let mut block = Vec::new();
    while old.read_part(&mut block, LONG_CHUNK_BYTES)? {
        chunker.update(&block, |chunk, _| {
            add_chunk(&mut index, &mut position, chunk);
        });
        if index.len() > MAX_CHUNKS || stop.is_cancelled() {
            return Ok(None);
        }
    }
    chunker.finish(|chunk, _| add_chunk(&mut index, &mut position, chunk));
    Ok(Some((old, index)))
}

/// Where the bytes of a part come from.
#[derive(Debug, Clone, Copy)]
enum PartOrigin {
    Local,
    Remote,
}

/// Puts the new file together, and returns it with its digest. Calls `done` for each part. If the
/// connection is lost, the file is continued by the next attempt; after another failure it is removed.
async fn assemble(
    source: RangeSource<'_>,
    assembly: Assembly,
    steps: VecDeque<AssemblyStep>,
    done: impl FnMut(PartOrigin, u64),
) -> Result<(LocalSink, Digest), ClientError> {
    let (sender, parts) = mpsc::channel(QUEUED_CHUNKS);
    let writing = spawn_blocking(move || assembly.add_all(parts));
    let passed_on = pass_on(source, steps, sender, done).await;
    let (sink, digest) = joined(writing.await)?;
    match passed_on {
        Ok(()) => Ok((sink, digest)),
        Err(error @ ClientError::Lost(_)) => Err(error),
        Err(error) => {
            blocking(move || {
                sink.discard();
                Ok(())
            })
            .await?;
            Err(error)
        }
    }
}

/// Passes all parts of the new file on. Ends early if the receiver does, which has its own error.
async fn pass_on(
    source: RangeSource<'_>,
    mut steps: VecDeque<AssemblyStep>,
    parts: mpsc::Sender<AssemblyPart>,
    mut done: impl FnMut(PartOrigin, u64),
) -> Result<(), ClientError> {
    let mut stream = None;
    while let Some(step) = steps.front() {
        match step {
            AssemblyStep::Local(range) => {
                let (range, length) = (range.clone(), range.end - range.start);
                if parts.send(AssemblyPart::Local(range)).await.is_err() {
                    return Ok(());
                }
                done(PartOrigin::Local, length);
            }
            AssemblyStep::Remote(range) => {
                let mut current = match stream.take() {
                    Some(current) => current,
                    None => source.open(next_ranges(&steps)).await?,
                };
                let mut rest = range.end - range.start;
                while rest > 0 {
                    let Some(bytes) = current.next(rest).await else {
                        return Err(current.into_error().await);
                    };
                    let length = bytes.len() as u64;
                    rest -= length;
                    if parts.send(AssemblyPart::Received(bytes)).await.is_err() {
                        return Ok(());
                    }
                    done(PartOrigin::Remote, length);
                }
                stream = current.end_range().await?;
            }
        }
        steps.pop_front();
    }
    Ok(())
}

/// Publishes the file if the server's has the same digest, else removes it.
async fn commit(
    sink: LocalSink,
    digest: Digest,
    hash: HashReply,
    stat: &StatReply,
) -> Result<FetchedFile, ClientError> {
    let (modified, mode) = (stat.entry.modified, stat.entry.mode);
    let path = blocking(move || {
        if hash.digest == digest {
            return sink.commit(modified, mode);
        }
        sink.discard();
        let (server, local) = (hash.digest, digest);
        Err(ClientError::DigestMismatch { server, local })
    })
    .await?;
    Ok(FetchedFile {
        path,
        size: stat.entry.size,
        digest: Some(digest),
    })
}
