//! The receiving half of a connection. Large frames are received in pooled blocks without a copy.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::codec::Decoder;
use tokio_util::io::poll_read_buf;

use crate::connection::blocks::{BLOCK_BYTES, BlockPool, LARGE_FRAME_BYTES};
use crate::protocol::{Frame, FrameCodec, FrameError, MAX_CHUNK, MAX_PAYLOAD};

/// The buffer of an idle connection in bytes.
const IDLE_BUFFER_BYTES: usize = 1024;

/// The most bytes of a data frame before its chunk.
const MAX_HEAD_BYTES: usize = MAX_PAYLOAD - MAX_CHUNK + size_of::<u32>();

/// The bytes that are read at a time while a peer sends many small frames.
const BUSY_BUFFER_BYTES: usize = 64 * 1024;

/// The time without a large frame after which their memory is released.
const RELEASE_AFTER: Duration = Duration::from_secs(1);

/// The receiving half of a connection.
#[derive(Debug)]
pub struct Receiver<R> {
    reader: R,
    codec: FrameCodec,
    buffer: BytesMut,
    /// Whether the last read filled the buffer.
    is_busy: bool,
    frame_timeout: Duration,
    /// The time limit from the first byte of a frame to its last. No byte resets it.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Allocated for the first large frame. Boxed, because most sessions receive none.
    large: Option<Box<LargeFrameMemory>>,
}

/// The memory for large frames.
#[derive(Debug)]
struct LargeFrameMemory {
    blocks: BlockPool,
    /// The length of the last large frame, which the next one probably has too.
    length: usize,
    /// The time of the last large frame.
    last: Instant,
    silence: Pin<Box<Sleep>>,
}

/// An error after which no frame can be received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The bytes are not a valid frame, or the stream failed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame was not complete in time.
    #[error("a frame was begun and not finished within {0:?}")]
    TimedOut(Duration),
}

impl<R: AsyncRead + Unpin> Receiver<R> {
    /// Receives the frames that `codec` accepts, each within `frame_timeout` of its first byte.
    pub fn new(reader: R, codec: FrameCodec, frame_timeout: Duration) -> Self {
        Self {
            reader,
            codec,
            buffer: BytesMut::with_capacity(IDLE_BUFFER_BYTES),
            is_busy: false,
            frame_timeout,
            deadline: None,
            large: None,
        }
    }

    /// Applies the limits for a peer that has logged in.
    pub fn lift_limits(&mut self, frame_timeout: Duration) {
        self.codec.lift_limits();
        self.frame_timeout = frame_timeout;
    }

