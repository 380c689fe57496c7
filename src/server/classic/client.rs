//! The classic client: its bytes as they come, and frames and raw bytes to it.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::server::classic::frame;
use crate::server::classic::frame::BadFrame;

/// Bytes that one look at the socket takes where a frame is expected.
const LOOK: usize = 1024;

/// The same where a file comes.
const BODY: usize = 64 * 1024;

/// Bytes that are read ahead while an order is worked on, to notice that the client is gone.
const READ_AHEAD: usize = 64 * 1024;

/// How long a client that is hung up on may take to read why.
const LINGER: Duration = Duration::from_secs(1);

/// The other end of a connection on which the classic dialect is spoken.
#[derive(Debug)]
pub(crate) struct Client<R, W> {
    reader: R,
    writer: W,
    /// What has come and is not used yet.
    buffer: BytesMut,
    /// It sends nothing more.
    ended: bool,
    write_timeout: Duration,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Client<R, W> {
    pub(crate) fn new(reader: R, writer: W, write_timeout: Duration) -> Self {
        Self {
            reader,
            writer,
            buffer: BytesMut::new(),
            ended: false,
            write_timeout,
        }
    }

    /// Whether it has closed its sending half, and nothing of what it sent is left.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended && self.buffer.is_empty()
    }

    /// Whether a frame was begun, and its rest is still to come.
    pub(crate) fn is_within_frame(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The JSON of the next frame, if it is here.
    pub(crate) fn take_frame(&mut self, limit: usize) -> Result<Option<Bytes>, BadFrame> {
        let json = frame::take(&mut self.buffer, limit)?;
        if self.buffer.is_empty() {
            // A silent client keeps no memory.
            self.buffer = BytesMut::new();
        }
        Ok(json)
    }

    /// Waits for more of a frame. Cancel-safe.
    pub(crate) async fn read_frame(&mut self) -> io::Result<()> {
        self.read(LOOK).await
    }

    /// Waits for more of a body, unless some is here. Cancel-safe.
    pub(crate) async fn read_body(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            self.read(BODY).await?;
        }
        if self.has_ended() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Takes at most `most` bytes of a body from what is here.
    pub(crate) fn take_body(&mut self, most: u64) -> Bytes {
        let here = self.buffer.len();
        let length = usize::try_from(most).map_or(here, |most| most.min(here));
        self.buffer.split_to(length).freeze()
    }

    /// Reads on while an order is worked on. Resolves only once the client has closed its sending
    /// half and nothing that is left asks for anything. Cancel-safe.
    pub(crate) async fn closes(&mut self, limit: usize) -> io::Result<()> {
        while !self.ended && self.buffer.len() < READ_AHEAD {
            self.read(LOOK).await?;
            if self.ended && !frame::is_whole(&self.buffer, limit) {
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

    /// Sends a frame or raw bytes, and waits until the client's system has taken them.
    pub(crate) async fn send(&mut self, mut bytes: impl Buf) -> io::Result<()> {
        let sending = async {
            self.writer.write_all_buf(&mut bytes).await?;
            self.writer.flush().await
        };
        timeout(self.write_timeout, sending).await?
    }

    /// Ends the connection soundly.
    pub(crate) async fn close(&mut self) {
        let _ = timeout(self.write_timeout, self.writer.shutdown()).await;
    }

    /// Reads on for a moment: closing on unread bytes would take the last word back.
    pub(crate) async fn linger(&mut self) {
        let mut bytes = [0; 1024];
        let reading = async { while let Ok(1..) = self.reader.read(&mut bytes).await {} };
        let _ = timeout(LINGER, reading).await;
    }
}
