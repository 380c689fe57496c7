//! Asking something that may take long, or never answer: a disk.
//!
//! It is asked at most once at a time, however many want to know, and not again before the answer
//! has become old. Nobody waits long: while the next answer is on its way the last one counts.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout_at};

/// An answer is used again for so long.
const FRESH: Duration = Duration::from_secs(2);

/// Who asks waits for a new answer at most so long.
const WAIT: Duration = Duration::from_millis(500);

/// What has not answered for so long hangs. A disk may well be busy for some seconds.
const HANGING: Duration = Duration::from_secs(10);

/// What is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer<T> {
    /// It answers, or did a moment ago.
    Known(T),
    /// It was asked for the first time a moment ago.
    NotYet,
    /// It hangs.
    Hangs,
}

impl<T> Answer<T> {
    /// What it answers, if it does.
    pub(super) fn known(self) -> Option<T> {
        match self {
            Self::Known(answer) => Some(answer),
            Self::NotYet | Self::Hangs => None,
        }
    }
}

/// Something to ask. Cheap to clone; clones share the answers.
pub(super) struct Probe<T> {
    ask: Arc<dyn Fn() -> T + Send + Sync>,
    state: Arc<Mutex<State<T>>>,
}

struct State<T> {
    /// Being asked since then.
    asking: Option<(Instant, JoinHandle<(Instant, T)>)>,
    /// The last answer, and when it was given.
    known: Option<(Instant, T)>,
    /// When somebody waited last.
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

    /// What is known of it, after waiting a moment for what is new.
    pub(super) async fn answer(&self) -> Answer<T> {
        let mut state = self.state.lock().await;
        if state.looked.is_none_or(|looked| looked.elapsed() >= FRESH) {
            let patience = Instant::now() + WAIT;
            // What was asked long ago may have been answered long ago.
            while Instant::now() < patience && !state.is_fresh() {
                self.look(&mut state, patience).await;
            }
            state.looked = Some(Instant::now());
        }
        let hangs = state.asking.as_ref();
        if hangs.is_some_and(|(since, _)| since.elapsed() >= HANGING) {
            return Answer::Hangs;
        }
        match (&state.known, &state.asking) {
            (Some((_, known)), _) => Answer::Known(known.clone()),
            (None, Some(_)) => Answer::NotYet,
            // It has panicked.
            (None, None) => Answer::Hangs,
        }
    }

    /// Waits for an answer until then.
    async fn look(&self, state: &mut State<T>, patience: Instant) {
        let (_, asking) = state.asking.get_or_insert_with(|| {
            let ask = Arc::clone(&self.ask);
            let asking = spawn_blocking(move || {
                let answer = ask();
                (Instant::now(), answer)
            });
            (Instant::now(), asking)
        });
        if let Ok(answered) = timeout_at(patience, asking).await {
            state.asking = None;
            state.known = answered.ok();
        }
    }
}

impl<T> State<T> {
    fn is_fresh(&self) -> bool {
        let known = self.known.as_ref();
        known.is_some_and(|(at, _)| at.elapsed() < FRESH)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_at_once_and_soon_again_are_one_question() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let probe = Probe::new(move || counted.fetch_add(1, Ordering::Relaxed));
        let (one, other) = tokio::join!(probe.answer(), probe.answer());
        assert_eq!((one, other), (Answer::Known(0), Answer::Known(0)));
        assert_eq!(probe.clone().answer().await, Answer::Known(0));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_answer_is_asked_for_again() {
        let asked = AtomicUsize::new(0);
        let probe = Probe::new(move || asked.fetch_add(1, Ordering::Relaxed));
        assert_eq!(probe.answer().await, Answer::Known(0));
        tokio::time::advance(FRESH).await;
        assert_eq!(probe.answer().await, Answer::Known(1));
    }

    #[tokio::test(start_paused = true)]
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
        assert_eq!(probe.answer().await, Answer::Known(7));
        // The clock stands still as long as a thread is asked.
        let after = async |time| {
            tokio::time::advance(time).await;
            let (answer, ()) = tokio::join!(probe.answer(), tokio::time::advance(WAIT * 2));
            answer
        };
        assert_eq!(after(FRESH).await, Answer::Known(7), "it may only be busy");
        assert_eq!(after(HANGING).await, Answer::Hangs);
        tokio::time::advance(FRESH).await;
        answer.send(8).expect("it is still being asked");
        assert_eq!(probe.answer().await, Answer::Known(8));
        assert_eq!(asked.load(Ordering::Relaxed), 2, "once, and once more");
        // What it says late, when nobody listens, is old by the time that somebody does.
        tokio::time::advance(FRESH).await;
        let (late, ()) = tokio::join!(probe.answer(), tokio::time::advance(WAIT * 2));
        assert_eq!(late, Answer::Known(8), "it may only be busy");
        answer.send(9).expect("it is being asked");
        let is_answered = async || {
            let state = probe.state.lock().await;
            let asking = state.asking.as_ref();
            asking.is_some_and(|(_, asking)| asking.is_finished())
        };
        while !is_answered().await {
            tokio::task::yield_now().await;
        }
        tokio::time::advance(FRESH).await;
        answer.send(10).expect("it is asked again");
        assert_eq!(probe.answer().await, Answer::Known(10));
    }
}
