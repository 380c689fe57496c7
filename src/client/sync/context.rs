//! What all parts of a run share.

use std::path::PathBuf;
use std::sync::Arc;

use crate::client::sync::job::{SyncDirection, SyncOptions};
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
}

impl SyncContext {
    /// The path on the server of an entry.
    pub(crate) fn remote_path(&self, path: &str) -> String {
        join(&self.remote, path)
    }

    /// The local path of an entry.
    pub(crate) fn local_path(&self, path: &str) -> PathBuf {
        self.local.join(path)
    }

    /// The path of an entry relative to the roots, from its path on the server.
    pub(crate) fn relative<'a>(&self, remote: &'a str) -> &'a str {
        let path = remote.strip_prefix(&*self.remote).unwrap_or(remote);
        path.trim_start_matches('/')
    }
}
