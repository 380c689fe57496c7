//! A view: a member's home, with shared folders mounted into it by name.
//!
//! Every path of a member is resolved here to a path in a space, and the member's rights there are
//! checked before the disk is used.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::protocol::{FileMode, IfExists};
use crate::storage::access::Access;
use crate::storage::changes::VisiblePath;
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::access::{AccessMounts, AccessSpaces, Mount, Permission};
use crate::storage::local::copy::{copy, receive};
use crate::storage::local::file::{FileInfo, StoredFile};
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::listing::{ListingPage, list};
use crate::storage::local::make_dir::make_dir;
use crate::storage::local::remove::{Removed, remove};
use crate::storage::local::rename::rename;
use crate::storage::local::space::Space;
use crate::storage::local::store::Store;
use crate::storage::local::upload::already_committed::AlreadyCommitted;
use crate::storage::local::upload::partial::PartialUploadInfo;
use crate::storage::local::upload::receive::Upload;
use crate::storage::local::upload::request::UploadOptions;
use crate::storage::local::upload::uploader::Uploader;
use crate::storage::path::VirtualPath;
use crate::storage::rights::{Right, Rights, SpaceUsage};

/// The result of beginning an upload.
#[derive(Debug)]
pub enum BegunUpload {
    /// The upload accepts bytes, from [`Upload::written`] on.
    Upload(Box<Upload>),
    /// An earlier attempt has committed the file already.
    AlreadyCommitted(Box<AlreadyCommitted>),
}

impl BegunUpload {
    /// The id of the upload: random, hex.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Upload(upload) => upload.id(),
            Self::AlreadyCommitted(found) => found.id(),
        }
    }
}

/// The files that one member may reach. Clones are cheap and share the member's access, also when it
/// changes. Every call with a path may block on the disk, and fails with
/// [`StorageError::Suspended`] while access is suspended and with [`StorageError::Denied`] once it
/// is revoked.
#[derive(Debug, Clone)]
pub struct View(Arc<ViewState>);

#[derive(Debug)]
struct ViewState {
    /// The data directory stays locked while a view of it exists.
    store: Store,
    access: Arc<Access<AccessSpaces>>,
    /// The mounts of every directory but the root.
    no_mounts: AccessMounts,
}

impl View {
    /// The view of a member who has this home and these folders.
    #[must_use]
    pub fn new(store: &Store, home: Arc<Space>, folders: Vec<Mount>) -> Self {
        Self::with_access(store, Access::granted(AccessSpaces::new(home, folders)))
    }

    /// The view of a member whose access is not known yet.
    #[must_use]
    pub fn suspended(store: &Store) -> Self {
        Self::with_access(store, Access::suspended())
    }

    fn with_access(store: &Store, access: Access<AccessSpaces>) -> Self {
        Self(Arc::new(ViewState {
            store: store.clone(),
            access: Arc::new(access),
            no_mounts: AccessMounts::new(),
        }))
    }

    /// Grants access to this home and these folders, and nothing else, unless the view was revoked.
    /// Operations under way continue only with the rights that they still have.
    pub fn set(&self, home: Arc<Space>, folders: Vec<Mount>) {
        self.0.access.grant(AccessSpaces::new(home, folders));
    }

    /// Refuses every operation until [`set`](Self::set) is called.
    pub fn suspend(&self) {
        self.0.access.suspend();
    }

    /// Refuses every operation from now on.
    pub fn revoke(&self) {
        self.0.access.revoke();
    }

    /// Makes sure that `path` is a directory that the member may enter.
    ///
    /// # Errors
    /// [`StorageError::NotFound`], [`StorageError::NotADirectory`], [`StorageError::Denied`].
    pub fn enter(&self, path: &VirtualPath) -> Result<(), StorageError> {
        let place = self.resolve(path)?;
        place.require_list()?;
        let opened = place
            .space
            .sandbox
            .open_dir(&place.inner)
            .context("enter", path);
        opened
            .map(drop)
            .map_err(|error| place.locate_file(error).looking_for("directory"))
    }

    /// A page of the directory `path`: the first, or the one at the `cursor` of the page before. It
    /// has at most `limit` entries that fit `budget` bytes of JSON, but at least one if the directory
    /// has more.
    ///
    /// # Errors
    /// As [`Self::enter`], and [`StorageError::BadCursor`] if the cursor is not one of a page.
    pub fn list(
        &self,
        path: &VirtualPath,
        cursor: Option<&str>,
        limit: usize,
        budget: usize,
    ) -> Result<ListingPage, StorageError> {
        let place = self.resolve(path)?;
        place.require(Right::List)?;
        let (_, spaces) = self.0.access.spaces(path)?;
        let in_root = path.name().is_none();
        let mounts = if in_root {
            &spaces.mounts
        } else {
            &self.0.no_mounts
        };
        list(&place, mounts, cursor, limit, budget)
    }

