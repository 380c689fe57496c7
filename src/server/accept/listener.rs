//! Accepts connections: one task each, as many as the limit allows.

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

/// How long to wait before accepting again after the system refused, as it does while no file
/// descriptors are left.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// For sessions that are cut off to notice. Only a disk that does not answer holds one up longer.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Bytes that may wait in the kernel unsent: what is queued there can not be overtaken.
const UNSENT_LIMIT: u32 = 256 * 1024;

/// After this much silence the kernel asks whether the peer is still there.
const KEEP_ALIVE: Duration = Duration::from_mins(1);

/// Between two such questions, of which six go unanswered before the peer is given up.
const PROBES: Duration = Duration::from_secs(10);

/// A peer whose kernel acknowledges nothing for this long is given up, whatever it was sent. Without
/// this, what is on its way would keep a dead peer's connection for a quarter of an hour.
const UNANSWERED: Duration = Duration::from_mins(2);

pub(crate) async fn run(shared: &Arc<ServerState>, listener: TcpListener, shutdown: Shutdown) {
    let sessions = TaskTracker::new();
    tokio::select! {
        () = shutdown.drain.cancelled() => {}
        () = accept_all(shared, &listener, &sessions, &shutdown) => {}
    }
    drop(listener);
    sessions.close();
    info!(name: "draining", sessions = sessions.len(), "draining");
    let patience = shared.drain_timeout();
    let drained = shutdown.stop.run_until_cancelled(sessions.wait());
    if !matches!(timeout(patience, drained).await, Ok(Some(()))) {
        warn!(name: "drain_cut", sessions = sessions.len(), "cutting off what did not end in time");
        shutdown.stop.cancel();
        if timeout(LAST_WORDS, sessions.wait()).await.is_err() {
            warn!(
                name: "drain_left",
                sessions = sessions.len(),
                "leaving behind what the disk holds up"
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
        // Waiting for room before accepting leaves the others in the kernel's backlog.
        let most = shared.most_connections();
        shared.connection_limiter.room(most).await;
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                let refusal = Refusal::of(&error);
                if refusal == Refusal::OfOne {
                    continue;
                }
                if refusal == Refusal::Descriptors {
                    // Who has logged in on none of them gives descriptors back.
                    shared.connection_limiter.make_room(most);
                }
                if let Some(left_out) = shared.refusals.accept.turn(Instant::now()) {
                    warn!(
                        name: "not_accepting",
                        %error,
                        left_out,
                        "can not accept connections for now"
                    );
                }
                sleep(ACCEPT_BACK_OFF).await;
                continue;
            }
        };
        let write_timeout = shared.config().limits.write_timeout;
        if let Err(error) = tune(&stream, write_timeout)
            && let Some(left_out) = shared.refusals.socket.turn(Instant::now())
        {
            warn!(
                name: "socket_options",
                %error,
                left_out,
                "can not set the options of a socket"
            );
        }
        let Some(arrival) = Admission::enter(shared, address).await else {
            continue;
        };
        sessions.spawn(attend(shared.clone(), arrival, stream, shutdown.clone()));
    }
}

/// Why the system hands out no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// No descriptors are left. Closing connections gives some back.
    Descriptors,
    /// Something else is wrong with the system, which no closed connection mends.
    System,
    /// Only this connection has failed, before it was accepted. The next one may be good.
    OfOne,
}

impl Refusal {
    /// What `accept` says on Linux: <https://man7.org/linux/man-pages/man2/accept.2.html>.
    fn of(error: &io::Error) -> Self {
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
            ) => Self::OfOne,
            _ => Self::System,
        }
    }
}

async fn attend(
    shared: Arc<ServerState>,
    mut arrival: Admission,
    stream: TcpStream,
    shutdown: Shutdown,
) {
    let (mut reader, writer) = stream.into_split();
    // Boxed: the session does not keep the room for the header.
    let named = Box::pin(arrival.peer(&shared, &mut reader));
    if let Some(Some(peer)) = shutdown.drain.run_until_cancelled(named).await {
        let outlet = FrameSink::tcp_stream(writer);
        serve(&shared, reader, outlet, peer, arrival.seat, shutdown).await;
    }
}

fn tune(stream: &TcpStream, write_timeout: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_notsent_lowat(UNSENT_LIMIT)?;
    // It runs out for a peer that lives and does not read, too: not before the write deadline.
    socket.set_tcp_user_timeout(Some(UNANSWERED.max(write_timeout)))?;
    let keep_alive = TcpKeepalive::new().with_time(KEEP_ALIVE);
    socket.set_tcp_keepalive(&keep_alive.with_interval(PROBES).with_retries(6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lack_of_descriptors_costs_visitors_their_connections() {
        let refusal = |errno: Errno| Refusal::of(&errno.into());
        for errno in [Errno::MFILE, Errno::NFILE] {
            assert_eq!(refusal(errno), Refusal::Descriptors);
        }
        for errno in [Errno::NOBUFS, Errno::NOMEM, Errno::INVAL] {
            assert_eq!(refusal(errno), Refusal::System);
        }
        for errno in [Errno::CONNABORTED, Errno::PERM, Errno::HOSTUNREACH] {
            assert_eq!(refusal(errno), Refusal::OfOne);
        }
    }
}
