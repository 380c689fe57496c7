//! The data directory: homes, shared folders, staging.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use jiff::Timestamp;

use crate::ownership::hand_over;
use crate::storage::changes::{ChangeLog, FileChange};
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::data;
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::fs::staging::Staging;
use crate::storage::local::space::{Area, Space};
use crate::storage::local::upload::partial::{PartialUploads, StoreSettings};
use crate::storage::path::VirtualPath;
use crate::storage::rights::SpaceLimits;

const HOMES: &str = "homes";
const FOLDERS: &str = "folders";
const STAGING: &str = "staging";
const REMOVED: &str = "removed";

/// The files of one server. Cheap to clone; another process can not open the same data directory
/// while a clone, a [`Space`] or anything made of one lives.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    homes: OpenDir,
    folders: OpenDir,
    kept: Arc<PartialUploads>,
    changes: Arc<ChangeLog>,
    spaces: Mutex<Spaces>,
    /// The directories of spaces that are made and that the disk failed to keep. Locked while one is
    /// made.
    failed: Mutex<HashSet<(Area, String)>>,
}

/// One [`Space`], and so one ledger, for each directory that somebody uses.
#[derive(Debug, Default)]
struct Spaces {
    open: HashMap<(Area, String), Weak<Space>>,
    /// Those used last, kept open: a user who comes back does not wait for a new count.
    recent: VecDeque<Arc<Space>>,
}

/// How many spaces that nobody uses stay open. Each costs a file descriptor.
const KEPT_OPEN: usize = 64;

impl Spaces {
    /// Notes that `space` is used now.
    fn keep_open(&mut self, space: &Arc<Space>) {
        self.recent.retain(|kept| !Arc::ptr_eq(kept, space));
        self.recent.push_back(Arc::clone(space));
        if self.recent.len() > KEPT_OPEN {
            self.recent.pop_front();
        }
    }
}

