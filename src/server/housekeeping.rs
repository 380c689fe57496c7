//! Periodic work of the server: it expires partial uploads, messages and offers, deletes leftovers in
//! staging, and watches the free space of the disk. Each function is a loop that never ends and runs
//! within `Server::run`.

use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use crate::clock::{Clock, ClockAgreement};
use crate::config::Config;
use crate::server::state::ServerState;
use crate::storage::StoreSettings;

/// Time between two checks, unless the retention of uploads is shorter.
const INTERVAL: Duration = Duration::from_mins(1);

/// The shortest time between two checks, however short the retention is.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// Time between two checks of the free space of the disk.
const DISK_INTERVAL: Duration = Duration::from_secs(1);

/// How long the clocks must agree before the age of files from an earlier server process counts.
const CLOCK_AGREEMENT: Duration = Duration::from_hours(1);

/// Passes the settings to the store, and expires partial uploads, messages and offers. Never ends.
pub(crate) async fn expire_periodically(shared: &ServerState) {
    let clocks = ClockAgreement::new(Clock::system());
    let mut changes = shared.config.subscribe();
    loop {
        let config = changes.borrow_and_update().clone();
        let (store, settings) = (shared.store.clone(), store_settings(&config));
        // The clocks must agree for the retention time, but for at most an hour.
        let now = clocks.wall_after(settings.partial_upload_retention.min(CLOCK_AGREEMENT));
        let work = move || {
            store.set(settings);
            store.expire_uploads(now)
        };
        if let Ok(dropped @ 1..) = spawn_blocking(work).await {
            info!(
                name: "uploads_dropped",
                uploads = dropped,
                "deleted partial uploads that no client resumed"
            );
        }
        expire_messages(shared, &config).await;
        if let Err(error) = shared.messages.expire_offers().await {
            warn!(
                name: "offers_not_removed",
                %error,
                "cannot delete expired offers"
            );
        }
        tokio::select! {
            () = sleep(check_interval(settings)) => {}
            // `shared` owns the sender, so this cannot fail.
            _ = changes.changed() => {}
        }
    }
}

/// Sets the disk budget of the messages every second. Never ends.
pub(crate) async fn update_message_budget(shared: &ServerState) {
    let mut ticks = interval(DISK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let store = shared.store.clone();
        // If the disk does not answer, the budget runs out.
        if let Ok(Ok(bytes)) = spawn_blocking(move || store.free_bytes_for_messages()).await {
            shared.messages.set_disk_budget(bytes);
        }
    }
}

/// Deletes leftovers in staging, at the start and then periodically. Never ends.
pub(crate) async fn delete_leftovers(shared: &ServerState) {
    loop {
        // Each is tried once per round; one that cannot be deleted now is tried in the next round.
        let mut untried = shared.store.leftover_count();
        while untried > 0 {
            let store = shared.store.clone();
            let goes_on = spawn_blocking(move || store.delete_leftover()).await;
            if !goes_on.unwrap_or(false) {
                untried -= 1;
            }
        }
        sleep(INTERVAL).await;
    }
}

async fn expire_messages(shared: &ServerState, config: &Config) {
    let limits = &config.limits;
    let most = limits.kept_messages as u64;
    match shared.messages.prune(limits.keep_messages, most).await {
        Ok(0) => {}
        Ok(dropped) => info!(
            name: "messages_dropped",
            messages = dropped,
            "deleted the oldest messages"
        ),
        Err(error) => warn!(name: "messages_not_dropped", %error, "cannot delete old messages"),
    }
}

/// The part of the settings that concerns the store.
pub(crate) fn store_settings(config: &Config) -> StoreSettings {
    let limits = &config.limits;
    StoreSettings {
        free_space_floor: limits.free_space_floor,
        partial_upload_retention: limits.keep_uploads,
        max_partial_uploads: limits.kept_uploads,
    }
}

/// Time until the next check.
fn check_interval(settings: StoreSettings) -> Duration {
    settings
        .partial_upload_retention
        .clamp(MIN_INTERVAL, INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_run_once_a_minute_or_as_often_as_uploads_expire_but_do_not_spin() {
        let interval = |keep_uploads| {
            let mut config = Config::default();
            config.limits.keep_uploads = keep_uploads;
            check_interval(store_settings(&config))
        };
        let second = Duration::from_secs(1);
        assert_eq!(interval(second * 3600), second * 60);
        assert_eq!(interval(second * 5), second * 5);
        assert_eq!(interval(Duration::from_nanos(1)), second / 10);
        assert_eq!(interval(Duration::ZERO), second / 10);
    }
}
