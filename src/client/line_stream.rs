//! Lines that come in the data frames of a request over one connection.

use bytes::{Buf, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::client::connection::{TransferPart, parse};
use crate::client::transfer::request::Transfer;
use crate::client::{Client, ClientError};
use crate::protocol::Call;

/// The longest line that is accepted.
const MAX_LINE_BYTES: usize = 1024 * 1024;

/// The lines of a request that is under way. Dropping it cancels the request.
pub(crate) struct LineStream {
    transfer: Transfer,
    parts: mpsc::Receiver<TransferPart>,
    /// The bytes behind the last line.
    buffer: BytesMut,
}

impl LineStream {
    /// Sends a request and waits for its `begin`.
    pub(crate) async fn begin<B: DeserializeOwned>(
        client: &Client,
        request: &impl Call,
    ) -> Result<(B, Self), ClientError> {
        let (pending, mut parts) = client.connection.get(request).await?;
        let mut transfer = Transfer::new(client, pending);
        let begin = match parts.recv().await {
            Some(TransferPart::Begin(begin)) => parse(&begin)?,
            Some(TransferPart::Chunk(_)) => {
                return Err(ClientError::InvalidReply("data before its begin".into()));
            }
            None => {
                transfer.reply::<serde_json::Value>().await?;
                return Err(ClientError::InvalidReply(
                    "a reply without its begin".into(),
                ));
            }
        };
        let stream = Self {
            transfer,
            parts,
            buffer: BytesMut::new(),
        };
        Ok((begin, stream))
    }

    /// The next line, without its newline; `None` after the last one. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, ClientError>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end).freeze();
                self.buffer.advance(1);
                return Some(Ok(line));
            }
            if self.buffer.len() > MAX_LINE_BYTES {
                let text = "a line without end".into();
                return Some(Err(ClientError::InvalidReply(text)));
            }
            match self.parts.recv().await? {
                TransferPart::Chunk(chunk) => self.buffer.extend_from_slice(&chunk),
                TransferPart::Begin(_) => {}
            }
        }
    }

    /// The final reply, once there are no more lines.
    pub(crate) async fn reply<T: DeserializeOwned>(&mut self) -> Result<T, ClientError> {
        let reply = self.transfer.reply().await?;
        if !self.buffer.is_empty() {
            let text = "a last line without its end".into();
            return Err(ClientError::InvalidReply(text));
        }
        Ok(reply)
    }
}
