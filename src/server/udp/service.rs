//! The state of datagrams that all sessions share: the socket, the tickets, and the schedule of
//! messages that wait for their acknowledgement.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tracing::info;

use crate::server::limits::log_throttle::LogThrottle;
use crate::server::udp::hello::GreetingLimiter;
use crate::server::udp::outgoing::SendSchedule;
use crate::server::udp::tickets::{DatagramTicket, TICKET_LIFETIME, TicketOwner, TicketRegistry};

/// Requests that are handled concurrently, of all tickets.
const MAX_CONCURRENT_REQUESTS: usize = 256;

/// The datagram side of a server. It is empty and idle without a socket.
#[derive(Debug)]
pub(crate) struct DatagramService {
    pub(crate) socket: OnceLock<UdpSocket>,
    pub(crate) tickets: TicketRegistry,
    pub(crate) greetings: GreetingLimiter,
    schedule: Mutex<SendSchedule<Weak<DatagramTicket>>>,
    /// The schedule has a new first entry.
    pub(crate) rescheduled: Notify,
    pub(crate) permits: Arc<Semaphore>,
    dropped: AtomicU64,
    drops: LogThrottle,
    pub(crate) failures: LogThrottle,
}

impl Default for DatagramService {
    fn default() -> Self {
        Self {
            socket: OnceLock::new(),
            tickets: TicketRegistry::default(),
            greetings: GreetingLimiter::default(),
            schedule: Mutex::default(),
            rescheduled: Notify::new(),
            permits: Arc::new(Semaphore::new(MAX_CONCURRENT_REQUESTS)),
            dropped: AtomicU64::new(0),
            drops: LogThrottle::default(),
            failures: LogThrottle::default(),
        }
    }
}

impl DatagramService {
    /// Sets the socket; only the first call has an effect.
    pub(crate) fn set_socket(&self, socket: UdpSocket) {
        let _ = self.socket.set(socket);
    }

    /// The port that receives datagrams, if there is a socket.
    pub(crate) fn port(&self) -> Option<u16> {
        let address = self.socket.get()?.local_addr().ok()?;
        Some(address.port())
    }

    /// Issues a ticket for a session; returns it and its expiry.
    ///
    /// # Errors
    /// If the system provides no random bytes.
    pub(crate) fn issue_ticket(
        &self,
        owner: Box<dyn TicketOwner>,
    ) -> Result<(Arc<DatagramTicket>, Timestamp), getrandom::Error> {
        let ticket = self.tickets.issue(owner, Instant::now())?;
        Ok((ticket, Timestamp::now() + TICKET_LIFETIME))
    }

    /// Revokes the tickets of a session.
    pub(crate) fn revoke_tickets(&self, session: &str) {
        self.tickets.revoke(session);
    }

    /// Datagrams since the start that were dropped as malformed, not signed, or not allowed.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Requests that are being handled.
    pub(crate) fn active_requests(&self) -> usize {
        MAX_CONCURRENT_REQUESTS - self.permits.available_permits()
    }

    /// Counts a dropped datagram, and logs it if the throttle allows.
    pub(crate) fn log_dropped(&self, from: SocketAddr, reason: &'static str) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        if let Some(left_out) = self.drops.allow(Instant::now()) {
            info!(name: "datagram_dropped", %from, reason, left_out, "dropped a datagram");
        }
    }

    /// Sends a datagram if the socket's buffer has space. The peer requests a lost reply again.
    pub(crate) fn send(&self, datagram: &[u8], to: SocketAddr) {
        let socket = self.socket.get();
        if let Some(Err(error)) = socket.map(|socket| socket.try_send_to(datagram, to))
            && let Some(left_out) = self.failures.allow(Instant::now())
        {
            info!(name: "datagram_not_sent", %to, %error, left_out, "cannot send a datagram");
        }
    }

    /// Schedules a message for the holders of a session's tickets.
    pub(crate) fn enqueue_message(&self, session: &str, seq: u64, json: &Bytes) {
        let now = Instant::now();
        for ticket in self.tickets.for_session(session, now) {
            if ticket.enqueue_message(seq, json) {
                self.schedule(now, &ticket, seq);
            }
        }
    }

    fn schedule(&self, at: Instant, ticket: &Arc<DatagramTicket>, seq: u64) {
        let mut schedule = self.schedule.lock();
        let is_first = schedule.next().is_none_or(|next| at < next);
        let added = schedule.add(at, Arc::downgrade(ticket), seq);
        drop(schedule);
        if added && is_first {
            self.rescheduled.notify_one();
        }
        if !added {
            // The schedule is full: the client finds the message in its inbox.
            ticket.acknowledge(seq);
        }
    }

    /// Sends all datagrams that are due.
    pub(crate) fn send_due(&self) {
        let now = Instant::now();
        loop {
            let Some((ticket, seq)) = self.schedule.lock().pop(now) else {
                return;
            };
            let Some(ticket) = ticket.upgrade().filter(|ticket| ticket.is_valid(now)) else {
                continue;
            };
            let Some(step) = ticket.next_send(seq) else {
                continue;
            };
            if let Some((address, datagram)) = step.send {
                self.send(&datagram, address);
            }
            self.schedule(now + step.pause, &ticket, seq);
        }
    }

    /// When the next datagram is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.schedule.lock().next()
    }
}
