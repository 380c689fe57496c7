//! Trees: walks and deletions through open handles, which no swapped link can lead astray.
//!
//! A tree may be of any depth. A walk keeps its descent in memory, holds a bounded number of
//! directories open, and goes back up by `..`, which it follows only to the directory that it came
//! from.

use std::ffi::{CStr, CString};
use std::io;

use rustix::fs::{Dir as Entries, DirEntry, FileType};
use rustix::io::Errno;

use crate::storage::local::fs::metadata::{EntryKind, Identity, Metadata};
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::space_count::SpaceCount;
use crate::storage::path::VirtualPath;

/// Directories of its descent that a walk keeps open; it opens the others again. With its other
/// handles a walk stays within the descriptors of a disk thread.
const MAX_OPEN_PARENTS: usize = 4;

/// The most times that a deletion reads a directory in which others make entries.
const MAX_PASSES: usize = 3;

/// The contribution of one entry to the count of its space.
pub(crate) fn count_of(meta: &Metadata) -> SpaceCount {
    match meta.kind {
        EntryKind::File => SpaceCount::file(meta.size),
        EntryKind::Dir | EntryKind::Link | EntryKind::Special => SpaceCount::entries(1),
    }
}

/// How far a tree reaches below its top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Reach {
    pub(crate) levels: usize,
    /// Of the longest path, with its leading slash.
    pub(crate) bytes: usize,
}

impl Reach {
    /// The reach of an entry of this name in the directory with this reach.
    pub(crate) fn join(self, name: &CStr) -> Self {
        Self {
            levels: self.levels + 1,
            bytes: self.bytes + 1 + name.count_bytes(),
        }
    }

    /// The reach of `path` below `top`.
    pub(crate) fn between(top: &VirtualPath, path: &VirtualPath) -> Self {
        let levels = |path: &VirtualPath| path.components().count();
        Self {
            levels: levels(path).saturating_sub(levels(top)),
            bytes: path.as_str().len().saturating_sub(top.as_str().len()),
        }
    }

    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            levels: self.levels.max(other.levels),
            bytes: self.bytes.max(other.bytes),
        }
    }
}

/// The directories from the top of a tree to the one that a walk is in.
#[derive(Debug)]
pub(crate) struct Descent {
    dir: OpenDir,
    parents: Vec<DescentParent>,
}

/// A directory above the current one.
#[derive(Debug)]
enum DescentParent {
    Open(OpenDir),
    /// Its handle is closed, to be opened again.
    Closed(Identity),
}

impl Descent {
    pub(crate) fn new(top: &OpenDir) -> io::Result<Self> {
        Ok(Self {
            dir: top.open_dir(c".")?,
            parents: Vec::new(),
        })
    }

    /// The directory that the walk is in.
    pub(crate) fn dir(&self) -> &OpenDir {
        &self.dir
    }

    /// Goes down to `name`; `false` if it is not a directory.
    pub(crate) fn enter(&mut self, name: &CStr) -> io::Result<bool> {
        let Some(child) = open_child(&self.dir, name)? else {
            return Ok(false);
        };
        let parent = std::mem::replace(&mut self.dir, child);
        self.parents.push(DescentParent::Open(parent));
        if let Some(far) = self.parents.len().checked_sub(MAX_OPEN_PARENTS + 1)
            && let DescentParent::Open(dir) = &self.parents[far]
        {
            self.parents[far] = DescentParent::Closed(dir.own_meta()?.identity);
        }
        Ok(true)
    }

    /// Goes back up; `false` at the top.
    ///
    /// # Errors
    /// `STALE` if the directory was moved meanwhile.
    pub(crate) fn leave(&mut self) -> io::Result<bool> {
        self.dir = match self.parents.pop() {
            None => return Ok(false),
            Some(DescentParent::Open(dir)) => dir,
            Some(DescentParent::Closed(identity)) => {
                let dir = self.dir.open_dir(c"..")?;
                if dir.own_meta()?.identity != identity {
                    return Err(Errno::STALE.into());
                }
                dir
            }
        };
        Ok(true)
    }
}

/// Receives what a walk finds.
pub(crate) trait TreeVisitor {
    /// A directory begins at `depth` below the top. Returns whether to read it.
    fn begin_dir(&mut self, dir: &OpenDir, depth: Reach) -> io::Result<bool>;

    /// An entry of the directory that was begun last.
    fn visit_entry(&mut self, name: &CStr, meta: &Metadata, depth: Reach);

    /// The directory that was begun last has been read.
    fn end_dir(&mut self);
}

/// A walk over a tree that can pause after any entry.
pub(crate) struct TreeWalk {
    descent: Descent,
    /// The depth below the top.
    at: Reach,
    reading: Option<Entries>,
    /// For each directory of the descent its depth, and the directories in it that are not walked
    /// yet.
    pending: Vec<(Reach, Vec<CString>)>,
    is_begun: bool,
}

