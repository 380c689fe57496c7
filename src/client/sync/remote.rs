//! The listing of a remote tree, checked and filtered.
//!
//! A server decides which names arrive here, and a download would write to them. A listing that is
//! out of order, or has an entry in a directory that it does not have, is refused as a whole; a name
//! that could lead out of its directory takes no part.

use crate::client::ClientError;
use crate::client::sync::entry::{
    ListedItem, SyncEntry, WithheldReason, compare_paths, is_within, parent_of,
};
use crate::client::sync::filter::PathFilter;
use crate::client::sync::names::{is_portable_name, is_unfinished_download};

/// An entry as the server lists it.
pub(crate) struct RemoteEntry {
    pub(crate) entry: SyncEntry,
    /// What is in it is not listed.
    pub(crate) is_unlisted: bool,
    /// It is the root of a shared folder.
    pub(crate) is_shared: bool,
}

/// An iterator over the entries of a remote tree, as its pages arrive.
pub(crate) struct RemoteListing<I> {
    entries: I,
    filter: PathFilter,
    last_path: String,
    /// The directories that contain the last path, outermost first.
    directories: Vec<String>,
    /// At and below this path nothing takes part.
    withheld: Option<String>,
}

impl<I> RemoteListing<I>
where
    I: Iterator<Item = Result<RemoteEntry, ClientError>>,
{
    /// Checks and filters `entries`, which the server listed.
    pub(crate) fn new(entries: I, filter: PathFilter) -> Self {
        Self {
            entries,
            filter,
            last_path: String::new(),
            directories: Vec::new(),
            withheld: None,
        }
    }

    /// The item of an entry; `None` if the directory above it takes no part.
    fn examine(&mut self, examined: RemoteEntry) -> Result<Option<ListedItem>, ClientError> {
        let RemoteEntry {
            entry,
            is_unlisted,
            is_shared,
        } = examined;
        self.check_place(&entry)?;
        self.last_path.clone_from(&entry.path);
        let is_dir = entry.is_dir();
        if is_dir {
            self.directories.push(entry.path.clone());
        }
        let is_withheld = |withheld: &String| is_within(&entry.path, withheld);
        if self.withheld.as_ref().is_some_and(is_withheld) {
            return Ok(None);
        }
        self.withheld = None;
        let name = entry.path.rsplit('/').next().unwrap_or_default();
        let reason = if !is_portable_name(name) || is_unfinished_download(name) {
            Some(WithheldReason::Name)
        } else if is_unlisted {
            Some(WithheldReason::Unlisted)
        } else if is_shared && self.filter.is_missing_in_source(&entry.path) {
            Some(WithheldReason::SharedFolder)
        } else {
            self.filter.check(&entry.path, is_dir, entry.size)?
        };
        Ok(Some(match reason {
            None => ListedItem::Entry(entry),
            Some(reason) => {
                self.withheld = Some(entry.path.clone());
                ListedItem::Withheld {
                    path: entry.path,
                    reason,
                }
            }
        }))
    }

    /// Makes sure that the entry follows the last one and is in a directory that was listed.
    fn check_place(&mut self, entry: &SyncEntry) -> Result<(), ClientError> {
        let path = &entry.path;
        let is_after = compare_paths(path, &self.last_path).is_gt();
        if !is_after || path.starts_with('/') {
            let text = format!("it lists {path:?} after {:?}", self.last_path);
            return Err(ClientError::InvalidReply(text));
        }
        let is_outside = |last: &mut String| !is_within(path, last);
        while self.directories.pop_if(is_outside).is_some() {}
        let parent = self.directories.last().map_or("", String::as_str);
        if parent != parent_of(path) {
            let text = format!("it lists {path:?} and not the directory that contains it");
            return Err(ClientError::InvalidReply(text));
        }
        Ok(())
    }
}

impl<I> Iterator for RemoteListing<I>
where
    I: Iterator<Item = Result<RemoteEntry, ClientError>>,
{
    type Item = Result<ListedItem, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let examined = match self.entries.next()? {
                Ok(entry) => self.examine(entry),
                Err(error) => Err(error),
            };
            if let Some(item) = examined.transpose() {
                return Some(item);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use jiff::Timestamp;

    use super::*;
    use crate::client::sync::filter::FilterOptions;
    use crate::protocol::Kind;

    /// What comes of a listing; a path with a slash at its end is a directory.
    fn list(paths: &[&str]) -> Result<Vec<(String, bool)>, ClientError> {
        let entries: Vec<_> = paths
            .iter()
            .map(|path| {
                let entry = SyncEntry {
                    path: path.trim_end_matches('/').to_owned(),
                    kind: if path.ends_with('/') {
                        Kind::Dir
                    } else {
                        Kind::File
                    },
                    size: 0,
                    modified: Timestamp::UNIX_EPOCH,
                    mode: None,
                    version: None,
                    digest: None,
                };
                Ok(RemoteEntry {
                    entry,
                    is_unlisted: *path == "link/",
                    is_shared: *path == "team/",
                })
            })
            .collect();
        let options = FilterOptions {
            exclude: vec!["*.tmp".into()],
            ..FilterOptions::default()
        };
        let filter = PathFilter::new(&options, PathBuf::from("/nowhere"), None);
        RemoteListing::new(entries.into_iter(), filter.expect("sound patterns"))
            .map(|item| {
                let item = item?;
                let is_entry = matches!(item, ListedItem::Entry(_));
                Ok((item.path().to_owned(), is_entry))
            })
            .collect()
    }

    #[test]
    fn what_is_below_an_excluded_directory_is_left_out() {
        let items = list(&["a/", "a/1", "b.tmp/", "b.tmp/1", "b.tmp/c/", "c.tmp", "d"]);
        let expected = [
            ("a", true),
            ("a/1", true),
            ("b.tmp", false),
            ("c.tmp", false),
            ("d", true),
        ];
        let expected = expected.map(|(path, is_entry)| (path.to_owned(), is_entry));
        assert_eq!(items.expect("in order"), expected);
    }

    #[test]
    fn a_listing_out_of_order_or_without_a_parent_is_refused() {
        for paths in [
            &["b", "a"][..],
            &["a", "a"],
            &["a/", "a/1", "a/"],
            &["a/1"],
            &["a", "a/1"],
            &["a/", "b/1"],
            &["/a"],
            &["a//b"],
            &[""],
        ] {
            assert!(list(paths).is_err(), "{paths:?}");
        }
    }

    #[test]
    fn a_name_that_leads_elsewhere_takes_no_part() {
        let items = list(&["../", "../etc", "a\nb", ".haul-0123456789abcdef.part"]);
        assert!(items.is_err(), "out of order");
        let items = list(&["../", "../etc", ".haul-0123456789abcdef.part", "a\nb"]);
        let items = items.expect("in order");
        assert!(items.iter().all(|(_, is_entry)| !is_entry), "{items:?}");
        assert_eq!(items.len(), 3);
    }

    #[test]
    fn a_directory_that_is_not_listed_takes_no_part() {
        let items = list(&["a", "link/", "team/", "team/x", "z"]).expect("in order");
        let items: Vec<_> = items
            .iter()
            .map(|(path, takes)| (&**path, *takes))
            .collect();
        assert_eq!(
            items,
            [
                ("a", true),
                ("link", false),
                ("team", true),
                ("team/x", true),
                ("z", true)
            ]
        );
    }
}
