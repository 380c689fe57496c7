//! What is new in the log, for one viewer of the page.

use axum::response::sse::Event;

use crate::telemetry::Tail;

/// Lines that are told at once, once a second. Of a flood, those before are left out.
const MOST: u64 = 200;

/// A place in the log. Nothing waits in it: lines are taken from where all of them are kept.
#[derive(Debug)]
pub(crate) struct Lines {
    tail: Tail,
    next: u64,
}

impl Lines {
    /// Before the last lines that there are.
    pub(crate) fn of(tail: Tail) -> Self {
        let next = tail.oldest().max(tail.next().saturating_sub(MOST));
        Self { tail, next }
    }

    /// The lines since the last time, if there are any, and how many before them were left out.
    pub(crate) fn news(&mut self) -> Option<Event> {
        let from = self.next.max(self.tail.next().saturating_sub(MOST));
        let stretch = self.tail.from(from, usize::MAX);
        let missed = from - self.next + stretch.missed;
        self.next = stretch.next;
        if stretch.lines.is_empty() {
            return None;
        }
        // Each is a JSON object already.
        let lines: Vec<_> = stretch.lines.iter().map(|line| line.json.trim()).collect();
        let data = format!(r#"{{"missed":{missed},"lines":[{}]}}"#, lines.join(","));
        Some(Event::default().event("log").data(data))
    }
}
