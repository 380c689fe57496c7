//! Subscriptions against servers that follow a script.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::*;
use crate::client::RetryPolicy;
use crate::client::tests::{ScriptedServer, no, pair};
use crate::protocol::{
    Changed, ErrorCode, Login, LoginReply, Message, Request, Watch, encode_error, encode_event,
    encode_ok,
};

/// A subscription over `connections` that are made one after the other, and their other ends.
fn subscribe(connections: usize) -> (EventSubscription, VecDeque<ScriptedServer>) {
    let (mut clients, peers): (VecDeque<_>, VecDeque<_>) = (0..connections).map(|_| pair()).unzip();
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
    let session = Session::with_events(first, RetryPolicy::default(), connect);
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

async fn send_events(peer: &mut ScriptedServer, events: &[Event]) {
    for event in events {
        peer.say(encode_event(event)).await;
    }
}

/// Answers a login and returns its `since`.
async fn login(peer: &mut ScriptedServer) -> Option<u64> {
    let (since, _) = login_of(peer, None, None).await;
    since
}

/// Answers a login with this epoch and returns its `since` and `epoch`.
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
        features: Vec::new(),
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

async fn expect_events(events: &mut EventSubscription, expected: &[Event]) {
    for event in expected {
        assert_eq!(&events.next().await.expect("an event"), event);
    }
}

#[tokio::test(start_paused = true)]
async fn events_continue_after_a_loss_and_none_comes_twice() {
    let (mut events, mut peers) = subscribe(2);
    let (mut first, mut second) = (peers.remove(0).expect("one"), peers.remove(0).expect("two"));
    let script = async {
        send_events(&mut first, &[message(4), message(7)]).await;
        drop(first);
        let since = login(&mut second).await;
        send_events(&mut second, &[message(7), message(9)]).await;
        since
    };
    let expected = [message(4), message(7), message(9)];
    let ((), since) = tokio::join!(expect_events(&mut events, &expected), script);
    assert_eq!(since, Some(7));
}

#[tokio::test(start_paused = true)]
async fn a_watch_continues_after_its_last_change_despite_later_messages() {
    let (events, mut peers) = subscribe(2);
    let mut events = events.watching("/team", None);
    let (mut first, mut second) = (peers.remove(0).expect("one"), peers.remove(0).expect("two"));
    let script = async {
        let (id, watch) = watch_request(&mut first).await;
        assert_eq!((&*watch.path, watch.since), ("/team", None));
        first
            .say(format!(r#"{{"id":{id},"ok":{{"watch":1,"seq":3}}}}"#))
            .await;
        send_events(&mut first, &[change(5), message(8)]).await;
        drop(first);
        assert_eq!(login(&mut second).await, Some(8));
        let (id, watch) = watch_request(&mut second).await;
        assert_eq!(watch.since, Some(5));
        send_events(&mut second, &[message(10), change(5), change(6)]).await;
        second
            .say(format!(r#"{{"id":{id},"ok":{{"watch":1,"seq":9}}}}"#))
            .await;
        send_events(&mut second, &[change(11)]).await;
    };
    let expected = [change(5), message(8), message(10), change(6), change(11)];
    tokio::join!(expect_events(&mut events, &expected), script);
}

#[tokio::test(start_paused = true)]
async fn after_a_restore_smaller_numbers_are_new_and_old_ones_are_not_sent_back() {
    let (events, mut peers) = subscribe(4);
    let mut events = events.watching("/team", None);
    let script = async {
        let mut next = || peers.pop_front().expect("a connection");
        drop(next());
        let mut second = next();
        assert_eq!(login_of(&mut second, Some("a"), None).await, (None, None));
        let (id, _) = watch_request(&mut second).await;
        second
            .say(format!(r#"{{"id":{id},"ok":{{"watch":1,"seq":3}}}}"#))
            .await;
        send_events(&mut second, &[message(900), change(901)]).await;
        drop(second);
        let mut third = next();
        let had = (Some(900), Some("a".to_owned()));
        assert_eq!(login_of(&mut third, Some("b"), Some(false)).await, had);
        let (_, watch) = watch_request(&mut third).await;
        assert_eq!(
            (watch.since, watch.epoch.as_deref()),
            (Some(901), Some("a"))
        );
        send_events(&mut third, &[message(7), overflow(5), change(8)]).await;
        drop(third);
        let mut fourth = next();
        let had = (Some(7), Some("b".to_owned()));
        assert_eq!(login_of(&mut fourth, Some("c"), Some(true)).await, had);
        let (_, watch) = watch_request(&mut fourth).await;
        assert_eq!((watch.since, watch.epoch.as_deref()), (Some(8), Some("b")));
        send_events(&mut fourth, &[message(7), message(9)]).await;
    };
    let expected = [
        message(900),
        change(901),
        message(7),
        overflow(5),
        change(8),
        message(9),
    ];
    tokio::join!(expect_events(&mut events, &expected), script);
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
async fn a_watch_without_changes_continues_from_its_begin() {
    let (events, mut peers) = subscribe(2);
    let mut events = events.watching("/team", None);
    let (mut first, mut second) = (peers.remove(0).expect("one"), peers.remove(0).expect("two"));
    let script = async {
        let (id, _) = watch_request(&mut first).await;
        first
            .say(format!(r#"{{"id":{id},"ok":{{"watch":1,"seq":3}}}}"#))
            .await;
        send_events(&mut first, &[message(2)]).await;
        drop(first);
        login(&mut second).await;
        let (_, watch) = watch_request(&mut second).await;
        assert_eq!(watch.since, Some(3));
        send_events(&mut second, &[change(4)]).await;
    };
    let expected = [message(2), change(4)];
    tokio::join!(expect_events(&mut events, &expected), script);
}

#[tokio::test(start_paused = true)]
async fn a_watch_is_answered_behind_more_messages_than_the_queue_holds() {
    let (events, mut peers) = subscribe(1);
    let mut events = events.watching("/team", None);
    let mut peer = peers.remove(0).expect("one");
    let many: Vec<_> = (1..=2000).map(message).collect();
    let script = async {
        let (id, _) = watch_request(&mut peer).await;
        send_events(&mut peer, &many).await;
        peer.say(format!(r#"{{"id":{id},"ok":{{"watch":1,"seq":3}}}}"#))
            .await;
    };
    tokio::join!(expect_events(&mut events, &many), script);
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_replaced_and_an_idle_one_that_answers_is_kept() {
    let (mut events, mut peers) = subscribe(2);
    let (mut first, mut second) = (peers.remove(0).expect("one"), peers.remove(0).expect("two"));
    let script = async {
        let (id, _) = first.request().await;
        first
            .say(format!(
                r#"{{"id":{id},"ok":{{"time":"2020-02-02T02:02:02Z"}}}}"#
            ))
            .await;
        first.request().await;
        assert_eq!(login(&mut second).await, None);
        send_events(&mut second, &[message(1)]).await;
    };
    let expected = [message(1)];
    tokio::join!(expect_events(&mut events, &expected), script);
}

#[tokio::test(start_paused = true)]
async fn a_path_that_may_not_be_watched_ends_the_subscription() {
    let (events, mut peers) = subscribe(1);
    let mut events = events.watching("/team", None);
    let mut peer = peers.remove(0).expect("one");
    let script = async {
        let (id, _) = watch_request(&mut peer).await;
        peer.say(encode_error(id, &no(ErrorCode::NotFound))).await;
    };
    let (received, ()) = tokio::join!(events.next(), script);
    assert_eq!(
        received.expect_err("refused").code(),
        Some(ErrorCode::NotFound)
    );
}
