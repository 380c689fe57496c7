//! The number of stored events of each sender, and which senders exceed their share of a limit.

use std::collections::HashMap;

/// The number of stored events of each sender.
#[derive(Debug, Default)]
pub(crate) struct EventCounts {
    by_sender: HashMap<i64, u64>,
    total: u64,
}

impl EventCounts {
    pub(crate) fn add(&mut self, sender: i64, events: u64) {
        *self.by_sender.entry(sender).or_default() += events;
        self.total += events;
    }

    pub(crate) fn remove(&mut self, sender: i64) {
        if let Some(events) = self.by_sender.get_mut(&sender) {
            *events -= 1;
            self.total -= 1;
            if *events == 0 {
                self.by_sender.remove(&sender);
            }
        }
    }

    /// The senders that exceed an equal share of `max_events`, each with the number of events above
    /// it. A sender loses events only because of its own.
    pub(crate) fn surplus(&self, max_events: u64) -> Vec<(i64, u64)> {
        if self.total <= max_events {
            return Vec::new();
        }
        let mut counts: Vec<_> = self.by_sender.values().copied().collect();
        counts.sort_unstable();
        let (mut left, mut share) = (max_events, 0);
        for (number, count) in counts.iter().enumerate() {
            let senders = (counts.len() - number) as u64;
            share = left / senders;
            if *count > share {
                break;
            }
            left -= count;
        }
        let above = self.by_sender.iter().filter(|(_, count)| **count > share);
        above
            .map(|(sender, count)| (*sender, count - share))
            .collect()
    }
}
