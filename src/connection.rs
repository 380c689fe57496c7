//! A connection: typed send and receive over any byte stream, the same for server and client.
//!
//! One task owns the reading half through a [`Receiver`], one the writing half through
//! [`write_frames`]. Everyone else holds an [`Outbox`], which is bounded: who sends faster than the
//! peer reads waits. The outbox has two lanes, so that a small reply overtakes queued file bytes.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::Stream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::codec::FramedRead;

use crate::protocol::{Frame, FrameCodec, FrameError};

/// Bytes that a silent connection keeps for what comes next.
const IDLE_BUFFER: usize = 2 * 1024;

/// Small replies that may wait for the writer.
const CONTROL_QUEUE: usize = 64;

/// Bytes of small replies that are copied together into one write; larger ones are not copied.
const GATHERED: usize = 8 * 1024;

/// Data frames that may wait for the writer. With [`CHUNK`] it bounds the memory of a session that
/// sends: a chunk is read only once it has its place here.
const DATA_QUEUE: usize = 2;

/// Bytes of file in the data frames that haul itself sends. Large enough that a frame costs
/// nothing beside its bytes, small enough that a reply does not wait long behind one.
pub const CHUNK: usize = 128 * 1024;

/// The receiving half.
#[derive(Debug)]
pub struct Receiver<R> {
    frames: FramedRead<R, FrameCodec>,
    frame_timeout: Duration,
    /// Runs from the first byte of a frame to its last; no byte resets it.
    deadline: Option<Pin<Box<Sleep>>>,
}

/// Why no further frame can be received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The bytes are no frames, or the stream failed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame was begun and not finished in time.
    #[error("a frame was begun and not finished within {0:?}")]
    TimedOut(Duration),
}

impl<R: AsyncRead + Unpin> Receiver<R> {
    /// Receives what `codec` lets through, each frame within `frame_timeout` of its first byte.
    pub fn new(reader: R, codec: FrameCodec, frame_timeout: Duration) -> Self {
        Self {
            frames: FramedRead::with_capacity(reader, codec, IDLE_BUFFER),
            frame_timeout,
            deadline: None,
        }
    }

    /// Lets through what a logged-in peer may send.
    pub fn lift_limits(&mut self, frame_timeout: Duration) {
        self.frames.decoder_mut().lift_limits();
        self.frame_timeout = frame_timeout;
    }

    /// The next frame, or `None` once the peer has closed between two frames.
    ///
    /// Cancel-safe: no byte is lost if the future is dropped.
    ///
    /// # Errors
    /// [`ReceiveError`]; nothing can be received after one.
    pub async fn next(&mut self) -> Result<Option<Frame>, ReceiveError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Reads what still comes and throws it away, until the peer closes.
    pub async fn discard_rest(&mut self) {
        let mut bytes = [0; 1024];
        while let Ok(1..) = self.frames.get_mut().read(&mut bytes).await {}
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, ReceiveError>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.frames).poll_next(cx) {
            self.deadline = None;
            return Poll::Ready(frame.transpose().map_err(ReceiveError::Frame));
        }
        if self.frames.decoder().is_between_frames() && self.frames.read_buffer().is_empty() {
            self.deadline = None;
            self.release_memory();
            return Poll::Pending;
        }
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + self.frame_timeout)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(ReceiveError::TimedOut(self.frame_timeout)))
    }

    /// Gives back what a large frame needed, now that nothing is on its way.
    fn release_memory(&mut self) {
        let buffer = self.frames.read_buffer_mut();
        if buffer.capacity() > IDLE_BUFFER {
            *buffer = BytesMut::with_capacity(IDLE_BUFFER);
        }
    }
}

/// The way to the task that writes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbox {
    control: mpsc::Sender<Bytes>,
    data: mpsc::Sender<Frame>,
}

/// What waits to be written; goes to [`write_frames`].
#[derive(Debug)]
pub struct OutboxQueue {
    control: mpsc::Receiver<Bytes>,
    data: mpsc::Receiver<Frame>,
}

