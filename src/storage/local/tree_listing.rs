//! Recursive listings: a tree in a fixed order, without state between requests.
//!
//! A directory comes right before its content, and the entries of a directory are sorted by the bytes
//! of their names. The path of an entry therefore says where a listing continues, whatever was made or
//! removed meanwhile.
//!
//! A [`TreeListing`] reads one directory at a time and holds a bounded number of bytes of names. It
//! reads a directory again if that has more names than fit, and if its names had to give way to those
//! of a directory below. It holds no handle between two calls of [`TreeListing::advance`].

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::os::fd::OwnedFd;

use crate::protocol::Entry;
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::fs::attributes::Attributes;
use crate::storage::local::fs::metadata::EntryKind;
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::listed_entry::{ListedEntry, find_entry, find_root, is_opened_first};
use crate::storage::local::view::View;
use crate::storage::path::{VirtualPath, is_valid_name};
use crate::storage::rights::Right;

/// Bytes of names that a listing holds for one directory, and for the directories above it together.
const MAX_NAME_BYTES: usize = 1024 * 1024;

/// Bytes that a name takes up besides its text.
const NAME_OVERHEAD_BYTES: usize = 48;

/// Entries that are read between two checks of whether to stop.
const STOP_INTERVAL: usize = 1024;

/// A listing of a tree that is under way. Its calls block on the disk.
#[derive(Debug)]
pub struct TreeListing {
    /// The directories from the top to the one that is read; none at the end.
    levels: Vec<TreeLevel>,
    /// The handle of the last one, while entries are read.
    dir: Option<OpenDir>,
    /// Spaces that are mounted into the top, by name.
    mounts: BTreeMap<String, ResolvedPath>,
    /// Show versions and digests, which are kept in a further attribute of each file.
    with_digests: bool,
}

/// A directory of which a listing has shown the entries up to one of them.
#[derive(Debug)]
struct TreeLevel {
    place: ResolvedPath,
    /// Its path relative to the top, with a slash behind it; empty for the top.
    prefix: String,
    /// The last name that was shown, or skipped.
    after: String,
    /// The next names, the first of them last.
    names: Vec<TreeName>,
    name_bytes: usize,
    /// Whether `names` has all that come after `after`.
    is_complete: bool,
}

/// A name in a directory.
#[derive(Debug, PartialEq, Eq)]
struct TreeName {
    text: Box<str>,
    is_opened_first: bool,
}

impl TreeName {
    fn bytes(&self) -> usize {
        self.text.len() + NAME_OVERHEAD_BYTES
    }
}

impl Ord for TreeName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl PartialOrd for TreeName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl View {
    /// A listing of the tree of the directory `path`, with all folders that are mounted into it. With
    /// `after` it begins behind the entry of that path relative to `path`, whether that exists or not.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub fn list_tree(
        &self,
        path: &VirtualPath,
        after: Option<&str>,
        with_digests: bool,
    ) -> Result<TreeListing, StorageError> {
        let place = self.resolve(path)?;
        place.require(Right::List)?;
        let mounts = self.mounted_in(path)?;
        TreeListing::begin(place, mounts, after, with_digests)
    }
}

impl TreeListing {
    /// Begins a listing of the tree at `place`, into which `mounts` are mounted, behind the entry whose
    /// path relative to it is `after`.
    pub(crate) fn begin(
        place: ResolvedPath,
        mounts: BTreeMap<String, ResolvedPath>,
        after: Option<&str>,
        with_digests: bool,
    ) -> Result<Self, StorageError> {
        let path = place.full.clone();
        let mut listing = Self {
            levels: vec![TreeLevel::new(place, String::new())],
            dir: None,
            mounts,
            with_digests,
        };
        listing.dir = listing.open_last()?;
        if let Some(after) = after {
            if !after.split('/').all(is_valid_name) {
                return Err(StorageError::BadCursor { path });
            }
            listing.descend_to(after)?;
        }
        listing.dir = None;
        Ok(listing)
    }

    /// Goes down to the entry at a relative path as far as its directories exist.
    fn descend_to(&mut self, after: &str) -> Result<(), StorageError> {
        for name in after.split('/') {
            let (Some(level), Some(dir)) = (self.levels.last_mut(), &self.dir) else {
                return Ok(());
            };
            name.clone_into(&mut level.after);
            if let Some(place) = mount_at(&self.mounts, level, name) {
                let place = place.clone();
                if !self.enter_mount(place, name)? {
                    return Ok(());
                }
                continue;
            }
            let (Ok(place), Ok(child)) = (level.place.child(name), dir.open_dir(name)) else {
                return Ok(());
            };
            let prefix = level.prefix_of(name);
            self.levels.push(TreeLevel::new(place, prefix));
            self.dir = Some(child);
        }
        Ok(())
    }

