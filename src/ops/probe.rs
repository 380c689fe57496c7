//! Asking something that may take long, or never answer: a disk.
//!
//! It is asked at most once at a time, however many want to know, and not again before the answer
//! has become old. Nobody waits long: while the next answer is on its way the last one counts.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout};

/// An answer is used again for so long.
const FRESH: Duration = Duration::from_secs(2);

/// Who asks waits for a new answer at most so long.
const WAIT: Duration = Duration::from_millis(500);

/// What has not answered for so long hangs. A disk may well be busy for some seconds.
const HANGING: Duration = Duration::from_secs(10);

/// Something to ask. Cheap to clone; clones share the answers.
pub(super) struct Probe<T> {
    ask: Arc<dyn Fn() -> T + Send + Sync>,
    state: Arc<Mutex<State<T>>>,
}

struct State<T> {
    /// Being asked since then.
    asking: Option<(Instant, JoinHandle<T>)>,
    /// The last answer.
    known: Option<T>,
    /// When it came, or was waited for in vain.
    looked: Option<Instant>,
}

impl<T> Clone for Probe<T> {
    fn clone(&self) -> Self {
        Self {
            ask: Arc::clone(&self.ask),
            state: Arc::clone(&self.state),
        }
    }
}

impl<T: Clone + Send + 'static> Probe<T> {
    /// Asks by `ask`, on a thread that may block.
    pub(super) fn new(ask: impl Fn() -> T + Send + Sync + 'static) -> Self {
        Self {
            ask: Arc::new(ask),
            state: Arc::new(Mutex::new(State {
                asking: None,
                known: None,
                looked: None,
            })),
        }
    }

    /// What it answers, or answered a moment ago; nothing if it hangs.
    pub(super) async fn answer(&self) -> Option<T> {
        let mut state = self.state.lock().await;
        if state.looked.is_none_or(|looked| looked.elapsed() >= FRESH) {
            self.look(&mut state).await;
        }
        let hangs = state.asking.as_ref();
        if hangs.is_some_and(|(since, _)| since.elapsed() >= HANGING) {
            return None;
        }
        state.known.clone()
    }

    /// Waits a moment for a new answer.
    async fn look(&self, state: &mut State<T>) {
        let (_, asking) = state.asking.get_or_insert_with(|| {
            let ask = Arc::clone(&self.ask);
            (Instant::now(), spawn_blocking(move || ask()))
        });
        if let Ok(answered) = timeout(WAIT, asking).await {
            state.asking = None;
            state.known = answered.ok();
        }
        state.looked = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn many_who_ask_at_once_and_soon_again_are_one_question() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let probe = Probe::new(move || counted.fetch_add(1, Ordering::Relaxed));
        let (one, other) = tokio::join!(probe.answer(), probe.answer());
        assert_eq!((one, other), (Some(0), Some(0)));
        assert_eq!(probe.clone().answer().await, Some(0));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_answer_is_asked_for_again() {
        let asked = AtomicUsize::new(0);
        let probe = Probe::new(move || asked.fetch_add(1, Ordering::Relaxed));
        assert_eq!(probe.answer().await, Some(0));
        tokio::time::advance(FRESH).await;
        assert_eq!(probe.answer().await, Some(1));
    }

    #[tokio::test]
    async fn what_does_not_answer_is_asked_once_counts_for_a_while_and_hangs_then() {
        let (answer, answers) = mpsc::channel();
        let answers = std::sync::Mutex::new(answers);
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let probe = Probe::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            answers.lock().expect("no panic").recv().unwrap_or(0)
        });
        answer.send(7).expect("it asks");
        assert_eq!(probe.answer().await, Some(7));
        // The clock stands still from here on, but for what is waited for.
        tokio::time::pause();
        let after = async |time| {
            tokio::time::advance(time).await;
            let (answer, ()) = tokio::join!(probe.answer(), tokio::time::advance(WAIT * 2));
            answer
        };
        assert_eq!(after(FRESH).await, Some(7), "it may only be busy");
        assert_eq!(after(HANGING).await, None);
        assert_eq!(asked.load(Ordering::Relaxed), 2, "once, and once more");
        answer.send(8).expect("it is still being asked");
        tokio::time::advance(FRESH).await;
        assert_eq!(probe.answer().await, Some(8));
    }
}
