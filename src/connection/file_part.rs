//! Parts of files that go from the kernel's cache to the socket as data frames, without entering
//! the process.
//!
//! `sendfile` waits for a disk where the cache does not have the bytes, so it runs where that is
//! allowed; the socket itself never blocks it.

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
use tokio::time::{Instant, timeout_at};

use crate::connection::FrameSink;
use crate::protocol::put_data_head;

/// Bytes copied at a time where `sendfile` does not work.
const COPIED: usize = 64 * 1024;

/// A file whose bytes are sent, for as long as they may be.
pub trait FileSource: AsFd + Send + Sync {
    /// Asked before each piece is sent.
    ///
    /// # Errors
    /// If no more of it may be sent. The frame is filled up then.
    fn check(&self) -> io::Result<()>;
}

/// Runs what may wait for a disk on threads that may wait.
pub trait BlockingPool: Send + Sync {
    /// Runs `work`; `None` if it is not run to its end.
    fn run(
        &self,
        work: Box<dyn FnOnce() -> ReadProgress + Send>,
    ) -> BoxFuture<'static, Option<ReadProgress>>;
}

/// What has become of a part, told once it has left or never will.
pub type SendOutcome = oneshot::Receiver<io::Result<()>>;

/// A part of a file on its way, as one data frame.
pub struct FilePart {
    /// What is not sent yet of what comes before the bytes.
    head: Bytes,
    file: Arc<dyn FileSource>,
    /// The bytes that are not sent yet.
    rest: Range<u64>,
    threads: Arc<dyn BlockingPool>,
    sent: oneshot::Sender<io::Result<()>>,
}

/// How far one go came.
pub struct ReadProgress {
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
            rest: start..start + length as u64,
            threads,
            sent,
        };
        (Box::new(part), receiver)
    }

    /// Sends what the socket takes. Fails with [`WouldBlock`](io::ErrorKind::WouldBlock) where it
    /// takes no more, with [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) where the file ends early.
    fn send_some(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        while !self.head.is_empty() {
            // More follows at once: the head is no packet of its own.
            let flags = SendFlags::MORE | SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match send(socket, &self.head, flags) {
                Ok(sent) => self.head.advance(sent),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        while !self.rest.is_empty() {
            self.file.check()?;
            match self.send_file(socket) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Bytes that are not sent yet: no more than a frame has.
    fn left(&self) -> usize {
        usize::try_from(self.rest.end - self.rest.start).unwrap_or(usize::MAX)
    }

    /// Sends some of the bytes.
    fn send_file(&mut self, socket: BorrowedFd<'_>) -> rustix::io::Result<usize> {
        let left = self.left();
        let start = &mut self.rest.start;
        match sendfile(socket, &self.file, Some(start), left) {
            // File systems that can not do it.
            Err(Errno::INVAL | Errno::NOSYS) => {
                let mut bytes = vec![0; left.min(COPIED)];
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
    /// As for [`write_frames`](crate::connection::write_frames). What goes wrong with the file is told to who
    /// waits for the part, and the frame is filled up.
    pub(super) async fn send<W: AsyncWrite + Unpin>(
        mut self: Box<Self>,
        outlet: &mut FrameSink<W>,
        write_timeout: Duration,
    ) -> io::Result<()> {
        let deadline = Instant::now() + write_timeout;
        let outcome = loop {
            let socket = of(outlet)?.as_fd().try_clone_to_owned()?;
            let step = self.go(socket).await.ok_or(io::ErrorKind::Interrupted)?;
            self = step.part;
            match step.outcome {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    timeout_at(deadline, writable(of(outlet)?)).await??;
                }
                Err(error) if is_of_socket(&error) => return Err(error),
                outcome => break outcome,
            }
        };
        if outcome.is_err() {
            let filling = fill(&mut outlet.writer, &self.head, self.left());
            timeout_at(deadline, filling).await??;
        }
        // Nobody has to wait for it.
        let _ = self.sent.send(outcome);
        Ok(())
    }

    fn go(self: Box<Self>, socket: OwnedFd) -> BoxFuture<'static, Option<ReadProgress>> {
        let threads = Arc::clone(&self.threads);
        let mut part = self;
        threads.run(Box::new(move || {
            let outcome = part.send_some(socket.as_fd());
            ReadProgress { part, outcome }
        }))
    }
}

impl std::fmt::Debug for FilePart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FilePart")
            .field("rest", &self.rest)
            .finish_non_exhaustive()
    }
}

fn of<W>(outlet: &FrameSink<W>) -> io::Result<&TcpStream> {
    outlet.tcp().ok_or(io::ErrorKind::Unsupported.into())
}

/// Whether the connection is gone, and not the file.
fn is_of_socket(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN | Errno::TIMEDOUT)
    )
}

