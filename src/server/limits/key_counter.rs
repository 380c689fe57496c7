//! Counts per key.

use std::collections::HashMap;
use std::hash::Hash;

/// Counts per key. Keys with a count of zero use no memory.
#[derive(Debug)]
pub(crate) struct KeyCounter<K>(pub(crate) HashMap<K, usize>);

impl<K> Default for KeyCounter<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> KeyCounter<K> {
    pub(crate) fn count(&self, key: &K) -> usize {
        self.0.get(key).copied().unwrap_or(0)
    }

    /// Counts one more, unless there are `most` already; 0 is no limit.
    pub(crate) fn add(&mut self, key: K, most: usize) -> bool {
        if most > 0 && self.count(&key) >= most {
            return false;
        }
        *self.0.entry(key).or_default() += 1;
        true
    }

    pub(crate) fn remove(&mut self, key: &K) {
        if let Some(count) = self.0.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(key);
            }
        }
    }
}
