//! Lines of the log that strangers can cause: one in a while, and how many were left out.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Between two lines of one kind.
const PAUSE: Duration = Duration::from_secs(1);

/// Between two lines about something that lasts.
const LONG_PAUSE: Duration = Duration::from_mins(1);

/// Whose turn it is to be written.
#[derive(Debug)]
pub(crate) struct LogThrottle {
    pause: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    written: Option<Instant>,
    left_out: u64,
    turns: u64,
}

impl Default for LogThrottle {
    /// One a second.
    fn default() -> Self {
        Self::every(PAUSE)
    }
}

impl LogThrottle {
    /// One a minute: of what is tried again and again until somebody does something about it.
    pub(crate) fn of_a_state() -> Self {
        Self::every(LONG_PAUSE)
    }

    fn every(pause: Duration) -> Self {
        Self {
            pause,
            state: Mutex::default(),
        }
    }

    /// Whether to write a line now, and if so, how many were left out since the last one.
    pub(crate) fn turn(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.turns += 1;
        if state.written.is_some_and(|last| now < last + self.pause) {
            state.left_out += 1;
            return None;
        }
        state.written = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }

    /// How many there were, written or not.
    pub(crate) fn total(&self) -> u64 {
        let state = self.state.lock();
        state.unwrap_or_else(PoisonError::into_inner).turns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_line_a_second_that_counts_the_others() {
        let (lines, start) = (LogThrottle::default(), Instant::now());
        assert_eq!(lines.turn(start), Some(0));
        for _ in 0..1000 {
            assert_eq!(lines.turn(start + PAUSE / 2), None);
        }
        assert_eq!(lines.turn(start + PAUSE), Some(1000));
        assert_eq!(lines.turn(start + PAUSE * 9), Some(0));
        assert_eq!(lines.total(), 1003);
    }

    #[test]
    fn what_fails_ten_times_a_second_for_a_minute_is_one_line() {
        let (lines, start) = (LogThrottle::of_a_state(), Instant::now());
        let tries = (0..600).map(|tenth| start + tenth * Duration::from_millis(100));
        let written = tries.filter_map(|now| lines.turn(now));
        assert_eq!(written.collect::<Vec<_>>(), [0]);
        assert_eq!(lines.turn(start + LONG_PAUSE), Some(599));
    }
}
