//! The ledger of a space: what its files take up, what is reserved, and what is allowed.
//!
//! Reserving checks and takes in one step, so that two uploads never share the last byte. What
//! is reserved either becomes counted when the file gets its name, or is given back by `Drop`.
//!
//! Each entry counts: a file, a directory, a link. Bytes are those in files. A reservation of bytes
//! that are still to be written holds room on the disk, too, which all spaces share. Nothing is
//! reserved on the mere word of a client: an upload holds what has come of it, and as much again.

use std::ops::{AddAssign, SubAssign};
use std::sync::Arc;

use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::space::{Names, Space};
use crate::storage::path::VirtualPath;
use crate::storage::rights::SpaceLimits;

/// Bytes in regular files, and the number of all entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SpaceCount {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
}

impl SpaceCount {
    /// One file of so many bytes.
    pub(crate) fn file(bytes: u64) -> Self {
        Self { bytes, entries: 1 }
    }

    /// So many directories, or other entries without bytes.
    pub(crate) fn entries(entries: u64) -> Self {
        Self { bytes: 0, entries }
    }

    /// Bytes of a file that is counted already.
    pub(crate) fn bytes(bytes: u64) -> Self {
        Self { bytes, entries: 0 }
    }

    fn checked_add(self, other: Self) -> Option<Self> {
        Some(Self {
            bytes: self.bytes.checked_add(other.bytes)?,
            entries: self.entries.checked_add(other.entries)?,
        })
    }
}

impl AddAssign for SpaceCount {
    fn add_assign(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.entries = self.entries.saturating_add(other.entries);
    }
}

impl SubAssign for SpaceCount {
    fn sub_assign(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_sub(other.bytes);
        self.entries = self.entries.saturating_sub(other.entries);
    }
}

/// What a space holds and may hold.
#[derive(Debug, Default)]
pub(crate) struct QuotaLedger {
    pub(crate) limits: SpaceLimits,
    /// The reading of the accounts that they come from.
    limits_reading: u64,
    /// Absent until somebody needs to know.
    counted: Option<SpaceCount>,
    /// Goes up with each count: who holds an older number knows of an older count.
    generation: u64,
    reserved: SpaceCount,
}

/// Why a reservation is refused.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The space must be counted first.
    Uncounted,
    Exceeded(Exceeded),
    Overflow,
}

/// A limit that is in the way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exceeded {
    used: u64,
    limit: u64,
    /// It is the limit of entries, not of bytes.
    entries: bool,
    /// What would have to go first.
    pub(crate) missing: SpaceCount,
}

impl Refused {
    pub(crate) fn at(self, path: &VirtualPath) -> StorageError {
        let path = path.clone();
        match self {
            Self::Exceeded(exceeded) => StorageError::QuotaExceeded {
                path,
                used: exceeded.used,
                limit: exceeded.limit,
                files: exceeded.entries,
            },
            Self::Uncounted | Self::Overflow => StorageError::NoSpace { path, room: None },
        }
    }
}

impl QuotaLedger {
    /// What is in use: counted and reserved. Absent while not counted.
    pub(crate) fn used(&self) -> Option<SpaceCount> {
        let mut used = self.counted?;
        used += self.reserved;
        Some(used)
    }

    /// Takes over limits, unless a later reading has set others.
    pub(crate) fn set_limits(&mut self, limits: SpaceLimits, reading: u64) {
        if reading >= self.limits_reading {
            self.limits = limits;
            self.limits_reading = reading;
        }
    }

    pub(crate) fn is_counted(&self) -> bool {
        self.counted.is_some()
    }

