//! Quantiles of durations, from counts in buckets.

use serde::Serialize;

use crate::server::LatencyHistogram;

/// Quantiles of the durations of commands, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Quantiles {
    /// The median.
    pub(super) p50: f64,
    /// The 99th percentile.
    pub(super) p99: f64,
}

impl Quantiles {
    /// The quantiles of the commands from `before` to `now`; `None` if there were none.
    pub(super) fn between(before: &LatencyHistogram, now: &LatencyHistogram) -> Option<Self> {
        let before = before.counts.iter().copied().chain(std::iter::repeat(0));
        let counts = now.counts.iter().zip(before);
        let counts: Vec<_> = counts.map(|(now, then)| now.saturating_sub(then)).collect();
        Some(Self {
            p50: quantile(now.bounds, &counts, 0.5)?,
            p99: quantile(now.bounds, &counts, 0.99)?,
        })
    }
}

/// Estimates the `part` quantile, assuming that the durations in a bucket are evenly distributed.
/// Durations above the last bound count as that bound.
#[expect(clippy::cast_precision_loss, reason = "no count comes near 2^53")]
fn quantile(bounds: &[f64], counts: &[u64], part: f64) -> Option<f64> {
    let rank = counts.iter().sum::<u64>() as f64 * part;
    let mut below = 0.0;
    let mut lower = 0.0;
    for (bound, count) in bounds.iter().zip(counts) {
        let count = *count as f64;
        if count > 0.0 && below + count >= rank {
            return Some(lower + (bound - lower) * (rank - below) / count);
        }
        below += count;
        lower = *bound;
    }
    counts.iter().any(|count| *count > 0).then_some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The estimate, rounded to microseconds.
    fn quantile_micros(counts: [u64; 4], part: f64) -> Option<u64> {
        let found = quantile(&[0.001, 0.01, 0.1], &counts, part)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "small"
        )]
        Some((found * 1e6).round() as u64)
    }

    #[test]
    fn a_quantile_lies_in_the_bucket_that_holds_it() {
        assert_eq!(quantile_micros([10, 0, 0, 0], 0.5), Some(500));
        assert_eq!(quantile_micros([5, 5, 0, 0], 0.5), Some(1000));
        assert_eq!(quantile_micros([50, 0, 50, 0], 0.99), Some(98_200));
        assert_eq!(
            quantile_micros([0, 0, 0, 3], 0.5),
            Some(100_000),
            "beyond the last bound"
        );
        assert_eq!(quantile_micros([0; 4], 0.5), None);
    }

    #[test]
    fn only_later_commands_count() {
        let counted = |fast, slow| LatencyHistogram {
            bounds: &[0.001, 0.01],
            counts: vec![fast, slow, 0],
        };
        let now = counted(100, 4);
        let all = Quantiles::between(&LatencyHistogram::default(), &now).expect("there were some");
        assert!(all.p50 < 0.001, "{all:?}");
        let last = Quantiles::between(&counted(100, 0), &now).expect("there were some");
        assert!(last.p50 > 0.001, "{last:?}");
        assert_eq!(Quantiles::between(&now, &now), None);
    }
}
