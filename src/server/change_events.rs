//! Forwards changes of the files to the sessions that watch them.

use tracing::warn;

use crate::messages::Messages;
use crate::storage::Store;

/// Publishes every change in `store` to the sessions of `messages`.
pub(crate) fn forward_changes(store: &Store, messages: &Messages) {
    let feed = messages.change_feed();
    let is_first = store.observe(move |change| feed.publish(change));
    if !is_first {
        warn!(
            name: "changes_elsewhere",
            "another server observes these files, so watches report no changes"
        );
    }
}
