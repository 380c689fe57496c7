//! A `get`, chunk by chunk, verified at its end.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::client::connection::{TransferPart, parse};
use crate::client::transfer::request::Transfer;
use crate::client::{Client, ClientError};
use crate::protocol::{
    Algorithm, Digest, DigestChoice, Get, GetBegin, GetReply, Hasher, RequestedRange,
};

/// The file to get, and its verification.
#[derive(Debug, Clone, Default)]
pub struct GetOptions {
    /// The first byte to get.
    pub offset: u64,
    /// The number of bytes to get; by default all to the end.
    pub length: Option<u64>,
    /// The parts to get, in ascending order, in place of `offset` and `length`. They cannot be verified.
    pub ranges: Vec<RequestedRange>,
    /// Fail with `changed` unless the file has this version.
    pub version: Option<String>,
    /// The digest to compare.
    pub algorithm: Algorithm,
    /// The state of `algorithm` after the bytes before `offset`. With an offset and without this, the
    /// file cannot be verified.
    pub hashed: Option<Hasher>,
}

/// A file that is being downloaded.
///
/// It must be read on, or dropped: while it is neither, everything else that the server sends on this
/// connection waits behind it. Dropping it cancels it and affects no other transfer.
#[derive(Debug)]
pub struct DownloadStream {
    transfer: Transfer,
    parts: mpsc::Receiver<TransferPart>,
    begin: GetBegin,
    /// Computes the digest to compare with the server's, if it can be compared.
    hasher: Option<Hasher>,
    received: u64,
}

impl Client {
    /// Begins to get a file; returns once the server has announced the data.
    ///
    /// # Errors
    /// [`ClientError::Server`] if the server refuses it, [`ClientError::Lost`] if the connection ends.
    pub async fn get(
        &self,
        path: &str,
        options: GetOptions,
    ) -> Result<DownloadStream, ClientError> {
        let GetOptions {
            offset,
            length,
            ranges,
            version,
            algorithm,
            hashed,
        } = options;
        let is_verifiable = offset == 0 || length.is_some() || hashed.is_some();
        let comparable = ranges.is_empty() && is_verifiable;
        let hasher = comparable.then(|| hashed.unwrap_or_else(|| Hasher::new(algorithm)));
        let digest = if comparable {
            DigestChoice::Of(algorithm)
        } else {
            DigestChoice::NONE
        };
        let request = Get {
            path: path.into(),
            offset: (offset > 0).then_some(offset),
            length,
            ranges: (!ranges.is_empty()).then_some(ranges),
            digest: Some(digest),
            version,
        };
        let (pending, mut parts) = self.connection.get(&request).await?;
        let mut transfer = Transfer::new(self, pending);
        let begin: GetBegin = match parts.recv().await {
            Some(TransferPart::Begin(begin)) => parse(&begin)?,
            Some(TransferPart::Chunk(_)) => {
                return Err(ClientError::invalid_reply("data of a get before its begin"));
            }
            None => {
                transfer.reply::<GetReply>().await?;
                return Err(ClientError::invalid_reply(
                    "the end of a get before its begin",
                ));
            }
        };
        Ok(DownloadStream {
            transfer,
            parts,
            begin,
            hasher,
            received: 0,
        })
    }
}

impl DownloadStream {
    /// The server's announcement of the data.
    #[must_use]
    pub fn begin(&self) -> &GetBegin {
        &self.begin
    }

    /// The next bytes, or `None` at the end and after a failure; [`finish`](Self::finish) returns the
    /// failure.
    pub async fn chunk(&mut self) -> Option<Bytes> {
        let chunk = self.raw_chunk().await?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&chunk);
        }
        Some(chunk)
    }

    /// A [`chunk`](Self::chunk) that the caller hashes.
    pub(crate) async fn raw_chunk(&mut self) -> Option<Bytes> {
        let Some(TransferPart::Chunk(chunk)) = self.parts.recv().await else {
            return None;
        };
        self.received += chunk.len() as u64;
        // A server that sends more than it announced must not fill the local disk.
        (self.received <= self.begin.length).then_some(chunk)
    }

    /// Removes the hasher: from here on the caller hashes, and ends with [`finish_with`](Self::finish_with).
    pub(crate) fn take_hasher(&mut self) -> Option<Hasher> {
        self.hasher.take()
    }

    /// Reads the remaining bytes, and verifies the size and the digest.
    ///
    /// # Errors
    /// The error that ended the transfer early, or [`ClientError::DigestMismatch`].
    pub async fn finish(mut self) -> Result<GetReply, ClientError> {
        while self.chunk().await.is_some() {}
        let local = self.hasher.take().map(Hasher::finish);
        self.finish_with(local).await
    }

    /// As [`finish`](Self::finish), with the digest that was computed elsewhere.
    pub(crate) async fn finish_with(
        mut self,
        local: Option<Digest>,
    ) -> Result<GetReply, ClientError> {
        if self.received > self.begin.length {
            return Err(ClientError::invalid_reply(
                "more bytes of a file than it announced",
            ));
        }
        let reply: GetReply = self.transfer.reply().await?;
        if reply.size != self.begin.size {
            return Err(ClientError::invalid_reply(
                "the end of a get with another size than its begin",
            ));
        }
        if self.received < self.begin.length {
            return Err(ClientError::invalid_reply(
                "fewer bytes of a file than it announced",
            ));
        }
        match (local, reply.digest) {
            (Some(local), Some(server)) if local != server => {
                Err(ClientError::DigestMismatch { server, local })
            }
            (Some(_), None) => Err(ClientError::invalid_reply(
                "the end of a get without a digest",
            )),
            _ => Ok(reply),
        }
    }
}
