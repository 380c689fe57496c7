//! The events of one connection.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::protocol::Event;

/// Events that may wait for their reader: a few megabytes if each has the largest size.
const MAX_QUEUED_EVENTS: usize = 256;

/// The time for the reader to make room in a full queue. Until then nothing else is read from the
/// connection.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The events of one connection, in the order in which the server sends them.
///
/// They must be read on, or dropped. A few hundred are queued; while there are more, everything else that
/// the server sends on this connection waits behind them. So a caller that also calls commands must do
/// both at the same time. A connection whose events are not read for half a minute is closed with
/// [`Lost::EventsUnread`](crate::client::Lost::EventsUnread), so that no request waits forever and no
/// event is missed silently: a login with `since` sends the later ones.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    /// The next event, or `None` once the connection is lost; [`Client::lost`](crate::client::Client::lost)
    /// has the reason. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}

/// The position of an event, and the epoch in which it was numbered, if the server has one. With
/// both, a server that was restored to an earlier state knows whether it numbered that event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPosition {
    /// The number of the event.
    pub seq: u64,
    /// The epoch of the login's reply.
    pub epoch: Option<String>,
}

impl EventPosition {
    /// The two fields of a request for later events.
    #[must_use]
    pub fn fields(position: Option<Self>) -> (Option<u64>, Option<String>) {
        position.map_or((None, None), |position| {
            (Some(position.seq), position.epoch)
        })
    }
}

/// The sending side of the events of a connection, and the receiving side while it is kept for a
/// later reader.
#[derive(Debug, Default)]
pub(super) struct EventQueues {
    sender: Option<mpsc::Sender<Event>>,
    kept: Option<mpsc::Receiver<Event>>,
}

impl EventQueues {
    pub(super) fn keep(&mut self) {
        let (sender, kept) = mpsc::channel(MAX_QUEUED_EVENTS);
        *self = Self {
            sender: Some(sender),
            kept: Some(kept),
        };
    }

    pub(super) fn events(&mut self) -> Events {
        if let Some(kept) = self.kept.take() {
            return Events(kept);
        }
        let (sender, events) = mpsc::channel(MAX_QUEUED_EVENTS);
        self.sender = Some(sender);
        Events(events)
    }

    /// Ends the events. Those that are queued can still be read.
    pub(super) fn end(&mut self) {
        self.sender = None;
    }

    pub(super) fn sender(&self) -> Option<EventSender> {
        self.sender.clone().map(EventSender)
    }
}

/// The sending side of the events of a connection.
pub(super) struct EventSender(mpsc::Sender<Event>);

impl EventSender {
    /// Waits until the queue has capacity; `false` if that takes too long. An event whose reader was
    /// dropped is discarded.
    pub(super) async fn send(self, event: Event) -> bool {
        timeout(READ_TIMEOUT, self.0.send(event)).await.is_ok()
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
    async fn events_that_were_kept_are_delivered_in_order_and_end_with_the_connection() {
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
    async fn events_without_a_reader_delay_no_reply() {
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
    async fn a_connection_whose_events_are_not_read_is_closed_and_the_queued_ones_remain() {
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
        assert!(matches!(cwd, Err(ClientError::Lost(Lost::EventsUnread))));
        let mut received = 0;
        while events.next().await.is_some() {
            received += 1;
        }
        assert_eq!(received, MAX_QUEUED_EVENTS);
    }
}
