//! Descriptions of changes for the change log, made from resolved paths.
//!
//! The operations of a view call these functions while they hold the lock on the names. They
//! publish the result once the disk has the change.

use std::sync::Arc;

use crate::protocol::ChangeKind;
use crate::storage::changes::FileChange;
use crate::storage::local::change_log::PendingChange;
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::path::VirtualPath;

/// An entry that has got a name.
pub(crate) struct NamedEntry<'a> {
    pub(crate) name: &'a str,
    pub(crate) is_dir: bool,
    /// How many of the last directories down to it are new as well.
    pub(crate) made_dirs: usize,
    /// The path and the directory that it had in a space before.
    pub(crate) moved_from: Option<(&'a ResolvedPath, &'a OpenDir)>,
}

/// Records that an entry has got a name in the directory whose path `parent` returns.
pub(crate) fn record_named(
    to: &ResolvedPath,
    parent: impl FnOnce() -> VirtualPath,
    entry: &NamedEntry<'_>,
) -> PendingChange {
    to.space.changes.register(|| {
        let parent = parent();
        let mut changes = made_dirs(to, &parent, entry.made_dirs);
        let kind = match (entry.moved_from, entry.is_dir) {
            (Some(_), _) => ChangeKind::Moved,
            (None, true) => ChangeKind::Made,
            (None, false) => ChangeKind::Written,
        };
        let from = entry.moved_from.and_then(|(from, dir)| {
            let path = from.true_parent(dir).join_name(from.inner.name()?).ok()?;
            Some((Arc::clone(&from.space.key), path))
        });
        // A path can be too long only behind a link, and no client can name it then.
        if let Ok(path) = parent.join_name(entry.name) {
            changes.push(file_change(to, path, kind, from));
        }
        changes
    })
}

/// Records that the last `made` directories down to `dir`, which `place` names, are new.
pub(crate) fn record_made_dirs(place: &ResolvedPath, dir: &OpenDir, made: usize) -> PendingChange {
    place.space.changes.register(|| {
        let path = place.space.sandbox.path_of(dir);
        made_dirs(place, &path.unwrap_or_else(|| place.inner.clone()), made)
    })
}

/// Records that the entry that `place` names in `dir` is gone.
pub(crate) fn record_removed(place: &ResolvedPath, dir: &OpenDir) -> PendingChange {
    place.space.changes.register(|| {
        let name = place.inner.name();
        let path = name.and_then(|name| place.true_parent(dir).join_name(name).ok());
        path.map(|path| file_change(place, path, ChangeKind::Removed, None))
            .into_iter()
            .collect()
    })
}

/// The new directories, the outermost first.
fn made_dirs(place: &ResolvedPath, last: &VirtualPath, made: usize) -> Vec<FileChange> {
    let upwards = std::iter::successors(Some(last.clone()), VirtualPath::parent);
    let mut dirs: Vec<_> = upwards
        .take(made)
        .map(|path| file_change(place, path, ChangeKind::Made, None))
        .collect();
    dirs.reverse();
    dirs
}

fn file_change(
    place: &ResolvedPath,
    path: VirtualPath,
    kind: ChangeKind,
    from: Option<(Arc<str>, VirtualPath)>,
) -> FileChange {
    FileChange {
        space: Arc::clone(&place.space.key),
        path,
        kind,
        from,
        by: place.author.id().name.as_str().into(),
    }
}
