//! The idle timeout of a session.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// The timer of the idle timeout. Recording activity does not reset the timer: when it expires, it is set
/// again from the time of the last activity.
#[derive(Debug)]
pub(crate) struct IdleTimer {
    timer: Option<(Duration, Pin<Box<Sleep>>)>,
    last_activity: LastActivity,
}

/// The time of the last activity. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct LastActivity(Arc<Mutex<Instant>>);

impl LastActivity {
    /// Sets the time of the last activity to now.
    pub(crate) fn record(&self) {
        *self.lock() = Instant::now();
    }

    fn lock(&self) -> MutexGuard<'_, Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IdleTimer {
    /// Starts the timer; without a timeout it never expires.
    pub(crate) fn new(timeout: Option<Duration>) -> Self {
        let now = Instant::now();
        Self {
            timer: timeout.map(|timeout| (timeout, Box::pin(sleep_until(now + timeout)))),
            last_activity: LastActivity(Arc::new(Mutex::new(now))),
        }
    }

    /// For the tasks of the session, which record their end.
    pub(crate) fn last_activity(&self) -> LastActivity {
        self.last_activity.clone()
    }

    /// Resolves once the session has had no activity for the timeout, and is not busy.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn expired(&mut self, is_busy: impl Fn() -> bool) {
        let Some((timeout, timer)) = &mut self.timer else {
            return std::future::pending().await;
        };
        loop {
            timer.as_mut().await;
            let now = Instant::now();
            let expiry = *self.last_activity.lock() + *timeout;
            if is_busy() {
                timer.as_mut().reset(now + *timeout);
            } else if expiry > now {
                timer.as_mut().reset(expiry);
            } else {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::time::{sleep, timeout};

    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[tokio::test(start_paused = true)]
    async fn the_timer_expires_a_timeout_after_the_last_activity() {
        let mut idle = IdleTimer::new(Some(MINUTE * 30));
        let (activity, start) = (idle.last_activity(), Instant::now());
        sleep(MINUTE * 20).await;
        activity.record();
        idle.expired(|| false).await;
        assert_eq!(start.elapsed(), MINUTE * 50);
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_session_does_not_expire_and_the_end_of_its_work_is_activity() {
        let mut idle = IdleTimer::new(Some(MINUTE * 30));
        let (activity, start) = (idle.last_activity(), Instant::now());
        let busy = Arc::new(AtomicBool::new(true));
        let work = busy.clone();
        tokio::spawn(async move {
            sleep(MINUTE * 100).await;
            work.store(false, Ordering::SeqCst);
            activity.record();
        });
        idle.expired(|| busy.load(Ordering::SeqCst)).await;
        assert_eq!(start.elapsed(), MINUTE * 130);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_timeout_the_timer_never_expires() {
        let mut idle = IdleTimer::new(None);
        let never = timeout(MINUTE * 60 * 24 * 365, idle.expired(|| false));
        assert!(never.await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_wait_does_not_move_the_expiry() {
        let mut idle = IdleTimer::new(Some(MINUTE));
        let start = Instant::now();
        for _ in 0..100 {
            let _ = timeout(Duration::from_millis(100), idle.expired(|| false)).await;
        }
        idle.expired(|| false).await;
        assert_eq!(start.elapsed(), MINUTE);
    }
}
