//! Recent commits: they recognize a client that retries a commit whose reply was lost, where the
//! file at the requested path does not prove that the commit was this client's.
//!
//! The store holds a list for each user, so that many commits of one user remove no proofs of others. The
//! lists are bounded in number and in age; their lock is never held over I/O.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::protocol::IfExists;
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::space::SpaceId;
use crate::storage::local::upload::request::Committed;
use crate::storage::path::VirtualPath;

/// The most commits in the list of one user: more than a client has sent before it knows of a lost reply.
const MAX_COMMITS_PER_OWNER: usize = 1024;

/// The most commits in all lists. Beyond it the longest list loses its oldest commit.
const MAX_RECENT_COMMITS: usize = 8 * MAX_COMMITS_PER_OWNER;

/// How long a commit stays in the list.
const RETENTION: Duration = Duration::from_mins(10);

/// The latest commits of each user, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct RecentCommits(Mutex<CommitsByOwner>);

type CommitsByOwner = HashMap<SpaceId, VecDeque<RecentCommit>>;

#[derive(Debug)]
struct RecentCommit {
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
        let mut by_owner = self.lock();
        make_space(&mut by_owner, owner);
        let commits = by_owner.entry(owner.clone()).or_default();
        commits.push_back(RecentCommit {
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
        let mut by_owner = self.lock();
        let commits = by_owner.get_mut(owner)?;
        remove_expired(commits);
        let found = commits.iter().rev().find(|commit| {
            commit.space == *target.space.id()
                && commit.requested_path == target.inner
                && commit.session != *session
                && commit.committed.size == size
        });
        found.map(|commit| commit.committed.clone())
    }

    /// Removes a commit of `owner` whose reply has been repeated; `false` if it was removed before.
    pub(crate) fn remove(&self, owner: &SpaceId, committed: &Committed) -> bool {
        let mut by_owner = self.lock();
        let Some(commits) = by_owner.get_mut(owner) else {
            return false;
        };
        let before = commits.len();
        commits.retain(|commit| commit.committed != *committed);
        commits.len() < before
    }

    fn lock(&self) -> MutexGuard<'_, CommitsByOwner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes what is too old or beyond the limits, so that one more commit of `owner` fits.
fn make_space(by_owner: &mut CommitsByOwner, owner: &SpaceId) {
    if let Some(own) = by_owner.get_mut(owner)
        && own.len() >= MAX_COMMITS_PER_OWNER
    {
        own.pop_front();
    }
    if by_owner.values().map(VecDeque::len).sum::<usize>() < MAX_RECENT_COMMITS {
        return;
    }
    by_owner.retain(|_, commits| {
        remove_expired(commits);
        !commits.is_empty()
    });
    if by_owner.values().map(VecDeque::len).sum::<usize>() >= MAX_RECENT_COMMITS
        && let Some(longest) = by_owner.values_mut().max_by_key(|commits| commits.len())
    {
        longest.pop_front();
    }
}

fn remove_expired(commits: &mut VecDeque<RecentCommit>) {
    commits.retain(|commit| commit.committed_at.elapsed() < RETENTION);
}

/// Whether only the list of recent commits proves that a file is the one that the client committed:
/// the file may have got another path, or the client may not learn which files others have there or
/// may not replace them.
pub(crate) fn needs_recent_commit(target: &ResolvedPath, if_exists: IfExists) -> bool {
    // Without known rights the client learns nothing about the file at the path.
    let rights = target.rights().unwrap_or_default();
    match if_exists {
        IfExists::Rename => true,
        IfExists::Replace => !rights.read || !rights.overwrite,
        IfExists::Fail => !rights.read,
    }
}
