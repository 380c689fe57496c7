//! A view: what one member sees, a home with shared folders mounted into it by name.
//!
//! Every path of a member enters here, is taken apart into a place, and meets the rights there
//! before anything is touched.

use std::sync::Arc;

use crate::protocol::IfExists;
use crate::storage::access::{Access, AccessMounts, AccessSpaces, Permission};
use crate::storage::changes;
use crate::storage::changes::VisiblePath;
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::copy::{copy, receive};
use crate::storage::local::file::{FileInfo, StoredFile};
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::listing::{ListingPage, list};
use crate::storage::local::quota::{Reservation, SpaceCount};
use crate::storage::local::remove::{Removed, remove};
use crate::storage::local::rename::rename;
use crate::storage::local::space::Space;
use crate::storage::local::store::Store;
use crate::storage::local::upload::already_committed::AlreadyCommitted;
use crate::storage::local::upload::partial::PartialUploadInfo;
use crate::storage::local::upload::single::{Upload, UploadOptions, Uploader};
use crate::storage::path::VirtualPath;
use crate::storage::rights::{Rights, SpaceUsage};

/// A shared folder in a view.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Its name in the root. Hides what the home has under the same name.
    pub name: String,
    /// The folder.
    pub space: Arc<Space>,
    /// What the member may do there.
    pub rights: Rights,
}

/// Bytes that a directory takes up on most disks.
const DIR_BYTES: u64 = 4096;

/// An upload that has begun.
#[derive(Debug)]
pub enum BegunUpload {
    /// Its bytes can come, from [`Upload::written`] on.
    Upload(Box<Upload>),
    /// All of them came before.
    AlreadyThere(Box<AlreadyCommitted>),
}

/// What one member sees. Cheap to clone; clones see the same, also once that is changed. Every call
/// that has a path may block on the disk, and fails with [`StorageError::Suspended`] while it is
/// suspended and with [`StorageError::Denied`] once it is revoked.
#[derive(Debug, Clone)]
pub struct View(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The data directory is this server's for as long as anyone looks at it.
    store: Store,
    access: Access,
    /// What is mounted anywhere but in the root.
    no_mounts: AccessMounts,
}

impl View {
    /// The view of a member who has this home and these folders.
    #[must_use]
    pub fn new(store: &Store, home: Arc<Space>, folders: Vec<Mount>) -> Self {
        Self::with(store, Access::open(AccessSpaces::new(home, folders)))
    }

    /// The view of a member of whom nothing is known yet.
    #[must_use]
    pub fn suspended(store: &Store) -> Self {
        Self::with(store, Access::suspended())
    }

    fn with(store: &Store, access: Access) -> Self {
        Self(Arc::new(Inner {
            store: store.clone(),
            access,
            no_mounts: AccessMounts::new(),
        }))
    }

    /// From now on the member has this home and these folders, unless the view was revoked. Work
    /// that is under way goes on only where it still may.
    pub fn set(&self, home: Arc<Space>, folders: Vec<Mount>) {
        self.0.access.set(AccessSpaces::new(home, folders));
    }

    /// Refuses everything until [`set`](Self::set) is called.
    pub fn suspend(&self) {
        self.0.access.suspend();
    }

    /// Refuses everything from now on.
    pub fn revoke(&self) {
        self.0.access.revoke();
    }