    /// Nothing can be reserved before the space is counted.
    pub(crate) fn needs_count(&self) -> bool {
        self.limits != SpaceLimits::default() && self.counted.is_none()
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Takes in what a walk has found, with what has changed since it began.
    pub(crate) fn set_counted(&mut self, count: SpaceCount) {
        self.counted = Some(count);
        self.generation += 1;
    }

    /// Forgets the count, so that the next who needs it walks again.
    #[cfg(test)]
    pub(crate) fn forget_count(&mut self) {
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

    pub(crate) fn reserve(&mut self, more: SpaceCount) -> Result<(), Refused> {
        let reserved = self.reserved.checked_add(more).ok_or(Refused::Overflow)?;
        self.check(more)?;
        self.reserved = reserved;
        Ok(())
    }

    /// Reserves for what is under way while nobody knows what is in use; `false` if it is counted.
    fn reserve_uncounted(&mut self, more: SpaceCount) -> bool {
        if self.counted.is_some() {
            return false;
        }
        self.reserved += more;
        true
    }

    /// Whether so much more would fit now.
    fn check(&self, more: SpaceCount) -> Result<(), Refused> {
        if self.limits == SpaceLimits::default() {
            return Ok(());
        }
        let used = self.used().ok_or(Refused::Uncounted)?;
        let (bytes, entries) = (self.limits.bytes, self.limits.entries());
        let missing = SpaceCount {
            bytes: missing(used.bytes, more.bytes, bytes),
            entries: missing(used.entries, more.entries, entries),
        };
        let exceeded = |used, limit, entries| {
            Err(Refused::Exceeded(Exceeded {
                used,
                limit,
                entries,
                missing,
            }))
        };
        match (bytes, entries) {
            (Some(limit), _) if missing.bytes > 0 => exceeded(used.bytes, limit, false),
            (_, Some(limit)) if missing.entries > 0 => exceeded(used.entries, limit, true),
            _ => Ok(()),
        }
    }

    fn release(&mut self, count: SpaceCount) {
        self.reserved -= count;
    }
}

/// How much `more` would pass the limit by. Nothing more fits where the limit is passed already.
fn missing(used: u64, more: u64, limit: Option<u64>) -> u64 {
    match limit {
        Some(limit) if more > 0 => used.saturating_add(more).saturating_sub(limit),
        _ => 0,
    }
}

/// Room that is held in a space, until it is used or dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    space: Arc<Space>,
    held: SpaceCount,
    /// Bytes of these that are not on the disk yet, and held there as well.
    unwritten: u64,
    /// It is for what a client has sent already, which a count under way must not cost.
    is_under_way: bool,
}

impl Reservation {
    /// Holds nothing yet.
    pub(crate) fn new(space: &Arc<Space>) -> Self {
        Self {
            space: Arc::clone(space),
            held: SpaceCount::default(),
            unwritten: 0,
            is_under_way: false,
        }
    }

    /// As [`Self::new`], for an upload, which may be under way when the space gets its first limit.
    /// It grows without a check until the space is counted, and has it counted.
    pub(crate) fn under_way(space: &Arc<Space>) -> Self {
        let mut reservation = Self::new(space);
        reservation.is_under_way = true;
        reservation
    }

    /// Makes sure that so much more would fit, in the space and on the disk, without holding it.
    /// What is kept of uploads that were cut off is not in the way. Not for a caller that has
    /// locked the space's names.
    ///
    /// # Errors
    /// [`StorageError::QuotaExceeded`], [`StorageError::NoSpace`], or [`StorageError::Counting`] if
    /// the space is not counted yet.
    pub(crate) fn check_fits(
        &self,
        more: SpaceCount,
        path: &VirtualPath,
    ) -> Result<(), StorageError> {
        self.space.staging.check_room(more, path)?;
        loop {
            let fits = self.space.ledger().check(more);
            match fits {
                Err(Refused::Uncounted) => self.space.require_count(path)?,
                Err(Refused::Exceeded(Exceeded { missing, .. })) if self.can_free(missing) => {
                    return Ok(());
                }
                fits => return fits.map_err(|refused| refused.at(path)),
            }
        }
    }

    fn can_free(&self, missing: SpaceCount) -> bool {
        let kept = self.space.kept();
        kept.is_some_and(|kept| kept.can_free(&self.space, missing))
    }

    /// Holds more, which is about to be written. What is kept of uploads that were cut off gives
    /// way. Not for a caller that has locked the space's names.
    ///
    /// # Errors
    /// As [`Self::check_fits`]; what was held before is held still.
    pub(crate) fn grow(
        &mut self,
        more: SpaceCount,
        path: &VirtualPath,
    ) -> Result<(), StorageError> {
        self.will_write(more, path)?;
        let grown = self.grow_stored(more, path);
        if grown.is_err() {
            self.written(more.bytes);
        }
        grown
    }

    /// Holds room on the disk only, for what is held in the space already.
    ///
    /// # Errors
    /// [`StorageError::NoSpace`].
    pub(crate) fn will_write(
        &mut self,
        more: SpaceCount,
        path: &VirtualPath,
    ) -> Result<(), StorageError> {
        self.space.staging.reserve(more, path)?;
        self.unwritten += more.bytes;
        Ok(())
    }

