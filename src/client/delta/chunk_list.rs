//! The content chunks of a file on the server.

use std::collections::HashMap;

use bytes::BytesMut;

use crate::client::connection::{TransferPart, parse};
use crate::client::transfer::request::Transfer;
use crate::client::{Client, ClientError};
use crate::protocol::{CUTTING, Chunks, ChunksBegin, ChunksReply, ContentChunk};

/// Smaller files are transferred whole: the list of chunks would cost a round trip for few bytes.
const MIN_DELTA_BYTES: u64 = 4 * 1024 * 1024;

/// The most chunks of a file that is transferred by its changes. Both tables of them fit in less than 100 MB.
pub(super) const MAX_CHUNKS: usize = 1 << 20;

/// The bytes of a transfer that used an old version of the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeltaBytes {
    /// Bytes of the file, and of lists of chunks, that crossed the network.
    pub transferred: u64,
    /// Bytes of the file that the receiving side had.
    pub saved: u64,
}

/// Whether it is worth while to transfer the changes of a file of this size.
pub(crate) fn is_worth_while(size: u64) -> bool {
    size > MIN_DELTA_BYTES
}

/// The positions of content chunks in a file.
pub(super) type ChunkIndex = HashMap<ContentChunk, u64>;

/// Adds the next chunk of a file to the index. The first of several equal chunks stays.
pub(super) fn add_chunk(index: &mut ChunkIndex, position: &mut u64, chunk: ContentChunk) {
    index.entry(chunk).or_insert(*position);
    *position += u64::from(chunk.length);
}

/// The content chunks of one version of a file on the server.
pub(super) struct ChunkList {
    pub(super) version: String,
    pub(super) chunks: Vec<ContentChunk>,
}

impl ChunkList {
    /// Asks for the list; `None` if the file is too small or has too many chunks, or the server cuts in
    /// another way.
    pub(super) async fn fetch(
        client: &Client,
        path: &str,
        version: Option<String>,
    ) -> Result<Option<Self>, ClientError> {
        let path = path.to_owned();
        let (pending, mut parts) = client.connection.get(&Chunks { path, version }).await?;
        let mut transfer = Transfer::new(client, pending);
        let begin: ChunksBegin = match parts.recv().await {
            Some(TransferPart::Begin(begin)) => parse(&begin)?,
            Some(TransferPart::Chunk(_)) => return Err(invalid("records before their begin")),
            None => {
                transfer.reply::<ChunksReply>().await?;
                return Err(invalid("the end of a list of chunks before its begin"));
            }
        };
        if begin.cutting != CUTTING || !is_worth_while(begin.size) {
            return Ok(None);
        }
        let (mut chunks, mut unread) = (Vec::new(), BytesMut::new());
        while let Some(part) = parts.recv().await {
            let TransferPart::Chunk(bytes) = part else {
                return Err(invalid("a second begin"));
            };
            unread.extend_from_slice(&bytes);
            while let Some(record) = unread.first_chunk() {
                let chunk = ContentChunk::from_record(record);
                chunks.push(chunk.ok_or_else(|| invalid("a record that is not of a chunk"))?);
                let _ = unread.split_to(ContentChunk::RECORD_BYTES);
            }
            if chunks.len() > MAX_CHUNKS {
                return Ok(None);
            }
        }
        let reply: ChunksReply = transfer.reply().await?;
        let size: u64 = chunks.iter().map(|chunk| u64::from(chunk.length)).sum();
        if !unread.is_empty() || reply.count != chunks.len() as u64 || begin.size != size {
            return Err(invalid("a list of chunks that is not of the whole file"));
        }
        Ok(Some(Self {
            version: begin.version,
            chunks,
        }))
    }

    /// Bytes of the list on the wire.
    pub(super) fn wire_bytes(&self) -> u64 {
        (self.chunks.len() * ContentChunk::RECORD_BYTES) as u64
    }

    /// The positions of the chunks.
    pub(super) fn into_index(self) -> ChunkIndex {
        let (mut index, mut position) = (ChunkIndex::with_capacity(self.chunks.len()), 0);
        for chunk in self.chunks {
            add_chunk(&mut index, &mut position, chunk);
        }
        index
    }
}

fn invalid(what: &str) -> ClientError {
    ClientError::InvalidReply(what.into())
}
