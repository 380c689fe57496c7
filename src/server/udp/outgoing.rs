//! Messages to the holder of a ticket: each is sent again, up to a bound, until it is acknowledged. An
//! address never gets more bytes than it sent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::protocol::MAX_DATAGRAM;

/// The most messages of a ticket that wait for their acknowledgement.
const MAX_UNACKNOWLEDGED: usize = 8;

/// Time before a message is sent for the second time; doubled each further time.
const FIRST_RESEND_AFTER: Duration = Duration::from_millis(200);

/// How many times a message is sent before it is dropped.
const MAX_SENDS: u32 = 6;

/// The most credit of an address: enough to send all waiting messages once.
const MAX_CREDIT_BYTES: usize = MAX_UNACKNOWLEDGED * MAX_DATAGRAM;

/// The messages to the holder of one ticket.
#[derive(Debug, Default)]
pub(crate) struct OutgoingMessages {
    /// The source of the latest request.
    address: Option<SocketAddr>,
    /// Bytes received from the address in answered requests, minus the bytes sent to it.
    credit: usize,
    waiting: BTreeMap<u64, UnacknowledgedMessage>,
}

#[derive(Debug)]
struct UnacknowledgedMessage {
    datagram: Bytes,
    sent: u32,
}

/// The next step for a message that is due.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SendStep {
    /// The address and the datagram to send; `None` if the credit of the address is used up.
    pub(crate) send: Option<(SocketAddr, Bytes)>,
    /// Time until the message is due again.
    pub(crate) pause: Duration,
}

impl OutgoingMessages {
    /// Sets the source of the latest request; messages go there.
    pub(crate) fn set_address(&mut self, address: SocketAddr) {
        if self.address != Some(address) {
            self.address = Some(address);
            self.credit = 0;
        }
    }

    /// Adds the bytes by which the reply to a request from `address` was shorter than the request.
    pub(crate) fn add_credit(&mut self, address: SocketAddr, bytes: usize) {
        if self.address == Some(address) {
            self.credit = (self.credit + bytes).min(MAX_CREDIT_BYTES);
        }
    }

    /// Whether another message can be queued.
    pub(crate) fn can_enqueue(&self) -> bool {
        self.address.is_some() && self.waiting.len() < MAX_UNACKNOWLEDGED
    }

    /// Queues a message, for [`Self::next_send`].
    pub(crate) fn enqueue(&mut self, seq: u64, datagram: Bytes) {
        self.waiting
            .insert(seq, UnacknowledgedMessage { datagram, sent: 0 });
    }

    /// Removes a message that has arrived.
    pub(crate) fn acknowledge(&mut self, seq: u64) {
        self.waiting.remove(&seq);
    }

    /// The next step for a message; `None` if it has arrived or is dropped.
    pub(crate) fn next_send(&mut self, seq: u64) -> Option<SendStep> {
        let waiting = self.waiting.get_mut(&seq)?;
        if waiting.sent == MAX_SENDS {
            self.waiting.remove(&seq);
            return None;
        }
        let pause = FIRST_RESEND_AFTER * (1 << waiting.sent);
        waiting.sent += 1;
        let length = waiting.datagram.len();
        let send = match (self.address, self.credit.checked_sub(length)) {
            (Some(address), Some(rest)) => {
                self.credit = rest;
                Some((address, waiting.datagram.clone()))
            }
            _ => None,
        };
        Some(SendStep { send, pause })
    }
}

/// When each message is due, the earliest first.
#[derive(Debug)]
pub(crate) struct SendSchedule<T> {
    entries: BTreeMap<(Instant, u64), (T, u64)>,
    numbers: u64,
}

/// The most entries of a schedule; further messages are not sent by datagram.
const MAX_SCHEDULED: usize = 100_000;

impl<T> Default for SendSchedule<T> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            numbers: 0,
        }
    }
}

