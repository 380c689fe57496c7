//! Limits logins that wait for their password to be hashed, in total and from each address.

use parking_lot::{Mutex, MutexGuard};

use crate::server::accept::address_block::AddressBlock;
use crate::server::limits::key_counter::KeyCounter;

/// One address gets at most one in this many of the permits.
const ADDRESS_SHARE_DIVISOR: usize = 4;

/// Logins that wait for their password to be hashed.
#[derive(Debug, Default)]
pub(crate) struct LoginQueue(Mutex<LoginQueueState>);

#[derive(Debug, Default)]
struct LoginQueueState {
    waiting: usize,
    blocks: KeyCounter<AddressBlock>,
}

/// Counts one waiting login, until it is dropped.
#[derive(Debug)]
pub(crate) struct LoginQueuePermit<'a> {
    queue: &'a LoginQueue,
    block: AddressBlock,
}

impl LoginQueue {
    /// A permit for a login from `block`; `None` if `max` are taken, or a quarter of them by `block`.
    pub(crate) fn try_acquire(
        &self,
        block: AddressBlock,
        max: usize,
    ) -> Option<LoginQueuePermit<'_>> {
        let mut state = self.lock();
        if state.waiting >= max
            || !state
                .blocks
                .add(block, (max / ADDRESS_SHARE_DIVISOR).max(1))
        {
            return None;
        }
        state.waiting += 1;
        Some(LoginQueuePermit { queue: self, block })
    }

    /// How many logins wait.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting
    }

    fn lock(&self) -> MutexGuard<'_, LoginQueueState> {
        self.0.lock()
    }
}

impl Drop for LoginQueuePermit<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.waiting -= 1;
        state.blocks.remove(&self.block);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn block(last: u8) -> AddressBlock {
        IpAddr::from(Ipv4Addr::new(192, 0, 2, last)).into()
    }

    #[test]
    fn one_address_gets_a_quarter_of_the_permits() {
        let queue = LoginQueue::default();
        let mut permits: Vec<_> = (0..16)
            .map(|_| queue.try_acquire(block(1), 64).expect("a permit"))
            .collect();
        assert!(queue.try_acquire(block(1), 64).is_none());
        let other = queue.try_acquire(block(2), 64).expect("a permit");
        permits.pop();
        assert!(queue.try_acquire(block(1), 64).is_some());
        drop((other, permits));
        assert!(queue.lock().waiting == 0 && queue.lock().blocks.0.is_empty());
    }

    #[test]
    fn the_permits_of_all_addresses_are_bounded() {
        let queue = LoginQueue::default();
        let permits: Vec<_> = (0..=255)
            .filter_map(|last| queue.try_acquire(block(last), 64))
            .collect();
        assert_eq!((permits.len(), queue.waiting()), (64, 64));
    }
}
