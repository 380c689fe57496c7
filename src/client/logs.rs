//! The server's log, line by line, over all connections of a session.

use std::fmt;

use bytes::{Buf, BytesMut};
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::client::connection::{TransferPart, parse};
use crate::client::session::CurrentConnection;
use crate::client::transfer::request::Transfer;
use crate::client::{Client, ClientError, Lost, Progress, Session};
use crate::protocol::{GoodbyeReason, Logs, LogsBegin, LogsReply};

/// The longest line that is accepted.
const MAX_LINE: usize = 1024 * 1024;

/// Lines of the server's log. If the connection is lost, they continue over the next one, after the last
/// line that arrived.
pub struct LogLines {
    session: Session,
    request: Logs,
    /// `None` until the request was sent over the current connection.
    connected: Option<ConnectedLogs>,
    progress: Progress,
}

/// The lines that arrive over one connection.
struct ConnectedLogs {
    current: CurrentConnection,
    transfer: Transfer,
    parts: mpsc::Receiver<TransferPart>,
    /// Bytes that arrived and were not returned.
    buffer: BytesMut,
}

impl fmt::Debug for LogLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("LogLines");
        fields.field("session", &self.session);
        fields.field("request", &self.request);
        fields.finish_non_exhaustive()
    }
}

impl Session {
    /// The lines of the log that `request` asks for. Only a user with the admin right may ask.
    #[must_use]
    pub fn logs(&self, request: Logs) -> LogLines {
        LogLines {
            session: self.clone(),
            request,
            connected: None,
            progress: Progress::new(),
        }
    }
}

impl LogLines {
    /// The reason for waiting, while the connection is lost.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The next line, one JSON object without a newline; `None` after the last one. Cancel-safe, but
    /// a wait for another connection starts again.
    ///
    /// # Errors
    /// The reason for which there is no connection, or for which the server sends no log.
    pub async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            let connected = if let Some(connected) = &mut self.connected {
                connected
            } else {
                let current = self.session.current();
                match ConnectedLogs::begin(current.clone(), &mut self.request).await {
                    Ok(connected) => self.connected.insert(connected),
                    Err(error) => {
                        self.wait(&current, error).await?;
                        continue;
                    }
                }
            };
            match connected.next().await {
                Ok(Some(line)) => {
                    self.session.note_success();
                    if let Some(number) = number_of(&line) {
                        self.request.since = Some(number);
                    }
                    return Ok(Some(line));
                }
                Ok(None) if !self.request.follow => return Ok(None),
                // A log that is followed ends with the server only.
                Ok(None) => {
                    let current = connected.current.clone();
                    let lost = Lost::Goodbye(GoodbyeReason::ShuttingDown);
                    self.wait(&current, lost.into()).await?;
                }
                Err(error) => {
                    let current = connected.current.clone();
                    self.wait(&current, error).await?;
                }
            }
        }
    }

    async fn wait(
        &mut self,
        used: &CurrentConnection,
        error: ClientError,
    ) -> Result<(), ClientError> {
        self.connected = None;
        let mut budget = self.session.retry_budget(&self.progress);
        budget.wait_after(used, error).await
    }
}

impl ConnectedLogs {
    /// Sends the request, and notes in it the first line, to continue there over another connection.
    async fn begin(current: CurrentConnection, request: &mut Logs) -> Result<Self, ClientError> {
        let client: &Client = &current.client;
        let (pending, mut parts) = client.connection.get(&*request).await?;
        let mut transfer = Transfer::new(client, pending);
        match parts.recv().await {
            Some(TransferPart::Begin(begin)) => {
                let begin = parse::<LogsBegin>(&begin)?;
                request.since = Some(begin.line.saturating_sub(1));
            }
            Some(TransferPart::Chunk(_)) => {
                return Err(ClientError::InvalidReply(
                    "data of a log before its begin".into(),
                ));
            }
            None => {
                transfer.reply::<LogsReply>().await?;
            }
        }
        Ok(Self {
            current,
            transfer,
            parts,
            buffer: BytesMut::new(),
        })
    }

    async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                let line = String::from_utf8_lossy(&line).into_owned();
                return Ok(Some(line));
            }
            if self.buffer.len() > MAX_LINE {
                return Err(ClientError::InvalidReply(
                    "a line of the log without an end".into(),
                ));
            }
            match self.parts.recv().await {
                Some(TransferPart::Chunk(chunk)) => self.buffer.extend_from_slice(&chunk),
                Some(TransferPart::Begin(_)) => {}
                None => {
                    self.transfer.reply::<LogsReply>().await?;
                    return Ok(None);
                }
            }
        }
    }
}

/// The number of a line.
fn number_of(line: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Numbered {
        line: Option<u64>,
    }
    let numbered: Numbered = serde_json::from_str(line).ok()?;
    numbered.line
}
