//! The outbox: the queues of frames for a peer, and the task that writes them.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::connection::write_deadline::WriteDeadline;
use crate::connection::{EventQueue, FilePart, FrameSink, QueuedEvent};
use crate::protocol::Frame;

/// The most replies that may wait for the writer.
const MAX_QUEUED_REPLIES: usize = 64;

/// The bytes of small frames that are gathered in one write. Larger frames are not copied.
const MAX_GATHERED_BYTES: usize = 8 * 1024;

/// The most data frames that may wait for the writer. It bounds the memory of a session that sends,
/// because a chunk is read only after its slot is reserved.
const MAX_QUEUED_DATA_FRAMES: usize = 2;

/// The sender of frames to a peer. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Outbox {
    control: mpsc::Sender<Bytes>,
    events: EventQueue,
    data: mpsc::Sender<Box<QueuedData>>,
    takes_files: bool,
}

/// The frames that wait for [`write_frames`].
#[derive(Debug)]
pub struct OutboxQueue {
    control: mpsc::Receiver<Bytes>,
    events: EventQueue,
    data: mpsc::Receiver<Box<QueuedData>>,
    /// A data frame that waits for replies that were sent before it.
    next_data: Option<Box<QueuedData>>,
}

/// An item of the data queue. It is boxed, because a channel allocates many slots and most sessions
/// send no data.
#[derive(Debug)]
enum QueuedData {
    Frame(Frame),
    /// Encoded frames.
    Encoded(Bytes),
    Part(Box<FilePart>),
}

impl Drop for OutboxQueue {
    fn drop(&mut self) {
        self.events.close();
    }
}

/// The connection is closed: its writer has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection is closed")]
pub struct OutboxClosed;

/// A reserved slot of the data queue. Reserve one before you read the data for it.
#[derive(Debug)]
pub struct DataSlot<'a>(mpsc::Permit<'a, Box<QueuedData>>);

impl DataSlot<'_> {
    /// Queues a data frame.
    pub fn send(self, stream: u32, chunk: Bytes) {
        let frame = Frame::Data { stream, chunk };
        self.0.send(Box::new(QueuedData::Frame(frame)));
    }

    /// Queues a part of a file, if the outbox [supports](Outbox::supports_sendfile) it.
    pub fn send_part(self, part: Box<FilePart>) {
        self.0.send(Box::new(QueuedData::Part(part)));
    }
}

impl Outbox {
    /// An outbox for any byte stream, and its queues.
    #[must_use]
    pub fn new() -> (Self, OutboxQueue) {
        Self::with(false)
    }

    /// An outbox for `sink`, and its queues.
    #[must_use]
    pub fn for_sink<W>(sink: &FrameSink<W>) -> (Self, OutboxQueue) {
        Self::with(sink.supports_sendfile())
    }

    fn with(takes_files: bool) -> (Self, OutboxQueue) {
        let (control, control_queue) = mpsc::channel(MAX_QUEUED_REPLIES);
        let (data, data_queue) = mpsc::channel(MAX_QUEUED_DATA_FRAMES);
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

    /// The queue for events.
    #[must_use]
    pub fn events(&self) -> &EventQueue {
        &self.events
    }

    /// Sends a control frame, ahead of all queued data.
    ///
    /// # Errors
    /// [`OutboxClosed`] if the connection is closed.
    pub async fn send(&self, json: Bytes) -> Result<(), OutboxClosed> {
        self.control.send(json).await.map_err(|_| OutboxClosed)
    }

    /// Sends a control frame after the data that was sent before it.
    ///
    /// # Errors
    /// [`OutboxClosed`] if the connection is closed.
    pub async fn send_after_data(&self, json: Bytes) -> Result<(), OutboxClosed> {
        let frame = Box::new(QueuedData::Frame(Frame::Control(json)));
        self.data.send(frame).await.map_err(|_| OutboxClosed)
    }

    /// Sends encoded frames in one piece, as one item of the data queue. It avoids the encoding of
    /// each frame in a burst of small ones.
    ///
    /// # Errors
    /// [`OutboxClosed`] if the connection is closed.
    pub async fn send_encoded(&self, frames: Bytes) -> Result<(), OutboxClosed> {
        let frames = Box::new(QueuedData::Encoded(frames));
        self.data.send(frames).await.map_err(|_| OutboxClosed)
    }

    /// Reserves a slot for one data frame. Waiting streams are served in turn.
    ///
    /// # Errors
    /// [`OutboxClosed`] if the connection is closed.
    pub async fn data_slot(&self) -> Result<DataSlot<'_>, OutboxClosed> {
        self.data
            .reserve()
            .await
            .map(DataSlot)
            .map_err(|_| OutboxClosed)
    }

    /// Whether [`FilePart`]s can be sent, because the connection is plain TCP.
    #[must_use]
    pub fn supports_sendfile(&self) -> bool {
        self.takes_files
    }

    /// Waits until the connection is closed.
    pub async fn closed(&self) {
        self.control.closed().await;
    }
}

