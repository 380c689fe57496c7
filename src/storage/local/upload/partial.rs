//! Partial uploads: interrupted uploads that can be resumed.
//!
//! Each is charged to the quota of its space with the bytes that it has on the disk. If a new upload
//! needs that quota, the oldest ones are evicted, since the members of a folder do not see the partial
//! uploads of others. They are bounded in age, and in number for each user. They belong to the home of
//! their user, so a new account with an old name inherits none.
//!
//! The store holds one table for all users, guarded by one lock, which is never held over I/O. An upload
//! belongs to this table or to a session, never to both: a resume removes it here, and the end of its
//! session adds it again. The tables of running uploads belong to the server.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::fs::staging::{DEFAULT_FLOOR, Staging};
use crate::storage::local::reservation::Reservation;
use crate::storage::local::space::{EvictPartialUploads, EvictedUploads, Space, SpaceId};
use crate::storage::local::space_count::SpaceCount;
use crate::storage::local::upload::recent_commits::RecentCommits;
use crate::storage::local::upload::record;
use crate::storage::local::upload::record::UploadManifest;
use crate::storage::path::VirtualPath;

/// The settings of a store. They can change at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreSettings {
    /// Bytes of the disk that uploads leave free, at most a hundredth of the disk.
    pub free_space_floor: u64,
    /// The time after which a partial upload expires.
    pub partial_upload_retention: Duration,
    /// Partial uploads of a user at most; the oldest are deleted first.
    pub max_partial_uploads: usize,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            free_space_floor: DEFAULT_FLOOR,
            partial_upload_retention: Duration::from_hours(24),
            max_partial_uploads: 100,
        }
    }
}

/// A partial upload as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartialUploadInfo {
    /// Its id: random, hex.
    pub id: String,
    /// The path of the file when the upload began.
    pub path: VirtualPath,
    /// The declared size in bytes, if the client knew it.
    pub size: Option<u64>,
    /// Bytes that arrived and are synced.
    pub offset: u64,
    /// When it expires.
    pub expires: Timestamp,
}

/// The partial uploads of all users.
#[derive(Debug)]
pub(crate) struct PartialUploads {
    pub(crate) staging: Arc<Staging>,
    pub(crate) recent_commits: RecentCommits,
    settings: Mutex<StoreSettings>,
    entries: Mutex<HashMap<String, PartialUpload>>,
    /// Increases with each one, which orders them by age.
    next_order: AtomicU64,
}

/// A partial upload. Dropping it leaves its files on the disk.
#[derive(Debug)]
pub(crate) struct PartialUpload {
    pub(crate) id: String,
    pub(crate) manifest: UploadManifest,
    pub(crate) inner_path: VirtualPath,
    pub(crate) full_path: VirtualPath,
    pub(crate) offset: u64,
    pub(crate) reservation: Reservation,
    age: PartialUploadAge,
    order: u64,
}

/// The age of a partial upload, by the monotonic clock.
#[derive(Debug, Clone, Copy)]
struct PartialUploadAge {
    /// When an earlier server kept it, until the time of day is certain.
    kept_at: Option<Timestamp>,
    age_at_start: Duration,
    since: Instant,
}

impl PartialUploadAge {
    fn new(kept_at: Option<Timestamp>) -> Self {
        Self {
            kept_at,
            age_at_start: Duration::ZERO,
            since: Instant::now(),
        }
    }

    /// Adds the time since an earlier server kept it, once the time of day is certain.
    fn set_time_of_day(&mut self, now: Timestamp) {
        if let Some(kept_at) = self.kept_at.take() {
            let age = Duration::try_from(now.duration_since(kept_at)).unwrap_or_default();
            self.age_at_start = age.saturating_sub(self.since.elapsed());
        }
    }

    fn elapsed(self) -> Duration {
        self.age_at_start.saturating_add(self.since.elapsed())
    }
}

impl PartialUpload {
    /// `None` if the manifest has invalid paths. `kept_at` is when an earlier server kept it.
    pub(crate) fn new(
        id: String,
        manifest: UploadManifest,
        offset: u64,
        kept_at: Option<Timestamp>,
        reservation: Reservation,
    ) -> Option<Self> {
        let (inner, full) = manifest.paths()?;
        Some(Self {
            id,
            manifest,
            inner_path: inner,
            full_path: full,
            offset,
            reservation,
            age: PartialUploadAge::new(kept_at),
            order: 0,
        })
    }

    fn is_for(&self, owner: &SpaceId, space: &SpaceId, inner: &VirtualPath) -> bool {
        self.manifest.owner == *owner && self.manifest.space == *space && self.inner_path == *inner
    }

