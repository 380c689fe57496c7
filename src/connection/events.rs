//! The queue of events for one connection: the frames that the server sends without a request.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

/// The most events in a queue.
const MAX_QUEUED_EVENTS: usize = 1024;

/// The bytes of queued events above which the queue rejects further ones.
const MAX_QUEUED_BYTES: usize = 256 * 1024;

/// The events that wait for the writer of one connection. Clones are cheap and share the queue. An
/// empty queue needs almost no memory.
#[derive(Debug, Clone, Default)]
pub struct EventQueue(Arc<EventQueueShared>);

#[derive(Debug, Default)]
struct EventQueueShared {
    queue: Mutex<EventQueueState>,
    /// Notified when an event is queued.
    ready: Notify,
    /// Notified when all events are written, or the queue is closed.
    drained: Notify,
}

#[derive(Debug, Default)]
struct EventQueueState {
    events: VecDeque<QueuedEvent>,
    bytes: usize,
    /// Whether the writer has dequeued events that it has not written yet.
    is_writing: bool,
    /// The `seq` up to which the inbox is written.
    written_seq: u64,
    is_closed: bool,
    observer: Option<Arc<dyn EventObserver>>,
}

/// An observer that gets a copy of every queued event.
pub trait EventObserver: Send + Sync + fmt::Debug {
    /// Gets a copy. Must not block. It may drop the copy, because the queue has the event.
    fn on_event(&self, json: &Bytes);
}

/// An event in a queue.
#[derive(Debug, Clone)]
pub struct QueuedEvent {
    /// The `seq` of the event, if it belongs to the receiver's inbox.
    pub inbox_seq: Option<u64>,
    /// The payload of the control frame.
    pub json: Bytes,
    /// Dropped when the event is written, or when it never will be.
    pub receipt: Option<DeliveryReceipt>,
}

/// A value that is dropped when an event is written.
#[derive(Clone)]
pub struct DeliveryReceipt(
    #[expect(dead_code, reason = "only its drop matters")] Arc<dyn Any + Send + Sync>,
);

impl DeliveryReceipt {
    /// A receipt whose last clone drops `value`.
    pub fn new(value: Arc<dyn Any + Send + Sync>) -> Self {
        Self(value)
    }
}

impl fmt::Debug for DeliveryReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeliveryReceipt")
    }
}

/// The queue is full: the peer reads too slowly, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many events wait for this connection")]
pub struct EventQueueFull;

impl EventQueue {
    /// Queues an event, without waiting.
    ///
    /// # Errors
    /// [`EventQueueFull`] if the queue is full, or the connection is closed.
    pub fn push(&self, event: QueuedEvent) -> Result<(), EventQueueFull> {
        let mut queue = self.lock();
        let full = queue.events.len() >= MAX_QUEUED_EVENTS || queue.bytes >= MAX_QUEUED_BYTES;
        if full || queue.is_closed {
            return Err(EventQueueFull);
        }
        queue.bytes += event.json.len();
        let observer = queue.observer.clone();
        let copy = observer.map(|observer| (observer, event.json.clone()));
        queue.events.push_back(event);
        drop(queue);
        self.0.ready.notify_one();
        if let Some((observer, json)) = copy {
            observer.on_event(&json);
        }
        Ok(())
    }

    /// Sets the observer of later events, in place of an earlier one.
    pub fn set_observer(&self, observer: Arc<dyn EventObserver>) {
        let mut queue = self.lock();
        if !queue.is_closed {
            queue.observer = Some(observer);
        }
    }

    /// The `seq` up to which the queued events of the inbox were passed to the operating system.
    #[must_use]
    pub fn written_seq(&self) -> u64 {
        self.lock().written_seq
    }

    /// Waits until all queued events are written. Returns `false` if the queue is closed.
    pub async fn drained(&self) -> bool {
        loop {
            let drained = self.0.drained.notified();
            {
                let queue = self.lock();
                if queue.is_closed {
                    return false;
                }
                if queue.events.is_empty() && !queue.is_writing {
                    return true;
                }
            }
            drained.await;
        }
    }

    /// Waits for the next event, and dequeues it.
    ///
    /// # Cancel safety
    /// Cancel-safe: no event is lost.
    pub async fn next(&self) -> QueuedEvent {
        loop {
            if let Some(event) = self.try_next() {
                return event;
            }
            self.0.ready.notified().await;
        }
    }

    /// Dequeues the next event, if there is one.
    #[must_use]
    pub fn try_next(&self) -> Option<QueuedEvent> {
        let mut queue = self.lock();
        let event = queue.events.pop_front()?;
        queue.bytes -= event.json.len();
        queue.is_writing = true;
        if queue.events.is_empty() {
            // Release the memory of a queue that was full once.
            queue.events = VecDeque::new();
        }
        Some(event)
    }

