//! `get`: sends a file as data frames, then its digest.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::connection::{
    BlockingPool, ChunkLength, FilePart, FileSource, Outbox, OutboxClosed, SHORT_CHUNK_BYTES,
    SendOutcome,
};
use crate::protocol::{
    Algorithm, Digest, DigestChoice, Get, GetBegin, GetReply, Hasher, MAX_RANGES, encode_begin,
    encode_ok,
};
use crate::server::disk::OpenedFile;
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::server::session::request_log::RequestOutcome;
use crate::server::transfer::hashing;
use crate::server::transfer::running_transfers::TransferGuard;
use crate::storage::{StorageError, StoredFile, Verifier, View, VirtualPath};

/// Parts that may be queued for sendfile at the same time.
const MAX_QUEUED_PARTS: usize = 3;

/// Sends the requested bytes on stream `id`, once `sending` has a permit.
pub(crate) async fn get(
    id: u32,
    get: Get,
    member: &Member,
    outbox: &Outbox,
    sending: &Semaphore,
    transfer: &TransferGuard,
) -> RequestOutcome {
    let progress = &transfer.progress;
    let mut sent = 0;
    let work = async {
        let _permit = sending.acquire().await;
        let mut sender = FileSender::open(get, member).await?;
        let begin = begin(&sender.file, &sender.rest, &sender.later);
        progress.set_start(Some(begin.size), begin.offset);
        outbox.send(encode_begin(id, &begin)).await?;
        sender.hash_prefix(&transfer.cancel).await?;
        let sending = sender.send(id, outbox, |bytes| {
            sent += bytes;
            progress.add_moved(bytes);
        });
        sending.await?;
        let reply = sender.finish().await?;
        Ok(encode_ok(id, &reply))
    };
    let reply = transfer.cancel.run_until_cancelled(work).await;
    RequestOutcome {
        reply: reply.unwrap_or(Err(CommandError::Cancelled)),
        bytes: sent,
        upload: None,
    }
}

/// A file that is sent.
struct FileSender<'a> {
    member: &'a Member,
    file: OpenedFile,
    offset: u64,
    rest: Range<u64>,
    /// The ranges after `rest`.
    later: VecDeque<Range<u64>>,
    digest: RequestedDigest,
}

impl FileSource for StoredFile {
    fn check(&self) -> io::Result<()> {
        self.check_access().map_err(io::Error::other)
    }
}

/// The source of the digest in the final reply.
enum RequestedDigest {
    /// No digest.
    None,
    /// The digest that was kept with the file. The client compares it.
    Kept(Digest),
    /// Of the whole file: the bytes before the offset are read too.
    Whole(Verifier),
    /// Of the bytes sent.
    Part(Hasher),
}

impl RequestedDigest {
    fn of(file: &StoredFile, get: &Get) -> Self {
        let algorithm = match get.digest {
            Some(DigestChoice::None(_)) => return Self::None,
            Some(DigestChoice::Of(algorithm)) => algorithm,
            None => Algorithm::default(),
        };
        if get.length.is_some() || get.ranges.is_some() {
            return Self::Part(Hasher::new(algorithm));
        }
        // A client that names the digest compares it, and detects if the bytes have changed since it was
        // stored.
        let is_compared = get.digest.is_some() || get.offset > Some(0);
        match file.kept_digest(algorithm) {
            Some(kept) if is_compared => Self::Kept(kept),
            _ => Self::Whole(file.verifier(algorithm)),
        }
    }
}

/// Opens the file, and resolves the range and the digest of the request.
fn open_range(
    view: &View,
    path: VirtualPath,
    get: &Get,
) -> Result<(StoredFile, Range<u64>, RequestedDigest), StorageError> {
    let file = view.open(&path, get.version.as_deref())?;
    let offset = get.offset.unwrap_or(0);
    let size = file.info().size;
    if offset > size {
        return Err(StorageError::OffsetOutOfRange { path, size });
    }
    let length = get.length.unwrap_or(u64::MAX).min(size - offset);
    let digest = RequestedDigest::of(&file, get);
    Ok((file, offset..offset + length, digest))
}

