//! A session that outlives its connections: a lost connection is replaced once for all its users.

pub(crate) mod backoff;
mod failure;

use std::fmt;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

use crate::client::session::backoff::Backoff;
use crate::client::session::failure::FailureKind;
use crate::client::transfer::progress::StopWaiting;
use crate::client::{Client, ClientError, EventPosition, Lost, Progress, RetryPolicy, Waiting};
use crate::protocol::StatReply;

/// A session that connects and logs in again when its connection is lost. Cheap to clone; clones
/// share the connection.
///
/// Its transfers are resumed: an upload after the bytes that the server has stored, a download after
/// the bytes that arrived, if the file on the server has the same version. While they wait, their
/// [`Progress`] has the reason.
#[derive(Clone)]
pub struct Session {
    shared: Arc<SessionShared>,
}

struct SessionShared {
    connect: Box<Connect>,
    policy: RetryPolicy,
    current: Mutex<CurrentConnection>,
    /// The first caller that loses the connection makes the next one; the others wait for it here.
    recovery: tokio::sync::Mutex<Recovery>,
    hung_up: AtomicBool,
    /// Some work succeeded since the last loss.
    has_succeeded: AtomicBool,
    /// Running uploads that the server keeps if the connection is lost.
    resumable: AtomicUsize,
    /// Bytes per second of each connection; 0 if there is no limit.
    bandwidth: AtomicU64,
    events: Mutex<EventState>,
}

/// The messages and offers that were received.
#[derive(Debug, Default)]
struct EventState {
    /// The position of the last one.
    last: Option<EventPosition>,
    /// How often the server did not know that position.
    resets: u64,
}

/// Makes a connection that is logged in, and sends the events after this position.
type Connect =
    dyn Fn(Option<EventPosition>) -> BoxFuture<'static, Result<Client, ClientError>> + Send + Sync;

/// A connection, and the number of connections before it.
#[derive(Clone)]
pub(crate) struct CurrentConnection {
    pub(crate) client: Client,
    pub(crate) number: u64,
}

struct Recovery {
    backoff: Backoff,
    /// Set once no further attempt is made.
    over: Option<ReconnectError>,
}

/// Why a lost connection could not be replaced.
#[derive(Debug, Clone)]
struct ReconnectError {
    lost: String,
    attempts: u32,
    cause: Option<Arc<ClientError>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Session");
        fields.field("client", &self.client());
        fields.finish_non_exhaustive()
    }
}

impl From<Client> for Session {
    /// A session that ends with this connection.
    fn from(client: Client) -> Self {
        let never = || async { Err(ClientError::Lost(Lost::Closed)) };
        Self::new(client, RetryPolicy::NEVER, never)
    }
}