    /// As [`Self::grow`], if there is room right now: nothing gives way and nothing is counted.
    pub(crate) fn try_grow(&mut self, more: SpaceCount, path: &VirtualPath) -> bool {
        if self.will_write(more, path).is_err() {
            return false;
        }
        let reserved = self.space.ledger().reserve(more).is_ok();
        if reserved {
            self.held += more;
        } else {
            self.written(more.bytes);
        }
        reserved
    }

    /// Holds more, which is on the disk already. Not for a caller that has locked the space's names.
    ///
    /// # Errors
    /// [`StorageError::QuotaExceeded`], or [`StorageError::Counting`] if the space is not counted
    /// yet; what was held before is held still.
    pub(crate) fn grow_stored(
        &mut self,
        more: SpaceCount,
        path: &VirtualPath,
    ) -> Result<(), StorageError> {
        self.grow_counting(more, path, || self.space.require_count(path))
            .map(|()| self.held += more)
    }

    /// As [`Self::grow_stored`], for a caller that has locked the space's names. It has to unlock
    /// them to wait for a count.
    ///
    /// # Errors
    /// As [`Self::grow_stored`].
    pub(crate) fn grow_locked(
        &mut self,
        more: SpaceCount,
        names: &Names<'_>,
        path: &VirtualPath,
    ) -> Result<(), StorageError> {
        let begin = || {
            let end = self.space.begin_count_locked(names).at("count", path)?;
            let path = path.clone();
            Err(StorageError::Counting { path, end })
        };
        self.grow_counting(more, path, begin)
            .map(|()| self.held += more)
    }

    /// Gives back so many bytes that are held on the disk: they are written now, and count there by
    /// themselves.
    pub(crate) fn written(&mut self, bytes: u64) {
        let bytes = bytes.min(self.unwritten);
        self.space.staging.release(bytes);
        self.unwritten -= bytes;
    }

    /// Gives back what is held beyond so many bytes, which are on the disk.
    pub(crate) fn shrink_to(&mut self, bytes: u64) {
        let less = SpaceCount::bytes(self.held.bytes.saturating_sub(bytes));
        self.space.ledger().release(less);
        self.held -= less;
        self.written(u64::MAX);
    }

    /// Whether it is in that space.
    pub(crate) fn is_in(&self, space: &Arc<Space>) -> bool {
        Arc::ptr_eq(&self.space, space)
    }

    /// What is held.
    pub(crate) fn held(&self) -> SpaceCount {
        self.held
    }

    fn grow_counting(
        &self,
        more: SpaceCount,
        path: &VirtualPath,
        count: impl Fn() -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        loop {
            let reserved = self.space.ledger().reserve(more);
            match reserved {
                Err(Refused::Uncounted) => match count() {
                    Err(StorageError::Counting { .. }) if self.is_under_way => {
                        if self.space.ledger().reserve_uncounted(more) {
                            return Ok(());
                        }
                    }
                    counted => counted?,
                },
                Err(Refused::Exceeded(Exceeded { missing, .. })) if self.free(missing) => {}
                reserved => return reserved.map_err(|refused| refused.at(path)),
            }
        }
    }

    /// Has kept uploads give way; `false` if all of them together are too little.
    fn free(&self, missing: SpaceCount) -> bool {
        let kept = self.space.kept();
        kept.is_some_and(|kept| kept.free(&self.space, missing))
    }

    /// Turns so much of what is held into what is counted, and gives back the rest. The names have
    /// been locked since before the change.
    pub(crate) fn settle_part(mut self, names: &Names<'_>, made: SpaceCount) {
        let mut rest = self.held;
        rest -= made;
        self.space.ledger().release(rest);
        self.held -= rest;
        drop(self.settle(names, SpaceCount::default()));
    }

    /// Turns what is held into what is counted, less what the new name has displaced, which is
    /// held in its stead until it is gone for good. The names have been locked since before the
    /// change.
    #[must_use = "what is displaced is held until this is dropped"]
    pub(crate) fn settle(mut self, _names: &Names<'_>, displaced: SpaceCount) -> Self {
        self.written(u64::MAX);
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
        self.written(u64::MAX);
        self.space.ledger().release(self.held);
    }
}
