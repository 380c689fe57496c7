//! Read-ahead for readers of small pieces, such as TLS: one system call serves many reads.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

/// The most bytes that are read ahead.
const MAX_READ_AHEAD_BYTES: usize = 128 * 1024;

/// A reader that reads ahead while data arrives faster than it is read, and holds no memory otherwise.
#[derive(Debug)]
pub struct ReadAhead<R> {
    reader: R,
    buffer: BytesMut,
    /// Whether the last read was filled completely.
    is_busy: bool,
}

impl<R> ReadAhead<R> {
    /// Wraps a reader.
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            buffer: BytesMut::new(),
            is_busy: false,
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for ReadAhead<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        piece: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.buffer.is_empty() {
            if !this.is_busy || piece.remaining() >= MAX_READ_AHEAD_BYTES {
                let before = piece.remaining();
                ready!(Pin::new(&mut this.reader).poll_read(cx, piece))?;
                this.is_busy = piece.remaining() == 0 && before > 0;
                return Poll::Ready(Ok(()));
            }
            this.buffer.reserve(MAX_READ_AHEAD_BYTES);
            match poll_read_buf(Pin::new(&mut this.reader), cx, &mut this.buffer) {
                Poll::Ready(Ok(_)) => {}
                other => {
                    this.is_busy = false;
                    this.buffer = BytesMut::new();
                    return other.map_ok(drop);
                }
            }
        }
        let length = piece.remaining().min(this.buffer.len());
        piece.put_slice(&this.buffer[..length]);
        this.buffer.advance(length);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn every_byte_comes_once_and_in_order_whatever_the_pieces() {
        let (mut near, far) = duplex(200_000);
        let sent: Vec<u8> = (0..=250).cycle().take(1_000_000).collect();
        let copy = sent.clone();
        let writing = tokio::spawn(async move { near.write_all(&copy).await });
        let mut reader = ReadAhead::new(far);
        let mut received = Vec::new();
        for length in [1, 4096, 7, 16_384, 300_000].into_iter().cycle() {
            let mut piece = vec![0; length];
            match reader.read(&mut piece).await.expect("readable") {
                0 => break,
                length => received.extend_from_slice(&piece[..length]),
            }
        }
        writing.await.expect("no panic").expect("written");
        assert!(received == sent);
    }

    #[tokio::test]
    async fn a_waiting_reader_holds_no_memory() {
        let (mut near, far) = duplex(200_000);
        near.write_all(&vec![1; 100_000]).await.expect("open");
        let mut reader = ReadAhead::new(far);
        let mut piece = [0; 4096];
        for _ in 0..2 {
            reader.read_exact(&mut piece).await.expect("there");
        }
        assert!(reader.buffer.capacity() >= 50_000);
        let mut rest = vec![0; 100_000 - 2 * 4096];
        reader.read_exact(&mut rest).await.expect("there");
        tokio::select! {
            biased;
            _ = reader.read(&mut piece) => unreachable!("nothing was sent"),
            () = tokio::task::yield_now() => {}
        }
        assert_eq!(reader.buffer.capacity(), 0);
    }
}
