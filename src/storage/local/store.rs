//! The store: the data directory with its homes, shared folders and staging.
//!
//! A server opens one store and keeps it until it stops. The store is locked against other
//! servers. It opens spaces, of which it keeps those used last, and shares one [`Space`] among
//! everyone who has it open.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use jiff::Timestamp;

use crate::ownership::give_to_owner_of;
use crate::storage::changes::FileChange;
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::change_log::ChangeLog;
use crate::storage::local::count_queue::CountQueue;
use crate::storage::local::data;
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::fs::staging::Staging;
use crate::storage::local::space::{Area, EvictPartialUploads, Space, SpaceContext};
use crate::storage::local::upload::partial::{PartialUploads, StoreSettings};
use crate::storage::path::VirtualPath;

const HOMES: &str = "homes";
const FOLDERS: &str = "folders";
const STAGING: &str = "staging";
const REMOVED: &str = "removed";

/// The files of one server. Clones are cheap and share the store. No other process can open the
/// data directory while a clone, a [`Space`] or anything made from one exists.
#[derive(Debug, Clone)]
pub struct Store(Arc<StoreState>);

#[derive(Debug)]
struct StoreState {
    homes: Arc<OpenDir>,
    folders: Arc<OpenDir>,
    kept: Arc<PartialUploads>,
    changes: Arc<ChangeLog>,
    counts: Arc<CountQueue>,
    spaces: Mutex<OpenSpaces>,
    /// The directories of spaces that the disk failed to keep. Locked while one is made.
    failed: Mutex<HashSet<(Area, String)>>,
}

/// One [`Space`], and so one quota ledger, for each directory in use.
#[derive(Debug, Default)]
struct OpenSpaces {
    open: HashMap<(Area, String), Weak<Space>>,
    /// The spaces used last, kept open: a user who returns does not wait for a new count.
    recent: VecDeque<Arc<Space>>,
}

/// Spaces that stay open although nobody uses them. Each costs a file descriptor.
const MAX_RECENT_SPACES: usize = 64;

impl OpenSpaces {
    /// Moves `space` to the end of those used last.
    fn mark_used(&mut self, space: &Arc<Space>) {
        self.recent.retain(|kept| !Arc::ptr_eq(kept, space));
        self.recent.push_back(Arc::clone(space));
        if self.recent.len() > MAX_RECENT_SPACES {
            self.recent.pop_front();
        }
    }
}

