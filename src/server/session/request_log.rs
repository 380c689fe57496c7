//! The log line and the metrics of one request.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use tokio::time::Instant;
use tracing::{Level, enabled, error, event, info};

use crate::accounts::UserName;
use crate::connection::{Outbox, OutboxClosed};
use crate::protocol::{BadRequest, CommandInfo, ErrorCode, Request, WireError, encode_error};
use crate::server::error::CommandError;
use crate::server::limits::request_lines::LineBudget;
use crate::server::metrics::ServerMetrics;
use crate::server::metrics::commands::CommandCounter;
use crate::telemetry::AUDIT;

/// A request that is not answered yet.
#[derive(Debug)]
pub(crate) struct RequestLog {
    id: u32,
    command: &'static CommandInfo,
    path: Option<String>,
    to: Option<String>,
    user: Option<String>,
    login_method: Option<&'static str>,
    started: Instant,
    counted: Arc<CommandCounter>,
    lines: Arc<LineBudget>,
    is_closed: bool,
}

/// The result of a finished command.
#[derive(Debug)]
pub(crate) struct RequestOutcome {
    /// The control payload of the final reply, or why there is none.
    pub(crate) reply: Result<Bytes, CommandError>,
    /// Bytes of file moved.
    pub(crate) bytes: u64,
    /// The upload's identifier, of a put.
    pub(crate) upload: Option<String>,
}

impl From<Result<Bytes, CommandError>> for RequestOutcome {
    fn from(reply: Result<Bytes, CommandError>) -> Self {
        Self {
            reply,
            bytes: 0,
            upload: None,
        }
    }
}

impl RequestLog {
    /// `lines` is the budget of log lines for requests like this.
    pub(crate) fn new(
        metrics: &ServerMetrics,
        lines: Arc<LineBudget>,
        id: u32,
        command: &'static CommandInfo,
        path: Option<String>,
    ) -> Self {
        Self {
            id,
            command,
            path,
            to: None,
            user: None,
            login_method: None,
            started: Instant::now(),
            counted: metrics.command_counter(command.name),
            lines,
            is_closed: false,
        }
    }

    /// Writes no line and counts nothing: the reply of another request also answers this one.
    pub(crate) fn withdraw(mut self) {
        self.is_closed = true;
    }

    /// The path that the request is about, absolute where it can be resolved.
    pub(crate) fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// Sets the path that something is moved or copied to.
    pub(crate) fn with_to(mut self, to: Option<String>) -> Self {
        self.to = to;
        self
    }

    /// Sets the method of a login.
    pub(crate) fn with_login_method(mut self, method: &'static str) -> Self {
        self.login_method = Some(method);
        self
    }

    /// Logs the name of a login only if it is a valid user name: anything else may be a misplaced
    /// password.
    pub(crate) fn with_user(mut self, user: Option<&str>) -> Self {
        let name = user.and_then(|user| user.parse::<UserName>().ok());
        self.user = name.map(|name| name.to_string());
        self
    }

    /// Awaits `work`. A panic in it becomes an error of this request and of no other.
    pub(crate) async fn guard<T: Into<RequestOutcome>>(
        &self,
        work: impl Future<Output = T>,
    ) -> RequestOutcome {
        match AssertUnwindSafe(work).catch_unwind().await {
            Ok(outcome) => outcome.into(),
            Err(_) => Err(CommandError::Internal).into(),
        }
    }

    /// Answers an invalid request with its error.
    pub(crate) async fn refuse(
        metrics: &ServerMetrics,
        lines: Arc<LineBudget>,
        outbox: &Outbox,
        bad: BadRequest,
    ) -> Result<(), OutboxClosed> {
        let known = |command: &&CommandInfo| bad.cmd == Some(command.name);
        let command = Request::COMMANDS.iter().find(known);
        let command = command.unwrap_or(&CommandInfo::UNKNOWN);
        let log = Self::new(metrics, lines, bad.id, command, None);
        log.finish(outbox, Err(bad.into()).into()).await
    }

    /// Sends the reply before all queued data.
    pub(crate) async fn finish(
        self,
        outbox: &Outbox,
        outcome: RequestOutcome,
    ) -> Result<(), OutboxClosed> {
        outbox.send(self.close(outcome)).await
    }

    /// Counts it, writes the line in the log and makes the reply.
    pub(crate) fn close(mut self, outcome: RequestOutcome) -> Bytes {
        self.is_closed = true;
        let RequestOutcome {
            reply,
            bytes,
            upload,
        } = outcome;
        let code = reply
            .as_ref()
            .err()
            .map(|cause| WireError::from(cause).code);
        let outcome = if code.is_some() { "error" } else { "ok" };
        let is_audited = self.command.is_audited;
        let audit = match &reply {
            Err(cause) if is_audited && is_refusal(cause, code) => {
                match self.lines.allows_refusal_audit(self.command.name) {
                    Some(left_out) => AuditLine::After(left_out),
                    None => AuditLine::Omitted,
                }
            }
            _ if is_audited => AuditLine::After(0),
            _ => AuditLine::Omitted,
        };
        self.log(outcome, code, bytes, upload.as_deref(), audit);
        match reply {
            Ok(reply) => reply,
            Err(cause) => {
                let error = WireError::from(&cause);
                if error.code == ErrorCode::Internal && self.allows_line() {
                    error!(
                        name: "internal_error",
                        cmd = self.command.name,
                        path = self.path,
                        ?cause,
                        "internal error"
                    );
                }
                encode_error(self.id, &error)
            }
        }
    }

