//! The events of one connection.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::protocol::Event;

/// Events that may wait for who hears them: a few megabytes, if each is as large as can be.
const EVENTS: usize = 256;

/// For one of them to be heard. Until then nothing else is read from the connection.
const UNHEARD: Duration = Duration::from_secs(30);

/// The events of one connection, in the order in which the server sends them.
///
/// They must be read on, or dropped. A few hundred wait; while there are more, whatever else the
/// server sends on this connection waits behind them. So whoever hears them and calls commands
/// does both at once. A connection whose events nobody reads for half a minute is given up with
/// [`Lost::Unheard`](crate::client::Lost::Unheard), so that no call waits for ever and nothing is missing
/// without a word: who logs in again with `since` gets what came after.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    /// The next event, or `None` once the connection is lost; [`Client::lost`](crate::client::Client::lost) tells why.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}

/// The place of an event, and the epoch in which it was given out, if the server says so. With both
/// a server can tell whether it was given out there, or after a moment to which it was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPosition {
    /// Its place among all events.
    pub seq: u64,
    /// The epoch of the login's reply.
    pub epoch: Option<String>,
}

impl EventPosition {
    /// A position to go on after, as the two fields of a request.
    #[must_use]
    pub fn fields(position: Option<Self>) -> (Option<u64>, Option<String>) {
        position.map_or((None, None), |position| {
            (Some(position.seq), position.epoch)
        })
    }
}

/// Where the events of a connection go.
#[derive(Debug, Default)]
pub(super) struct EventReceiver {
    ears: Option<mpsc::Sender<Event>>,
    kept: Option<mpsc::Receiver<Event>>,
}

impl EventReceiver {
    pub(super) fn keep(&mut self) {
        let (ears, kept) = mpsc::channel(EVENTS);
        *self = Self {
            ears: Some(ears),
            kept: Some(kept),
        };
    }

    pub(super) fn events(&mut self) -> Events {
        if let Some(kept) = self.kept.take() {
            return Events(kept);
        }
        let (ears, events) = mpsc::channel(EVENTS);
        self.ears = Some(ears);
        Events(events)
    }

    /// No more will come.
    pub(super) fn end(&mut self) {
        self.ears = None;
    }

    pub(super) fn ears(&self) -> Option<Ears> {
        self.ears.clone().map(Ears)
    }
}

/// The way to who hears.
pub(super) struct Ears(mpsc::Sender<Event>);

impl Ears {
    /// Waits until there is room for the event. `false` if there was none for too long. What
    /// nobody wants to hear any more is thrown away.
    pub(super) async fn deliver(self, event: Event) -> bool {
        timeout(UNHEARD, self.0.send(event)).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tests::pair;
    use crate::client::{ClientError, Lost};
    use crate::protocol::{ChangeKind, Changed, encode_event};

    fn change(seq: u64) -> Event {
        Event::Changed(Changed {
            seq,
            path: "/a".into(),
            kind: ChangeKind::Made,
            from: None,
            by: None,
        })
    }

    #[tokio::test]
    async fn events_that_were_kept_are_heard_in_order_and_end_with_the_connection() {
        let (client, mut peer) = pair();
        client.keep_events();
        let script = async move {
            for seq in 1..4 {
                peer.say(encode_event(&change(seq))).await;
            }
            peer.say(r#"{"event":"eclipse","seq":7}"#).await;
            let (id, _) = peer.request().await;
            peer.say(format!(r#"{{"id":{id},"ok":{{"cwd":"/"}}}}"#))
                .await;
        };
        let (cwd, ()) = tokio::join!(client.pwd(), script);
        cwd.expect("answered after them");
        let mut events = client.events();
        for seq in 1..4 {
            assert_eq!(events.next().await, Some(change(seq)));
        }
        assert_eq!(events.next().await, None);
        assert_eq!(client.events().next().await, None, "it is lost");
    }

    #[tokio::test]
    async fn events_that_nobody_wants_keep_nobody_waiting() {
        let (client, mut peer) = pair();
        drop(client.events());
        let script = async {
            for seq in 1..=1000 {
                peer.say(encode_event(&change(seq))).await;
            }
            let (id, _) = peer.request().await;
            peer.say(format!(r#"{{"id":{id},"ok":{{"cwd":"/"}}}}"#))
                .await;
        };
        let (cwd, ()) = tokio::join!(client.pwd(), script);
        cwd.expect("answered");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_whose_events_nobody_reads_is_given_up_and_what_came_before_is_there() {
        let (client, mut peer) = pair();
        let mut events = client.events();
        let script = async {
            for seq in 1..=300 {
                peer.say(encode_event(&change(seq))).await;
            }
            let (id, _) = peer.request().await;
            peer.say(format!(r#"{{"id":{id},"ok":{{"cwd":"/"}}}}"#))
                .await;
        };
        let (cwd, ()) = tokio::join!(client.pwd(), script);
        assert!(matches!(cwd, Err(ClientError::Lost(Lost::Unheard))));
        let mut heard = 0;
        while events.next().await.is_some() {
            heard += 1;
        }
        assert_eq!(heard, EVENTS);
    }
}
