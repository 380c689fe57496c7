//! Reservations: bytes and entries of a quota, and bytes of the disk, held for an operation.
//!
//! An operation reserves what it is about to write. The reservation becomes part of the space's
//! count when the file gets its name, or is released by `Drop`. The disk, which all spaces share,
//! has a reservation of its own for bytes that are not written yet. The size that a client declares
//! reserves nothing: an upload reserves what has arrived, and as much again.

use std::sync::Arc;

use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::quota::{ExceededLimit, ReservationRefusal};
use crate::storage::local::space::{EvictedUploads, LockedNames, Space};
use crate::storage::local::space_count::SpaceCount;
use crate::storage::path::VirtualPath;

/// Bytes and entries that are reserved in a space until they are committed or dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    space: Arc<Space>,
    reserved: SpaceCount,
    /// Bytes of these that are not on the disk yet and are reserved there as well.
    unwritten_bytes: u64,
    /// Whether a count under way must not refuse it: a client has sent the bytes already.
    is_for_upload: bool,
}

impl Reservation {
    /// An empty reservation.
    pub(crate) fn new(space: &Arc<Space>) -> Self {
        Self {
            space: Arc::clone(space),
            reserved: SpaceCount::default(),
            unwritten_bytes: 0,
            is_for_upload: false,
        }
    }

    /// An empty reservation for an upload, which may be under way when the space gets its first
    /// limit. It begins a count of the space, and grows without a check until that count ends.
    pub(crate) fn for_upload(space: &Arc<Space>) -> Self {
        let mut reservation = Self::new(space);
        reservation.is_for_upload = true;
        reservation
    }

    /// Makes sure that so much more fits in the space and on the disk, without reserving it.
    /// Partial uploads that could be evicted do not count. The caller must not hold the lock on the
    /// space's names.
    ///
    /// # Errors
    /// [`StorageError::QuotaExceeded`], [`StorageError::NoSpace`], or [`StorageError::Counting`] if
    /// the space is not counted yet.
    pub(crate) fn check_fits(
        &self,
        more: SpaceCount,
        path: &VirtualPath,
    ) -> Result<(), StorageError> {
        self.space.staging.check_free(more, path)?;
        loop {
            let fits = self.space.ledger().check(more);
            match fits {
                Err(ReservationRefusal::Uncounted) => self.space.require_count(path)?,
                Err(ReservationRefusal::Exceeded(ExceededLimit { missing, .. }))
                    if self.can_evict_partial_uploads(missing) =>
                {
                    return Ok(());
                }
                fits => return fits.map_err(|refusal| refusal.into_error(path)),
            }
        }
    }

    /// Reserves more in the space and on the disk, for bytes that are about to be written. Partial
    /// uploads are evicted if that helps. The caller must not hold the lock on the space's names.
    ///
    /// # Errors
    /// As [`Self::check_fits`]; an earlier reservation stays.
    pub(crate) fn reserve(
        &mut self,
        more: SpaceCount,
        path: &VirtualPath,
    ) -> Result<(), StorageError> {
        self.reserve_disk(more, path)?;
        let reserved = self.reserve_quota(more, path);
        if reserved.is_err() {
            self.release_written(more.bytes);
        }
        reserved
    }

    /// As [`Self::reserve`], if that is possible at once: it evicts nothing and begins no count.
    pub(crate) fn try_reserve(&mut self, more: SpaceCount, path: &VirtualPath) -> bool {
        if self.reserve_disk(more, path).is_err() {
            return false;
        }
        let is_reserved = self.space.ledger().reserve(more).is_ok();
        if is_reserved {
            self.reserved += more;
        } else {
            self.release_written(more.bytes);
        }
        is_reserved
    }

    /// Reserves bytes of the disk only; the space's quota has them already.
    ///
    /// # Errors
    /// [`StorageError::NoSpace`].
    pub(crate) fn reserve_disk(
        &mut self,
        more: SpaceCount,
        path: &VirtualPath,
    ) -> Result<(), StorageError> {
        self.space.staging.reserve(more, path)?;
        self.unwritten_bytes += more.bytes;
        Ok(())
    }

    /// Reserves more in the space only; it is on the disk already. The caller must not hold the
    /// lock on the space's names.
    ///
    /// # Errors
    /// [`StorageError::QuotaExceeded`], or [`StorageError::Counting`] if the space is not counted
    /// yet; an earlier reservation stays.
    pub(crate) fn reserve_quota(
        &mut self,
        more: SpaceCount,
        path: &VirtualPath,
    ) -> Result<(), StorageError> {
        self.reserve_or_count(more, path, || self.space.require_count(path), drop)?;
        self.reserved += more;
        Ok(())
    }

