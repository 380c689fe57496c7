//! The temporary paths of entries that replace one of another kind.

use std::cmp::Ordering;
use std::io;
use std::sync::Arc;

use crate::client::ClientError;
use crate::client::sync::action::SyncAction;
use crate::client::sync::entry::{compare_paths, is_within, parent_of};

/// The start of every temporary name.
const NAME_PREFIX: &str = ".haul-sync-";

/// Whether an entry has a temporary name, or is in a directory that has one.
pub(crate) fn is_staged(path: &str) -> bool {
    path.split('/').any(|name| name.starts_with(NAME_PREFIX))
}

/// The entries that replace others, with the names that they have until then.
#[derive(Debug)]
pub(crate) struct StagedPaths {
    /// The paths of the entries, in the order of the listings. None is within another.
    roots: Vec<String>,
    /// A random prefix of their temporary names.
    prefix: String,
}

impl StagedPaths {
    /// Chooses temporary names for the entries `roots`.
    ///
    /// # Errors
    /// [`ClientError::Local`] if the system has no random bytes.
    pub(crate) fn choose(roots: Vec<String>) -> Result<Arc<Self>, ClientError> {
        let random = getrandom::u64()
            .map_err(|error| io::Error::other(error.to_string()))
            .map_err(|error| ClientError::local("choose a name in", ".", error))?;
        Ok(Arc::new(Self {
            roots,
            prefix: format!("{NAME_PREFIX}{random:016x}"),
        }))
    }

    pub(crate) fn roots(&self) -> &[String] {
        &self.roots
    }

    /// The temporary paths of [`roots`](Self::roots).
    pub(crate) fn paths(&self) -> impl Iterator<Item = String> {
        self.roots.iter().filter_map(|root| self.staged_path(root))
    }

    /// The path of an entry until it replaces another, if it does.
    pub(crate) fn staged_path(&self, path: &str) -> Option<String> {
        let after = self
            .roots
            .partition_point(|root| compare_paths(root, path) != Ordering::Greater);
        let index = after.checked_sub(1)?;
        let root = &self.roots[index];
        if !is_within(path, root) {
            return None;
        }
        let rest = &path[root.len()..];
        let name = format!("{}-{index}", self.prefix);
        let staged = match parent_of(root) {
            "" => name,
            parent => format!("{parent}/{name}"),
        };
        Some(format!("{staged}{rest}"))
    }

    /// The path that an entry with a temporary name is for.
    pub(crate) fn final_path(&self, staged: &str) -> Option<String> {
        let begin = staged.find(&self.prefix)?;
        let number = staged[begin + self.prefix.len()..].strip_prefix('-')?;
        let digits = number.find('/').unwrap_or(number.len());
        let (number, rest) = number.split_at(digits);
        let root = self.roots.get(number.parse::<usize>().ok()?)?;
        Some(format!("{root}{rest}"))
    }
}

/// The entries that replace others, without those within them. A directory comes before its content.
pub(crate) fn replacement_roots(replacements: &[SyncAction]) -> Vec<String> {
    let mut roots: Vec<String> = Vec::new();
    for path in replacements.iter().map(SyncAction::path) {
        if roots.last().is_none_or(|root| !is_within(path, root)) {
            roots.push(path.to_owned());
        }
    }
    roots
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::client::sync::entry::SyncEntry;
    use crate::protocol::Kind;

    #[test]
    fn what_replaces_another_entry_has_a_temporary_name_beside_it() {
        let paths = ["a/b", "a/b/c", "a/b/d/e", "a/b.c", "f"];
        let replacements = paths.map(|path| {
            SyncAction::MakeDirectory(SyncEntry {
                path: path.into(),
                kind: Kind::Dir,
                size: 0,
                modified: Timestamp::UNIX_EPOCH,
                mode: None,
                version: None,
                digest: None,
            })
        });
        let staged = StagedPaths::choose(replacement_roots(&replacements)).expect("random bytes");
        assert_eq!(staged.roots(), ["a/b", "a/b.c", "f"]);
        let prefix = &staged.prefix;
        for (path, expected) in [
            ("a/b", format!("a/{prefix}-0")),
            ("a/b/d/e", format!("a/{prefix}-0/d/e")),
            ("a/b.c", format!("a/{prefix}-1")),
            ("f", format!("{prefix}-2")),
        ] {
            assert_eq!(staged.staged_path(path), Some(expected.clone()), "{path}");
            assert_eq!(staged.final_path(&expected).as_deref(), Some(path));
        }
        for path in ["a", "a/c", "a/bc", "g", "0"] {
            assert_eq!(staged.staged_path(path), None, "{path}");
            assert_eq!(staged.final_path(path), None, "{path}");
        }
    }
}
