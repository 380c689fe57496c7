//! How much a user may say: so many messages a second, and a burst now and then.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A burst is what may be said in this time.
const BURST: Duration = Duration::from_secs(5);

/// Users that are remembered before those are forgotten whose messages are made up for.
const REMEMBERED: usize = 1024;

/// When each user will have made up for what they said, if they say no more: a leaky bucket as
/// time, known as the generic cell rate algorithm (ITU-T I.371).
#[derive(Debug, Default)]
pub(crate) struct MessageRateLimiter(Mutex<HashMap<i64, Instant>>);

impl MessageRateLimiter {
    /// Lets the user say one more, at `rate` a second; 0 is no limit.
    ///
    /// # Errors
    /// How long the user has to wait.
    pub(crate) fn allow(&self, user: i64, rate: usize, now: Instant) -> Result<(), Duration> {
        let Ok(rate @ 1..) = u32::try_from(rate) else {
            return Ok(());
        };
        let price = Duration::from_secs(1) / rate;
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if users.len() >= REMEMBERED {
            users.retain(|_, paid_at| *paid_at > now);
        }
        let paid_at = users.entry(user).or_insert(now);
        let after = (*paid_at).max(now) + price;
        let early = after.duration_since(now).saturating_sub(BURST);
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
    fn a_user_may_say_a_burst_and_then_so_many_a_second_whatever_others_say() {
        let (chatter, start) = (MessageRateLimiter::default(), Instant::now());
        for _ in 0..50 {
            assert_eq!(chatter.allow(1, 10, start), Ok(()));
        }
        let wait = chatter.allow(1, 10, start).expect_err("too much");
        assert_eq!(wait, Duration::from_millis(100));
        assert_eq!(chatter.allow(2, 10, start), Ok(()));
        assert_eq!(chatter.allow(1, 10, start + wait), Ok(()));
        assert!(chatter.allow(1, 10, start + wait).is_err());
        assert_eq!(chatter.allow(1, 0, start), Ok(()));
    }

    #[test]
    fn those_who_are_silent_are_forgotten() {
        let (chatter, start) = (MessageRateLimiter::default(), Instant::now());
        for user in 0..10_000 {
            let now = start + Duration::from_secs(1) * u32::try_from(user).expect("small");
            assert_eq!(chatter.allow(user, 10, now), Ok(()));
        }
        assert!(chatter.0.lock().expect("sound").len() <= REMEMBERED);
    }
}