impl TreeWalk {
    /// Begins a walk of the tree below `top`, whose depth is `at`.
    pub(crate) fn new(top: &OpenDir, at: Reach) -> io::Result<Self> {
        Ok(Self {
            descent: Descent::new(top)?,
            at,
            reading: None,
            pending: Vec::new(),
            is_begun: false,
        })
    }

    /// Walks at most `budget` entries and subtracts them from it; `true` once the whole tree is
    /// walked.
    pub(crate) fn advance(
        &mut self,
        visitor: &mut impl TreeVisitor,
        budget: &mut u64,
    ) -> io::Result<bool> {
        if !self.is_begun {
            self.is_begun = true;
            self.begin(visitor)?;
        }
        while *budget > 0 {
            *budget -= 1;
            if let Some(entries) = &mut self.reading {
                if let Some(entry) = entries.read() {
                    self.entry(&entry?, visitor)?;
                } else {
                    self.reading = None;
                    visitor.end_dir();
                }
                continue;
            }
            let next = self.pending.last_mut().and_then(|(_, names)| names.pop());
            if let Some(name) = next {
                if self.descent.enter(&name)? {
                    self.at = self.at.join(&name);
                    self.begin(visitor)?;
                }
                continue;
            }
            self.pending.pop();
            if !self.descent.leave()? {
                return Ok(true);
            }
            if let Some((at, _)) = self.pending.last() {
                self.at = *at;
            }
        }
        Ok(false)
    }

    fn begin(&mut self, visitor: &mut impl TreeVisitor) -> io::Result<()> {
        self.pending.push((self.at, Vec::new()));
        if visitor.begin_dir(&self.descent.dir, self.at)? {
            self.reading = Some(self.descent.dir.entries()?);
        }
        Ok(())
    }

    fn entry(&mut self, entry: &DirEntry, visitor: &mut impl TreeVisitor) -> io::Result<()> {
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            return Ok(());
        }
        let Some(meta) = self.descent.dir.meta(name)? else {
            return Ok(());
        };
        visitor.visit_entry(name, &meta, self.at);
        if meta.kind == EntryKind::Dir
            && let Some((_, names)) = self.pending.last_mut()
        {
            names.push(name.to_owned());
        }
        Ok(())
    }
}

/// Sums up a tree that nobody changes.
#[derive(Debug, Default)]
struct TreeTotal(SpaceCount);

impl TreeVisitor for TreeTotal {
    fn begin_dir(&mut self, _: &OpenDir, _: Reach) -> io::Result<bool> {
        Ok(true)
    }

    fn visit_entry(&mut self, _: &CStr, meta: &Metadata, _: Reach) {
        self.0 += count_of(meta);
    }

    fn end_dir(&mut self) {}
}

/// What `name` and all below it take up, while nobody changes it; zero if it does not exist.
///
/// # Errors
/// The system's error.
pub(crate) fn count(dir: &OpenDir, name: &CStr) -> io::Result<SpaceCount> {
    let Some(meta) = dir.meta(name)? else {
        return Ok(SpaceCount::default());
    };
    let mut total = TreeTotal(count_of(&meta));
    if meta.kind == EntryKind::Dir {
        let mut walk = TreeWalk::new(&dir.open_dir(name)?, Reach::default())?;
        while !walk.advance(&mut total, &mut u64::MAX.clone())? {}
    }
    Ok(total.0)
}

/// The result of a deletion.
#[derive(Debug, Default)]
pub(crate) struct Deletion {
    /// Entries that were deleted.
    pub(crate) entries: u64,
    /// Their size.
    pub(crate) freed: SpaceCount,
    /// Entries that could not be deleted, with the directories that hold them.
    pub(crate) left: u64,
    /// The first error. The deletion continued after it.
    pub(crate) failed: Option<io::Error>,
    /// Whether the budget was used up.
    pub(crate) is_cut_short: bool,
}

impl Deletion {
    fn gone(&mut self, meta: &Metadata) {
        self.entries += 1;
        self.freed += count_of(meta);
    }

    fn failed(&mut self, error: io::Error) {
        self.left += 1;
        self.failed.get_or_insert(error);
    }
}

/// Deletes the file or the whole tree `name`. Links are deleted, never followed. An entry that cannot
/// be deleted is tried once.
pub(crate) fn delete(dir: &OpenDir, name: &CStr) -> Deletion {
    delete_within(dir, name, &mut u64::MAX.clone())
}

/// As [`delete`], but tries at most `budget` entries and subtracts them from it.
pub(crate) fn delete_within(dir: &OpenDir, name: &CStr, budget: &mut u64) -> Deletion {
    let mut deleted = Deletion::default();
    if let Err(error) = delete_entry(dir, name, budget, &mut deleted) {
        deleted.failed(error);
    }
    deleted
}

