//! The clocks of this machine, and when the wall clock can be trusted.
//!
//! The wall clock can be wrong: ahead by seconds, in 1970 until the network is up, or set by hand.
//! Nothing is deleted because of a single reading of it. The age of what a server stores itself is
//! measured by [`Clock::elapsed`], which nobody can set. An age that only the wall clock knows counts
//! once both clocks have [agreed](ClockAgreement) for some time.

#[cfg(test)]
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::sleep;

/// The most that the difference of the clocks may change between two comparisons, because the wall
/// clock is slewed.
const MAX_SLEW: SignedDuration = SignedDuration::from_secs(2);

/// The number of sleeps of [`timeout_while_running`].
const TIMEOUT_STEPS: u32 = 100;

/// As [`tokio::time::timeout`], but time in which this process does not run hardly counts. When a
/// stopped process continues, all its timers are over, although the awaited work had no time to run.
pub(crate) async fn timeout_while_running<T>(
    limit: Duration,
    work: impl Future<Output = T>,
) -> Option<T> {
    let waiting = async {
        for _ in 0..TIMEOUT_STEPS {
            sleep(limit / TIMEOUT_STEPS).await;
        }
    };
    tokio::select! {
        biased;
        done = work => Some(done),
        () = waiting => None,
    }
}

/// A wall clock and a monotonic clock. Clones share both.
#[derive(Debug, Clone)]
pub(crate) struct Clock(ClockSource);

#[derive(Debug, Clone)]
enum ClockSource {
    System,
    #[cfg(test)]
    Manual(Arc<Mutex<(Timestamp, Duration)>>),
}

impl Clock {
    /// The clocks of the system.
    pub(crate) fn system() -> Self {
        Self(ClockSource::System)
    }

    /// The time of the wall clock, which may be wrong.
    pub(crate) fn wall(&self) -> Timestamp {
        match &self.0 {
            ClockSource::System => Timestamp::now(),
            #[cfg(test)]
            ClockSource::Manual(readings) => readings.lock().0,
        }
    }

    /// The time since an arbitrary moment, including suspension. Nobody can set it.
    pub(crate) fn elapsed(&self) -> Duration {
        match &self.0 {
            ClockSource::System => clock_gettime(ClockId::Boottime)
                .try_into()
                .unwrap_or_default(),
            #[cfg(test)]
            ClockSource::Manual(readings) => readings.lock().1,
        }
    }
}

#[cfg(test)]
impl Clock {
    /// Clocks that a test controls.
    pub(crate) fn manual() -> Self {
        let wall = "2026-03-01T12:00:00Z".parse().expect("a time");
        Self(ClockSource::Manual(Arc::new(Mutex::new((
            wall,
            Duration::ZERO,
        )))))
    }

    /// Advances both clocks.
    pub(crate) fn advance(&self, by: Duration) {
        let ClockSource::Manual(readings) = &self.0 else {
            panic!("the clocks of the system");
        };
        let mut readings = readings.lock();
        readings.0 += by;
        readings.1 += by;
    }

    /// Sets the wall clock.
    pub(crate) fn set_wall(&self, to: Timestamp) {
        let ClockSource::Manual(readings) = &self.0 else {
            panic!("the clocks of the system");
        };
        readings.lock().0 = to;
    }
}

/// A comparison of both clocks over time.
#[derive(Debug)]
pub(crate) struct ClockAgreement {
    clock: Clock,
    last: Mutex<ClockComparison>,
}

#[derive(Debug, Clone, Copy)]
struct ClockComparison {
    /// The lead of the wall clock over the monotonic clock.
    ahead: SignedDuration,
    /// The monotonic time since which the wall clock was not set.
    since: Duration,
}

impl ClockAgreement {
    /// Starts to compare the clocks.
    pub(crate) fn new(clock: Clock) -> Self {
        let elapsed = clock.elapsed();
        let first = ClockComparison {
            ahead: ahead(clock.wall(), elapsed),
            since: elapsed,
        };
        Self {
            clock,
            last: Mutex::new(first),
        }
    }

    /// The wall-clock time, if both clocks have agreed for `time`. Call it at least once a minute: it
    /// does not notice a clock that is set and set back between two calls.
    pub(crate) fn wall_after(&self, time: Duration) -> Option<Timestamp> {
        let (wall, elapsed) = (self.clock.wall(), self.clock.elapsed());
        let ahead = ahead(wall, elapsed);
        let mut last = self.last.lock();
        if ahead.saturating_sub(last.ahead).abs() > MAX_SLEW {
            last.since = elapsed;
        }
        last.ahead = ahead;
        (elapsed.saturating_sub(last.since) >= time).then_some(wall)
    }
}

fn ahead(wall: Timestamp, elapsed: Duration) -> SignedDuration {
    let elapsed = SignedDuration::try_from(elapsed).unwrap_or(SignedDuration::MAX);
    wall.duration_since(Timestamp::UNIX_EPOCH)
        .saturating_sub(elapsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);
    const HOUR: Duration = Duration::from_hours(1);

    /// Asks once a minute for an hour, and says how often the wall clock was believed.
    fn believed_in_an_hour(clock: &Clock, agreement: &ClockAgreement) -> usize {
        let mut believed = 0;
        for _ in 0..60 {
            clock.advance(MINUTE);
            believed += usize::from(agreement.wall_after(HOUR).is_some());
        }
        believed
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_was_stopped_has_not_waited() {
        let limit = Duration::from_secs(1);
        let resumed = async {
            tokio::time::advance(limit * 60).await;
            tokio::task::yield_now().await;
        };
        assert!(timeout_while_running(limit, resumed).await.is_some());
        let never = std::future::pending::<()>();
        assert!(timeout_while_running(limit, never).await.is_none());
    }

    #[test]
    fn a_wall_clock_is_believed_after_an_hour_in_which_nobody_set_it() {
        let clock = Clock::manual();
        let agreement = ClockAgreement::new(clock.clone());
        assert_eq!(agreement.wall_after(HOUR), None);
        assert_eq!(believed_in_an_hour(&clock, &agreement), 1);
        assert_eq!(agreement.wall_after(HOUR), Some(clock.wall()));
        let right = clock.wall();
        clock.set_wall("2031-01-01T00:00:00Z".parse().expect("a time"));
        assert_eq!(agreement.wall_after(HOUR), None, "it was set");
        clock.set_wall(right);
        assert_eq!(agreement.wall_after(HOUR), None, "it was set back");
        assert_eq!(believed_in_an_hour(&clock, &agreement), 1);
    }

    #[test]
    fn a_machine_that_starts_in_1970_and_is_set_later_waits_from_then_on() {
        let clock = Clock::manual();
        clock.set_wall(Timestamp::UNIX_EPOCH);
        let agreement = ClockAgreement::new(clock.clone());
        for _ in 0..30 {
            clock.advance(MINUTE);
            assert_eq!(agreement.wall_after(HOUR), None);
        }
        clock.set_wall("2026-03-01T12:00:00Z".parse().expect("a time"));
        assert_eq!(agreement.wall_after(HOUR), None);
        assert_eq!(believed_in_an_hour(&clock, &agreement), 1);
    }

    #[test]
    fn a_clock_that_is_slewed_has_not_been_set() {
        let clock = Clock::manual();
        let agreement = ClockAgreement::new(clock.clone());
        for _ in 0..60 {
            clock.advance(MINUTE);
            clock.set_wall(clock.wall() + Duration::from_millis(30));
            let _ = agreement.wall_after(HOUR);
        }
        assert!(agreement.wall_after(HOUR).is_some());
    }
}
