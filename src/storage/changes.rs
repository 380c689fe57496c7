//! Changes: what happened to names, told in the order in which it happened and once it lasts.
//!
//! What changes a name takes a turn while it holds the lock on names, then waits for the disk, and
//! tells what it did when all that came before it has been told or has failed. So nobody hears of
//! a file that a power cut may take back, or hears last of what happened first.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::protocol::ChangeKind;
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::path::VirtualPath;

/// Turns that may wait for one that is not over. If the disk keeps a caller waiting for longer than
/// that, what came after it is told first.
const MOST_WAITING: usize = 10_000;

/// Something that happened to a name in a home or a shared folder, and that lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// Names the home or folder, and no later one that gets its name.
    pub space: Arc<str>,
    /// The path within it, with no link on the way.
    pub path: VirtualPath,
    /// What happened there.
    pub kind: ChangeKind,
    /// Where it was before, if it was moved: the space and the path within it.
    pub from: Option<(Arc<str>, VirtualPath)>,
    /// The user who did it.
    pub by: Arc<str>,
}

/// What a [`View`](crate::storage::local::view::View) shows at and below a path of one of its spaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VisiblePath {
    /// Names the home or folder, as in [`Change::space`].
    pub space: Arc<str>,
    /// The path within it, with no link on the way.
    pub inner: VirtualPath,
    /// The path in the view.
    pub path: VirtualPath,
    /// Names in the space's root that a folder hides.
    pub hidden: Vec<String>,
}

/// Where changes are told, and those that wait for their turn.
#[derive(Debug, Default)]
pub(crate) struct ChangeLog {
    observer: OnceLock<ChangeObserver>,
    turns: Mutex<Turns>,
}

struct ChangeObserver(Box<dyn Fn(FileChange) + Send + Sync>);

impl fmt::Debug for ChangeObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").finish_non_exhaustive()
    }
}

/// In the order in which they were taken.
#[derive(Debug, Default)]
struct Turns {
    /// The number of the first that waits.
    first: u64,
    waiting: VecDeque<Turn>,
}

#[derive(Debug)]
enum Turn {
    /// The disk has not answered yet.
    Open,
    /// It lasts; what failed has nothing to tell.
    Over(Vec<FileChange>),
}

impl Turns {
    /// The first turn, if it is over or too many wait for it.
    fn next(&mut self) -> Option<Turn> {
        let is_open = matches!(self.waiting.front()?, Turn::Open);
        if is_open && self.waiting.len() <= MOST_WAITING {
            return None;
        }
        self.first += 1;
        self.waiting.pop_front()
    }
}

impl ChangeLog {
    /// Tells `observer` from now on. Only the first one counts; `false` for any other.
    pub(crate) fn observe(&self, observer: Box<dyn Fn(FileChange) + Send + Sync>) -> bool {
        self.observer.set(ChangeObserver(observer)).is_ok()
    }

    /// Takes a turn for what has happened just now, while the names are locked. Costs nothing if
    /// nobody is told.
    fn note(self: &Arc<Self>, what: impl FnOnce() -> Vec<FileChange>) -> PendingChange {
        if self.observer.get().is_none() {
            return PendingChange(None);
        }
        let what = what();
        if what.is_empty() {
            return PendingChange(None);
        }
        let mut turns = self.turns();
        turns.waiting.push_back(Turn::Open);
        let number = turns.first + turns.waiting.len() as u64 - 1;
        drop(turns);
        PendingChange(Some(Box::new(Taken {
            changes: Arc::clone(self),
            number,
            what,
        })))
    }

    /// Ends a turn, and tells what waited for it alone.
    fn end(&self, number: u64, what: Vec<FileChange>) {
        let mut turns = self.turns();
        let index = number.checked_sub(turns.first);
        let index = index.and_then(|index| usize::try_from(index).ok());
        match index.and_then(|index| turns.waiting.get_mut(index)) {
            Some(turn) => *turn = Turn::Over(what),
            None => self.tell(what),
        }
        while let Some(turn) = turns.next() {
            if let Turn::Over(what) = turn {
                self.tell(what);
            }
        }
    }