impl Session {
    /// A session that begins with `client`, which is logged in, and replaces it with `connect`.
    pub fn new<F>(
        client: Client,
        policy: RetryPolicy,
        connect: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Client, ClientError>> + Send + 'static,
    {
        Self::with_events(client, policy, move |_| connect())
    }

    /// A session with events: like [`new`](Self::new), but `connect` is given the `since` and `epoch` to log
    /// in with, and must call [`Client::keep_events`] before the login, as was done for `client`.
    pub fn with_events<F>(
        client: Client,
        policy: RetryPolicy,
        connect: impl Fn(Option<EventPosition>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Client, ClientError>> + Send + 'static,
    {
        Self {
            shared: Arc::new(SessionShared {
                connect: Box::new(move |since| Box::pin(connect(since))),
                policy,
                current: Mutex::new(CurrentConnection { client, number: 0 }),
                recovery: tokio::sync::Mutex::new(Recovery {
                    backoff: Backoff::new(policy),
                    over: None,
                }),
                hung_up: AtomicBool::new(false),
                has_succeeded: AtomicBool::new(false),
                resumable: AtomicUsize::new(0),
                bandwidth: AtomicU64::new(0),
                events: Mutex::default(),
            }),
        }
    }

    /// The current connection, which may be lost.
    #[must_use]
    pub fn client(&self) -> Client {
        self.current().client
    }

    /// Whether an upload is running that the same put would resume if the connection were lost now.
    #[must_use]
    pub fn has_resumable_upload(&self) -> bool {
        self.shared.resumable.load(Ordering::Relaxed) > 0
    }

    /// Closes the connection for good, so that the server keeps its part of such uploads. To drop an
    /// upload without this cancels it.
    pub fn hang_up(&self) {
        self.shared.hung_up.store(true, Ordering::Relaxed);
        self.client().hang_up();
    }

    /// The metadata of a file or directory.
    ///
    /// # Errors
    /// Those of [`Client::call`], if the connection does not come back.
    pub async fn stat(&self, path: &str) -> Result<StatReply, ClientError> {
        let stat = |client: Client| async move { client.stat(path).await };
        self.retry(&Progress::new(), stat).await
    }

    /// Limits the bytes per second of the connections of this session, in each direction. `None` is no
    /// limit.
    pub fn limit_bandwidth(&self, bytes_per_second: Option<NonZeroU64>) {
        let rate = bytes_per_second.map_or(0, NonZeroU64::get);
        self.shared.bandwidth.store(rate, Ordering::Relaxed);
        self.client().connection.bandwidth.set(bytes_per_second);
    }

    fn bandwidth(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.shared.bandwidth.load(Ordering::Relaxed))
    }

    pub(crate) fn current(&self) -> CurrentConnection {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, CurrentConnection> {
        let current = self.shared.current.lock();
        current.unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that some work succeeded, so that the next loss is the first in a row.
    pub(crate) fn note_success(&self) {
        self.shared.has_succeeded.store(true, Ordering::Relaxed);
    }

    /// Notes that a message or offer was received. The next connection continues after it. Returns whether
    /// it is new.
    pub(crate) fn note_event(&self, position: EventPosition) -> bool {
        let mut events = self.lock_events();
        let is_new = events
            .last
            .as_ref()
            .is_none_or(|last| last.seq < position.seq);
        if is_new {
            events.last = Some(position);
        }
        is_new
    }

    /// The position of the last message or offer that an
    /// [`EventSubscription`](crate::client::EventSubscription) returned.
    #[must_use]
    pub fn last_event(&self) -> Option<EventPosition> {
        self.lock_events().last.clone()
    }

    /// How often the server did not know the last event, because it was restored to an earlier state.
    /// It may then send events again, under other numbers.
    #[must_use]
    pub fn server_resets(&self) -> u64 {
        self.lock_events().resets
    }

    fn lock_events(&self) -> MutexGuard<'_, EventState> {
        let events = self.shared.events.lock();
        events.unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a resumable upload until the returned value is dropped.
    pub(crate) fn resumable_upload(&self) -> ResumableUploadGuard {
        self.shared.resumable.fetch_add(1, Ordering::Relaxed);
        ResumableUploadGuard(Arc::clone(&self.shared))
    }

    /// Does idempotent work, again after each loss.
    pub(crate) async fn retry<T, F>(
        &self,
        progress: &Progress,
        work: impl Fn(Client) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        self.retry_resumable(progress, || false, work).await
    }

    /// [`retry`](Self::retry) for work that continues where the last attempt ended. `has_advanced` returns
    /// whether it has advanced since the last call; then all attempts are left again.
    pub(crate) async fn retry_resumable<T, F>(
        &self,
        progress: &Progress,
        has_advanced: impl Fn() -> bool,
        work: impl Fn(Client) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let mut budget = self.retry_budget(progress);
        loop {
            let current = self.current();
            match work(current.client.clone()).await {
                Ok(done) => {
                    self.note_success();
                    return Ok(done);
                }
                Err(error) => {
                    if has_advanced() {
                        budget.note_advance();
                    }
                    budget.wait_after(&current, error).await?;
                }
            }
        }
    }

    pub(crate) fn retry_budget<'a>(&'a self, progress: &'a Progress) -> RetryBudget<'a> {
        self.continued_budget(progress, self.new_attempts())
    }

    /// What a work begins with that is not a single future.
    pub(crate) fn new_attempts(&self) -> SpentAttempts {
        SpentAttempts {
            backoff: Backoff::new(self.shared.policy),
            losses: 0,
        }
    }

    /// The budget of work that has `spent` a part of it.
    pub(crate) fn continued_budget<'a>(
        &'a self,
        progress: &'a Progress,
        spent: SpentAttempts,
    ) -> RetryBudget<'a> {
        RetryBudget {
            session: self,
            progress,
            backoff: spent.backoff,
            losses: spent.losses,
        }
    }

    /// Waits until there is another connection than `used`, which was lost because of `loss`.
    async fn recover(
        &self,
        used: &CurrentConnection,
        loss: ClientError,
        progress: &Progress,
    ) -> Result<(), ClientError> {
        let mut recovery = self.shared.recovery.lock().await;
        if self.lock().number != used.number {
            return Ok(());
        }
        if let Some(over) = &recovery.over {
            return Err(over.error(loss));
        }
        if self.shared.has_succeeded.swap(false, Ordering::Relaxed) {
            recovery.backoff.reset();
        }
        // Other work may still use the connection, although it failed for this.
        used.client.hang_up();
        let why_lost = loss.to_string();
        let (mut cause, mut is_final) = (None, false);
        loop {
            let requested = cause.as_deref().unwrap_or(&loss).retry_after();
            let wait = if is_final {
                None
            } else {
                recovery.backoff.after_failure(requested)
            };
            let Some(wait) = wait else {
                let over = ReconnectError {
                    lost: why_lost,
                    attempts: recovery.backoff.failures(),
                    cause,
                };
                let error = over.error(loss);
                recovery.over = Some(over);
                return Err(error);
            };
            let why = cause
                .as_deref()
                .map_or_else(|| why_lost.clone(), ToString::to_string);
            let _waiting = wait_for(wait, why, true, &recovery.backoff, progress).await;
            match (self.shared.connect)(self.last_event()).await {
                Ok(client) => {
                    if client.server_was_reset() {
                        let mut events = self.lock_events();
                        events.last = None;
                        events.resets += 1;
                    }
                    client.connection.bandwidth.set(self.bandwidth());
                    let mut current = self.lock();
                    current.client = client;
                    current.number += 1;
                    return Ok(());
                }
                Err(error) => {
                    is_final = FailureKind::classify(&error) == FailureKind::Final;
                    cause = Some(Arc::new(error));
                }
            }
        }
    }
}

impl ReconnectError {
    /// The error of a caller that lost the connection because of `loss`.
    fn error(&self, loss: ClientError) -> ClientError {
        match &self.cause {
            // No attempt was made.
            None => loss,
            Some(cause) => ClientError::ReconnectFailed {
                lost: self.lost.clone(),
                attempts: self.attempts,
                cause: Arc::clone(cause),
            },
        }
    }
}

/// A running upload, see [`Session::has_resumable_upload`].
pub(crate) struct ResumableUploadGuard(Arc<SessionShared>);

impl Drop for ResumableUploadGuard {
    fn drop(&mut self) {
        self.0.resumable.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The attempts that are left for one piece of work.
pub(crate) struct RetryBudget<'a> {
    session: &'a Session,
    progress: &'a Progress,
    backoff: Backoff,
    /// Connections that this work has lost since it last advanced.
    losses: u32,
}

/// The part of a [`RetryBudget`] that is spent.
#[derive(Debug, Clone)]
pub(crate) struct SpentAttempts {
    backoff: Backoff,
    losses: u32,
}

impl RetryBudget<'_> {
    /// What is spent so far.
    pub(crate) fn spent(&self) -> SpentAttempts {
        SpentAttempts {
            backoff: self.backoff.clone(),
            losses: self.losses,
        }
    }

    /// Notes that the work has advanced, although it has not succeeded yet.
    pub(crate) fn note_advance(&mut self) {
        self.losses = 0;
    }

    /// Waits until the work that failed with `error` on the connection `used` may be tried again.
    ///
    /// # Errors
    /// `error`, or why there is no connection, if it must not be tried again.
    pub(crate) async fn wait_after(
        &mut self,
        used: &CurrentConnection,
        error: ClientError,
    ) -> Result<(), ClientError> {
        match FailureKind::classify(&error) {
            FailureKind::Final => Err(error),
            _ if self.session.shared.hung_up.load(Ordering::Relaxed) => Err(error),
            FailureKind::Connection => {
                // The success of other work resets the count of the session, which therefore does not bound
                // work that ends each connection. The first loss is always left to the session.
                if self.losses > 0 && self.losses >= self.backoff.attempts() {
                    return Err(error);
                }
                self.losses += 1;
                self.session.recover(used, error, self.progress).await
            }
            FailureKind::Temporary => {
                let Some(wait) = self.backoff.after_failure(error.retry_after()) else {
                    return Err(error);
                };
                let why = error.to_string();
                wait_for(wait, why, false, &self.backoff, self.progress).await;
                Ok(())
            }
        }
    }
}

/// Waits, and reports the wait until the returned value is dropped.
async fn wait_for<'a>(
    wait: Duration,
    why: String,
    connection_lost: bool,
    backoff: &Backoff,
    progress: &'a Progress,
) -> StopWaiting<'a> {
    let until = Instant::now() + wait;
    let waiting = progress.wait(Waiting {
        why,
        connection_lost,
        attempt: backoff.failures(),
        attempts: backoff.attempts(),
        until,
    });
    sleep_until(until).await;
    waiting
}

#[cfg(test)]
mod tests;
