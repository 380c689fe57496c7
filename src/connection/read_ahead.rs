//! Reading ahead for who reads in small pieces, as TLS does: one call of the system for many of them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

/// Bytes read ahead at most.
const AHEAD: usize = 128 * 1024;

/// Reads ahead as long as more comes than is asked for, and holds no memory when it does not.
#[derive(Debug)]
pub struct ReadAhead<R> {
    reader: R,
    ahead: BytesMut,
    /// The last piece that was asked for was there whole.
    is_busy: bool,
}

impl<R> ReadAhead<R> {
    /// Nothing is read yet.
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            ahead: BytesMut::new(),
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
        if this.ahead.is_empty() {
            if !this.is_busy || piece.remaining() >= AHEAD {
                let before = piece.remaining();
                ready!(Pin::new(&mut this.reader).poll_read(cx, piece))?;
                this.is_busy = piece.remaining() == 0 && before > 0;
                return Poll::Ready(Ok(()));
            }
            this.ahead.reserve(AHEAD);
            match poll_read_buf(Pin::new(&mut this.reader), cx, &mut this.ahead) {
                Poll::Ready(Ok(_)) => {}
                other => {
                    this.is_busy = false;
                    this.ahead = BytesMut::new();
                    return other.map_ok(drop);
                }
            }
        }
        let length = piece.remaining().min(this.ahead.len());
        piece.put_slice(&this.ahead[..length]);
        this.ahead.advance(length);
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
    async fn who_waits_for_more_holds_no_memory() {
        let (mut near, far) = duplex(200_000);
        near.write_all(&vec![1; 100_000]).await.expect("open");
        let mut reader = ReadAhead::new(far);
        let mut piece = [0; 4096];
        for _ in 0..2 {
            reader.read_exact(&mut piece).await.expect("there");
        }
        assert!(reader.ahead.capacity() >= 50_000);
        let mut rest = vec![0; 100_000 - 2 * 4096];
        reader.read_exact(&mut rest).await.expect("there");
        tokio::select! {
            biased;
            _ = reader.read(&mut piece) => unreachable!("nothing was sent"),
            () = tokio::task::yield_now() => {}
        }
        assert_eq!(reader.ahead.capacity(), 0);
    }
}
