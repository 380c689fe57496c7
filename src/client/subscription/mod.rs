//! Events over all connections of a session: none is missed and none comes twice.

use std::fmt;
use std::future::pending;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::{Instant, sleep};

use crate::client::session::CurrentConnection;
use crate::client::{Client, ClientError, EventPosition, Events, Lost, Progress, Session};
use crate::protocol::{ChangeKind, Event, WatchReply};

/// A connection that lasted this long counts as a success, even without an event.
const MIN_SUCCESSFUL_CONNECTION: Duration = Duration::from_mins(1);

/// The interval of `ping` requests. They keep an idle session from being closed, and notice a server that
/// no longer answers.
const PING_INTERVAL: Duration = Duration::from_mins(2);

/// The events of a session: messages and offers, and changes below a path if it watches one.
///
/// A lost connection is made again, with a login and a watch that continue after the last event;
/// an event that arrives twice is dropped. [`progress`](Self::progress) reports the waits. Like
/// [`Events`] these must be read on; while they are not, no connection is made either.
pub struct EventSubscription {
    session: Session,
    watched: Option<WatchedPath>,
    /// `None` until the current connection of the session is subscribed to.
    connected: Option<ConnectedEvents>,
    progress: Progress,
}

/// A path that is watched over all connections.
#[derive(Debug)]
struct WatchedPath {
    path: String,
    /// The position of its last change, once the watch was answered.
    seen: Option<EventPosition>,
}

/// The events of one connection.
struct ConnectedEvents {
    current: CurrentConnection,
    events: Events,
    since: Instant,
    /// The outstanding `watch` request.
    watching: Option<BoxFuture<'static, Result<WatchReply, ClientError>>>,
    /// Resolves once the server no longer answers.
    silence: BoxFuture<'static, ClientError>,
}

/// The next event of a connection.
enum NextEvent {
    Event(Event),
    Watching(Result<WatchReply, ClientError>),
    TimedOut(ClientError),
    Lost,
}

impl fmt::Debug for EventSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("EventSubscription");
        fields.field("session", &self.session);
        fields.field("watched", &self.watched);
        fields.finish_non_exhaustive()
    }
}

impl EventSubscription {
    /// The messages and offers of a session that was made by [`Session::with_events`].
    #[must_use]
    pub fn new(session: Session) -> Self {
        Self {
            session,
            watched: None,
            connected: None,
            progress: Progress::new(),
        }
    }

    /// Adds the changes at and below `path`, from the change after the one with the `seq` `since` on. A
    /// subscription watches one path.
    #[must_use]
    pub fn watching(self, path: &str, since: Option<u64>) -> Self {
        let watched = Some(WatchedPath {
            path: path.into(),
            seen: since.map(|seq| EventPosition { seq, epoch: None }),
        });
        Self { watched, ..self }
    }

    /// The reason for waiting, while the connection is lost.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The next event. Cancel-safe, but a wait for another connection starts again.
    ///
    /// # Errors
    /// The reason for which there is no connection, or for which the path cannot be watched.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            let connected = match &mut self.connected {
                Some(connected) => connected,
                None => self
                    .connected
                    .insert(ConnectedEvents::begin(&self.session, self.watched.as_ref())),
            };
            match connected.next().await {
                NextEvent::Event(event) => {
                    let client = connected.current.client.clone();
                    if self.is_new(&event, &client) {
                        self.session.note_success();
                        return Ok(event);
                    }
                }
                NextEvent::Watching(Ok(reply)) => {
                    if let Some(watched) = &mut self.watched {
                        let position = connected.current.client.position(reply.seq);
                        watched.seen.get_or_insert(position);
                    }
                }
                // Events that came before the loss are still delivered.
                NextEvent::Watching(Err(ClientError::Lost(_))) => {}
                NextEvent::Watching(Err(error)) => {
                    let used = connected.current.clone();
                    self.wait(&used, error).await?;
                    if let Some(connected) = &mut self.connected {
                        connected.watch(self.watched.as_ref());
                    }
                }
                NextEvent::TimedOut(error) => {
                    let used = connected.current.clone();
                    self.wait(&used, error).await?;
                }
                NextEvent::Lost => {
                    let used = connected.current.clone();
                    if connected.since.elapsed() >= MIN_SUCCESSFUL_CONNECTION {
                        self.session.note_success();
                    }
                    let lost = used.client.lost().unwrap_or(Lost::Closed);
                    self.wait(&used, lost.into()).await?;
                }
            }
        }
    }

    /// Waits until there is another connection, or until a request on this one may succeed.
    async fn wait(
        &mut self,
        used: &CurrentConnection,
        error: ClientError,
    ) -> Result<(), ClientError> {
        let mut budget = self.session.retry_budget(&self.progress);
        budget.wait_after(used, error).await?;
        if self.session.current().number != used.number {
            self.connected = None;
        }
        Ok(())
    }

    fn is_new(&mut self, event: &Event, client: &Client) -> bool {
        match event {
            Event::Message(message) => self.session.note_event(client.position(message.seq)),
            Event::Offer(offer) => self.session.note_event(client.position(offer.seq)),
            Event::Changed(changed) => match &mut self.watched {
                Some(watched) => {
                    // After an overflow the changes start there, even at a smaller number.
                    let is_new = changed.kind == ChangeKind::Overflow
                        || watched
                            .seen
                            .as_ref()
                            .is_none_or(|seen| seen.seq < changed.seq);
                    if is_new {
                        watched.seen = Some(client.position(changed.seq));
                    }
                    is_new
                }
                None => true,
            },
            _ => true,
        }
    }
}

impl ConnectedEvents {
    fn begin(session: &Session, watched: Option<&WatchedPath>) -> Self {
        let current = session.current();
        let mut connected = Self {
            events: current.client.events(),
            silence: Box::pin(until_silent(current.client.clone())),
            current,
            since: Instant::now(),
            watching: None,
        };
        connected.watch(watched);
        connected
    }

    /// Sends the `watch` request. Events may arrive before its reply.
    fn watch(&mut self, watched: Option<&WatchedPath>) {
        self.watching = watched.map(|watched| {
            let client: Client = self.current.client.clone();
            let (path, since) = (watched.path.clone(), watched.seen.clone());
            let reply: BoxFuture<_> = Box::pin(async move { client.watch(&path, since).await });
            reply
        });
    }

    async fn next(&mut self) -> NextEvent {
        let Self {
            events,
            watching,
            silence,
            ..
        } = self;
        let reply = async {
            match watching {
                Some(reply) => reply.await,
                None => pending().await,
            }
        };
        tokio::select! {
            // A reply that arrived before an event must be processed before it.
            biased;
            reply = reply => {
                *watching = None;
                NextEvent::Watching(reply)
            }
            event = events.next() => event.map_or(NextEvent::Lost, NextEvent::Event),
            error = silence => NextEvent::TimedOut(error),
        }
    }
}

/// Resolves once the server does not answer a `ping` although the connection is not lost.
async fn until_silent(client: Client) -> ClientError {
    loop {
        sleep(PING_INTERVAL).await;
        match client.ping().await {
            Err(error @ ClientError::TimedOut(_)) => return error,
            // The queued events are delivered first, then they end.
            Err(ClientError::Lost(_)) => return pending().await,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
