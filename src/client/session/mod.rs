//! A session that outlives its connections: what was lost is made anew, once for all who lost it.

pub(crate) mod backoff;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

use crate::client::session::backoff::Backoff;
use crate::client::transfer::progress::StopWaiting;
use crate::client::{Client, ClientError, EventPosition, Lost, Progress, RetryPolicy, Waiting};
use crate::protocol::{ErrorCode, GoodbyeReason, StatReply, WireError};

/// A session that connects and logs in anew when its connection is lost. Cheap to clone; clones
/// share the connection.
///
/// Its transfers go on where they were: an upload after what the server has safely, a download
/// after what arrived, onto the same version of the file. While they wait they say so in their
/// [`Progress`].
#[derive(Clone)]
pub struct Session {
    shared: Arc<SessionShared>,
}

struct SessionShared {
    connect: Box<Connect>,
    policy: RetryPolicy,
    current: Mutex<CurrentConnection>,
    /// The caller that lost the connection first makes the next one; the others wait for it here.
    recovery: tokio::sync::Mutex<Recovery>,
    hung_up: AtomicBool,
    /// Something got on since the last loss.
    got_on: AtomicBool,
    /// Uploads under way that the server keeps if they are cut off.
    resumable: AtomicUsize,
    heard: Mutex<HeardPosition>,
}

/// The position of the last message or offer.
#[derive(Debug, Default)]
struct HeardPosition {
    last: Option<EventPosition>,
    /// How often a server did not know what was heard before.
    anew: u64,
}

/// Makes a connection that is logged in to go on after this.
type Connect =
    dyn Fn(Option<EventPosition>) -> BoxFuture<'static, Result<Client, ClientError>> + Send + Sync;

/// A connection, and how many there were before it.
#[derive(Clone)]
pub(crate) struct CurrentConnection {
    pub(crate) client: Client,
    pub(crate) number: u64,
}

struct Recovery {
    backoff: Backoff,
    /// Why nobody is to try again.
    over: Option<ReconnectError>,
}

/// Why a lost connection did not come back.
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
    /// A session that begins with `client`, which is logged in, and makes others like it with
    /// `connect`.
    pub fn new<F>(
        client: Client,
        policy: RetryPolicy,
        connect: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Client, ClientError>> + Send + 'static,
    {
        Self::hearing(client, policy, move |_| connect())
    }

    /// A session for who hears events: [`new`](Self::new), but `connect` is given the `since` and
    /// `epoch` to log in with, and calls [`Client::keep_events`] before it logs in; so it was with `client`.
    pub fn hearing<F>(
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
                got_on: AtomicBool::new(false),
                resumable: AtomicUsize::new(0),
                heard: Mutex::default(),
            }),
        }
    }

    /// The connection of now, which may be lost.
    #[must_use]
    pub fn client(&self) -> Client {
        self.current().client
    }

    /// Whether an upload is under way that the same put would go on with if it were cut off now.
    #[must_use]
    pub fn has_resumable_upload(&self) -> bool {
        self.shared.resumable.load(Ordering::Relaxed) > 0
    }

    /// Cuts the connection off for good, so that the server keeps what it has of such uploads:
    /// who drops one without this cancels it.
    pub fn hang_up(&self) {
        self.shared.hung_up.store(true, Ordering::Relaxed);
        self.client().hang_up();
    }

    /// What is known of a file or directory.
    ///
    /// # Errors
    /// Those of [`Client::call`], if the connection does not come back.
    pub async fn stat(&self, path: &str) -> Result<StatReply, ClientError> {
        let look = |client: Client| async move { client.stat(path).await };
        self.retry(&Progress::new(), look).await
    }

    pub(crate) fn current(&self) -> CurrentConnection {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, CurrentConnection> {
        let current = self.shared.current.lock();
        current.unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that work gets on, so that the next loss is the first in a row.
    pub(crate) fn gets_on(&self) {
        self.shared.got_on.store(true, Ordering::Relaxed);
    }

    /// Notes that a message or offer was heard, after which the next connection goes on. Whether
    /// it is a new one.
    pub(crate) fn hears(&self, position: EventPosition) -> bool {
        let mut heard = self.lock_heard();
        let is_new = heard
            .last
            .as_ref()
            .is_none_or(|last| last.seq < position.seq);
        if is_new {
            heard.last = Some(position);
        }
        is_new
    }

    /// The last message or offer that a [`EventSubscription`](crate::client::EventSubscription) has heard.
    #[must_use]
    pub fn heard(&self) -> Option<EventPosition> {
        self.lock_heard().last.clone()
    }

    /// How often a server did not know what was heard before: it was restored to an earlier state.
    /// The server may send events again then, under other numbers.
    #[must_use]
    pub fn began_anew(&self) -> u64 {
        self.lock_heard().anew
    }

    fn lock_heard(&self) -> MutexGuard<'_, HeardPosition> {
        let heard = self.shared.heard.lock();
        heard.unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an upload that the server would keep until the returned value is dropped.
    pub(crate) fn resumable_upload(&self) -> Resumable {
        self.shared.resumable.fetch_add(1, Ordering::Relaxed);
        Resumable(Arc::clone(&self.shared))
    }

    /// Does what is harmless to do twice, again after each loss.
    pub(crate) async fn retry<T, F>(
        &self,
        progress: &Progress,
        work: impl Fn(Client) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let mut patience = self.patience(progress);
        loop {
            let current = self.current();
            match work(current.client.clone()).await {
                Ok(done) => {
                    self.gets_on();
                    return Ok(done);
                }
                Err(error) => patience.after(&current, error).await?,
            }
        }
    }

    pub(crate) fn patience<'a>(&'a self, progress: &'a Progress) -> RetryBudget<'a> {
        RetryBudget {
            session: self,
            progress,
            backoff: Backoff::new(self.shared.policy),
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
        if self.shared.got_on.swap(false, Ordering::Relaxed) {
            recovery.backoff.forget();
        }
        // It may live on for some work although it is no use to other.
        used.client.hang_up();
        let why_lost = loss.to_string();
        let (mut cause, mut is_final) = (None, false);
        loop {
            let asked = retry_after(cause.as_deref().unwrap_or(&loss));
            let wait = if is_final {
                None
            } else {
                recovery.backoff.after_failure(asked)
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
            let why = cause.as_deref().map_or_else(|| why_lost.clone(), explained);
            let _said = wait_for(wait, why, true, &recovery.backoff, progress).await;
            match (self.shared.connect)(self.heard()).await {
                Ok(client) => {
                    if client.begins_anew() {
                        let mut heard = self.lock_heard();
                        heard.last = None;
                        heard.anew += 1;
                    }
                    let mut current = self.lock();
                    current.client = client;
                    current.number += 1;
                    return Ok(());
                }
                Err(error) => {
                    is_final = ConnectFailure::classify(&error) == ConnectFailure::Final;
                    cause = Some(Arc::new(error));
                }
            }
        }
    }
}

impl ReconnectError {
    /// For who lost the connection because of `loss`.
    fn error(&self, loss: ClientError) -> ClientError {
        match &self.cause {
            // It was never tried.
            None => loss,
            Some(cause) => ClientError::NotBack {
                lost: self.lost.clone(),
                attempts: self.attempts,
                source: Arc::clone(cause),
            },
        }
    }
}

/// An upload under way, see [`Session::has_resumable_upload`].
pub(crate) struct Resumable(Arc<SessionShared>);

impl Drop for Resumable {
    fn drop(&mut self) {
        self.0.resumable.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The attempts that are left for one piece of work.
pub(crate) struct RetryBudget<'a> {
    session: &'a Session,
    progress: &'a Progress,
    backoff: Backoff,
}

impl RetryBudget<'_> {
    /// Waits until what failed with `error` on the connection `used` may be tried again.
    ///
    /// # Errors
    /// `error`, or why there is no connection any more, if it is not to be tried again.
    pub(crate) async fn after(
        &mut self,
        used: &CurrentConnection,
        error: ClientError,
    ) -> Result<(), ClientError> {
        match ConnectFailure::classify(&error) {
            ConnectFailure::Final => Err(error),
            _ if self.session.shared.hung_up.load(Ordering::Relaxed) => Err(error),
            ConnectFailure::Connection => self.session.recover(used, error, self.progress).await,
            ConnectFailure::ForNow => {
                let Some(wait) = self.backoff.after_failure(retry_after(&error)) else {
                    return Err(error);
                };
                let why = error.to_string();
                wait_for(wait, why, false, &self.backoff, self.progress).await;
                Ok(())
            }
        }
    }
}

/// Waits, and says so until what is returned is dropped.
async fn wait_for<'a>(
    wait: Duration,
    why: String,
    connection_lost: bool,
    backoff: &Backoff,
    progress: &'a Progress,
) -> StopWaiting<'a> {
    let until = Instant::now() + wait;
    let said = progress.wait(Waiting {
        why,
        connection_lost,
        attempt: backoff.failures(),
        attempts: backoff.attempts(),
        until,
    });
    sleep_until(until).await;
    said
}

/// The kind of a failure, which decides what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectFailure {
    /// It would fail again.
    Final,
    /// Another connection may do better.
    Connection,
    /// This connection may do better later.
    ForNow,
}

