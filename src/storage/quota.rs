//! The ledger of a space: what its files take up, what is reserved, and what is allowed.
//!
//! Reserving checks and takes in one step, so that two uploads never share the last byte. What
//! is reserved either becomes counted when the file gets its name, or is given back by `Drop`.

use std::ops::{AddAssign, SubAssign};
use std::sync::Arc;

use super::error::StorageError;
use super::path::VirtualPath;
use super::rights::Limits;
use super::space::{Names, Space};

/// Bytes in regular files, and their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Count {
    pub(super) bytes: u64,
    pub(super) files: u64,
}

impl Count {
    /// One file of so many bytes.
    pub(super) fn file(bytes: u64) -> Self {
        Self { bytes, files: 1 }
    }

    fn checked_add(self, other: Self) -> Option<Self> {
        Some(Self {
            bytes: self.bytes.checked_add(other.bytes)?,
            files: self.files.checked_add(other.files)?,
        })
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.files = self.files.saturating_add(other.files);
    }
}

impl SubAssign for Count {
    fn sub_assign(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_sub(other.bytes);
        self.files = self.files.saturating_sub(other.files);
    }
}

/// What a space holds and may hold.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) limits: Limits,
    /// Absent until somebody needs to know.
    counted: Option<Count>,
    /// Goes up with each count: who holds an older number knows of an older count.
    generation: u64,
    reserved: Count,
}

/// Why a reservation is refused.
#[derive(Debug)]
pub(super) enum Refused {
    /// The space must be counted first.
    Uncounted,
    Exceeded {
        used: u64,
        limit: u64,
        files: bool,
    },
    Overflow,
}

impl Refused {
    pub(super) fn at(self, path: &VirtualPath) -> StorageError {
        let path = path.clone();
        match self {
            Self::Exceeded { used, limit, files } => StorageError::QuotaExceeded {
                path,
                used,
                limit,
                files,
            },
            Self::Uncounted | Self::Overflow => StorageError::NoSpace { path, room: None },
        }
    }
}

impl Ledger {
    /// What is in use: counted and reserved. Absent while not counted.
    pub(super) fn used(&self) -> Option<Count> {
        let mut used = self.counted?;
        used += self.reserved;
        Some(used)
    }

    pub(super) fn is_counted(&self) -> bool {
        self.counted.is_some()
    }

    /// Nothing can be reserved before the space is counted.
    pub(super) fn needs_count(&self) -> bool {
        self.limits != Limits::default() && self.counted.is_none()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Takes in what a walk has found. No name may have changed since the walk began.
    pub(super) fn set_counted(&mut self, count: Count) {
        self.counted = Some(count);
        self.generation += 1;
    }

    /// Forgets the count, so that the next who needs it walks again.
    #[cfg(test)]
    pub(super) fn forget_count(&mut self) {
        self.counted = None;
    }

    pub(super) fn add(&mut self, count: Count) {
        if let Some(counted) = &mut self.counted {
            *counted += count;
        }
    }

    pub(super) fn remove(&mut self, count: Count) {
        if let Some(counted) = &mut self.counted {
            *counted -= count;
        }
    }

    pub(super) fn reserve(&mut self, more: Count) -> Result<(), Refused> {
        let reserved = self.reserved.checked_add(more).ok_or(Refused::Overflow)?;
        if self.limits != Limits::default() {
            let used = self.used().ok_or(Refused::Uncounted)?;
            check(used.bytes, more.bytes, self.limits.bytes, false)?;
            check(used.files, more.files, self.limits.files, true)?;
        }
        self.reserved = reserved;
        Ok(())
    }

    fn release(&mut self, count: Count) {
        self.reserved -= count;
    }
}

fn check(used: u64, more: u64, limit: Option<u64>, files: bool) -> Result<(), Refused> {
    match limit {
        Some(limit) if more > 0 && used.checked_add(more).is_none_or(|sum| sum > limit) => {
            Err(Refused::Exceeded { used, limit, files })
        }
        _ => Ok(()),
    }
}

/// Room that is held in a space, until it is used or dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    space: Arc<Space>,
    held: Count,
}

impl Reservation {
    /// Holds nothing yet.
    pub(super) fn new(space: &Arc<Space>) -> Self {
        Self {
            space: Arc::clone(space),
            held: Count::default(),
        }
    }

    /// Holds more. Not for a caller that has locked the space's names.
    ///
    /// # Errors
    /// [`StorageError::QuotaExceeded`], or [`StorageError::Counting`] if the space is not counted
    /// yet; what was held before is held still.
    pub(super) fn grow(&mut self, more: Count, path: &VirtualPath) -> Result<(), StorageError> {
        loop {
            let reserved = self.space.ledger().reserve(more);
            match reserved {
                Err(Refused::Uncounted) => self.space.require_count(path)?,
                reserved => {
                    reserved.map_err(|refused| refused.at(path))?;
                    self.held += more;
                    return Ok(());
                }
            }
        }
    }

    /// Holds more, for a caller that has locked the space's names. Unless the space is counted where
    /// it is limited, there is no room.
    ///
    /// # Errors
    /// As [`Self::grow`].
    pub(super) fn grow_locked(
        &mut self,
        more: Count,
        _names: &Names<'_>,
        path: &VirtualPath,
    ) -> Result<(), StorageError> {
        let reserved = self.space.ledger().reserve(more);
        reserved.map_err(|refused| refused.at(path))?;
        self.held += more;
        Ok(())
    }

    /// Gives back so many bytes of what is held.
    pub(super) fn shrink(&mut self, bytes: u64) {
        let less = Count {
            bytes: bytes.min(self.held.bytes),
            files: 0,
        };
        self.space.ledger().release(less);
        self.held -= less;
    }

    /// What is held.
    pub(super) fn held(&self) -> Count {
        self.held
    }

    /// Turns what is held into what is counted, less what the new name has displaced, which is
    /// held in its stead until it is gone for good. The names have been locked since before the
    /// change.
    #[must_use = "what is displaced is held until this is dropped"]
    pub(super) fn settle(mut self, _names: &Names<'_>, displaced: Count) -> Self {
        let held = std::mem::replace(&mut self.held, displaced);
        let mut ledger = self.space.ledger();
        ledger.release(held);
        ledger.add(held);
        ledger.remove(displaced);
        // Together no more than before, so nothing is to be checked.
        ledger.reserved += displaced;
        drop(ledger);
        self
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.space.ledger().release(self.held);
    }
}
