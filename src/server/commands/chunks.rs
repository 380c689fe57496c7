//! `chunks`: sends the lengths and the hashes of a file's content chunks.

use bytes::Bytes;

use crate::connection::{Outbox, SHORT_CHUNK_BYTES};
use crate::protocol::{
    CUTTING, Chunks, ChunksBegin, ChunksReply, ContentChunk, ContentChunker, encode_begin,
    encode_ok,
};
use crate::server::disk::OpenedFile;
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::server::session::request_log::RequestOutcome;
use crate::server::transfer::hashing::MAX_HASH_SLICE_BYTES;
use crate::server::transfer::running_transfers::TransferGuard;
use crate::storage::{StorageError, StoredFile};

/// Sends the records of the file's content chunks on stream `id`. A session hashes one file at a time,
/// and holds no digest permit while its client reads.
pub(crate) async fn chunks(
    id: u32,
    chunks: Chunks,
    member: &Member,
    outbox: &Outbox,
    transfer: &TransferGuard,
) -> RequestOutcome {
    let mut sent = 0;
    let work = async {
        let hashing_permit = member.hash_permit.clone();
        let _permit = hashing_permit.acquire().await;
        let file = open(chunks, member).await?;
        let info = file.info();
        let (size, version) = (info.size, info.version.clone().unwrap_or_default());
        let begin = ChunksBegin {
            size,
            version: version.clone(),
            cutting: CUTTING.into(),
        };
        outbox.send(encode_begin(id, &begin)).await?;
        let mut lister = ChunkLister::default();
        while lister.offset < size {
            let records = lister.next_records(&file, member).await?;
            if records.is_empty() {
                continue;
            }
            member.throttle_download(records.len()).await;
            let slot = outbox.data_slot().await?;
            file.check_access()?;
            sent += records.len() as u64;
            transfer.progress.add_moved(records.len() as u64);
            slot.send(id, records);
        }
        let count = lister.count;
        let shared = file.share();
        member.disk.run(move || shared.check_unchanged()).await?;
        let reply = ChunksReply {
            count,
            size,
            version,
        };
        Ok(encode_ok(id, &reply))
    };
    let reply = transfer.cancel.run_until_cancelled(work).await;
    RequestOutcome {
        reply: reply.unwrap_or(Err(CommandError::Cancelled)),
        bytes: sent,
        upload: None,
    }
}

async fn open(chunks: Chunks, member: &Member) -> Result<OpenedFile, CommandError> {
    let path = member.resolve(&chunks.path)?;
    let (descriptors, disk) = (member.disk.acquire_file().await?, member.disk.clone());
    member
        .with_view(move |view| {
            let file = view.open(&path, chunks.version.as_deref())?;
            Ok(OpenedFile::new(file, disk, descriptors))
        })
        .await
}

/// The position in a file whose content chunks are listed.
#[derive(Default)]
struct ChunkLister {
    chunker: ContentChunker,
    offset: u64,
    count: u64,
}

impl ChunkLister {
    /// Reads the next slice of the file on a disk thread, and returns the records of its chunks.
    async fn next_records(
        &mut self,
        file: &OpenedFile,
        member: &Member,
    ) -> Result<Bytes, CommandError> {
        let end = file.info().size.min(self.offset + MAX_HASH_SLICE_BYTES);
        let grant = member.disk.acquire_digest().await?;
        let (file, mut lister) = (file.share(), std::mem::take(self));
        let work = move || {
            let records = lister.list_until(&file, end)?;
            Ok((records, lister))
        };
        let (records, lister) = member.disk.run_with_grant(grant, work).await?;
        *self = lister;
        Ok(records.into())
    }

    fn list_until(&mut self, file: &StoredFile, end: u64) -> Result<Vec<u8>, StorageError> {
        let mut records = Vec::new();
        let mut count = 0;
        let mut add = |chunk: ContentChunk, _: &[u8]| {
            chunk.put_record(&mut records);
            count += 1;
        };
        let mut bytes = Vec::new();
        while self.offset < end {
            let length = usize::try_from(end - self.offset)
                .map_or(SHORT_CHUNK_BYTES, |rest| rest.min(SHORT_CHUNK_BYTES));
            file.read_into(&mut bytes, self.offset, length)?;
            self.chunker.update(&bytes, &mut add);
            self.offset += length as u64;
        }
        if end == file.info().size {
            std::mem::take(&mut self.chunker).finish(add);
        }
        self.count += count;
        Ok(records)
    }
}
