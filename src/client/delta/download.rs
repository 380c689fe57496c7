//! The download of a changed file: parts that the local old version has are not received.

use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::client::delta::chunk_list::{
    ChunkIndex, ChunkList, DeltaBytes, MAX_CHUNKS, add_chunk, is_worth_while,
};
use crate::client::transfer::blocking::{blocking, joined};
use crate::client::transfer::options::{FetchedFile, FileOptions, QUEUED_CHUNKS};
use crate::client::transfer::progress::FileProgress;
use crate::client::transfer::sink::LocalSink;
use crate::client::transfer::source::LocalFile;
use crate::client::{Client, ClientError, DownloadStream, GetOptions, Progress, Session};
use crate::connection::LONG_CHUNK_BYTES;
use crate::protocol::{
    Algorithm, ContentChunk, ContentChunker, Digest, Hash, Hasher, IfExists, MAX_RANGES,
    RequestedRange, Stat,
};

/// Local bytes that are copied at once, and between two ranges of one request: the server must not wait for
/// long until its data is read.
const MAX_LOCAL_BYTES: u64 = 16 * 1024 * 1024;

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
            let attempt = |client: Client| {
                let local = local.clone();
                async move {
                    let mut file = progress.file(found);
                    let got = receive_changes(&client, remote, local, options, &mut file).await;
                    if !matches!(got, Ok(Some(_))) {
                        file.go_to(0);
                        file.expect(found);
                    }
                    got
                }
            };
            if let Ok(Some(got)) = Box::pin(self.retry(progress, attempt)).await {
                progress.finished_file();
                progress.saved(got.1.saved);
                return Ok(got);
            }
        }
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

/// Gets the changes over one connection; `None` if the whole file must be got.
async fn receive_changes(
    client: &Client,
    remote: &str,
    local: PathBuf,
    options: FileOptions,
    progress: &mut FileProgress,
) -> Result<Option<(FetchedFile, DeltaBytes)>, ClientError> {
    let target = local.clone();
    let Some(old) = blocking(move || open_old(&target)).await? else {
        return Ok(None);
    };
    let path = remote.to_owned();
    let stat = client.call(Stat { path }).await?;
    let version = stat
        .entry
        .version
        .clone()
        .filter(|_| is_worth_while(stat.entry.size));
    let Some(version) = version else {
        return Ok(None);
    };
    let Some(list) = ChunkList::fetch(client, remote, Some(version.clone())).await? else {
        return Ok(None);
    };
    let mut bytes = DeltaBytes {
        transferred: list.wire_bytes(),
        saved: 0,
    };
    let planned = blocking(move || plan(old, &list.chunks)).await?;
    let Some((old, steps)) = planned else {
        return Ok(None);
    };
    progress.expect(stat.entry.size);
    let source = RangeSource {
        client,
        remote,
        version: &version,
    };
    let hash = client.call(Hash {
        path: remote.to_owned(),
        digest: Some(options.algorithm),
        version: Some(version.clone()),
    });
    let target = local.clone();
    let assembled = assemble(
        source,
        old,
        target,
        &steps,
        options.algorithm,
        |step, length| {
            progress.moved(length);
            match step {
                AssemblyStep::Local(_) => bytes.saved += length as u64,
                AssemblyStep::Remote(_) => bytes.transferred += length as u64,
            }
        },
    );
    let (hash, (sink, digest)) = futures::future::try_join(hash, assembled).await?;
    if hash.digest != digest {
        let (server, local) = (hash.digest, digest);
        return Err(ClientError::DigestMismatch { server, local });
    }
    let (modified, mode) = (stat.entry.modified, stat.entry.mode);
    let path = blocking(move || sink.commit(modified, mode)).await?;
    let fetched = FetchedFile {
        path,
        size: hash.size,
        digest: Some(digest),
    };
    Ok(Some((fetched, bytes)))
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

/// A part of the new file, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum AssemblyStep {
    /// A part of the local old version.
    Local(Range<u64>),
    /// A part of the file on the server.
    Remote(Range<u64>),
}

