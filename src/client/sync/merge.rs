//! The merge of two listings in the same order into pairs of the same path.
//!
//! Neither listing is held: the merge looks at one item of each.

use std::cmp::Ordering;
use std::iter::Peekable;

use crate::client::ClientError;
use crate::client::sync::entry::{ListedItem, compare_paths};

/// The items of one path; at least one side has one.
#[derive(Debug)]
pub(crate) struct PathPair {
    pub(crate) source: Option<ListedItem>,
    pub(crate) destination: Option<ListedItem>,
}

/// An iterator over the pairs of two listings.
pub(crate) struct MergedListings<S: Iterator, D: Iterator> {
    source: Peekable<S>,
    destination: Peekable<D>,
}

impl<S, D> MergedListings<S, D>
where
    S: Iterator<Item = Result<ListedItem, ClientError>>,
    D: Iterator<Item = Result<ListedItem, ClientError>>,
{
    /// The merge of two listings that are each in the order of [`compare_paths`].
    pub(crate) fn new(source: S, destination: D) -> Self {
        Self {
            source: source.peekable(),
            destination: destination.peekable(),
        }
    }
}

impl<S, D> Iterator for MergedListings<S, D>
where
    S: Iterator<Item = Result<ListedItem, ClientError>>,
    D: Iterator<Item = Result<ListedItem, ClientError>>,
{
    type Item = Result<PathPair, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        let order = match (self.source.peek(), self.destination.peek()) {
            (None, None) => return None,
            (Some(Err(_)), _) | (Some(_), None) => Ordering::Less,
            (_, Some(Err(_))) | (None, Some(_)) => Ordering::Greater,
            (Some(Ok(source)), Some(Ok(destination))) => {
                compare_paths(source.path(), destination.path())
            }
        };
        let source = (order != Ordering::Greater)
            .then(|| self.source.next())
            .flatten();
        let destination = (order != Ordering::Less)
            .then(|| self.destination.next())
            .flatten();
        let pair = || {
            Ok(PathPair {
                source: source.transpose()?,
                destination: destination.transpose()?,
            })
        };
        Some(pair())
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::client::sync::entry::SyncEntry;
    use crate::protocol::Kind;

    fn listing(paths: &[&str]) -> impl Iterator<Item = Result<ListedItem, ClientError>> {
        let items: Vec<_> = paths
            .iter()
            .map(|path| {
                Ok(ListedItem::Entry(SyncEntry {
                    path: (*path).to_owned(),
                    kind: Kind::File,
                    size: 0,
                    modified: Timestamp::UNIX_EPOCH,
                    mode: None,
                    version: None,
                    digest: None,
                }))
            })
            .collect();
        items.into_iter()
    }

    #[test]
    fn each_path_comes_once_with_the_sides_that_have_it() {
        let merged = MergedListings::new(
            listing(&["a", "a/x", "a.b", "c"]),
            listing(&["a", "a!", "a.b", "b", "d"]),
        );
        let sides: Vec<_> = merged
            .map(|pair| {
                let pair = pair.expect("no error");
                let item = pair.source.as_ref().or(pair.destination.as_ref());
                let path = item.expect("one side").path().to_owned();
                (path, pair.source.is_some(), pair.destination.is_some())
            })
            .collect();
        let expected = [
            ("a", true, true),
            ("a/x", true, false),
            ("a!", false, true),
            ("a.b", true, true),
            ("b", false, true),
            ("c", true, false),
            ("d", false, true),
        ];
        assert_eq!(sides.len(), expected.len());
        for ((path, source, destination), expected) in sides.iter().zip(expected) {
            assert_eq!((path.as_str(), *source, *destination), expected);
        }
    }

    #[test]
    fn an_error_of_either_side_is_passed_on() {
        let failing = || [Err(ClientError::TransferEnded)].into_iter();
        let mut merged = MergedListings::new(listing(&["a"]), failing());
        assert!(merged.next().expect("an item").is_err());
        let mut merged = MergedListings::new(failing(), listing(&["a"]));
        assert!(merged.next().expect("an item").is_err());
    }
}