    fn describe(&self, keep: Duration) -> PartialUploadInfo {
        let left = keep.saturating_sub(self.age.elapsed());
        let left = SignedDuration::try_from(left).unwrap_or(SignedDuration::MAX);
        let now = Timestamp::now();
        PartialUploadInfo {
            id: self.id.clone(),
            path: self.full_path.clone(),
            size: self.manifest.size,
            offset: self.offset,
            expires: now.saturating_add(left).unwrap_or(Timestamp::MAX),
        }
    }
}

impl PartialUploads {
    pub(crate) fn new(staging: Arc<Staging>) -> Self {
        Self {
            staging,
            recent_commits: RecentCommits::default(),
            settings: Mutex::default(),
            entries: Mutex::default(),
            next_order: AtomicU64::new(0),
        }
    }

    pub(crate) fn set_settings(&self, settings: StoreSettings) {
        self.staging.set_floor(settings.free_space_floor);
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    fn settings(&self) -> StoreSettings {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a partial upload, and deletes the oldest of its owner beyond the limit.
    pub(crate) fn add(&self, mut partial: PartialUpload) {
        partial.order = self.next_order.fetch_add(1, Ordering::Relaxed);
        let owner = partial.manifest.owner.clone();
        let mut entries = self.lock();
        entries.insert(partial.id.clone(), partial);
        let surplus = surplus(&entries, &owner, self.settings().max_partial_uploads);
        let dropped = remove_all(&mut entries, &surplus);
        drop(entries);
        self.delete(dropped);
    }

    /// Removes and returns the latest partial upload that `owner` sent to `target` with that declared size.
    pub(crate) fn remove_latest(
        &self,
        owner: &SpaceId,
        target: &ResolvedPath,
        size: Option<u64>,
    ) -> Option<PartialUpload> {
        let keep = self.settings().partial_upload_retention;
        let mut entries = self.lock();
        let matching = entries.values().filter(|partial| {
            partial.is_for(owner, target.space.id(), &target.inner)
                && partial.manifest.size == size
                && partial.age.elapsed() < keep
        });
        let id = matching.max_by_key(|partial| partial.order)?.id.clone();
        entries.remove(&id)
    }

    /// Adds a partial upload that was found at the start. The caller adds the oldest first.
    pub(crate) fn restore(&self, mut partial: PartialUpload) {
        partial.order = self.next_order.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(partial.id.clone(), partial);
    }

    /// Adds a partial upload again that could not be resumed.
    pub(crate) fn put_back(&self, partial: PartialUpload) {
        self.lock().insert(partial.id.clone(), partial);
    }

    /// The partial uploads of `owner`, the latest first.
    pub(crate) fn list(&self, owner: &SpaceId) -> Vec<PartialUploadInfo> {
        let keep = self.settings().partial_upload_retention;
        let entries = self.lock();
        let mut own: Vec<_> = entries
            .values()
            .filter(|partial| partial.manifest.owner == *owner && partial.age.elapsed() < keep)
            .collect();
        own.sort_by_key(|partial| std::cmp::Reverse(partial.order));
        own.into_iter()
            .map(|partial| partial.describe(keep))
            .collect()
    }

    /// Deletes the partial upload with that id; `false` if `owner` has none.
    pub(crate) fn discard(&self, owner: &SpaceId, id: &str) -> bool {
        let mut entries = self.lock();
        if entries
            .get(id)
            .is_none_or(|partial| partial.manifest.owner != *owner)
        {
            return false;
        }
        let dropped = entries.remove(id);
        drop(entries);
        self.delete(dropped);
        true
    }

    /// Deletes the partial uploads of `owner` to `target`, whose file was committed: with a `size`, only
    /// those of that declared size.
    pub(crate) fn supersede(&self, owner: &SpaceId, target: &ResolvedPath, size: Option<u64>) {
        let mut entries = self.lock();
        let superseded = entries.values().filter(|partial| {
            partial.is_for(owner, target.space.id(), &target.inner)
                && (size.is_none() || partial.manifest.size == size)
        });
        let superseded: Vec<_> = superseded.map(|partial| partial.id.clone()).collect();
        let dropped = remove_all(&mut entries, &superseded);
        drop(entries);
        self.delete(dropped);
    }

    /// Deletes partial uploads that are too old, beyond the limit, or whose owner `is_gone`. Returns their
    /// number. `now` is the time of day if it is certain.
    pub(crate) fn expire(
        &self,
        now: Option<Timestamp>,
        is_gone: impl Fn(&SpaceId) -> bool,
    ) -> usize {
        let settings = self.settings();
        let mut owners: Vec<_> = self
            .lock()
            .values()
            .map(|partial| partial.manifest.owner.clone())
            .collect();
        owners.sort_by(|a, b| a.name.cmp(&b.name));
        owners.dedup();
        // `is_gone` reads the disk, so the lock is released.
        let (gone, present): (Vec<_>, Vec<_>) = owners.into_iter().partition(is_gone);
        let mut entries = self.lock();
        if let Some(now) = now {
            for partial in entries.values_mut() {
                partial.age.set_time_of_day(now);
            }
        }
        let expired = entries.values().filter(|partial| {
            partial.age.elapsed() >= settings.partial_upload_retention
                || gone.contains(&partial.manifest.owner)
        });
        let expired: Vec<_> = expired.map(|partial| partial.id.clone()).collect();
        let mut dropped = remove_all(&mut entries, &expired);
        for owner in &present {
            let surplus = surplus(&entries, owner, settings.max_partial_uploads);
            dropped.extend(remove_all(&mut entries, &surplus));
        }
        drop(entries);
        let count = dropped.len();
        self.delete(dropped);
        count
    }

    /// Their number and the sum of their bytes.
    pub(crate) fn total(&self) -> (usize, u64) {
        let entries = self.lock();
        let bytes = entries.values().map(|partial| partial.offset).sum();
        (entries.len(), bytes)
    }

    pub(crate) fn contains(&self, id: &str) -> bool {
        self.lock().contains_key(id)
    }

    /// Deletes their files. The caller does not hold the lock.
    pub(crate) fn delete(&self, dropped: impl IntoIterator<Item = PartialUpload>) {
        delete(&self.staging, dropped);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, PartialUpload>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EvictPartialUploads for PartialUploads {
    fn can_evict(&self, space: &Space, wanted: SpaceCount) -> bool {
        oldest_in_space(&self.lock(), space, wanted).is_some()
    }

    fn evict(&self, space: &Space, wanted: SpaceCount) -> Option<Box<dyn EvictedUploads>> {
        let mut entries = self.lock();
        let first = oldest_in_space(&entries, space, wanted)?;
        let evicted = EvictedPartialUploads {
            partials: remove_all(&mut entries, &first),
            space: Arc::clone(&space.key),
            staging: Arc::clone(&self.staging),
        };
        Some(Box::new(evicted))
    }
}

/// Partial uploads of a space that are given up for a new upload.
#[derive(Debug)]
struct EvictedPartialUploads {
    partials: Vec<PartialUpload>,
    space: Arc<str>,
    staging: Arc<Staging>,
}

impl EvictedUploads for EvictedPartialUploads {
    fn release_quota(&mut self) {
        for partial in &mut self.partials {
            partial.reservation.release_quota();
        }
    }
}

impl Drop for EvictedPartialUploads {
    fn drop(&mut self) {
        tracing::info!(
            name: "uploads_gave_way",
            uploads = self.partials.len(),
            space = &*self.space,
            "dropped partial uploads to make room in the quota for a new upload"
        );
        delete(&self.staging, self.partials.drain(..));
    }
}

/// Deletes the files of partial uploads. The caller does not hold the lock.
fn delete(staging: &Arc<Staging>, partials: impl IntoIterator<Item = PartialUpload>) {
    for partial in partials {
        record::remove(staging, &partial.id);
        // The file is deleted before the reservation is dropped.
        drop(staging.adopt(partial.id));
    }
}

/// The oldest of `owner` beyond the newest `limit`.
fn surplus(entries: &HashMap<String, PartialUpload>, owner: &SpaceId, limit: usize) -> Vec<String> {
    let own = entries
        .values()
        .filter(|partial| partial.manifest.owner == *owner);
    let mut own: Vec<_> = own.map(|partial| (partial.order, &partial.id)).collect();
    own.sort_unstable();
    let surplus = own.len().saturating_sub(limit);
    let first = own.into_iter().take(surplus);
    first.map(|(_, id)| id.clone()).collect()
}

/// The oldest in `space` that reserve at least `wanted` together; `None` if all of them reserve less.
fn oldest_in_space(
    entries: &HashMap<String, PartialUpload>,
    space: &Space,
    wanted: SpaceCount,
) -> Option<Vec<String>> {
    let is_in_space = |partial: &&PartialUpload| partial.reservation.is_in(space);
    let mut oldest: Vec<_> = entries.values().filter(is_in_space).collect();
    oldest.sort_unstable_by_key(|partial| partial.order);
    let (mut held, mut ids) = (SpaceCount::default(), Vec::new());
    let mut oldest = oldest.into_iter();
    while held.bytes < wanted.bytes || held.entries < wanted.entries {
        let next = oldest.next()?;
        held += next.reservation.reserved();
        ids.push(next.id.clone());
    }
    Some(ids)
}

fn remove_all(entries: &mut HashMap<String, PartialUpload>, ids: &[String]) -> Vec<PartialUpload> {
    ids.iter().filter_map(|id| entries.remove(id)).collect()
}
