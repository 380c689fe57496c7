//! A proxy that cuts its connections after a number of bytes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::reconnecting::PATIENCE;

/// The point and the manner in which a connection ends: after a number of bytes, all of which
/// arrive.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cut {
    /// From the client to the server, with the end of both directions.
    Up(u64),
    /// From the server to the client, with the end of both directions.
    Down(u64),
    /// From the client to the server, with a reset on both sides, which loses buffered bytes.
    ResetUp(u64),
    ResetDown(u64),
    /// From the client to the server; later bytes are discarded until the client disconnects.
    Stall(u64),
}

/// A proxy that cuts its connections, the first at the first of `cuts` and so on. Later connections
/// are not cut.
pub(crate) struct CuttingProxy {
    pub(crate) address: SocketAddr,
    /// The address of the server, which may change.
    pub(crate) target: Arc<Mutex<String>>,
    up: Arc<AtomicU64>,
    down: Arc<AtomicU64>,
    accepting: AbortHandle,
}

impl CuttingProxy {
    pub(crate) async fn start(target: &str, cuts: &[Cut]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let target = Arc::new(Mutex::new(target.to_owned()));
        let (up, down) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut cuts = Vec::from(cuts).into_iter();
        let (to, counters) = (Arc::clone(&target), (Arc::clone(&up), Arc::clone(&down)));
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let to = to.lock().expect("no panic").clone();
                let (cut, (up, down)) = (cuts.next(), counters.clone());
                tokio::spawn(async move {
                    // Without a server, the connection of the client is closed.
                    if let Ok(server) = TcpStream::connect(to).await {
                        pass(client, server, cut, &up, &down).await;
                    }
                });
            }
        });
        Self {
            address,
            target,
            up,
            down,
            accepting: accepting.abort_handle(),
        }
    }

    pub(crate) fn up(&self) -> u64 {
        self.up.load(Ordering::Relaxed)
    }

    pub(crate) fn down(&self) -> u64 {
        self.down.load(Ordering::Relaxed)
    }

    /// Waits until `bytes` bytes have been sent from clients to the server.
    pub(crate) async fn reaches(&self, bytes: u64) {
        let poll = async {
            while self.up() < bytes {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, poll).await.expect("it comes so far");
    }
}

impl Drop for CuttingProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(
    mut client: TcpStream,
    mut server: TcpStream,
    cut: Option<Cut>,
    up: &AtomicU64,
    down: &AtomicU64,
) {
    let (up_limit, down_limit) = match cut {
        Some(Cut::Up(bytes) | Cut::ResetUp(bytes) | Cut::Stall(bytes)) => (bytes, u64::MAX),
        Some(Cut::Down(bytes) | Cut::ResetDown(bytes)) => (u64::MAX, bytes),
        None => (u64::MAX, u64::MAX),
    };
    let (mut client_reads, mut client_writes) = client.split();
    let (mut server_reads, mut server_writes) = server.split();
    let ended = tokio::try_join!(
        pump(&mut client_reads, &mut server_writes, up_limit, up),
        pump(&mut server_reads, &mut client_writes, down_limit, down),
    );
    if ended.is_ok() {
        return;
    }
    match cut {
        Some(Cut::ResetUp(_) | Cut::ResetDown(_)) => {
            for stream in [&client, &server] {
                let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
            return;
        }
        Some(Cut::Stall(_)) | None => {}
        Some(Cut::Up(_) | Cut::Down(_)) => {
            let _ = client_writes.shutdown().await;
            let _ = server_writes.shutdown().await;
        }
    }
    // Unread bytes would cause a reset, which discards bytes that the peer has not read yet.
    let _ = tokio::io::copy(&mut client_reads, &mut tokio::io::sink()).await;
    if let Some(Cut::Up(_) | Cut::Down(_)) = cut {
        let _ = tokio::io::copy(&mut server_reads, &mut tokio::io::sink()).await;
    }
}

/// Forwards bytes to the end; fails after `limit` bytes.
async fn pump(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    limit: u64,
    total: &AtomicU64,
) -> Result<(), ()> {
    let mut left = limit;
    let mut buffer = vec![0; 16 * 1024];
    while left > 0 {
        let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let length = match from.read(&mut buffer[..most]).await {
            Ok(length) if length > 0 => length,
            _ => break,
        };
        if to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
        total.fetch_add(length as u64, Ordering::Relaxed);
        left -= length as u64;
    }
    if left == 0 {
        return Err(());
    }
    let _ = to.shutdown().await;
    Ok(())
}
