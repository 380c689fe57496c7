//! A queue whose worker takes what waits as one batch.
//!
//! The session adds items and spawns a worker if none runs. While the worker processes a batch, the
//! next one grows. No item waits for others to arrive: the slower the disk, the larger the batches,
//! and the less each item costs. One lock guards the queue; it is never held during I/O.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The items of a session that wait for its worker.
#[derive(Debug)]
pub(crate) struct Coalescer<T>(Mutex<CoalescerState<T>>);

#[derive(Debug)]
struct CoalescerState<T> {
    waiting: Vec<T>,
    has_worker: bool,
}

impl<T> Default for Coalescer<T> {
    fn default() -> Self {
        Self(Mutex::new(CoalescerState {
            waiting: Vec::new(),
            has_worker: false,
        }))
    }
}

impl<T> Coalescer<T> {
    /// Adds an item to the next batch.
    pub(crate) fn add(&self, item: T) {
        self.lock().waiting.push(item);
    }

    /// Whether the caller must start a worker: items wait, and no worker runs.
    pub(crate) fn claim_worker(&self) -> bool {
        let mut state = self.lock();
        let is_claimed = !state.has_worker && !state.waiting.is_empty();
        state.has_worker |= is_claimed;
        is_claimed
    }

    /// The next batch for the worker, of at most `max_items`; `None` ends the worker. A worker must outlive
    /// a panic in the work on a batch: no other starts until this returns `None`.
    pub(crate) fn next_batch(&self, max_items: usize) -> Option<Vec<T>> {
        let mut state = self.lock();
        state.has_worker = !state.waiting.is_empty();
        if state.waiting.len() <= max_items {
            return state.has_worker.then(|| std::mem::take(&mut state.waiting));
        }
        let rest = state.waiting.split_off(max_items);
        Some(std::mem::replace(&mut state.waiting, rest))
    }

    fn lock(&self) -> MutexGuard<'_, CoalescerState<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_takes_all_items_that_wait_as_one_batch() {
        let queue = Coalescer::default();
        assert!(!queue.claim_worker(), "nothing waits");
        queue.add(1);
        queue.add(2);
        assert!(queue.claim_worker());
        assert!(!queue.claim_worker(), "a worker runs");
        assert_eq!(queue.next_batch(2), Some(vec![1, 2]));
        for item in 3..6 {
            queue.add(item);
        }
        assert!(!queue.claim_worker(), "the worker takes them");
        assert_eq!(queue.next_batch(2), Some(vec![3, 4]));
        assert_eq!(queue.next_batch(2), Some(vec![5]));
        assert_eq!(queue.next_batch(2), None);
        queue.add(4);
        assert!(queue.claim_worker(), "the worker has ended");
    }
}
