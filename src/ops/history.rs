//! The last hour in samples: what the page draws.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

/// Between two samples.
pub(super) const STEP: Duration = Duration::from_secs(10);

/// An hour of them.
const SAMPLES: usize = 360;

/// What happened in one [`STEP`].
#[derive(Debug, Clone, Serialize)]
pub(super) struct Sample {
    /// Milliseconds from the server's start to its end.
    pub(super) at: u64,
    /// Bytes of files a second that came from clients.
    pub(super) received: u64,
    /// Bytes of files a second that went to clients.
    pub(super) sent: u64,
    /// Sessions at its end.
    pub(super) sessions: usize,
}

/// The last samples, the oldest first.
#[derive(Debug, Default, Serialize)]
pub(super) struct History {
    samples: VecDeque<Sample>,
    /// Bytes that were received and sent when the last one was taken, and when that was.
    #[serde(skip)]
    before: (u64, u64, Duration),
}

impl History {
    /// Takes a sample: what was received and sent since the start, `uptime` ago.
    pub(super) fn take(&mut self, uptime: Duration, traffic: (u64, u64), sessions: usize) {
        let (received, sent, before) = self.before;
        let time = uptime.saturating_sub(before);
        let sample = Sample {
            at: u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
            received: per_second(traffic.0.saturating_sub(received), time),
            sent: per_second(traffic.1.saturating_sub(sent), time),
            sessions,
        };
        self.before = (traffic.0, traffic.1, uptime);
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// The last one.
    pub(super) fn latest(&self) -> Option<&Sample> {
        self.samples.back()
    }
}

fn per_second(bytes: u64, time: Duration) -> u64 {
    let rate = u128::from(bytes) * 1000 / time.as_millis().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_what_moved_since_the_one_before() {
        let mut history = History::default();
        history.take(STEP, (1000, 0), 1);
        history.take(STEP * 2, (1500, 40), 2);
        // One that comes late is of a longer time.
        history.take(STEP * 4, (2500, 40), 0);
        let each = history.samples.iter();
        let rates: Vec<_> = each.map(|one| (one.received, one.sent)).collect();
        assert_eq!(rates, [(100, 0), (50, 4), (50, 0)]);
        let last = history.latest().expect("there are some");
        assert_eq!((last.at, last.sessions), (40_000, 0));
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let mut history = History::default();
        for step in 1..=400 {
            history.take(STEP * step, (0, 0), 0);
        }
        assert_eq!(history.samples.len(), 360);
        assert_eq!(history.samples[0].at, 410_000);
        let json = serde_json::to_string(&history).expect("JSON");
        assert!(json.len() < 40_000, "{}", json.len());
    }
}
