//! The figures of the last hour as samples, which the page draws, and those of the last minute.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use crate::ops::quantiles::Quantiles;
use crate::server::LatencyHistogram;

/// The time between two samples.
pub(super) const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);

/// The number of samples in the last minute.
const RECENT_SAMPLES: usize = 6;

/// The number of samples in the last hour.
const MAX_SAMPLES: usize = 360;

/// The figures of one [`SAMPLE_INTERVAL`].
#[derive(Debug, Clone, Serialize)]
pub(super) struct Sample {
    /// Milliseconds from the server's start to its end.
    pub(super) at: u64,
    /// File bytes per second, received from clients.
    pub(super) received: u64,
    /// File bytes per second, sent to clients.
    pub(super) sent: u64,
    /// Sessions at its end.
    pub(super) sessions: usize,
    /// The durations of commands, if there were any.
    #[serde(flatten)]
    pub(super) latency: Option<Quantiles>,
}

/// The figures of the last minute.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct RecentFigures {
    /// File bytes per second, received from clients.
    received: u64,
    /// File bytes per second, sent to clients.
    sent: u64,
    failed_logins: u64,
    failed_commands: u64,
    /// The durations of commands, if there were any.
    #[serde(flatten)]
    latency: Option<Quantiles>,
}

/// The counters of a server since its start.
#[derive(Debug, Clone, Default)]
pub(super) struct ServerTotals {
    pub(super) uptime: Duration,
    /// File bytes, received from clients and sent to them.
    pub(super) traffic: (u64, u64),
    pub(super) failed_logins: u64,
    /// Commands that were answered with an error.
    pub(super) failed_commands: u64,
    /// The durations of commands.
    pub(super) latency: LatencyHistogram,
}

impl ServerTotals {
    /// The file bytes per second since `earlier`: received and sent.
    fn rates_since(&self, earlier: &Self) -> (u64, u64) {
        let time = self.uptime.saturating_sub(earlier.uptime);
        let rate = |now: u64, before: u64| per_second(now.saturating_sub(before), time);
        (
            rate(self.traffic.0, earlier.traffic.0),
            rate(self.traffic.1, earlier.traffic.1),
        )
    }
}

/// The last samples, the oldest first.
#[derive(Debug, Default, Serialize)]
pub(super) struct SampleHistory {
    samples: VecDeque<Sample>,
    /// The totals at the last [`RECENT_SAMPLES`] samples, the oldest first.
    #[serde(skip)]
    totals: VecDeque<ServerTotals>,
}

impl SampleHistory {
    /// Adds a sample. The first call only stores the totals at the start.
    pub(super) fn record(&mut self, now: ServerTotals, sessions: usize) {
        if let Some(before) = self.totals.back() {
            let (received, sent) = now.rates_since(before);
            if self.samples.len() == MAX_SAMPLES {
                self.samples.pop_front();
            }
            self.samples.push_back(Sample {
                at: u64::try_from(now.uptime.as_millis()).unwrap_or(u64::MAX),
                received,
                sent,
                sessions,
                latency: Quantiles::between(&before.latency, &now.latency),
            });
        }
        if self.totals.len() == RECENT_SAMPLES {
            self.totals.pop_front();
        }
        self.totals.push_back(now);
    }

    /// The figures of the last minute up to `now`; `None` before the first sample.
    pub(super) fn recent(&self, now: &ServerTotals) -> Option<RecentFigures> {
        let before = self.totals.front()?;
        let (received, sent) = now.rates_since(before);
        Some(RecentFigures {
            received,
            sent,
            failed_logins: now.failed_logins.saturating_sub(before.failed_logins),
            failed_commands: now.failed_commands.saturating_sub(before.failed_commands),
            latency: Quantiles::between(&before.latency, &now.latency),
        })
    }

    /// The last sample.
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

    /// The totals after a number of sample intervals.
    fn totals(steps: u32, traffic: (u64, u64), fast: u64, slow: u64) -> ServerTotals {
        let latency = LatencyHistogram {
            bounds: &[0.001, 0.01],
            counts: vec![fast, slow, 0],
        };
        ServerTotals {
            uptime: SAMPLE_INTERVAL * steps,
            traffic,
            failed_logins: fast,
            failed_commands: slow,
            latency,
        }
    }

    #[test]
    fn a_sample_has_the_figures_since_the_previous_one() {
        let mut history = SampleHistory::default();
        history.record(ServerTotals::default(), 0);
        history.record(totals(1, (1000, 0), 4, 0), 1);
        history.record(totals(2, (1500, 40), 4, 0), 2);
        // A late sample covers a longer time.
        history.record(totals(4, (2500, 40), 4, 9), 0);
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
    fn the_figures_of_the_last_minute_do_not_contain_earlier_ones() {
        let mut history = SampleHistory::default();
        assert_eq!(history.recent(&ServerTotals::default()), None);
        history.record(ServerTotals::default(), 0);
        let mut recent = Vec::new();
        for step in 1..=7 {
            let now = totals(step, (6000, 0), 3, 1);
            let figures = history.recent(&now).expect("there is a sample");
            recent.push((figures.received, figures.failed_logins));
            assert_eq!(figures.failed_commands * 3, figures.failed_logins);
            assert_eq!(figures.latency.is_some(), figures.failed_logins > 0);
            history.record(now, 0);
        }
        assert_eq!(
            recent,
            [
                (600, 3),
                (300, 3),
                (200, 3),
                (150, 3),
                (120, 3),
                (100, 3),
                (0, 0)
            ]
        );
    }

    #[test]
    fn one_hour_is_kept() {
        let mut history = SampleHistory::default();
        for step in 0..=400 {
            let many = u64::from(step);
            history.record(totals(step, (0, 0), many * 7, many), 0);
        }
        assert_eq!(history.samples.len(), 360);
        assert_eq!(history.samples[0].at, 410_000);
        let json = serde_json::to_string(&history).expect("JSON");
        assert!(json.len() < 50_000, "{}", json.len());
        assert!(!json.contains("totals"));
    }
}