    pub(crate) fn access(&self) -> &Access {
        &self.0.access
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    /// Makes sure that `path` is a directory that the member may be in.
    ///
    /// # Errors
    /// [`StorageError::NotFound`], [`StorageError::NotADirectory`], [`StorageError::Denied`].
    pub fn enter(&self, path: &VirtualPath) -> Result<(), StorageError> {
        let place = self.place(path)?;
        place.require_list()?;
        let opened = place.space.jail.open_dir(&place.inner).at("enter", path);
        opened
            .map(drop)
            .map_err(|error| error.looking_for("directory"))
    }

    /// A page of the directory `path`: from the start, or from the `cursor` that the page before
    /// gave. It holds at most `limit` entries and so many that they fit `budget` bytes of JSON,
    /// but one at least if there is one.
    ///
    /// # Errors
    /// As [`Self::enter`], and [`StorageError::BadCursor`] if no page gave the cursor.
    pub fn list(
        &self,
        path: &VirtualPath,
        cursor: Option<&str>,
        limit: usize,
        budget: usize,
    ) -> Result<ListingPage, StorageError> {
        let place = self.place(path)?;
        place.require(|rights| rights.list)?;
        let (_, reach) = self.0.access.reach(path)?;
        let in_root = path.name().is_none();
        let mounts = if in_root {
            &reach.mounts
        } else {
            &self.0.no_mounts
        };
        list(&place, mounts, cursor, limit, budget)
    }

    /// What is known of `path`.
    ///
    /// # Errors
    /// [`StorageError::NotFound`], or [`StorageError::Denied`] where the member may not look or it
    /// is neither file nor directory.
    pub fn stat(&self, path: &VirtualPath) -> Result<FileInfo, StorageError> {
        let place = self.place(path)?;
        place.require_list()?;
        let (file, meta) = place.space.jail.open(&place.inner).at("open", path)?;
        FileInfo::of(&place, &file, &meta)
    }

    /// What there is to watch at and below `path`, which the member may list: one part of a space,
    /// and for the root the home and every folder that may be listed.
    ///
    /// # Errors
    /// As [`Self::list`] and [`Self::stat`].
    pub fn watch(&self, path: &VirtualPath) -> Result<Vec<VisiblePath>, StorageError> {
        let seen = self.seen(path)?;
        self.stat(path)?;
        Ok(seen)
    }

    /// As [`Self::watch`], whether anything is there or not.
    ///
    /// # Errors
    /// [`StorageError::Denied`].
    pub fn seen(&self, path: &VirtualPath) -> Result<Vec<VisiblePath>, StorageError> {
        let place = self.place(path)?;
        place.require(|rights| rights.list)?;
        let mut all = vec![place.seen()];
        if path.name().is_none() {
            let (_, reach) = self.0.access.reach(path)?;
            all[0].hidden = reach.mounts.keys().cloned().collect();
            for name in reach.mounts.keys() {
                let mount = self.place(&path.join_name(name)?)?;
                if mount.rights()?.list {
                    all.push(mount.seen());
                }
            }
        }
        Ok(all)
    }

    /// Makes the directory `path`; with `parents` those on the way too, and it is no error if it
    /// is there already.
    ///
    /// # Errors
    /// [`StorageError::Exists`], [`StorageError::NotFound`] if the parent is missing,
    /// [`StorageError::NotADirectory`], [`StorageError::Denied`], [`StorageError::QuotaExceeded`],
    /// [`StorageError::NoSpace`].
    pub fn make_dir(&self, path: &VirtualPath, parents: bool) -> Result<(), StorageError> {
        let place = self.place(path)?;
        if place.is_root() && parents {
            return Ok(());
        }
        place.require(|rights| rights.write)?;
        if place.is_root() {
            return Err(StorageError::exists(path));
        }
        place
            .space
            .staging
            .check_room(SpaceCount::file(DIR_BYTES), path)?;
        // A first count takes its time: not while the names are locked.
        place.space.count_if_limited(path)?;
        let names = place.space.lock_names();
        place.require(|rights| rights.write)?;
        let (dir, made, noted) = if parents {
            let (dir, made) = place.make_dir(&names)?;
            let noted = changes::made(&place, &dir, made.len());
            (dir, made, noted)
        } else {
            let (dir, name) = place.open_parent()?;
            if dir.meta(name).at("look at", path)?.is_some() {
                return Err(StorageError::exists(path));
            }
            let mut reservation = Reservation::new(&place.space);
            let grown = reservation.grow_locked(SpaceCount::entries(1), &names, path);
            grown.map_err(|error| place.conceal(error))?;
            let made = names.make_dir(&dir, name).at("make", path)?;
            drop(reservation.settle(&names, SpaceCount::default()));
            let above = || changes::true_path(&place, &dir);
            let noted = changes::landed(&place, (above, name), 0, true, None);
            (dir, vec![made], noted)
        };
        let mut unsynced = names.unsynced_above(&dir).at("open", path)?;
        drop(names);
        unsynced.extend(made.iter().cloned());
        let mut each = unsynced.iter();
        let synced = each.try_for_each(|name| name.sync(&place.space.staging));
        place.space.unsynced.settle(&unsynced);
        if synced.is_err() {
            place.space.lock_names().take_back_dirs(&made);
        }
        synced.at("sync", path)?;
        place.check_attached()?;
        noted.tell();
        Ok(())
    }

    /// Removes the file or, if it is empty or with `recursive`, the directory `path`. Says what has
    /// become of all in it. A tree disappears at once; `stop` counts until then.
    ///
    /// # Errors
    /// [`StorageError::NotFound`], [`StorageError::NotEmpty`], [`StorageError::Denied`],
    /// [`StorageError::Cancelled`].
    pub fn remove(
        &self,
        path: &VirtualPath,
        recursive: bool,
        stop: &dyn Fn() -> bool,
    ) -> Result<Removed, StorageError> {
        remove(&self.place(path)?, recursive, stop)
    }

    /// Moves a file or a directory, at once, and says which path it got. Within a folder this
    /// needs the right to delete, out of it the right to read as well.
    ///
    /// A file can take the place of a file, a directory only a place that is free.
    ///
    /// # Errors
    /// [`StorageError::NotFound`], [`StorageError::Exists`], [`StorageError::Denied`], and
    /// [`StorageError::QuotaExceeded`] where it comes into another space.
    pub fn rename(
        &self,
        from: &VirtualPath,
        to: &VirtualPath,
        if_exists: IfExists,
    ) -> Result<VirtualPath, StorageError> {
        rename(&self.place(from)?, &self.place(to)?, if_exists)
    }

    /// Copies a file or a directory, which appears at once, and says which path it got.
    ///
    /// # Errors
    /// As [`Self::rename`], and [`StorageError::NoSpace`], [`StorageError::Cancelled`] and
    /// [`StorageError::Changed`] if the source changed meanwhile. Nothing is left of it then.
    pub fn copy(
        &self,
        from: &VirtualPath,
        to: &VirtualPath,
        if_exists: IfExists,
        stop: &dyn Fn() -> bool,
    ) -> Result<VirtualPath, StorageError> {
        let (from, to) = (self.place(from)?, self.place(to)?);
        let copied = copy(&from, &to, if_exists, stop);
        copied.map_err(|error| to.conceal(error))
    }

    /// Copies the file that is `from` in the view `source` of another member, if it is that
    /// `version` still, and says which path it got here. What fails names the file only, not where
    /// the other member has it.
    ///
    /// # Errors
    /// As [`Self::copy`]; [`StorageError::NotFound`] and [`StorageError::Denied`] also where the
    /// other member may no longer read the file, [`StorageError::Changed`] where it is another
    /// version. Nothing is left of it then.
    pub fn receive(
        &self,
        source: &Self,
        from: &VirtualPath,
        version: &str,
        to: &VirtualPath,
        if_exists: IfExists,
        stop: &dyn Fn() -> bool,
    ) -> Result<VirtualPath, StorageError> {
        let name = from.name().unwrap_or_default();
        let from = ResolvedPath {
            full: VirtualPath::root().join_name(name)?,
            ..source.place(from)?
        };
        let to = self.place(to)?;
        let received = receive(&from, version, &to, if_exists, stop);
        received.map_err(|error| to.conceal(error))
    }

    /// Opens the file `path` for reading, if it is that `version`.
    ///
    /// # Errors
    /// [`StorageError::NotFound`], [`StorageError::IsADirectory`], [`StorageError::Denied`],
    /// [`StorageError::Changed`] if it is another version.
    pub fn open(
        &self,
        path: &VirtualPath,
        version: Option<&str>,
    ) -> Result<StoredFile, StorageError> {
        let file = StoredFile::open(&self.place(path)?)?;
        if version.is_some() && version != file.info().version.as_deref() {
            return Err(StorageError::changed(path));
        }
        Ok(file)
    }

    /// Begins an upload to `path`.
    ///
    /// # Errors
    /// [`StorageError::QuotaExceeded`] and [`StorageError::NoSpace`] if there is no room for the
    /// declared size now, and whatever makes it sure already that it could not be committed.
    pub fn upload(
        &self,
        path: &VirtualPath,
        options: UploadOptions,
    ) -> Result<Upload, StorageError> {
        let place = self.place(path)?;
        Upload::check(&place, &options)?;
        let by = self.uploader(&"".into(), path)?;
        Upload::begin(place, options, by)
    }

    /// Begins an upload to `path`, for `session`. To `resume` is to go on with what was kept of an
    /// earlier attempt, or to find that the file is there already; if neither can be, it begins
    /// anew.
    ///
    /// # Errors
    /// As [`Self::upload`]. What was kept is kept still after one.
    pub fn begin(
        &self,
        path: &VirtualPath,
        options: UploadOptions,
        session: &Arc<str>,
        resume: bool,
    ) -> Result<BegunUpload, StorageError> {
        let place = self.place(path)?;
        let by = self.uploader(session, path)?;
        let checked = Upload::check(&place, &options);
        if resume {
            if checked.is_ok()
                && let Some(upload) = Upload::resume(&place, options, &by)?
            {
                return Ok(BegunUpload::Upload(Box::new(upload)));
            }
            // What may not be replaced could be what this very upload has made.
            let may_be_there = match &checked {
                Ok(()) | Err(StorageError::Exists { .. }) => true,
                Err(StorageError::Denied { .. }) => place.rights()?.write,
                Err(_) => false,
            };
            if may_be_there && let Some(there) = AlreadyCommitted::find(&place, options, &by)? {
                return Ok(BegunUpload::AlreadyThere(Box::new(there)));
            }
        }
        checked?;
        let upload = Upload::begin(place, options, by)?;
        Ok(BegunUpload::Upload(Box::new(upload)))
    }

    /// Whether nothing can be reserved around `path` before that is counted. Asks no disk.
    #[must_use]
    pub fn needs_count(&self, path: &VirtualPath) -> bool {
        let place = self.place(path);
        place.is_ok_and(|place| place.space.ledger().needs_count())
    }

    /// Has what is around `path` counted, if something is to be reserved there.
    ///
    /// # Errors
    /// [`StorageError::Counting`], or what the system said.
    pub fn count(&self, path: &VirtualPath) -> Result<(), StorageError> {
        self.place(path)?.space.count_if_limited(path)
    }

    /// The member's uploads that were cut off and can be gone on with, the latest first.
    ///
    /// # Errors
    /// [`StorageError::Suspended`], [`StorageError::Denied`].
    pub fn uploads(&self) -> Result<Vec<PartialUploadInfo>, StorageError> {
        let (_, reach) = self.0.access.reach(&VirtualPath::root())?;
        Ok(self.0.store.kept().list(reach.home.id()))
    }

    /// Drops one of them; `false` if there is none of that name.
    ///
    /// # Errors
    /// As [`Self::uploads`].
    pub fn discard(&self, upload: &str) -> Result<bool, StorageError> {
        let (_, reach) = self.0.access.reach(&VirtualPath::root())?;
        Ok(self.0.store.kept().discard(reach.home.id(), upload))
    }

    pub(crate) fn uploader(
        &self,
        session: &Arc<str>,
        path: &VirtualPath,
    ) -> Result<Uploader, StorageError> {
        let (_, reach) = self.0.access.reach(path)?;
        Ok(Uploader {
            owner: reach.home.id().clone(),
            session: Arc::clone(session),
            kept: Arc::clone(self.0.store.kept()),
        })
    }

    /// What is used and allowed in the home or folder around `path`.
    ///
    /// # Errors
    /// [`StorageError::Denied`] in a folder that the member may not list: how much is in it, and
    /// how that changes, says what the others do there. Else what the system said.
    pub fn usage(&self, path: &VirtualPath) -> Result<SpaceUsage, StorageError> {
        let place = self.place(path)?;
        place.require(|rights| rights.list)?;
        place.space.usage(path)
    }

    pub(crate) fn place(&self, path: &VirtualPath) -> Result<ResolvedPath, StorageError> {
        let (epoch, reach) = self.0.access.reach(path)?;
        let mount = path.split_first().and_then(|(first, inner)| {
            let mount = reach.mounts.get(first)?;
            Some((mount, inner))
        });
        let (space, inner, rights) = match mount {
            Some((mount, inner)) => (&mount.space, inner, mount.rights),
            None => (&reach.home, path.clone(), Rights::ALL),
        };
        Ok(ResolvedPath {
            space: Arc::clone(space),
            inner,
            full: path.clone(),
            permission: Permission {
                view: self.clone(),
                epoch,
                rights,
            },
            by: Arc::clone(&reach.home),
        })
    }
}
