//! The upload of a changed file: the server copies the parts that its old version has.

use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::client::delta::chunk_list::{ChunkIndex, ChunkList, DeltaBytes, is_worth_while};
use crate::client::delta::resumption::ResumptionProgress;
use crate::client::transfer::blocking::{blocking, joined};
use crate::client::transfer::options::{FileOptions, QUEUED_CHUNKS};
use crate::client::transfer::progress::FileProgress;
use crate::client::transfer::send::hash_between;
use crate::client::transfer::source::LocalFile;
use crate::client::{Client, ClientError, Progress, PutOptions, Session, UploadStream};
use crate::connection::LONG_CHUNK_BYTES;
use crate::protocol::{
    Algorithm, ContentChunk, ContentChunker, Digest, Hasher, IfExists, MAX_COPY_BYTES, PutBegin,
    PutReply,
};

impl Session {
    /// As [`put_file`](Self::put_file), but sends only what differs from the file that it replaces, if both
    /// are larger than 4 MiB.
    ///
    /// # Errors
    /// Those of [`put_file`](Self::put_file).
    pub async fn put_delta(
        &self,
        local: &Path,
        remote: &str,
        options: FileOptions,
        progress: &Progress,
    ) -> Result<(PutReply, DeltaBytes), ClientError> {
        progress.found_file(0);
        progress.found_all();
        self.put_found_delta(local.to_owned(), remote, 0, options, progress)
            .await
    }

    /// [`put_delta`](Self::put_delta) of a file that was counted with `found` bytes.
    pub(crate) async fn put_found_delta(
        &self,
        local: PathBuf,
        remote: &str,
        found: u64,
        options: FileOptions,
        progress: &Progress,
    ) -> Result<(PutReply, DeltaBytes), ClientError> {
        if options.if_exists.unwrap_or(IfExists::Replace) == IfExists::Replace {
            let _resumable = self.resumable_upload();
            let resumption = &ResumptionProgress::new(self);
            let attempt = |client: Client| {
                let local = local.clone();
                async move {
                    let mut file = progress.file(found);
                    let put = (local, remote, options);
                    let sent = send_changes(&client, put, resumption, &mut file).await;
                    if !matches!(sent, Ok(Some(_))) {
                        file.go_to(0);
                        file.expect(found);
                    }
                    sent
                }
            };
            let has_advanced = || resumption.has_advanced();
            let retried = self.retry_resumable(progress, has_advanced, attempt);
            if let Ok(Some(sent)) = Box::pin(retried).await {
                progress.finished_file();
                progress.saved(sent.1.saved);
                return Ok(sent);
            }
        }
        let whole = self.put_found(local, remote, found, options, progress, false);
        let reply = whole.await?;
        let transferred = reply.size;
        Ok((
            reply,
            DeltaBytes {
                transferred,
                saved: 0,
            },
        ))
    }
}

/// Puts the changes over one connection; `None` if the whole file must be put. Bytes that the server kept
/// of an earlier attempt are not sent again.
async fn send_changes(
    client: &Client,
    (local, remote, options): (PathBuf, &str, FileOptions),
    resumption: &ResumptionProgress<'_>,
    progress: &mut FileProgress,
) -> Result<Option<(PutReply, DeltaBytes)>, ClientError> {
    let source = blocking(move || LocalFile::open(&local)).await?;
    let Some(size) = source.size.filter(|size| is_worth_while(*size)) else {
        return Ok(None);
    };
    let Some(list) = ChunkList::fetch(client, remote, None).await? else {
        return Ok(None);
    };
    let mut bytes = DeltaBytes {
        transferred: list.wire_bytes(),
        saved: 0,
    };
    let put = PutOptions {
        size: Some(size),
        if_exists: options.if_exists,
        modified: source.modified,
        mode: source.mode.filter(|_| client.has_feature("mode")),
        parents: options.parents,
        algorithm: options.algorithm,
        resume: true,
    };
    let mut upload = client.put_with_base(remote, put, &list.version).await?;
    let begin = upload.begun().await?;
    let offset = begin.offset;
    let Some(source) = check_prefix(source, begin, options.algorithm).await? else {
        upload.cancel().await?;
        return Ok(None);
    };
    upload.continue_at(offset, Hasher::new(options.algorithm));
    resumption.resumed_at(offset);
    progress.expect(size);
    progress.go_to(offset);
    let digest = send_parts(&mut upload, source, list, offset, |part, length| {
        progress.moved(length);
        match part {
            PartKind::Data => bytes.transferred += length as u64,
            PartKind::Copy => bytes.saved += length as u64,
        }
    });
    let digest = digest.await?;
    let reply = upload.finish_with(digest).await?;
    Ok(Some((reply, bytes)))
}

