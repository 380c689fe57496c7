//! The end of a count that an operation has to wait for.
//!
//! An engine that has to count a home or a folder first answers an operation with a [`CountEnd`].
//! The caller waits for it without blocking a thread, then tries the operation again.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;

/// The outcome of a count; absent while the count is under way.
type CountOutcome = Option<Result<(), Arc<io::Error>>>;

/// Reports the outcome of a count to every [`CountEnd`].
#[derive(Debug)]
pub(crate) struct CountOutcomeSender(watch::Sender<CountOutcome>);

impl CountOutcomeSender {
    /// Ends the count for everyone who waits for it.
    pub(crate) fn send(&self, result: io::Result<()>) {
        self.0.send_replace(Some(result.map_err(Arc::new)));
    }
}

/// The end of a count.
#[derive(Debug, Clone)]
pub struct CountEnd(watch::Receiver<CountOutcome>);

impl CountEnd {
    /// The end of a count that is under way until the sender reports its outcome or is dropped.
    pub(crate) fn channel() -> (CountOutcomeSender, Self) {
        let (sender, receiver) = watch::channel(None);
        (CountOutcomeSender(sender), Self(receiver))
    }

    /// Waits for the outcome. A count whose sender is dropped ends without an error, because its
    /// space is gone or another count replaces it.
    ///
    /// # Cancel safety
    /// Nothing is lost if this is dropped.
    pub(crate) async fn finished(mut self) -> io::Result<()> {
        match self.0.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Err(error))) => Err(copy_of(error)),
            _ => Ok(()),
        }
    }

    /// The outcome, if the count has ended or was abandoned.
    pub(crate) fn outcome(&self) -> Option<io::Result<()>> {
        if self.is_abandoned() {
            return Some(Ok(()));
        }
        let outcome = self.0.borrow();
        let result = outcome.as_ref()?;
        Some(result.as_ref().copied().map_err(|error| copy_of(error)))
    }

    /// Whether the count was dropped before it had an outcome.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.0.has_changed().is_err() && self.0.borrow().is_none()
    }
}

/// Several callers may wait for one count, and each needs an error of its own.
fn copy_of(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
