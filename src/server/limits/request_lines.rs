//! Limits log lines about requests: each user has a budget of bytes per second, and all clients without
//! a login share one. Lines beyond it are counted, and one line reports how many were left out.
//!
//! Audit lines are not limited, except those about requests that were refused before anything was done: one for
//! each user and command in a minute. The other refusals get an ordinary line.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;
use tracing::info;

use crate::server::limits::log_throttle::LogThrottle;

/// Bytes of lines per second: about a hundred typical lines.
const BYTES_PER_SECOND: u64 = 32 * 1024;

/// Bytes of lines in a burst.
const BURST_BYTES: u64 = 1024 * 1024;

/// Bytes that must be available before lines are logged again after some were left out, so that there
/// are few lines that only report how many were left out.
const MIN_RESUME_BYTES: u64 = BYTES_PER_SECOND;

/// Bytes of a line without the paths in it.
const LINE_BYTES: usize = 320;

/// The budgets of all users.
#[derive(Debug, Default)]
pub(crate) struct RequestLines {
    users: Mutex<HashMap<i64, Arc<LineBudget>>>,
    unauthenticated: Arc<LineBudget>,
    left_out: Arc<AtomicU64>,
}

/// The budget of one user, or of all clients without a login.
#[derive(Debug)]
pub(crate) struct LineBudget {
    user: Option<String>,
    /// Lines left out of all users.
    all_left_out: Arc<AtomicU64>,
    state: Mutex<LineBudgetState>,
    /// The audit lines about refused requests, by command.
    refusals: Mutex<HashMap<&'static str, LogThrottle>>,
}

#[derive(Debug)]
struct LineBudgetState {
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
    /// The budget of a user, shared by all of their sessions. It is kept after the last one ends, until
    /// it is full again.
    pub(crate) fn for_user(&self, user: i64, name: &str) -> Arc<LineBudget> {
        let now = Instant::now();
        let mut users = self.users.lock();
        users.retain(|_, budget| Arc::strong_count(budget) > 1 || !budget.is_unused(now));
        let budget = users.entry(user).or_insert_with(|| {
            let left_out = Arc::clone(&self.left_out);
            Arc::new(LineBudget::new(Some(name.to_owned()), left_out))
        });
        Arc::clone(budget)
    }

    /// The budget of all clients without a login.
    pub(crate) fn for_unauthenticated(&self) -> Arc<LineBudget> {
        Arc::clone(&self.unauthenticated)
    }

    /// Lines that were left out since the start.
    pub(crate) fn left_out(&self) -> u64 {
        let unauthenticated = self.unauthenticated.all_left_out.load(Ordering::Relaxed);
        self.left_out.load(Ordering::Relaxed) + unauthenticated
    }
}

impl LineBudget {
    fn new(user: Option<String>, all_left_out: Arc<AtomicU64>) -> Self {
        Self {
            user,
            all_left_out,
            state: Mutex::new(LineBudgetState {
                bytes: BURST_BYTES,
                since: Instant::now(),
                left_out: 0,
            }),
            refusals: Mutex::default(),
        }
    }

    /// Whether the audit gets a line about a refused `command`: how many it did not get since the last one.
    pub(crate) fn allows_refusal_audit(&self, command: &'static str) -> Option<u64> {
        let mut refusals = self.refusals.lock();
        let throttle = refusals
            .entry(command)
            .or_insert_with(LogThrottle::once_per_minute);
        throttle.allow(Instant::now())
    }

    /// Whether a line with `paths` bytes of paths may be logged. Before the first line after some were
    /// left out, it logs how many those were.
    pub(crate) fn allows(&self, paths: usize) -> bool {
        match self.try_spend(paths, Instant::now()) {
            None => false,
            Some(0) => true,
            Some(left_out) => {
                self.log_left_out(left_out);
                true
            }
        }
    }

    /// Logs how many lines were left out. Called at the end of a session, since no further request may
    /// follow.
    pub(crate) fn report_left_out(&self) {
        let left_out = std::mem::take(&mut self.lock().left_out);
        if left_out > 0 {
            self.log_left_out(left_out);
        }
    }

    fn log_left_out(&self, left_out: u64) {
        info!(
            name: "requests_left_out",
            user = self.user,
            left_out,
            "requests came too fast to log each of them"
        );
    }

    /// Spends the bytes of a line, if available; returns how many were left out before it.
    fn try_spend(&self, paths: usize, now: Instant) -> Option<u64> {
        let line = (LINE_BYTES + paths) as u64;
        let mut state = self.lock();
        state.refill(now);
        let wanted = if state.left_out > 0 {
            MIN_RESUME_BYTES.max(line)
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

    /// Whether a new budget would allow the same.
    fn is_unused(&self, now: Instant) -> bool {
        let mut state = self.lock();
        state.refill(now);
        state.bytes >= BURST_BYTES && self.refusals.lock().values().all(|one| one.is_due(now))
    }

    fn lock(&self) -> MutexGuard<'_, LineBudgetState> {
        self.state.lock()
    }
}

impl LineBudgetState {
    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        let earned = passed.saturating_mul(BYTES_PER_SECOND) / 1000;
        // Fractions of a byte are not lost: `since` only advances with at least one byte.
        if earned > 0 {
            self.bytes = BURST_BYTES.min(self.bytes.saturating_add(earned));
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
                if let Some(left_out) = budget.try_spend(4096, now) {
                    bytes += LINE_BYTES + 4096;
                    told += left_out;
                    tellings += usize::from(left_out > 0);
                }
            }
        }
        let most = BURST_BYTES + 60 * BYTES_PER_SECOND;
        assert!(bytes as u64 <= most, "{bytes} bytes, more than {most}");
        assert!(tellings <= 75, "{tellings} lines about lines");
        let lines = (bytes / (LINE_BYTES + 4096)) as u64;
        assert_eq!(lines + told + budget.lock().left_out, 600_000);
    }

    #[tokio::test(start_paused = true)]
    async fn the_audit_has_one_line_a_minute_about_refusals_of_a_command() {
        let all = RequestLines::default();
        let user = all.for_user(7, "alice");
        assert_eq!(user.allows_refusal_audit("user_add"), Some(0));
        assert_eq!(user.allows_refusal_audit("user_add"), None);
        assert_eq!(user.allows_refusal_audit("kick"), Some(0));
        drop(user);
        let again = all.for_user(7, "alice");
        assert_eq!(
            again.allows_refusal_audit("user_add"),
            None,
            "a new session"
        );
        tokio::time::advance(Duration::from_mins(1)).await;
        assert_eq!(again.allows_refusal_audit("user_add"), Some(2));
    }

    #[test]
    fn a_user_who_comes_back_at_once_has_what_was_left_and_others_have_their_own() {
        let all = RequestLines::default();
        let first = all.for_user(7, "alice");
        while first.allows(4096) {}
        drop(first);
        assert!(!all.for_user(7, "alice").allows(4096));
        assert!(all.for_user(8, "bob").allows(4096));
        assert_eq!(all.left_out(), 2);
    }
}
