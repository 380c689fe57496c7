//! The uploads, downloads and log requests of a session that are not answered yet.
//!
//! One lock guards the table. The request loop adds transfers and cancels them, the guard of a transfer
//! removes it, and operators read it through the session's entry. It is never held over I/O or an await.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::protocol::TransferEntry;
use crate::server::transfer::progress::{TransferProgress, TransferSubject};

/// Transfers of a session that are shown at most.
const MAX_LISTED_TRANSFERS: usize = 8;

/// The transfers of a session that are not answered yet, by id.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunningTransfers(Arc<Mutex<HashMap<u32, TransferHandle>>>);

/// The controls of a transfer.
#[derive(Debug)]
struct TransferHandle {
    cancel: CancellationToken,
    progress: Arc<TransferProgress>,
}

impl RunningTransfers {
    /// Adds a transfer; `None` if an unfinished one has its id.
    ///
    /// It stays until the guard is dropped. The caller drops the guard before it sends the final reply:
    /// the client may use the id again as soon as it has that.
    pub(crate) fn register(
        &self,
        id: u32,
        session_ended: &CancellationToken,
        subject: TransferSubject,
    ) -> Option<TransferGuard> {
        let cancel = session_ended.child_token();
        let mut transfers = self.lock();
        if transfers.contains_key(&id) {
            return None;
        }
        let progress = Arc::new(TransferProgress::new(subject));
        let handle = TransferHandle {
            cancel: cancel.clone(),
            progress: Arc::clone(&progress),
        };
        transfers.insert(id, handle);
        Some(TransferGuard {
            running: self.clone(),
            id,
            cancel,
            progress,
        })
    }

    /// Cancels a transfer; `false` if none has that id.
    pub(crate) fn cancel(&self, id: u32) -> bool {
        match self.lock().get(&id) {
            Some(handle) => {
                handle.cancel.cancel();
                true
            }
            None => false,
        }
    }

    /// Notes that nothing is to be kept of a transfer, however it ends.
    pub(crate) fn discard_on_stop(&self, id: u32) {
        if let Some(handle) = self.lock().get(&id) {
            handle.progress.discard_on_stop();
        }
    }

    /// Cancels the requests that follow the log: they would not end by themselves.
    pub(crate) fn cancel_log_requests(&self) {
        for handle in self.lock().values() {
            if handle.progress.is_log_request() {
                handle.cancel.cancel();
            }
        }
    }

    /// The number of requests that send the log.
    pub(crate) fn count_log_requests(&self) -> usize {
        let transfers = self.lock();
        let of_log = |handle: &&TransferHandle| handle.progress.is_log_request();
        transfers.values().filter(of_log).count()
    }

    /// Whether the transfer `id` is not answered yet.
    pub(crate) fn contains(&self, id: u32) -> bool {
        self.lock().contains_key(&id)
    }

    /// The number of transfers.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.lock().len()).unwrap_or(u32::MAX)
    }

    /// The progress of the transfers that have run for the longest time.
    pub(crate) fn oldest(&self) -> Vec<TransferEntry> {
        let all: Vec<_> = {
            let transfers = self.lock();
            let each = transfers.iter();
            each.map(|(id, handle)| (*id, Arc::clone(&handle.progress)))
                .collect()
        };
        let mut entries: Vec<_> = all
            .iter()
            .map(|(id, progress)| progress.entry(*id))
            .collect();
        entries.sort_unstable_by_key(|entry| (entry.since, entry.id));
        entries.truncate(MAX_LISTED_TRANSFERS);
        entries
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, TransferHandle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A transfer that is not answered yet. Dropping it removes its entry.
#[derive(Debug)]
pub(crate) struct TransferGuard {
    running: RunningTransfers,
    id: u32,
    /// Cancelled by `cancel`, and at the end of the session.
    pub(crate) cancel: CancellationToken,
    /// The bytes that were moved.
    pub(crate) progress: Arc<TransferProgress>,
}

impl Drop for TransferGuard {
    fn drop(&mut self) {
        self.running.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_until_its_transfer_is_answered() {
        let transfers = RunningTransfers::default();
        let session_ended = CancellationToken::new();
        let register = || transfers.register(7, &session_ended, TransferSubject::of_nothing());
        let first = register().expect("the id is free");
        assert!(register().is_none());
        assert!(transfers.cancel(7) && first.cancel.is_cancelled());
        drop(first);
        assert!(!transfers.cancel(7));
        assert!(register().is_some());
    }
}
