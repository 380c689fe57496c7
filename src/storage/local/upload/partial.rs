//! Kept uploads: cut off midway, with enough in them to go on from there.
//!
//! Each holds room in the quota of its space for exactly what it has on the disk, and gives way, the
//! one kept first before others, where something new needs that room: the members of a folder do
//! not see what others left in it. They are bounded in number for each user and in age, and belong
//! to the home that they were sent from: a new account of an old name inherits none.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::fs::staging::{DEFAULT_FLOOR, Staging};
use crate::storage::local::quota::{Reservation, SpaceCount};
use crate::storage::local::space::{Space, SpaceId};
use crate::storage::local::upload::recent_commits::Recent;
use crate::storage::local::upload::record;
use crate::storage::local::upload::record::Record;
use crate::storage::path::VirtualPath;

/// What can be set of a store, at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreSettings {
    /// Bytes of the disk that uploads leave free, or a hundredth of it if that is less.
    pub free_space_floor: u64,
    /// How long an upload that was cut off is kept.
    pub keep_uploads: Duration,
    /// How many are kept of one user; those cut off first go first.
    pub kept_uploads: usize,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            free_space_floor: DEFAULT_FLOOR,
            keep_uploads: Duration::from_hours(24),
            kept_uploads: 100,
        }
    }
}

/// An upload that was cut off and can be gone on with, as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartialUploadInfo {
    /// Its name: random, hex.
    pub id: String,
    /// The path that it is for, as it was when it was begun.
    pub path: VirtualPath,
    /// Bytes that were to come, if that was known.
    pub size: Option<u64>,
    /// Bytes that came and are safe.
    pub offset: u64,
    /// When it will be dropped.
    pub expires: Timestamp,
}

/// The kept uploads of all users.
#[derive(Debug)]
pub(crate) struct PartialUploads {
    pub(crate) staging: Arc<Staging>,
    pub(crate) recent: Recent,
    settings: Mutex<StoreSettings>,
    entries: Mutex<HashMap<String, PartialUpload>>,
    /// Goes up with each that is kept, to tell which was first.
    next: AtomicU64,
}

/// One of them. Nothing happens to its files when this is dropped.
#[derive(Debug)]
pub(crate) struct PartialUpload {
    pub(crate) id: String,
    pub(crate) record: Record,
    pub(crate) inner: VirtualPath,
    pub(crate) full: VirtualPath,
    pub(crate) offset: u64,
    pub(crate) reservation: Reservation,
    age: Age,
    order: u64,
}

/// How long ago something was, by a clock that nobody sets.
#[derive(Debug, Clone, Copy)]
struct Age {
    /// When an earlier server has kept it, until it is known how long ago that was.
    at: Option<Timestamp>,
    before: Duration,
    since: Instant,
}

impl Age {
    fn of(at: Option<Timestamp>) -> Self {
        Self {
            at,
            before: Duration::ZERO,
            since: Instant::now(),
        }
    }

    /// The time of day is known for sure.
    fn know(&mut self, now: Timestamp) {
        if let Some(at) = self.at.take() {
            let all = Duration::try_from(now.duration_since(at)).unwrap_or_default();
            self.before = all.saturating_sub(self.since.elapsed());
        }
    }

    fn now(self) -> Duration {
        self.before.saturating_add(self.since.elapsed())
    }
}

impl PartialUpload {
    /// `None` if the record has no sound paths. `at` says when an earlier server has kept it.
    pub(crate) fn new(
        id: String,
        record: Record,
        offset: u64,
        at: Option<Timestamp>,
        reservation: Reservation,
    ) -> Option<Self> {
        let (inner, full) = record.paths()?;
        Some(Self {
            id,
            record,
            inner,
            full,
            offset,
            reservation,
            age: Age::of(at),
            order: 0,
        })
    }

    fn is_for(&self, owner: &SpaceId, space: &SpaceId, inner: &VirtualPath) -> bool {
        self.record.owner == *owner && self.record.space == *space && self.inner == *inner
    }

