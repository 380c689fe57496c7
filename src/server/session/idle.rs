//! Whether anything has happened in a session for too long.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// The signs of life of a session. Touching it costs no timer: the one timer looks at the last
/// sign when it rings, and is set again from there.
#[derive(Debug)]
pub(crate) struct Idle {
    timer: Option<(Duration, Pin<Box<Sleep>>)>,
    last: Life,
}

/// When something last happened. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Life(Arc<Mutex<Instant>>);

impl Life {
    /// Something happens now.
    pub(crate) fn touch(&self) {
        *self.lock() = Instant::now();
    }

    fn lock(&self) -> MutexGuard<'_, Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    /// Begins now; without a timeout it never ends.
    pub(crate) fn new(timeout: Option<Duration>) -> Self {
        let now = Instant::now();
        Self {
            timer: timeout.map(|timeout| (timeout, Box::pin(sleep_until(now + timeout)))),
            last: Life(Arc::new(Mutex::new(now))),
        }
    }

    /// For whoever has something to do in the session: to be touched when it is done.
    pub(crate) fn life(&self) -> Life {
        self.last.clone()
    }

    /// Resolves once nothing has happened for the whole time and nothing is under way.
    ///
    /// Cancel-safe.
    pub(crate) async fn is_over(&mut self, is_busy: impl Fn() -> bool) {
        let Some((timeout, timer)) = &mut self.timer else {
            return std::future::pending().await;
        };
        loop {
            timer.as_mut().await;
            let now = Instant::now();
            let over = *self.last.lock() + *timeout;
            if is_busy() {
                timer.as_mut().reset(now + *timeout);
            } else if over > now {
                timer.as_mut().reset(over);
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
    async fn silence_is_over_after_its_time_from_the_last_sign_of_life() {
        let mut idle = Idle::new(Some(MINUTE * 30));
        let (life, start) = (idle.life(), Instant::now());
        sleep(MINUTE * 20).await;
        life.touch();
        idle.is_over(|| false).await;
        assert_eq!(start.elapsed(), MINUTE * 50);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_is_life_and_its_end_the_last_sign_of_it() {
        let mut idle = Idle::new(Some(MINUTE * 30));
        let (life, start) = (idle.life(), Instant::now());
        let busy = Arc::new(AtomicBool::new(true));
        let work = busy.clone();
        tokio::spawn(async move {
            sleep(MINUTE * 100).await;
            work.store(false, Ordering::SeqCst);
            life.touch();
        });
        idle.is_over(|| busy.load(Ordering::SeqCst)).await;
        assert_eq!(start.elapsed(), MINUTE * 130);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_time_it_is_never_over() {
        let mut idle = Idle::new(None);
        let never = timeout(MINUTE * 60 * 24 * 365, idle.is_over(|| false));
        assert!(never.await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_it_can_be_given_up_and_taken_up_again() {
        let mut idle = Idle::new(Some(MINUTE));
        let start = Instant::now();
        for _ in 0..100 {
            let _ = timeout(Duration::from_millis(100), idle.is_over(|| false)).await;
        }
        idle.is_over(|| false).await;
        assert_eq!(start.elapsed(), MINUTE);
    }
}
