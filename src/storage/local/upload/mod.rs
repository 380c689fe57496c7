//! Uploads: staging files, checkpoints, partial uploads, and the commit of a batch.

pub(crate) mod already_committed;
pub(crate) mod batch;
pub(crate) mod checkpoint;
pub(crate) mod partial;
pub(crate) mod recent_commits;
pub(crate) mod record;
pub(crate) mod recover;
pub(crate) mod single;
