//! The account and the session that an upload belongs to.

use std::sync::Arc;

use crate::protocol::IfExists;
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::space::SpaceId;
use crate::storage::local::upload::partial::PartialUploads;
use crate::storage::local::upload::recent_commits::needs_recent_commit;
use crate::storage::local::upload::request::Committed;

/// The owner of an upload, and the tables that know the owner's other uploads.
#[derive(Debug, Clone)]
pub(crate) struct Uploader {
    /// The user's home.
    pub(crate) owner: SpaceId,
    /// Distinguishes the sessions of a user.
    pub(crate) session: Arc<str>,
    pub(crate) partial_uploads: Arc<PartialUploads>,
}

impl Uploader {
    /// Records a commit: it supersedes partial uploads of earlier attempts, and a client that
    /// retries it gets the same reply.
    pub(crate) fn record_commit(
        &self,
        target: &ResolvedPath,
        if_exists: IfExists,
        committed: &Committed,
    ) {
        let renames = if_exists == IfExists::Rename;
        let superseded_size = renames.then_some(committed.size);
        self.partial_uploads
            .supersede(&self.owner, target, superseded_size);
        if needs_recent_commit(target, if_exists) {
            let recent = &self.partial_uploads.recent_commits;
            recent.record(&self.owner, target, &self.session, committed);
        }
    }
}