    /// Receives the next frame. Returns `None` if the peer has closed the connection between frames.
    ///
    /// # Errors
    /// [`ReceiveError`], after which nothing can be received.
    ///
    /// # Cancel safety
    /// Cancel-safe: no byte is lost.
    pub async fn next(&mut self) -> Result<Option<Frame>, ReceiveError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`next`](Self::next), but returns `None` at once if no byte of a further frame has arrived.
    pub async fn next_if_started(&mut self) -> Option<Result<Option<Frame>, ReceiveError>> {
        poll_fn(|cx| match self.poll_next(cx) {
            Poll::Pending if self.buffer.is_empty() => Poll::Ready(None),
            next => next.map(Some),
        })
        .await
    }

    /// Reads and discards everything until the peer closes the connection.
    pub async fn discard_rest(&mut self) {
        let mut bytes = [0; 1024];
        while let Ok(1..) = self.reader.read(&mut bytes).await {}
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, ReceiveError>> {
        loop {
            if let Some(frame) = self.codec.decode(&mut self.buffer)? {
                self.deadline = None;
                return Poll::Ready(Ok(Some(self.detach_small(frame))));
            }
            let room = self.make_room()?;
            let mut free = (&mut self.buffer).limit(room);
            match poll_read_buf(Pin::new(&mut self.reader), cx, &mut free) {
                Poll::Ready(Ok(0)) => {
                    self.deadline = None;
                    return Poll::Ready(Ok(self.codec.decode_eof(&mut self.buffer)?));
                }
                Poll::Ready(Ok(read)) => {
                    self.is_busy = read == room && room >= IDLE_BUFFER_BYTES / 2;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(FrameError::Io(error).into())),
                Poll::Pending => break,
            }
        }
        if self.buffer.is_empty() {
            self.deadline = None;
            self.release_memory(cx);
            return Poll::Pending;
        }
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + self.frame_timeout)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(ReceiveError::TimedOut(self.frame_timeout)))
    }

    /// Makes space for the next read, and returns the number of bytes to read.
    ///
    /// A large frame is received entirely in one block, together with as many others as fit. Bytes
    /// that would have to move to the next block are not read before that block is current.
    fn make_room(&mut self) -> Result<usize, FrameError> {
        let received = self.buffer.len();
        let spare = self.buffer.capacity() - received;
        match self.codec.length(&self.buffer)? {
            Some(length) if length >= LARGE_FRAME_BYTES => {
                let missing = length - received;
                if spare < missing {
                    self.next_block(length);
                }
                if let Some(large) = &mut self.large {
                    (large.length, large.last) = (length, Instant::now());
                }
                let spare = self.buffer.capacity() - received;
                Ok(if spare - missing < length {
                    missing
                } else {
                    spare
                })
            }
            Some(length) => {
                let missing = length - received;
                if spare < missing {
                    self.buffer.reserve(missing.max(self.read_bytes()));
                }
                Ok(self.buffer.capacity() - received)
            }
            None => {
                let expected = self.large.as_ref().map_or(0, |large| large.length);
                if expected > 0 && spare < expected {
                    self.next_block(expected);
                } else if spare == 0 {
                    self.buffer.reserve(self.read_bytes());
                }
                Ok(self.buffer.capacity() - received)
            }
        }
    }

    /// The bytes that are read at a time while no large frames come.
    fn read_bytes(&self) -> usize {
        if self.is_busy {
            BUSY_BUFFER_BYTES
        } else {
            IDLE_BUFFER_BYTES
        }
    }

    /// Switches to another block, which has space for a frame of `length` bytes.
    fn next_block(&mut self, length: usize) {
        let large = self.large.get_or_insert_with(|| {
            let last = Instant::now();
            Box::new(LargeFrameMemory {
                blocks: BlockPool::default(),
                length,
                last,
                silence: Box::pin(sleep_until(last + RELEASE_AFTER)),
            })
        });
        let mut block = large.blocks.acquire(length.max(BLOCK_BYTES));
        block.extend_from_slice(&self.buffer);
        let full = std::mem::replace(&mut self.buffer, block);
        large.blocks.release(full);
    }

    /// Copies a small frame out of its buffer, so that it does not keep that in memory.
    fn detach_small(&self, frame: Frame) -> Frame {
        let least_bytes = match &self.large {
            Some(_) => LARGE_FRAME_BYTES,
            None => BUSY_BUFFER_BYTES / 32,
        };
        if frame.body().len() + MAX_HEAD_BYTES >= least_bytes {
            return frame;
        }
        match frame {
            Frame::Control(json) => Frame::Control(Bytes::copy_from_slice(&json)),
            Frame::Data { stream, chunk } => Frame::Data {
                stream,
                chunk: Bytes::copy_from_slice(&chunk),
            },
        }
    }

    /// Releases memory while no frame is incomplete: at once the buffer for many small frames, and
    /// after a while without them the blocks for large frames.
    fn release_memory(&mut self, cx: &mut Context<'_>) {
        while let Some(large) = &mut self.large {
            if large.silence.as_mut().poll(cx).is_pending() {
                return;
            }
            let over = large.last + RELEASE_AFTER;
            if over <= Instant::now() {
                self.large = None;
            } else {
                large.silence.as_mut().reset(over);
            }
        }
        if self.buffer.capacity() > IDLE_BUFFER_BYTES {
            self.buffer = BytesMut::with_capacity(IDLE_BUFFER_BYTES);
        }
    }

    /// The memory that is held for later frames, in bytes.
    #[cfg(test)]
    pub(super) fn memory_bytes(&self) -> usize {
        let blocks = self
            .large
            .as_ref()
            .map_or(0, |large| large.blocks.memory_bytes());
        self.buffer.capacity() + blocks
    }
}
