//! Events over all connections of a session: none is missed and none comes twice.

use std::fmt;
use std::future::pending;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::{Instant, sleep};

use crate::client::session::CurrentConnection;
use crate::client::{Client, ClientError, EventPosition, Events, Lost, Progress, Session};
use crate::protocol::{ChangeKind, Event, WatchReply};

/// A connection that lasted for so long was a good one, whatever was heard on it.
const LASTED: Duration = Duration::from_mins(1);

/// A server is asked this often whether it is there: it hangs up on who asks nothing for long, and
/// one that is gone without a word tells nothing either.
const STILL_THERE: Duration = Duration::from_mins(2);

/// The events of a session: messages and offers, and changes below a path if it watches one.
///
/// A lost connection is made anew, with a login and a watch that go on after what was heard last;
/// what comes twice nevertheless is dropped. [`progress`](Self::progress) tells of the waits. Like
/// [`Events`] these are to be read on; while they are not, nothing is made anew either.
pub struct EventSubscription {
    session: Session,
    watched: Option<WatchedPath>,
    on: Option<ConnectedEvents>,
    progress: Progress,
}

/// A path that is watched over all connections.
#[derive(Debug)]
struct WatchedPath {
    path: String,
    /// Up to where its changes are known, once that is known.
    seen: Option<EventPosition>,
}

/// A connection that is listened to.
struct ConnectedEvents {
    current: CurrentConnection,
    events: Events,
    began: Instant,
    /// Until the server has answered it.
    watching: Option<BoxFuture<'static, Result<WatchReply, ClientError>>>,
    /// Resolves once the server does not answer any more.
    silent: BoxFuture<'static, ClientError>,
}

/// The next event of a connection.
enum NextEvent {
    Event(Event),
    Watching(Result<WatchReply, ClientError>),
    Silent(ClientError),
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
    /// Hears the messages and offers of a session that was made by [`Session::hearing`].
    #[must_use]
    pub fn new(session: Session) -> Self {
        Self {
            session,
            watched: None,
            on: None,
            progress: Progress::new(),
        }
    }

    /// Hears of changes at and below `path` too, from those after the one with the `seq` `since`
    /// on. A session watches one path.
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

