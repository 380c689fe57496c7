//! `get`: a file to the client, as data frames with its digest behind them.

use std::ops::Range;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::connection::{CHUNK, Outbox};
use crate::protocol::{
    Algorithm, Digest, DigestChoice, Get, GetBegin, GetReply, Hasher, encode_begin, encode_ok,
};
use crate::server::CommandError;
use crate::server::disk::Opened;
use crate::server::hashing;
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
        transfer.hash_prefix().await?;
        while !transfer.rest.is_empty() {
            member.pace_down(transfer.next_length()).await;
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
struct Sending<'a> {
    member: &'a Member,
    file: Opened,
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

impl Wanted {
    fn of(file: &StoredFile, get: &Get) -> Self {
        let algorithm = match get.digest {
            Some(DigestChoice::None(_)) => return Self::None,
            Some(DigestChoice::Of(algorithm)) => algorithm,
            None => Algorithm::default(),
        };
        if get.length.is_some() {
            return Self::Part(Hasher::new(algorithm));
        }
        match file.kept_digest(algorithm) {
            Some(kept) if get.offset > Some(0) => Self::Kept(kept),
            _ => Self::Whole(file.verifier(algorithm)),
        }
    }
}

impl<'a> Sending<'a> {
    async fn open(get: Get, member: &'a Member) -> Result<Self, CommandError> {
        let path = member.resolve(&get.path)?;
        let offset = get.offset.unwrap_or(0);
        let length = get.length.unwrap_or(u64::MAX);
        let (file, digest) = member
            .with_view(move |view| {
                let file = view.open(&path, get.version.as_deref())?;
                let size = file.info().size;
                if offset > size {
                    return Err(StorageError::OffsetOutOfRange { path, size });
                }
                let digest = Wanted::of(&file, &get);
                Ok((Opened::new(file), digest))
            })
            .await?;
        let end = offset + length.min(file.info().size - offset);
        Ok(Self {
            member,
            file,
            offset,
            rest: offset..end,
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
    async fn hash_prefix(&mut self) -> Result<(), CommandError> {
        if let Wanted::Whole(verifier) = &mut self.digest
            && self.offset > 0
        {
            let begun = verifier.clone();
            *verifier = hashing::hash(self.member, &self.file, begun, 0..self.offset).await?;
        }
        Ok(())
    }

    /// Bytes of the next chunk.
    fn next_length(&self) -> usize {
        let rest = usize::try_from(self.rest.end - self.rest.start);
        rest.map_or(CHUNK, |rest| rest.min(CHUNK))
    }

    /// The next bytes, hashed on the thread that reads them.
    async fn next_chunk(&mut self) -> Result<Bytes, CommandError> {
        let file = self.file.share();
        let start = self.rest.start;
        let length = self.next_length();
        let mut digest = std::mem::replace(&mut self.digest, Wanted::None);
        let work = move || {
            let chunk = file.read_at(start, length)?;
            match &mut digest {
                Wanted::Whole(verifier) => verifier.update(&chunk),
                Wanted::Part(hasher) => hasher.update(&chunk),
                Wanted::None | Wanted::Kept(_) => {}
            }
            Ok((chunk, digest))
        };
        let (chunk, digest) = self.member.disk.run(work).await?;
        self.digest = digest;
        self.rest.start += chunk.len() as u64;
        Ok(chunk)
    }

    /// Makes sure that what was sent is one state of the file, and no other than was committed.
    async fn finish(self) -> Result<GetReply, CommandError> {
        let file = self.file.share();
        let work = move || {
            file.check_unchanged()?;
            let digest = match self.digest {
                Wanted::None => None,
                Wanted::Kept(digest) => Some(digest),
                Wanted::Whole(verifier) => Some(verifier.finish(&file)?),
                Wanted::Part(hasher) => Some(hasher.finish()),
            };
            let size = file.info().size;
            Ok(GetReply { size, digest })
        };
        self.member.disk.run(work).await
    }
}