impl ConnectFailure {
    fn classify(error: &ClientError) -> Self {
        match error {
            ClientError::Lost(Lost::Goodbye(
                GoodbyeReason::AccountClosed | GoodbyeReason::Kicked,
            )) => Self::Final,
            ClientError::Lost(
                Lost::Closed
                | Lost::Broken(_)
                | Lost::Unexpected(_)
                | Lost::HungUp
                | Lost::Unheard
                | Lost::Goodbye(_),
            )
            | ClientError::Connect { .. }
            | ClientError::TimedOut(_) => Self::Connection,
            ClientError::Lost(Lost::Refused(error)) | ClientError::Login(error) => {
                match Self::of_refusal(error) {
                    Self::Final => Self::Final,
                    _ => Self::Connection,
                }
            }
            ClientError::Server(error) => Self::of_refusal(error),
            _ => Self::Final,
        }
    }

    /// Not all that the server calls retryable is for a program to retry: a disk that is full or
    /// fails is for a person to know of.
    fn of_refusal(error: &WireError) -> Self {
        match error.code {
            ErrorCode::ShuttingDown => Self::Connection,
            ErrorCode::TimedOut | ErrorCode::Limited | ErrorCode::TooManyAttempts => Self::ForNow,
            _ => Self::Final,
        }
    }
}

impl ClientError {
    /// Whether the same may succeed later, or on another connection.
    pub(crate) fn may_pass(&self) -> bool {
        ConnectFailure::classify(self) != ConnectFailure::Final
    }
}

/// How long the server asks to be left alone.
fn retry_after(error: &ClientError) -> Option<Duration> {
    let (ClientError::Server(error)
    | ClientError::Login(error)
    | ClientError::Lost(Lost::Refused(error))) = error
    else {
        return None;
    };
    error.retry_after_ms.map(Duration::from_millis)
}

/// An error with what is behind it, in one line.
fn explained(error: &ClientError) -> String {
    match error {
        ClientError::Connect { source, .. } => format!("{error}: {source}"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