/// Cuts the old version, and plans how the new one is put together; `None` if it has too many chunks.
fn plan(
    mut old: LocalFile,
    chunks: &[ContentChunk],
) -> Result<Option<(LocalFile, Vec<AssemblyStep>)>, ClientError> {
    let (mut chunker, mut index, mut position) = (ContentChunker::default(), ChunkIndex::new(), 0);
    while let Some(block) = old.next_chunk()? {
        chunker.update(&block, |chunk| add_chunk(&mut index, &mut position, chunk));
        if index.len() > MAX_CHUNKS {
            return Ok(None);
        }
    }
    for chunk in chunker.finish() {
        add_chunk(&mut index, &mut position, chunk);
    }
    Ok(Some((old, steps(chunks, &index))))
}

/// The steps for the chunks of the new version; adjacent parts are one step.
fn steps(chunks: &[ContentChunk], index: &ChunkIndex) -> Vec<AssemblyStep> {
    let (mut steps, mut position) = (Vec::new(), 0);
    for chunk in chunks {
        let length = u64::from(chunk.length);
        let step = match index.get(chunk) {
            Some(start) => AssemblyStep::Local(*start..start + length),
            None => AssemblyStep::Remote(position..position + length),
        };
        position += length;
        match (steps.last_mut(), &step) {
            (Some(AssemblyStep::Local(last)), AssemblyStep::Local(next))
                if last.end == next.start && next.end - last.start <= MAX_LOCAL_BYTES =>
            {
                last.end = next.end;
            }
            (Some(AssemblyStep::Remote(last)), AssemblyStep::Remote(next)) => last.end = next.end,
            _ => steps.push(step),
        }
    }
    steps
}

/// The ranges that the next request asks for: those of the first steps.
fn next_ranges(steps: &[AssemblyStep]) -> Vec<RequestedRange> {
    let (mut ranges, mut local_bytes) = (Vec::new(), 0);
    for step in steps {
        match step {
            AssemblyStep::Remote(range) => {
                ranges.extend(RequestedRange::new(range.start, range.end - range.start));
            }
            AssemblyStep::Local(range) => local_bytes += range.end - range.start,
        }
        if ranges.len() == MAX_RANGES || local_bytes > MAX_LOCAL_BYTES {
            break;
        }
    }
    ranges
}

/// One version of a file on the server.
#[derive(Clone, Copy)]
struct RangeSource<'a> {
    client: &'a Client,
    remote: &'a str,
    version: &'a str,
}

/// The data of one request for ranges.
struct RangeStream {
    download: DownloadStream,
    unread: Bytes,
    /// Steps whose bytes have not been read.
    steps: usize,
}

impl RangeSource<'_> {
    async fn open(self, ranges: Vec<RequestedRange>) -> Result<RangeStream, ClientError> {
        let steps = ranges.len();
        let options = GetOptions {
            version: Some(self.version.to_owned()),
            ranges,
            ..GetOptions::default()
        };
        Ok(RangeStream {
            download: self.client.get(self.remote, options).await?,
            unread: Bytes::new(),
            steps,
        })
    }
}

