//! How often strangers are told that this server is here: seldom enough that nobody can be flooded
//! through it.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

use crate::server::accept::address_block::AddressBlock;

/// Addresses that are remembered.
const ADDRESSES: NonZeroUsize = NonZeroUsize::new(1024).expect("it is not 0");

/// For one address: 20 at once, then 5 a second.
const EACH: Pace = Pace {
    interval: Duration::from_millis(200),
    burst: 20,
};

/// In all: 100 at once, then 50 a second.
const ALL: Pace = Pace {
    interval: Duration::from_millis(20),
    burst: 100,
};

/// So many at once, then one each interval.
#[derive(Debug, Clone, Copy)]
struct Pace {
    interval: Duration,
    burst: u32,
}

impl Pace {
    /// Whether one more is within the pace; `ahead` is when all so far would have been due.
    fn admits(self, ahead: Instant, now: Instant) -> bool {
        ahead.saturating_duration_since(now) <= self.interval * (self.burst - 1)
    }
}

/// Who was answered lately.
#[derive(Debug)]
pub(crate) struct Greetings(Mutex<State>);

#[derive(Debug)]
struct State {
    all: Option<Instant>,
    each: LruCache<AddressBlock, Instant>,
}

impl Default for Greetings {
    fn default() -> Self {
        Self(Mutex::new(State {
            all: None,
            each: LruCache::new(ADDRESSES),
        }))
    }
}

impl Greetings {
    /// Whether to answer one more from `block`.
    pub(crate) fn admit(&self, block: AddressBlock, now: Instant) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = state.all.unwrap_or(now);
        let each = state.each.get(&block).copied().unwrap_or(now);
        if !ALL.admits(all, now) || !EACH.admits(each, now) {
            return false;
        }
        state.all = Some(all.max(now) + ALL.interval);
        state.each.put(block, each.max(now) + EACH.interval);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn one_address_is_answered_a_few_times_at_once_and_then_slowly() {
        let (greetings, start) = (Greetings::default(), Instant::now());
        let admitted = |after: u64, times: usize| {
            let now = start + Duration::from_millis(after);
            (0..times)
                .filter(|_| greetings.admit(AddressBlock::Here, now))
                .count()
        };
        assert_eq!(admitted(0, 1000), 20);
        assert_eq!(admitted(199, 1000), 0);
        assert_eq!(admitted(1000, 1000), 5);
        assert_eq!(admitted(100_000, 1000), 20);
    }

    #[test]
    fn many_addresses_together_are_answered_slowly_too() {
        let (greetings, start) = (Greetings::default(), Instant::now());
        let admitted = |now| {
            let blocks = (0..5000).map(|n| AddressBlock::V4(Ipv4Addr::from_bits(n)));
            blocks.filter(|block| greetings.admit(*block, now)).count()
        };
        assert_eq!(admitted(start), 100);
        assert_eq!(admitted(start + Duration::from_secs(1)), 50);
        let state = greetings.0.lock().expect("no panic");
        assert!(state.each.len() <= ADDRESSES.get());
    }
}