impl Store {
    /// Opens the data directory, making it if it is missing. Of what is staged there it keeps the
    /// uploads that can be gone on with.
    ///
    /// # Errors
    /// As [`Store::lock`] and [`StoreLock::open`].
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        Self::lock(path)?.open()
    }

    /// Locks the data directory against other servers, making it if it is missing, and finds out
    /// whether a server can work with it. Nothing that is in it is changed.
    ///
    /// # Errors
    /// [`StorageError::InUse`] if another server has it, [`StorageError::Unusable`] if no server can
    /// work with it.
    pub fn lock(path: &Path) -> Result<StoreLock, StorageError> {
        let unusable = |error| data::unusable(path, &error);
        let root = open_data(path, true).map_err(unusable)?;
        let area = |name| make_dir(&root, name).map_err(unusable);
        let staging = Staging::take(area(STAGING)?).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => StorageError::InUse {
                path: path.display().to_string(),
            },
            _ => unusable(error),
        })?;
        let (homes, folders) = (area(HOMES)?, area(FOLDERS)?);
        data::try_out(&staging.dir, &[(HOMES, &homes), (FOLDERS, &folders)]).map_err(unusable)?;
        Ok(StoreLock {
            store: Self(Arc::new(Inner {
                homes,
                folders,
                kept: Arc::new(PartialUploads::new(Arc::new(staging))),
                changes: Arc::default(),
                spaces: Mutex::default(),
                failed: Mutex::default(),
            })),
            path: path.to_owned(),
        })
    }

    /// Bytes of the disk that messages may take, so that accounts can be changed when nothing else
    /// can be stored. May block on the disk.
    ///
    /// # Errors
    /// What the system says.
    pub fn room_for_messages(&self) -> io::Result<u64> {
        self.0.kept.staging.room_for_messages()
    }

    /// Changes what can be set, from now on.
    pub fn set(&self, settings: StoreSettings) {
        self.0.kept.set(settings);
    }

    /// Tells `observer` of every change from now on, in the order in which they happened, each
    /// once a power cut would not undo it. What failed is not told, but for a move or a removal that the
    /// disk may not keep: it stays visible, so whoever watches has to know. It is called where files are
    /// changed, under a lock that all of them share, so it must be quick, never wait and not come
    /// back here. Only the first observer counts; `false` for any other.
    pub fn observe(&self, observer: impl Fn(FileChange) + Send + Sync + 'static) -> bool {
        self.0.changes.observe(Box::new(observer))
    }

    /// Drops kept uploads that are too old, or too many of one user, or of a user who is gone. Says
    /// how many. A server does this every now and then. The age of those that an earlier server has
    /// kept counts once `now`, the time of day, is known for sure.
    #[must_use]
    pub fn expire_uploads(&self, now: Option<Timestamp>) -> usize {
        self.0.kept.expire(now, |owner| self.is_gone(owner))
    }

    /// Deletes a bounded part of one thing that an earlier server has left in staging, or that could
    /// not be deleted since; whether it is worth going on with that at once. A server does this
    /// from its start on.
    #[must_use]
    pub fn delete_left(&self) -> bool {
        self.0.kept.staging.delete_left()
    }

    /// How many things are left in staging that nobody needs.
    #[must_use]
    pub fn left(&self) -> usize {
        self.0.kept.staging.left()
    }

    /// Has spaces counted by threads of their own: what needs a count ends with
    /// [`StorageError::Counting`] until then, and waits for nothing.
    pub fn count_in_background(&self) {
        self.0.kept.staging.counts.set_in_background();
    }

    /// The home of `user`, made if it is missing; the same one for everyone who has it open. The
    /// limits hold from now on.
    ///
    /// # Errors
    /// [`StorageError::InvalidPath`] if `user` is no single name, else what the system said.
    pub fn home(&self, user: &str, limits: SpaceLimits) -> Result<Arc<Space>, StorageError> {
        let home = self.open_home(user)?;
        home.ledger().limits = limits;
        Ok(home)
    }

    /// The home of `user`, as [`Self::home`], with the limits that it has.
    ///
    /// # Errors
    /// As [`Self::home`].
    pub fn open_home(&self, user: &str) -> Result<Arc<Space>, StorageError> {
        self.space(Area::Homes, user)
    }

    /// The shared folder `name`, as [`Self::home`].
    ///
    /// # Errors
    /// As [`Self::home`].
    pub fn folder(&self, name: &str, limits: SpaceLimits) -> Result<Arc<Space>, StorageError> {
        let folder = self.open_folder(name)?;
        folder.ledger().limits = limits;
        Ok(folder)
    }

    /// The shared folder `name`, as [`Self::open_home`].
    ///
    /// # Errors
    /// As [`Self::home`].
    pub fn open_folder(&self, name: &str) -> Result<Arc<Space>, StorageError> {
        self.space(Area::Folders, name)
    }

    /// Whether the directory of the name of `space` is still the one that is open. May block on the
    /// disk.
    #[must_use]
    pub fn is_in_place(&self, space: &Space) -> bool {
        let id = space.id();
        let meta = self.area(id.area).meta(id.name.as_str());
        meta.is_ok_and(|meta| meta.is_some_and(|meta| meta.identity == space.identity()))
    }

    /// Whether the disk has failed to keep something since the start. What was acknowledged is
    /// safe; the disk wants looking at.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.0.kept.staging.is_degraded()
    }

    /// The spaces that are open.
    pub(crate) fn open_spaces(&self) -> Vec<Arc<Space>> {
        let spaces = self.0.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        spaces.open.values().filter_map(Weak::upgrade).collect()
    }

    pub(crate) fn kept(&self) -> &Arc<PartialUploads> {
        &self.0.kept
    }

    /// The directory that holds the spaces of a kind.
    pub(crate) fn area(&self, area: Area) -> &OpenDir {
        match area {
            Area::Homes => &self.0.homes,
            Area::Folders => &self.0.folders,
        }
    }

    fn space(&self, area: Area, name: &str) -> Result<Arc<Space>, StorageError> {
        let path = VirtualPath::root().join_name(name)?;
        let path = path.as_file()?;
        let root = self.open_root(area, name).at("open", path)?;
        self.space_of(area, name, root).at("open", path)
    }

    /// Opens the directory of a space, made to last if it is missing. Another session may be making it
    /// now, which is waited for. One that the disk failed to keep is refused until the next start:
    /// a second sync would not tell.
    fn open_root(&self, area: Area, name: &str) -> io::Result<OpenDir> {
        let dir = self.area(area);
        let mut failed = self.0.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (area, name.to_owned());
        if failed.contains(&key) {
            return Err(io::Error::other(
                "the disk failed to keep this directory: see to the disk and restart the server",
            ));
        }
        match dir.open_dir(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        make_name(dir, name)?;
        // Before anything else can fail: who comes next takes what is there to last.
        if let Err(error) = self.0.kept.staging.synced(dir.sync()) {
            failed.insert(key);
            return Err(error);
        }
        let made = dir.open_dir(name)?;
        hand_over(&made, dir);
        Ok(made)
    }

    /// The one space whose root this is.
    pub(crate) fn space_of(&self, area: Area, name: &str, root: OpenDir) -> io::Result<Arc<Space>> {
        let changes = Arc::clone(&self.0.changes);
        let made = Space::new(area, name, root, &self.0.kept, changes)?;
        let mut spaces = self.0.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        spaces.open.retain(|_, space| space.strong_count() > 0);
        let space = match spaces.open.entry((area, name.to_owned())) {
            Entry::Vacant(entry) => {
                let made = Arc::new(made);
                entry.insert(Arc::downgrade(&made));
                made
            }
            Entry::Occupied(mut entry) => match entry.get().upgrade() {
                // The directory may have been set aside with its account, and made anew.
                Some(space) if space.identity() == made.identity() => space,
                _ => {
                    let made = Arc::new(made);
                    entry.insert(Arc::downgrade(&made));
                    made
                }
            },
        };
        spaces.keep_open(&space);
        Ok(space)
    }
}

