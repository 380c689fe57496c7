//! What a transfer gains by the connections that it loses.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::client::Session;

/// The bytes of a file that the receiving side has before an attempt. If they become more, the last
/// connection was of use, and the session may try as often again.
pub(super) struct ResumptionProgress<'a> {
    session: &'a Session,
    most: AtomicU64,
    has_advanced: AtomicBool,
}

impl<'a> ResumptionProgress<'a> {
    pub(super) fn new(session: &'a Session) -> Self {
        Self {
            session,
            most: AtomicU64::new(0),
            has_advanced: AtomicBool::new(false),
        }
    }

    /// An attempt begins after this many bytes.
    pub(super) fn resumed_at(&self, offset: u64) {
        if self.most.fetch_max(offset, Ordering::Relaxed) < offset {
            self.session.note_success();
            self.has_advanced.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the bytes became more since the last call.
    pub(super) fn has_advanced(&self) -> bool {
        self.has_advanced.swap(false, Ordering::Relaxed)
    }
}