fn delete_entry(
    dir: &OpenDir,
    name: &CStr,
    budget: &mut u64,
    deleted: &mut Deletion,
) -> io::Result<()> {
    let Some(meta) = dir.meta(name)? else {
        return Ok(());
    };
    if meta.kind == EntryKind::Dir {
        return delete_tree(dir, name, budget, deleted);
    }
    dir.remove_file(name)?;
    deleted.gone(&meta);
    Ok(())
}

/// A directory that is being deleted.
#[derive(Debug)]
struct DirDeletion {
    name: CString,
    /// The directories in it that are still to be deleted.
    pending: Vec<CString>,
    /// Something in it could not be deleted, so neither can it.
    is_stuck: bool,
    passes: usize,
}

impl DirDeletion {
    fn new(name: CString, passes: usize) -> Self {
        Self {
            name,
            pending: Vec::new(),
            is_stuck: false,
            passes,
        }
    }
}

/// Deletes from the bottom up. A directory whose entries cannot be deleted is tried once. A directory
/// in which others make entries is read again, at most [`MAX_PASSES`] times.
fn delete_tree(
    dir: &OpenDir,
    name: &CStr,
    budget: &mut u64,
    deleted: &mut Deletion,
) -> io::Result<()> {
    let mut descent = Descent::new(dir)?;
    let mut parents: Vec<DirDeletion> = Vec::new();
    let mut next = Some(DirDeletion::new(name.to_owned(), 1));
    loop {
        if let Some(mut current) = next.take() {
            match descent.enter(&current.name) {
                Ok(true) => {
                    delete_files(&descent.dir, &mut current, budget, deleted);
                    parents.push(current);
                }
                Ok(false) => {}
                Err(error) => {
                    deleted.failed(error);
                    set_stuck(&mut parents);
                }
            }
        }
        if *budget == 0 {
            deleted.is_cut_short = true;
            return Ok(());
        }
        let Some(current) = parents.last_mut() else {
            return Ok(());
        };
        if let Some(name) = current.pending.pop() {
            next = Some(DirDeletion::new(name, 1));
            continue;
        }
        let Some(current) = parents.pop() else {
            return Ok(());
        };
        let meta = descent.dir.own_meta();
        descent.leave()?;
        *budget -= 1;
        match descent.dir.remove_dir(&*current.name) {
            Ok(()) => deleted.gone(&meta?),
            Err(error)
                if is_not_empty(&error) && !current.is_stuck && current.passes < MAX_PASSES =>
            {
                next = Some(DirDeletion::new(current.name, current.passes + 1));
            }
            Err(error) => {
                deleted.failed(error);
                set_stuck(&mut parents);
            }
        }
    }
}

/// Deletes the entries of a directory, except for directories, which become pending.
fn delete_files(
    dir: &OpenDir,
    current: &mut DirDeletion,
    budget: &mut u64,
    deleted: &mut Deletion,
) {
    let deletion = for_each(dir, |entry| {
        if *budget == 0 {
            return Err(Errno::CANCELED.into());
        }
        *budget -= 1;
        let name = entry.file_name();
        if is_dir(dir, entry)? {
            current.pending.push(name.to_owned());
        } else if let Err(error) = delete_file(dir, name, deleted) {
            deleted.failed(error);
            current.is_stuck = true;
        }
        Ok(())
    });
    match deletion {
        Err(error) if *budget > 0 => {
            deleted.failed(error);
            current.is_stuck = true;
        }
        _ => {}
    }
}

fn delete_file(dir: &OpenDir, name: &CStr, deleted: &mut Deletion) -> io::Result<()> {
    if let Some(meta) = dir.meta(name)? {
        dir.remove_file(name)?;
        deleted.gone(&meta);
    }
    Ok(())
}

fn set_stuck(parents: &mut [DirDeletion]) {
    if let Some(above) = parents.last_mut() {
        above.is_stuck = true;
    }
}

/// Calls `visit` with each entry of `dir` but `.` and `..`.
pub(crate) fn for_each(
    dir: &OpenDir,
    mut visit: impl FnMut(&DirEntry) -> io::Result<()>,
) -> io::Result<()> {
    let mut entries = dir.entries()?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            visit(&entry)?;
        }
    }
    Ok(())
}

fn is_dir(dir: &OpenDir, entry: &DirEntry) -> io::Result<bool> {
    match entry.file_type() {
        FileType::Directory => Ok(true),
        FileType::Unknown => {
            let meta = dir.meta(entry.file_name())?;
            Ok(meta.is_some_and(|meta| meta.kind == EntryKind::Dir))
        }
        _ => Ok(false),
    }
}

/// Opens a directory, unless it was removed or replaced by another kind of entry meanwhile.
pub(crate) fn open_child(dir: &OpenDir, name: &CStr) -> io::Result<Option<OpenDir>> {
    match dir.open_dir(name) {
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            _ => Err(error),
        },
        child => child.map(Some),
    }
}

/// Whether a directory is empty.
pub(crate) fn is_empty(dir: &OpenDir) -> io::Result<bool> {
    for entry in dir.entries()? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_not_empty(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::NOTEMPTY)
}
