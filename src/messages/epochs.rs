//! Epochs: which `seq` of a client is valid in this database.
//!
//! Each start of a server begins an epoch with a random name. The database stores the names, each
//! with the last `seq` before it. A database that was restored from a backup does not know the later
//! epochs, and its own last epoch ends at the backup. A `seq` is therefore valid if it was issued in
//! a known epoch before the end of that epoch.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use data_encoding::HEXLOWER;

use crate::messages::error::MessagesError;

/// The most epochs in the database. Each start of a server adds one.
pub(crate) const MAX_EPOCHS: i64 = 4096;

/// The epochs of a database.
#[derive(Debug)]
pub(crate) struct Epochs {
    /// The epoch of this server.
    current: String,
    /// The last issued `seq`.
    last: AtomicU64,
    /// The earlier epochs, each with the last `seq` that was issued in it.
    ended: HashMap<String, u64>,
}

impl Epochs {
    /// Begins an epoch after the `earlier` ones, which are in order and each with the last `seq`
    /// before it. `last` is the last issued `seq`.
    pub(crate) fn begin(earlier: Vec<(String, u64)>, last: u64) -> Result<Self, MessagesError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(MessagesError::NoRandomness)?;
        let ends: Vec<_> = earlier.iter().skip(1).map(|(_, after)| *after).collect();
        let ends = ends.into_iter().chain([last]);
        let names = earlier.into_iter().map(|(epoch, _)| epoch);
        Ok(Self {
            current: HEXLOWER.encode(&random),
            last: AtomicU64::new(last),
            ended: names.zip(ends).collect(),
        })
    }

    /// The name of this server's epoch.
    pub(crate) fn current(&self) -> &str {
        &self.current
    }

    /// Records the last issued `seq`.
    pub(crate) fn record(&self, last: u64) {
        self.last.store(last, Ordering::Relaxed);
    }

    /// Whether `seq` was issued in `epoch`, or in this server's epoch without one.
    pub(crate) fn has_issued(&self, seq: u64, epoch: Option<&str>) -> bool {
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
    fn a_seq_is_valid_up_to_the_end_of_its_epoch() {
        let earlier = vec![("a".to_owned(), 0), ("b".to_owned(), 2048)];
        let epochs = Epochs::begin(earlier, 4096).expect("random bytes");
        assert!(epochs.has_issued(2048, Some("a")));
        assert!(!epochs.has_issued(2049, Some("a")));
        assert!(epochs.has_issued(4096, Some("b")));
        assert!(!epochs.has_issued(4097, Some("b")));
        assert!(!epochs.has_issued(1, Some("of another server")));
        let current = epochs.current().to_owned();
        for epoch in [None, Some(current.as_str())] {
            assert!(epochs.has_issued(4096, epoch));
            assert!(!epochs.has_issued(4097, epoch));
        }
        epochs.record(4097);
        assert!(epochs.has_issued(4097, None));
    }
}
