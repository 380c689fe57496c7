//! Accepts connections, as many as the limit allows, and spawns one task for each. On shutdown it waits
//! for the sessions to drain, and aborts them when the drain timeout ends.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::connection::FrameSink;
use crate::server::accept::admission::Admission;
use crate::server::accept::connection::serve;
use crate::server::shutdown::Shutdown;
use crate::server::state::ServerState;

/// Pause after a failed accept, for example while no file descriptors are left.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// How long aborted sessions may take to end. Only a disk that does not answer delays one longer.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// Unsent bytes in the kernel's buffer: replies cannot overtake data that is queued there.
const MAX_UNSENT_BYTES: u32 = 256 * 1024;

/// Idle time after which the kernel sends the first keep-alive probe.
const KEEP_ALIVE_IDLE: Duration = Duration::from_mins(1);

/// Time between two probes. After six without an answer the connection fails.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// The connection fails if sent data is not acknowledged for this long. Without this, unacknowledged
/// data would keep the connection of a dead peer for a quarter of an hour.
const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_mins(2);

/// Accepts connections until `shutdown.drain`, then waits for the sessions to end.
pub(crate) async fn run(shared: &Arc<ServerState>, listener: TcpListener, shutdown: Shutdown) {
    let sessions = TaskTracker::new();
    tokio::select! {
        () = shutdown.drain.cancelled() => {}
        () = accept_all(shared, &listener, &sessions, &shutdown) => {}
    }
    drop(listener);
    sessions.close();
    info!(name: "draining", sessions = sessions.len(), "stopped accepting connections; waiting for sessions to end");
    let drain_timeout = shared.drain_timeout();
    let drained = shutdown.stop.run_until_cancelled(sessions.wait());
    if !matches!(timeout(drain_timeout, drained).await, Ok(Some(()))) {
        warn!(name: "drain_cut", sessions = sessions.len(), "aborting sessions that did not end in time");
        shutdown.stop.cancel();
        if timeout(ABORT_GRACE, sessions.wait()).await.is_err() {
            warn!(
                name: "drain_left",
                sessions = sessions.len(),
                "exiting although sessions still wait for the disk"
            );
        }
    }
}

async fn accept_all(
    shared: &Arc<ServerState>,
    listener: &TcpListener,
    sessions: &TaskTracker,
    shutdown: &Shutdown,
) {
    loop {
        // Waiting before the accept leaves further connections in the kernel's backlog.
        let max_connections = shared.max_connections();
        shared
            .connection_limiter
            .wait_for_capacity(max_connections)
            .await;
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                let failure = AcceptFailure::from_error(&error);
                if failure == AcceptFailure::SingleConnection {
                    continue;
                }
                if failure == AcceptFailure::Descriptors {
                    // This frees descriptors.
                    shared
                        .connection_limiter
                        .evict_unauthenticated(max_connections);
                }
                if let Some(left_out) = shared.refusal_logs.accept.allow(Instant::now()) {
                    warn!(
                        name: "not_accepting",
                        %error,
                        left_out,
                        "cannot accept connections for now"
                    );
                }
                sleep(ACCEPT_BACK_OFF).await;
                continue;
            }
        };
        let write_timeout = shared.config().limits.write_timeout;
        if let Err(error) = set_socket_options(&stream, write_timeout)
            && let Some(left_out) = shared.refusal_logs.socket.allow(Instant::now())
        {
            warn!(
                name: "socket_options",
                %error,
                left_out,
                "cannot set the options of a socket"
            );
        }
        let Some(admission) = Admission::acquire(shared, address).await else {
            continue;
        };
        sessions.spawn(serve_connection(
            shared.clone(),
            admission,
            stream,
            shutdown.clone(),
        ));
    }
}

/// Why `accept` failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AcceptFailure {
    /// No descriptors are left. Closing connections frees some.
    Descriptors,
    /// Another failure of the system, which closing connections does not solve.
    System,
    /// Only this connection failed, before it was accepted. The next one may succeed.
    SingleConnection,
}

impl AcceptFailure {
    /// Classifies the errors of Linux: <https://man7.org/linux/man-pages/man2/accept.2.html>.
    fn from_error(error: &io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::MFILE | Errno::NFILE) => Self::Descriptors,
            Some(
                Errno::CONNABORTED
                | Errno::INTR
                | Errno::AGAIN
                | Errno::PERM
                | Errno::PROTO
                | Errno::NETDOWN
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::NONET
                | Errno::HOSTUNREACH
                | Errno::OPNOTSUPP
                | Errno::NETUNREACH
                | Errno::CONNRESET
                | Errno::TIMEDOUT,
            ) => Self::SingleConnection,
            _ => Self::System,
        }
    }
}

async fn serve_connection(
    shared: Arc<ServerState>,
    mut admission: Admission,
    stream: TcpStream,
    shutdown: Shutdown,
) {
    let (mut reader, writer) = stream.into_split();
    // Boxed, so that the future of the session does not include the buffer of the header.
    let named = Box::pin(admission.resolve_peer(&shared, &mut reader));
    if let Some(Some(peer)) = shutdown.drain.run_until_cancelled(named).await {
        let sink = FrameSink::for_tcp(writer);
        serve(&shared, reader, sink, peer, admission.permit, shutdown).await;
    }
}

fn set_socket_options(stream: &TcpStream, write_timeout: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_notsent_lowat(MAX_UNSENT_BYTES)?;
    // It also ends for a live peer that does not read, so it must not be shorter than the write timeout.
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_TIMEOUT.max(write_timeout)))?;
    let keep_alive = TcpKeepalive::new().with_time(KEEP_ALIVE_IDLE);
    socket.set_tcp_keepalive(
        &keep_alive
            .with_interval(KEEP_ALIVE_INTERVAL)
            .with_retries(6),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lack_of_descriptors_evicts_unauthenticated_connections() {
        let failure = |errno: Errno| AcceptFailure::from_error(&errno.into());
        for errno in [Errno::MFILE, Errno::NFILE] {
            assert_eq!(failure(errno), AcceptFailure::Descriptors);
        }
        for errno in [Errno::NOBUFS, Errno::NOMEM, Errno::INVAL] {
            assert_eq!(failure(errno), AcceptFailure::System);
        }
        for errno in [Errno::CONNABORTED, Errno::PERM, Errno::HOSTUNREACH] {
            assert_eq!(failure(errno), AcceptFailure::SingleConnection);
        }
    }
}
