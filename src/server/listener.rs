//! Accepts connections: one task each, as many as the limit allows.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::{Peer, Server, Shutdown};

/// How long to wait before accepting again after the system refused, as it does while no file
/// descriptors are left.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// For sessions that are cut off to notice. Only a disk that does not answer holds one up longer.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Bytes that may wait in the kernel unsent: what is queued there can not be overtaken.
const UNSENT_LIMIT: u32 = 256 * 1024;

/// After this much silence the kernel asks whether the peer is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

pub(super) async fn run(server: &Server, listener: TcpListener, shutdown: Shutdown) {
    let sessions = TaskTracker::new();
    tokio::select! {
        () = shutdown.drain.cancelled() => {}
        () = accept_all(server, &listener, &sessions, &shutdown) => {}
    }
    drop(listener);
    sessions.close();
    info!(sessions = sessions.len(), "draining");
    let patience = server.shared.config().limits.drain_timeout;
    let drained = shutdown.stop.run_until_cancelled(sessions.wait());
    if !matches!(timeout(patience, drained).await, Ok(Some(()))) {
        warn!(
            sessions = sessions.len(),
            "cutting off what did not end in time"
        );
        shutdown.stop.cancel();
        if timeout(LAST_WORDS, sessions.wait()).await.is_err() {
            warn!(
                sessions = sessions.len(),
                "leaving behind what the disk holds up"
            );
        }
    }
}

async fn accept_all(
    server: &Server,
    listener: &TcpListener,
    sessions: &TaskTracker,
    shutdown: &Shutdown,
) {
    loop {
        // Waiting for a free session before accepting leaves the others in the kernel's backlog.
        let Ok(permit) = server.shared.sessions.clone().acquire_owned().await else {
            return;
        };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "can not accept connections for now");
                sleep(ACCEPT_BACK_OFF).await;
                continue;
            }
        };
        if let Err(error) = tune(&stream) {
            warn!(%error, "can not set the options of a socket");
        }
        let (server, shutdown) = (server.clone(), shutdown.clone());
        sessions.spawn(async move {
            let (reader, writer) = stream.into_split();
            server
                .serve(reader, writer, Peer::plain(address), shutdown)
                .await;
            drop(permit);
        });
    }
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_notsent_lowat(UNSENT_LIMIT)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE))
}
