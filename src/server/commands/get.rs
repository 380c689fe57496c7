//! `get`: a file to the client, as data frames with its digest behind them.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::connection::{CHUNK, Outbox};
use crate::protocol::{
    Algorithm, Digest, DigestChoice, Get, GetBegin, GetReply, Hasher, encode_begin, encode_ok,
};
use crate::server::CommandError;
use crate::server::disk::blocking;
use crate::server::job::Outcome;
use crate::server::member::Member;
use crate::storage::{StorageError, StoredFile, Verifier};

/// Sends what `get` asks for on stream `id`, once `sending` has a turn for it.
pub(in crate::server) async fn get(
    id: u32,
    get: Get,
    member: &Member,
    outbox: &Outbox,
    sending: &Semaphore,
    cancel: &CancellationToken,
) -> Outcome {
    let mut sent = 0;
    let work = async {
        let _turn = sending.acquire().await;
        let mut transfer = Sending::open(get, member).await?;
        outbox.send(encode_begin(id, &transfer.begin())).await?;
        transfer.hash_prefix(member).await?;
        while !transfer.rest.is_empty() {
            let slot = outbox.data_slot().await?;
            let chunk = transfer.next_chunk().await?;
            sent += chunk.len() as u64;
            slot.send(id, chunk);
        }
        let reply = transfer.finish().await?;
        Ok(encode_ok(id, &reply))
    };
    let reply = cancel.run_until_cancelled(work).await;
    Outcome {
        reply: reply.unwrap_or(Err(CommandError::Cancelled)),
        bytes: sent,
    }
}

/// A file on its way out.
struct Sending {
    file: Arc<StoredFile>,
    offset: u64,
    rest: Range<u64>,
    digest: Wanted,
}

/// Where the digest of the final reply comes from.
enum Wanted {
    /// No digest.
    None,
    /// It was kept with the file, and not all bytes pass here to check it.
    Kept(Digest),
    /// Of the whole file: the bytes before the offset are read too.
    Whole(Verifier),
    /// Of the bytes sent.
    Part(Hasher),
}

impl Sending {
    async fn open(get: Get, member: &Member) -> Result<Self, CommandError> {
        let path = member.resolve(&get.path)?;
        let version = get.version;
        let opened = path.clone();
        let file = member
            .disk(move |view| view.open(&opened, version.as_deref()))
            .await?;
        let size = file.info().size;
        let offset = get.offset.unwrap_or(0);
        if offset > size {
            return Err(StorageError::OffsetOutOfRange { path, size }.into());
        }
        let length = get.length.unwrap_or(u64::MAX).min(size - offset);
        let digest = match get.digest.unwrap_or(DigestChoice::Of(Algorithm::default())) {
            DigestChoice::None(_) => Wanted::None,
            DigestChoice::Of(algorithm) if get.length.is_some() => {
                Wanted::Part(Hasher::new(algorithm))
            }
            DigestChoice::Of(algorithm) => match file.kept_digest(algorithm) {
                Some(kept) if offset > 0 => Wanted::Kept(kept),
                _ => Wanted::Whole(file.verifier(algorithm)),
            },
        };
        Ok(Self {
            file: Arc::new(file),
            offset,
            rest: offset..offset + length,
            digest,
        })
    }

    fn begin(&self) -> GetBegin {
        let info = self.file.info();
        GetBegin {
            size: info.size,
            offset: self.offset,
            length: self.rest.end - self.rest.start,
            modified: info.modified,
            version: info.version.clone().unwrap_or_default(),
        }
    }

    /// Reads the bytes before the offset, where the digest needs them.
    async fn hash_prefix(&mut self, member: &Member) -> Result<(), CommandError> {
        if !matches!(self.digest, Wanted::Whole(_)) {
            return Ok(());
        }
        let _turn = match self.offset {
            0 => return Ok(()),
            _ => member.shared.digests.acquire().await,
        };
        let end = std::mem::replace(&mut self.rest, 0..self.offset);
        while !self.rest.is_empty() {
            self.next_chunk().await?;
        }
        self.rest = end;
        Ok(())
    }

    /// The next bytes, hashed on the thread that reads them.
    async fn next_chunk(&mut self) -> Result<Bytes, CommandError> {
        let file = self.file.clone();
        let start = self.rest.start;
        let length = usize::try_from(self.rest.end - start).map_or(CHUNK, |rest| rest.min(CHUNK));
        let mut digest = std::mem::replace(&mut self.digest, Wanted::None);
        let (chunk, digest) = blocking(move || {
            let chunk = file.read_at(start, length)?;
            match &mut digest {
                Wanted::Whole(verifier) => verifier.update(&chunk),
                Wanted::Part(hasher) => hasher.update(&chunk),
                Wanted::None | Wanted::Kept(_) => {}
            }
            Ok((chunk, digest))
        })
        .await?;
        self.digest = digest;
        self.rest.start += chunk.len() as u64;
        Ok(chunk)
    }

    /// Makes sure that what was sent is one state of the file, and no other than was committed.
    async fn finish(self) -> Result<GetReply, CommandError> {
        blocking(move || {
            self.file.check_unchanged()?;
            let size = self.file.info().size;
            let digest = match self.digest {
                Wanted::None => None,
                Wanted::Kept(digest) => Some(digest),
                Wanted::Whole(verifier) => Some(verifier.finish(&self.file)?),
                Wanted::Part(hasher) => Some(hasher.finish()),
            };
            Ok(GetReply { size, digest })
        })
        .await
    }
}
