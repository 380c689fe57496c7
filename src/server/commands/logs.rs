//! `logs`: the last lines of the log, and later ones as they are written.
//!
//! A follower is a position in the ring of the last lines. It polls the ring at intervals, and reads no
//! faster than its client.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::Level;

use crate::connection::{Outbox, SHORT_CHUNK_BYTES};
use crate::protocol::{LogLevel, Logs, LogsBegin, LogsReply, encode_begin, encode_ok};
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::server::session::request_log::RequestOutcome;
use crate::server::transfer::running_transfers::TransferGuard;
use crate::storage::VirtualPath;
use crate::telemetry::{Tail, TailLine};

/// Lines of the ring that are filtered at once.
const MAX_LINES_PER_READ: usize = 1000;

/// The time between two polls of a follower.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Sends the lines that `logs` asks for on stream `id`. It ends when it is cancelled, the user
/// loses the admin right, or the server drains.
pub(crate) async fn logs(
    id: u32,
    logs: Logs,
    member: &Member,
    outbox: &Outbox,
    transfer: &TransferGuard,
    drain: &CancellationToken,
) -> RequestOutcome {
    let mut sent = 0;
    let work = async {
        let tail = member.shared.log.get();
        let tail = tail.map(|log| log.tail.clone());
        let tail = tail.ok_or(CommandError::NotOffered("logs"))?;
        let filter = Filter::from_request(&logs)?;
        let first = first(&tail, &logs, &filter);
        outbox
            .send(encode_begin(id, &LogsBegin { line: first }))
            .await?;
        let mut reader = LogReader {
            filter,
            next: first,
            reply: LogsReply {
                lines: 0,
                missed: 0,
            },
            tail,
        };
        loop {
            let (lines, is_end) = reader.next_lines();
            sent += lines.len() as u64;
            transfer.progress.add_moved(lines.len() as u64);
            for start in (0..lines.len()).step_by(SHORT_CHUNK_BYTES) {
                let end = lines.len().min(start + SHORT_CHUNK_BYTES);
                outbox.data_slot().await?.send(id, lines.slice(start..end));
            }
            if !is_end {
                continue;
            }
            let next = async {
                reader.tail.wait_for(reader.next).await;
                sleep(POLL_INTERVAL).await;
            };
            if !logs.follow || drain.run_until_cancelled(next).await.is_none() {
                return Ok(encode_ok(id, &reader.reply));
            }
        }
    };
    let reply = tokio::select! {
        biased;
        error = member.authority.admin_right_lost("logs") => Err(error),
        () = transfer.cancel.cancelled() => Err(CommandError::Cancelled),
        reply = work => reply,
    };
    RequestOutcome {
        reply,
        bytes: sent,
        upload: None,
    }
}

/// The number of the first line to filter.
fn first(tail: &Tail, logs: &Logs, filter: &Filter) -> u64 {
    if let Some(since) = logs.since {
        let first = since.saturating_add(1);
        // A number of the future is from a server whose clock has gone back since.
        return if first > tail.next() {
            tail.oldest()
        } else {
            first
        };
    }
    let Some(last) = logs.last else {
        return tail.oldest();
    };
    let there = tail.lines_from(tail.oldest(), usize::MAX).lines;
    let mut wanted = there.iter().rev().filter(|line| filter.matches(line));
    match last.checked_sub(1) {
        None => tail.next(),
        Some(before) => match wanted.nth(before as usize) {
            Some(line) => line.number,
            None => tail.oldest(),
        },
    }
}

/// The position of a request in the log.
struct LogReader {
    tail: Tail,
    filter: Filter,
    next: u64,
    reply: LogsReply,
}

impl LogReader {
    /// The text of the next matching lines, and whether no more are in the ring now.
    fn next_lines(&mut self) -> (Bytes, bool) {
        let read = self.tail.lines_from(self.next, MAX_LINES_PER_READ);
        let mut text = String::new();
        if read.missed > 0 {
            self.reply.missed += read.missed;
            text.push_str(&missed_line(read.missed));
        }
        for line in &read.lines {
            if self.filter.matches(line) {
                text.push_str(&line.json);
                self.reply.lines += 1;
            }
        }
        self.next = read.next;
        (text.into(), read.lines.len() < MAX_LINES_PER_READ)
    }
}

/// The line that stands for lines that were overwritten before they were sent.
fn missed_line(missed: u64) -> String {
    let line = serde_json::json!({
        "time": jiff::Timestamp::now(),
        "level": "warn",
        "event": "lines_missed",
        "message": "lines came too fast for who reads them here",
        "missed": missed,
    });
    format!("{line}\n")
}

/// The conditions that a line has to meet.
struct Filter {
    user: Option<String>,
    command: Option<String>,
    path: Option<VirtualPath>,
    level: Level,
    event: Option<String>,
    session: Option<String>,
}

impl Filter {
    fn from_request(logs: &Logs) -> Result<Self, CommandError> {
        let path = logs.path.as_deref().map(VirtualPath::parse).transpose();
        Ok(Self {
            user: logs.user.clone(),
            command: logs.command.clone(),
            path: path.map_err(crate::storage::StorageError::from)?,
            level: match logs.level {
                Some(LogLevel::Error) => Level::ERROR,
                Some(LogLevel::Warn) => Level::WARN,
                Some(LogLevel::Info) => Level::INFO,
                Some(LogLevel::Debug) => Level::DEBUG,
                Some(LogLevel::Trace) | None => Level::TRACE,
            },
            event: logs.event.clone(),
            session: logs.session.clone(),
        })
    }

    fn matches(&self, line: &TailLine) -> bool {
        let is = |wanted: &Option<String>, text: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| text == Some(wanted))
        };
        line.level <= self.level
            && is(&self.user, line.user.as_deref())
            && is(&self.command, line.cmd.as_deref())
            && is(&self.event, Some(line.event))
            && is(&self.session, line.session.as_deref())
            && self.path.as_ref().is_none_or(|wanted| {
                let paths = [&line.path, &line.to].into_iter().flatten();
                let mut paths = paths.filter_map(|path| VirtualPath::parse(path).ok());
                paths.any(|path| path.starts_with(wanted))
            })
    }
}