    /// The metadata of `path`.
    ///
    /// # Errors
    /// [`StorageError::NotFound`], or [`StorageError::Denied`] if the member may not list it or it is
    /// neither a file nor a directory.
    pub fn stat(&self, path: &VirtualPath) -> Result<FileInfo, StorageError> {
        let place = self.resolve(path)?;
        place.require_list()?;
        let (file, meta) = place
            .space
            .sandbox
            .open(&place.inner)
            .context("open", path)
            .map_err(|error| place.locate_file(error))?;
        FileInfo::from_open(&place, &file, &meta)
    }

    /// The parts of spaces that a subscription to `path` covers: one, or for the root the home and
    /// every folder that the member may list.
    ///
    /// # Errors
    /// As [`Self::list`] and [`Self::stat`].
    pub fn watch(&self, path: &VirtualPath) -> Result<Vec<VisiblePath>, StorageError> {
        let seen = self.visible_paths(path)?;
        self.stat(path)?;
        Ok(seen)
    }

    /// As [`Self::watch`], whether the path exists or not.
    ///
    /// # Errors
    /// [`StorageError::Denied`].
    pub fn visible_paths(&self, path: &VirtualPath) -> Result<Vec<VisiblePath>, StorageError> {
        let place = self.resolve(path)?;
        place.require(Right::List)?;
        let mut all = vec![place.visible_path()];
        if path.name().is_none() {
            let (_, spaces) = self.0.access.spaces(path)?;
            all[0].hidden = spaces.mounts.keys().cloned().collect();
            for name in spaces.mounts.keys() {
                let mount = self.resolve(&path.join_name(name)?)?;
                if mount.rights()?.list {
                    all.push(mount.visible_path());
                }
            }
        }
        Ok(all)
    }

    /// Makes the directory `path`, with this `mode`. With `parents` it also makes those on the way, and
    /// an existing directory is no error and stays as it is.
    ///
    /// # Errors
    /// [`StorageError::Exists`], [`StorageError::NotFound`] if the parent is missing,
    /// [`StorageError::NotADirectory`], [`StorageError::Denied`], [`StorageError::QuotaExceeded`],
    /// [`StorageError::NoSpace`].
    pub fn make_dir(
        &self,
        path: &VirtualPath,
        parents: bool,
        mode: Option<FileMode>,
    ) -> Result<(), StorageError> {
        let place = self.resolve(path)?;
        if place.is_root() && parents {
            return Ok(());
        }
        place.require(Right::Write)?;
        if place.is_root() {
            return Err(StorageError::exists(path));
        }
        make_dir(&place, parents, mode)
    }