/// Writes the queued frames until every [`Outbox`] is dropped, then shuts the stream down.
///
/// # Errors
/// An error of the stream, or [`std::io::ErrorKind::TimedOut`] if the peer does not receive a frame,
/// or 64 KiB of a larger one, within `write_timeout`.
pub async fn write_frames<W: AsyncWrite + Unpin>(
    mut sink: FrameSink<W>,
    mut queue: OutboxQueue,
    write_timeout: Duration,
) -> std::io::Result<()> {
    while let Some(next) = queue.next().await {
        // Allocated for each write, so that an idle session holds no buffers.
        let mut head = BytesMut::new();
        let mut events = Vec::new();
        let body = match next {
            OutboxItem::Frame(Frame::Control(json)) if json.len() < MAX_GATHERED_BYTES => {
                append_frame(&mut head, json);
                queue.gather(&mut head, &mut events);
                Bytes::new()
            }
            OutboxItem::Event(event) if event.json.len() < MAX_GATHERED_BYTES => {
                append_frame(&mut head, event.json.clone());
                events.push(event);
                queue.gather(&mut head, &mut events);
                Bytes::new()
            }
            OutboxItem::Event(event) => {
                let body = append_head(&mut head, Frame::Control(event.json.clone()));
                events.push(event);
                body
            }
            OutboxItem::Frame(frame) => append_head(&mut head, frame),
            OutboxItem::Part(part) => {
                // Boxed, so that the future of an idle session stays small.
                Box::pin(part.send(&mut sink, write_timeout)).await?;
                continue;
            }
            OutboxItem::Encoded(frames) => frames,
        };
        let bytes = head.freeze().chain(body);
        write_and_flush(&mut sink.writer, bytes, write_timeout).await?;
        if !events.is_empty() {
            let last = events.iter().filter_map(|event| event.inbox_seq).max();
            queue.events.mark_written(last);
        }
    }
    timeout(write_timeout, sink.writer.shutdown()).await?
}

/// The next item to write.
enum OutboxItem {
    Frame(Frame),
    Part(Box<FilePart>),
    Encoded(Bytes),
    Event(QueuedEvent),
}

/// Appends a frame.
fn append_frame(buffer: &mut BytesMut, json: Bytes) {
    let body = append_head(buffer, Frame::Control(json));
    buffer.extend_from_slice(&body);
}

/// Appends the head of a frame, and returns its body.
fn append_head(buffer: &mut BytesMut, frame: Frame) -> Bytes {
    frame.put_head(buffer);
    match frame {
        Frame::Control(body) | Frame::Data { chunk: body, .. } => body,
    }
}

async fn write_and_flush(
    writer: &mut (impl AsyncWrite + Unpin),
    mut bytes: impl Buf,
    write_timeout: Duration,
) -> std::io::Result<()> {
    let mut deadline = WriteDeadline::new(write_timeout);
    while bytes.has_remaining() {
        let written = deadline.wait(writer.write_buf(&mut bytes)).await?;
        if written == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        deadline.add_received(written as u64);
    }
    deadline.wait(writer.flush()).await
}

impl OutboxQueue {
    /// Returns replies first, then events, then data; `None` when every outbox is dropped.
    ///
    /// A reply that is sent before data is written before it. While another thread queues a reply, the
    /// channel may hide the replies after it, so data waits until the queue of replies is empty.
    async fn next(&mut self) -> Option<OutboxItem> {
        let (mut control_ended, mut data_ended) = (false, false);
        loop {
            if self.control.is_empty()
                && let Some(data) = self.next_data.take()
            {
                return Some(match *data {
                    QueuedData::Frame(frame) => OutboxItem::Frame(frame),
                    QueuedData::Encoded(frames) => OutboxItem::Encoded(frames),
                    QueuedData::Part(part) => OutboxItem::Part(part),
                });
            }
            let has_waiting_data = self.next_data.is_some();
            tokio::select! {
                biased;
                json = self.control.recv(), if !control_ended => match json {
                    Some(json) => return Some(OutboxItem::Frame(Frame::Control(json))),
                    None => control_ended = true,
                },
                event = self.events.next(), if !control_ended && !has_waiting_data => {
                    return Some(OutboxItem::Event(event));
                }
                data = self.data.recv(), if !data_ended && !has_waiting_data => match data {
                    Some(data) => self.next_data = Some(data),
                    None => data_ended = true,
                },
                else => return None,
            }
        }
    }

    /// Appends the small frames that wait already, so that a burst needs one write.
    fn gather(&mut self, buffer: &mut BytesMut, events: &mut Vec<QueuedEvent>) {
        while buffer.len() < MAX_GATHERED_BYTES {
            if let Ok(json) = self.control.try_recv() {
                append_frame(buffer, json);
            } else if let Some(event) = self.events.try_next() {
                append_frame(buffer, event.json.clone());
                events.push(event);
            } else {
                return;
            }
        }
    }
}
