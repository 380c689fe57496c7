//! Recent commits: for a while the server knows again whoever retries a commit whose answer was
//! lost, where the path that was asked for does not tell.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::space::SpaceId;
use crate::storage::local::upload::single::Committed;
use crate::storage::path::VirtualPath;

/// How many commits are known at most.
const MOST: usize = 1024;

/// For how long a commit is known.
const KNOWN_FOR: Duration = Duration::from_mins(10);

/// The last commits, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<VecDeque<Commit>>);

#[derive(Debug)]
struct Commit {
    owner: SpaceId,
    space: SpaceId,
    asked: VirtualPath,
    /// The session that was answered, or should have been.
    session: Arc<str>,
    at: Instant,
    committed: Committed,
}

impl Recent {
    /// Notes that `owner` has committed what was asked to go to `place`.
    pub(crate) fn note(
        &self,
        owner: &SpaceId,
        place: &ResolvedPath,
        session: &Arc<str>,
        committed: &Committed,
    ) {
        let mut commits = self.lock();
        if commits.len() >= MOST {
            commits.pop_front();
        }
        commits.push_back(Commit {
            owner: owner.clone(),
            space: place.space.id().clone(),
            asked: place.inner.clone(),
            session: Arc::clone(session),
            at: Instant::now(),
            committed: committed.clone(),
        });
    }

    /// The last commit of so many bytes by `owner` to `place`, in another session than `session`.
    pub(crate) fn find(
        &self,
        owner: &SpaceId,
        place: &ResolvedPath,
        session: &Arc<str>,
        size: u64,
    ) -> Option<Committed> {
        let mut commits = self.lock();
        commits.retain(|commit| commit.at.elapsed() < KNOWN_FOR);
        let found = commits.iter().rev().find(|commit| {
            commit.owner == *owner
                && commit.space == *place.space.id()
                && commit.asked == place.inner
                && commit.session != *session
                && commit.committed.size == size
        });
        found.map(|commit| commit.committed.clone())
    }

    /// Forgets a commit, which has been answered again; `false` if it was before.
    pub(crate) fn forget(&self, committed: &Committed) -> bool {
        let mut commits = self.lock();
        let before = commits.len();
        commits.retain(|commit| commit.committed != *committed);
        commits.len() < before
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Commit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
