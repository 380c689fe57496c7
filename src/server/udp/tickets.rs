//! Tickets: who may speak by datagram, for which session, and until when.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use tokio::time::Instant;

use crate::protocol::{DatagramKey, MAX_DATAGRAM, SIGNATURE, Verified};
use crate::server::session::member::Member;
use crate::server::udp::outgoing::{Outgoing, Step};
use crate::server::udp::replay::{Verdict, Window};

/// How long a ticket is good for.
pub(crate) const LIFETIME: Duration = Duration::from_mins(5);

/// Tickets of one session; for a further one the oldest ends.
const MOST_OF_SESSION: usize = 4;

/// The right to speak by datagram for one session.
#[derive(Debug)]
pub(crate) struct DatagramTicket {
    /// What each datagram names it by.
    pub(crate) name: String,
    pub(crate) key: DatagramKey,
    /// On whose behalf it speaks.
    pub(crate) member: Member,
    expires: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    window: Window,
    outgoing: Outgoing,
}

impl DatagramTicket {
    fn new(member: Member, now: Instant) -> Result<Self, getrandom::Error> {
        let (mut name, mut key) = ([0; 8], [0; 32]);
        getrandom::fill(&mut name)?;
        getrandom::fill(&mut key)?;
        Ok(Self {
            name: HEXLOWER.encode(&name),
            key: DatagramKey::new(key),
            member,
            expires: now + LIFETIME,
            state: Mutex::default(),
        })
    }

    /// Whether it has not ended.
    pub(crate) fn is_good(&self, now: Instant) -> bool {
        let Member {
            authority: account,
            gone,
            ..
        } = &self.member;
        now < self.expires && !gone.is_cancelled() && !account.closed.is_cancelled()
    }

    /// Looks whether a request is to be done, and notes where it came from if it is the latest.
    pub(crate) fn begin(&self, request: &Verified<'_>, from: SocketAddr) -> Verdict {
        let mut state = self.lock();
        let verdict = state.window.begin(request.id(), request.tag());
        // What is only sent again may come from anybody who has seen it.
        if verdict == (Verdict::New { latest: true }) {
            state.outgoing.heard(from);
        }
        verdict
    }

    /// Keeps the reply to a request of `length` bytes from an address.
    pub(crate) fn finish(&self, id: u32, reply: Option<Bytes>, from: SocketAddr, length: usize) {
        let mut state = self.lock();
        let used = reply.as_ref().map_or(0, Bytes::len);
        state.outgoing.spared(from, length.saturating_sub(used));
        state.window.finish(id, reply);
    }

    /// Signs a message and has it wait to be sent; `false` if it can not be.
    pub(crate) fn put(&self, seq: u64, json: &[u8]) -> bool {
        let mut state = self.lock();
        let fits = json.len() + SIGNATURE <= MAX_DATAGRAM && state.outgoing.has_room();
        if fits {
            state.outgoing.put(seq, self.key.sign(json).into());
        }
        fits
    }

    /// A message has arrived.
    pub(crate) fn acknowledged(&self, seq: u64) {
        self.lock().outgoing.acknowledged(seq);
    }

    /// What to do next for a message.
    pub(crate) fn step(&self, seq: u64) -> Option<Step> {
        self.lock().outgoing.step(seq)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All tickets.
#[derive(Debug, Default)]
pub(crate) struct Tickets(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    by_name: HashMap<String, Arc<DatagramTicket>>,
    /// The oldest first.
    by_session: HashMap<Arc<str>, VecDeque<Arc<DatagramTicket>>>,
}

impl Tickets {
    /// Makes a ticket for the session of `member`.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub(crate) fn issue(
        &self,
        member: Member,
        now: Instant,
    ) -> Result<Arc<DatagramTicket>, getrandom::Error> {
        let ticket = Arc::new(DatagramTicket::new(member, now)?);
        let mut table = self.lock();
        let Table {
            by_name,
            by_session,
        } = &mut *table;
        let session = ticket.member.session.clone();
        let own = by_session.entry(session).or_default();
        while own.len() >= MOST_OF_SESSION || own.front().is_some_and(|old| !old.is_good(now)) {
            if let Some(old) = own.pop_front() {
                by_name.remove(&old.name);
            }
        }
        own.push_back(ticket.clone());
        by_name.insert(ticket.name.clone(), ticket.clone());
        Ok(ticket)
    }

    /// The ticket of this name, if there is one that is good.
    pub(crate) fn find(&self, name: &str, now: Instant) -> Option<Arc<DatagramTicket>> {
        let ticket = self.lock().by_name.get(name).cloned();
        ticket.filter(|ticket| ticket.is_good(now))
    }

    /// The tickets of a session.
    pub(crate) fn of(&self, session: &str, now: Instant) -> Vec<Arc<DatagramTicket>> {
        let table = self.lock();
        let own = table.by_session.get(session).into_iter().flatten();
        own.filter(|ticket| ticket.is_good(now)).cloned().collect()
    }

    /// Ends the tickets of a session.
    pub(crate) fn end(&self, session: &str) {
        let mut table = self.lock();
        for ticket in table.by_session.remove(session).into_iter().flatten() {
            table.by_name.remove(&ticket.name);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
