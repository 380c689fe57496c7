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

/// The longest line that is taken.
const MAX_LINE: usize = 1024 * 1024;

/// Lines of the server's log. If a connection is lost it goes on over the next one, after the line
/// that came last.
pub struct LogLines {
    session: Session,
    request: Logs,
    on: Option<ConnectedLogs>,
    progress: Progress,
}

/// The lines that come over one connection.
struct ConnectedLogs {
    current: CurrentConnection,
    transfer: Transfer,
    parts: mpsc::Receiver<TransferPart>,
    /// The result of reading the next line.
    rest: BytesMut,
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
            on: None,
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
    /// a wait for another connection begins anew.
    ///
    /// # Errors
    /// Why there is no connection any more, or why the server shows no log.
    pub async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            let on = if let Some(on) = &mut self.on {
                on
            } else {
                let current = self.session.current();
                match ConnectedLogs::begin(current.clone(), &mut self.request).await {
                    Ok(on) => self.on.insert(on),
                    Err(error) => {
                        self.wait(&current, error).await?;
                        continue;
                    }
                }
            };
            match on.next().await {
                Ok(Some(line)) => {
                    self.session.gets_on();
                    if let Some(number) = number_of(&line) {
                        self.request.since = Some(number);
                    }
                    return Ok(Some(line));
                }
                Ok(None) if !self.request.follow => return Ok(None),
                // What is to be followed ends with the server.
                Ok(None) => {
                    let current = on.current.clone();
                    let lost = Lost::Goodbye(GoodbyeReason::ShuttingDown);
                    self.wait(&current, lost.into()).await?;
                }
                Err(error) => {
                    let current = on.current.clone();
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
        self.on = None;
        let mut patience = self.session.patience(&self.progress);
        patience.after(used, error).await
    }
}

impl ConnectedLogs {
    /// Notes in `request` where it begins, to go on there over another connection.
    async fn begin(current: CurrentConnection, request: &mut Logs) -> Result<Self, ClientError> {
        let client: &Client = &current.client;
        let (pending, mut parts) = client.line.get(&*request).await?;
        let mut transfer = Transfer::new(client, pending);
        match parts.recv().await {
            Some(TransferPart::Begin(begin)) => {
                let begin = parse::<LogsBegin>(&begin)?;
                request.since = Some(begin.line.saturating_sub(1));
            }
            Some(TransferPart::Chunk(_)) => {
                return Err(ClientError::Nonsense("data before its begin".into()));
            }
            None => {
                transfer.reply::<LogsReply>().await?;
            }
        }
        Ok(Self {
            current,
            transfer,
            parts,
            rest: BytesMut::new(),
        })
    }

    async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line = self.rest.split_to(end);
                self.rest.advance(1);
                let line = String::from_utf8_lossy(&line).into_owned();
                return Ok(Some(line));
            }
            if self.rest.len() > MAX_LINE {
                return Err(ClientError::Nonsense(
                    "a line of the log without end".into(),
                ));
            }
            match self.parts.recv().await {
                Some(TransferPart::Chunk(chunk)) => self.rest.extend_from_slice(&chunk),
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