    /// As [`Self::reserve_quota`], for a caller that holds the lock on the space's names and must
    /// release it to wait for a count.
    ///
    /// # Errors
    /// As [`Self::reserve_quota`].
    pub(crate) fn reserve_quota_locked(
        &mut self,
        more: SpaceCount,
        names: &LockedNames<'_>,
        path: &VirtualPath,
    ) -> Result<(), StorageError> {
        let count = || {
            let end = self
                .space
                .begin_count_locked(names)
                .context("count", path)?;
            let path = path.clone();
            Err(StorageError::Counting { path, end })
        };
        let delete = |evicted| names.delete_after_unlock(evicted);
        self.reserve_or_count(more, path, count, delete)?;
        self.reserved += more;
        Ok(())
    }

    /// Releases bytes of the disk that are written now: the file system counts them.
    pub(crate) fn release_written(&mut self, bytes: u64) {
        let bytes = bytes.min(self.unwritten_bytes);
        self.space.staging.release(bytes);
        self.unwritten_bytes -= bytes;
    }

    /// Releases all beyond so many bytes, which are on the disk.
    pub(crate) fn shrink_to(&mut self, bytes: u64) {
        let less = SpaceCount::bytes(self.reserved.bytes.saturating_sub(bytes));
        self.space.ledger().release(less);
        self.reserved -= less;
        self.release_written(u64::MAX);
    }

    /// Releases the quota, of entries too.
    pub(crate) fn release_quota(&mut self) {
        let reserved = std::mem::take(&mut self.reserved);
        self.space.ledger().release(reserved);
    }

    /// Whether it is a reservation in `space`.
    pub(crate) fn is_in(&self, space: &Space) -> bool {
        std::ptr::eq(&raw const *self.space, space)
    }

    pub(crate) fn reserved(&self) -> SpaceCount {
        self.reserved
    }

    fn reserve_or_count(
        &self,
        more: SpaceCount,
        path: &VirtualPath,
        count: impl Fn() -> Result<(), StorageError>,
        delete: impl Fn(Box<dyn EvictedUploads>),
    ) -> Result<(), StorageError> {
        loop {
            let reserved = self.space.ledger().reserve(more);
            match reserved {
                Err(ReservationRefusal::Uncounted) => match count() {
                    Err(StorageError::Counting { .. }) if self.is_for_upload => {
                        if self.space.ledger().reserve_uncounted(more) {
                            return Ok(());
                        }
                    }
                    counted => counted?,
                },
                Err(ReservationRefusal::Exceeded(exceeded)) => {
                    match self.evict_partial_uploads(exceeded.missing) {
                        Some(evicted) => delete(evicted),
                        None => return Err(ReservationRefusal::Exceeded(exceeded).into_error(path)),
                    }
                }
                reserved => return reserved.map_err(|refusal| refusal.into_error(path)),
            }
        }
    }

    fn can_evict_partial_uploads(&self, missing: SpaceCount) -> bool {
        let uploads = self.space.partial_uploads();
        uploads.is_some_and(|uploads| uploads.can_evict(&self.space, missing))
    }

    /// Evicts partial uploads; `None` if all of them together free less than `missing`.
    fn evict_partial_uploads(&self, missing: SpaceCount) -> Option<Box<dyn EvictedUploads>> {
        self.space.partial_uploads()?.evict(&self.space, missing)
    }

    /// Commits `made` and releases the rest. The caller has held the lock on the names since before
    /// the change.
    pub(crate) fn commit_part(mut self, names: &LockedNames<'_>, made: SpaceCount) {
        let mut unused = self.reserved;
        unused -= made;
        self.space.ledger().release(unused);
        self.reserved -= unused;
        drop(self.commit(names, SpaceCount::default()));
    }

    /// Turns the reservation into counted files. What their names have displaced stays reserved
    /// until the result is dropped, since it takes up the disk until it is deleted. The caller has
    /// held the lock on the names since before the change.
    #[must_use = "what is displaced stays reserved until this is dropped"]
    pub(crate) fn commit(mut self, _names: &LockedNames<'_>, displaced: SpaceCount) -> Self {
        self.release_written(u64::MAX);
        let reserved = std::mem::replace(&mut self.reserved, displaced);
        self.space.ledger().commit(reserved, displaced);
        self
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release_written(u64::MAX);
        self.space.ledger().release(self.reserved);
    }
}
