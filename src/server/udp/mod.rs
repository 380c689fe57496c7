//! Datagrams: the socket beside the listener, and who may be heard on it.
//!
//! ```text
//! socket ─► form ─► ticket ─► HMAC ─► replay window ─► command ─► reply ─► socket
//!                                        └─► answered before ─────────────►
//! event lane of a session ─► its tickets ─► schedule ─► socket, until acknowledged
//! ```
//!
//! Until its HMAC is verified a datagram costs a bounded amount of work and no memory that stays.
//! What is not verified gets no answer, but for a search for servers, which is answered seldom.

pub(crate) mod answer;
pub(crate) mod bind;
pub(crate) mod hello;
pub(crate) mod outgoing;
pub(crate) mod replay;
pub(crate) mod tickets;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use rustix::system::uname;
use serde::Deserialize;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

pub use crate::server::udp::bind::bind;
pub(crate) use crate::server::udp::tickets::DatagramTicket;

use crate::connection::EventObserver;
use crate::protocol::{Datagram, Discovered, MAX_DATAGRAM};
use crate::server::accept::network::admits;
use crate::server::limits::log_throttle::LogThrottle;
use crate::server::session::member::Member;
use crate::server::shutdown::Shutdown;
use crate::server::state::{SERVER, ServerState};
use crate::server::udp::hello::Greetings;
use crate::server::udp::outgoing::Schedule;
use crate::server::udp::tickets::{LIFETIME, Tickets};

/// Requests that are worked on at once, of all tickets.
const UNDER_WAY: usize = 256;

/// So many errors in a row mean more than that somebody is not there any more.
const SUSPICIOUS: u32 = 16;

/// How long to wait after that before the next attempt to receive.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Events of this kind are sent to the holders of tickets.
const MESSAGE: &[u8] = br#"{"event":"message","#;

/// What a server has for its datagrams.
#[derive(Debug)]
pub(crate) struct DatagramService {
    socket: OnceLock<UdpSocket>,
    tickets: Tickets,
    greetings: Greetings,
    schedule: Mutex<Schedule<Weak<DatagramTicket>>>,
    /// The schedule has an entry that is due earlier than all before.
    earlier: Notify,
    under_way: Arc<Semaphore>,
    dropped: AtomicU64,
    drops: LogThrottle,
    failures: LogThrottle,
}

impl Default for DatagramService {
    fn default() -> Self {
        Self {
            socket: OnceLock::new(),
            tickets: Tickets::default(),
            greetings: Greetings::default(),
            schedule: Mutex::default(),
            earlier: Notify::new(),
            under_way: Arc::new(Semaphore::new(UNDER_WAY)),
            dropped: AtomicU64::new(0),
            drops: LogThrottle::default(),
            failures: LogThrottle::default(),
        }
    }
}

impl DatagramService {
    /// Speaks through `socket` from now on; the first one stays.
    pub(crate) fn speak_through(&self, socket: UdpSocket) {
        let _ = self.socket.set(socket);
    }

    /// The port that takes datagrams, if one does.
    pub(crate) fn port(&self) -> Option<u16> {
        let address = self.socket.get()?.local_addr().ok()?;
        Some(address.port())
    }

    /// A ticket for the session of `member`, and when it ends.
    pub(crate) fn issue(
        &self,
        member: Member,
    ) -> Result<(Arc<DatagramTicket>, Timestamp), getrandom::Error> {
        let ticket = self.tickets.issue(member, Instant::now())?;
        Ok((ticket, Timestamp::now() + LIFETIME))
    }

    /// Ends the tickets of a session.
    pub(crate) fn end(&self, session: &str) {
        self.tickets.end(session);
    }

    /// Datagrams that were not answered because they were not sound, not signed or not allowed.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Requests that are worked on now.
    pub(crate) fn under_way(&self) -> usize {
        UNDER_WAY - self.under_way.available_permits()
    }

