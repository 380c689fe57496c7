//! What changes in the files, on its way to those who watch.

use tracing::warn;

use crate::messages::{Messages, WatchedChange};
use crate::storage;
use crate::storage::Store;

/// Has everything that changes in `store` told to the sessions of `messages`.
pub(crate) fn tell(store: &Store, messages: &Messages) {
    let observer = messages.observer();
    let is_told = store.observe(move |change| observer.tell(of(change)));
    if !is_told {
        warn!(
            name: "changes_elsewhere",
            "another server has these files: nobody here hears of changes"
        );
    }
}

fn of(change: storage::FileChange) -> WatchedChange {
    let storage::FileChange {
        space,
        path,
        kind,
        from,
        by,
    } = change;
    WatchedChange {
        space,
        path: path.to_string(),
        kind,
        from: from.map(|(space, path)| (space, path.to_string())),
        by,
    }
}
