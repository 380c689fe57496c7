//! What the server looks after by itself, whoever is connected.

use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use crate::clock::{Clock, ClockAgreement};
use crate::config::Config;
use crate::server::state::ServerState;
use crate::storage::StoreSettings;

/// How often it looks, unless something is to be kept for less.
const INTERVAL: Duration = Duration::from_mins(1);

/// It does not look more often, for however short a time something is to be kept.
const SHORTEST: Duration = Duration::from_millis(100);

/// How often the free space of the disk is looked at.
const DISK_INTERVAL: Duration = Duration::from_secs(1);

/// How long the clocks have to agree before the age of what an earlier server has left counts.
const AGREEMENT: Duration = Duration::from_hours(1);

/// Tells the store its settings and has it and the messages drop what is kept for too long. Never ends.
pub(crate) async fn run(shared: &ServerState) {
    let clocks = ClockAgreement::new(Clock::system());
    let mut changes = shared.config.subscribe();
    loop {
        let config = changes.borrow_and_update().clone();
        let (store, settings) = (shared.store.clone(), settings(&config));
        // What is kept for less is kept for so long at least.
        let now = clocks.wall_after(settings.keep_uploads.min(AGREEMENT));
        let work = move || {
            store.set(settings);
            store.expire_uploads(now)
        };
        if let Ok(dropped @ 1..) = spawn_blocking(work).await {
            info!(
                name: "uploads_dropped",
                uploads = dropped,
                "dropped uploads that nobody resumed"
            );
        }
        forget_messages(shared, &config).await;
        if let Err(error) = shared.messages.expire_offers().await {
            warn!(
                name: "offers_not_removed",
                %error,
                "can not remove the offers that have expired"
            );
        }
        tokio::select! {
            () = sleep(pause(settings)) => {}
            // The sender is in `shared`, so it is there.
            _ = changes.changed() => {}
        }
    }
}

/// Tells the messages how much of the disk they may take, every second. Never ends.
pub(crate) async fn watch_disk(shared: &ServerState) {
    let mut ticks = interval(DISK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let store = shared.store.clone();
        // A disk that does not answer has the budget run out.
        if let Ok(Ok(bytes)) = spawn_blocking(move || store.room_for_messages()).await {
            shared.messages.set_disk_budget(bytes);
        }
    }
}

/// Has the store delete what is left in staging, from the start on and now and then. Never ends.
pub(crate) async fn delete_left(shared: &ServerState) {
    loop {
        // Each is tried once: what can not be deleted now may be later.
        let mut untried = shared.store.left();
        while untried > 0 {
            let store = shared.store.clone();
            let goes_on = spawn_blocking(move || store.delete_left()).await;
            if !goes_on.unwrap_or(false) {
                untried -= 1;
            }
        }
        sleep(INTERVAL).await;
    }
}

async fn forget_messages(shared: &ServerState, config: &Config) {
    let limits = &config.limits;
    let most = limits.kept_messages as u64;
    match shared.messages.forget(limits.keep_messages, most).await {
        Ok(0) => {}
        Ok(dropped) => info!(
            name: "messages_dropped",
            messages = dropped,
            "dropped the oldest messages"
        ),
        Err(error) => warn!(name: "messages_not_dropped", %error, "can not drop old messages"),
    }
}

/// The settings of the store.
pub(crate) fn settings(config: &Config) -> StoreSettings {
    let limits = &config.limits;
    StoreSettings {
        free_space_floor: limits.free_space_floor,
        keep_uploads: limits.keep_uploads,
        kept_uploads: limits.kept_uploads,
    }
}

/// Until it looks again.
fn pause(settings: StoreSettings) -> Duration {
    settings.keep_uploads.clamp(SHORTEST, INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_once_a_minute_or_as_often_as_uploads_expire_but_does_not_spin() {
        let looks_after = |keep_uploads| {
            let mut config = Config::default();
            config.limits.keep_uploads = keep_uploads;
            pause(settings(&config))
        };
        let second = Duration::from_secs(1);
        assert_eq!(looks_after(second * 3600), second * 60);
        assert_eq!(looks_after(second * 5), second * 5);
        assert_eq!(looks_after(Duration::from_nanos(1)), second / 10);
        assert_eq!(looks_after(Duration::ZERO), second / 10);
    }
}