    /// Passes the next entries to `show`, with paths relative to the top, until it returns `false`;
    /// `false` at the end of the tree. Versions are those of files; digests come if they are wanted,
    /// kept, and of content that the member may read.
    ///
    /// A link is shown as its target. A directory behind a link is shown without its content, and so
    /// is a folder that the member may not list.
    ///
    /// # Errors
    /// [`StorageError::Denied`] and [`StorageError::Suspended`] if the member may no longer list what
    /// is being read, [`StorageError::NotFound`] if the top is gone, [`StorageError::Cancelled`] if
    /// `stop` says so, else the system's error.
    pub fn advance(
        &mut self,
        stop: &dyn Fn() -> bool,
        show: &mut dyn FnMut(Entry) -> bool,
    ) -> Result<bool, StorageError> {
        let advanced = self.show_entries(stop, show);
        // A client may take its time before the next call.
        self.dir = None;
        advanced
    }

    fn show_entries(
        &mut self,
        stop: &dyn Fn() -> bool,
        show: &mut dyn FnMut(Entry) -> bool,
    ) -> Result<bool, StorageError> {
        for level in &self.levels {
            level.place.require(Right::List)?;
        }
        while let Some(level) = self.levels.last_mut() {
            if stop() {
                let path = level.place.full.clone();
                return Err(StorageError::Cancelled { path });
            }
            if self.dir.is_none() {
                self.dir = self.open_last()?;
            }
            match self.next_name(stop)? {
                None => {
                    self.levels.pop();
                    self.dir = None;
                }
                Some(name) => {
                    if let Some(entry) = self.visit(&name)?
                        && !show(entry)
                    {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// Opens the last directory; `None` if it is gone and is not the top.
    fn open_last(&self) -> Result<Option<OpenDir>, StorageError> {
        let Some(level) = self.levels.last() else {
            return Ok(None);
        };
        let place = &level.place;
        let opened = place.space.sandbox.open_dir(&place.inner);
        match opened.context("open", &place.full) {
            Ok(dir) => Ok(Some(dir)),
            Err(StorageError::NotFound { .. } | StorageError::NotADirectory { .. })
                if self.levels.len() > 1 =>
            {
                Ok(None)
            }
            Err(error) => Err(error.looking_for("directory")),
        }
    }

    /// The next name of the last directory; `None` at its end.
    fn next_name(&mut self, stop: &dyn Fn() -> bool) -> Result<Option<TreeName>, StorageError> {
        let (Some(level), Some(dir)) = (self.levels.last_mut(), &self.dir) else {
            return Ok(None);
        };
        if level.names.is_empty() && !level.is_complete {
            let no_mounts = BTreeMap::new();
            let mounts = if level.prefix.is_empty() {
                &self.mounts
            } else {
                &no_mounts
            };
            level.read_names(dir, mounts, stop)?;
            self.forget_names_above();
        }
        let level = self.levels.last_mut();
        let next = level.and_then(|level| level.names.pop().map(|name| (level, name)));
        Ok(next.map(|(level, name)| {
            level.name_bytes -= name.bytes();
            name.text.as_ref().clone_into(&mut level.after);
            name
        }))
    }

    /// Forgets names of the directories above the last one, the uppermost first, while they take up too
    /// much together.
    fn forget_names_above(&mut self) {
        let Some((_, above)) = self.levels.split_last_mut() else {
            return;
        };
        let mut held: usize = above.iter().map(|level| level.name_bytes).sum();
        for level in above {
            if held <= MAX_NAME_BYTES {
                break;
            }
            held -= level.name_bytes;
            level.forget_names();
        }
    }

    /// The entry `name` of the last directory. If it is a directory, it is the last one from now on.
    fn visit(&mut self, name: &TreeName) -> Result<Option<Entry>, StorageError> {
        let (Some(level), Some(dir)) = (self.levels.last(), &self.dir) else {
            return Ok(None);
        };
        let text = &*name.text;
        if let Some(place) = mount_at(&self.mounts, level, text) {
            let place = place.clone();
            let found = find_root(&place.space.sandbox).context("look at", &place.full)?;
            let is_listed = self.enter_mount(place, text)?;
            let entry = found.to_entry(text);
            return Ok(entry.map(|entry| Entry {
                unlisted: !is_listed,
                shared: true,
                ..entry
            }));
        }
        // An entry that is deeper than a path can be has no name here.
        let Ok(place) = level.place.child(text) else {
            return Ok(None);
        };
        let sandbox = &place.space.sandbox;
        let found = find_entry(sandbox, dir, text, &place.inner, name.is_opened_first);
        let Some(found) = found.context("look at", &place.full)? else {
            return Ok(None);
        };
        let path = level.path_of(text);
        let mut entry = self.describe(&found, &place, path)?;
        if found.meta.kind == EntryKind::Dir
            && found.is_link
            && let Some(entry) = &mut entry
        {
            entry.unlisted = true;
        }
        if found.meta.kind == EntryKind::Dir && !found.is_link {
            let dir = match found.file {
                Some(file) => OpenDir::from(OwnedFd::from(file)),
                // The system's error says why the server cannot read it.
                None => dir.open_dir(text).context("open", &place.full)?,
            };
            let prefix = level.prefix_of(text);
            self.levels.push(TreeLevel::new(place, prefix));
            self.dir = Some(dir);
        }
        Ok(entry)
    }

    fn describe(
        &self,
        found: &ListedEntry,
        place: &ResolvedPath,
        path: String,
    ) -> Result<Option<Entry>, StorageError> {
        let Some(mut entry) = found.to_entry(path) else {
            return Ok(None);
        };
        if self.with_digests && found.meta.kind == EntryKind::File {
            let attributes = found.file.as_ref();
            let attributes = attributes.map(|file| Attributes::of(file, &found.meta));
            if place.rights()?.read {
                entry.digest = attributes.as_ref().and_then(Attributes::any_digest);
            }
            let version = attributes.map(Attributes::into_version);
            entry.version = Some(version.unwrap_or_else(|| found.meta.derived_version()));
        }
        Ok(Some(entry))
    }

    /// Makes the root of a mounted folder the last directory, if the member may list it.
    fn enter_mount(&mut self, place: ResolvedPath, name: &str) -> Result<bool, StorageError> {
        if !place.rights()?.list {
            return Ok(false);
        }
        let opened = place.space.sandbox.open_dir(&place.inner);
        self.dir = Some(opened.context("open", &place.full)?);
        self.levels.push(TreeLevel::new(place, format!("{name}/")));
        Ok(true)
    }
}

/// The space that is mounted as `name`, if `level` is the top.
fn mount_at<'a>(
    mounts: &'a BTreeMap<String, ResolvedPath>,
    level: &TreeLevel,
    name: &str,
) -> Option<&'a ResolvedPath> {
    mounts.get(name).filter(|_| level.prefix.is_empty())
}

impl TreeLevel {
    fn new(place: ResolvedPath, prefix: String) -> Self {
        Self {
            place,
            prefix,
            after: String::new(),
            names: Vec::new(),
            name_bytes: 0,
            is_complete: false,
        }
    }

    fn path_of(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn prefix_of(&self, name: &str) -> String {
        format!("{}{name}/", self.prefix)
    }

    fn forget_names(&mut self) {
        if self.name_bytes > 0 {
            self.names = Vec::new();
            self.name_bytes = 0;
            self.is_complete = false;
        }
    }

    /// Reads the first names after `after`, as many as a listing may hold.
    fn read_names(
        &mut self,
        dir: &OpenDir,
        mounts: &BTreeMap<String, ResolvedPath>,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), StorageError> {
        let path = &self.place.full;
        let mut first = FirstNames::default();
        for name in mounts.keys().filter(|name| **name > self.after) {
            first.push(name, true);
        }
        let mut entries = dir.entries().context("list", path)?;
        let mut count = 0;
        while let Some(entry) = entries.read() {
            let entry = entry.context("list", path)?;
            count += 1;
            if count % STOP_INTERVAL == 0 && stop() {
                return Err(StorageError::Cancelled { path: path.clone() });
            }
            let name = entry.file_name().to_str().ok();
            let is_next = |name: &str| name > &*self.after && !mounts.contains_key(name);
            if let Some(name) = name.filter(|name| is_next(name) && is_valid_name(name)) {
                first.push(name, is_opened_first(entry.file_type()));
            }
        }
        self.is_complete = first.is_complete();
        self.name_bytes = first.bytes;
        self.names = first.names.into_sorted_vec();
        self.names.reverse();
        Ok(())
    }
}

/// The first of the names that are pushed, as many as fit.
#[derive(Debug, Default)]
struct FirstNames {
    names: BinaryHeap<TreeName>,
    bytes: usize,
    has_dropped: bool,
}

impl FirstNames {
    fn push(&mut self, name: &str, is_opened_first: bool) {
        if self.has_dropped && self.names.peek().is_some_and(|last| *last.text < *name) {
            return;
        }
        let name = TreeName {
            text: name.into(),
            is_opened_first,
        };
        self.bytes += name.bytes();
        self.names.push(name);
        while self.bytes > MAX_NAME_BYTES
            && let Some(last) = self.names.pop()
        {
            self.bytes -= last.bytes();
            self.has_dropped = true;
        }
    }

    fn is_complete(&self) -> bool {
        !self.has_dropped
    }
}
