//! A limit of the bytes that a connection moves in a second.

use std::io::{self, IoSlice};
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// The time whose bytes are moved in one piece. A connection that was idle for longer gains nothing.
const PIECE: Duration = Duration::from_millis(50);

/// The shortest piece, for limits at which a piece of time would be a few bytes.
const MIN_PIECE_BYTES: usize = 1024;

/// The limit of a connection, in each direction. Clones are the same limit.
#[derive(Debug, Clone, Default)]
pub(crate) struct BandwidthLimit(Arc<AtomicU64>);

impl BandwidthLimit {
    /// Sets the limit in bytes per second; `None` is none. It applies from the next piece on.
    pub(crate) fn set(&self, bytes_per_second: Option<NonZeroU64>) {
        let rate = bytes_per_second.map_or(0, NonZeroU64::get);
        self.0.store(rate, Ordering::Relaxed);
    }

    fn get(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.0.load(Ordering::Relaxed))
    }
}

/// A byte stream, or one direction of it, that moves no more than its limit allows.
pub(crate) struct LimitedStream<S> {
    stream: S,
    limit: BandwidthLimit,
    reading: Pacer,
    writing: Pacer,
}

impl<S> LimitedStream<S> {
    pub(crate) fn new(stream: S, limit: &BandwidthLimit) -> Self {
        Self {
            stream,
            limit: limit.clone(),
            reading: Pacer::default(),
            writing: Pacer::default(),
        }
    }
}

/// Decides when the next piece may be moved in one direction.
#[derive(Default)]
struct Pacer {
    /// Absent before the first piece.
    next: Option<Instant>,
    wait: Option<Pin<Box<Sleep>>>,
}

impl Pacer {
    /// Resolves to the most bytes that may be moved now.
    fn poll_ready(&mut self, cx: &mut Context<'_>, rate: NonZeroU64) -> Poll<usize> {
        if let Some(next) = self.next.filter(|next| *next > Instant::now()) {
            let wait = self.wait.get_or_insert_with(|| Box::pin(sleep_until(next)));
            wait.as_mut().reset(next);
            ready!(wait.as_mut().poll(cx));
        }
        let piece = u128::from(rate.get()) * PIECE.as_millis() / 1000;
        let piece = usize::try_from(piece).unwrap_or(usize::MAX);
        Poll::Ready(piece.max(MIN_PIECE_BYTES))
    }

    /// Notes that so many bytes were moved.
    fn moved(&mut self, bytes: usize, rate: NonZeroU64) {
        let nanoseconds = bytes as u128 * 1_000_000_000 / u128::from(rate.get());
        let time = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let now = Instant::now();
        let earliest = now.checked_sub(PIECE).unwrap_or(now);
        self.next = Some(self.next.unwrap_or(now).max(earliest) + time);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LimitedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(rate) = this.limit.get() else {
            return Pin::new(&mut this.stream).poll_read(cx, buffer);
        };
        let piece = ready!(this.reading.poll_ready(cx, rate)).min(buffer.remaining());
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(piece));
        ready!(Pin::new(&mut this.stream).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buffer.advance(read);
        this.reading.moved(read, rate);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LimitedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Some(rate) = this.limit.get() else {
            return Pin::new(&mut this.stream).poll_write(cx, bytes);
        };
        let piece = ready!(this.writing.poll_ready(cx, rate)).min(bytes.len());
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, &bytes[..piece]))?;
        this.writing.moved(written, rate);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.limit.get().is_none() {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, buffers);
        }
        let first = buffers.iter().find(|buffer| !buffer.is_empty());
        self.poll_write(cx, first.map_or(&[], |buffer| &**buffer))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn limited<S>(stream: S) -> LimitedStream<S> {
        let limit = BandwidthLimit::default();
        let stream = LimitedStream::new(stream, &limit);
        limit.set(NonZeroU64::new(100_000));
        stream
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_takes_as_long_as_its_limit_says_in_each_direction() {
        let (near, mut far) = tokio::io::duplex(1024 * 1024);
        let mut near = limited(near);
        let started = Instant::now();
        near.write_all(&vec![1; 300_000]).await.expect("written");
        let writing = started.elapsed().as_millis();
        assert!((2850..3100).contains(&writing), "{writing}");
        let mut received = vec![0; 300_000];
        far.read_exact(&mut received).await.expect("read");
        far.write_all(&received).await.expect("written");
        let started = Instant::now();
        near.read_exact(&mut received).await.expect("read");
        let reading = started.elapsed().as_millis();
        assert!((2850..3100).contains(&reading), "{reading}");
        assert!(received.iter().all(|byte| *byte == 1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_stream_gains_no_more_than_a_piece() {
        let (near, _far) = tokio::io::duplex(1024 * 1024);
        let mut near = limited(near);
        near.write_all(&[1]).await.expect("written");
        tokio::time::advance(Duration::from_mins(1)).await;
        let started = Instant::now();
        near.write_all(&vec![1; 100_000]).await.expect("written");
        assert!(started.elapsed() > Duration::from_millis(850));
    }
}