/// The writer has ended: the connection is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection is closed")]
pub struct Closed;

/// A place in the data lane. Whoever holds one may fetch the bytes to put there.
#[derive(Debug)]
pub struct DataSlot<'a>(mpsc::Permit<'a, Frame>);

impl DataSlot<'_> {
    /// Fills the place.
    pub fn send(self, stream: u32, chunk: Bytes) {
        self.0.send(Frame::Data { stream, chunk });
    }
}

impl Outbox {
    /// An outbox and its queue.
    #[must_use]
    pub fn new() -> (Self, OutboxQueue) {
        let (control, control_queue) = mpsc::channel(CONTROL_QUEUE);
        let (data, data_queue) = mpsc::channel(DATA_QUEUE);
        let queue = OutboxQueue {
            control: control_queue,
            data: data_queue,
        };
        (Self { control, data }, queue)
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
        let frame = Frame::Control(json);
        self.data.send(frame).await.map_err(|_| Closed)
    }

    /// Waits for a place for one data frame. Streams that wait take turns.
    ///
    /// # Errors
    /// [`Closed`] if nothing will be written any more.
    pub async fn data_slot(&self) -> Result<DataSlot<'_>, Closed> {
        self.data.reserve().await.map(DataSlot).map_err(|_| Closed)
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
    mut writer: W,
    mut queue: OutboxQueue,
    write_timeout: Duration,
) -> std::io::Result<()> {
    loop {
        let frame = tokio::select! {
            biased;
            Some(json) = queue.control.recv() => Frame::Control(json),
            Some(frame) = queue.data.recv() => frame,
            else => break,
        };
        // Made anew each time: a silent session keeps no memory of what it once had to say.
        let mut head = BytesMut::new();
        frame.put_head(&mut head);
        let body = match frame {
            Frame::Control(json) if json.len() < GATHERED => {
                head.extend_from_slice(&json);
                queue.gather_control(&mut head);
                Bytes::new()
            }
            Frame::Control(body) | Frame::Data { chunk: body, .. } => body,
        };
        let bytes = head.freeze().chain(body);
        timeout(write_timeout, write_and_flush(&mut writer, bytes)).await??;
    }
    timeout(write_timeout, writer.shutdown()).await?
}

async fn write_and_flush(
    writer: &mut (impl AsyncWrite + Unpin),
    mut bytes: impl Buf,
) -> std::io::Result<()> {
    writer.write_all_buf(&mut bytes).await?;
    writer.flush().await
}

