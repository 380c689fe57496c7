//! The common part of downloads and uploads: a request that is cancelled when it is dropped.

use bytes::Bytes;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::client::connection::PendingReply;
use crate::client::{Client, ClientError};
use crate::protocol::{Cancel, CopyRange, End, encode_request};

/// An unfinished `get` or `put`. Dropping it cancels it on the server.
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
            slot = self.client.connection.outbox.data_slot() => match slot {
                Ok(slot) => {
                    slot.send(self.pending.id, chunk);
                    self.client.connection.sent_data();
                    return Ok(());
                }
                // The connection is lost; the reply has the reason.
                Err(_) => self.pending.reply().await,
            },
        };
        Err(early_success(reply))
    }

    /// Has the server copy a part of the base of a put, behind the data that was sent, unless the server has
    /// refused the put already.
    pub(crate) async fn copy(&mut self, copy: &CopyRange) -> Result<(), ClientError> {
        let json = encode_request(self.pending.id, copy);
        let outbox = self.client.connection.outbox.clone();
        let reply = tokio::select! {
            biased;
            reply = self.pending.reply::<serde_json::Value>() => reply,
            sent = outbox.send_after_data(json.into()) => match sent {
                Ok(()) => {
                    self.client.connection.sent_data();
                    return Ok(());
                }
                // The connection is lost; the reply has the reason.
                Err(_) => self.pending.reply().await,
            },
        };
        Err(early_success(reply))
    }

    /// Ends a put, behind all its data, and waits for the final reply.
    pub(crate) async fn end<T: DeserializeOwned>(&mut self, end: &End) -> Result<T, ClientError> {
        let json = encode_request(self.pending.id, end);
        // If the connection is lost, the reply has the reason.
        let _ = self
            .client
            .connection
            .outbox
            .send_after_data(json.into())
            .await;
        self.reply().await
    }

    /// Cancels it on the server, and waits for its end.
    pub(crate) async fn cancel(mut self) -> Result<(), ClientError> {
        let target = self.pending.id;
        self.client.call(Cancel { target }).await?;
        match self.reply::<IgnoredAny>().await {
            // It has ended, with or without success.
            Ok(_) | Err(ClientError::Server(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The error for a reply to a put before its end.
fn early_success(reply: Result<serde_json::Value, ClientError>) -> ClientError {
    let text = "the success of a put before its end";
    reply
        .err()
        .unwrap_or_else(|| ClientError::InvalidReply(text.into()))
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let target = self.pending.id;
        if self.client.connection.is_unfinished(target) {
            let client = self.client.clone();
            let runtime = client.connection.runtime.clone();
            runtime.spawn(async move { client.call(Cancel { target }).await });
        }
    }
}
