//! Messages on their way to the holder of a ticket: sent again until they are acknowledged, a few
//! times, and never more bytes than came from there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::protocol::MAX_DATAGRAM;

/// Messages that may wait for their acknowledgement.
const MOST: usize = 8;

/// Before a message is sent for the second time; then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// How often a message is sent before it is given up.
const SENDINGS: u32 = 6;

/// Bytes that may be sent to an address are saved up to this: all that may wait, once.
const MOST_CREDIT: usize = MOST * MAX_DATAGRAM;

/// The way to the holder of one ticket.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// Where the latest request came from.
    address: Option<SocketAddr>,
    /// Bytes that came from there in requests that are answered, less those that went there.
    credit: usize,
    waiting: BTreeMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    datagram: Bytes,
    sent: u32,
}

/// What to do for a message whose time has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Send it there; not if that address has had as much as came from it.
    pub(crate) send: Option<(SocketAddr, Bytes)>,
    /// Look again after this time.
    pub(crate) pause: Duration,
}

impl Outgoing {
    /// The latest request came from `address`: there the holder is.
    pub(crate) fn heard(&mut self, address: SocketAddr) {
        if self.address != Some(address) {
            self.address = Some(address);
            self.credit = 0;
        }
    }

    /// A request from `address` was answered in so many bytes less than it had.
    pub(crate) fn spared(&mut self, address: SocketAddr, bytes: usize) {
        if self.address == Some(address) {
            self.credit = (self.credit + bytes).min(MOST_CREDIT);
        }
    }

    /// Whether another message may wait.
    pub(crate) fn has_room(&self) -> bool {
        self.address.is_some() && self.waiting.len() < MOST
    }

    /// Puts a message there, for [`Self::step`] to send.
    pub(crate) fn put(&mut self, seq: u64, datagram: Bytes) {
        self.waiting.insert(seq, Waiting { datagram, sent: 0 });
    }

    /// The message has arrived.
    pub(crate) fn acknowledged(&mut self, seq: u64) {
        self.waiting.remove(&seq);
    }

    /// The next step for a message; `None` if there is none, because it has arrived or is given up.
    pub(crate) fn step(&mut self, seq: u64) -> Option<Step> {
        let waiting = self.waiting.get_mut(&seq)?;
        if waiting.sent == SENDINGS {
            self.waiting.remove(&seq);
            return None;
        }
        let pause = FIRST_PAUSE * (1 << waiting.sent);
        waiting.sent += 1;
        let length = waiting.datagram.len();
        let send = match (self.address, self.credit.checked_sub(length)) {
            (Some(address), Some(rest)) => {
                self.credit = rest;
                Some((address, waiting.datagram.clone()))
            }
            _ => None,
        };
        Some(Step { send, pause })
    }
}

/// When to look at which message, the earliest first.
#[derive(Debug)]
pub(crate) struct Schedule<T> {
    entries: BTreeMap<(Instant, u64), (T, u64)>,
    numbers: u64,
}

/// Entries of a schedule; what does not fit is not sent by datagram.
const MOST_SCHEDULED: usize = 100_000;

impl<T> Default for Schedule<T> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            numbers: 0,
        }
    }
}

impl<T> Schedule<T> {
    /// Enters the message `seq` of `whose`; `false` if there is no room.
    pub(crate) fn add(&mut self, at: Instant, whose: T, seq: u64) -> bool {
        if self.entries.len() >= MOST_SCHEDULED {
            return false;
        }
        self.numbers += 1;
        self.entries.insert((at, self.numbers), (whose, seq));
        true
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.entries.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes one that is due.
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

    fn heard_from(address: SocketAddr, credit: usize) -> Outgoing {
        let mut way = Outgoing::default();
        way.heard(address);
        way.spared(address, credit);
        way
    }

    fn message(length: usize) -> Bytes {
        vec![b'x'; length].into()
    }

    #[test]
    fn a_message_is_sent_at_growing_intervals_and_then_given_up() {
        let mut way = heard_from(address(1), 9999);
        way.put(41, message(100));
        let mut pauses = Vec::new();
        while let Some(step) = way.step(41) {
            assert_eq!(step.send, Some((address(1), message(100))));
            pauses.push(step.pause.as_millis());
        }
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400]);
        assert!(way.waiting.is_empty());
    }

    #[test]
    fn an_acknowledged_message_is_not_sent_again() {
        let mut way = heard_from(address(1), 1000);
        way.put(41, message(100));
        assert!(way.step(41).is_some());
        way.acknowledged(40);
        assert!(way.step(41).is_some(), "that was another one");
        way.acknowledged(41);
        assert_eq!(way.step(41), None);
    }

    #[test]
    fn nobody_is_sent_more_than_came_from_there() {
        let mut way = Outgoing::default();
        assert!(!way.has_room(), "nobody knows where");
        way.heard(address(1));
        way.spared(address(1), 250);
        way.put(41, message(100));
        let sent = |way: &mut Outgoing| way.step(41).and_then(|step| step.send).is_some();
        assert!(sent(&mut way) && sent(&mut way));
        assert!(!sent(&mut way), "50 bytes are left");
        way.spared(address(1), 60);
        assert!(sent(&mut way));
        way.heard(address(2));
        way.spared(address(2), 90);
        assert!(!sent(&mut way), "what came from elsewhere does not count");
        way.spared(address(1), 9999);
        assert!(!sent(&mut way), "and neither does what is older");
    }

    #[test]
    fn what_may_be_sent_is_not_saved_up_without_bounds() {
        let mut way = heard_from(address(1), 5 * MOST_CREDIT);
        assert_eq!(way.credit, MOST_CREDIT);
        way.heard(address(1));
        assert_eq!(way.credit, MOST_CREDIT, "it is the same address");
    }

    #[test]
    fn no_more_than_some_messages_wait() {
        let mut way = heard_from(address(1), 1000);
        let room = (0..).take_while(|seq| {
            let room = way.has_room();
            way.put(*seq, message(1));
            room
        });
        assert_eq!(room.count(), MOST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_schedule_gives_what_is_due_the_earliest_first() {
        let mut schedule = Schedule::default();
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
