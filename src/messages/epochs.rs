//! Epochs: which `seq` that a client brings back counts here.
//!
//! Each start of a server begins an epoch, under a random name, and the database remembers them
//! with the place at which each began. A database that was restored to an earlier state knows
//! nothing of the epochs that came later, and where the one of that time ended in it. So a place
//! counts if it was given out in an epoch that is known, before that ended.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use data_encoding::HEXLOWER;

use crate::messages::MessagesError;

/// Epochs that are remembered: so many starts.
pub(super) const REMEMBERED: i64 = 4096;

/// The epochs of a database.
#[derive(Debug)]
pub(super) struct Epochs {
    /// The one of this server.
    current: String,
    /// The last place that was given out.
    last: AtomicU64,
    /// Those before it, and the last place that was given out in each.
    ended: HashMap<String, u64>,
}

impl Epochs {
    /// Begins one after those that `begun` names in their order, each with the last place before it.
    /// The places up to `last` are given out.
    pub(super) fn begin(begun: Vec<(String, u64)>, last: u64) -> Result<Self, MessagesError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(MessagesError::NoRandomness)?;
        let ends: Vec<_> = begun.iter().skip(1).map(|(_, after)| *after).collect();
        let ends = ends.into_iter().chain([last]);
        let names = begun.into_iter().map(|(epoch, _)| epoch);
        Ok(Self {
            current: HEXLOWER.encode(&random),
            last: AtomicU64::new(last),
            ended: names.zip(ends).collect(),
        })
    }

    /// The one of this server.
    pub(super) fn current(&self) -> &str {
        &self.current
    }

    /// Notes the last place that was given out.
    pub(super) fn note(&self, last: u64) {
        self.last.store(last, Ordering::Relaxed);
    }

    /// Whether the place `seq` was given out here, in `epoch` if that is known.
    pub(super) fn has_given(&self, seq: u64, epoch: Option<&str>) -> bool {
        let last = match epoch {
            Some(epoch) if epoch != self.current => self.ended.get(epoch).copied(),
            _ => Some(self.last.load(Ordering::Relaxed)),
        };
        last.is_some_and(|last| seq <= last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_in_its_epoch_up_to_where_that_ended() {
        let begun = vec![("a".to_owned(), 0), ("b".to_owned(), 2048)];
        let epochs = Epochs::begin(begun, 4096).expect("random bytes");
        assert!(epochs.has_given(2048, Some("a")));
        assert!(!epochs.has_given(2049, Some("a")));
        assert!(epochs.has_given(4096, Some("b")));
        assert!(!epochs.has_given(4097, Some("b")));
        assert!(!epochs.has_given(1, Some("of another server")));
        let current = epochs.current().to_owned();
        for epoch in [None, Some(current.as_str())] {
            assert!(epochs.has_given(4096, epoch));
            assert!(!epochs.has_given(4097, epoch));
        }
        epochs.note(4097);
        assert!(epochs.has_given(4097, None));
    }
}
