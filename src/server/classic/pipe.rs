//! In-memory pipes between a conversation and its session. They pass chunks on without a buffer, so an
//! idle pipe holds no memory for bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{SinkExt, Stream};
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};
use tokio_util::sync::PollSender;

/// The most queued chunks of one direction. Each is at most a chunk of a file; two make a data frame.
const MAX_QUEUED_CHUNKS: usize = 4;

/// The chunks of one direction, as they arrive.
#[derive(Debug)]
pub(crate) struct ChunkStream(mpsc::Receiver<Bytes>);

impl Stream for ChunkStream {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|piece| piece.map(Ok))
    }
}

/// A pipe with a sender of chunks.
pub(crate) fn chunk_pipe() -> (mpsc::Sender<Bytes>, StreamReader<ChunkStream, Bytes>) {
    let (sender, pieces) = mpsc::channel(MAX_QUEUED_CHUNKS);
    (sender, StreamReader::new(ChunkStream(pieces)))
}

/// A pipe with a writer of bytes.
pub(crate) fn byte_pipe() -> (
    impl AsyncWrite + Unpin + Send + 'static,
    StreamReader<ChunkStream, Bytes>,
) {
    let (sender, reader) = chunk_pipe();
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
        let (mut writer, mut reader) = byte_pipe();
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
        let (mut writer, reader) = byte_pipe();
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
