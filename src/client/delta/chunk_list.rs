//! The content chunks of a file on the server.

use std::collections::HashMap;

use bytes::BytesMut;

use crate::client::connection::{TransferPart, parse};
use crate::client::transfer::request::Transfer;
use crate::client::{Client, ClientError};
use crate::protocol::{CUTTING, Chunks, ChunksBegin, ChunksReply, ContentChunk};

/// Smaller files are transferred whole: the list of chunks would cost a round trip for few bytes.
const MIN_DELTA_BYTES: u64 = 4 * 1024 * 1024;

/// The most chunks of a file that is transferred by its changes.
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
#[derive(Debug)]
pub(super) struct ChunkList {
    pub(super) version: String,
    pub(super) size: u64,
    pub(super) chunks: Vec<ContentChunk>,
}

impl ChunkList {
    /// Asks for the list; `None` if the file is too small or has too many chunks, or the server cuts in
    /// another way.
    ///
    /// # Errors
    /// [`ClientError::InvalidReply`] as soon as the chunks are more than the file.
    pub(super) async fn fetch(
        client: &Client,
        path: &str,
        version: Option<String>,
    ) -> Result<Option<Self>, ClientError> {
        let path = path.to_owned();
        let request = Chunks { path, version };
        let (pending, mut parts) = client.connection.get(&request).await?;
        let mut transfer = Transfer::new(client, pending);
        let begin: ChunksBegin = match parts.recv().await {
            Some(TransferPart::Begin(begin)) => parse(&begin)?,
            Some(TransferPart::Chunk(_)) => {
                return Err(ClientError::invalid_reply("records before their begin"));
            }
            None => {
                transfer.reply::<ChunksReply>().await?;
                return Err(ClientError::invalid_reply(
                    "the end of a list of chunks before its begin",
                ));
            }
        };
        if begin.cutting != CUTTING || !is_worth_while(begin.size) {
            return Ok(None);
        }
        if request
            .version
            .is_some_and(|version| version != begin.version)
        {
            return Err(ClientError::invalid_reply(
                "a list of the chunks of another version",
            ));
        }
        let mut records = RecordReader::new(begin.size);
        while let Some(part) = parts.recv().await {
            let TransferPart::Chunk(bytes) = part else {
                return Err(ClientError::invalid_reply("a second begin"));
            };
            records.read(&bytes)?;
            if records.chunks.len() > MAX_CHUNKS {
                return Ok(None);
            }
        }
        let reply: ChunksReply = transfer.reply().await?;
        let chunks = records.finish()?;
        if reply.count != chunks.len() as u64 {
            return Err(ClientError::invalid_reply(
                "a list with another number of chunks than it says",
            ));
        }
        Ok(Some(Self {
            version: begin.version,
            size: begin.size,
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

/// Reads the records of a list, which come in pieces of any length.
struct RecordReader {
    chunks: Vec<ContentChunk>,
    unread: BytesMut,
    /// Bytes of the file after the chunks that were read.
    rest: u64,
}

impl RecordReader {
    fn new(size: u64) -> Self {
        Self {
            chunks: Vec::new(),
            unread: BytesMut::new(),
            rest: size,
        }
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.unread.extend_from_slice(bytes);
        while let Some(record) = self.unread.first_chunk() {
            let chunk = ContentChunk::from_record(record);
            let rest = self.rest.checked_sub(u64::from(chunk.length));
            self.rest =
                rest.ok_or_else(|| ClientError::invalid_reply("chunks of more than the file"))?;
            self.chunks.push(chunk);
            let _ = self.unread.split_to(ContentChunk::RECORD_BYTES);
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<ContentChunk>, ClientError> {
        if !self.unread.is_empty() || self.rest > 0 {
            return Err(ClientError::invalid_reply("chunks of less than the file"));
        }
        Ok(self.chunks)
    }
}
