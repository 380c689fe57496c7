//! The connection of a classic client: reads frames and raw bytes, and writes them.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::server::classic::frame;
use crate::server::classic::frame::ClassicFrameError;

/// Bytes of one read when a frame is expected.
const READ_STEP_BYTES: usize = 1024;

/// Bytes of one read when file content is expected.
const BODY_STEP_BYTES: usize = 64 * 1024;

/// The most bytes that are read ahead while a command runs, to notice that the client is gone.
const MAX_READ_AHEAD_BYTES: usize = 64 * 1024;

/// How long the server reads on after it sent the reason for closing, so that the client can read it.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// The connection of a client of the classic dialect.
#[derive(Debug)]
pub(crate) struct ClassicClient<R, W> {
    reader: R,
    writer: W,
    /// Received bytes that are not consumed.
    buffer: BytesMut,
    /// The client has closed its sending half.
    ended: bool,
    write_timeout: Duration,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> ClassicClient<R, W> {
    pub(crate) fn new(reader: R, writer: W, write_timeout: Duration) -> Self {
        Self {
            reader,
            writer,
            buffer: BytesMut::new(),
            ended: false,
            write_timeout,
        }
    }

    /// Whether the client has closed its sending half and all received bytes are consumed.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended && self.buffer.is_empty()
    }

    /// Whether a frame was received partially.
    pub(crate) fn is_within_frame(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The JSON of the next frame, if it was received completely.
    pub(crate) fn take_frame(&mut self, limit: usize) -> Result<Option<Bytes>, ClassicFrameError> {
        let json = frame::take_frame(&mut self.buffer, limit)?;
        if self.buffer.is_empty() {
            // An idle client holds no memory.
            self.buffer = BytesMut::new();
        }
        Ok(json)
    }

    /// Waits for more of a frame. Cancel-safe.
    pub(crate) async fn read_frame(&mut self) -> io::Result<()> {
        self.read(READ_STEP_BYTES).await
    }

    /// Waits for more of a body, unless some is here. Cancel-safe.
    pub(crate) async fn read_body(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            self.read(BODY_STEP_BYTES).await?;
        }
        if self.has_ended() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Takes at most `max` received bytes of a body.
    pub(crate) fn take_body(&mut self, max: u64) -> Bytes {
        let received = self.buffer.len();
        let length = usize::try_from(max).map_or(received, |max| max.min(received));
        self.buffer.split_to(length).freeze()
    }

    /// Reads ahead while a command runs. Resolves only once the client has closed its sending half and
    /// no complete frame is left. Cancel safe.
    pub(crate) async fn wait_for_close(&mut self, limit: usize) -> io::Result<()> {
        while !self.ended && self.buffer.len() < MAX_READ_AHEAD_BYTES {
            self.read(READ_STEP_BYTES).await?;
            if self.ended && !frame::is_complete(&self.buffer, limit) {
                return Ok(());
            }
        }
        std::future::pending().await
    }

    async fn read(&mut self, most: usize) -> io::Result<()> {
        if self.ended {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.buffer.reserve(most);
        let mut reader = (&mut self.reader).take(most as u64);
        if reader.read_buf(&mut self.buffer).await? == 0 {
            self.ended = true;
        }
        Ok(())
    }

    /// Sends a frame or raw bytes, within the write timeout.
    pub(crate) async fn send(&mut self, mut bytes: impl Buf) -> io::Result<()> {
        let sending = async {
            self.writer.write_all_buf(&mut bytes).await?;
            self.writer.flush().await
        };
        timeout(self.write_timeout, sending).await?
    }

    /// Closes the connection cleanly.
    pub(crate) async fn close(&mut self) {
        let _ = timeout(self.write_timeout, self.writer.shutdown()).await;
    }

    /// Reads on for a moment: closing a socket with unread bytes resets the connection and may discard
    /// the last reply.
    pub(crate) async fn linger(&mut self) {
        let mut bytes = [0; 1024];
        let reading = async { while let Ok(1..) = self.reader.read(&mut bytes).await {} };
        let _ = timeout(LINGER_TIMEOUT, reading).await;
    }
}