/// Waits until the socket takes bytes, as the kernel sees it now: what Tokio knows of it may be from
/// before the last byte was sent elsewhere.
async fn writable(tcp: &TcpStream) -> io::Result<()> {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    tcp.async_io(Interest::WRITABLE, || {
        let mut asked = [PollFd::new(tcp, PollFlags::OUT)];
        match poll(&mut asked, Some(&now)) {
            Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

/// Ends a frame whose bytes are not there, so that the next one is understood.
async fn fill(writer: &mut (impl AsyncWrite + Unpin), head: &[u8], bytes: usize) -> io::Result<()> {
    const NOTHING: &[u8] = &[0; 4096];
    writer.write_all(head).await?;
    let mut left = bytes;
    while left > 0 {
        let some = left.min(NOTHING.len());
        writer.write_all(&NOTHING[..some]).await?;
        left -= some;
    }
    writer.flush().await
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::spawn_blocking;

    use super::*;
    use crate::connection::{LONG_CHUNK, Outbox, Receiver, write_frames};
    use crate::protocol::{Frame, FrameCodec};

    const LONG: Duration = Duration::from_mins(1);
    const MUCH: usize = 64 << 20;

    impl FileSource for File {
        fn check(&self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Threads that may wait, as many as are asked for.
    struct Threads;

    impl BlockingPool for Threads {
        fn run(
            &self,
            work: Box<dyn FnOnce() -> ReadProgress + Send>,
        ) -> BoxFuture<'static, Option<ReadProgress>> {
            Box::pin(async move { spawn_blocking(work).await.ok() })
        }
    }

    /// An outbox that is written to a TCP connection, and the other end of that.
    async fn connection() -> (Outbox, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (near, far) = tokio::join!(listener.accept(), TcpStream::connect(address));
        let (reader, writer) = near.expect("accepted").0.into_split();
        let outlet = FrameSink::tcp_stream(writer);
        let (outbox, queue) = Outbox::of(&outlet);
        assert!(outbox.takes_files());
        tokio::spawn(async move {
            let written = write_frames(outlet, queue, LONG).await;
            drop(reader);
            written
        });
        (outbox, far.expect("connected"))
    }

    fn file(content: &[u8]) -> Arc<File> {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(content).expect("written");
        Arc::new(file)
    }

    async fn send(outbox: &Outbox, file: &Arc<File>, start: usize, length: usize) -> SendOutcome {
        let slot = outbox.data_slot().await.expect("open");
        let threads = Arc::new(Threads);
        let (part, sent) = FilePart::new(7, file.clone(), start as u64, length, threads);
        slot.send_part(part);
        sent
    }

    /// Sends 64 MiB of nothing, as long as anything is sent.
    fn send_much(outbox: &Outbox) -> tokio::task::JoinHandle<Option<SendOutcome>> {
        let outbox = outbox.clone();
        let file = file(&[]);
        file.set_len(MUCH as u64).expect("sparse");
        tokio::spawn(async move {
            let mut last = None;
            for start in (0..MUCH).step_by(LONG_CHUNK) {
                let Ok(slot) = outbox.data_slot().await else {
                    break;
                };
                let threads = Arc::new(Threads);
                let (part, sent) =
                    FilePart::new(7, file.clone(), start as u64, LONG_CHUNK, threads);
                slot.send_part(part);
                last = Some(sent);
            }
            last
        })
    }

    #[tokio::test]
    async fn a_file_arrives_as_it_is_and_what_comes_after_it_is_understood() {
        let (outbox, far) = connection().await;
        let content: Vec<u8> = (0..=250).cycle().take(5_000_003).collect();
        let file = file(&content);
        let sending = tokio::spawn(async move {
            let mut all = Vec::new();
            for start in (0..5_000_003).step_by(LONG_CHUNK) {
                let length = LONG_CHUNK.min(5_000_003 - start);
                all.push(send(&outbox, &file, start, length).await);
            }
            let last = Bytes::from_static(b"{\"id\":7}");
            outbox.send_after_data(last).await.expect("open");
            for sent in all {
                sent.await.expect("sent").expect("whole");
            }
        });
        let mut receiver = Receiver::new(far, FrameCodec::new(), LONG);
        let mut all = Vec::new();
        while let Some(frame) = receiver.next().await.expect("sound") {
            match frame {
                Frame::Data { stream: 7, chunk } => {
                    assert!(!chunk.is_empty() && chunk.len() <= LONG_CHUNK);
                    all.extend_from_slice(&chunk);
                }
                Frame::Control(json) => assert_eq!(json, "{\"id\":7}"),
                other @ Frame::Data { .. } => panic!("{other:?}"),
            }
        }
        assert!(all == content);
        sending.await.expect("no panic");
    }

    #[tokio::test]
    async fn a_file_that_ends_early_is_told_of_and_the_frames_stay_in_step() {
        let (outbox, far) = connection().await;
        let file = file(&vec![b'x'; 200_000]);
        let sent = send(&outbox, &file, 0, 400_000).await;
        outbox
            .send_after_data(Bytes::from_static(b"{}"))
            .await
            .expect("open");
        drop(outbox);
        let mut receiver = Receiver::new(far, FrameCodec::new(), LONG);
        let mut last = None;
        while let Some(frame) = receiver.next().await.expect("sound") {
            last = Some(frame);
        }
        assert_eq!(last, Some(Frame::Control(Bytes::from_static(b"{}"))));
        let error = sent.await.expect("told").expect_err("it is short");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_small_reply_overtakes_a_large_file_that_the_peer_does_not_read_yet() {
        let (outbox, mut far) = connection().await;
        let sending = send_much(&outbox);
        // Something has left, so the first is begun.
        far.readable().await.expect("open");
        outbox.send(Bytes::from_static(b"{}")).await.expect("open");
        drop(outbox);
        let (mut before, mut head) = (0_u64, [0; 4]);
        loop {
            far.read_exact(&mut head).await.expect("a frame");
            let length = u64::from(u32::from_be_bytes(head));
            if length == 2 {
                break;
            }
            let mut rest = (&mut far).take(length);
            before += tokio::io::copy(&mut rest, &mut tokio::io::sink())
                .await
                .expect("a chunk");
        }
        assert!(before < MUCH as u64 / 2, "{before} bytes came before it");
        sending.abort();
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_is_given_up_and_who_waits_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (near, far) = tokio::join!(listener.accept(), TcpStream::connect(address));
        let outlet = FrameSink::tcp_stream(near.expect("accepted").0.into_split().1);
        let (outbox, queue) = Outbox::of(&outlet);
        let sending = send_much(&outbox);
        let error = write_frames(outlet, queue, Duration::from_millis(50)).await;
        assert_eq!(error.expect_err("stuck").kind(), io::ErrorKind::TimedOut);
        let last = sending.await.expect("no panic").expect("some were sent");
        assert!(last.await.is_err(), "it never leaves");
        drop(far);
    }
}