impl RangeStream {
    /// The next bytes, at most `limit` of them; `None` if the data ends too early.
    async fn next(&mut self, limit: u64) -> Option<Bytes> {
        if self.unread.is_empty() {
            self.unread = self.download.raw_chunk().await?;
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Some(self.unread.split_to(limit.min(self.unread.len())))
    }
}

/// Bytes of the new file.
enum AssemblyPart {
    Local(Range<u64>),
    Received(Bytes),
}

/// Writes the new file into a part file, and returns that with its digest. Calls `done` for each part.
async fn assemble(
    source: RangeSource<'_>,
    old: LocalFile,
    target: PathBuf,
    steps: &[AssemblyStep],
    algorithm: Algorithm,
    mut done: impl FnMut(&AssemblyStep, usize),
) -> Result<(LocalSink, Digest), ClientError> {
    let (sender, parts) = mpsc::channel(QUEUED_CHUNKS);
    let writing = spawn_blocking(move || write_parts(old, &target, algorithm, parts));
    let mut stream: Option<RangeStream> = None;
    'steps: for (number, step) in steps.iter().enumerate() {
        let range = match step {
            AssemblyStep::Local(range) => {
                if sender
                    .send(AssemblyPart::Local(range.clone()))
                    .await
                    .is_err()
                {
                    break;
                }
                done(
                    step,
                    usize::try_from(range.end - range.start).unwrap_or(usize::MAX),
                );
                continue;
            }
            AssemblyStep::Remote(range) => range,
        };
        let mut current = match stream.take() {
            Some(current) => current,
            None => source.open(next_ranges(&steps[number..])).await?,
        };
        let mut rest = range.end - range.start;
        while rest > 0 {
            let Some(bytes) = current.next(rest).await else {
                current.download.finish_with(None).await?;
                return Err(ClientError::InvalidReply("ranges of another length".into()));
            };
            let length = bytes.len();
            rest -= length as u64;
            if sender.send(AssemblyPart::Received(bytes)).await.is_err() {
                break 'steps;
            }
            done(step, length);
        }
        current.steps -= 1;
        if current.steps == 0 {
            current.download.finish_with(None).await?;
        } else {
            stream = Some(current);
        }
    }
    drop(sender);
    joined(writing.await)
}

/// Writes the parts into a part file of `target`. It blocks on the disk.
fn write_parts(
    mut old: LocalFile,
    target: &Path,
    algorithm: Algorithm,
    mut parts: mpsc::Receiver<AssemblyPart>,
) -> Result<(LocalSink, Digest), ClientError> {
    let mut sink = LocalSink::create(target, IfExists::Replace)?;
    let mut hasher = Hasher::new(algorithm);
    while let Some(part) = parts.blocking_recv() {
        let mut rest = match part {
            AssemblyPart::Received(bytes) => {
                sink.write(&bytes)?;
                hasher.update(&bytes);
                continue;
            }
            AssemblyPart::Local(range) => range,
        };
        old.go_to(rest.start)?;
        while !rest.is_empty() {
            let limit = usize::try_from(rest.end - rest.start).unwrap_or(usize::MAX);
            let Some(bytes) = old.next_part(limit.min(LONG_CHUNK_BYTES))? else {
                return Err(ClientError::LocalChanged(old.path().into()));
            };
            sink.write(&bytes)?;
            hasher.update(&bytes);
            rest.start += bytes.len() as u64;
        }
    }
    old.check_unchanged()?;
    Ok((sink, hasher.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(name: u8) -> ContentChunk {
        ContentChunk {
            length: 10,
            hash: [name; 16],
        }
    }

    #[test]
    fn adjacent_parts_are_one_step_and_each_missing_part_one_range() {
        let (mut index, mut position) = (ChunkIndex::new(), 0);
        for name in [1, 2, 3] {
            add_chunk(&mut index, &mut position, chunk(name));
        }
        let new = [8, 9, 1, 2, 1, 7].map(chunk);
        let planned = steps(&new, &index);
        let expected = [
            AssemblyStep::Remote(0..20),
            AssemblyStep::Local(0..20),
            AssemblyStep::Local(0..10),
            AssemblyStep::Remote(50..60),
        ];
        assert_eq!(planned, expected);
        let ranges = next_ranges(&planned);
        let ranges: Vec<_> = ranges.into_iter().map(RequestedRange::to_range).collect();
        assert_eq!(ranges, [0..20, 50..60]);
    }

    #[test]
    fn a_request_has_few_ranges_with_few_local_bytes_between_them() {
        let remote = |start: u64| AssemblyStep::Remote(start..start + 1);
        let many: Vec<_> = (0..2 * MAX_RANGES as u64)
            .map(|one| remote(2 * one))
            .collect();
        assert_eq!(next_ranges(&many).len(), MAX_RANGES);
        let far = [
            remote(0),
            AssemblyStep::Local(0..MAX_LOCAL_BYTES),
            AssemblyStep::Local(0..1),
            remote(MAX_LOCAL_BYTES + 2),
        ];
        assert_eq!(next_ranges(&far).len(), 1);
    }
}