/// Compares the bytes that the server has with those of the file; `None` if they differ.
async fn check_prefix(
    mut source: LocalFile,
    begin: PutBegin,
    algorithm: Algorithm,
) -> Result<Option<LocalFile>, ClientError> {
    let Some(prefix) = begin.prefix.filter(|_| begin.offset > 0) else {
        return Ok((begin.offset == 0).then_some(source));
    };
    blocking(move || {
        let fresh = Hasher::new(algorithm);
        let hasher = hash_between(&mut source, (0, fresh), begin.offset)?;
        Ok((hasher.finish() == prefix).then_some(source))
    })
    .await
}

/// Where the bytes of a part come from.
#[derive(Clone, Copy)]
enum PartKind {
    Data,
    Copy,
}

/// Sends the file from `offset` on, and returns its digest. Calls `sent` for each part.
async fn send_parts(
    upload: &mut UploadStream,
    mut source: LocalFile,
    list: ChunkList,
    offset: u64,
    mut sent: impl FnMut(PartKind, usize),
) -> Result<Digest, ClientError> {
    let algorithm = upload.algorithm();
    let (sender, mut parts) = mpsc::channel(QUEUED_CHUNKS);
    let reading = spawn_blocking(move || {
        source.go_to(0)?;
        let encoder = DeltaEncoder {
            index: list.into_index(),
            skipped: offset,
            pending: None,
            sender,
        };
        encoder.run(&mut source, algorithm)
    });
    while let Some(part) = parts.recv().await {
        match part {
            DeltaPart::Data(bytes) => {
                let length = bytes.len();
                upload.write_unhashed(bytes.freeze()).await?;
                sent(PartKind::Data, length);
            }
            DeltaPart::Copy(range) => {
                let length = range.end - range.start;
                upload.copy(range.start, length).await?;
                sent(
                    PartKind::Copy,
                    usize::try_from(length).unwrap_or(usize::MAX),
                );
            }
        }
    }
    joined(reading.await)
}

/// A part of the new file.
#[derive(Debug)]
enum DeltaPart {
    /// Bytes that the server does not have.
    Data(BytesMut),
    /// A part of the server's old version.
    Copy(Range<u64>),
}

/// Cuts the new file, and describes it by bytes and parts of the old version. It blocks on the disk.
struct DeltaEncoder {
    index: ChunkIndex,
    /// Bytes at the start of the file that the server has already.
    skipped: u64,
    /// The last part, which the next chunk may extend.
    pending: Option<DeltaPart>,
    sender: mpsc::Sender<DeltaPart>,
}

impl DeltaEncoder {
    fn run(mut self, source: &mut LocalFile, algorithm: Algorithm) -> Result<Digest, ClientError> {
        let mut hasher = Hasher::new(algorithm);
        let (mut chunker, mut block) = (ContentChunker::default(), Vec::new());
        let mut added = Ok(());
        while source.read_part(&mut block, LONG_CHUNK_BYTES)? {
            hasher.update(&block);
            chunker.update(&block, |chunk, bytes| {
                if added.is_ok() {
                    added = self.add(chunk, bytes);
                }
            });
            std::mem::replace(&mut added, Ok(()))?;
        }
        chunker.finish(|chunk, bytes| {
            if added.is_ok() {
                added = self.add(chunk, bytes);
            }
        });
        added?;
        self.flush()?;
        source.finish(hasher)
    }

    fn add(&mut self, chunk: ContentChunk, bytes: &[u8]) -> Result<(), ClientError> {
        let skipped = self.skipped.min(bytes.len() as u64);
        self.skipped -= skipped;
        let bytes = &bytes[usize::try_from(skipped).unwrap_or(bytes.len())..];
        if bytes.is_empty() {
            return Ok(());
        }
        match self.index.get(&chunk) {
            Some(start) => self.add_copy(start + skipped..start + u64::from(chunk.length)),
            None => self.add_data(bytes),
        }
    }

    fn add_copy(&mut self, range: Range<u64>) -> Result<(), ClientError> {
        if let Some(DeltaPart::Copy(last)) = &mut self.pending
            && last.end == range.start
            && range.end - last.start <= MAX_COPY_BYTES
        {
            last.end = range.end;
            return Ok(());
        }
        self.flush()?;
        self.pending = Some(DeltaPart::Copy(range));
        Ok(())
    }

    fn add_data(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        if let Some(DeltaPart::Data(last)) = &mut self.pending
            && last.len() + bytes.len() <= LONG_CHUNK_BYTES
        {
            last.extend_from_slice(bytes);
            return Ok(());
        }
        self.flush()?;
        self.pending = Some(DeltaPart::Data(bytes.into()));
        Ok(())
    }

    /// Passes on the last part. Fails if the upload has ended, which has its own error.
    fn flush(&mut self) -> Result<(), ClientError> {
        let Some(part) = self.pending.take() else {
            return Ok(());
        };
        let sent = self.sender.blocking_send(part);
        sent.map_err(|_| ClientError::TransferEnded)
    }
}