impl Store {
    /// Opens the data directory, and makes it if it is missing. Partial uploads are recovered.
    ///
    /// # Errors
    /// As [`Store::lock`] and [`StoreLock::open`].
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        Self::lock(path)?.open()
    }

    /// Locks the data directory against other servers, makes it if it is missing, and checks that a
    /// server can use it. No entry of it is changed.
    ///
    /// # Errors
    /// [`StorageError::InUse`] if another server has locked it, [`StorageError::Unusable`] if no
    /// server can use it.
    pub fn lock(path: &Path) -> Result<StoreLock, StorageError> {
        let unusable = |error| data::unusable(path, &error);
        let root = open_data(path, true).map_err(unusable)?;
        let area = |name| make_dir(&root, name).map_err(unusable);
        let staging = Staging::lock(area(STAGING)?).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => StorageError::InUse {
                path: path.display().to_string(),
            },
            _ => unusable(error),
        })?;
        let (homes, folders) = (area(HOMES)?, area(FOLDERS)?);
        data::check_writable(&staging.dir, &[(HOMES, &homes), (FOLDERS, &folders)])
            .map_err(unusable)?;
        Ok(StoreLock {
            store: Self(Arc::new(StoreState {
                homes: Arc::new(homes),
                folders: Arc::new(folders),
                kept: Arc::new(PartialUploads::new(Arc::new(staging))),
                changes: Arc::default(),
                counts: Arc::default(),
                spaces: Mutex::default(),
                failed: Mutex::default(),
            })),
            path: path.to_owned(),
        })
    }

    /// Bytes of the disk that messages may use. The rest is for accounts, which can be changed when
    /// nothing else can be stored. May block on the disk.
    ///
    /// # Errors
    /// The system's error.
    pub fn free_bytes_for_messages(&self) -> io::Result<u64> {
        self.0.kept.staging.free_bytes_for_messages()
    }

    /// Replaces the settings from now on.
    pub fn set(&self, settings: StoreSettings) {
        self.0.kept.set_settings(settings);
    }

    /// Publishes every change to `observer` from now on, in the order in which they were made, each
    /// once a power cut would not undo it. A failed change is not published, except for a move or a
    /// removal that the disk may not keep, which stays visible. The observer is called under a lock
    /// that all operations share: it must be quick, must not wait and must not call the store. A
    /// store has one observer; `false` for a second.
    pub fn observe(&self, observer: impl Fn(FileChange) + Send + Sync + 'static) -> bool {
        self.0.changes.observe(Box::new(observer))
    }

    /// Deletes partial uploads that are too old, too many of one user, or of a user who is gone, and
    /// returns their number. A server calls this periodically. The age of those from an earlier
    /// server counts once `now`, the time of day, is certain.
    #[must_use]
    pub fn expire_uploads(&self, now: Option<Timestamp>) -> usize {
        self.0.kept.expire(now, |owner| self.is_gone(owner))
    }

    /// Deletes a bounded part of one entry that an earlier server has left in staging, or that could
    /// not be deleted since; `true` if the next call can delete more of it. A server calls this in
    /// the background.
    #[must_use]
    pub fn delete_leftover(&self) -> bool {
        self.0.kept.staging.delete_leftover()
    }

    /// The number of entries in staging that are to be deleted in the background.
    #[must_use]
    pub fn leftover_count(&self) -> usize {
        self.0.kept.staging.leftover_count()
    }

    /// Counts spaces in threads from now on. An operation that needs a count ends with
    /// [`StorageError::Counting`] instead of waiting.
    pub fn count_in_background(&self) {
        self.0.counts.set_in_background();
    }

    /// The home of `user`, made if it is missing. Everyone who opens it shares one [`Space`].
    ///
    /// # Errors
    /// [`StorageError::InvalidPath`] if `user` is not a single name, else the system's error.
    pub fn open_home(&self, user: &str) -> Result<Arc<Space>, StorageError> {
        self.space(Area::Homes, user)
    }

    /// The shared folder `name`, as [`Self::open_home`].
    ///
    /// # Errors
    /// As [`Self::open_home`].
    pub fn open_folder(&self, name: &str) -> Result<Arc<Space>, StorageError> {
        self.space(Area::Folders, name)
    }

    /// Whether the open directory of `space` still has its name. May block on the disk.
    #[must_use]
    pub fn is_in_place(&self, space: &Space) -> bool {
        let id = space.id();
        let meta = self.area(id.area).meta(id.name.as_str());
        meta.is_ok_and(|meta| meta.is_some_and(|meta| meta.identity == space.identity()))
    }

    /// Whether a sync has failed since the start. Acknowledged files are safe, but the operator
    /// should check the disk.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.0.kept.staging.is_degraded()
    }

    /// The spaces that are open.
    pub(crate) fn open_spaces(&self) -> Vec<Arc<Space>> {
        let spaces = self.0.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        spaces.open.values().filter_map(Weak::upgrade).collect()
    }

    pub(crate) fn partial_uploads(&self) -> &Arc<PartialUploads> {
        &self.0.kept
    }

    /// The directory that holds the spaces of a kind.
    pub(crate) fn area(&self, area: Area) -> &Arc<OpenDir> {
        match area {
            Area::Homes => &self.0.homes,
            Area::Folders => &self.0.folders,
        }
    }

    fn space(&self, area: Area, name: &str) -> Result<Arc<Space>, StorageError> {
        let path = VirtualPath::root().join_name(name)?;
        let path = path.as_file()?;
        let root = self.open_root(area, name).context("open", path)?;
        self.space_of(area, name, root).context("open", path)
    }

    /// Opens the directory of a space, and makes and syncs it if it is missing. Only one session at a
    /// time makes one. A directory that the disk failed to keep is refused until the next start,
    /// because a second sync would not report the failure.
    fn open_root(&self, area: Area, name: &str) -> io::Result<OpenDir> {
        let dir = self.area(area);
        let mut failed = self.0.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (area, name.to_owned());
        if failed.contains(&key) {
            return Err(io::Error::other(
                "the disk failed to keep this directory; check the disk, then restart the server",
            ));
        }
        match dir.open_dir(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        make_name(dir, name)?;
        // Before anything else can fail: the next session assumes that an existing directory is safe.
        if let Err(error) = self.0.kept.staging.record_sync(dir.sync()) {
            failed.insert(key);
            return Err(error);
        }
        let made = dir.open_dir(name)?;
        give_to_owner_of(&made, dir);
        Ok(made)
    }

    /// The shared space with this root.
    pub(crate) fn space_of(&self, area: Area, name: &str, root: OpenDir) -> io::Result<Arc<Space>> {
        let kept: Arc<dyn EvictPartialUploads> = Arc::clone(&self.0.kept) as _;
        let context = SpaceContext {
            staging: Arc::clone(&self.0.kept.staging),
            counts: Arc::clone(&self.0.counts),
            changes: Arc::clone(&self.0.changes),
            partial_uploads: Arc::downgrade(&kept),
        };
        let made = Space::new(area, name, self.area(area), root, context)?;
        let mut spaces = self.0.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        spaces.open.retain(|_, space| space.strong_count() > 0);
        let space = match spaces.open.entry((area, name.to_owned())) {
            Entry::Vacant(entry) => {
                let made = Arc::new(made);
                entry.insert(Arc::downgrade(&made));
                made
            }
            Entry::Occupied(mut entry) => match entry.get().upgrade() {
                // Otherwise the directory was set aside with its account, and another one made.
                Some(space) if space.identity() == made.identity() => space,
                _ => {
                    let made = Arc::new(made);
                    entry.insert(Arc::downgrade(&made));
                    made
                }
            },
        };
        spaces.mark_used(&space);
        Ok(space)
    }
}