    fn log(
        &self,
        outcome: &str,
        code: Option<ErrorCode>,
        bytes: u64,
        upload: Option<&str>,
        audit: AuditLine,
    ) {
        let took = self.started.elapsed();
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.counted.record(code, took);
        macro_rules! write_line {
            ($macro:ident!($($head:tt)*)) => {
                $macro!(
                    $($head)*,
                    cmd = self.command.name,
                    path = self.path,
                    to = self.to,
                    user = self.user,
                    with = self.login_method,
                    bytes,
                    ms,
                    outcome,
                    code = code.map(ErrorCode::as_str),
                    upload,
                    "command"
                )
            };
        }
        let is_debug = self.command.is_auxiliary && code != Some(ErrorCode::Internal);
        if let AuditLine::After(left_out) = audit {
            let left_out = (left_out > 0).then_some(left_out);
            write_line!(info!(name: "command", target: AUDIT, left_out));
        } else if is_debug {
            if enabled!(Level::DEBUG) && self.allows_line() {
                write_line!(event!(name: "command", Level::DEBUG));
            }
        } else if self.allows_line() {
            write_line!(info!(name: "command"));
        }
    }

    fn allows_line(&self) -> bool {
        let paths = [&self.path, &self.to].into_iter().flatten();
        self.lines.allows(paths.map(String::len).sum())
    }
}

impl Drop for RequestLog {
    /// The client left before the reply. Disk work that has started still finishes.
    fn drop(&mut self) {
        if !self.is_closed {
            let audit = if self.command.is_audited {
                AuditLine::After(0)
            } else {
                AuditLine::Omitted
            };
            self.log("unanswered", Some(ErrorCode::Cancelled), 0, None, audit);
        }
    }
}

/// The part of the audit in the line about a request.
#[derive(Debug, Clone, Copy)]
enum AuditLine {
    /// The line stands in the audit, which has no line about so many earlier refusals of the command.
    After(u64),
    /// The line is an ordinary one.
    Omitted,
}

/// Whether the request was refused, and no secret was compared. Clients can cause many such errors at no
/// cost.
fn is_refusal(cause: &CommandError, code: Option<ErrorCode>) -> bool {
    let is_of_request = matches!(
        code,
        Some(
            ErrorCode::BadRequest
                | ErrorCode::InvalidPath
                | ErrorCode::Denied
                | ErrorCode::NotFound
                | ErrorCode::Exists
                | ErrorCode::NotADirectory
                | ErrorCode::IsADirectory
        )
    );
    is_of_request
        || matches!(
            cause,
            CommandError::NotLoggedIn(_) | CommandError::TooManyAttempts(_)
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Call, End, Ls, Mkdir, ServerMessage};

    #[test]
    fn a_request_whose_client_left_is_counted() {
        let metrics = ServerMetrics::default();
        drop(RequestLog::new(
            &metrics,
            Arc::default(),
            7,
            &Mkdir::COMMAND,
            None,
        ));
        let counts = metrics.commands();
        let mkdir = counts.iter().find(|counts| counts.cmd == "mkdir");
        let errors = &mkdir.expect("counted").errors;
        assert!(errors.contains(&(ErrorCode::Cancelled, 1)), "{errors:?}");
    }

    #[test]
    fn a_request_that_is_answered_with_another_one_is_not_counted() {
        let metrics = ServerMetrics::default();
        RequestLog::new(&metrics, Arc::default(), 7, &End::COMMAND, None).withdraw();
        let counts = metrics.commands();
        let end = counts.iter().find(|counts| counts.cmd == "end");
        assert!(end.is_none_or(|counts| counts.errors.iter().all(|(_, count)| *count == 0)));
    }

    #[tokio::test]
    async fn a_panic_in_a_command_becomes_an_error_of_that_request_alone() {
        let log = RequestLog::new(
            &ServerMetrics::default(),
            Arc::default(),
            7,
            &Ls::COMMAND,
            None,
        );
        let work = async {
            assert!(log.id > 7, "a defect");
            Ok(Bytes::new())
        };
        let outcome = log.guard(work).await;
        let reply = ServerMessage::parse(&log.close(outcome)).expect("a reply");
        let ServerMessage::Reply(7, Err(error)) = reply else {
            panic!("{reply:?}");
        };
        assert_eq!(error.code, ErrorCode::Internal);
        assert!(!error.message.contains("defect"), "{}", error.message);
    }
}