    fn drop(&self, from: SocketAddr, reason: &'static str) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        if let Some(left_out) = self.drops.turn(Instant::now()) {
            info!(name: "datagram_dropped", %from, reason, left_out, "dropped a datagram");
        }
    }

    /// Sends, if the system takes it at once: what is lost is asked for again.
    fn send(&self, datagram: &[u8], to: SocketAddr) {
        let socket = self.socket.get();
        if let Some(Err(error)) = socket.map(|socket| socket.try_send_to(datagram, to))
            && let Some(left_out) = self.failures.turn(Instant::now())
        {
            info!(name: "datagram_not_sent", %to, %error, left_out, "can not send a datagram");
        }
    }

    /// Has a message wait for the holders of a session's tickets.
    fn put(&self, session: &str, seq: u64, json: &Bytes) {
        let now = Instant::now();
        for ticket in self.tickets.of(session, now) {
            if ticket.put(seq, json) {
                self.schedule(now, &ticket, seq);
            }
        }
    }

    fn schedule(&self, at: Instant, ticket: &Arc<DatagramTicket>, seq: u64) {
        let mut schedule = self.lock();
        let earlier = schedule.next().is_none_or(|next| at < next);
        let added = schedule.add(at, Arc::downgrade(ticket), seq);
        drop(schedule);
        if added && earlier {
            self.earlier.notify_one();
        }
        if !added {
            // It is in the inbox, as if it had been given up.
            ticket.acknowledged(seq);
        }
    }

    /// Sends what is due.
    fn send_due(&self) {
        let now = Instant::now();
        loop {
            let Some((ticket, seq)) = self.lock().pop(now) else {
                return;
            };
            let Some(ticket) = ticket.upgrade().filter(|ticket| ticket.is_good(now)) else {
                continue;
            };
            let Some(step) = ticket.step(seq) else {
                continue;
            };
            if let Some((address, datagram)) = step.send {
                self.send(&datagram, address);
            }
            self.schedule(now + step.pause, &ticket, seq);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Schedule<Weak<DatagramTicket>>> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the messages of a session to the holders of its tickets too.
#[derive(Debug)]
pub(crate) struct Copies {
    shared: Weak<ServerState>,
    session: Arc<str>,
}

impl Copies {
    pub(crate) fn of(member: &Member) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::downgrade(&member.shared),
            session: member.session.clone(),
        })
    }
}

impl EventObserver for Copies {
    fn event(&self, json: &Bytes) {
        #[derive(Deserialize)]
        struct Place {
            seq: u64,
        }
        if json.starts_with(MESSAGE)
            && let Ok(Place { seq }) = serde_json::from_slice(json)
            && let Some(shared) = self.shared.upgrade()
        {
            shared.datagrams.put(&self.session, seq, json);
        }
    }
}

/// Takes datagrams, if there is a socket for them. Never ends.
pub(crate) async fn run(shared: &Arc<ServerState>, shutdown: &Shutdown) {
    let datagrams = &shared.datagrams;
    let Some(socket) = datagrams.socket.get() else {
        return std::future::pending().await;
    };
    // One byte more than any may have: what is longer does not fit, and is cut off there.
    let mut buffer = [0; MAX_DATAGRAM + 1];
    let mut errors = 0;
    loop {
        let next = datagrams.lock().next();
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => Some(received),
            () = datagrams.earlier.notified() => None,
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => None,
        };
        match received {
            None => {}
            Some(Ok((length, from))) => {
                errors = 0;
                take(shared, shutdown, &buffer[..length], from);
            }
            // Mostly the answer to something that was sent: nobody is there any more.
            Some(Err(error)) => {
                errors += 1;
                if let Some(left_out) = datagrams.failures.turn(Instant::now()) {
                    warn!(
                        name: "datagram_not_received",
                        %error,
                        left_out,
                        "can not receive a datagram"
                    );
                }
                if errors > SUSPICIOUS {
                    sleep(BACK_OFF).await;
                }
            }
        }
        datagrams.send_due();
    }
}

/// Takes one datagram: answers it, has it answered, or drops it.
fn take(shared: &Arc<ServerState>, shutdown: &Shutdown, datagram: &[u8], from: SocketAddr) {
    let datagrams = &shared.datagrams;
    if !admits(&shared.config().network, from.ip()) {
        return datagrams.drop(from, "its network may not connect");
    }
    match Datagram::parse(datagram) {
        None => datagrams.drop(from, "it has no form that is spoken here"),
        Some(Datagram::Hello) if shutdown.drain.is_cancelled() => {}
        Some(Datagram::Hello) => greet(datagrams, datagram.len(), from),
        Some(Datagram::Signed(signed)) => {
            let Some(ticket) = datagrams.tickets.find(signed.ticket(), Instant::now()) else {
                return datagrams.drop(from, "there is no such ticket");
            };
            match signed.verify(&ticket.key) {
                Some(request) => answer::take(shared, shutdown, ticket, &request, from),
                None => datagrams.drop(from, "its signature is not that of its ticket"),
            }
        }
    }
}

/// Tells somebody that this server is here, in no more bytes than they asked in.
fn greet(datagrams: &DatagramService, length: usize, from: SocketAddr) {
    if !datagrams.greetings.admit(from.ip().into(), Instant::now()) {
        return datagrams.drop(from, "too many look for servers");
    }
    let name = uname().nodename().to_string_lossy().into_owned();
    let answer = Discovered::new(SERVER, &name, datagrams.port().unwrap_or_default());
    match answer.encode_within(length) {
        Some(answer) => datagrams.send(&answer, from),
        None => datagrams.drop(from, "it leaves no room for an answer"),
    }
}
