//! Limits the answers to searches for servers, so that forged searches cannot flood a victim.

use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::server::accept::address_block::AddressBlock;

/// The most remembered addresses.
const MAX_ADDRESSES: NonZeroUsize = NonZeroUsize::new(1024).expect("it is not 0");

/// For each address: 20 at once, then 5 per second.
const RATE_PER_ADDRESS: GreetingRate = GreetingRate {
    interval: Duration::from_millis(200),
    burst: 20,
};

/// In total: 100 at once, then 50 per second.
const TOTAL_RATE: GreetingRate = GreetingRate {
    interval: Duration::from_millis(20),
    burst: 100,
};

/// A burst, then one answer per interval.
#[derive(Debug, Clone, Copy)]
struct GreetingRate {
    interval: Duration,
    burst: u32,
}

impl GreetingRate {
    /// Whether one more answer is within the rate; `ahead` is when all answers so far would be due.
    fn allows(self, ahead: Instant, now: Instant) -> bool {
        ahead.saturating_duration_since(now) <= self.interval * (self.burst - 1)
    }
}

/// Limits the answers in total and for each address.
#[derive(Debug)]
pub(crate) struct GreetingLimiter(Mutex<GreetingLimiterState>);

#[derive(Debug)]
struct GreetingLimiterState {
    all: Option<Instant>,
    each: LruCache<AddressBlock, Instant>,
}

impl Default for GreetingLimiter {
    fn default() -> Self {
        Self(Mutex::new(GreetingLimiterState {
            all: None,
            each: LruCache::new(MAX_ADDRESSES),
        }))
    }
}

impl GreetingLimiter {
    /// Counts one more search from `block`, if it may be answered.
    pub(crate) fn allow(&self, block: AddressBlock, now: Instant) -> bool {
        let mut state = self.0.lock();
        let all = state.all.unwrap_or(now);
        let each = state.each.get(&block).copied().unwrap_or(now);
        if !TOTAL_RATE.allows(all, now) || !RATE_PER_ADDRESS.allows(each, now) {
            return false;
        }
        state.all = Some(all.max(now) + TOTAL_RATE.interval);
        state
            .each
            .put(block, each.max(now) + RATE_PER_ADDRESS.interval);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn one_address_is_answered_a_few_times_at_once_and_then_slowly() {
        let (greetings, start) = (GreetingLimiter::default(), Instant::now());
        let admitted = |after: u64, times: usize| {
            let now = start + Duration::from_millis(after);
            (0..times)
                .filter(|_| greetings.allow(AddressBlock::InProcess, now))
                .count()
        };
        assert_eq!(admitted(0, 1000), 20);
        assert_eq!(admitted(199, 1000), 0);
        assert_eq!(admitted(1000, 1000), 5);
        assert_eq!(admitted(100_000, 1000), 20);
    }

    #[test]
    fn many_addresses_together_are_answered_slowly_too() {
        let (greetings, start) = (GreetingLimiter::default(), Instant::now());
        let admitted = |now| {
            let blocks = (0..5000).map(|n| AddressBlock::V4(Ipv4Addr::from_bits(n)));
            blocks.filter(|block| greetings.allow(*block, now)).count()
        };
        assert_eq!(admitted(start), 100);
        assert_eq!(admitted(start + Duration::from_secs(1)), 50);
        let state = greetings.0.lock();
        assert!(state.each.len() <= MAX_ADDRESSES.get());
    }
}
