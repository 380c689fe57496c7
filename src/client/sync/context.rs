//! What all parts of a run share.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::client::sync::job::{SyncDirection, SyncOptions};
use crate::client::sync::staged_paths::StagedPaths;
use crate::client::tree::join;
use crate::client::{Progress, Session};

/// A run's session, roots and options. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct SyncContext {
    pub(crate) session: Session,
    pub(crate) progress: Progress,
    pub(crate) direction: SyncDirection,
    pub(crate) local: Arc<PathBuf>,
    pub(crate) remote: Arc<str>,
    pub(crate) options: Arc<SyncOptions>,
    /// Present while entries are made that will replace others: until then they have other paths.
    pub(crate) staged: Arc<RwLock<Option<Arc<StagedPaths>>>>,
}

impl SyncContext {
    /// The path on the server of an entry.
    pub(crate) fn remote_path(&self, path: &str) -> String {
        match self.staged_path(SyncDirection::Up, path) {
            Some(staged) => join(&self.remote, &staged),
            None => join(&self.remote, path),
        }
    }

    /// The local path of an entry.
    pub(crate) fn local_path(&self, path: &str) -> PathBuf {
        self.local.join(self.local_relative(path))
    }

    /// The local path of an entry relative to the local root.
    pub(crate) fn local_relative(&self, path: &str) -> String {
        self.staged_path(SyncDirection::Down, path)
            .unwrap_or_else(|| path.to_owned())
    }

    /// The other path of an entry at the destination of this direction.
    fn staged_path(&self, direction: SyncDirection, path: &str) -> Option<String> {
        if self.direction != direction {
            return None;
        }
        self.staged.read().as_ref()?.staged_path(path)
    }

    /// The path of an entry relative to the roots, from its path on the server.
    pub(crate) fn relative(&self, remote: &str) -> String {
        let path = remote.strip_prefix(&*self.remote).unwrap_or(remote);
        let path = path.trim_start_matches('/');
        if self.direction == SyncDirection::Up
            && let Some(staged) = &*self.staged.read()
            && let Some(path) = staged.final_path(path)
        {
            return path;
        }
        path.to_owned()
    }
}
