//! A connection: typed send and receive over any byte stream, the same for server and client.
//!
//! One task owns the reading half through a [`Receiver`], one the writing half through
//! [`write_frames`]. Everyone else holds an [`Outbox`], which is bounded: who sends faster than the
//! peer reads waits. The outbox has lanes, so that a small reply overtakes queued file bytes; what
//! the server says without being asked has one of its own, the [`EventLane`].

mod events;
mod outbox;

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use futures::Stream;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::codec::FramedRead;

use crate::protocol::{Frame, FrameCodec, FrameError};

pub use self::events::{EventLane, EventTap, LaneEvent, LaneFull, Receipt};
pub use self::outbox::{Closed, DataSlot, Outbox, OutboxQueue, write_frames};

/// Bytes that a silent connection keeps for what comes next.
const IDLE_BUFFER: usize = 1024;

/// Bytes that are read at once while a peer sends many small frames.
const BURST: usize = 64 * 1024;

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

    /// As [`next`](Self::next), but `None` at once if nothing has come of a further frame.
    ///
    /// Cancel-safe as that is.
    pub async fn next_begun(&mut self) -> Option<Result<Option<Frame>, ReceiveError>> {
        let buffer = self.frames.read_buffer_mut();
        if buffer.capacity() - buffer.len() < BURST / 8 {
            buffer.reserve(BURST);
        }
        poll_fn(|cx| match self.poll_next(cx) {
            Poll::Pending if self.is_between_frames() => Poll::Ready(None),
            next => next.map(Some),
        })
        .await
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
        if self.is_between_frames() {
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

    /// Whether nothing has come of a further frame.
    fn is_between_frames(&self) -> bool {
        self.frames.decoder().is_between_frames() && self.frames.read_buffer().is_empty()
    }

    /// Gives back what a large frame needed, now that nothing is on its way.
    fn release_memory(&mut self) {
        let buffer = self.frames.read_buffer_mut();
        if buffer.capacity() > IDLE_BUFFER {
            *buffer = BytesMut::with_capacity(IDLE_BUFFER);
        }
    }
}

#[cfg(test)]
mod tests;
