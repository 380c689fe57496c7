//! The outbox: what goes to a peer, by lanes, and the task that writes it.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::connection::{EventQueue, FilePart, FrameSink, QueuedEvent};
use crate::protocol::Frame;

/// Small replies that may wait for the writer.
const CONTROL_QUEUE: usize = 64;

/// Bytes of small replies that are copied together into one write; larger ones are not copied.
const GATHERED: usize = 8 * 1024;

/// Data frames that may wait for the writer. With [`CHUNK`](crate::connection::CHUNK) it bounds the memory of a
/// session that sends: a chunk is read only once it has its place here.
const DATA_QUEUE: usize = 2;

/// The way to the task that writes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbox {
    control: mpsc::Sender<Bytes>,
    events: EventQueue,
    data: mpsc::Sender<Box<Data>>,
    takes_files: bool,
}

/// What waits to be written; goes to [`write_frames`].
#[derive(Debug)]
pub struct OutboxQueue {
    control: mpsc::Receiver<Bytes>,
    events: EventQueue,
    data: mpsc::Receiver<Box<Data>>,
    /// Taken out of its lane while something that was sent before it was not yet there.
    next_data: Option<Box<Data>>,
}

/// What goes through the data lane. Boxed there: a channel keeps room for many, and most sessions
/// send nothing through it.
#[derive(Debug)]
enum Data {
    Frame(Frame),
    /// Whole frames, encoded, one after the other.
    Encoded(Bytes),
    Part(Box<FilePart>),
}

impl Drop for OutboxQueue {
    fn drop(&mut self) {
        self.events.close();
    }
}

/// The writer has ended: the connection is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection is closed")]
pub struct Closed;

/// A place in the data lane. Whoever holds one may fetch the bytes to put there.
#[derive(Debug)]
pub struct DataSlot<'a>(mpsc::Permit<'a, Box<Data>>);

impl DataSlot<'_> {
    /// Fills the place.
    pub fn send(self, stream: u32, chunk: Bytes) {
        let frame = Frame::Data { stream, chunk };
        self.0.send(Box::new(Data::Frame(frame)));
    }

    /// Fills the place with a part of a file, where the outbox [takes](Outbox::takes_files) them.
    pub fn send_part(self, part: Box<FilePart>) {
        self.0.send(Box::new(Data::Part(part)));
    }
}

impl Outbox {
    /// An outbox and its queue.
    #[must_use]
    pub fn new() -> (Self, OutboxQueue) {
        Self::with(false)
    }

    /// An outbox for what is written to `outlet`.
    #[must_use]
    pub fn of<W>(outlet: &FrameSink<W>) -> (Self, OutboxQueue) {
        Self::with(outlet.takes_files())
    }

    fn with(takes_files: bool) -> (Self, OutboxQueue) {
        let (control, control_queue) = mpsc::channel(CONTROL_QUEUE);
        let (data, data_queue) = mpsc::channel(DATA_QUEUE);
        let events = EventQueue::default();
        let queue = OutboxQueue {
            control: control_queue,
            events: events.clone(),
            data: data_queue,
            next_data: None,
        };
        let outbox = Self {
            control,
            events,
            data,
            takes_files,
        };
        (outbox, queue)
    }

    /// Where events go that nobody waits for.
    #[must_use]
    pub fn events(&self) -> &EventQueue {
        &self.events
    }

    /// Sends a control payload, ahead of all data that waits.
    ///
    /// # Errors
    /// [`Closed`] if nothing will be written any more.
    pub async fn send(&self, json: Bytes) -> Result<(), Closed> {
        self.control.send(json).await.map_err(|_| Closed)
    }

    /// Sends a control payload after the data that was sent before it.
    ///
    /// # Errors
    /// [`Closed`] if nothing will be written any more.
    pub async fn send_after_data(&self, json: Bytes) -> Result<(), Closed> {
        let frame = Box::new(Data::Frame(Frame::Control(json)));
        self.data.send(frame).await.map_err(|_| Closed)
    }

    /// Sends whole frames that are encoded already, in one piece, as one of the data frames: a burst
    /// of small ones need not be put together again.
    ///
    /// # Errors
    /// [`Closed`] if nothing will be written any more.
    pub async fn send_encoded(&self, frames: Bytes) -> Result<(), Closed> {
        let frames = Box::new(Data::Encoded(frames));
        self.data.send(frames).await.map_err(|_| Closed)
    }

    /// Waits for a place for one data frame. Streams that wait take turns.
    ///
    /// # Errors
    /// [`Closed`] if nothing will be written any more.
    pub async fn data_slot(&self) -> Result<DataSlot<'_>, Closed> {
        self.data.reserve().await.map(DataSlot).map_err(|_| Closed)
    }

    /// Whether parts of files can be sent as they are, which nothing encrypts or translates.
    #[must_use]
    pub fn takes_files(&self) -> bool {
        self.takes_files
    }

    /// Resolves once nothing will be written any more.
    pub async fn closed(&self) {
        self.control.closed().await;
    }
}

