//! The events of a session: shown at once, kept for later, or ignored.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cli::line_editor::Printer;
use crate::cli::message_format::Style;
use crate::client::{Client, EventPosition, Events};
use crate::protocol::Event;

/// Lines that are held until they may be printed. Who wants to read more has `history`.
const MAX_DEFERRED_LINES: usize = 200;

/// What is heard on the connections of a session.
#[derive(Debug, Clone)]
pub(crate) enum EventDisplay {
    /// Nothing: it leaves messages and offers to sessions that show them.
    Nothing,
    /// Changes, for who takes the events of each connection.
    Changes,
    /// Messages, offers and changes, for who takes the events of each connection.
    Everything,
    /// Messages and offers, which are printed beside the work.
    Aside(BackgroundPrinter),
}

impl EventDisplay {
    /// Listens to a connection from before its login on. After which message or offer that is to
    /// go on, if that is known here.
    pub(crate) fn begin(&self, client: &Client) -> Option<EventPosition> {
        match self {
            Self::Nothing => None,
            Self::Changes | Self::Everything => {
                client.keep_events();
                None
            }
            Self::Aside(aside) => {
                tokio::spawn(aside.clone().listen(client.events()));
                let mut state = aside.lock();
                state.logs_in = true;
                state.heard.clone()
            }
        }
    }

    /// The login has succeeded: it is known what the places of events are worth.
    pub(crate) async fn logged_in(&self, client: &Client) {
        if let Self::Aside(aside) = self {
            let now = aside.lock().logged_in(client);
            for (printer, line) in now {
                // The receiver may have left.
                let _ = printer.print(line).await;
            }
        }
    }

    pub(crate) fn has_inbox(&self) -> bool {
        matches!(self, Self::Everything | Self::Aside(_))
    }
}

/// Prints messages and offers while a line is being typed, and holds them while a command runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct BackgroundPrinter(Arc<Mutex<DisplayState>>);

#[derive(Debug, Default)]
struct DisplayState {
    /// How to show it; absent until the user is known.
    style: Option<Style>,
    /// The last event of an earlier connection.
    early: VecDeque<Event>,
    /// Where to print; absent while it may not be.
    printer: Option<Printer>,
    /// Lines that wait for the end of the command, each with its `seq`.
    held: VecDeque<(u64, String)>,
    dropped: usize,
    heard: Option<EventPosition>,
    /// Of the connection that is heard now.
    epoch: Option<String>,
    /// Its login is under way.
    logs_in: bool,
}

impl BackgroundPrinter {
    /// Knows how to show what was heard and will be.
    pub(crate) fn begin(&self, style: Style) {
        let mut state = self.lock();
        state.style = Some(style);
        state.take_early();
    }

    fn lock(&self) -> MutexGuard<'_, DisplayState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Someone is about to type: what was held is returned, what is heard from now on is printed.
    pub(crate) fn speak(&self, printer: Printer) -> Vec<String> {
        let mut state = self.lock();
        state.printer = Some(printer);
        let mut lines: Vec<_> = state.held.drain(..).map(|(_, line)| line).collect();
        let dropped = std::mem::take(&mut state.dropped);
        if dropped > 0 {
            lines.insert(
                0,
                format!("({dropped} more before these; `history` has them)"),
            );
        }
        lines
    }

    /// A command is about to run: what is heard from now on is held.
    pub(crate) fn hold(&self) {
        self.lock().printer = None;
    }

    /// Another session has shown what there was up to there.
    pub(crate) fn forget(&self, shown: EventPosition) {
        let mut state = self.lock();
        state.held.retain(|(held, _)| *held > shown.seq);
        let is_behind = |heard: &EventPosition| heard.seq < shown.seq;
        if state.heard.as_ref().is_none_or(is_behind) {
            state.heard = Some(shown);
        }
    }

    /// Until the connection ends.
    async fn listen(self, mut events: Events) {
        while let Some(event) = events.next().await {
            let now = self.lock().format_event(event);
            if let Some((printer, line)) = now {
                // Who cannot be told any more has left.
                let _ = printer.print(line).await;
            }
        }
    }
}

impl DisplayState {
    fn logged_in(&mut self, client: &Client) -> Vec<(Printer, String)> {
        self.logs_in = false;
        self.epoch = client.position(0).epoch;
        if client.server_was_reset() {
            self.heard = None;
        }
        self.take_early()
    }

    /// Takes what came early, unless it is early still; what to print now.
    fn take_early(&mut self) -> Vec<(Printer, String)> {
        let early = std::mem::take(&mut self.early);
        let taken = early
            .into_iter()
            .filter_map(|event| self.format_event(event));
        taken.collect()
    }

    /// Takes what was heard; where to print it, if that may be now.
    fn format_event(&mut self, event: Event) -> Option<(Printer, String)> {
        let Some(style) = self.style.as_ref().filter(|_| !self.logs_in) else {
            if self.early.len() == MAX_DEFERRED_LINES {
                self.early.pop_front();
                self.dropped += 1;
            }
            self.early.push_back(event);
            return None;
        };
        let (seq, line) = match &event {
            Event::Message(message) => (message.seq, style.message(message, None)),
            Event::Offer(offer) => (offer.seq, style.offer(offer, "accept", "decline")),
            _ => return None,
        };
        if self.heard.as_ref().is_some_and(|heard| seq <= heard.seq) {
            return None;
        }
        let epoch = self.epoch.clone();
        self.heard = Some(EventPosition { seq, epoch });
        let Some(printer) = self.printer.clone() else {
            self.hold(seq, line);
            return None;
        };
        Some((printer, line))
    }

    fn hold(&mut self, seq: u64, line: String) {
        if self.held.len() == MAX_DEFERRED_LINES {
            self.held.pop_front();
            self.dropped += 1;
        }
        self.held.push_back((seq, line));
    }
}
