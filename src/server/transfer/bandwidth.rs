//! The bandwidth limit of each user, for all of their sessions together.
//!
//! A chunk passes when the time of those before it is over, and then sets the time of the next.
//! Transfers take turns chunk by chunk. A transfer that gives up while it waits has used nothing, and
//! a new rate holds from the next chunk on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync;
use tokio::time::{Instant, sleep_until};

/// The longest unused time that later chunks may use.
const SLACK: Duration = Duration::from_millis(100);

/// The users with sessions, or whose last chunks still take time.
#[derive(Debug, Default)]
pub(crate) struct Bandwidths(Mutex<HashMap<i64, Arc<BandwidthQueues>>>);

impl Bandwidths {
    /// The bandwidth of a user, by account number. All sessions of the user share it.
    pub(crate) fn for_user(&self, user: i64) -> Bandwidth {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A user who comes back at once still waits for the time of earlier chunks.
        users.retain(|_, queues| Arc::strong_count(queues) > 1 || !queues.are_free());
        let queues = users.entry(user).or_default();
        Bandwidth(Arc::clone(queues))
    }
}

/// One user's share of the network. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Bandwidth(Arc<BandwidthQueues>);

#[derive(Debug, Default)]
struct BandwidthQueues {
    up: BandwidthQueue,
    down: BandwidthQueue,
}

impl BandwidthQueues {
    fn are_free(&self) -> bool {
        self.up.is_free() && self.down.is_free()
    }
}

impl Bandwidth {
    /// Waits until `bytes` may come from the user at `rate` bytes a second, if there is one.
    pub(crate) async fn up(&self, bytes: usize, rate: Option<u64>) {
        self.0.up.pass(bytes, rate).await;
    }

    /// Waits until `bytes` may go to the user at `rate` bytes a second, if there is one.
    pub(crate) async fn down(&self, bytes: usize, rate: Option<u64>) {
        self.0.down.pass(bytes, rate).await;
    }
}

/// One direction: the time at which the next chunk may pass. The lock is fair, and is held while a
/// chunk waits.
#[derive(Debug)]
struct BandwidthQueue(sync::Mutex<Instant>);

impl Default for BandwidthQueue {
    fn default() -> Self {
        Self(sync::Mutex::new(Instant::now()))
    }
}

impl BandwidthQueue {
    async fn pass(&self, bytes: usize, rate: Option<u64>) {
        let Some(rate) = rate else {
            return;
        };
        let mut free_at = self.0.lock().await;
        sleep_until(*free_at).await;
        let now = Instant::now();
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        *free_at = (*free_at).max(earliest) + duration(bytes, rate);
    }

    fn is_free(&self) -> bool {
        let free_at = self.0.try_lock();
        free_at.is_ok_and(|free_at| *free_at <= Instant::now())
    }
}

/// The time that `bytes` take at `rate` bytes a second.
fn duration(bytes: usize, rate: u64) -> Duration {
    let nanoseconds =
        u128::try_from(bytes).unwrap_or(u128::MAX) * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::{sleep, timeout};

    use super::*;

    const SHORT_CHUNK_BYTES: usize = 128 * 1024;
    const RATE: Option<u64> = Some(1 << 20);

    /// Sends chunks without end, and counts their bytes.
    fn transfer(bandwidth: &Bandwidth) -> Arc<AtomicUsize> {
        let (sent, bandwidth) = (Arc::new(AtomicUsize::new(0)), bandwidth.clone());
        let counter = Arc::clone(&sent);
        tokio::spawn(async move {
            loop {
                bandwidth.down(SHORT_CHUNK_BYTES, RATE).await;
                counter.fetch_add(SHORT_CHUNK_BYTES, Ordering::Relaxed);
            }
        });
        sent
    }

    #[tokio::test(start_paused = true)]
    async fn all_transfers_of_a_user_have_the_rate_together_and_equal_parts_of_it() {
        let users = Bandwidths::default();
        let sessions = [users.for_user(1), users.for_user(1)];
        let sent: Vec<_> = (0..4).map(|n| transfer(&sessions[n % 2])).collect();
        sleep(Duration::from_mins(1)).await;
        let sent: Vec<_> = sent
            .iter()
            .map(|sent| sent.load(Ordering::Relaxed))
            .collect();
        let total: usize = sent.iter().sum();
        let exact = 60 << 20;
        assert!(
            (exact..=exact + SHORT_CHUNK_BYTES).contains(&total),
            "{total}"
        );
        // One chunk for the first transfer, and one for the next in order.
        let (least, most) = (sent.iter().min(), sent.iter().max());
        let near = least.map(|least| least + 2 * SHORT_CHUNK_BYTES);
        assert!(most <= near.as_ref(), "{sent:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn each_direction_and_each_user_has_a_rate_of_its_own() {
        let users = Bandwidths::default();
        let (alice, bob) = (users.for_user(1), users.for_user(2));
        let start = Instant::now();
        alice.down(60 << 20, RATE).await;
        alice.up(60 << 20, RATE).await;
        bob.down(60 << 20, RATE).await;
        alice.down(60 << 20, None).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        alice.down(1, RATE).await;
        assert_eq!(start.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_while_waiting_has_taken_nothing() {
        let alice = Bandwidths::default().for_user(1);
        let start = Instant::now();
        alice.up(10 << 20, RATE).await;
        let waiting = timeout(Duration::from_secs(5), alice.up(100 << 20, RATE));
        assert!(waiting.await.is_err());
        alice.up(1, RATE).await;
        assert_eq!(start.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_session_does_not_wipe_out_what_the_last_one_left_to_be_paid() {
        let users = Bandwidths::default();
        let start = Instant::now();
        users.for_user(1).down(10 << 20, RATE).await;
        users.for_user(2);
        users.for_user(1).down(1, RATE).await;
        assert_eq!(start.elapsed().as_secs(), 10);
        sleep(Duration::from_secs(1)).await;
        users.for_user(2);
        let there = users.0.lock().expect("no panic").len();
        assert_eq!(there, 1, "who has nothing to pay is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silence_earns_no_more_than_a_moment() {
        let alice = Bandwidths::default().for_user(1);
        sleep(Duration::from_hours(1)).await;
        let start = Instant::now();
        for _ in 0..80 {
            alice.down(SHORT_CHUNK_BYTES, RATE).await;
        }
        // All but the last are paid for, less what a moment is worth.
        let exact = duration(79 * SHORT_CHUNK_BYTES, 1 << 20);
        let took = start.elapsed();
        assert!(took + SLACK >= exact && took <= exact, "{took:?}");
    }
}