    /// The next event. Cancel-safe, but a wait for another connection begins anew.
    ///
    /// # Errors
    /// Why there is no connection any more, or why the path cannot be watched.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            let on = match &mut self.on {
                Some(on) => on,
                None => self
                    .on
                    .insert(ConnectedEvents::begin(&self.session, self.watched.as_ref())),
            };
            match on.next().await {
                NextEvent::Event(event) => {
                    let client = on.current.client.clone();
                    if self.is_new(&event, &client) {
                        self.session.gets_on();
                        return Ok(event);
                    }
                }
                NextEvent::Watching(Ok(reply)) => {
                    if let Some(watched) = &mut self.watched {
                        let position = on.current.client.position(reply.seq);
                        watched.seen.get_or_insert(position);
                    }
                }
                // Events that came before the loss are still delivered.
                NextEvent::Watching(Err(ClientError::Lost(_))) => {}
                NextEvent::Watching(Err(error)) => {
                    let used = on.current.clone();
                    self.wait(&used, error).await?;
                    if let Some(on) = &mut self.on {
                        on.watch(self.watched.as_ref());
                    }
                }
                NextEvent::Silent(error) => {
                    let used = on.current.clone();
                    self.wait(&used, error).await?;
                }
                NextEvent::Lost => {
                    let used = on.current.clone();
                    if on.began.elapsed() >= LASTED {
                        self.session.gets_on();
                    }
                    let lost = used.client.lost().unwrap_or(Lost::Closed);
                    self.wait(&used, lost.into()).await?;
                }
            }
        }
    }

    /// Waits until there is another connection, or until this one may do better.
    async fn wait(
        &mut self,
        used: &CurrentConnection,
        error: ClientError,
    ) -> Result<(), ClientError> {
        let mut patience = self.session.patience(&self.progress);
        patience.after(used, error).await?;
        if self.session.current().number != used.number {
            self.on = None;
        }
        Ok(())
    }

    fn is_new(&mut self, event: &Event, client: &Client) -> bool {
        match event {
            Event::Message(message) => self.session.hears(client.position(message.seq)),
            Event::Offer(offer) => self.session.hears(client.position(offer.seq)),
            Event::Changed(changed) => match &mut self.watched {
                Some(watched) => {
                    // After an overflow it goes on from there, also where it was farther before.
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
        let mut on = Self {
            events: current.client.events(),
            silent: Box::pin(silent(current.client.clone())),
            current,
            began: Instant::now(),
            watching: None,
        };
        on.watch(watched);
        on
    }

    /// Asks the server, which may have events to tell before it answers.
    fn watch(&mut self, watched: Option<&WatchedPath>) {
        self.watching = watched.map(|watched| {
            let client: Client = self.current.client.clone();
            let (path, since) = (watched.path.clone(), watched.seen.clone());
            let asking: BoxFuture<_> = Box::pin(async move { client.watch(&path, since).await });
            asking
        });
    }

    async fn next(&mut self) -> NextEvent {
        let Self {
            events,
            watching,
            silent,
            ..
        } = self;
        let answer = async {
            match watching {
                Some(answer) => answer.await,
                None => pending().await,
            }
        };
        tokio::select! {
            // An answer that came before an event is to be known before it.
            biased;
            answer = answer => {
                *watching = None;
                NextEvent::Watching(answer)
            }
            event = events.next() => event.map_or(NextEvent::Lost, NextEvent::Event),
            error = silent => NextEvent::Silent(error),
        }
    }
}

/// Resolves once the server does not answer although nobody knows of a loss.
async fn silent(client: Client) -> ClientError {
    loop {
        sleep(STILL_THERE).await;
        match client.ping().await {
            Err(error @ ClientError::TimedOut(_)) => return error,
            // The events end too, and tell what came before.
            Err(ClientError::Lost(_)) => return pending().await,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::client::RetryPolicy;
    use crate::client::tests::{ScriptedServer, no, pair};
    use crate::protocol::{
        Changed, ErrorCode, Login, LoginReply, Message, Request, Watch, encode_error, encode_event,
        encode_ok,
    };

    /// What is heard over `connections` that are made one after the other, and their other ends.
    fn live(connections: usize) -> (EventSubscription, VecDeque<ScriptedServer>) {
        let (mut clients, peers): (VecDeque<_>, VecDeque<_>) =
            (0..connections).map(|_| pair()).unzip();
        let first = clients.pop_front().expect("at least one");
        first.keep_events();
        let rest = Arc::new(Mutex::new(clients));
        let connect = move |position| {
            let client = rest.lock().expect("no panic").pop_front();
            async move {
                let client = client.ok_or(ClientError::Lost(Lost::Closed))?;
                client.keep_events();
                let (since, epoch) = EventPosition::fields(position);
                let login = Login {
                    since,
                    epoch,
                    ..Login::default()
                };
                client.log_in(login).await?;
                Ok(client)
            }
        };
        let session = Session::hearing(first, RetryPolicy::default(), connect);
        (EventSubscription::new(session), peers)
    }

    fn message(seq: u64) -> Event {
        Event::Message(Message {
            seq,
            from: "bob".into(),
            to: "alice".into(),
            text: format!("message {seq}"),
            time: jiff::Timestamp::UNIX_EPOCH,
        })
    }

    fn change(seq: u64) -> Event {
        Event::Changed(Changed {
            seq,
            path: "/team/a".into(),
            kind: ChangeKind::Written,
            from: None,
            by: Some("bob".into()),
        })
    }

    async fn tell(peer: &mut ScriptedServer, events: &[Event]) {
        for event in events {
            peer.say(encode_event(event)).await;
        }
    }

    /// Takes a login; its `since`.
    async fn login(peer: &mut ScriptedServer) -> Option<u64> {
        let (since, _) = login_of(peer, None, None).await;
        since
    }

    /// Takes a login, and answers with this epoch; its `since` and `epoch`.
    async fn login_of(
        peer: &mut ScriptedServer,
        epoch: Option<&str>,
        resumed: Option<bool>,
    ) -> (Option<u64>, Option<String>) {
        let (id, Request::Login(login)) = peer.request().await else {
            panic!("a login was to come");
        };
        let reply = LoginReply {
            user: "alice".into(),
            home: "/".into(),
            server: "s".into(),
            session: "1".into(),
            epoch: epoch.map(Into::into),
            resumed,
        };
        peer.say(encode_ok(id, &reply)).await;
        (login.since, login.epoch)
    }

    async fn watch_request(peer: &mut ScriptedServer) -> (u32, Watch) {
        match peer.request().await {
            (id, Request::Watch(watch)) => (id, watch),
            other => panic!("a watch was to come, not {other:?}"),
        }
    }

    async fn hears(live: &mut EventSubscription, expected: &[Event]) {
        for event in expected {
            assert_eq!(&live.next().await.expect("heard"), event);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_heard_goes_on_after_a_loss_and_nothing_comes_twice() {
        let (mut live, mut peers) = live(2);
        let (mut first, mut second) =
            (peers.remove(0).expect("one"), peers.remove(0).expect("two"));
        let script = async {
            tell(&mut first, &[message(4), message(7)]).await;
            drop(first);
            let since = login(&mut second).await;
            tell(&mut second, &[message(7), message(9)]).await;
            since
        };
        let expected = [message(4), message(7), message(9)];
        let ((), since) = tokio::join!(hears(&mut live, &expected), script);
        assert_eq!(since, Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_goes_on_after_the_last_change_whatever_was_said_meanwhile() {
        let (live, mut peers) = live(2);
        let mut live = live.watching("/team", None);
        let (mut first, mut second) =
            (peers.remove(0).expect("one"), peers.remove(0).expect("two"));
        let script = async {
            let (id, watch) = watch_request(&mut first).await;
            assert_eq!((&*watch.path, watch.since), ("/team", None));
            first
                .say(format!(r#"{{"id":{id},"ok":{{"watch":1,"seq":3}}}}"#))
                .await;
            tell(&mut first, &[change(5), message(8)]).await;
            drop(first);
            assert_eq!(login(&mut second).await, Some(8));
            let (id, watch) = watch_request(&mut second).await;
            assert_eq!(watch.since, Some(5));
            tell(&mut second, &[message(10), change(5), change(6)]).await;
            second
                .say(format!(r#"{{"id":{id},"ok":{{"watch":1,"seq":9}}}}"#))
                .await;
            tell(&mut second, &[change(11)]).await;
        };
        let expected = [change(5), message(8), message(10), change(6), change(11)];
        tokio::join!(hears(&mut live, &expected), script);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_restore_smaller_places_are_heard_and_those_of_old_not_given_back() {
        let (live, mut peers) = live(4);
        let mut live = live.watching("/team", None);
        let script = async {
            let mut next = || peers.pop_front().expect("a connection");
            drop(next());
            let mut second = next();
            assert_eq!(login_of(&mut second, Some("a"), None).await, (None, None));
            let (id, _) = watch_request(&mut second).await;
            second
                .say(format!(r#"{{"id":{id},"ok":{{"watch":1,"seq":3}}}}"#))
                .await;
            tell(&mut second, &[message(900), change(901)]).await;
            drop(second);
            let mut third = next();
            let had = (Some(900), Some("a".to_owned()));
            assert_eq!(login_of(&mut third, Some("b"), Some(false)).await, had);
            let (_, watch) = watch_request(&mut third).await;
            assert_eq!(
                (watch.since, watch.epoch.as_deref()),
                (Some(901), Some("a"))
            );
            tell(&mut third, &[message(7), overflow(5), change(8)]).await;
            drop(third);
            let mut fourth = next();
            let had = (Some(7), Some("b".to_owned()));
            assert_eq!(login_of(&mut fourth, Some("c"), Some(true)).await, had);
            let (_, watch) = watch_request(&mut fourth).await;
            assert_eq!((watch.since, watch.epoch.as_deref()), (Some(8), Some("b")));
            tell(&mut fourth, &[message(7), message(9)]).await;
        };
        let expected = [
            message(900),
            change(901),
            message(7),
            overflow(5),
            change(8),
            message(9),
        ];
        tokio::join!(hears(&mut live, &expected), script);
    }

    fn overflow(seq: u64) -> Event {
        Event::Changed(Changed {
            seq,
            path: "/team".into(),
            kind: ChangeKind::Overflow,
            from: None,
            by: None,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_in_which_nothing_happened_goes_on_from_where_it_began() {
        let (live, mut peers) = live(2);
        let mut live = live.watching("/team", None);
        let (mut first, mut second) =
            (peers.remove(0).expect("one"), peers.remove(0).expect("two"));
        let script = async {
            let (id, _) = watch_request(&mut first).await;
            first
                .say(format!(r#"{{"id":{id},"ok":{{"watch":1,"seq":3}}}}"#))
                .await;
            tell(&mut first, &[message(2)]).await;
            drop(first);
            login(&mut second).await;
            let (_, watch) = watch_request(&mut second).await;
            assert_eq!(watch.since, Some(3));
            tell(&mut second, &[change(4)]).await;
        };
        let expected = [message(2), change(4)];
        tokio::join!(hears(&mut live, &expected), script);
    }

    #[tokio::test(start_paused = true)]
    async fn more_messages_than_a_queue_holds_do_not_keep_a_watch_from_being_answered() {
        let (live, mut peers) = live(1);
        let mut live = live.watching("/team", None);
        let mut peer = peers.remove(0).expect("one");
        let many: Vec<_> = (1..=2000).map(message).collect();
        let script = async {
            let (id, _) = watch_request(&mut peer).await;
            tell(&mut peer, &many).await;
            peer.say(format!(r#"{{"id":{id},"ok":{{"watch":1,"seq":3}}}}"#))
                .await;
        };
        tokio::join!(hears(&mut live, &many), script);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_gone_without_a_word_is_noticed_and_one_that_is_not_is_kept() {
        let (mut live, mut peers) = live(2);
        let (mut first, mut second) =
            (peers.remove(0).expect("one"), peers.remove(0).expect("two"));
        let script = async {
            let (id, _) = first.request().await;
            first
                .say(format!(
                    r#"{{"id":{id},"ok":{{"time":"2020-02-02T02:02:02Z"}}}}"#
                ))
                .await;
            first.request().await;
            assert_eq!(login(&mut second).await, None);
            tell(&mut second, &[message(1)]).await;
        };
        let expected = [message(1)];
        tokio::join!(hears(&mut live, &expected), script);
    }

    #[tokio::test(start_paused = true)]
    async fn a_path_that_may_not_be_watched_ends_it() {
        let (live, mut peers) = live(1);
        let mut live = live.watching("/team", None);
        let mut peer = peers.remove(0).expect("one");
        let script = async {
            let (id, _) = watch_request(&mut peer).await;
            peer.say(encode_error(id, &no(ErrorCode::NotFound))).await;
        };
        let (heard, ()) = tokio::join!(live.next(), script);
        assert_eq!(
            heard.expect_err("refused").code(),
            Some(ErrorCode::NotFound)
        );
    }
}