/// Writes what the outbox is given until every [`Outbox`] is dropped, then shuts the writer down.
///
/// # Errors
/// What the stream says, or [`std::io::ErrorKind::TimedOut`] if the peer does not take a frame
/// within `write_timeout`.
pub async fn write_frames<W: AsyncWrite + Unpin>(
    mut outlet: FrameSink<W>,
    mut queue: OutboxQueue,
    write_timeout: Duration,
) -> std::io::Result<()> {
    while let Some(next) = queue.next().await {
        // Made anew each time: a silent session keeps no memory of what it once had to say.
        let mut head = BytesMut::new();
        let mut events = Vec::new();
        let body = match next {
            Next::Frame(Frame::Control(json)) if json.len() < GATHERED => {
                put(&mut head, json);
                queue.gather(&mut head, &mut events);
                Bytes::new()
            }
            Next::Event(event) if event.json.len() < GATHERED => {
                put(&mut head, event.json.clone());
                events.push(event);
                queue.gather(&mut head, &mut events);
                Bytes::new()
            }
            Next::Event(event) => {
                let body = put_head(&mut head, Frame::Control(event.json.clone()));
                events.push(event);
                body
            }
            Next::Frame(frame) => put_head(&mut head, frame),
            Next::Part(part) => {
                // Boxed: a silent session does not keep the room that this needs.
                Box::pin(part.send(&mut outlet, write_timeout)).await?;
                continue;
            }
            Next::Encoded(frames) => frames,
        };
        let bytes = head.freeze().chain(body);
        timeout(write_timeout, write_and_flush(&mut outlet.writer, bytes)).await??;
        if !events.is_empty() {
            let last = events.iter().filter_map(|event| event.inbox).max();
            queue.events.note_written(last);
        }
    }
    timeout(write_timeout, outlet.writer.shutdown()).await?
}

/// What is to be written next.
enum Next {
    Frame(Frame),
    Part(Box<FilePart>),
    Encoded(Bytes),
    Event(QueuedEvent),
}

/// Adds a frame whole.
fn put(buffer: &mut BytesMut, json: Bytes) {
    let body = put_head(buffer, Frame::Control(json));
    buffer.extend_from_slice(&body);
}

/// Adds the head of a frame, and returns its body.
fn put_head(buffer: &mut BytesMut, frame: Frame) -> Bytes {
    frame.put_head(buffer);
    match frame {
        Frame::Control(body) | Frame::Data { chunk: body, .. } => body,
    }
}

async fn write_and_flush(
    writer: &mut (impl AsyncWrite + Unpin),
    mut bytes: impl Buf,
) -> std::io::Result<()> {
    writer.write_all_buf(&mut bytes).await?;
    writer.flush().await
}

impl OutboxQueue {
    /// Replies first, then events, then data; `None` once every outbox is dropped.
    ///
    /// What somebody sends on one lane and then on the other leaves in that order. A reply that is
    /// sent may not be there yet, behind one that another thread is about to put into the queue; so
    /// data is held back for as long as the queue is not empty.
    async fn next(&mut self) -> Option<Next> {
        let (mut control_ended, mut data_ended) = (false, false);
        loop {
            if self.control.is_empty()
                && let Some(data) = self.next_data.take()
            {
                return Some(match *data {
                    Data::Frame(frame) => Next::Frame(frame),
                    Data::Encoded(frames) => Next::Encoded(frames),
                    Data::Part(part) => Next::Part(part),
                });
            }
            let is_held = self.next_data.is_some();
            tokio::select! {
                biased;
                json = self.control.recv(), if !control_ended => match json {
                    Some(json) => return Some(Next::Frame(Frame::Control(json))),
                    None => control_ended = true,
                },
                event = self.events.next(), if !control_ended && !is_held => {
                    return Some(Next::Event(event));
                }
                data = self.data.recv(), if !data_ended && !is_held => match data {
                    Some(data) => self.next_data = Some(data),
                    None => data_ended = true,
                },
                else => return None,
            }
        }
    }

    /// Adds the small frames that wait already, so that a burst of them is one write.
    fn gather(&mut self, buffer: &mut BytesMut, events: &mut Vec<QueuedEvent>) {
        while buffer.len() < GATHERED {
            if let Ok(json) = self.control.try_recv() {
                put(buffer, json);
            } else if let Some(event) = self.events.try_next() {
                put(buffer, event.json.clone());
                events.push(event);
            } else {
                return;
            }
        }
    }
}
