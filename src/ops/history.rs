//! The last hour in samples: what the page draws.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use crate::ops::quantiles::Quantiles;
use crate::server::LatencyHistogram;

/// Between two samples.
pub(super) const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);

/// So many of them are a minute.
const RECENT_SAMPLES: usize = 6;

/// An hour of them.
const MAX_SAMPLES: usize = 360;

/// The counts of one [`STEP`].
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
    /// How quickly commands were answered, if any were.
    #[serde(flatten)]
    pub(super) latency: Option<Quantiles>,
}

/// The counters of a server since its start.
#[derive(Debug, Clone, Default)]
pub(super) struct ServerTotals {
    /// How long ago that was.
    pub(super) uptime: Duration,
    /// Bytes of files that came from clients, and that went to them.
    pub(super) traffic: (u64, u64),
    /// How long commands took.
    pub(super) latency: LatencyHistogram,
}

/// The last samples, the oldest first.
#[derive(Debug, Default, Serialize)]
pub(super) struct SampleHistory {
    samples: VecDeque<Sample>,
    /// What was counted when the last ones were taken, for as long as [`RECENT`], the oldest first.
    #[serde(skip)]
    counted: VecDeque<ServerTotals>,
}

impl SampleHistory {
    /// Takes a sample, at the start the first one.
    pub(super) fn record(&mut self, now: ServerTotals, sessions: usize) {
        if let Some(before) = self.counted.back() {
            let time = now.uptime.saturating_sub(before.uptime);
            let moved = |now: u64, before: u64| per_second(now.saturating_sub(before), time);
            if self.samples.len() == MAX_SAMPLES {
                self.samples.pop_front();
            }
            self.samples.push_back(Sample {
                at: u64::try_from(now.uptime.as_millis()).unwrap_or(u64::MAX),
                received: moved(now.traffic.0, before.traffic.0),
                sent: moved(now.traffic.1, before.traffic.1),
                sessions,
                latency: Quantiles::between(&before.latency, &now.latency),
            });
        }
        if self.counted.len() == RECENT_SAMPLES {
            self.counted.pop_front();
        }
        self.counted.push_back(now);
    }

    /// How quickly commands were answered in the last minute, up to `now`.
    pub(super) fn recent(&self, now: &LatencyHistogram) -> Option<Quantiles> {
        Quantiles::between(&self.counted.front()?.latency, now)
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

    /// The number of steps since the start.
    fn counts(steps: u32, traffic: (u64, u64), fast: u64, slow: u64) -> ServerTotals {
        let latency = LatencyHistogram {
            bounds: &[0.001, 0.01],
            counts: vec![fast, slow, 0],
        };
        ServerTotals {
            uptime: SAMPLE_INTERVAL * steps,
            traffic,
            latency,
        }
    }

    #[test]
    fn a_sample_is_what_happened_since_the_one_before() {
        let mut history = SampleHistory::default();
        history.record(ServerTotals::default(), 0);
        history.record(counts(1, (1000, 0), 4, 0), 1);
        history.record(counts(2, (1500, 40), 4, 0), 2);
        // One that comes late is of a longer time.
        history.record(counts(4, (2500, 40), 4, 9), 0);
        let each = history.samples.iter();
        let rates: Vec<_> = each.map(|one| (one.received, one.sent)).collect();
        assert_eq!(rates, [(100, 0), (50, 4), (50, 0)]);
        let latencies = history.samples.iter().map(|one| one.latency);
        let within: Vec<_> = latencies
            .map(|one| one.map(|one| one.p50 > 0.001))
            .collect();
        assert_eq!(within, [Some(false), None, Some(true)]);
        let last = history.latest().expect("there are some");
        assert_eq!((last.at, last.sessions), (40_000, 0));
    }

    #[test]
    fn the_last_minute_forgets_what_was_before() {
        let mut history = SampleHistory::default();
        history.record(ServerTotals::default(), 0);
        let mut recent = Vec::new();
        for step in 1..=7 {
            let counts = counts(step, (0, 0), 100, 0);
            recent.push(history.recent(&counts.latency).is_some());
            history.record(counts, 0);
        }
        assert_eq!(recent, [true, true, true, true, true, true, false]);
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let mut history = SampleHistory::default();
        for step in 0..=400 {
            let many = u64::from(step);
            history.record(counts(step, (0, 0), many * 7, many), 0);
        }
        assert_eq!(history.samples.len(), 360);
        assert_eq!(history.samples[0].at, 410_000);
        let json = serde_json::to_string(&history).expect("JSON");
        assert!(json.len() < 50_000, "{}", json.len());
        assert!(!json.contains("counted"));
    }
}
