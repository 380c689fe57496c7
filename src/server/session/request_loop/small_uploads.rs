//! The small uploads that a session collects before it commits them.

use std::sync::Arc;

use crate::server::transfer::small_upload::{PendingUpload, UploadQueue};

/// The small uploads of a session.
#[derive(Default)]
pub(crate) struct SmallUploads {
    pub(super) pending: Option<PendingUpload>,
    pub(super) queue: Arc<UploadQueue>,
}
