//! The quota ledger of a space: what its files take up, what is reserved, and what is allowed.
//!
//! A reservation checks the limits and reserves in one step, so that two uploads never share the
//! last byte. Each entry counts: a file, a directory, a link. Bytes are those in files. A
//! [`Reservation`](crate::storage::local::reservation::Reservation) is the only caller that
//! reserves and releases.

use std::io;

use crate::storage::error::StorageError;
use crate::storage::local::space_count::SpaceCount;
use crate::storage::path::VirtualPath;
use crate::storage::rights::SpaceLimits;

/// The content and the limits of a space.
#[derive(Debug, Default)]
pub(crate) struct QuotaLedger {
    pub(crate) limits: SpaceLimits,
    /// The number of the accounts' snapshot that the limits come from.
    limits_snapshot: u64,
    /// Absent until an operation needs the count.
    counted: Option<SpaceCount>,
    /// Increases with each count. An operation that spans two counts must not correct the second
    /// by what the first included.
    generation: u64,
    reserved: SpaceCount,
}

/// Why a reservation is refused.
#[derive(Debug)]
pub(crate) enum ReservationRefusal {
    /// The space must be counted first.
    Uncounted,
    Exceeded(ExceededLimit),
    Overflow,
}

/// A limit that a reservation would exceed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExceededLimit {
    used: u64,
    /// The part of `used` that is reserved.
    reserved: u64,
    limit: u64,
    /// Whether the limit is one of entries, not of bytes.
    is_entry_limit: bool,
    /// How much must be freed before the reservation fits.
    pub(crate) missing: SpaceCount,
}

impl ReservationRefusal {
    pub(crate) fn into_error(self, path: &VirtualPath) -> StorageError {
        let path = path.clone();
        match self {
            Self::Exceeded(exceeded) => StorageError::QuotaExceeded {
                path,
                used: exceeded.used,
                reserved: exceeded.reserved,
                limit: exceeded.limit,
                files: exceeded.is_entry_limit,
            },
            Self::Overflow => StorageError::NoSpace {
                path,
                disk_use: None,
            },
            // Callers count the space first.
            Self::Uncounted => StorageError::Io {
                doing: "check the quota for",
                path: path.to_string(),
                source: io::Error::other("the space is not counted"),
            },
        }
    }
}

impl QuotaLedger {
    /// What is in use: counted and reserved. Absent while the space is not counted.
    pub(crate) fn used(&self) -> Option<SpaceCount> {
        let mut used = self.counted?;
        used += self.reserved;
        Some(used)
    }

    /// Replaces the limits, unless those of a later snapshot of the accounts are set.
    pub(crate) fn set_limits(&mut self, limits: SpaceLimits, snapshot_number: u64) {
        if snapshot_number >= self.limits_snapshot {
            self.limits = limits;
            self.limits_snapshot = snapshot_number;
        }
    }

    pub(crate) fn is_counted(&self) -> bool {
        self.counted.is_some()
    }

    /// Whether nothing can be reserved before the space is counted.
    pub(crate) fn needs_count(&self) -> bool {
        self.limits != SpaceLimits::default() && self.counted.is_none()
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Sets the result of a walk, which includes the changes made since it began.
    pub(crate) fn set_counted(&mut self, count: SpaceCount) {
        self.counted = Some(count);
        self.generation += 1;
    }

    /// Discards the count, so that the next operation that needs it walks the space.
    #[cfg(test)]
    pub(crate) fn discard_count(&mut self) {
        self.counted = None;
    }

    pub(crate) fn add(&mut self, count: SpaceCount) {
        if let Some(counted) = &mut self.counted {
            *counted += count;
        }
    }

    pub(crate) fn remove(&mut self, count: SpaceCount) {
        if let Some(counted) = &mut self.counted {
            *counted -= count;
        }
    }

    pub(crate) fn reserve(&mut self, more: SpaceCount) -> Result<(), ReservationRefusal> {
        let reserved = self.reserved.checked_add(more);
        let reserved = reserved.ok_or(ReservationRefusal::Overflow)?;
        self.check(more)?;
        self.reserved = reserved;
        Ok(())
    }

    /// Reserves without a check while the space is not counted; `false`, and nothing is reserved,
    /// if it is counted.
    pub(crate) fn reserve_uncounted(&mut self, more: SpaceCount) -> bool {
        if self.counted.is_some() {
            return false;
        }
        self.reserved += more;
        true
    }

    /// Checks that `more` fits now.
    pub(crate) fn check(&self, more: SpaceCount) -> Result<(), ReservationRefusal> {
        if self.limits == SpaceLimits::default() {
            return Ok(());
        }
        let used = self.used().ok_or(ReservationRefusal::Uncounted)?;
        let (byte_limit, entry_limit) = (self.limits.bytes, self.limits.entries());
        let missing = SpaceCount {
            bytes: excess(used.bytes, more.bytes, byte_limit),
            entries: excess(used.entries, more.entries, entry_limit),
        };
        let exceeded = |used, reserved, limit, is_entry_limit| {
            Err(ReservationRefusal::Exceeded(ExceededLimit {
                used,
                reserved,
                limit,
                is_entry_limit,
                missing,
            }))
        };
        match (byte_limit, entry_limit) {
            (Some(limit), _) if missing.bytes > 0 => {
                exceeded(used.bytes, self.reserved.bytes, limit, false)
            }
            (_, Some(limit)) if missing.entries > 0 => {
                exceeded(used.entries, self.reserved.entries, limit, true)
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn release(&mut self, count: SpaceCount) {
        self.reserved -= count;
    }

    /// Turns a reservation of `reserved` into counted files that displace others. What is
    /// displaced stays reserved, so the sum does not grow and needs no check.
    pub(crate) fn commit(&mut self, reserved: SpaceCount, displaced: SpaceCount) {
        self.release(reserved);
        self.add(reserved);
        self.remove(displaced);
        self.reserved += displaced;
    }
}

/// By how much `used` and `more` exceed the limit. A request for nothing exceeds no limit, even if
/// the space is over it.
fn excess(used: u64, more: u64, limit: Option<u64>) -> u64 {
    match limit {
        Some(limit) if more > 0 => used.saturating_add(more).saturating_sub(limit),
        _ => 0,
    }
}
