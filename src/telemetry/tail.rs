//! The latest lines of the log, for followers.
//!
//! All followers share one ring buffer: a line is rendered and stored once, and a follower is a position
//! in it. A follower that is too slow misses lines; the log never waits for a follower.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tracing::Level;

/// The most bytes of kept lines.
const MAX_TAIL_BYTES: usize = 1024 * 1024;

/// Memory of a line without its text, in bytes.
const TAIL_LINE_OVERHEAD_BYTES: usize = 256;

/// The latest lines of the log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tail(Arc<TailShared>);

#[derive(Debug)]
struct TailShared {
    state: Mutex<TailState>,
    line_added: Notify,
}

#[derive(Debug)]
struct TailState {
    lines: VecDeque<Arc<TailLine>>,
    bytes: usize,
    /// The number of the first line since the start.
    first: u64,
    /// The number that the next line gets.
    next: u64,
}

/// A line of the log, with the fields that filters use.
#[derive(Debug)]
pub struct TailLine {
    /// Its number, which grows from line to line and from each start of the server to the next.
    pub number: u64,
    /// One JSON object and a newline. It has the number as `line`.
    pub json: Box<str>,
    /// Its level.
    pub level: Level,
    /// The stable name of the event.
    pub event: &'static str,
    /// The identifier of its session.
    pub session: Option<Arc<str>>,
    /// The user.
    pub user: Option<Arc<str>>,
    /// The command.
    pub cmd: Option<Arc<str>>,
    /// The absolute path.
    pub path: Option<Arc<str>>,
    /// The absolute path that something is moved or copied to.
    pub to: Option<Arc<str>>,
}

/// Consecutive lines, and the position after them.
#[derive(Debug)]
pub struct TailPage {
    /// The lines.
    pub lines: Vec<Arc<TailLine>>,
    /// Lines before them that are no longer kept, written since the start of the server.
    pub missed: u64,
    /// The number of the line after them.
    pub next: u64,
}

impl Default for Tail {
    fn default() -> Self {
        // No server logs more than a line a microsecond, so the numbers of its next start are
        // higher. It is far below the 2^53 of the protocol.
        let now = Timestamp::now().as_microsecond();
        Self::beginning_at(u64::try_from(now).unwrap_or(0))
    }
}

impl Tail {
    fn beginning_at(next: u64) -> Self {
        let state = TailState {
            lines: VecDeque::new(),
            bytes: 0,
            first: next,
            next,
        };
        Self(Arc::new(TailShared {
            state: Mutex::new(state),
            line_added: Notify::new(),
        }))
    }

    /// Adds the line that `render` makes of its number.
    pub(super) fn add(&self, render: impl FnOnce(u64) -> TailLine) {
        let mut state = self.lock();
        let line = render(state.next);
        state.next += 1;
        state.bytes += line.json.len() + TAIL_LINE_OVERHEAD_BYTES;
        state.lines.push_back(Arc::new(line));
        while state.bytes > MAX_TAIL_BYTES
            && let Some(oldest) = state.lines.pop_front()
        {
            state.bytes -= oldest.json.len() + TAIL_LINE_OVERHEAD_BYTES;
        }
        drop(state);
        self.0.line_added.notify_waiters();
    }

    /// The number of the next line that will be logged.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.lock().next
    }

    /// The number of the oldest line that is kept, or of the next one if there is none.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        let state = self.lock();
        state.lines.front().map_or(state.next, |line| line.number)
    }

    /// At most `limit` lines, starting with the one numbered `first`.
    #[must_use]
    pub fn lines_from(&self, first: u64, limit: usize) -> TailPage {
        let state = self.lock();
        let oldest = state.lines.front().map_or(state.next, |line| line.number);
        let skipped = usize::try_from(first.saturating_sub(oldest)).unwrap_or(usize::MAX);
        let lines: Vec<_> = state
            .lines
            .iter()
            .skip(skipped)
            .take(limit)
            .cloned()
            .collect();
        let from = first.clamp(oldest, state.next);
        TailPage {
            missed: oldest.saturating_sub(first.max(state.first)),
            next: from + lines.len() as u64,
            lines,
        }
    }

    /// Waits for the line numbered `number`.
    pub async fn wait_for(&self, number: u64) {
        loop {
            let added = self.0.line_added.notified();
            let mut added = std::pin::pin!(added);
            added.as_mut().enable();
            if self.lock().next > number {
                return;
            }
            added.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, TailState> {
        self.0.state.lock()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn add(tail: &Tail, json: &str) {
        tail.add(|number| TailLine {
            number,
            json: json.into(),
            level: Level::INFO,
            event: "command",
            session: None,
            user: None,
            cmd: None,
            path: None,
            to: None,
        });
    }

    fn numbers(page: &TailPage) -> Vec<u64> {
        page.lines.iter().map(|line| line.number).collect()
    }

    #[test]
    fn lines_are_read_in_pages_from_any_number() {
        let tail = Tail::beginning_at(100);
        for _ in 0..5 {
            add(&tail, "{}\n");
        }
        let first = tail.lines_from(100, 3);
        assert_eq!((numbers(&first), first.next), (vec![100, 101, 102], 103));
        let later_lines = tail.lines_from(first.next, 9);
        assert_eq!(
            (numbers(&later_lines), later_lines.next, later_lines.missed),
            (vec![103, 104], 105, 0)
        );
        let none = tail.lines_from(105, 9);
        assert_eq!((none.lines.len(), none.next), (0, 105));
    }

    #[test]
    fn old_lines_are_dropped_and_their_number_is_reported() {
        let tail = Tail::beginning_at(0);
        let long = "x".repeat(MAX_TAIL_BYTES / 4);
        for _ in 0..10 {
            add(&tail, &long);
        }
        let later_lines = tail.lines_from(2, 99);
        assert_eq!(numbers(&later_lines), [7, 8, 9]);
        assert_eq!((later_lines.missed, later_lines.next), (5, 10));
    }

    #[test]
    fn numbers_before_the_start_are_not_missed_lines() {
        let tail = Tail::beginning_at(1_000_000);
        add(&tail, "{}\n");
        let later_lines = tail.lines_from(7, 9);
        assert_eq!(
            (numbers(&later_lines), later_lines.missed),
            (vec![1_000_000], 0)
        );
        for _ in 0..5 {
            add(&tail, &"x".repeat(MAX_TAIL_BYTES / 4));
        }
        let later_lines = tail.lines_from(7, 9);
        assert_eq!((later_lines.lines.len(), later_lines.missed), (3, 3));
    }

    #[test]
    fn a_number_that_is_not_logged_yet_waits_for_its_line() {
        let tail = Tail::beginning_at(7);
        assert_eq!(tail.lines_from(9, 9).next, 7);
        let mut waiting = std::pin::pin!(tail.wait_for(7));
        assert!(waiting.as_mut().now_or_never().is_none());
        add(&tail, "{}\n");
        assert!(waiting.now_or_never().is_some());
    }
}
