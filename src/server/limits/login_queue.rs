//! Logins that wait for their password to be hashed: not more than are soon done, and not all from
//! one address.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::server::accept::address_block::AddressBlock;
use crate::server::limits::key_counter::KeyCounter;

/// One address takes at most one in so many of the places.
const SHARE: usize = 4;

/// The places in the queue.
#[derive(Debug, Default)]
pub(crate) struct LoginQueue(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: usize,
    blocks: KeyCounter<AddressBlock>,
}

/// A place in the queue, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    queue: &'a LoginQueue,
    block: AddressBlock,
}

impl LoginQueue {
    /// A place for a login from `block`, if fewer than `most` are taken.
    pub(crate) fn enter(&self, block: AddressBlock, most: usize) -> Option<Place<'_>> {
        let mut state = self.lock();
        if state.waiting >= most || !state.blocks.add(block, (most / SHARE).max(1)) {
            return None;
        }
        state.waiting += 1;
        Some(Place { queue: self, block })
    }

    /// How many places are taken.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
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
    fn one_address_takes_a_quarter_of_the_places_and_leaves_the_rest_to_others() {
        let queue = LoginQueue::default();
        let mut places: Vec<_> = (0..16)
            .map(|_| queue.enter(block(1), 64).expect("a place"))
            .collect();
        assert!(queue.enter(block(1), 64).is_none());
        let other = queue.enter(block(2), 64).expect("a place");
        places.pop();
        assert!(queue.enter(block(1), 64).is_some());
        drop((other, places));
        assert!(queue.lock().waiting == 0 && queue.lock().blocks.0.is_empty());
    }

    #[test]
    fn the_places_are_bounded_whoever_comes() {
        let queue = LoginQueue::default();
        let places: Vec<_> = (0..=255)
            .filter_map(|last| queue.enter(block(last), 64))
            .collect();
        assert_eq!((places.len(), queue.waiting()), (64, 64));
    }
}