/// A data directory that is locked, and in which nothing was changed.
#[derive(Debug)]
#[must_use = "the lock ends with it"]
pub struct StoreLock {
    store: Store,
    path: PathBuf,
}

impl StoreLock {
    /// Opens the store. Of what is staged it keeps the uploads that can be gone on with, and notes
    /// the rest for [`Store::delete_left`]: call this only once nothing else can refuse the start of
    /// the server.
    ///
    /// # Errors
    /// [`StorageError::Unusable`] if what is staged cannot be read.
    pub fn open(self) -> Result<Store, StorageError> {
        data::warn_of_mounts(&self.path);
        let recovered = self.store.recover();
        recovered.map_err(|error| data::unusable(&self.path, &error))?;
        Ok(self.store)
    }
}

/// Sets the home of a removed user aside, so that a new account of that name never inherits it;
/// `false` if there was none. Works beside a running server.
///
/// # Errors
/// [`StorageError::InvalidPath`] if `user` is no single name, else what the system said.
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
        moved => moved.map(|()| true).at("set aside", &path),
    }
}

/// The one place that opens a path of the operator's.
fn open_data(data: &Path, make: bool) -> io::Result<OpenDir> {
    if make {
        DirBuilder::new().recursive(true).mode(0o700).create(data)?;
    }
    OpenDir::open_ambient(data)
}

/// Opens the directory `name`, made to last if it is missing.
fn make_dir(parent: &OpenDir, name: &str) -> io::Result<OpenDir> {
    match parent.open_dir(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_name(parent, name)?;
            let made = parent.open_dir(name)?;
            hand_over(&made, parent);
            parent.sync()?;
            Ok(made)
        }
        opened => opened,
    }
}

/// Makes the directory `name`, unless another has made it just now. It may not last yet.
fn make_name(parent: &OpenDir, name: &str) -> io::Result<()> {
    match parent.make_dir(name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}
