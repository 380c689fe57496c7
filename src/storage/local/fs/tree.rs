//! Whole trees: counted, measured and deleted by handles that no swapped link can lead astray.
//!
//! No walk here depends on how deep a tree is. A walk keeps its way down in memory, holds a bounded
//! number of directories open, and goes back up by `..`, which it follows only to the very
//! directory that it came from.

use std::ffi::{CStr, CString};
use std::io;

use rustix::fs::{Dir as Entries, DirEntry, FileType};
use rustix::io::Errno;

use crate::storage::local::fs::metadata::{EntryKind, Identity, Metadata};
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::quota::SpaceCount;
use crate::storage::path::VirtualPath;

/// How many of the directories on its way down a walk keeps open. It opens the others again. With
/// those that it is in, a walk stays within the descriptors that a disk thread has.
const MAX_HANDLES: usize = 4;

/// How often a deletion reads one directory that others may be filling.
const MAX_PASSES: usize = 3;

/// What one entry adds to the count of its space: each counts, and bytes are those in files.
pub(crate) fn count_of(meta: &Metadata) -> SpaceCount {
    match meta.what {
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
    /// Of an entry of this name in the directory that is so far below the top.
    pub(crate) fn join(self, name: &CStr) -> Self {
        Self {
            levels: self.levels + 1,
            bytes: self.bytes + 1 + name.count_bytes(),
        }
    }

    /// Of `path`, below `top`.
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

/// A way down a tree, to the directory that a walk is in.
#[derive(Debug)]
pub(crate) struct Descent {
    dir: OpenDir,
    above: Vec<Above>,
}

/// A directory on the way.
#[derive(Debug)]
enum Above {
    Open(OpenDir),
    /// Its handle was given up for those further down.
    Closed(Identity),
}

impl Descent {
    pub(crate) fn new(top: &OpenDir) -> io::Result<Self> {
        Ok(Self {
            dir: top.open_dir(c".")?,
            above: Vec::new(),
        })
    }

    /// The directory that the walk is in.
    pub(crate) fn dir(&self) -> &OpenDir {
        &self.dir
    }

    /// Goes down to `name`; `false` if it is no directory, or not any more.
    pub(crate) fn enter(&mut self, name: &CStr) -> io::Result<bool> {
        let Some(child) = open_child(&self.dir, name)? else {
            return Ok(false);
        };
        let parent = std::mem::replace(&mut self.dir, child);
        self.above.push(Above::Open(parent));
        if let Some(far) = self.above.len().checked_sub(MAX_HANDLES + 1)
            && let Above::Open(dir) = &self.above[far]
        {
            self.above[far] = Above::Closed(dir.own_meta()?.identity);
        }
        Ok(true)
    }

    /// Goes back up; `false` at the top.
    ///
    /// # Errors
    /// `STALE` if the directory has been moved away from the one above it.
    pub(crate) fn leave(&mut self) -> io::Result<bool> {
        self.dir = match self.above.pop() {
            None => return Ok(false),
            Some(Above::Open(dir)) => dir,
            Some(Above::Closed(identity)) => {
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

/// What a walk tells of what it comes to.
pub(crate) trait Visitor {
    /// A directory, so far below the top; whether to read it.
    fn begin(&mut self, dir: &OpenDir, at: Reach) -> io::Result<bool>;

    /// An entry of the directory that was begun last.
    fn entry(&mut self, name: &CStr, meta: &Metadata, at: Reach);

    /// The directory that was begun last has been read.
    fn end(&mut self);
}

/// A walk over a tree, which can stop anywhere and go on later.
pub(crate) struct Walk {
    descent: Descent,
    /// How far below the top it is.
    at: Reach,
    reading: Option<Entries>,
    /// For each directory on the way those in it that are still to be walked, and how far below
    /// the top it is.
    pending: Vec<(Reach, Vec<CString>)>,
    is_begun: bool,
}

impl Walk {
    /// Begins a walk of the tree below `top`, which is so far below the top of all that is walked.
    pub(crate) fn new(top: &OpenDir, at: Reach) -> io::Result<Self> {
        Ok(Self {
            descent: Descent::new(top)?,
            at,
            reading: None,
            pending: Vec::new(),
            is_begun: false,
        })
    }

    /// Goes on for at most so many entries and takes them off the `budget`; `true` once all of the
    /// tree has been walked.
    pub(crate) fn go_on(
        &mut self,
        visitor: &mut impl Visitor,
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
                    visitor.end();
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

    fn begin(&mut self, visitor: &mut impl Visitor) -> io::Result<()> {
        self.pending.push((self.at, Vec::new()));
        if visitor.begin(&self.descent.dir, self.at)? {
            self.reading = Some(self.descent.dir.entries()?);
        }
        Ok(())
    }

    fn entry(&mut self, entry: &DirEntry, visitor: &mut impl Visitor) -> io::Result<()> {
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            return Ok(());
        }
        let Some(meta) = self.descent.dir.meta(name)? else {
            return Ok(());
        };
        visitor.entry(name, &meta, self.at);
        if meta.what == EntryKind::Dir
            && let Some((_, names)) = self.pending.last_mut()
        {
            names.push(name.to_owned());
        }
        Ok(())
    }
}

/// What a tree that nobody changes takes up.
#[derive(Debug, Default)]
struct Total(SpaceCount);

impl Visitor for Total {
    fn begin(&mut self, _: &OpenDir, _: Reach) -> io::Result<bool> {
        Ok(true)
    }

    fn entry(&mut self, _: &CStr, meta: &Metadata, _: Reach) {
        self.0 += count_of(meta);
    }

    fn end(&mut self) {}
}

/// What `name` and all below it take up, while nobody changes it; nothing if it is not there.
///
/// # Errors
/// What the system says.
pub(crate) fn count(dir: &OpenDir, name: &CStr) -> io::Result<SpaceCount> {
    let Some(meta) = dir.meta(name)? else {
        return Ok(SpaceCount::default());
    };
    let mut total = Total(count_of(&meta));
    if meta.what == EntryKind::Dir {
        let mut walk = Walk::new(&dir.open_dir(name)?, Reach::default())?;
        while !walk.go_on(&mut total, &mut u64::MAX.clone())? {}
    }
    Ok(total.0)
}

/// How a deletion went.
#[derive(Debug, Default)]
pub(crate) struct Deleted {
    /// Files, directories and all else that is gone.
    pub(crate) entries: u64,
    /// What they took up.
    pub(crate) freed: SpaceCount,
    /// Entries that could not be deleted, with the directories that hold them.
    pub(crate) left: u64,
    /// The first thing that went wrong. The rest was deleted all the same.
    pub(crate) failed: Option<io::Error>,
    /// It ran out of its budget.
    pub(crate) is_cut_short: bool,
}

impl Deleted {
    fn gone(&mut self, meta: &Metadata) {
        self.entries += 1;
        self.freed += count_of(meta);
    }

    fn failed(&mut self, error: io::Error) {
        self.left += 1;
        self.failed.get_or_insert(error);
    }
}

/// Deletes the file or the whole tree `name`. Links are deleted, never followed. An entry that can
/// not be deleted costs one try.
pub(crate) fn delete(dir: &OpenDir, name: &CStr) -> Deleted {
    delete_within(dir, name, &mut u64::MAX.clone())
}

/// As [`delete`], but tries at most so many entries and takes them off the `budget`.
pub(crate) fn delete_within(dir: &OpenDir, name: &CStr, budget: &mut u64) -> Deleted {
    let mut deleted = Deleted::default();
    if let Err(error) = delete_entry(dir, name, budget, &mut deleted) {
        deleted.failed(error);
    }
    deleted
}

fn delete_entry(
    dir: &OpenDir,
    name: &CStr,
    budget: &mut u64,
    deleted: &mut Deleted,
) -> io::Result<()> {
    let Some(meta) = dir.meta(name)? else {
        return Ok(());
    };
    if meta.what == EntryKind::Dir {
        return delete_tree(dir, name, budget, deleted);
    }
    dir.remove_file(name)?;
    deleted.gone(&meta);
    Ok(())
}

/// A directory that is being deleted.
#[derive(Debug)]
struct Doomed {
    name: CString,
    /// The directories in it that are still to be deleted.
    pending: Vec<CString>,
    /// Something in it could not be deleted, so neither can it.
    is_stuck: bool,
    passes: usize,
}

impl Doomed {
    fn new(name: CString, passes: usize) -> Self {
        Self {
            name,
            pending: Vec::new(),
            is_stuck: false,
            passes,
        }
    }
}

/// Deletes from the bottom up. A directory that stays because of what is in it is passed over once;
/// another pass is made only for what has come into one that was emptied.
fn delete_tree(
    dir: &OpenDir,
    name: &CStr,
    budget: &mut u64,
    deleted: &mut Deleted,
) -> io::Result<()> {
    let mut descent = Descent::new(dir)?;
    let mut way: Vec<Doomed> = Vec::new();
    let mut next = Some(Doomed::new(name.to_owned(), 1));
    loop {
        if let Some(mut doomed) = next.take() {
            match descent.enter(&doomed.name) {
                Ok(true) => {
                    empty(&descent.dir, &mut doomed, budget, deleted);
                    way.push(doomed);
                }
                Ok(false) => {}
                Err(error) => {
                    deleted.failed(error);
                    set_stuck(&mut way);
                }
            }
        }
        if *budget == 0 {
            deleted.is_cut_short = true;
            return Ok(());
        }
        let Some(doomed) = way.last_mut() else {
            return Ok(());
        };
        if let Some(name) = doomed.pending.pop() {
            next = Some(Doomed::new(name, 1));
            continue;
        }
        let Some(doomed) = way.pop() else {
            return Ok(());
        };
        let meta = descent.dir.own_meta();
        descent.leave()?;
        *budget -= 1;
        match descent.dir.remove_dir(&*doomed.name) {
            Ok(()) => deleted.gone(&meta?),
            Err(error)
                if is_not_empty(&error) && !doomed.is_stuck && doomed.passes < MAX_PASSES =>
            {
                next = Some(Doomed::new(doomed.name, doomed.passes + 1));
            }
            Err(error) => {
                deleted.failed(error);
                set_stuck(&mut way);
            }
        }
    }
}

/// Deletes what is in a directory, but for the directories, which it notes.
fn empty(dir: &OpenDir, doomed: &mut Doomed, budget: &mut u64, deleted: &mut Deleted) {
    let emptied = for_each(dir, |entry| {
        if *budget == 0 {
            return Err(Errno::CANCELED.into());
        }
        *budget -= 1;
        let name = entry.file_name();
        if is_dir(dir, entry)? {
            doomed.pending.push(name.to_owned());
        } else if let Err(error) = delete_file(dir, name, deleted) {
            deleted.failed(error);
            doomed.is_stuck = true;
        }
        Ok(())
    });
    match emptied {
        Err(error) if *budget > 0 => {
            deleted.failed(error);
            doomed.is_stuck = true;
        }
        _ => {}
    }
}

fn delete_file(dir: &OpenDir, name: &CStr, deleted: &mut Deleted) -> io::Result<()> {
    if let Some(meta) = dir.meta(name)? {
        dir.remove_file(name)?;
        deleted.gone(&meta);
    }
    Ok(())
}

fn set_stuck(way: &mut [Doomed]) {
    if let Some(above) = way.last_mut() {
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
            Ok(meta.is_some_and(|meta| meta.what == EntryKind::Dir))
        }
        _ => Ok(false),
    }
}

/// Opens a directory that may have been removed, or swapped for something else, meanwhile.
pub(crate) fn open_child(dir: &OpenDir, name: &CStr) -> io::Result<Option<OpenDir>> {
    match dir.open_dir(name) {
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            _ => Err(error),
        },
        child => child.map(Some),
    }
}

/// Whether nothing is in a directory.
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
