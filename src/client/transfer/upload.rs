//! A `put`, chunk by chunk, sent without waiting for the server's begin.

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::client::connection::{TransferPart, parse};
use crate::client::transfer::request::Transfer;
use crate::client::{Client, ClientError};
use crate::connection::ChunkLength;
use crate::protocol::{
    Algorithm, CopyRange, Digest, End, FileMode, Hasher, IfExists, Put, PutBegin, PutReply,
};

/// How a file is put.
#[derive(Debug, Clone, Copy, Default)]
pub struct PutOptions {
    /// The number of bytes, if it is known.
    pub size: Option<u64>,
    /// The action if a file of that name exists; by default the server replaces it.
    pub if_exists: Option<IfExists>,
    /// The file's modification time; by default the time of its arrival.
    pub modified: Option<Timestamp>,
    /// The file's permission bits. Servers whose `features` do not have `mode` refuse them.
    pub mode: Option<FileMode>,
    /// Make missing parent directories.
    pub parents: bool,
    /// The digest that both sides compute and compare.
    pub algorithm: Algorithm,
    /// Resume an earlier attempt. [`UploadStream::begun`] then returns the offset.
    pub resume: bool,
}

/// A file that is being uploaded. It appears on the server only if [`finish`](Self::finish) succeeds;
/// dropping it cancels it.
#[derive(Debug)]
pub struct UploadStream {
    transfer: Transfer,
    parts: mpsc::Receiver<TransferPart>,
    hasher: Hasher,
    algorithm: Algorithm,
    sent: u64,
    chunk: ChunkLength,
}

impl Client {
    /// Begins to put a file.
    ///
    /// # Errors
    /// [`ClientError::Lost`] if the connection is lost. The errors of the server are returned by
    /// [`UploadStream::write`] and [`UploadStream::finish`].
    pub async fn put(&self, path: &str, options: PutOptions) -> Result<UploadStream, ClientError> {
        self.begin_put(path, options, None).await
    }

    /// As [`put`](Self::put), for a file that may have parts of the file now at `path`, if that has the
    /// version `base`: see `UploadStream::copy`.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub(crate) async fn put_with_base(
        &self,
        path: &str,
        options: PutOptions,
        base: &str,
    ) -> Result<UploadStream, ClientError> {
        self.begin_put(path, options, Some(base.to_owned())).await
    }

    async fn begin_put(
        &self,
        path: &str,
        options: PutOptions,
        base: Option<String>,
    ) -> Result<UploadStream, ClientError> {
        let request = Put {
            path: path.into(),
            size: options.size,
            if_exists: options.if_exists,
            modified: options.modified,
            mode: options.mode,
            resume: options.resume,
            parents: options.parents,
            digest: Some(options.algorithm),
            base,
        };
        let (pending, parts) = self.connection.put(&request).await?;
        Ok(UploadStream {
            transfer: Transfer::new(self, pending),
            parts,
            hasher: Hasher::new(options.algorithm),
            algorithm: options.algorithm,
            sent: 0,
            chunk: ChunkLength::default(),
        })
    }
}

impl UploadStream {
    /// Waits until the server announces the offset from which it needs the file. This is necessary only with
    /// [`PutOptions::resume`].
    ///
    /// If the offset is not 0, compare `prefix` with the digest of the bytes before it. If they are equal,
    /// continue with [`continue_at`](Self::continue_at); if not, [`cancel`](Self::cancel) makes the server
    /// delete its part of the file.
    ///
    /// # Errors
    /// The server's refusal of the file, or [`ClientError::Lost`].
    pub async fn begun(&mut self) -> Result<PutBegin, ClientError> {
        match self.parts.recv().await {
            Some(TransferPart::Begin(begin)) => parse(&begin),
            Some(TransferPart::Chunk(_)) => {
                Err(ClientError::invalid_reply("data in reply to a put"))
            }
            None => {
                self.transfer.reply::<PutReply>().await?;
                Err(ClientError::invalid_reply(
                    "the end of a put before its begin",
                ))
            }
        }
    }

    /// Continues at `offset`; `hasher` is its state after the bytes before it.
    pub fn continue_at(&mut self, offset: u64, hasher: Hasher) {
        self.sent = offset;
        self.hasher = hasher;
    }

    /// Cancels the upload, and waits until the server has deleted its part of the file.
    ///
    /// # Errors
    /// [`ClientError::Lost`].
    pub async fn cancel(self) -> Result<(), ClientError> {
        self.transfer.cancel().await
    }

    /// Sends the next bytes, any number of them; waits while the server accepts no more.
    ///
    /// # Errors
    /// The server's refusal of the file, if it has arrived already, or [`ClientError::Lost`]. The upload
    /// cannot be continued after an error.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), ClientError> {
        self.hasher.update(&bytes);
        self.write_unhashed(bytes).await
    }

    /// A [`write`](Self::write) of bytes that the caller hashes.
    pub(crate) async fn write_unhashed(&mut self, mut bytes: Bytes) -> Result<(), ClientError> {
        while !bytes.is_empty() {
            let chunk = bytes.split_to(self.chunk.bytes().min(bytes.len()));
            self.sent += chunk.len() as u64;
            let start = Instant::now();
            self.transfer.send(chunk).await?;
            self.chunk.adapt(start.elapsed());
        }
        Ok(())
    }

    /// The next `length` bytes are those at `offset` of the base. The hasher does not see them, so the upload
    /// must end with a digest that was computed elsewhere.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub(crate) async fn copy(&mut self, offset: u64, length: u64) -> Result<(), ClientError> {
        self.sent += length;
        self.transfer.copy(&CopyRange { offset, length }).await
    }

    /// The algorithm of the digest.
    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Ends the upload, and waits until the server has stored the file under its name.
    ///
    /// # Errors
    /// The server's error, [`ClientError::DigestMismatch`], or [`ClientError::Lost`]: then it is unknown
    /// whether the file arrived.
    pub async fn finish(self) -> Result<PutReply, ClientError> {
        let digest = self.hasher.clone().finish();
        self.finish_with(digest).await
    }

    /// As [`finish`](Self::finish), with the digest that was computed elsewhere.
    pub(crate) async fn finish_with(mut self, local: Digest) -> Result<PutReply, ClientError> {
        let digest = Some(local);
        let reply: PutReply = self.transfer.end(&End { digest }).await?;
        check_reply(reply, self.sent, local)
    }
}

/// Checks that the server has stored the bytes that were sent.
pub(crate) fn check_reply(
    reply: PutReply,
    sent: u64,
    local: Digest,
) -> Result<PutReply, ClientError> {
    if reply.size != sent {
        return Err(ClientError::InvalidReply(format!(
            "a size of {} bytes for a file of {sent}",
            reply.size
        )));
    }
    if reply.digest != local {
        return Err(ClientError::DigestMismatch {
            server: reply.digest,
            local,
        });
    }
    Ok(reply)
}
