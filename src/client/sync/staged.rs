//! Entries that replace one of another kind, such as a file in the place of a directory.
//!
//! Neither can be replaced in one step. The new one is made beside the old one, under a random name;
//! once it is complete the old one is deleted, and the new one gets its name. So an error leaves the old
//! one whole, and a run that is killed leaves one of them.

use std::cmp::Ordering;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::client::sync::action::SyncAction;
use crate::client::sync::context::SyncContext;
use crate::client::sync::entry::{compare_paths, is_within, parent_of};
use crate::client::sync::job::SyncDirection;
use crate::client::transfer::blocking::blocking;
use crate::client::tree::join;
use crate::client::{Client, ClientError};
use crate::protocol::{ErrorCode, IfExists};

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
            .map_err(|error| ClientError::local("choose a name in", ".", error.into()))?;
        Ok(Arc::new(Self {
            roots,
            prefix: format!(".haul-sync-{random:016x}"),
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

/// Gives a complete entry its name, which is free by then.
pub(crate) async fn publish(
    context: &SyncContext,
    staged: &str,
    path: &str,
) -> Result<(), ClientError> {
    match context.direction {
        SyncDirection::Up => {
            let (from, to) = (join(&context.remote, staged), join(&context.remote, path));
            let (from, to) = (from.as_str(), to.as_str());
            let mv = |client: Client| async move {
                match client.mv(from, to, IfExists::Fail).await {
                    // An earlier request may have succeeded although its reply did not arrive.
                    Err(error) if error.code() == Some(ErrorCode::NotFound) => {
                        client.stat(to).await.map(drop).map_err(|_| error)
                    }
                    moved => moved.map(drop),
                }
            };
            context.session.retry(&context.progress, mv).await
        }
        SyncDirection::Down => {
            let (from, to) = (context.local.join(staged), context.local.join(path));
            blocking(move || {
                rename_to_free_name(&from, &to)
                    .map_err(|error| ClientError::local("rename", from, error))
            })
            .await
        }
    }
}

fn rename_to_free_name(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // The file system cannot tell whether the name is free.
        Err(Errno::INVAL | Errno::NOSYS) => {
            if to.symlink_metadata().is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(from, to)
        }
        renamed => Ok(renamed?),
    }
}

/// Removes an entry that replaces nothing after all, as far as it was made.
pub(crate) async fn discard(context: &SyncContext, staged: &str) {
    match context.direction {
        SyncDirection::Up => {
            let path = join(&context.remote, staged);
            let path = path.as_str();
            let rm = |client: Client| async move { client.rm(path, true).await };
            // The next run with `--delete` deletes what is left.
            let _ = context.session.retry(&context.progress, rm).await;
        }
        SyncDirection::Down => {
            let path = context.local.join(staged);
            let _ = blocking(move || {
                let is_dir = path.symlink_metadata().is_ok_and(|found| found.is_dir());
                let _ = if is_dir {
                    fs::remove_dir_all(&path)
                } else {
                    fs::remove_file(&path)
                };
                Ok(())
            })
            .await;
        }
    }
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

    #[test]
    fn a_name_that_is_taken_again_is_not_replaced() {
        let root = tempfile::tempdir().expect("a directory");
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        fs::write(&from, "new").expect("written");
        fs::write(&to, "old").expect("written");
        assert!(rename_to_free_name(&from, &to).is_err());
        assert_eq!(fs::read_to_string(&to).expect("there"), "old");
        fs::remove_file(&to).expect("removed");
        rename_to_free_name(&from, &to).expect("renamed");
        assert_eq!(fs::read_to_string(&to).expect("there"), "new");
    }
}