    /// Records that the dequeued events are written, up to this `seq` of the inbox.
    pub fn mark_written(&self, inbox: Option<u64>) {
        let mut queue = self.lock();
        queue.written_seq = queue.written_seq.max(inbox.unwrap_or(0));
        queue.is_writing = false;
        let drained = queue.events.is_empty();
        drop(queue);
        if drained {
            self.0.drained.notify_waiters();
        }
    }

    /// Closes the queue and drops the waiting events.
    pub fn close(&self) {
        let mut queue = self.lock();
        queue.is_closed = true;
        let dropped = (std::mem::take(&mut queue.events), queue.observer.take());
        queue.bytes = 0;
        drop(queue);
        drop(dropped);
        self.0.drained.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, EventQueueState> {
        self.0.queue.lock()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn event(seq: u64) -> QueuedEvent {
        QueuedEvent {
            inbox_seq: Some(seq),
            json: Bytes::from_static(b"{}"),
            receipt: None,
        }
    }

    #[tokio::test]
    async fn events_are_dequeued_in_order_and_count_as_written_when_marked() {
        let queue = EventQueue::default();
        for seq in 1..=3 {
            queue.push(event(seq)).expect("room");
        }
        assert_eq!(queue.next().await.inbox_seq, Some(1));
        assert_eq!(queue.written_seq(), 0);
        assert_eq!(queue.next().await.inbox_seq, Some(2));
        queue.mark_written(Some(2));
        assert_eq!(queue.written_seq(), 2);
        assert_eq!(queue.try_next().map(|event| event.inbox_seq), Some(Some(3)));
        assert!(queue.try_next().is_none());
    }

    #[test]
    fn a_full_queue_rejects_further_events() {
        let queue = EventQueue::default();
        let most = MAX_QUEUED_EVENTS as u64;
        let full = (0..=most).find(|seq| queue.push(event(*seq)).is_err());
        assert_eq!(full, Some(most));
        let queue = EventQueue::default();
        let mut large = event(1);
        large.json = vec![b' '; MAX_QUEUED_BYTES / 4].into();
        let full = (0..9).find(|_| queue.push(large.clone()).is_err());
        assert_eq!(full, Some(4));
    }

    #[test]
    fn a_receipt_is_dropped_with_its_event_or_when_the_queue_is_closed() {
        struct Flag(Arc<AtomicBool>);
        impl Drop for Flag {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        for close in [false, true] {
            let dropped = Arc::new(AtomicBool::new(false));
            let queue = EventQueue::default();
            let mut event = event(1);
            event.receipt = Some(DeliveryReceipt::new(Arc::new(Flag(dropped.clone()))));
            queue.push(event).expect("room");
            assert!(!dropped.load(Ordering::Relaxed));
            if close {
                queue.close();
            } else {
                drop(queue.try_next());
            }
            assert!(dropped.load(Ordering::Relaxed));
        }
    }

    #[test]
    fn an_observer_gets_a_copy_of_each_event_until_the_queue_is_closed() {
        #[derive(Debug, Default)]
        struct EventCopies(Mutex<Vec<Bytes>>);
        impl EventObserver for EventCopies {
            fn on_event(&self, json: &Bytes) {
                self.0.lock().push(json.clone());
            }
        }
        let (queue, copies) = (EventQueue::default(), Arc::new(EventCopies::default()));
        queue.push(event(1)).expect("room");
        queue.set_observer(copies.clone());
        queue.push(event(2)).expect("room");
        assert_eq!(queue.try_next().and_then(|event| event.inbox_seq), Some(1));
        assert_eq!(queue.try_next().and_then(|event| event.inbox_seq), Some(2));
        queue.close();
        assert_eq!(queue.push(event(3)), Err(EventQueueFull));
        assert_eq!(*copies.0.lock(), ["{}"]);
        assert_eq!(Arc::strong_count(&copies), 1, "nothing holds it any more");
    }

    #[tokio::test]
    async fn a_queue_is_drained_when_the_last_event_is_written_and_never_after_it_is_closed() {
        let queue = EventQueue::default();
        assert!(queue.drained().await);
        queue.push(event(1)).expect("room");
        let waiting = tokio::spawn({
            let queue = queue.clone();
            async move { queue.drained().await }
        });
        let taken = queue.next().await;
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        queue.mark_written(taken.inbox_seq);
        assert!(waiting.await.expect("no panic"));
        queue.close();
        assert!(!queue.drained().await);
        assert_eq!(queue.push(event(2)), Err(EventQueueFull));
    }
}
