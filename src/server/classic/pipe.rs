//! The way between a conversation and its session. What is written passes piece by piece: a silent
//! one holds no memory for bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{SinkExt, Stream};
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};
use tokio_util::sync::PollSender;

/// Pieces that may be under way in one direction. Each is at most a chunk of a file, and two make a
/// data frame.
const PIECES: usize = 4;

/// The pieces of one direction, as they arrive.
#[derive(Debug)]
pub(crate) struct Pieces(mpsc::Receiver<Bytes>);

impl Stream for Pieces {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|piece| piece.map(Ok))
    }
}

/// One direction, into which whole pieces are put.
pub(crate) fn of_pieces() -> (mpsc::Sender<Bytes>, StreamReader<Pieces, Bytes>) {
    let (sender, pieces) = mpsc::channel(PIECES);
    (sender, StreamReader::new(Pieces(pieces)))
}

/// One direction, into which bytes are written.
pub(crate) fn of_bytes() -> (
    impl AsyncWrite + Unpin + Send + 'static,
    StreamReader<Pieces, Bytes>,
) {
    let (sender, reader) = of_pieces();
    let broken = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    let sink = PollSender::new(sender).sink_map_err(broken);
    (SinkWriter::new(CopyToBytes::new(sink)), reader)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_pass_until_the_writer_is_dropped() {
        let (mut writer, mut reader) = of_bytes();
        let writing = async move {
            for piece in 0..100_u8 {
                writer.write_all(&[piece; 3]).await.expect("open");
            }
        };
        let mut read = Vec::new();
        let ((), all) = tokio::join!(writing, reader.read_to_end(&mut read));
        all.expect("all of it");
        assert!(read.chunks(3).zip(0..).all(|(piece, n)| piece == [n; 3]));
        assert_eq!(read.len(), 300);
    }

    #[tokio::test]
    async fn a_writer_waits_for_its_reader_and_notices_that_it_is_gone() {
        let (mut writer, reader) = of_bytes();
        let writing = tokio::spawn(async move {
            loop {
                if let Err(error) = writer.write_all(b"piece").await {
                    return error.kind();
                }
            }
        });
        tokio::task::yield_now().await;
        assert!(!writing.is_finished(), "it is full and nobody reads");
        drop(reader);
        assert_eq!(writing.await.expect("no panic"), io::ErrorKind::BrokenPipe);
    }
}
