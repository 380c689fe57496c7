//! Data frames whose content the kernel copies from the page cache to the socket with `sendfile`.
//!
//! `sendfile` blocks while it reads from a disk, so it runs on a [`BlockingPool`]. The socket never
//! blocks it.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::future::BoxFuture;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::sendfile;
use rustix::io::{Errno, pread};
use rustix::net::{SendFlags, send};
use tokio::io::{AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::connection::FrameSink;
use crate::connection::write_deadline::WriteDeadline;
use crate::protocol::put_data_head;

/// The bytes that are copied at a time if the file system does not support `sendfile`.
const COPY_BYTES: usize = 64 * 1024;

/// A file that is sent, as long as [`check`](Self::check) permits it.
pub trait FileSource: AsFd + Send + Sync {
    /// Called before each call of `sendfile`.
    ///
    /// # Errors
    /// If no more of the file may be sent. The rest of the frame is padded then.
    fn check(&self) -> io::Result<()>;
}

/// Threads for work that may block on a disk.
pub trait BlockingPool: Send + Sync {
    /// Runs `work`. Returns `None` if it does not finish.
    fn run(
        &self,
        work: Box<dyn FnOnce() -> SendProgress + Send>,
    ) -> BoxFuture<'static, Option<SendProgress>>;
}

/// The outcome of a part: resolves when the part is sent, or fails when it never will be.
pub type SendOutcome = oneshot::Receiver<io::Result<()>>;

/// A part of a file that is being sent as one data frame.
pub struct FilePart {
    /// The unsent bytes of the frame's head.
    head: Bytes,
    file: Arc<dyn FileSource>,
    /// The unsent range of the file.
    remaining: Range<u64>,
    pool: Arc<dyn BlockingPool>,
    sent: oneshot::Sender<io::Result<()>>,
}

/// The result of one run on the pool.
pub struct SendProgress {
    part: Box<FilePart>,
    outcome: io::Result<()>,
}

impl FilePart {
    /// `length` bytes of `file` from `start` on, for `stream`.
    ///
    /// # Panics
    /// If they are more than [`MAX_CHUNK`](crate::protocol::MAX_CHUNK).
    pub fn new(
        stream: u32,
        file: Arc<dyn FileSource>,
        start: u64,
        length: usize,
        threads: Arc<dyn BlockingPool>,
    ) -> (Box<Self>, SendOutcome) {
        let (sent, receiver) = oneshot::channel();
        let mut head = BytesMut::new();
        put_data_head(&mut head, stream, length);
        let part = Self {
            head: head.freeze(),
            file,
            remaining: start..start + length as u64,
            pool: threads,
            sent,
        };
        (Box::new(part), receiver)
    }

    /// Sends as much as the socket accepts. Fails with [`WouldBlock`](io::ErrorKind::WouldBlock) when
    /// it accepts no more, and with [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if the file is
    /// too short.
    fn send_some(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        while !self.head.is_empty() {
            // `MORE` joins the head and the content in one packet.
            let flags = SendFlags::MORE | SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match send(socket, &self.head, flags) {
                Ok(sent) => self.head.advance(sent),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        while !self.remaining.is_empty() {
            self.file.check()?;
            match self.send_file(socket) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The number of unsent bytes of the file.
    fn remaining_bytes(&self) -> usize {
        usize::try_from(self.remaining.end - self.remaining.start).unwrap_or(usize::MAX)
    }

    /// Sends some bytes of the file.
    fn send_file(&mut self, socket: BorrowedFd<'_>) -> rustix::io::Result<usize> {
        let left = self.remaining_bytes();
        let start = &mut self.remaining.start;
        match sendfile(socket, &self.file, Some(start), left) {
            // The file system does not support it.
            Err(Errno::INVAL | Errno::NOSYS) => {
                let mut bytes = vec![0; left.min(COPY_BYTES)];
                let read = pread(&self.file, &mut bytes, *start)?;
                let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                let sent = send(socket, &bytes[..read], flags)?;
                *start += sent as u64;
                Ok(sent)
            }
            sent => sent,
        }
    }

    /// Sends the frame.
    ///
    /// # Errors
    /// See [`write_frames`](crate::connection::write_frames). An error of the file goes to
    /// [`SendOutcome`] instead, and the rest of the frame is padded.
    pub(super) async fn send<W: AsyncWrite + Unpin>(
        mut self: Box<Self>,
        sink: &mut FrameSink<W>,
        write_timeout: Duration,
    ) -> io::Result<()> {
        let mut deadline = WriteDeadline::new(write_timeout);
        let outcome = loop {
            let before = self.remaining.start;
            let socket = tcp_of(sink)?.as_fd().try_clone_to_owned()?;
            let progress = self
                .send_on_pool(socket)
                .await
                .ok_or(io::ErrorKind::Interrupted)?;
            self = progress.part;
            deadline.add_received(self.remaining.start - before);
            match progress.outcome {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    deadline.wait(wait_writable(tcp_of(sink)?)).await?;
                }
                Err(error) if is_connection_error(&error) => return Err(error),
                outcome => break outcome,
            }
        };
        if outcome.is_err() {
            let filling = pad_frame(&mut sink.writer, &self.head, self.remaining_bytes());
            deadline.wait(filling).await?;
        }
        // The outcome may be ignored.
        let _ = self.sent.send(outcome);
        Ok(())
    }

    fn send_on_pool(self: Box<Self>, socket: OwnedFd) -> BoxFuture<'static, Option<SendProgress>> {
        let threads = Arc::clone(&self.pool);
        let mut part = self;
        threads.run(Box::new(move || {
            let outcome = part.send_some(socket.as_fd());
            SendProgress { part, outcome }
        }))
    }
}

impl std::fmt::Debug for FilePart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FilePart")
            .field("rest", &self.remaining)
            .finish_non_exhaustive()
    }
}

fn tcp_of<W>(sink: &FrameSink<W>) -> io::Result<&TcpStream> {
    sink.tcp().ok_or(io::ErrorKind::Unsupported.into())
}

/// Whether the error is of the connection rather than of the file.
fn is_connection_error(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN | Errno::TIMEDOUT)
    )
}

/// Waits until the socket is writable. Asks the kernel, because Tokio's readiness may be older than the
/// last byte that a pool thread sent.
async fn wait_writable(tcp: &TcpStream) -> io::Result<()> {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    tcp.async_io(Interest::WRITABLE, || {
        let mut sockets = [PollFd::new(tcp, PollFlags::OUT)];
        match poll(&mut sockets, Some(&now)) {
            Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

/// Completes a frame with zeros, so that the next frame starts in the right position.
async fn pad_frame(
    writer: &mut (impl AsyncWrite + Unpin),
    head: &[u8],
    bytes: usize,
) -> io::Result<()> {
    const ZEROS: &[u8] = &[0; 4096];
    writer.write_all(head).await?;
    let mut left = bytes;
    while left > 0 {
        let some = left.min(ZEROS.len());
        writer.write_all(&ZEROS[..some]).await?;
        left -= some;
    }
    writer.flush().await
}

#[cfg(test)]
mod tests;