impl OutboxQueue {
    /// Adds the small frames that wait already, so that a burst of replies is one write.
    fn gather_control(&mut self, buffer: &mut BytesMut) {
        while buffer.len() < GATHERED {
            let Ok(json) = self.control.try_recv() else {
                return;
            };
            let frame = Frame::Control(json);
            frame.put_head(buffer);
            buffer.extend_from_slice(frame.body());
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn control(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[tokio::test]
    async fn frames_pass_a_pipe_of_eight_bytes_unharmed() {
        let (near, far) = duplex(8);
        let (outbox, queue) = Outbox::new();
        let writer = tokio::spawn(write_frames(near, queue, LONG));
        let sender = tokio::spawn(async move {
            outbox.send(control(r#"{"id":1}"#)).await?;
            let slot = outbox.data_slot().await?;
            slot.send(7, Bytes::from(vec![b'x'; 1000]));
            outbox.send_after_data(control(r#"{"id":7}"#)).await
        });
        let mut receiver = Receiver::new(far, FrameCodec::new(), LONG);
        let mut frames = Vec::new();
        while let Some(frame) = receiver.next().await.expect("sound frames") {
            frames.push(frame);
        }
        let expected = [
            Frame::Control(control(r#"{"id":1}"#)),
            Frame::Data {
                stream: 7,
                chunk: vec![b'x'; 1000].into(),
            },
            Frame::Control(control(r#"{"id":7}"#)),
        ];
        assert_eq!(frames, expected);
        sender.await.expect("no panic").expect("sent");
        writer.await.expect("no panic").expect("written");
    }

    #[tokio::test]
    async fn a_small_reply_overtakes_data_that_waits() {
        let (outbox, queue) = Outbox::new();
        for _ in 0..DATA_QUEUE {
            outbox
                .data_slot()
                .await
                .expect("open")
                .send(7, Bytes::from_static(b"data"));
        }
        outbox.send(control("{}")).await.expect("open");
        drop(outbox);
        let mut wire = Vec::new();
        write_frames(&mut wire, queue, LONG).await.expect("written");
        assert!(wire.starts_with(b"\0\0\0\x02{}\0\0\0\x09\x01"), "{wire:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickled_frame_ends_at_a_deadline_that_no_byte_resets() {
        let (mut near, far) = duplex(64);
        let mut receiver = Receiver::new(far, FrameCodec::new(), Duration::from_secs(10));
        let trickle = tokio::spawn(async move {
            for byte in b"\0\0\0\x40{".iter().chain(&[b' '; 59]) {
                near.write_all(&[*byte]).await.expect("open");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            near
        });
        let start = Instant::now();
        let error = receiver.next().await.expect_err("too slow");
        assert!(matches!(error, ReceiveError::TimedOut(_)), "{error}");
        assert_eq!(start.elapsed().as_secs(), 10);
        trickle.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_between_frames_has_no_frame_deadline() {
        let (mut near, far) = duplex(64);
        let mut receiver = Receiver::new(far, FrameCodec::new(), Duration::from_secs(10));
        let hour = Duration::from_secs(3600);
        assert!(timeout(hour, receiver.next()).await.is_err());
        near.write_all(b"\0\0\0\x02{}").await.expect("open");
        assert!(matches!(receiver.next().await, Ok(Some(Frame::Control(_)))));
    }

    #[tokio::test]
    async fn a_receive_that_is_cancelled_anywhere_loses_no_byte() {
        let (mut near, far) = duplex(1);
        let mut receiver = Receiver::new(far, FrameCodec::new(), LONG);
        let writer = tokio::spawn(async move {
            near.write_all(b"\0\0\0\x09\x01\0\0\0\x05data")
                .await
                .expect("open");
            near
        });
        let frame = loop {
            tokio::select! {
                biased;
                frame = receiver.next() => break frame,
                () = tokio::task::yield_now() => {}
            }
        };
        let expected = Frame::Data {
            stream: 5,
            chunk: Bytes::from_static(b"data"),
        };
        assert_eq!(frame.expect("sound"), Some(expected));
        writer.await.expect("no panic");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_given_up_after_the_write_deadline() {
        let (near, _far) = duplex(8);
        let (outbox, queue) = Outbox::new();
        outbox
            .send(control(&format!("{{{}}}", " ".repeat(100))))
            .await
            .expect("open");
        let error = write_frames(near, queue, Duration::from_secs(30)).await;
        assert_eq!(
            error.expect_err("stuck").kind(),
            std::io::ErrorKind::TimedOut
        );
        outbox.closed().await;
    }

    #[tokio::test]
    async fn a_large_frame_leaves_no_memory_behind() {
        let (near, far) = duplex(64 * 1024);
        let (outbox, queue) = Outbox::new();
        let writer = tokio::spawn(write_frames(near, queue, LONG));
        let mut receiver = Receiver::new(far, FrameCodec::new(), LONG);
        outbox
            .data_slot()
            .await
            .expect("open")
            .send(1, vec![0; 1 << 20].into());
        assert!(matches!(
            receiver.next().await,
            Ok(Some(Frame::Data { .. }))
        ));
        tokio::select! {
            biased;
            _ = receiver.next() => unreachable!("nothing was sent"),
            () = tokio::task::yield_now() => {}
        }
        assert!(receiver.frames.read_buffer().capacity() <= IDLE_BUFFER);
        drop(outbox);
        writer.await.expect("no panic").expect("written");
    }
}
