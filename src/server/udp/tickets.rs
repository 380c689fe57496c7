//! Tickets: each is the right to send datagrams for one session, until it expires.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures::future::BoxFuture;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::protocol::{DatagramKey, MAX_DATAGRAM, SIGNATURE, Say, SayReply, Verified, WhoReply};
use crate::server::error::CommandError;
use crate::server::limits::request_lines::LineBudget;
use crate::server::udp::outgoing::{OutgoingMessages, SendStep};
use crate::server::udp::replay::{ReplayVerdict, ReplayWindow};

/// How long a ticket is valid.
pub(crate) const TICKET_LIFETIME: Duration = Duration::from_mins(5);

/// The most tickets of one session; a further one replaces the oldest.
const MAX_TICKETS_PER_SESSION: usize = 4;

/// The session that a ticket belongs to, and the commands that it runs for datagrams. A trait, because
/// the state that sessions share holds the tickets and must not depend on sessions.
pub(crate) trait TicketOwner: fmt::Debug + Send + Sync {
    /// The session's identifier.
    fn session(&self) -> &Arc<str>;

    /// The user's name.
    fn user(&self) -> &str;

    /// Cancelled once the session has ended.
    fn session_ended(&self) -> &CancellationToken;

    /// Whether the account is closed for good.
    fn is_closed(&self) -> bool;

    /// The user's budget of log lines.
    fn lines(&self) -> Arc<LineBudget>;

    /// Checks that the user may run commands now.
    ///
    /// # Errors
    /// [`CommandError::Suspended`], [`CommandError::AccountClosed`].
    fn check(&self) -> Result<(), CommandError>;

    /// Runs `who`; its reply has at most `max_bytes` bytes of JSON.
    fn who(&self, max_bytes: usize) -> WhoReply;

    /// Runs `say`, and resolves once the message is stored.
    fn say(&self, say: Say) -> BoxFuture<'_, Result<SayReply, CommandError>>;
}

/// The right to send datagrams for one session.
#[derive(Debug)]
pub(crate) struct DatagramTicket {
    /// Identifies the ticket in each datagram.
    pub(crate) name: String,
    pub(crate) key: DatagramKey,
    pub(crate) owner: Box<dyn TicketOwner>,
    expires: Instant,
    state: Mutex<TicketState>,
}

#[derive(Debug, Default)]
struct TicketState {
    window: ReplayWindow,
    outgoing: OutgoingMessages,
}

impl DatagramTicket {
    fn new(owner: Box<dyn TicketOwner>, now: Instant) -> Result<Self, getrandom::Error> {
        let (mut name, mut key) = ([0; 8], [0; 32]);
        getrandom::fill(&mut name)?;
        getrandom::fill(&mut key)?;
        Ok(Self {
            name: HEXLOWER.encode(&name),
            key: DatagramKey::new(key),
            owner,
            expires: now + TICKET_LIFETIME,
            state: Mutex::default(),
        })
    }

    /// Whether it has not expired and its session is open.
    pub(crate) fn is_valid(&self, now: Instant) -> bool {
        now < self.expires && !self.owner.session_ended().is_cancelled() && !self.owner.is_closed()
    }

    /// Decides whether to run a request; if it is the latest one, messages go to its address from now on.
    pub(crate) fn begin_request(&self, request: &Verified<'_>, from: SocketAddr) -> ReplayVerdict {
        let mut state = self.lock();
        let verdict = state.window.begin(request.id(), request.tag());
        // A repeated datagram may come from anyone who has seen it.
        if verdict == (ReplayVerdict::New { latest: true }) {
            state.outgoing.set_address(from);
        }
        verdict
    }

    /// Keeps the reply to a request of `length` bytes, and credits its address with the bytes not used.
    pub(crate) fn finish_request(
        &self,
        id: u32,
        reply: Option<Bytes>,
        from: SocketAddr,
        length: usize,
    ) {
        let mut state = self.lock();
        let used = reply.as_ref().map_or(0, Bytes::len);
        state.outgoing.add_credit(from, length.saturating_sub(used));
        state.window.finish(id, reply);
    }

    /// Signs a message and queues it; `false` if it is too long or the queue is full.
    pub(crate) fn enqueue_message(&self, seq: u64, json: &[u8]) -> bool {
        let mut state = self.lock();
        let fits = json.len() + SIGNATURE <= MAX_DATAGRAM && state.outgoing.can_enqueue();
        if fits {
            state.outgoing.enqueue(seq, self.key.sign(json).into());
        }
        fits
    }

    /// Removes a message that has arrived.
    pub(crate) fn acknowledge(&self, seq: u64) {
        self.lock().outgoing.acknowledge(seq);
    }

    /// The next step for a message; `None` if it is done.
    pub(crate) fn next_send(&self, seq: u64) -> Option<SendStep> {
        self.lock().outgoing.next_send(seq)
    }

    fn lock(&self) -> MutexGuard<'_, TicketState> {
        self.state.lock()
    }
}

/// All tickets.
#[derive(Debug, Default)]
pub(crate) struct TicketRegistry(Mutex<TicketTable>);

#[derive(Debug, Default)]
struct TicketTable {
    by_name: HashMap<String, Arc<DatagramTicket>>,
    /// The oldest first.
    by_session: HashMap<Arc<str>, VecDeque<Arc<DatagramTicket>>>,
}

impl TicketRegistry {
    /// Issues a ticket for the session of `owner`.
    ///
    /// # Errors
    /// If the system provides no random bytes.
    pub(crate) fn issue(
        &self,
        owner: Box<dyn TicketOwner>,
        now: Instant,
    ) -> Result<Arc<DatagramTicket>, getrandom::Error> {
        let ticket = Arc::new(DatagramTicket::new(owner, now)?);
        let mut table = self.lock();
        let TicketTable {
            by_name,
            by_session,
        } = &mut *table;
        let session = Arc::clone(ticket.owner.session());
        let own = by_session.entry(session).or_default();
        while own.len() >= MAX_TICKETS_PER_SESSION
            || own.front().is_some_and(|old| !old.is_valid(now))
        {
            if let Some(old) = own.pop_front() {
                by_name.remove(&old.name);
            }
        }
        own.push_back(ticket.clone());
        by_name.insert(ticket.name.clone(), ticket.clone());
        Ok(ticket)
    }

    /// The valid ticket of this name, if there is one.
    pub(crate) fn find(&self, name: &str, now: Instant) -> Option<Arc<DatagramTicket>> {
        let ticket = self.lock().by_name.get(name).cloned();
        ticket.filter(|ticket| ticket.is_valid(now))
    }

    /// The valid tickets of a session.
    pub(crate) fn for_session(&self, session: &str, now: Instant) -> Vec<Arc<DatagramTicket>> {
        let table = self.lock();
        let own = table.by_session.get(session).into_iter().flatten();
        own.filter(|ticket| ticket.is_valid(now)).cloned().collect()
    }

    /// Revokes the tickets of a session.
    pub(crate) fn revoke(&self, session: &str) {
        let mut table = self.lock();
        for ticket in table.by_session.remove(session).into_iter().flatten() {
            table.by_name.remove(&ticket.name);
        }
    }

    fn lock(&self) -> MutexGuard<'_, TicketTable> {
        self.0.lock()
    }
}
