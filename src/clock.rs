//! The clocks of this machine, and what may be deleted on their word.
//!
//! The wall clock can be wrong: ahead for some seconds, in 1970 until the network is there, set by
//! hand. Nothing is deleted on the word of one reading of it. The age of what a server has stored
//! itself is measured by [`Clock::elapsed`], which nobody sets. An age that only the wall clock
//! knows counts once both clocks have [agreed](ClockAgreement) for some time.

#[cfg(test)]
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, clock_gettime};
use tokio::time::sleep;

/// The clocks may differ by so much from one comparison to the next: the wall clock is slewed.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(2);

/// Steps in which [`timeout_while_running`] waits.
const STEPS: u32 = 100;

/// As [`tokio::time::timeout`], but a time in which this process does not run hardly counts. A process
/// that was stopped for a while finds all its timers over, though what it waits for had no chance.
pub(crate) async fn timeout_while_running<T>(
    limit: Duration,
    work: impl Future<Output = T>,
) -> Option<T> {
    let waiting = async {
        for _ in 0..STEPS {
            sleep(limit / STEPS).await;
        }
    };
    tokio::select! {
        biased;
        done = work => Some(done),
        () = waiting => None,
    }
}

/// Two clocks: one that shows the time of day, and one that only goes on. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    #[cfg(test)]
    Manual(Arc<Mutex<(Timestamp, Duration)>>),
}

impl Clock {
    /// The clocks of the system.
    pub(crate) fn system() -> Self {
        Self(Source::System)
    }

    /// The time of day, as far as it is known.
    pub(crate) fn wall(&self) -> Timestamp {
        match &self.0 {
            Source::System => Timestamp::now(),
            #[cfg(test)]
            Source::Manual(readings) => readings.lock().expect("no panic").0,
        }
    }

    /// The time since some moment in the past, also while the machine slept. Nobody sets it.
    pub(crate) fn elapsed(&self) -> Duration {
        match &self.0 {
            Source::System => clock_gettime(ClockId::Boottime)
                .try_into()
                .unwrap_or_default(),
            #[cfg(test)]
            Source::Manual(readings) => readings.lock().expect("no panic").1,
        }
    }
}

#[cfg(test)]
impl Clock {
    /// Clocks that a test moves.
    pub(crate) fn manual() -> Self {
        let wall = "2026-03-01T12:00:00Z".parse().expect("a time");
        Self(Source::Manual(Arc::new(Mutex::new((wall, Duration::ZERO)))))
    }

    /// Time goes by.
    pub(crate) fn advance(&self, by: Duration) {
        let Source::Manual(readings) = &self.0 else {
            panic!("the clocks of the system");
        };
        let mut readings = readings.lock().expect("no panic");
        readings.0 += by;
        readings.1 += by;
    }

    /// Somebody sets the wall clock.
    pub(crate) fn set_wall(&self, to: Timestamp) {
        let Source::Manual(readings) = &self.0 else {
            panic!("the clocks of the system");
        };
        readings.lock().expect("no panic").0 = to;
    }
}

/// How long the wall clock has gone as the other one does.
#[derive(Debug)]
pub(crate) struct ClockAgreement {
    clock: Clock,
    last: Mutex<Comparison>,
}

#[derive(Debug, Clone, Copy)]
struct Comparison {
    /// By how much the wall clock is ahead of the other one.
    ahead: SignedDuration,
    /// Since when it has not been set.
    since: Duration,
}

impl ClockAgreement {
    /// Begins to compare.
    pub(crate) fn new(clock: Clock) -> Self {
        let elapsed = clock.elapsed();
        let first = Comparison {
            ahead: ahead(clock.wall(), elapsed),
            since: elapsed,
        };
        Self {
            clock,
            last: Mutex::new(first),
        }
    }

    /// The wall clock, if both have agreed for `time`. It should be asked at least once a minute:
    /// what is set and set back in between is not noticed, but not relied on either.
    pub(crate) fn wall_after(&self, time: Duration) -> Option<Timestamp> {
        let (wall, elapsed) = (self.clock.wall(), self.clock.elapsed());
        let ahead = ahead(wall, elapsed);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if ahead.saturating_sub(last.ahead).abs() > TOLERANCE {
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