    /// Removes the file `path`, or the directory if it is empty or with `recursive`. A tree disappears
    /// at once; `stop` is asked until then.
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
        remove(&self.resolve(path)?, recursive, stop)
    }

    /// Moves a file or a directory in one step, and returns its path. This needs the right to delete
    /// in the folder of the source, and to read as well if it leaves the folder.
    ///
    /// A file can replace a file; a directory replaces nothing.
    ///
    /// # Errors
    /// [`StorageError::NotFound`], [`StorageError::Exists`], [`StorageError::Denied`], and
    /// [`StorageError::QuotaExceeded`] if it moves to another space.
    pub fn rename(
        &self,
        from: &VirtualPath,
        to: &VirtualPath,
        if_exists: IfExists,
    ) -> Result<VirtualPath, StorageError> {
        rename(&self.resolve(from)?, &self.resolve(to)?, if_exists)
    }

    /// Copies a file or a directory, which appears in one step, and returns its path.
    ///
    /// # Errors
    /// As [`Self::rename`], and [`StorageError::NoSpace`], [`StorageError::Cancelled`] and
    /// [`StorageError::Changed`] if the source changed meanwhile. Nothing of the copy exists then.
    pub fn copy(
        &self,
        from: &VirtualPath,
        to: &VirtualPath,
        if_exists: IfExists,
        stop: &dyn Fn() -> bool,
    ) -> Result<VirtualPath, StorageError> {
        let (from, to) = (self.resolve(from)?, self.resolve(to)?);
        let copied = copy(&from, &to, if_exists, stop);
        copied.map_err(|error| to.redact_quota(error))
    }

    /// Copies the file `from` of the view `source` of another member, if it still has that `version`,
    /// and returns its path here. Errors name the file only, not its path in the other view.
    ///
    /// # Errors
    /// As [`Self::copy`]; [`StorageError::NotFound`] and [`StorageError::Denied`] also if the other
    /// member may no longer read the file, [`StorageError::Changed`] if it has another version.
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
            ..source.resolve(from)?
        };
        let to = self.resolve(to)?;
        let received = receive(&from, version, &to, if_exists, stop);
        received.map_err(|error| to.redact_quota(error))
    }

    /// Opens the file `path` for reading, if it has that `version`.
    ///
    /// # Errors
    /// [`StorageError::NotFound`], [`StorageError::IsADirectory`], [`StorageError::Denied`],
    /// [`StorageError::Changed`] if it has another version.
    pub fn open(
        &self,
        path: &VirtualPath,
        version: Option<&str>,
    ) -> Result<StoredFile, StorageError> {
        let file = StoredFile::open(&self.resolve(path)?)?;
        if version.is_some() && version != file.info().version.as_deref() {
            return Err(StorageError::changed(path));
        }
        Ok(file)
    }

    /// Begins an upload to `path`, for `session`. With `resume` it continues the partial upload of an
    /// earlier attempt, or finds that the file is committed already; otherwise the upload is new.
    ///
    /// # Errors
    /// [`StorageError::QuotaExceeded`] and [`StorageError::NoSpace`] if the declared size does not
    /// fit now, and every error that a commit could not avoid. A partial upload stays after one.
    pub fn begin(
        &self,
        path: &VirtualPath,
        options: UploadOptions,
        session: &Arc<str>,
        resume: bool,
    ) -> Result<BegunUpload, StorageError> {
        let target = self.resolve(path)?;
        let uploader = self.uploader(session, path)?;
        let checked = Upload::check(&target, &options);
        if resume {
            if checked.is_ok()
                && let Some(upload) = Upload::resume(&target, options, &uploader)?
            {
                return Ok(BegunUpload::Upload(Box::new(upload)));
            }
            // A file that must not be replaced may be the result of this very upload.
            let may_be_committed = match &checked {
                Ok(()) | Err(StorageError::Exists { .. }) => true,
                Err(StorageError::Denied { .. }) => target.rights()?.write,
                Err(_) => false,
            };
            if may_be_committed
                && let Some(found) = AlreadyCommitted::find(&target, options, &uploader)?
            {
                return Ok(BegunUpload::AlreadyCommitted(Box::new(found)));
            }
        }
        checked?;
        let upload = Upload::begin(target, options, uploader)?;
        Ok(BegunUpload::Upload(Box::new(upload)))
    }

    /// Whether the space of `path` must be counted before quota can be reserved. Does not use the
    /// disk.
    #[must_use]
    pub fn needs_count(&self, path: &VirtualPath) -> bool {
        let place = self.resolve(path);
        place.is_ok_and(|place| place.space.ledger().needs_count())
    }

    /// Counts the space of `path`, if it has a limit.
    ///
    /// # Errors
    /// [`StorageError::Counting`], or the system's error.
    pub fn count(&self, path: &VirtualPath) -> Result<(), StorageError> {
        self.resolve(path)?.space.count_if_limited(path)
    }

    /// The member's partial uploads, the latest first.
    ///
    /// # Errors
    /// [`StorageError::Suspended`], [`StorageError::Denied`].
    pub fn uploads(&self) -> Result<Vec<PartialUploadInfo>, StorageError> {
        let (_, spaces) = self.0.access.spaces(&VirtualPath::root())?;
        Ok(self.0.store.partial_uploads().list(spaces.home.id()))
    }

    /// Deletes a partial upload; `false` if the member has none of that name.
    ///
    /// # Errors
    /// As [`Self::uploads`].
    pub fn discard(&self, upload: &str) -> Result<bool, StorageError> {
        let (_, spaces) = self.0.access.spaces(&VirtualPath::root())?;
        Ok(self
            .0
            .store
            .partial_uploads()
            .discard(spaces.home.id(), upload))
    }

    pub(crate) fn uploader(
        &self,
        session: &Arc<str>,
        path: &VirtualPath,
    ) -> Result<Uploader, StorageError> {
        let (_, spaces) = self.0.access.spaces(path)?;
        Ok(Uploader {
            owner: spaces.home.id().clone(),
            session: Arc::clone(session),
            partial_uploads: Arc::clone(self.0.store.partial_uploads()),
        })
    }

    /// The usage and the limits of the home or folder of `path`.
    ///
    /// # Errors
    /// [`StorageError::Denied`] in a folder that the member may not list: the usage would show what
    /// others do there. Else the system's error.
    pub fn usage(&self, path: &VirtualPath) -> Result<SpaceUsage, StorageError> {
        let place = self.resolve(path)?;
        place.require(Right::List)?;
        place.space.usage(path)
    }

    /// The folders that are mounted into the directory `path`, by name.
    pub(crate) fn mounted_in(
        &self,
        path: &VirtualPath,
    ) -> Result<BTreeMap<String, ResolvedPath>, StorageError> {
        if path.name().is_some() {
            return Ok(BTreeMap::new());
        }
        let (_, spaces) = self.0.access.spaces(path)?;
        let mounts = spaces.mounts.keys().map(|name| {
            let mount = self.resolve(&path.join_name(name)?)?;
            Ok((name.clone(), mount))
        });
        mounts.collect()
    }

    pub(crate) fn resolve(&self, path: &VirtualPath) -> Result<ResolvedPath, StorageError> {
        let (epoch, spaces) = self.0.access.spaces(path)?;
        let mount = path.split_first().and_then(|(first, inner)| {
            let mount = spaces.mounts.get(first)?;
            Some((mount, inner))
        });
        let (space, inner, rights) = match mount {
            Some((mount, inner)) => (&mount.space, inner, mount.rights),
            None => (&spaces.home, path.clone(), Rights::ALL),
        };
        Ok(ResolvedPath {
            space: Arc::clone(space),
            inner,
            full: path.clone(),
            permission: Permission {
                access: Arc::clone(&self.0.access),
                epoch,
                rights,
            },
            author: Arc::clone(&spaces.home),
        })
    }
}
