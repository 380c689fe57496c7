//! Receives datagrams from the socket and dispatches them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::system::uname;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

use crate::protocol::{Datagram, Discovered, MAX_DATAGRAM};
use crate::server::accept::network::is_network_allowed;
use crate::server::shutdown::Shutdown;
use crate::server::state::{SERVER_VERSION, ServerState};
use crate::server::udp::answer::answer;

/// After more errors in a row than this the receiver pauses: they are more than notices about peers
/// that are gone.
const MAX_CONSECUTIVE_ERRORS: u32 = 16;

/// The pause before the next attempt to receive.
const RECEIVE_BACK_OFF: Duration = Duration::from_millis(100);

/// Receives datagrams, if there is a socket for them, and sends those that are due. Never ends.
pub(crate) async fn run(shared: &Arc<ServerState>, shutdown: &Shutdown) {
    let datagrams = &shared.datagrams;
    let Some(socket) = datagrams.socket.get() else {
        return std::future::pending().await;
    };
    // One byte more than the longest valid datagram, so that a longer one is recognised.
    let mut buffer = [0; MAX_DATAGRAM + 1];
    let mut errors = 0;
    loop {
        let next = datagrams.next_due();
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => Some(received),
            () = datagrams.rescheduled.notified() => None,
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => None,
        };
        match received {
            None => {}
            Some(Ok((length, from))) => {
                errors = 0;
                receive(shared, shutdown, &buffer[..length], from);
            }
            // Mostly an ICMP error for a datagram that was sent: the peer is gone.
            Some(Err(error)) => {
                errors += 1;
                if let Some(left_out) = datagrams.failures.allow(Instant::now()) {
                    warn!(
                        name: "datagram_not_received",
                        %error,
                        left_out,
                        "cannot receive a datagram"
                    );
                }
                if errors > MAX_CONSECUTIVE_ERRORS {
                    sleep(RECEIVE_BACK_OFF).await;
                }
            }
        }
        datagrams.send_due();
    }
}

/// Handles one datagram: answers it, spawns a task that does, or drops it.
fn receive(shared: &Arc<ServerState>, shutdown: &Shutdown, datagram: &[u8], from: SocketAddr) {
    let datagrams = &shared.datagrams;
    if !is_network_allowed(&shared.config().network, from.ip()) {
        return datagrams.log_dropped(from, "its network is not allowed");
    }
    match Datagram::parse(datagram) {
        None => datagrams.log_dropped(from, "it is malformed"),
        Some(Datagram::Hello) if shutdown.drain.is_cancelled() => {}
        Some(Datagram::Hello) => answer_search(shared, datagram.len(), from),
        Some(Datagram::Signed(signed)) => {
            let Some(ticket) = datagrams.tickets.find(signed.ticket(), Instant::now()) else {
                return datagrams.log_dropped(from, "its ticket is unknown");
            };
            match signed.verify(&ticket.key) {
                Some(request) => answer(shared, shutdown, ticket, &request, from),
                None => datagrams.log_dropped(from, "its signature is wrong"),
            }
        }
    }
}

/// Answers a search for servers, in no more bytes than the search has. Anybody may search, so the answer
/// contains the name of this machine only if the settings allow it.
fn answer_search(shared: &ServerState, length: usize, from: SocketAddr) {
    let datagrams = &shared.datagrams;
    if !datagrams.greetings.allow(from.ip().into(), Instant::now()) {
        return datagrams.log_dropped(from, "too many searches for servers");
    }
    let name = if shared.config().server.announce_name {
        uname().nodename().to_string_lossy().into_owned()
    } else {
        String::new()
    };
    let answer = Discovered::new(SERVER_VERSION, &name, datagrams.port().unwrap_or_default());
    match answer.encode_within(length) {
        Some(answer) => datagrams.send(&answer, from),
        None => datagrams.log_dropped(from, "it is shorter than the answer"),
    }
}
