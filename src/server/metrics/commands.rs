//! Outcomes and durations of each command. A request finds its counter once, and costs three atomic
//! additions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::protocol::{CommandInfo, ErrorCode, Request};

/// Upper bounds of the duration buckets, in seconds. One more bucket counts longer durations.
pub(crate) const LATENCY_BOUNDS_SECONDS: [f64; 17] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 60.0,
];

const LATENCY_BUCKETS: usize = LATENCY_BOUNDS_SECONDS.len() + 1;

/// Names outside the protocol's table: accounts that are created in the classic dialect, and
/// requests without a known command.
const EXTRA_COMMANDS: [CommandInfo; 2] = [CommandInfo::REGISTER, CommandInfo::UNKNOWN];

/// The counters of all commands, ordered by name.
#[derive(Debug)]
pub(crate) struct CommandCounters(Vec<Arc<CommandCounter>>);

/// The counter of one command.
#[derive(Debug)]
pub(crate) struct CommandCounter {
    name: &'static str,
    is_streaming: bool,
    ok: AtomicU64,
    errors: [AtomicU64; ErrorCode::ALL.len()],
    buckets: [AtomicU64; LATENCY_BUCKETS],
    nanos: AtomicU64,
}

impl Default for CommandCounters {
    fn default() -> Self {
        let mut commands = [Request::COMMANDS, &EXTRA_COMMANDS].concat();
        commands.sort_unstable_by_key(|command| command.name);
        Self(
            commands
                .into_iter()
                .map(CommandCounter::new)
                .map(Arc::new)
                .collect(),
        )
    }
}

impl CommandCounters {
    /// The counter of a command; that of `unknown` if there is no such command.
    pub(crate) fn counter(&self, cmd: &str) -> Arc<CommandCounter> {
        let found = self.0.binary_search_by_key(&cmd, |command| command.name);
        let found = found.or_else(|_| {
            self.0
                .binary_search_by_key(&CommandInfo::UNKNOWN.name, |one| one.name)
        });
        Arc::clone(&self.0[found.unwrap_or_default()])
    }

    /// The counts of each command, in the order of their names.
    pub(crate) fn counts(&self) -> Vec<CommandCounts> {
        self.0.iter().map(|command| command.counts()).collect()
    }

    /// See [`Server::latency`](crate::server::Server::latency).
    pub(crate) fn latency(&self) -> LatencyHistogram {
        let mut counts = vec![0; LATENCY_BUCKETS];
        let answered = |one: &&Arc<CommandCounter>| !one.is_streaming;
        for command in self.0.iter().filter(answered) {
            for (sum, bucket) in counts.iter_mut().zip(&command.buckets) {
                *sum += bucket.load(Ordering::Relaxed);
            }
        }
        LatencyHistogram {
            bounds: &LATENCY_BOUNDS_SECONDS,
            counts,
        }
    }
}

impl CommandCounter {
    fn new(command: CommandInfo) -> Self {
        Self {
            name: command.name,
            is_streaming: command.is_streaming,
            ok: AtomicU64::new(0),
            errors: [const { AtomicU64::new(0) }; ErrorCode::ALL.len()],
            buckets: [const { AtomicU64::new(0) }; LATENCY_BUCKETS],
            nanos: AtomicU64::new(0),
        }
    }

    /// Counts a finished command, with its error code unless it succeeded.
    pub(crate) fn record(&self, code: Option<ErrorCode>, took: Duration) {
        let outcome = code.map_or(Some(&self.ok), |code| self.errors.get(code as usize));
        if let Some(outcome) = outcome {
            outcome.fetch_add(1, Ordering::Relaxed);
        }
        let seconds = took.as_secs_f64();
        let bucket = LATENCY_BOUNDS_SECONDS.partition_point(|bound| *bound < seconds);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn counts(&self) -> CommandCounts {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let codes = ErrorCode::ALL.into_iter().zip(&self.errors);
        CommandCounts {
            cmd: self.name,
            ok: load(&self.ok),
            errors: codes.map(|(code, number)| (code, load(number))).collect(),
            latency: LatencyHistogram {
                bounds: &LATENCY_BOUNDS_SECONDS,
                counts: self.buckets.iter().map(load).collect(),
            },
            time: Duration::from_nanos(load(&self.nanos)),
        }
    }
}

/// The counts of a command since the start.
#[derive(Debug, Clone)]
pub struct CommandCounts {
    /// The command's name; `unknown` for requests without a known command.
    pub cmd: &'static str,
    /// The number of successes.
    pub ok: u64,
    /// The number of failures, by code.
    pub errors: Vec<(ErrorCode, u64)>,
    /// The distribution of their durations.
    pub latency: LatencyHistogram,
    /// The sum of their durations.
    pub time: Duration,
}

/// The distribution of durations since the start. The difference of two distributions is that of the
/// time between them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LatencyHistogram {
    /// The upper bounds of the buckets in seconds, ascending.
    pub bounds: &'static [f64],
    /// The number of durations in each bucket. The last bucket, which has no bound, counts those above
    /// the last bound.
    pub counts: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_counted_by_its_name_its_code_and_its_time() {
        let commands = CommandCounters::default();
        let ping = commands.counter("ping");
        ping.record(None, Duration::from_micros(100));
        ping.record(None, Duration::from_micros(101));
        ping.record(Some(ErrorCode::Internal), Duration::from_hours(1));
        let counts = commands.counts();
        let ping = counts.iter().find(|one| one.cmd == "ping").expect("ping");
        assert_eq!(ping.ok, 2);
        let failed = ping.errors.iter().filter(|(_, number)| *number > 0);
        let failed: Vec<_> = failed.copied().collect();
        assert_eq!(failed, [(ErrorCode::Internal, 1)]);
        assert_eq!(ping.latency.counts[..3], [1, 1, 0]);
        assert_eq!(ping.latency.counts[LATENCY_BOUNDS_SECONDS.len()], 1);
        assert_eq!(ping.time, Duration::from_micros(3_600_000_201));
    }

    #[test]
    fn every_command_has_a_place_of_its_own_and_what_is_none_has_one_together() {
        let commands = CommandCounters::default();
        for command in Request::COMMANDS.iter().chain(&EXTRA_COMMANDS) {
            assert_eq!(commands.counter(command.name).name, command.name);
        }
        assert_eq!(commands.counter("format c:").name, "unknown");
        assert_eq!(commands.0.len(), Request::COMMANDS.len() + 2);
    }

    #[test]
    fn the_time_of_a_transfer_is_not_how_fast_the_server_answers() {
        let commands = CommandCounters::default();
        let took = Duration::from_millis(7);
        commands.counter("get").record(None, took);
        commands.counter("put").record(None, took);
        assert_eq!(commands.latency().counts.iter().sum::<u64>(), 0);
        commands.counter("ls").record(None, took);
        commands
            .counter("stat")
            .record(Some(ErrorCode::NotFound), took);
        let latency = commands.latency();
        assert_eq!(latency.counts.iter().sum::<u64>(), 2);
        assert_eq!(
            latency.counts[latency.bounds.partition_point(|at| *at < 0.007)],
            2
        );
    }
}