/// The ranges of the request, if it has any.
///
/// # Errors
/// [`CommandError::InvalidField`] if they are none or too many, beside an offset or a length, or not in
/// order.
fn ranges(get: &Get) -> Result<Option<VecDeque<Range<u64>>>, CommandError> {
    let Some(ranges) = &get.ranges else {
        return Ok(None);
    };
    let invalid = |message: &str| Err(CommandError::invalid_field("ranges", message));
    if get.offset.is_some() || get.length.is_some() {
        return invalid("a get has ranges, or an offset and a length");
    }
    if !(1..=MAX_RANGES).contains(&ranges.len()) {
        return invalid(&format!("a get has 1 to {MAX_RANGES} ranges"));
    }
    let ranges: VecDeque<_> = ranges.iter().map(|range| range.to_range()).collect();
    let mut neighbours = ranges.iter().zip(ranges.iter().skip(1));
    if !neighbours.all(|(one, next)| one.end <= next.start) {
        return invalid("the ranges must be in ascending order and must not overlap");
    }
    Ok(Some(ranges))
}

fn begin(file: &StoredFile, range: &Range<u64>, later: &VecDeque<Range<u64>>) -> GetBegin {
    let info = file.info();
    let later: u64 = later.iter().map(|range| range.end - range.start).sum();
    GetBegin {
        size: info.size,
        offset: range.start,
        length: range.end - range.start + later,
        modified: info.modified,
        mode: info.mode,
        version: info.version.clone().unwrap_or_default(),
    }
}

/// The replies and the content for a small file.
pub(crate) struct SmallFileReply {
    pub(crate) begin: GetBegin,
    pub(crate) content: Bytes,
    pub(crate) reply: GetReply,
}

/// Reads the requested bytes, on a disk thread; `None` if they are more than one chunk or several ranges,
/// or if the digest needs the bytes before them.
pub(crate) fn get_small(
    view: &View,
    path: VirtualPath,
    get: &Get,
) -> Result<Option<SmallFileReply>, StorageError> {
    if get.ranges.is_some() {
        return Ok(None);
    }
    let (file, range, digest) = open_range(view, path, get)?;
    let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let needs_prefix = range.start > 0 && matches!(digest, RequestedDigest::Whole(_));
    if length > SHORT_CHUNK_BYTES || needs_prefix {
        return Ok(None);
    }
    let content = file.read_at(range.start, length)?;
    file.check_unchanged()?;
    let digest = match digest {
        RequestedDigest::None => None,
        RequestedDigest::Kept(digest) => Some(digest),
        RequestedDigest::Whole(mut verifier) => {
            verifier.update(&content);
            Some(verifier.finish(&file)?)
        }
        RequestedDigest::Part(mut hasher) => {
            hasher.update(&content);
            Some(hasher.finish())
        }
    };
    let size = file.info().size;
    Ok(Some(SmallFileReply {
        begin: begin(&file, &range, &VecDeque::new()),
        content,
        reply: GetReply { size, digest },
    }))
}

impl<'a> FileSender<'a> {
    async fn open(get: Get, member: &'a Member) -> Result<Self, CommandError> {
        let path = member.resolve(&get.path)?;
        let ranges = ranges(&get)?;
        let (descriptors, disk) = (member.disk.acquire_file().await?, member.disk.clone());
        let found = member.with_view(move |view| {
            let (file, whole, digest) = open_range(view, path, &get)?;
            let mut later = ranges.unwrap_or_else(|| VecDeque::from([whole]));
            let rest = later.pop_front().unwrap_or_default();
            file.check_range(0..later.back().unwrap_or(&rest).end)?;
            let file = OpenedFile::new(file, disk, descriptors);
            Ok((file, (rest, later), digest))
        });
        let (file, (rest, later), digest) = found.await?;
        Ok(Self {
            member,
            file,
            offset: rest.start,
            rest,
            later,
            digest,
        })
    }

    /// Hashes the bytes before the offset, if the digest needs them.
    async fn hash_prefix(&mut self, cancel: &CancellationToken) -> Result<(), CommandError> {
        if let RequestedDigest::Whole(verifier) = &mut self.digest
            && self.offset > 0
        {
            let begun = verifier.clone();
            *verifier =
                hashing::hash(&self.member.disk, cancel, &self.file, begun, 0..self.offset).await?;
        }
        Ok(())
    }