/// A locked data directory in which nothing was changed yet.
#[derive(Debug)]
#[must_use = "dropping it releases the lock"]
pub struct StoreLock {
    store: Store,
    path: PathBuf,
}

impl StoreLock {
    /// Opens the store: recovers the partial uploads in staging, and queues the rest for
    /// [`Store::delete_leftover`]. Call this once nothing else can fail the start of the server.
    ///
    /// # Errors
    /// [`StorageError::Unusable`] if staging cannot be read.
    pub fn open(self) -> Result<Store, StorageError> {
        data::warn_of_mounts(&self.path);
        let recovered = self.store.recover();
        recovered.map_err(|error| data::unusable(&self.path, &error))?;
        Ok(self.store)
    }
}

/// Sets the home of a removed user aside, so that a new account of that name does not inherit it;
/// `false` if there is none. A server may be running meanwhile.
///
/// # Errors
/// [`StorageError::InvalidPath`] if `user` is not a single name, else the system's error.
pub fn set_home_aside(data: &Path, user: &str) -> Result<bool, StorageError> {
    set_aside(data, HOMES, user)
}

/// Sets the files of a removed shared folder aside, as [`set_home_aside`].
///
/// # Errors
/// As [`set_home_aside`].
pub fn set_folder_aside(data: &Path, folder: &str) -> Result<bool, StorageError> {
    set_aside(data, FOLDERS, folder)
}

fn set_aside(data: &Path, area: &str, name: &str) -> Result<bool, StorageError> {
    let path = VirtualPath::root().join_name(name)?;
    let moved = || {
        let root = open_data(data, false)?;
        let (from, to) = (make_dir(&root, area)?, make_dir(&root, REMOVED)?);
        let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%S%.6fZ");
        from.rename_new(name, &to, &format!("{name}-{stamp}"))?;
        to.sync()?;
        from.sync()
    };
    match moved() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        moved => moved.map(|()| true).context("set aside", &path),
    }
}

/// Opens the path that the operator has configured. No other function opens an ambient path.
fn open_data(data: &Path, make: bool) -> io::Result<OpenDir> {
    if make {
        DirBuilder::new().recursive(true).mode(0o700).create(data)?;
    }
    OpenDir::open_ambient(data)
}

/// Opens the directory `name`, and makes and syncs it if it is missing.
fn make_dir(parent: &OpenDir, name: &str) -> io::Result<OpenDir> {
    match parent.open_dir(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_name(parent, name)?;
            let made = parent.open_dir(name)?;
            give_to_owner_of(&made, parent);
            parent.sync()?;
            Ok(made)
        }
        opened => opened,
    }
}

/// Makes the directory `name`, unless it exists by now. The caller syncs it.
fn make_name(parent: &OpenDir, name: &str) -> io::Result<()> {
    match parent.make_dir(name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}
