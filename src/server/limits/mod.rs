//! Limits at the door and in sessions: what one address, one user and everyone may take, and how
//! fast secrets may be guessed.
//!
//! Each is a small state machine that knows no socket and is told the time. All that they remember
//! is bounded. Settings come with each call, so that those that change while the server runs count
//! from the next one on.

mod block;
mod chatter;
mod descriptors;
mod door;
mod guesses;
mod idle;
mod network;
mod occasional;
mod proxy;
mod queue;
mod request_lines;

pub(super) use block::Block;
pub(super) use chatter::Chatter;
pub(super) use descriptors::DescriptorBudget;
pub(super) use door::{Door, Seat, Unseated};
pub(super) use guesses::{Guesses, Rules, Target};
pub(super) use idle::Idle;
pub(super) use network::{admits, is_within};
pub(super) use occasional::Occasional;
pub(super) use proxy::read_header;
pub(super) use queue::LoginQueue;
pub(super) use request_lines::{LineBudget, RequestLines};

use std::collections::HashMap;
use std::hash::Hash;

/// Counts things by what they belong to, and remembers only what has some.
#[derive(Debug)]
struct Tally<K>(HashMap<K, usize>);

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Tally<K> {
    fn of(&self, key: &K) -> usize {
        self.0.get(key).copied().unwrap_or(0)
    }

    /// Counts one more, unless there are `most` already; 0 is no limit.
    fn add(&mut self, key: K, most: usize) -> bool {
        if most > 0 && self.of(&key) >= most {
            return false;
        }
        *self.0.entry(key).or_default() += 1;
        true
    }

    fn remove(&mut self, key: &K) {
        if let Some(count) = self.0.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(key);
            }
        }
    }
}