    /// Whether the sent bytes are hashed in this process.
    fn hashes_sent_bytes(&self) -> bool {
        matches!(
            self.digest,
            RequestedDigest::Whole(_) | RequestedDigest::Part(_)
        )
    }

    /// Sends the bytes: by sendfile, unless they have to be hashed or encrypted here.
    async fn send(
        &mut self,
        id: u32,
        outbox: &Outbox,
        mut sent: impl FnMut(u64),
    ) -> Result<(), CommandError> {
        let uses_sendfile = outbox.supports_sendfile() && !self.hashes_sent_bytes();
        let threads: Arc<dyn BlockingPool> = Arc::new(self.member.disk.clone());
        let mut chunk_length = ChunkLength::default();
        let mut queued_parts = VecDeque::new();
        while self.has_more() {
            let length = self.next_length(chunk_length.bytes());
            self.member.throttle_download(length).await;
            let waiting_since = Instant::now();
            let slot = outbox.data_slot().await?;
            if !self.member.has_bandwidth_limit() {
                chunk_length.adapt(waiting_since.elapsed());
            }
            self.file.check_access()?;
            if uses_sendfile {
                let (file, start) = (self.file.share(), self.rest.start);
                let (part, outcome) = FilePart::new(id, file, start, length, Arc::clone(&threads));
                slot.send_part(part);
                self.rest.start += length as u64;
                queued_parts.push_back(outcome);
            } else {
                slot.send(id, self.next_chunk(length).await?);
            }
            sent(length as u64);
            if queued_parts.len() >= MAX_QUEUED_PARTS
                && let Some(part) = queued_parts.pop_front()
            {
                self.wait_for_part(part).await?;
            }
        }
        for part in queued_parts {
            self.wait_for_part(part).await?;
        }
        Ok(())
    }

    /// Waits until a part is sent.
    async fn wait_for_part(&self, part: SendOutcome) -> Result<(), CommandError> {
        match part.await {
            Ok(Err(error)) => {
                self.file.check_access()?;
                Err(self.file.unreadable(error).into())
            }
            Ok(Ok(())) => Ok(()),
            Err(_) => Err(OutboxClosed.into()),
        }
    }

    /// Whether bytes are to be sent. The next ones are in `rest` then.
    fn has_more(&mut self) -> bool {
        if self.rest.is_empty()
            && let Some(next) = self.later.pop_front()
        {
            self.rest = next;
        }
        !self.rest.is_empty()
    }

    /// The length of the next chunk.
    fn next_length(&self, max_bytes: usize) -> usize {
        let rest = usize::try_from(self.rest.end - self.rest.start);
        rest.map_or(max_bytes, |rest| rest.min(max_bytes))
    }

    /// Reads the next bytes and hashes them on the same thread.
    async fn next_chunk(&mut self, length: usize) -> Result<Bytes, CommandError> {
        let file = self.file.share();
        let start = self.rest.start;
        let mut digest = std::mem::replace(&mut self.digest, RequestedDigest::None);
        let work = move || {
            let chunk = file.read_at(start, length)?;
            match &mut digest {
                RequestedDigest::Whole(verifier) => verifier.update(&chunk),
                RequestedDigest::Part(hasher) => hasher.update(&chunk),
                RequestedDigest::None | RequestedDigest::Kept(_) => {}
            }
            Ok((chunk, digest))
        };
        let (chunk, digest) = self.member.disk.run(work).await?;
        self.digest = digest;
        self.rest.start += chunk.len() as u64;
        Ok(chunk)
    }

    /// Checks that the sent bytes are one state of the file, as it was committed.
    async fn finish(self) -> Result<GetReply, CommandError> {
        let file = self.file.share();
        let work = move || {
            file.check_unchanged()?;
            let digest = match self.digest {
                RequestedDigest::None => None,
                RequestedDigest::Kept(digest) => Some(digest),
                RequestedDigest::Whole(verifier) => Some(verifier.finish(&file)?),
                RequestedDigest::Part(hasher) => Some(hasher.finish()),
            };
            let size = file.info().size;
            Ok(GetReply { size, digest })
        };
        self.member.disk.run(work).await
    }
}
