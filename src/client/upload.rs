//! A `put`, chunk by chunk, sent without waiting for the server to be ready.

use bytes::Bytes;
use jiff::Timestamp;

use super::transfer::Transfer;
use super::{Client, ClientError};
use crate::connection::CHUNK;
use crate::protocol::{Algorithm, Digest, End, Hasher, IfExists, Put, PutReply};

/// How a file is put.
#[derive(Debug, Clone, Copy, Default)]
pub struct PutOptions {
    /// How many bytes will come; absent if nobody knows.
    pub size: Option<u64>,
    /// What to do if there is a file of that name; the server replaces it if absent.
    pub if_exists: Option<IfExists>,
    /// The file's modification time; the time of its arrival if absent.
    pub modified: Option<Timestamp>,
    /// Make missing directories on the way.
    pub parents: bool,
    /// The digest that both sides compute and compare.
    pub algorithm: Algorithm,
}

/// A file on its way to the server. It appears there only if [`finish`](Self::finish) succeeds;
/// dropping it cancels it.
#[derive(Debug)]
pub struct Upload {
    transfer: Transfer,
    hasher: Hasher,
    sent: u64,
}

impl Client {
    /// Begins to put a file.
    ///
    /// # Errors
    /// [`ClientError::Lost`] if the connection is gone. What the server says comes later, from
    /// [`Upload::write`] or [`Upload::finish`].
    pub async fn put(&self, path: &str, options: PutOptions) -> Result<Upload, ClientError> {
        let request = Put {
            path: path.into(),
            size: options.size,
            if_exists: options.if_exists,
            modified: options.modified,
            resume: false,
            parents: options.parents,
            digest: Some(options.algorithm),
        };
        let pending = self.line.put(&request).await?;
        Ok(Upload {
            transfer: Transfer::new(self, pending),
            hasher: Hasher::new(options.algorithm),
            sent: 0,
        })
    }
}

impl Upload {
    /// Sends the next bytes, any number of them; waits while the server takes no more.
    ///
    /// # Errors
    /// What the server says, if it has refused the file already, or [`ClientError::Lost`]. Nothing
    /// more is to be written then.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), ClientError> {
        self.hasher.update(&bytes);
        self.write_unhashed(bytes).await
    }

    /// A [`write`](Self::write) for who hashes elsewhere.
    pub(super) async fn write_unhashed(&mut self, mut bytes: Bytes) -> Result<(), ClientError> {
        while !bytes.is_empty() {
            let chunk = bytes.split_to(CHUNK.min(bytes.len()));
            self.sent += chunk.len() as u64;
            self.transfer.send(chunk).await?;
        }
        Ok(())
    }

    /// Says that this was all, and waits until the server has the file safely under its name.
    ///
    /// # Errors
    /// What the server says, [`ClientError::DigestMismatch`], or [`ClientError::Lost`]: then
    /// nobody knows whether the file arrived.
    pub async fn finish(self) -> Result<PutReply, ClientError> {
        let digest = self.hasher.clone().finish();
        self.finish_with(digest).await
    }

    /// As [`finish`](Self::finish), with the digest that was computed elsewhere.
    pub(super) async fn finish_with(mut self, local: Digest) -> Result<PutReply, ClientError> {
        let digest = Some(local);
        let reply: PutReply = self.transfer.end(&End { digest }).await?;
        if reply.size != self.sent {
            return Err(ClientError::Nonsense(format!(
                "it stored {} bytes of {}",
                reply.size, self.sent
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
}
