//! The common part of downloads and uploads: a request that is cancelled when it is dropped.

use bytes::Bytes;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::client::connection::PendingReply;
use crate::client::{Client, ClientError};
use crate::protocol::{Cancel, End, encode_request};

/// An unfinished `get` or `put`. Dropping it tells the server to end it.
#[derive(Debug)]
pub(crate) struct Transfer {
    client: Client,
    pending: PendingReply,
}

impl Transfer {
    pub(crate) fn new(client: &Client, pending: PendingReply) -> Self {
        Self {
            client: client.clone(),
            pending,
        }
    }

    /// The final reply.
    pub(crate) async fn reply<T: DeserializeOwned>(&mut self) -> Result<T, ClientError> {
        self.pending.reply().await
    }

    /// Sends one chunk of a put, unless the server has refused it already.
    pub(crate) async fn send(&mut self, chunk: Bytes) -> Result<(), ClientError> {
        let reply = tokio::select! {
            biased;
            reply = self.pending.reply::<serde_json::Value>() => reply,
            slot = self.client.line.outbox.data_slot() => match slot {
                Ok(slot) => {
                    slot.send(self.pending.id, chunk);
                    self.client.line.sent_data();
                    return Ok(());
                }
                // Nothing can be sent any more; the reply tells why.
                Err(_) => self.pending.reply().await,
            },
        };
        match reply {
            Ok(_) => Err(ClientError::Nonsense(
                "a put that was done before its end".into(),
            )),
            Err(error) => Err(error),
        }
    }

    /// Ends a put, behind all its data, and waits for the final reply.
    pub(crate) async fn end<T: DeserializeOwned>(&mut self, end: &End) -> Result<T, ClientError> {
        let json = encode_request(self.pending.id, end);
        // If nothing can be sent any more, the reply tells why.
        let _ = self.client.line.outbox.send_after_data(json.into()).await;
        self.reply().await
    }

    /// Tells the server to end it, and waits until it has.
    pub(crate) async fn cancel(mut self) -> Result<(), ClientError> {
        let target = self.pending.id;
        self.client.call(Cancel { target }).await?;
        match self.reply::<IgnoredAny>().await {
            // Whatever it says, it is over.
            Ok(_) | Err(ClientError::Server(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let target = self.pending.id;
        if self.client.line.is_unfinished(target) {
            let client = self.client.clone();
            let runtime = client.line.runtime.clone();
            runtime.spawn(async move { client.call(Cancel { target }).await });
        }
    }
}