    fn describe(&self, keep: Duration) -> PartialUploadInfo {
        let left = keep.saturating_sub(self.age.now());
        let left = SignedDuration::try_from(left).unwrap_or(SignedDuration::MAX);
        let now = Timestamp::now();
        PartialUploadInfo {
            id: self.id.clone(),
            path: self.full.clone(),
            size: self.record.size,
            offset: self.offset,
            expires: now.saturating_add(left).unwrap_or(Timestamp::MAX),
        }
    }
}

impl PartialUploads {
    pub(crate) fn new(staging: Arc<Staging>) -> Self {
        Self {
            staging,
            recent: Recent::default(),
            settings: Mutex::default(),
            entries: Mutex::default(),
            next: AtomicU64::new(0),
        }
    }

    pub(crate) fn set(&self, settings: StoreSettings) {
        self.staging.set_floor(settings.free_space_floor);
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    fn settings(&self) -> StoreSettings {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps one more, and drops those of its owner that are too many then.
    pub(crate) fn keep(&self, mut kept: PartialUpload) {
        kept.order = self.next.fetch_add(1, Ordering::Relaxed);
        let owner = kept.record.owner.clone();
        let mut entries = self.lock();
        entries.insert(kept.id.clone(), kept);
        let surplus = surplus(&entries, &owner, self.settings().kept_uploads);
        let dropped = remove_all(&mut entries, &surplus);
        drop(entries);
        self.delete(dropped);
    }

    /// Takes out the one that was kept last of those that `owner` sent to `place` with that size.
    pub(crate) fn take(
        &self,
        owner: &SpaceId,
        place: &ResolvedPath,
        size: Option<u64>,
    ) -> Option<PartialUpload> {
        let keep = self.settings().keep_uploads;
        let mut entries = self.lock();
        let matching = entries.values().filter(|kept| {
            kept.is_for(owner, place.space.id(), &place.inner)
                && kept.record.size == size
                && kept.age.now() < keep
        });
        let id = matching.max_by_key(|kept| kept.order)?.id.clone();
        entries.remove(&id)
    }

    /// Keeps one that was found at the start; those kept first are to come first.
    pub(crate) fn restore(&self, mut kept: PartialUpload) {
        kept.order = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(kept.id.clone(), kept);
    }

    /// Takes one back that was taken out in vain.
    pub(crate) fn put_back(&self, kept: PartialUpload) {
        self.lock().insert(kept.id.clone(), kept);
    }

    /// Those of `owner`, the one kept last first.
    pub(crate) fn list(&self, owner: &SpaceId) -> Vec<PartialUploadInfo> {
        let keep = self.settings().keep_uploads;
        let entries = self.lock();
        let mut own: Vec<_> = entries
            .values()
            .filter(|kept| kept.record.owner == *owner && kept.age.now() < keep)
            .collect();
        own.sort_by_key(|kept| std::cmp::Reverse(kept.order));
        own.into_iter().map(|kept| kept.describe(keep)).collect()
    }

    /// Drops the one of that name; `false` if `owner` has none.
    pub(crate) fn discard(&self, owner: &SpaceId, id: &str) -> bool {
        let mut entries = self.lock();
        if entries
            .get(id)
            .is_none_or(|kept| kept.record.owner != *owner)
        {
            return false;
        }
        let dropped = entries.remove(id);
        drop(entries);
        self.delete(dropped);
        true
    }

    /// Drops what `owner` need not go on with, now that `place` has its file: with a `size`, only
    /// what was of that size.
    pub(crate) fn supersede(&self, owner: &SpaceId, place: &ResolvedPath, size: Option<u64>) {
        let mut entries = self.lock();
        let superseded = entries.values().filter(|kept| {
            kept.is_for(owner, place.space.id(), &place.inner)
                && (size.is_none() || kept.record.size == size)
        });
        let superseded: Vec<_> = superseded.map(|kept| kept.id.clone()).collect();
        let dropped = remove_all(&mut entries, &superseded);
        drop(entries);
        self.delete(dropped);
    }

    /// Drops those that are too old, or too many, or whose owner `is_gone`. Says how many. `now` is
    /// the time of day if it is known for sure.
    pub(crate) fn expire(
        &self,
        now: Option<Timestamp>,
        is_gone: impl Fn(&SpaceId) -> bool,
    ) -> usize {
        let settings = self.settings();
        let mut owners: Vec<_> = self
            .lock()
            .values()
            .map(|kept| kept.record.owner.clone())
            .collect();
        owners.sort_by(|a, b| a.name.cmp(&b.name));
        owners.dedup();
        // The disk is asked without the lock.
        let (gone, present): (Vec<_>, Vec<_>) = owners.into_iter().partition(is_gone);
        let mut entries = self.lock();
        if let Some(now) = now {
            for kept in entries.values_mut() {
                kept.age.know(now);
            }
        }
        let expired = entries.values().filter(|kept| {
            kept.age.now() >= settings.keep_uploads || gone.contains(&kept.record.owner)
        });
        let expired: Vec<_> = expired.map(|kept| kept.id.clone()).collect();
        let mut dropped = remove_all(&mut entries, &expired);
        for owner in &present {
            let surplus = surplus(&entries, owner, settings.kept_uploads);
            dropped.extend(remove_all(&mut entries, &surplus));
        }
        drop(entries);
        let count = dropped.len();
        self.delete(dropped);
        count
    }

    /// Whether those kept in `space` hold so much together.
    pub(crate) fn can_free(&self, space: &Arc<Space>, wanted: SpaceCount) -> bool {
        first_kept(&self.lock(), space, wanted).is_some()
    }

    /// Drops those kept first in `space`, as many as hold so much; `false`, and nothing is dropped,
    /// if all of them together hold less.
    pub(crate) fn free(&self, space: &Arc<Space>, wanted: SpaceCount) -> bool {
        let mut entries = self.lock();
        let Some(first) = first_kept(&entries, space, wanted) else {
            return false;
        };
        let dropped = remove_all(&mut entries, &first);
        drop(entries);
        tracing::info!(
            name: "uploads_gave_way",
            uploads = dropped.len(),
            space = &*space.key,
            "dropped uploads that were cut off: the quota had no other room for a new one"
        );
        self.delete(dropped);
        true
    }

    /// How many there are, and the bytes that came of them.
    pub(crate) fn total(&self) -> (usize, u64) {
        let entries = self.lock();
        let bytes = entries.values().map(|kept| kept.offset).sum();
        (entries.len(), bytes)
    }

    pub(crate) fn contains(&self, id: &str) -> bool {
        self.lock().contains_key(id)
    }

    /// Deletes their files; not while the lock is held.
    pub(crate) fn delete(&self, dropped: impl IntoIterator<Item = PartialUpload>) {
        for kept in dropped {
            record::remove(&self.staging, &kept.id);
            // Only now its room is given back.
            drop(self.staging.adopt(kept.id));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, PartialUpload>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those of `owner` that were kept first, as far as they are more than `most`.
fn surplus(entries: &HashMap<String, PartialUpload>, owner: &SpaceId, most: usize) -> Vec<String> {
    let own = entries.values().filter(|kept| kept.record.owner == *owner);
    let mut own: Vec<_> = own.map(|kept| (kept.order, &kept.id)).collect();
    own.sort_unstable();
    let surplus = own.len().saturating_sub(most);
    let first = own.into_iter().take(surplus);
    first.map(|(_, id)| id.clone()).collect()
}

/// Those kept first in `space`, as many as hold so much; absent if all of them hold less.
fn first_kept(
    entries: &HashMap<String, PartialUpload>,
    space: &Arc<Space>,
    wanted: SpaceCount,
) -> Option<Vec<String>> {
    let kept_there = |kept: &&PartialUpload| kept.reservation.is_in(space);
    let mut kept: Vec<_> = entries.values().filter(kept_there).collect();
    kept.sort_unstable_by_key(|kept| kept.order);
    let (mut held, mut ids) = (SpaceCount::default(), Vec::new());
    let mut kept = kept.into_iter();
    while held.bytes < wanted.bytes || held.entries < wanted.entries {
        let next = kept.next()?;
        held += next.reservation.held();
        ids.push(next.id.clone());
    }
    Some(ids)
}

fn remove_all(entries: &mut HashMap<String, PartialUpload>, ids: &[String]) -> Vec<PartialUpload> {
    ids.iter().filter_map(|id| entries.remove(id)).collect()
}
