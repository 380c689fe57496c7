//! Lines of the log about requests: each user has so many bytes of them a second, and strangers have
//! the same together. Beyond that they are counted, and one line says how many were left out.
//!
//! Lines of the audit are not among these.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use tracing::info;

/// Bytes of lines a second, for as long as it lasts: about a hundred usual ones.
const BYTES_A_SECOND: u64 = 32 * 1024;

/// Bytes of lines that may come at once.
const BURST: u64 = 1024 * 1024;

/// What is given again before lines are written again, so that the lines that say how many were left
/// out are few.
const PAUSE: u64 = BYTES_A_SECOND;

/// What a line has beside the paths in it.
const LINE: usize = 320;

/// The budgets of all users.
#[derive(Debug, Default)]
pub(crate) struct RequestLines {
    users: Mutex<HashMap<i64, Arc<LineBudget>>>,
    strangers: Arc<LineBudget>,
    left_out: Arc<AtomicU64>,
}

/// What may be written of requests of one user, or of all strangers.
#[derive(Debug)]
pub(crate) struct LineBudget {
    user: Option<String>,
    /// Of all users.
    all_left_out: Arc<AtomicU64>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bytes: u64,
    since: Instant,
    left_out: u64,
}

impl Default for LineBudget {
    fn default() -> Self {
        Self::new(None, Arc::default())
    }
}

impl RequestLines {
    /// The budget of a user, the same in all of their sessions, and in those that come soon.
    pub(crate) fn of(&self, user: i64, name: &str) -> Arc<LineBudget> {
        let now = Instant::now();
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.retain(|_, budget| Arc::strong_count(budget) > 1 || !budget.is_full(now));
        let budget = users.entry(user).or_insert_with(|| {
            let left_out = Arc::clone(&self.left_out);
            Arc::new(LineBudget::new(Some(name.to_owned()), left_out))
        });
        Arc::clone(budget)
    }

    /// The budget of those who have not logged in.
    pub(crate) fn of_strangers(&self) -> Arc<LineBudget> {
        Arc::clone(&self.strangers)
    }

    /// Lines that were left out since the start.
    pub(crate) fn left_out(&self) -> u64 {
        let strangers = self.strangers.all_left_out.load(Ordering::Relaxed);
        self.left_out.load(Ordering::Relaxed) + strangers
    }
}

impl LineBudget {
    fn new(user: Option<String>, all_left_out: Arc<AtomicU64>) -> Self {
        Self {
            user,
            all_left_out,
            state: Mutex::new(State {
                bytes: BURST,
                since: Instant::now(),
                left_out: 0,
            }),
        }
    }

    /// Whether a line may be written that has so many bytes of paths. Before the first one after some
    /// were left out, it says how many those were.
    pub(crate) fn allows(&self, paths: usize) -> bool {
        match self.take(paths, Instant::now()) {
            None => false,
            Some(0) => true,
            Some(left_out) => {
                self.tell(left_out);
                true
            }
        }
    }

    /// Says how many lines were left out, if nobody may come who would.
    pub(crate) fn settle(&self) {
        let left_out = std::mem::take(&mut self.lock().left_out);
        if left_out > 0 {
            self.tell(left_out);
        }
    }

    fn tell(&self, left_out: u64) {
        info!(
            name: "requests_left_out",
            user = self.user,
            left_out,
            "requests came too fast for a line of each"
        );
    }

    /// How many were left out before this line, if it may be written.
    fn take(&self, paths: usize, now: Instant) -> Option<u64> {
        // A quotation mark in a path is two bytes in JSON.
        let line = (LINE + paths) as u64;
        let mut state = self.lock();
        state.refill(now);
        let wanted = if state.left_out > 0 {
            PAUSE.max(line)
        } else {
            line
        };
        if state.bytes < wanted {
            state.left_out += 1;
            self.all_left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        state.bytes -= line;
        Some(std::mem::take(&mut state.left_out))
    }

    fn is_full(&self, now: Instant) -> bool {
        let mut state = self.lock();
        state.refill(now);
        state.bytes >= BURST
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        let earned = passed.saturating_mul(BYTES_A_SECOND) / 1000;
        // Too little to count is not lost.
        if earned > 0 {
            self.bytes = BURST.min(self.bytes.saturating_add(earned));
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_of_requests_is_a_bounded_number_of_bytes_and_the_rest_is_counted() {
        let budget = LineBudget::default();
        let start = budget.lock().since;
        let (mut bytes, mut told, mut tellings) = (0, 0, 0);
        for millisecond in 0..60_000 {
            for _ in 0..10 {
                let now = start + Duration::from_millis(millisecond);
                if let Some(left_out) = budget.take(4096, now) {
                    bytes += LINE + 4096;
                    told += left_out;
                    tellings += usize::from(left_out > 0);
                }
            }
        }
        let most = BURST + 60 * BYTES_A_SECOND;
        assert!(bytes as u64 <= most, "{bytes} bytes, more than {most}");
        assert!(tellings <= 75, "{tellings} lines about lines");
        let lines = (bytes / (LINE + 4096)) as u64;
        assert_eq!(lines + told + budget.lock().left_out, 600_000);
    }

    #[test]
    fn a_user_who_comes_back_at_once_has_what_was_left_and_others_have_their_own() {
        let all = RequestLines::default();
        let first = all.of(7, "alice");
        while first.allows(4096) {}
        drop(first);
        assert!(!all.of(7, "alice").allows(4096));
        assert!(all.of(8, "bob").allows(4096));
        assert_eq!(all.left_out(), 2);
    }
}
