//! A line with a long round trip and no limit of its own, which is there where the system cannot
//! delay packets: a server's ports on another address, whose bytes arrive late in both directions.
//!
//! What it shows is how often a protocol waits for the other side. Each end talks to the proxy at
//! once, so TCP's own windows and its slow start, which a real line adds for all alike, do not
//! count. A new connection costs the round trip that it does on a real line.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Where the far end of the line is reached.
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Bytes under way in one direction of one connection: at 100 ms this is 640 MB/s, and a bound.
const MAX_BYTES_IN_FLIGHT: u32 = 64 << 20;
const PIECE: usize = 256 << 10;

/// The line to one server; it is cut, at the latest, when this is dropped.
pub(crate) struct DelayProxy {
    listening: JoinSet<()>,
    carried: Arc<AtomicU64>,
}

impl DelayProxy {
    /// Takes connections on these ports of [`FAR`], for the same ports of this machine.
    ///
    /// # Errors
    /// If the address or a port cannot be had.
    pub(crate) async fn start(ports: &[u16], one_way: Duration) -> io::Result<Self> {
        let mut listening = JoinSet::new();
        let carried = Arc::new(AtomicU64::new(0));
        for &port in ports {
            let listener = TcpListener::bind((FAR, port)).await?;
            let carried = Arc::clone(&carried);
            listening.spawn(async move {
                let mut lines = JoinSet::new();
                while let Ok((near, _)) = listener.accept().await {
                    lines.spawn(carry(near, port, one_way, Arc::clone(&carried)));
                    while lines.try_join_next().is_some() {}
                }
            });
        }
        Ok(Self { listening, carried })
    }

    /// Bytes that came from both ends.
    pub(crate) fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }

    /// Cuts the line, and gives its ports back before it returns.
    pub(crate) async fn cut(mut self) {
        self.listening.shutdown().await;
    }
}

/// One connection. The server learns of it one and a half round trips after the client began, when
/// on a real line the third packet of the handshake arrives, with what the client says first.
async fn carry(near: TcpStream, port: u16, one_way: Duration, carried: Arc<AtomicU64>) {
    let known = Instant::now() + 3 * one_way;
    let _ = near.set_nodelay(true);
    let (near_reader, near_writer) = near.into_split();
    let (to_far, from_near) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(MAX_BYTES_IN_FLIGHT as usize));
    let reading = read(
        near_reader,
        to_far,
        Arc::clone(&room),
        (one_way, known),
        &carried,
    );
    let far = async {
        sleep_until(known).await;
        let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else {
            return;
        };
        let _ = far.set_nodelay(true);
        let (far_reader, far_writer) = far.into_split();
        let (to_near, from_far) = mpsc::unbounded_channel();
        let back = Arc::new(Semaphore::new(MAX_BYTES_IN_FLIGHT as usize));
        tokio::join!(
            write(far_writer, from_near, room),
            read(
                far_reader,
                to_near,
                Arc::clone(&back),
                (one_way, known),
                &carried
            ),
            write(near_writer, from_far, back),
        );
    };
    tokio::join!(reading, far);
}

/// What is under way: when it arrives, and what it is; nothing is the end.
type DelayedChunk = (Instant, Vec<u8>);

async fn read(
    mut from: OwnedReadHalf,
    to: mpsc::UnboundedSender<DelayedChunk>,
    room: Arc<Semaphore>,
    (one_way, earliest): (Duration, Instant),
    carried: &AtomicU64,
) {
    let mut buffer = vec![0; PIECE];
    loop {
        let count = from.read(&mut buffer).await.unwrap_or(0);
        carried.fetch_add(count as u64, Ordering::Relaxed);
        let arrives = (Instant::now() + one_way).max(earliest);
        let Ok(taken) = room.acquire_many(u32::try_from(count).unwrap_or(0)).await else {
            return;
        };
        taken.forget();
        if to.send((arrives, buffer[..count].to_vec())).is_err() || count == 0 {
            return;
        }
    }
}

async fn write(
    mut to: OwnedWriteHalf,
    mut from: mpsc::UnboundedReceiver<DelayedChunk>,
    room: Arc<Semaphore>,
) {
    while let Some((arrives, bytes)) = from.recv().await {
        sleep_until(arrives).await;
        if bytes.is_empty() || to.write_all(&bytes).await.is_err() {
            break;
        }
        room.add_permits(bytes.len());
    }
    let _ = to.shutdown().await;
    // The reader must not wait for room that nobody makes any more.
    room.close();
}
