//! The rate of a transfer in the last seconds.

use std::collections::VecDeque;

use tokio::time::{Duration, Instant};

/// The time that a rate is measured over.
const SPAN: Duration = Duration::from_secs(5);

/// The shortest time that a rate is measured over: with less, it would jump.
const MIN_SPAN: Duration = Duration::from_millis(300);

/// The least time between two samples, which bounds their number.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(50);

/// Samples of a counter over the last [`SPAN`].
#[derive(Debug, Default)]
pub(super) struct RecentRate(VecDeque<(Instant, u64)>);

impl RecentRate {
    /// Adds the value of the counter at `now`.
    pub(super) fn add(&mut self, now: Instant, bytes: u64) {
        let last = self.0.back();
        if last.is_some_and(|(at, _)| now.duration_since(*at) < SAMPLE_INTERVAL) {
            return;
        }
        self.0.push_back((now, bytes));
        // One sample may be older, so that the span is full.
        while self.0.len() > 2 && now.duration_since(self.0[1].0) >= SPAN {
            self.0.pop_front();
        }
    }

    /// Bytes per second; `None` until enough time has passed.
    pub(super) fn bytes_per_second(&self) -> Option<u64> {
        let ((start, before), (end, after)) = (self.0.front()?, self.0.back()?);
        let span = end.duration_since(*start);
        let milliseconds = u64::try_from(span.as_millis()).ok()?;
        let bytes = after.saturating_sub(*before);
        (span >= MIN_SPAN).then(|| bytes.saturating_mul(1000) / milliseconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_seconds_count() {
        let (start, mut rate) = (Instant::now(), RecentRate::default());
        let at = |tenths: u32| start + Duration::from_millis(100) * tenths;
        rate.add(at(0), 0);
        rate.add(at(1), 100);
        assert_eq!(rate.bytes_per_second(), None);
        for tenths in 2..=100 {
            rate.add(at(tenths), 100 * u64::from(tenths));
        }
        assert_eq!(rate.bytes_per_second(), Some(1000));
        for tenths in 101..=160 {
            rate.add(at(tenths), 10_000);
        }
        assert_eq!(rate.bytes_per_second(), Some(0));
        assert!(rate.0.len() < 60);
    }
}
