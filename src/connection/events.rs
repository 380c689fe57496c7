//! The event lane: what the server says without being asked, on its way to one connection.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

/// Events that may wait for the writer of one connection.
const MOST_EVENTS: usize = 1024;

/// Bytes of events that may wait, above which no more come in.
const MOST_BYTES: usize = 256 * 1024;

/// The events that wait to be written on one connection. Cheap to clone; while none wait it takes
/// next to no memory.
#[derive(Debug, Clone, Default)]
pub struct EventQueue(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    queue: Mutex<Queue>,
    /// Something waits to be written.
    ready: Notify,
    /// Nothing waits any more.
    drained: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<QueuedEvent>,
    bytes: usize,
    /// The writer has taken events that it has not written yet.
    writing: bool,
    /// The place in the inbox up to which all is written.
    written: u64,
    closed: bool,
    tap: Option<Arc<dyn EventObserver>>,
}

/// Something that gets a copy of every event that is put into a lane.
pub trait EventObserver: Send + Sync + fmt::Debug {
    /// Takes a copy, without waiting. Nothing is lost with it: the event itself is in the lane.
    fn event(&self, json: &Bytes);
}

/// An event in a lane.
#[derive(Debug, Clone)]
pub struct QueuedEvent {
    /// Its place in the inbox of its receiver, if it is kept there.
    pub inbox: Option<u64>,
    /// The control payload.
    pub json: Bytes,
    /// Dropped once the event is written, or never will be.
    pub receipt: Option<DeliveryReceipt>,
}

/// Something to be dropped once an event is written.
#[derive(Clone)]
pub struct DeliveryReceipt(
    #[expect(dead_code, reason = "it is there to be dropped")] Arc<dyn Any + Send + Sync>,
);

impl DeliveryReceipt {
    /// One that drops `what` with its last clone.
    pub fn new(what: Arc<dyn Any + Send + Sync>) -> Self {
        Self(what)
    }
}

impl fmt::Debug for DeliveryReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receipt")
    }
}

/// The lane has no room: its peer reads too slowly, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many events wait for this connection")]
pub struct EventQueueFull;

impl EventQueue {
    /// Puts an event at the end, without waiting.
    ///
    /// # Errors
    /// [`LaneFull`] if too much waits already, or the connection is gone.
    pub fn push(&self, event: QueuedEvent) -> Result<(), EventQueueFull> {
        let mut queue = self.lock();
        let full = queue.events.len() >= MOST_EVENTS || queue.bytes >= MOST_BYTES;
        if full || queue.closed {
            return Err(EventQueueFull);
        }
        queue.bytes += event.json.len();
        let tap = queue.tap.clone();
        let copy = tap.map(|tap| (tap, event.json.clone()));
        queue.events.push_back(event);
        drop(queue);
        self.0.ready.notify_one();
        if let Some((tap, json)) = copy {
            tap.event(&json);
        }
        Ok(())
    }

    /// From now on gives `tap` a copy of what is put here, in place of the one before.
    pub fn tap(&self, tap: Arc<dyn EventObserver>) {
        let mut queue = self.lock();
        if !queue.closed {
            queue.tap = Some(tap);
        }
    }

