//! Listings: a directory page by page, in constant memory and without state between pages.
//!
//! A cursor is an offset of the directory as the file system numbers it, so that entries that are
//! made or removed meanwhile neither repeat nor hide others. Mounts come first.

use rustix::fs::DirEntry;

use crate::protocol::Entry;
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::access::AccessMounts;
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::listed_entry::{find_entry, find_root, is_opened_first};
use crate::storage::path::{VirtualPath, is_valid_name};

/// The most bytes of JSON around the name of an entry.
const MAX_ENTRY_JSON_BYTES: usize = 128;

/// A part of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListingPage {
    /// Sorted by name, within the page.
    pub entries: Vec<Entry>,
    /// Where the next page begins; absent on the last.
    pub cursor: Option<String>,
}

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ListingCursor {
    /// With the mounts after this one.
    Mounts(String),
    /// At this offset of the directory.
    Entries(i64),
}

impl ListingCursor {
    fn parse(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("m", name) if is_valid_name(name) => Some(Self::Mounts(name.to_owned())),
            ("e", hex) if hex.len() <= 16 && !hex.starts_with('+') => {
                let offset = u64::from_str_radix(hex, 16).ok()?;
                Some(Self::Entries(offset.cast_signed()))
            }
            _ => None,
        }
    }

    fn to_text(&self) -> String {
        match self {
            Self::Mounts(name) => format!("m:{name}"),
            Self::Entries(offset) => format!("e:{offset:x}"),
        }
    }
}

/// A page that is being built. It takes at least one entry.
#[derive(Debug)]
struct ListingPageBuilder {
    entries: Vec<Entry>,
    limit: usize,
    budget: usize,
}

impl ListingPageBuilder {
    /// Adds the entry; `false` if the page is full.
    fn try_push(&mut self, entry: Entry) -> bool {
        let escapes = entry.name.matches(['"', '\\']).count();
        let cost = entry.name.len() + escapes + MAX_ENTRY_JSON_BYTES;
        let is_full = self.entries.len() >= self.limit || cost > self.budget;
        if is_full && !self.entries.is_empty() {
            return false;
        }
        self.budget = self.budget.saturating_sub(cost);
        self.entries.push(entry);
        true
    }

    fn build(mut self, next: Option<&ListingCursor>) -> ListingPage {
        self.entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        ListingPage {
            entries: self.entries,
            cursor: next.map(ListingCursor::to_text),
        }
    }
}

/// A page of the directory at `place`, into which `mounts` are mounted.
pub(crate) fn list(
    place: &ResolvedPath,
    mounts: &AccessMounts,
    cursor: Option<&str>,
    limit: usize,
    budget: usize,
) -> Result<ListingPage, StorageError> {
    let bad_cursor = || StorageError::BadCursor {
        path: place.full.clone(),
    };
    let cursor = cursor.map(|text| ListingCursor::parse(text).ok_or_else(bad_cursor));
    let cursor = cursor.transpose()?;
    let dir = place.space.sandbox.open_dir(&place.inner);
    let dir = dir.context("open", &place.full);
    let dir = dir.map_err(|error| place.locate_file(error).looking_for("directory"))?;
    let mut page = ListingPageBuilder {
        entries: Vec::new(),
        limit,
        budget,
    };
    let mut entries = dir.entries().context("list", &place.full)?;
    let mut next = 0;
    if let Some(ListingCursor::Entries(offset)) = cursor {
        entries.seek(offset).map_err(|_| bad_cursor())?;
        next = offset;
    } else {
        let after = match &cursor {
            Some(ListingCursor::Mounts(name)) => name,
            _ => "",
        };
        if let Some(last) = push_mounts(&mut page, mounts, after)? {
            return Ok(page.build(Some(&ListingCursor::Mounts(last))));
        }
    }
    while let Some(entry) = entries.read() {
        let entry = entry.context("list", &place.full)?;
        if let Some(shown) = visible_entry(place, &dir, mounts, &entry)?
            && !page.try_push(shown)
        {
            return Ok(page.build(Some(&ListingCursor::Entries(next))));
        }
        next = entry.offset();
    }
    Ok(page.build(None))
}

/// Adds the mounts after `after`. If the page is full before the end, returns the last that it has.
fn push_mounts(
    page: &mut ListingPageBuilder,
    mounts: &AccessMounts,
    after: &str,
) -> Result<Option<String>, StorageError> {
    let mut last = after;
    for (name, mount) in mounts.iter().filter(|(name, _)| name.as_str() > after) {
        let path = VirtualPath::root().join_name(name)?;
        let found = find_root(&mount.space.sandbox).context("look at", &path)?;
        if let Some(entry) = found.to_entry(name)
            && !page.try_push(entry)
        {
            return Ok(Some(last.to_owned()));
        }
        last = name;
    }
    Ok(None)
}

/// An entry as the member sees it. Invisible are names that no path can have, links without a target
/// in the space, and all that is neither a file nor a directory.
fn visible_entry(
    place: &ResolvedPath,
    dir: &OpenDir,
    mounts: &AccessMounts,
    entry: &DirEntry,
) -> Result<Option<Entry>, StorageError> {
    let Some(name) = entry
        .file_name()
        .to_str()
        .ok()
        .filter(|name| is_valid_name(name) && !mounts.contains_key(*name))
    else {
        return Ok(None);
    };
    let Ok(inner) = place.inner.join_name(name) else {
        return Ok(None);
    };
    let sandbox = &place.space.sandbox;
    let is_plain = is_opened_first(entry.file_type());
    let found = find_entry(sandbox, dir, entry.file_name(), &inner, is_plain);
    let found = found.context("look at", &place.full)?;
    Ok(found.and_then(|found| found.to_entry(name)))
}
