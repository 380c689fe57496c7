//! Whole trees: counted, measured and deleted by handles that no swapped link can lead astray.

use std::ffi::CStr;
use std::io;

use rustix::fs::{DirEntry, FileType};
use rustix::io::Errno;

use super::jail::OpenDir;
use super::meta::What;
use super::quota::Count;

/// Deeper than any path, so that nothing within reach is refused; each level holds a handle.
const MAX_LEVELS: usize = 128;

/// Passes over a directory that others may be filling.
const MAX_PASSES: usize = 3;

/// What all entries below `dir` take up.
///
/// # Errors
/// What the system says, or that the tree is too deep.
pub(super) fn count(dir: &OpenDir) -> io::Result<Count> {
    let mut total = Count::default();
    count_below(dir, MAX_LEVELS, &mut total)?;
    Ok(total)
}

fn count_below(dir: &OpenDir, levels: usize, total: &mut Count) -> io::Result<()> {
    let levels = levels.checked_sub(1).ok_or_else(too_deep)?;
    for_each(dir, |entry| {
        if is_dir(dir, entry)? {
            return match open_child(dir, entry.file_name())? {
                Some(child) => {
                    *total += Count::entries(1);
                    count_below(&child, levels, total)
                }
                None => Ok(()),
            };
        }
        if let Some(meta) = dir.meta(entry.file_name())? {
            *total += Count::of(&meta);
        }
        Ok(())
    })
}

/// How far a tree reaches below its top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Reach {
    pub(super) levels: usize,
    /// Of the longest path, with its leading slash.
    pub(super) bytes: usize,
}

/// How far the tree below `dir` reaches.
///
/// # Errors
/// What the system says, or that the tree is too deep.
pub(super) fn reach(dir: &OpenDir) -> io::Result<Reach> {
    reach_below(dir, MAX_LEVELS)
}

fn reach_below(dir: &OpenDir, levels: usize) -> io::Result<Reach> {
    let levels = levels.checked_sub(1).ok_or_else(too_deep)?;
    let mut reach = Reach::default();
    for_each(dir, |entry| {
        let below = match is_dir(dir, entry)?.then(|| open_child(dir, entry.file_name())) {
            Some(child) => child?.map(|child| reach_below(&child, levels)),
            None => None,
        };
        let below = below.transpose()?.unwrap_or_default();
        reach.levels = reach.levels.max(below.levels + 1);
        let bytes = below.bytes + 1 + entry.file_name().count_bytes();
        reach.bytes = reach.bytes.max(bytes);
        Ok(())
    })?;
    Ok(reach)
}

/// How a deletion went.
#[derive(Debug, Default)]
pub(super) struct Deleted {
    /// Files, directories and all else that is gone.
    pub(super) entries: u64,
    /// What they took up.
    pub(super) freed: Count,
    /// The first thing that went wrong. The rest was deleted all the same.
    pub(super) failed: Option<io::Error>,
}

impl Deleted {
    fn note(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.failed.get_or_insert(error);
        }
    }
}

/// Deletes the file or the whole tree `name`. Links are deleted, never followed.
pub(super) fn delete(dir: &OpenDir, name: &CStr) -> Deleted {
    let mut deleted = Deleted::default();
    let result = delete_entry(dir, name, MAX_LEVELS, &mut deleted);
    deleted.note(result);
    deleted
}

fn delete_entry(
    dir: &OpenDir,
    name: &CStr,
    levels: usize,
    deleted: &mut Deleted,
) -> io::Result<()> {
    let Some(meta) = dir.meta(name)? else {
        return Ok(());
    };
    if meta.what == What::Dir {
        let levels = levels.checked_sub(1).ok_or_else(too_deep)?;
        let child = dir.open_dir(name)?;
        let mut passes = 1..=MAX_PASSES;
        while passes.next().is_some() {
            delete_below(&child, levels, deleted)?;
            match dir.remove_dir(name) {
                Err(error) if is_not_empty(&error) && !passes.is_empty() => {}
                removed => {
                    removed?;
                    break;
                }
            }
        }
    } else {
        dir.remove_file(name)?;
    }
    deleted.freed += Count::of(&meta);
    deleted.entries += 1;
    Ok(())
}

fn delete_below(dir: &OpenDir, levels: usize, deleted: &mut Deleted) -> io::Result<()> {
    for_each(dir, |entry| {
        let result = delete_entry(dir, entry.file_name(), levels, deleted);
        deleted.note(result);
        Ok(())
    })
}

/// Calls `visit` with each entry of `dir` but `.` and `..`.
pub(super) fn for_each(
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
            Ok(meta.is_some_and(|meta| meta.what == What::Dir))
        }
        _ => Ok(false),
    }
}

/// Opens a directory that may have been removed, or swapped for something else, meanwhile.
pub(super) fn open_child(dir: &OpenDir, name: &CStr) -> io::Result<Option<OpenDir>> {
    match dir.open_dir(name) {
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            _ => Err(error),
        },
        child => child.map(Some),
    }
}

fn is_not_empty(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::NOTEMPTY)
}

fn too_deep() -> io::Error {
    io::Error::other(format!("a directory is deeper than {MAX_LEVELS} levels"))
}
