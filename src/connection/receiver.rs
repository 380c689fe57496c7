//! The receiving half of a connection.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::codec::Decoder;
use tokio_util::io::poll_read_buf;

use crate::connection::blocks::{BLOCK, Blocks, LARGE};
use crate::protocol::{Frame, FrameCodec, FrameError, MAX_CHUNK, MAX_PAYLOAD};

/// Bytes that a silent connection keeps for what comes next.
const IDLE_BUFFER: usize = 1024;

/// Bytes of a frame before its chunk.
const HEAD: usize = MAX_PAYLOAD - MAX_CHUNK + size_of::<u32>();

/// Bytes that are read at once while a peer sends many small frames.
const BUSY_BUFFER: usize = 64 * 1024;

/// After so long without a large frame the memory for them is given back.
const SILENCE: Duration = Duration::from_secs(1);

/// The receiving half.
#[derive(Debug)]
pub struct Receiver<R> {
    reader: R,
    codec: FrameCodec,
    buffer: BytesMut,
    /// The last read took all there was room for.
    is_busy: bool,
    frame_timeout: Duration,
    /// Runs from the first byte of a frame to its last; no byte resets it.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Made for the first large frame. Boxed: most sessions never see one.
    bulk: Option<Box<Bulk>>,
}

/// What the receiver of large frames has more than others.
#[derive(Debug)]
struct Bulk {
    blocks: Blocks,
    /// Bytes of the last large frame. The next will be as long.
    length: usize,
    /// When it came.
    last: Instant,
    silence: Pin<Box<Sleep>>,
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
            reader,
            codec,
            buffer: BytesMut::with_capacity(IDLE_BUFFER),
            is_busy: false,
            frame_timeout,
            deadline: None,
            bulk: None,
        }
    }

    /// Lets through what a logged-in peer may send.
    pub fn lift_limits(&mut self, frame_timeout: Duration) {
        self.codec.lift_limits();
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
        poll_fn(|cx| match self.poll_next(cx) {
            Poll::Pending if self.buffer.is_empty() => Poll::Ready(None),
            next => next.map(Some),
        })
        .await
    }

    /// Reads what still comes and throws it away, until the peer closes.
    pub async fn discard_rest(&mut self) {
        let mut bytes = [0; 1024];
        while let Ok(1..) = self.reader.read(&mut bytes).await {}
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, ReceiveError>> {
        loop {
            if let Some(frame) = self.codec.decode(&mut self.buffer)? {
                self.deadline = None;
                return Poll::Ready(Ok(Some(self.unpinned(frame))));
            }
            let room = self.make_room()?;
            let mut free = (&mut self.buffer).limit(room);
            match poll_read_buf(Pin::new(&mut self.reader), cx, &mut free) {
                Poll::Ready(Ok(0)) => {
                    self.deadline = None;
                    return Poll::Ready(Ok(self.codec.decode_eof(&mut self.buffer)?));
                }
                Poll::Ready(Ok(read)) => self.is_busy = read == room && room >= IDLE_BUFFER / 2,
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

    /// Makes room for what is to be read next, and says for how many bytes.
    ///
    /// A large frame comes to lie whole in one block, with as many others as fit; what would have to
    /// be moved to the next block is not read before that is there.
    fn make_room(&mut self) -> Result<usize, FrameError> {
        let there = self.buffer.len();
        let spare = self.buffer.capacity() - there;
        match self.codec.length(&self.buffer)? {
            Some(length) if length >= LARGE => {
                let missing = length - there;
                if spare < missing {
                    self.next_block(length);
                }
                if let Some(bulk) = &mut self.bulk {
                    (bulk.length, bulk.last) = (length, Instant::now());
                }
                let spare = self.buffer.capacity() - there;
                Ok(if spare - missing < length {
                    missing
                } else {
                    spare
                })
            }
            Some(length) => {
                if spare < length - there {
                    self.buffer.reserve(length - there);
                }
                Ok(self.buffer.capacity() - there)
            }
            None => {
                let expected = self.bulk.as_ref().map_or(0, |bulk| bulk.length);
                if expected > 0 && spare < expected {
                    self.next_block(expected);
                } else if spare == 0 {
                    let more = if self.is_busy {
                        BUSY_BUFFER
                    } else {
                        IDLE_BUFFER
                    };
                    self.buffer.reserve(more);
                }
                Ok(self.buffer.capacity() - there)
            }
        }
    }

    /// Goes on in another block, with room for a frame of so many bytes.
    fn next_block(&mut self, length: usize) {
        let bulk = self.bulk.get_or_insert_with(|| {
            let last = Instant::now();
            Box::new(Bulk {
                blocks: Blocks::default(),
                length,
                last,
                silence: Box::pin(sleep_until(last + SILENCE)),
            })
        });
        let mut block = bulk.blocks.take(length.max(BLOCK));
        block.extend_from_slice(&self.buffer);
        let full = std::mem::replace(&mut self.buffer, block);
        bulk.blocks.give_back(full);
    }

    /// A small frame does not hold on to the block that it lies in.
    fn unpinned(&self, frame: Frame) -> Frame {
        if self.bulk.is_none() || frame.body().len() + HEAD >= LARGE {
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

    /// Gives back what large frames needed, now that nothing is on its way: at once what many small
    /// ones did, and what large ones did if no more of them come for a while.
    fn release_memory(&mut self, cx: &mut Context<'_>) {
        while let Some(bulk) = &mut self.bulk {
            if bulk.silence.as_mut().poll(cx).is_pending() {
                return;
            }
            let over = bulk.last + SILENCE;
            if over <= Instant::now() {
                self.bulk = None;
            } else {
                bulk.silence.as_mut().reset(over);
            }
        }
        if self.buffer.capacity() > IDLE_BUFFER {
            self.buffer = BytesMut::with_capacity(IDLE_BUFFER);
        }
    }

    /// Bytes of memory that it holds for what comes next.
    #[cfg(test)]
    pub(super) fn holds(&self) -> usize {
        let blocks = self.bulk.as_ref().map_or(0, |bulk| bulk.blocks.holds());
        self.buffer.capacity() + blocks
    }
}
