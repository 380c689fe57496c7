//! Probes something that may be slow or hang, such as a disk.
//!
//! At most one probe runs at a time, for any number of callers, and none while the last result is fresh.
//! Callers wait for a short time only; meanwhile the last result counts.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout_at};

/// How long a result is fresh.
const FRESH_FOR: Duration = Duration::from_secs(2);

/// The longest wait of a caller for a new result.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// A probe that runs for longer hangs. A disk may be busy for some seconds.
const HANGING_AFTER: Duration = Duration::from_secs(10);

/// The result of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProbeResult<T> {
    /// The latest result.
    Known(T),
    /// The first probe has not finished.
    NotYet,
    /// The probe hangs or has panicked.
    Hangs,
}

impl<T> ProbeResult<T> {
    /// The result, if there is one.
    pub(super) fn known(self) -> Option<T> {
        match self {
            Self::Known(result) => Some(result),
            Self::NotYet | Self::Hangs => None,
        }
    }
}

/// A probe. Cheap to clone; clones share the results.
pub(super) struct Probe<T> {
    run: Arc<dyn Fn() -> T + Send + Sync>,
    state: Arc<Mutex<ProbeState<T>>>,
}

struct ProbeState<T> {
    /// The running probe, and when it was started.
    running: Option<(Instant, JoinHandle<(Instant, T)>)>,
    /// The last result, and when the probe returned it.
    known: Option<(Instant, T)>,
    /// When a caller last waited for a result.
    last_wait: Option<Instant>,
}

impl<T> Clone for Probe<T> {
    fn clone(&self) -> Self {
        Self {
            run: Arc::clone(&self.run),
            state: Arc::clone(&self.state),
        }
    }
}

impl<T: Clone + Send + 'static> Probe<T> {
    /// Creates a probe that calls `run` on a blocking thread.
    pub(super) fn new(run: impl Fn() -> T + Send + Sync + 'static) -> Self {
        Self {
            run: Arc::new(run),
            state: Arc::new(Mutex::new(ProbeState {
                running: None,
                known: None,
                last_wait: None,
            })),
        }
    }

    /// The latest result, after a short wait for a new one if it is not fresh.
    pub(super) async fn result(&self) -> ProbeResult<T> {
        let mut state = self.state.lock().await;
        if state
            .last_wait
            .is_none_or(|last| last.elapsed() >= FRESH_FOR)
        {
            let deadline = Instant::now() + PROBE_TIMEOUT;
            // The result of a probe that has run for long may be old already.
            while Instant::now() < deadline && !state.is_fresh() {
                self.refresh(&mut state, deadline).await;
            }
            state.last_wait = Some(Instant::now());
        }
        let hangs = state.running.as_ref();
        if hangs.is_some_and(|(since, _)| since.elapsed() >= HANGING_AFTER) {
            return ProbeResult::Hangs;
        }
        match (&state.known, &state.running) {
            (Some((_, known)), _) => ProbeResult::Known(known.clone()),
            (None, Some(_)) => ProbeResult::NotYet,
            // The probe has panicked.
            (None, None) => ProbeResult::Hangs,
        }
    }

    /// Starts a probe if none runs, and waits for it until `deadline`.
    async fn refresh(&self, state: &mut ProbeState<T>, deadline: Instant) {
        let (_, running) = state.running.get_or_insert_with(|| {
            let run = Arc::clone(&self.run);
            let running = spawn_blocking(move || {
                let result = run();
                (Instant::now(), result)
            });
            (Instant::now(), running)
        });
        if let Ok(finished) = timeout_at(deadline, running).await {
            state.running = None;
            state.known = finished.ok();
        }
    }
}

impl<T> ProbeState<T> {
    fn is_fresh(&self) -> bool {
        let known = self.known.as_ref();
        known.is_some_and(|(at, _)| at.elapsed() < FRESH_FOR)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn concurrent_and_repeated_callers_share_one_probe() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let probe = Probe::new(move || counted.fetch_add(1, Ordering::Relaxed));
        let (one, other) = tokio::join!(probe.result(), probe.result());
        assert_eq!((one, other), (ProbeResult::Known(0), ProbeResult::Known(0)));
        assert_eq!(probe.clone().result().await, ProbeResult::Known(0));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_result_is_replaced() {
        let asked = AtomicUsize::new(0);
        let probe = Probe::new(move || asked.fetch_add(1, Ordering::Relaxed));
        assert_eq!(probe.result().await, ProbeResult::Known(0));
        tokio::time::advance(FRESH_FOR).await;
        assert_eq!(probe.result().await, ProbeResult::Known(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_does_not_return_runs_once_and_is_reported_as_hanging_later() {
        let (answer, answers) = mpsc::channel();
        let answers = std::sync::Mutex::new(answers);
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let probe = Probe::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            answers.lock().expect("no panic").recv().unwrap_or(0)
        });
        answer.send(7).expect("it asks");
        assert_eq!(probe.result().await, ProbeResult::Known(7));
        // The clock stands still as long as a thread is asked.
        let after = async |time| {
            tokio::time::advance(time).await;
            let (answer, ()) =
                tokio::join!(probe.result(), tokio::time::advance(PROBE_TIMEOUT * 2));
            answer
        };
        assert_eq!(
            after(FRESH_FOR).await,
            ProbeResult::Known(7),
            "it may only be busy"
        );
        assert_eq!(after(HANGING_AFTER).await, ProbeResult::Hangs);
        tokio::time::advance(FRESH_FOR).await;
        answer.send(8).expect("it is still being asked");
        assert_eq!(probe.result().await, ProbeResult::Known(8));
        assert_eq!(asked.load(Ordering::Relaxed), 2, "once, and once more");
        // An answer that comes late is old when somebody reads it.
        tokio::time::advance(FRESH_FOR).await;
        let (late, ()) = tokio::join!(probe.result(), tokio::time::advance(PROBE_TIMEOUT * 2));
        assert_eq!(late, ProbeResult::Known(8), "it may only be busy");
        answer.send(9).expect("it is being asked");
        let is_answered = async || {
            let state = probe.state.lock().await;
            let running = state.running.as_ref();
            running.is_some_and(|(_, running)| running.is_finished())
        };
        while !is_answered().await {
            tokio::task::yield_now().await;
        }
        tokio::time::advance(FRESH_FOR).await;
        answer.send(10).expect("it is asked again");
        assert_eq!(probe.result().await, ProbeResult::Known(10));
    }
}
