//! Limits log lines that clients without a login can cause: one line per interval, with the number of
//! lines that were left out before it.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Time between two lines of one kind.
const INTERVAL: Duration = Duration::from_secs(1);

/// Time between two lines about a lasting condition.
const LONG_INTERVAL: Duration = Duration::from_mins(1);

/// Limits log lines of one kind.
#[derive(Debug)]
pub(crate) struct LogThrottle {
    interval: Duration,
    state: Mutex<LogThrottleState>,
}

#[derive(Debug, Default)]
struct LogThrottleState {
    written: Option<Instant>,
    left_out: u64,
    total: u64,
}

impl Default for LogThrottle {
    /// One line per second.
    fn default() -> Self {
        Self::with_interval(INTERVAL)
    }
}

impl LogThrottle {
    /// One line per minute, for a condition that lasts until an operator ends it.
    pub(crate) fn once_per_minute() -> Self {
        Self::with_interval(LONG_INTERVAL)
    }

    fn with_interval(pause: Duration) -> Self {
        Self {
            interval: pause,
            state: Mutex::default(),
        }
    }

    /// Counts an event. If a line may be logged now, returns how many were left out since the last one.
    pub(crate) fn allow(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        state.total += 1;
        if state.written.is_some_and(|last| now < last + self.interval) {
            state.left_out += 1;
            return None;
        }
        state.written = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }

    /// Whether the next event causes a line.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let written = self.state.lock().written;
        written.is_none_or(|last| now >= last + self.interval)
    }

    /// How many events there were, logged or not.
    pub(crate) fn total(&self) -> u64 {
        self.state.lock().total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_causes_one_line_per_second_that_counts_the_others() {
        let (lines, start) = (LogThrottle::default(), Instant::now());
        assert_eq!(lines.allow(start), Some(0));
        for _ in 0..1000 {
            assert_eq!(lines.allow(start + INTERVAL / 2), None);
        }
        assert_eq!(lines.allow(start + INTERVAL), Some(1000));
        assert_eq!(lines.allow(start + INTERVAL * 9), Some(0));
        assert_eq!(lines.total(), 1003);
    }

    #[test]
    fn a_failure_ten_times_a_second_causes_one_line_per_minute() {
        let (lines, start) = (LogThrottle::once_per_minute(), Instant::now());
        let tries = (0..600).map(|tenth| start + tenth * Duration::from_millis(100));
        let written = tries.filter_map(|now| lines.allow(now));
        assert_eq!(written.collect::<Vec<_>>(), [0]);
        assert_eq!(lines.allow(start + LONG_INTERVAL), Some(599));
    }
}
