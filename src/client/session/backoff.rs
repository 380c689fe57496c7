//! The waits between attempts, and the number of attempts. No I/O; it reads the clock and random numbers.

use std::time::Duration;

use tokio::time::Instant;

/// The shortest wait.
const MIN_DELAY: Duration = Duration::from_millis(100);

/// How often a lost connection is made again, and after which waits.
///
/// A success resets the count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in a row without success; with 0 the first failure is final.
    pub attempts: u32,
    /// The longest wait before the first attempt. It doubles with each.
    pub first: Duration,
    /// The longest wait of all, unless the server asks for a longer one.
    pub longest: Duration,
    /// No attempt begins later than this after the first failure in a row.
    pub limit: Duration,
}

impl RetryPolicy {
    /// The first failure is the last.
    pub const NEVER: Self = Self {
        attempts: 0,
        first: Duration::ZERO,
        longest: Duration::ZERO,
        limit: Duration::ZERO,
    };

    /// For programs that stay connected until they are ended: at last an attempt every half a minute, for
    /// years.
    pub const FOR_EVER: Self = Self {
        attempts: u32::MAX,
        first: Duration::from_secs(1),
        longest: Duration::from_secs(30),
        limit: Duration::from_hours(87600),
    };
}

impl Default for RetryPolicy {
    /// Ten attempts over at most ten minutes: a second and less at first, half a minute at last.
    fn default() -> Self {
        Self {
            attempts: 10,
            first: Duration::from_secs(1),
            longest: Duration::from_secs(30),
            limit: Duration::from_mins(10),
        }
    }
}

/// The failures in a row of one piece of work.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    policy: RetryPolicy,
    failures: u32,
    since: Option<Instant>,
}

impl Backoff {
    pub(crate) fn new(policy: RetryPolicy) -> Self {
        Self {
            policy,
            failures: 0,
            since: None,
        }
    }

    /// Counts a failure and returns the time to wait, which is at least `requested`; `None` if no attempt is
    /// left.
    pub(crate) fn after_failure(&mut self, requested: Option<Duration>) -> Option<Duration> {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        if self.failures >= self.policy.attempts {
            return None;
        }
        let doubled = self.policy.first.saturating_mul(1 << self.failures.min(20));
        // A random part of it ("full jitter"), so that clients that lost a server at the same time do not
        // return at the same time.
        let wait = doubled.min(self.policy.longest).mul_f64(random_fraction());
        let wait = wait.max(MIN_DELAY.min(self.policy.first));
        // Clients to which a server named the same time must not return at the same moment either.
        let wait = requested.map_or(wait, |requested| {
            wait.max(requested + self.policy.first.mul_f64(random_fraction()))
        });
        if now + wait > since + self.policy.limit {
            return None;
        }
        self.failures += 1;
        Some(wait)
    }

    /// Resets the count after a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
        self.since = None;
    }

    /// Failures in a row, which is the number of the next attempt after
    /// [`after_failure`](Self::after_failure).
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.policy.attempts
    }
}

/// A random number from 0 to 1.
fn random_fraction() -> f64 {
    // Without random numbers the longest wait is acceptable, too.
    let number = getrandom::u32().unwrap_or(u32::MAX);
    f64::from(number) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_double_up_to_the_longest_and_differ_between_clients() {
        let longest = [1, 2, 4, 8, 16, 30, 30, 30, 30, 30].map(Duration::from_secs);
        let mut sums = Vec::new();
        for _ in 0..200 {
            let mut backoff = Backoff::new(RetryPolicy::default());
            let mut sum = Duration::ZERO;
            for longest in longest {
                let wait = backoff.after_failure(None).expect("an attempt is left");
                assert!(
                    wait >= MIN_DELAY && wait <= longest,
                    "{wait:?} of {longest:?}"
                );
                sum += wait;
            }
            assert_eq!(backoff.after_failure(None), None);
            sums.push(sum);
        }
        sums.sort();
        sums.dedup();
        assert!(sums.len() > 190, "they come back together");
        // The mean of 200 sums is within ten standard deviations of the expected one.
        let mean = sums.iter().sum::<Duration>().as_secs_f64() / 200.0;
        assert!((60.0..125.0).contains(&mean), "{mean}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_names_a_time_is_not_connected_to_earlier() {
        let mut backoff = Backoff::new(RetryPolicy::default());
        let asked = Duration::from_secs(77);
        let wait = backoff.after_failure(Some(asked)).expect("one is left");
        let latest = asked + RetryPolicy::default().first;
        assert!(wait >= asked && wait <= latest, "{wait:?}");
        let mut waits: Vec<_> = (0..50)
            .filter_map(|_| Backoff::new(RetryPolicy::default()).after_failure(Some(asked)))
            .collect();
        waits.sort();
        waits.dedup();
        assert!(waits.len() > 40, "they come back together");
        let too_long = Duration::from_secs(601);
        assert_eq!(backoff.after_failure(Some(too_long)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_total_time_is_limited_as_well_as_the_attempts() {
        let policy = RetryPolicy {
            attempts: 1000,
            ..RetryPolicy::default()
        };
        let mut backoff = Backoff::new(policy);
        let start = Instant::now();
        while let Some(wait) = backoff.after_failure(None) {
            tokio::time::sleep(wait).await;
        }
        let took = start.elapsed();
        assert!(took > policy.limit / 2 && took <= policy.limit + Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_resets_the_count() {
        let policy = RetryPolicy {
            attempts: 1,
            ..RetryPolicy::default()
        };
        let mut backoff = Backoff::new(policy);
        assert!(backoff.after_failure(None).is_some());
        assert!(backoff.after_failure(None).is_none());
        backoff.reset();
        assert!(backoff.after_failure(None).is_some());
        let mut never = Backoff::new(RetryPolicy::NEVER);
        assert!(never.after_failure(None).is_none());
    }
}
