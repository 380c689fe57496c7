//! Recent commits: they recognize a client that retries a commit whose reply was lost, where the
//! file at the requested path does not prove that the commit was this client's.
//!
//! The store holds one list for all users. It is bounded in number and in age; its lock is never
//! held over I/O.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::protocol::IfExists;
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::space::SpaceId;
use crate::storage::local::upload::request::Committed;
use crate::storage::path::VirtualPath;

/// Commits in the list at most.
const MAX_RECENT_COMMITS: usize = 1024;

/// How long a commit stays in the list.
const RETENTION: Duration = Duration::from_mins(10);

/// The latest commits, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct RecentCommits(Mutex<VecDeque<RecentCommit>>);

#[derive(Debug)]
struct RecentCommit {
    owner: SpaceId,
    space: SpaceId,
    requested_path: VirtualPath,
    /// The session that sent the commit, whether or not its reply arrived.
    session: Arc<str>,
    committed_at: Instant,
    committed: Committed,
}

impl RecentCommits {
    /// Records that `owner` has committed a file that was requested at `target`.
    pub(crate) fn record(
        &self,
        owner: &SpaceId,
        target: &ResolvedPath,
        session: &Arc<str>,
        committed: &Committed,
    ) {
        let mut commits = self.lock();
        if commits.len() >= MAX_RECENT_COMMITS {
            commits.pop_front();
        }
        commits.push_back(RecentCommit {
            owner: owner.clone(),
            space: target.space.id().clone(),
            requested_path: target.inner.clone(),
            session: Arc::clone(session),
            committed_at: Instant::now(),
            committed: committed.clone(),
        });
    }

    /// The latest commit of `size` bytes that `owner` requested at `target` in a session other than
    /// `session`.
    pub(crate) fn find(
        &self,
        owner: &SpaceId,
        target: &ResolvedPath,
        session: &Arc<str>,
        size: u64,
    ) -> Option<Committed> {
        let mut commits = self.lock();
        commits.retain(|commit| commit.committed_at.elapsed() < RETENTION);
        let found = commits.iter().rev().find(|commit| {
            commit.owner == *owner
                && commit.space == *target.space.id()
                && commit.requested_path == target.inner
                && commit.session != *session
                && commit.committed.size == size
        });
        found.map(|commit| commit.committed.clone())
    }

    /// Removes a commit whose reply has been repeated; `false` if it was removed before.
    pub(crate) fn remove(&self, committed: &Committed) -> bool {
        let mut commits = self.lock();
        let before = commits.len();
        commits.retain(|commit| commit.committed != *committed);
        commits.len() < before
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<RecentCommit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether only the list of recent commits proves that a file is the one that the client committed:
/// the file may have got another path, or the client may not learn which files others have there or
/// may not replace them.
pub(crate) fn is_found_by_recent_commits(target: &ResolvedPath, if_exists: IfExists) -> bool {
    // Without known rights the client learns nothing about the file at the path.
    let rights = target.rights().unwrap_or_default();
    match if_exists {
        IfExists::Rename => true,
        IfExists::Replace => !rights.read || !rights.overwrite,
        IfExists::Fail => !rights.read,
    }
}
