//! A `put`, chunk by chunk, sent without waiting for the server to be ready.

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::client::connection::{TransferPart, parse};
use crate::client::transfer::request::Transfer;
use crate::client::{Client, ClientError};
use crate::connection::ChunkLength;
use crate::protocol::{Algorithm, Digest, End, Hasher, IfExists, Put, PutBegin, PutReply};

/// How a file is put.
#[derive(Debug, Clone, Copy, Default)]
pub struct PutOptions {
    /// How many bytes will come; absent if nobody knows.
    pub size: Option<u64>,
    /// The action if there is a file of that name; the server replaces it if absent.
    pub if_exists: Option<IfExists>,
    /// The file's modification time; the time of its arrival if absent.
    pub modified: Option<Timestamp>,
    /// Make missing directories on the way.
    pub parents: bool,
    /// The digest that both sides compute and compare.
    pub algorithm: Algorithm,
    /// Go on with what the server kept of an earlier attempt. Then [`UploadStream::begun`] says where.
    pub resume: bool,
}

/// A file on its way to the server. It appears there only if [`finish`](Self::finish) succeeds;
/// dropping it cancels it.
#[derive(Debug)]
pub struct UploadStream {
    transfer: Transfer,
    parts: mpsc::Receiver<TransferPart>,
    hasher: Hasher,
    sent: u64,
    chunk: ChunkLength,
}

impl Client {
    /// Begins to put a file.
    ///
    /// # Errors
    /// [`ClientError::Lost`] if the connection is gone. What the server says comes later, from
    /// [`UploadStream::write`] or [`UploadStream::finish`].
    pub async fn put(&self, path: &str, options: PutOptions) -> Result<UploadStream, ClientError> {
        let request = Put {
            path: path.into(),
            size: options.size,
            if_exists: options.if_exists,
            modified: options.modified,
            resume: options.resume,
            parents: options.parents,
            digest: Some(options.algorithm),
        };
        let (pending, parts) = self.line.put(&request).await?;
        Ok(UploadStream {
            transfer: Transfer::new(self, pending),
            parts,
            hasher: Hasher::new(options.algorithm),
            sent: 0,
            chunk: ChunkLength::default(),
        })
    }
}

impl UploadStream {
    /// Waits until the server says from where on it needs the file. Only who asked to resume has
    /// to wait.
    ///
    /// If the offset is not 0, `prefix` is to be compared with the digest of the bytes before it.
    /// If they are the same, [`seen`](Self::seen) goes on from there; if not,
    /// [`cancel`](Self::cancel) makes the server forget what it kept.
    ///
    /// # Errors
    /// The server's refusal of the file, or [`ClientError::Lost`].
    pub async fn begun(&mut self) -> Result<PutBegin, ClientError> {
        match self.parts.recv().await {
            Some(TransferPart::Begin(begin)) => parse(&begin),
            Some(TransferPart::Chunk(_)) => Err(nonsense("data in answer to a put")),
            None => {
                self.transfer.reply::<PutReply>().await?;
                Err(nonsense("a put that ended before it began"))
            }
        }
    }

    /// Goes on at `offset`; `hasher` has seen all bytes before it.
    pub fn seen(&mut self, offset: u64, hasher: Hasher) {
        self.sent = offset;
        self.hasher = hasher;
    }

    /// Gives the upload up, and waits until the server has forgotten what it has of it.
    ///
    /// # Errors
    /// [`ClientError::Lost`].
    pub async fn cancel(self) -> Result<(), ClientError> {
        self.transfer.cancel().await
    }

    /// Sends the next bytes, any number of them; waits while the server takes no more.
    ///
    /// # Errors
    /// The server's refusal of the file, if it has come already, or [`ClientError::Lost`]. Nothing more must
    /// be written then.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), ClientError> {
        self.hasher.update(&bytes);
        self.write_unhashed(bytes).await
    }

    /// A [`write`](Self::write) for who hashes elsewhere.
    pub(crate) async fn write_unhashed(&mut self, mut bytes: Bytes) -> Result<(), ClientError> {
        while !bytes.is_empty() {
            let chunk = bytes.split_to(self.chunk.bytes().min(bytes.len()));
            self.sent += chunk.len() as u64;
            let asked = Instant::now();
            self.transfer.send(chunk).await?;
            self.chunk.adapt(asked.elapsed());
        }
        Ok(())
    }

    /// Says that this was all, and waits until the server has the file safely under its name.
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

/// Makes sure that the server has stored what was sent.
pub(crate) fn check_reply(
    reply: PutReply,
    sent: u64,
    local: Digest,
) -> Result<PutReply, ClientError> {
    if reply.size != sent {
        return Err(ClientError::Nonsense(format!(
            "it stored {} bytes of {sent}",
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

fn nonsense(what: &str) -> ClientError {
    ClientError::Nonsense(what.into())
}
