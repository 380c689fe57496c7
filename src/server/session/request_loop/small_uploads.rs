//! The small uploads of a session, until they are answered.

use std::sync::Arc;

use crate::server::transfer::pending_upload::PendingUpload;
use crate::server::transfer::upload_queue::UploadQueue;

/// The small uploads of a session.
#[derive(Default)]
pub(crate) struct SmallUploads {
    /// The latest upload, until its `end`.
    pub(super) collecting: Option<PendingUpload>,
    /// The uploads whose data is complete.
    pub(super) queue: Arc<UploadQueue>,
}
