//! New log lines for one viewer of the page.

use axum::response::sse::Event;

use crate::telemetry::Tail;

/// The most lines of one event, once per second. Of more lines, the oldest are left out.
const MAX_LINES: u64 = 200;

/// A position in the log. It buffers no lines: they are read from the tail that all share.
#[derive(Debug)]
pub(crate) struct LogLineFeed {
    tail: Tail,
    next: u64,
}

impl LogLineFeed {
    /// A position before the latest lines.
    pub(crate) fn from_now(tail: Tail) -> Self {
        let next = tail.oldest().max(tail.next().saturating_sub(MAX_LINES));
        Self { tail, next }
    }

    /// An event with the lines since the last call and the number left out; `None` without lines.
    pub(crate) fn next_event(&mut self) -> Option<Event> {
        let from = self.next.max(self.tail.next().saturating_sub(MAX_LINES));
        let page = self.tail.lines_from(from, usize::MAX);
        let missed = from - self.next + page.missed;
        self.next = page.next;
        if page.lines.is_empty() {
            return None;
        }
        // Each line is a JSON object.
        let lines: Vec<_> = page.lines.iter().map(|line| line.json.trim()).collect();
        let data = format!(r#"{{"missed":{missed},"lines":[{}]}}"#, lines.join(","));
        Some(Event::default().event("log").data(data))
    }
}
