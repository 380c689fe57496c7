//! The server's log, line by line, over all connections of a session.

use std::fmt;

use serde::Deserialize;

use crate::client::line_stream::LineStream;
use crate::client::session::CurrentConnection;
use crate::client::{ClientError, Lost, Progress, Session};
use crate::protocol::{GoodbyeReason, Logs, LogsBegin, LogsReply};

/// Lines of the server's log. If the connection is lost, they continue over the next one, after the last
/// line that arrived.
pub struct LogLines {
    session: Session,
    request: Logs,
    /// `None` until the request was sent over the current connection.
    connected: Option<(CurrentConnection, LineStream)>,
    progress: Progress,
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
            let (current, lines) = if let Some(connected) = &mut self.connected {
                connected
            } else {
                let current = self.session.current();
                match LineStream::begin::<LogsBegin>(&current.client, &self.request).await {
                    Ok((begin, lines)) => {
                        // Over another connection it continues there, if no line arrives.
                        self.request.since = Some(begin.line.saturating_sub(1));
                        self.connected.insert((current, lines))
                    }
                    Err(error) => {
                        self.wait(&current, error).await?;
                        continue;
                    }
                }
            };
            let error = match lines.next().await {
                Some(Ok(line)) => {
                    self.session.note_success();
                    if let Some(number) = number_of(&line) {
                        self.request.since = Some(number);
                    }
                    return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
                }
                Some(Err(error)) => error,
                None => match lines.reply::<LogsReply>().await {
                    Ok(_) if !self.request.follow => return Ok(None),
                    // A log that is followed ends with the server only.
                    Ok(_) => Lost::Goodbye(GoodbyeReason::ShuttingDown).into(),
                    Err(error) => error,
                },
            };
            let current = current.clone();
            self.wait(&current, error).await?;
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

/// The number of a line.
fn number_of(line: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Numbered {
        line: Option<u64>,
    }
    let numbered: Numbered = serde_json::from_slice(line).ok()?;
    numbered.line
}
