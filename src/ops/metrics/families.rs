//! Builds metric families and encodes them as text.

use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use crate::server::CommandCounts;

/// Labels of one series, and its value.
type Series<'a, const N: usize> = ([(&'static str, &'a str); N], f64);

/// Metrics, each with its series.
#[derive(Default)]
pub(super) struct MetricFamilies(Vec<MetricFamily>);

impl MetricFamilies {
    /// A gauge.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.gauges(name, help, [([], value)]);
    }

    /// A gauge with a series for each set of labels.
    pub(super) fn gauges<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = Series<'a, N>>,
    ) {
        let metrics = series.into_iter().map(|(labels, value)| {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            let mut metric = Metric::from_gauge(gauge);
            metric.set_label(pairs(&labels));
            metric
        });
        self.add(name, help, MetricType::GAUGE, metrics.collect());
    }

    /// A counter, which starts at 0.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.counters(name, help, [([], value)]);
    }

    /// A counter with a series for each set of labels.
    pub(super) fn counters<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = Series<'a, N>>,
    ) {
        let metrics = series.into_iter().map(|(labels, value)| {
            let mut counter = Counter::default();
            counter.set_value(value);
            let mut metric = Metric::from_label(pairs(&labels));
            metric.set_counter(counter);
            metric
        });
        self.add(name, help, MetricType::COUNTER, metrics.collect());
    }

    /// A histogram of durations for each command.
    pub(super) fn latencies<'a>(
        &mut self,
        name: &str,
        help: &str,
        commands: impl IntoIterator<Item = &'a CommandCounts>,
    ) {
        let metrics = commands.into_iter().map(|command| {
            let mut metric = Metric::from_label(pairs(&[("cmd", command.cmd)]));
            metric.set_histogram(histogram(command));
            metric
        });
        self.add(name, help, MetricType::HISTOGRAM, metrics.collect());
    }

    /// A family without series is left out.
    fn add(&mut self, name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) {
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.into());
        family.set_help(help.into());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }

    /// The text.
    pub(super) fn encode(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.0)
    }
}

fn pairs(labels: &[(&'static str, &str)]) -> Vec<LabelPair> {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).into());
        pair.set_value((*value).into());
        pair
    });
    pairs.collect()
}

fn histogram(command: &CommandCounts) -> Histogram {
    let mut sum = 0;
    let counts = command.latency.counts.iter().map(|count| {
        sum += count;
        sum
    });
    let counts: Vec<u64> = counts.collect();
    let bounds = command.latency.bounds.iter().zip(&counts);
    let buckets = bounds.map(|(bound, count)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(*count);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(sum);
    histogram.set_sample_sum(command.time.as_secs_f64());
    histogram
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::server::LatencyHistogram;

    #[test]
    fn a_histogram_adds_up_and_what_has_no_series_is_left_out() {
        let command = CommandCounts {
            cmd: "ls",
            ok: 4,
            errors: Vec::new(),
            latency: LatencyHistogram {
                bounds: &[0.001, 0.5],
                counts: vec![1, 2, 1],
            },
            time: Duration::from_millis(2500),
        };
        let mut families = MetricFamilies::default();
        families.gauges::<1>("haul_nothing", "Nothing.", []);
        families.latencies("haul_time_seconds", "How long.", [&command]);
        assert_eq!(
            families.encode().expect("a text"),
            "# HELP haul_time_seconds How long.\n\
             # TYPE haul_time_seconds histogram\n\
             haul_time_seconds_bucket{cmd=\"ls\",le=\"0.001\"} 1\n\
             haul_time_seconds_bucket{cmd=\"ls\",le=\"0.5\"} 3\n\
             haul_time_seconds_bucket{cmd=\"ls\",le=\"+Inf\"} 4\n\
             haul_time_seconds_sum{cmd=\"ls\"} 2.5\n\
             haul_time_seconds_count{cmd=\"ls\"} 4\n"
        );
    }

    #[test]
    fn a_label_cannot_break_out_of_its_quotes() {
        let mut families = MetricFamilies::default();
        let name = "a\"} 1\nhaul_fake{x=\"\\";
        families.gauges("haul_quota", "Q.", [([("name", name)], 1.0)]);
        let text = families.encode().expect("a text");
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(
            text.ends_with("haul_quota{name=\"a\\\"} 1\\nhaul_fake{x=\\\"\\\\\"} 1\n"),
            "{text}"
        );
    }
}