    fn tell(&self, what: Vec<FileChange>) {
        if let Some(observer) = self.observer.get() {
            what.into_iter().for_each(&observer.0);
        }
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What has happened and is not yet known to last. Dropped, it is never told.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct PendingChange(Option<Box<Taken>>);

#[derive(Debug)]
struct Taken {
    changes: Arc<ChangeLog>,
    number: u64,
    what: Vec<FileChange>,
}

impl PendingChange {
    /// Tells it, now that it lasts.
    pub(crate) fn tell(mut self) {
        if let Some(mut taken) = self.0.take() {
            let what = std::mem::take(&mut taken.what);
            taken.changes.end(taken.number, what);
        }
    }
}

impl Drop for PendingChange {
    fn drop(&mut self) {
        if let Some(taken) = self.0.take() {
            taken.changes.end(taken.number, Vec::new());
        }
    }
}

/// `name` has come to be in the directory that is `above` it, or is another thing now; it was
/// `moved` from there if it was in a space before. The last so many directories down to it are new
/// too.
pub(crate) fn landed(
    to: &ResolvedPath,
    (above, name): (impl FnOnce() -> VirtualPath, &str),
    made: usize,
    is_dir: bool,
    moved: Option<(&ResolvedPath, &OpenDir)>,
) -> PendingChange {
    to.space.changes.note(|| {
        let parent = above();
        let mut what = made_dirs(to, &parent, made);
        let kind = match (moved, is_dir) {
            (Some(_), _) => ChangeKind::Moved,
            (None, true) => ChangeKind::Made,
            (None, false) => ChangeKind::Written,
        };
        let from = moved.and_then(|(from, dir)| {
            let parent = true_path(from, dir);
            let path = parent.join_name(from.inner.name()?).ok()?;
            Some((Arc::clone(&from.space.key), path))
        });
        // Longer than any path can only be what a link leads to; nobody could ask for it.
        if let Ok(path) = parent.join_name(name) {
            what.push(change(to, path, kind, from));
        }
        what
    })
}

/// The last so many directories down to `dir` are new, and `place` is the last one.
pub(crate) fn made(place: &ResolvedPath, dir: &OpenDir, made: usize) -> PendingChange {
    place.space.changes.note(|| {
        let path = place.space.jail.path_of(dir);
        made_dirs(place, &path.unwrap_or_else(|| place.inner.clone()), made)
    })
}

/// What `place` named, in `dir`, is gone.
pub(crate) fn removed(place: &ResolvedPath, dir: &OpenDir) -> PendingChange {
    place.space.changes.note(|| {
        let path = place.inner.name().map(|name| {
            let parent = true_path(place, dir);
            parent.join_name(name)
        });
        let path = path.and_then(Result::ok).into_iter();
        path.map(|path| change(place, path, ChangeKind::Removed, None))
            .collect()
    })
}

/// The new directories, the outermost first.
fn made_dirs(place: &ResolvedPath, last: &VirtualPath, made: usize) -> Vec<FileChange> {
    let upwards = std::iter::successors(Some(last.clone()), VirtualPath::parent);
    let mut dirs: Vec<_> = upwards
        .take(made)
        .map(|path| change(place, path, ChangeKind::Made, None))
        .collect();
    dirs.reverse();
    dirs
}

/// Where `dir`, that holds what `place` names, is in the space: the text of a path can lead
/// through links.
pub(crate) fn true_path(place: &ResolvedPath, dir: &OpenDir) -> VirtualPath {
    let path = place.space.jail.path_of(dir);
    path.or_else(|| place.inner.parent())
        .unwrap_or_else(VirtualPath::root)
}

fn change(
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
        by: place.by.id().name.as_str().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(number: usize) -> Vec<FileChange> {
        vec![FileChange {
            space: "homes/alice".into(),
            path: VirtualPath::parse(&format!("/{number}")).expect("a path"),
            kind: ChangeKind::Made,
            from: None,
            by: "alice".into(),
        }]
    }

    #[test]
    fn a_turn_that_does_not_end_holds_up_a_bounded_number_of_others() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let changes = Arc::new(ChangeLog::default());
        let sink = told.clone();
        changes.observe(Box::new(move |change| {
            sink.lock().expect("no panic").push(change.path.to_string());
        }));
        let stuck = changes.note(|| numbered(0));
        for number in 1..MOST_WAITING {
            changes.note(|| numbered(number)).tell();
        }
        assert!(told.lock().expect("no panic").is_empty());
        changes.note(|| numbered(MOST_WAITING)).tell();
        stuck.tell();
        let told = told.lock().expect("no panic");
        assert_eq!(told.len(), MOST_WAITING + 1);
        assert_eq!((&*told[0], told.last()), ("/1", Some(&"/0".to_owned())));
        assert!(changes.turns().waiting.is_empty());
    }
}
