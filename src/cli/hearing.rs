//! What a session hears of messages, offers and changes while it does other things, or nothing else.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::lines::Printer;
use super::said::Style;
use crate::client::{Client, Events};
use crate::protocol::Event;

/// Lines that are held until they may be printed. Who wants to read more has `history`.
const HELD: usize = 200;

/// What is heard on the connections of a session.
#[derive(Debug, Clone)]
pub(super) enum Hears {
    /// Nothing: it leaves messages and offers to sessions that show them.
    Nothing,
    /// Changes, for who takes the events of each connection.
    Changes,
    /// Messages, offers and changes, for who takes the events of each connection.
    Everything,
    /// Messages and offers, which are printed beside the work.
    Aside(Aside),
}

impl Hears {
    /// Listens to a connection from before its login on. After which message or offer that is to
    /// go on, if that is known here.
    pub(super) fn begin(&self, client: &Client) -> Option<u64> {
        match self {
            Self::Nothing => None,
            Self::Changes | Self::Everything => {
                client.keep_events();
                None
            }
            Self::Aside(aside) => {
                tokio::spawn(aside.clone().listen(client.events()));
                aside.lock().heard
            }
        }
    }

    pub(super) fn has_inbox(&self) -> bool {
        matches!(self, Self::Everything | Self::Aside(_))
    }
}

/// Prints messages and offers while a line is being typed, and holds them while a command runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Aside(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// How to show it; absent until the user is known.
    style: Option<Style>,
    /// What came before.
    early: VecDeque<Event>,
    /// Where to print; absent while it may not be.
    printer: Option<Printer>,
    /// What was heard meanwhile, each with its `seq`.
    held: VecDeque<(u64, String)>,
    dropped: usize,
    heard: Option<u64>,
}

impl Aside {
    /// Knows how to show what was heard and will be.
    pub(super) fn begin(&self, style: Style) {
        let mut state = self.lock();
        state.style = Some(style);
        for event in std::mem::take(&mut state.early) {
            state.take(event);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Someone is about to type: what was held is returned, what is heard from now on is printed.
    pub(super) fn speak(&self, printer: Printer) -> Vec<String> {
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
    pub(super) fn hold(&self) {
        self.lock().printer = None;
    }

    /// Another session has shown what there was up to `seq`.
    pub(super) fn forget(&self, seq: u64) {
        let mut state = self.lock();
        state.heard = state.heard.max(Some(seq));
        state.held.retain(|(held, _)| *held > seq);
    }

    /// Until the connection ends.
    async fn listen(self, mut events: Events) {
        while let Some(event) = events.next().await {
            let now = self.lock().take(event);
            if let Some((printer, line)) = now {
                // Who can not be told any more has left.
                let _ = printer.print(line).await;
            }
        }
    }
}

impl State {
    /// Takes what was heard; where to print it, if that may be now.
    fn take(&mut self, event: Event) -> Option<(Printer, String)> {
        let Some(style) = &self.style else {
            if self.early.len() == HELD {
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
        if self.heard.is_some_and(|heard| seq <= heard) {
            return None;
        }
        self.heard = Some(seq);
        let Some(printer) = self.printer.clone() else {
            self.hold(seq, line);
            return None;
        };
        Some((printer, line))
    }

    fn hold(&mut self, seq: u64, line: String) {
        if self.held.len() == HELD {
            self.held.pop_front();
            self.dropped += 1;
        }
        self.held.push_back((seq, line));
    }
}
