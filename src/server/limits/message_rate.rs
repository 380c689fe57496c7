//! Limits the messages of each user per second, with a burst.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A burst is the number of messages that the rate allows in this time.
const BURST_DURATION: Duration = Duration::from_secs(5);

/// From this number of users on, those with their full burst available are forgotten.
const MAX_IDLE_USERS: usize = 1024;

/// The time at which each user will have their full burst again: the generic cell rate algorithm (ITU-T
/// I.371), a leaky bucket that stores one time.
#[derive(Debug, Default)]
pub(crate) struct MessageRateLimiter(Mutex<HashMap<i64, Instant>>);

impl MessageRateLimiter {
    /// Counts one more message of the user, at `rate` per second; 0 is no limit.
    ///
    /// # Errors
    /// How long the user must wait.
    pub(crate) fn allow(&self, user: i64, rate: usize, now: Instant) -> Result<(), Duration> {
        let Ok(rate @ 1..) = u32::try_from(rate) else {
            return Ok(());
        };
        let price = Duration::from_secs(1) / rate;
        let mut users = self.0.lock();
        if users.len() >= MAX_IDLE_USERS {
            users.retain(|_, paid_at| *paid_at > now);
        }
        let paid_at = users.entry(user).or_insert(now);
        let after = (*paid_at).max(now) + price;
        let early = after.duration_since(now).saturating_sub(BURST_DURATION);
        if !early.is_zero() {
            return Err(early);
        }
        *paid_at = after;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_may_send_a_burst_and_then_messages_at_the_rate_independent_of_others() {
        let (limiter, start) = (MessageRateLimiter::default(), Instant::now());
        for _ in 0..50 {
            assert_eq!(limiter.allow(1, 10, start), Ok(()));
        }
        let wait = limiter.allow(1, 10, start).expect_err("too much");
        assert_eq!(wait, Duration::from_millis(100));
        assert_eq!(limiter.allow(2, 10, start), Ok(()));
        assert_eq!(limiter.allow(1, 10, start + wait), Ok(()));
        assert!(limiter.allow(1, 10, start + wait).is_err());
        assert_eq!(limiter.allow(1, 0, start), Ok(()));
    }

    #[test]
    fn silent_users_are_forgotten() {
        let (limiter, start) = (MessageRateLimiter::default(), Instant::now());
        for user in 0..10_000 {
            let now = start + Duration::from_secs(1) * u32::try_from(user).expect("small");
            assert_eq!(limiter.allow(user, 10, now), Ok(()));
        }
        assert!(limiter.0.lock().len() <= MAX_IDLE_USERS);
    }
}
