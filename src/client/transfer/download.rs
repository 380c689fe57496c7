//! A `get`, chunk by chunk, checked at its end.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::client::connection::{TransferPart, parse};
use crate::client::transfer::request::Transfer;
use crate::client::{Client, ClientError};
use crate::protocol::{Algorithm, Digest, DigestChoice, Get, GetBegin, GetReply, Hasher};

/// The file to get, and its verification.
#[derive(Debug, Clone, Default)]
pub struct GetOptions {
    /// The first byte to get.
    pub offset: u64,
    /// How many bytes to get; all to the end if absent.
    pub length: Option<u64>,
    /// Fail with `changed` unless the file is still of this version.
    pub version: Option<String>,
    /// The digest to compare.
    pub algorithm: Algorithm,
    /// Has seen the bytes before `offset`, by `algorithm`. With an offset and without this the
    /// file as a whole cannot be checked.
    pub seen: Option<Hasher>,
}

/// A file on its way from the server.
///
/// It must be read on, or dropped: while it is neither, whatever else the server sends on this
/// connection waits behind it. Dropping it cancels it and harms no other transfer.
#[derive(Debug)]
pub struct DownloadStream {
    transfer: Transfer,
    parts: mpsc::Receiver<TransferPart>,
    begin: GetBegin,
    /// Towards the digest that the server will send, if it can be compared.
    hasher: Option<Hasher>,
    received: u64,
}

impl Client {
    /// Begins to get a file; returns once the server says what will come.
    ///
    /// # Errors
    /// [`ClientError::Server`] if the server says no, [`ClientError::Lost`] if the connection ends.
    pub async fn get(
        &self,
        path: &str,
        options: GetOptions,
    ) -> Result<DownloadStream, ClientError> {
        let GetOptions {
            offset,
            length,
            version,
            algorithm,
            seen,
        } = options;
        let comparable = offset == 0 || length.is_some() || seen.is_some();
        let hasher = comparable.then(|| seen.unwrap_or_else(|| Hasher::new(algorithm)));
        let digest = if comparable {
            DigestChoice::Of(algorithm)
        } else {
            DigestChoice::NONE
        };
        let request = Get {
            path: path.into(),
            offset: (offset > 0).then_some(offset),
            length,
            digest: Some(digest),
            version,
        };
        let (pending, mut parts) = self.line.get(&request).await?;
        let mut transfer = Transfer::new(self, pending);
        let begin: GetBegin = match parts.recv().await {
            Some(TransferPart::Begin(begin)) => parse(&begin)?,
            Some(TransferPart::Chunk(_)) => return Err(nonsense("data before its begin")),
            None => {
                transfer.reply::<GetReply>().await?;
                return Err(nonsense("a get that ended before it began"));
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

    /// The next bytes, or `None` when no more will come: at the end, and also after a failure;
    /// [`finish`](Self::finish) tells which.
    pub async fn chunk(&mut self) -> Option<Bytes> {
        let chunk = self.raw_chunk().await?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&chunk);
        }
        Some(chunk)
    }

    /// A [`chunk`](Self::chunk) for who hashes elsewhere.
    pub(crate) async fn raw_chunk(&mut self) -> Option<Bytes> {
        let Some(TransferPart::Chunk(chunk)) = self.parts.recv().await else {
            return None;
        };
        self.received += chunk.len() as u64;
        // A server that sends more than it announced must not fill this side's disk.
        (self.received <= self.begin.length).then_some(chunk)
    }

    /// The hasher to feed instead of this, for [`finish_with`](Self::finish_with).
    pub(crate) fn take_hasher(&mut self) -> Option<Hasher> {
        self.hasher.take()
    }

    /// Reads what is left, and checks that all came and is what the server has.
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
            return Err(nonsense("more bytes than it announced"));
        }
        let reply: GetReply = self.transfer.reply().await?;
        if self.received < self.begin.length {
            return Err(nonsense("fewer bytes than it announced"));
        }
        match (local, reply.digest) {
            (Some(local), Some(server)) if local != server => {
                Err(ClientError::DigestMismatch { server, local })
            }
            (Some(_), None) => Err(nonsense("no digest to compare")),
            _ => Ok(reply),
        }
    }
}

fn nonsense(what: &str) -> ClientError {
    ClientError::Nonsense(what.into())
}