impl<T> SendSchedule<T> {
    /// Adds the message `seq` of `recipient`; `false` if the schedule is full.
    pub(crate) fn add(&mut self, at: Instant, recipient: T, seq: u64) -> bool {
        if self.entries.len() >= MAX_SCHEDULED {
            return false;
        }
        self.numbers += 1;
        self.entries.insert((at, self.numbers), (recipient, seq));
        true
    }

    /// When the first entry is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.entries.first_key_value().map(|((at, _), _)| *at)
    }

    /// Removes and returns an entry that is due.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(T, u64)> {
        let first = self.entries.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn heard_from(address: SocketAddr, credit: usize) -> OutgoingMessages {
        let mut way = OutgoingMessages::default();
        way.set_address(address);
        way.add_credit(address, credit);
        way
    }

    fn message(length: usize) -> Bytes {
        vec![b'x'; length].into()
    }

    #[test]
    fn a_message_is_sent_at_growing_intervals_and_then_given_up() {
        let mut way = heard_from(address(1), 9999);
        way.enqueue(41, message(100));
        let mut pauses = Vec::new();
        while let Some(step) = way.next_send(41) {
            assert_eq!(step.send, Some((address(1), message(100))));
            pauses.push(step.pause.as_millis());
        }
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400]);
        assert!(way.waiting.is_empty());
    }

    #[test]
    fn an_acknowledged_message_is_not_sent_again() {
        let mut way = heard_from(address(1), 1000);
        way.enqueue(41, message(100));
        assert!(way.next_send(41).is_some());
        way.acknowledge(40);
        assert!(way.next_send(41).is_some(), "that was another one");
        way.acknowledge(41);
        assert_eq!(way.next_send(41), None);
    }

    #[test]
    fn nobody_is_sent_more_than_came_from_there() {
        let mut way = OutgoingMessages::default();
        assert!(!way.can_enqueue(), "nobody knows where");
        way.set_address(address(1));
        way.add_credit(address(1), 250);
        way.enqueue(41, message(100));
        let sent =
            |way: &mut OutgoingMessages| way.next_send(41).and_then(|step| step.send).is_some();
        assert!(sent(&mut way) && sent(&mut way));
        assert!(!sent(&mut way), "50 bytes are left");
        way.add_credit(address(1), 60);
        assert!(sent(&mut way));
        way.set_address(address(2));
        way.add_credit(address(2), 90);
        assert!(!sent(&mut way), "what came from elsewhere does not count");
        way.add_credit(address(1), 9999);
        assert!(!sent(&mut way), "and neither does what is older");
    }

    #[test]
    fn the_credit_of_an_address_is_bounded() {
        let mut way = heard_from(address(1), 5 * MAX_CREDIT_BYTES);
        assert_eq!(way.credit, MAX_CREDIT_BYTES);
        way.set_address(address(1));
        assert_eq!(way.credit, MAX_CREDIT_BYTES, "it is the same address");
    }

    #[test]
    fn no_more_than_some_messages_wait() {
        let mut way = heard_from(address(1), 1000);
        let room = (0..).take_while(|seq| {
            let room = way.can_enqueue();
            way.enqueue(*seq, message(1));
            room
        });
        assert_eq!(room.count(), MAX_UNACKNOWLEDGED);
    }

    #[tokio::test(start_paused = true)]
    async fn a_schedule_gives_what_is_due_the_earliest_first() {
        let mut schedule = SendSchedule::default();
        let now = Instant::now();
        for (after, whose) in [(30, 'c'), (10, 'a'), (20, 'b'), (10, 'A')] {
            assert!(schedule.add(now + Duration::from_millis(after), whose, after));
        }
        assert_eq!(schedule.next(), Some(now + Duration::from_millis(10)));
        assert_eq!(schedule.pop(now), None);
        let later = now + Duration::from_millis(20);
        let due: Vec<_> = std::iter::from_fn(|| schedule.pop(later)).collect();
        assert_eq!(due, [('a', 10), ('A', 10), ('b', 20)]);
    }
}