    /// The place in the inbox up to which everything that was put here has been given to the system.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.lock().written
    }

    /// Waits until all that was put here is written; `false` if it never will be.
    pub async fn drained(&self) -> bool {
        loop {
            let drained = self.0.drained.notified();
            {
                let queue = self.lock();
                if queue.closed {
                    return false;
                }
                if queue.events.is_empty() && !queue.writing {
                    return true;
                }
            }
            drained.await;
        }
    }

    /// Takes the next event, once there is one. Cancel-safe.
    pub async fn next(&self) -> QueuedEvent {
        loop {
            if let Some(event) = self.try_next() {
                return event;
            }
            self.0.ready.notified().await;
        }
    }

    /// Takes the next event, if there is one.
    #[must_use]
    pub fn try_next(&self) -> Option<QueuedEvent> {
        let mut queue = self.lock();
        let event = queue.events.pop_front()?;
        queue.bytes -= event.json.len();
        queue.writing = true;
        if queue.events.is_empty() {
            // A lane that was full once keeps no memory of it.
            queue.events = VecDeque::new();
        }
        Some(event)
    }

    /// Notes that what was taken is written, up to this place in the inbox.
    pub fn note_written(&self, inbox: Option<u64>) {
        let mut queue = self.lock();
        queue.written = queue.written.max(inbox.unwrap_or(0));
        queue.writing = false;
        let drained = queue.events.is_empty();
        drop(queue);
        if drained {
            self.0.drained.notify_waiters();
        }
    }

    /// Nothing will be written any more: drops what waits.
    pub fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        let dropped = (std::mem::take(&mut queue.events), queue.tap.take());
        queue.bytes = 0;
        drop(queue);
        drop(dropped);
        self.0.drained.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        let queue = self.0.queue.lock();
        queue.unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn event(seq: u64) -> QueuedEvent {
        QueuedEvent {
            inbox: Some(seq),
            json: Bytes::from_static(b"{}"),
            receipt: None,
        }
    }

    #[tokio::test]
    async fn events_come_out_in_order_and_count_as_written_once_they_are() {
        let lane = EventQueue::default();
        for seq in 1..=3 {
            lane.push(event(seq)).expect("room");
        }
        assert_eq!(lane.next().await.inbox, Some(1));
        assert_eq!(lane.written(), 0);
        assert_eq!(lane.next().await.inbox, Some(2));
        lane.note_written(Some(2));
        assert_eq!(lane.written(), 2);
        assert_eq!(lane.try_next().map(|event| event.inbox), Some(Some(3)));
        assert!(lane.try_next().is_none());
    }

    #[test]
    fn a_lane_that_nobody_empties_takes_no_more_than_its_bounds() {
        let lane = EventQueue::default();
        let most = MOST_EVENTS as u64;
        let full = (0..=most).find(|seq| lane.push(event(*seq)).is_err());
        assert_eq!(full, Some(most));
        let lane = EventQueue::default();
        let mut large = event(1);
        large.json = vec![b' '; MOST_BYTES / 4].into();
        let full = (0..9).find(|_| lane.push(large.clone()).is_err());
        assert_eq!(full, Some(4));
    }

    #[test]
    fn a_receipt_is_dropped_once_its_event_is_or_the_lane_closes() {
        struct Flag(Arc<AtomicBool>);
        impl Drop for Flag {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        for close in [false, true] {
            let dropped = Arc::new(AtomicBool::new(false));
            let lane = EventQueue::default();
            let mut event = event(1);
            event.receipt = Some(DeliveryReceipt::new(Arc::new(Flag(dropped.clone()))));
            lane.push(event).expect("room");
            assert!(!dropped.load(Ordering::Relaxed));
            if close {
                lane.close();
            } else {
                drop(lane.try_next());
            }
            assert!(dropped.load(Ordering::Relaxed));
        }
    }

    #[test]
    fn a_tap_gets_a_copy_of_what_goes_in_until_the_lane_closes() {
        #[derive(Debug, Default)]
        struct Copies(Mutex<Vec<Bytes>>);
        impl EventObserver for Copies {
            fn event(&self, json: &Bytes) {
                self.0.lock().expect("no panic").push(json.clone());
            }
        }
        let (lane, copies) = (EventQueue::default(), Arc::new(Copies::default()));
        lane.push(event(1)).expect("room");
        lane.tap(copies.clone());
        lane.push(event(2)).expect("room");
        assert_eq!(lane.try_next().and_then(|event| event.inbox), Some(1));
        assert_eq!(lane.try_next().and_then(|event| event.inbox), Some(2));
        lane.close();
        assert_eq!(lane.push(event(3)), Err(EventQueueFull));
        assert_eq!(*copies.0.lock().expect("no panic"), ["{}"]);
        assert_eq!(Arc::strong_count(&copies), 1, "nothing holds it any more");
    }

    #[tokio::test]
    async fn a_lane_is_drained_once_the_last_event_is_written_and_never_once_it_is_closed() {
        let lane = EventQueue::default();
        assert!(lane.drained().await);
        lane.push(event(1)).expect("room");
        let waiting = tokio::spawn({
            let lane = lane.clone();
            async move { lane.drained().await }
        });
        let taken = lane.next().await;
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        lane.note_written(taken.inbox);
        assert!(waiting.await.expect("no panic"));
        lane.close();
        assert!(!lane.drained().await);
        assert_eq!(lane.push(event(2)), Err(EventQueueFull));
    }
}
