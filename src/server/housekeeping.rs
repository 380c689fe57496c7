//! What the server looks after by itself, whoever is connected.

use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::info;

use super::Shared;
use crate::config::Config;
use crate::storage::StoreSettings;

/// How often it looks, unless something is to be kept for less.
const INTERVAL: Duration = Duration::from_secs(60);

/// Tells the store its settings and has it drop what is kept for too long. Never ends.
pub(super) async fn run(shared: &Shared) {
    let mut changes = shared.config.subscribe();
    loop {
        let config = changes.borrow_and_update().clone();
        let (store, settings) = (shared.store.clone(), settings(&config));
        let work = move || {
            store.set(settings);
            store.expire_uploads()
        };
        if let Ok(dropped @ 1..) = spawn_blocking(work).await {
            info!(uploads = dropped, "dropped uploads that nobody resumed");
        }
        tokio::select! {
            () = sleep(INTERVAL.min(settings.keep_uploads)) => {}
            // The sender is in `shared`, so it is there.
            _ = changes.changed() => {}
        }
    }
}

/// The settings of the store.
pub(super) fn settings(config: &Config) -> StoreSettings {
    let limits = &config.limits;
    StoreSettings {
        free_space_floor: limits.free_space_floor,
        keep_uploads: limits.keep_uploads,
        kept_uploads: limits.kept_uploads,
    }
}
