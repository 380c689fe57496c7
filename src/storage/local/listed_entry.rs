//! An entry of a directory as a listing shows it.

use std::fs::File;
use std::io;

use rustix::fs::FileType;
use rustix::path::Arg;

use crate::protocol::{Entry, FileMode, Kind};
use crate::storage::local::fs::metadata::{EntryKind, Metadata};
use crate::storage::local::fs::mode::read_mode;
use crate::storage::local::fs::sandbox::{OpenDir, Sandbox};
use crate::storage::path::VirtualPath;

/// An entry that was found in a directory.
#[derive(Debug)]
pub(crate) struct ListedEntry {
    /// Of the entry, or of the target of a link.
    pub(crate) meta: Metadata,
    /// Its handle, if the server can read it.
    pub(crate) file: Option<File>,
    pub(crate) is_link: bool,
}

impl ListedEntry {
    /// The permission bits that are kept with it.
    pub(crate) fn mode(&self) -> Option<FileMode> {
        self.file.as_ref().and_then(read_mode)
    }

    /// The entry with this name; `None` if it is neither a file nor a directory.
    pub(crate) fn to_entry(&self, name: impl Into<String>) -> Option<Entry> {
        let (kind, size) = match self.meta.kind {
            EntryKind::File => (Kind::File, self.meta.size),
            EntryKind::Dir => (Kind::Dir, 0),
            EntryKind::Link | EntryKind::Special => return None,
        };
        Some(Entry {
            mode: self.mode(),
            ..Entry::new(name, kind, size, self.meta.timestamp())
        })
    }
}

/// Whether an entry of this type is opened before it is looked at. To open anything else may have
/// effects on a device.
pub(crate) fn is_opened_first(kind: FileType) -> bool {
    matches!(kind, FileType::RegularFile | FileType::Directory)
}

/// Finds the entry `name` of `dir`, whose path is `path`. A link is followed if it stays in the
/// `sandbox`. `None` if there is no such entry, or the link leads nowhere.
pub(crate) fn find_entry(
    sandbox: &Sandbox,
    dir: &OpenDir,
    name: impl Arg + Copy,
    path: &VirtualPath,
    is_opened_first: bool,
) -> io::Result<Option<ListedEntry>> {
    let open = || {
        let (file, meta) = dir.open_file(name)?;
        Ok(ListedEntry {
            meta,
            file: Some(file),
            is_link: false,
        })
    };
    if is_opened_first {
        match open() {
            Ok(found) => return Ok(Some(found)),
            Err(error) if is_absent(&error) => return Ok(None),
            // It is another entry by now, or the server may not read it.
            Err(_) => {}
        }
    }
    let Some(meta) = dir.meta(name)? else {
        return Ok(None);
    };
    let without_handle = |meta| ListedEntry {
        meta,
        file: None,
        is_link: false,
    };
    Ok(match meta.kind {
        EntryKind::Link => find_target(sandbox, path),
        EntryKind::File | EntryKind::Dir if !is_opened_first => {
            open().ok().or_else(|| Some(without_handle(meta)))
        }
        EntryKind::File | EntryKind::Dir | EntryKind::Special => Some(without_handle(meta)),
    })
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// The root of a space, as the entry that it is where the space is mounted.
pub(crate) fn find_root(sandbox: &Sandbox) -> io::Result<ListedEntry> {
    let (file, meta) = sandbox.open(&VirtualPath::root())?;
    Ok(ListedEntry {
        meta,
        file: Some(file),
        is_link: false,
    })
}

fn find_target(sandbox: &Sandbox, path: &VirtualPath) -> Option<ListedEntry> {
    let target = sandbox.look(path).ok()?;
    let opened = match target.kind {
        EntryKind::File | EntryKind::Dir => sandbox.open(path).ok(),
        EntryKind::Link | EntryKind::Special => None,
    };
    let (file, meta) = match opened {
        Some((file, meta)) => (Some(file), meta),
        None => (None, target),
    };
    Some(ListedEntry {
        meta,
        file,
        is_link: true,
    })
}
