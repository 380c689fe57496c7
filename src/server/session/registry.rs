//! The registry of the sessions of a server, with their running transfers, for operators.
//!
//! One lock guards the table. Sessions add and remove themselves, and operators read it. The running
//! transfers of a session have a lock of their own, which is taken after this one is released.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::protocol::{SessionDialect, SessionEntry};
use crate::server::session::dialect::Dialect;
use crate::server::transfer::running_transfers::RunningTransfers;

/// The sessions of a server whose users have logged in, in the order of their logins.
#[derive(Debug, Default)]
pub(crate) struct SessionRegistry(Mutex<RegistryState>);

#[derive(Debug, Default)]
struct RegistryState {
    sessions: BTreeMap<u64, Arc<RegisteredSession>>,
    next_number: u64,
    kinds: [usize; 4],
}

/// The index of a kind of sessions: their dialect, and whether they are encrypted.
fn kind(dialect: Dialect, secure: bool) -> usize {
    usize::from(dialect == Dialect::Classic) * 2 + usize::from(secure)
}

/// A summary of all sessions.
#[derive(Debug, Clone)]
pub struct SessionOverview {
    /// The number of sessions with a login.
    pub sessions: usize,
    /// Some of the sessions.
    pub list: Vec<SessionEntry>,
}

/// A session with a login.
#[derive(Debug)]
pub(crate) struct RegisteredSession {
    pub(crate) session: Arc<str>,
    pub(crate) user: Box<str>,
    pub(crate) peer: Box<str>,
    pub(crate) secure: bool,
    pub(crate) dialect: Dialect,
    pub(crate) since: Timestamp,
    pub(crate) running: RunningTransfers,
    /// Cancelled to end the session.
    pub(crate) stop: CancellationToken,
    /// Whether an operator has ended the session.
    pub(crate) kicked: AtomicBool,
}

impl RegisteredSession {
    /// The session and its transfers now.
    fn entry(&self) -> SessionEntry {
        SessionEntry {
            session: self.session.to_string(),
            user: self.user.to_string(),
            peer: self.peer.to_string(),
            secure: self.secure,
            dialect: match self.dialect {
                Dialect::Framed => SessionDialect::Framed,
                Dialect::Classic => SessionDialect::Classic,
            },
            since: self.since,
            running: self.running.count(),
            transfers: self.running.oldest(),
        }
    }

    /// Ends the session: it gets a goodbye, and its requests are cancelled.
    fn kick(&self) {
        self.kicked.store(true, Ordering::Relaxed);
        self.stop.cancel();
    }
}

impl SessionRegistry {
    /// Adds a session; it stays until the registration is dropped.
    pub(crate) fn register(self: &Arc<Self>, session: RegisteredSession) -> Registration {
        let session = Arc::new(session);
        let mut state = self.lock();
        let number = state.next_number;
        state.next_number += 1;
        state.kinds[kind(session.dialect, session.secure)] += 1;
        state.sessions.insert(number, Arc::clone(&session));
        Registration {
            registry: Arc::clone(self),
            number,
            session,
        }
    }

    /// Up to `limit` sessions that logged in after the session with the number `after`, the earliest
    /// first, each with its number.
    pub(crate) fn entries(&self, after: Option<u64>, limit: usize) -> Vec<(u64, SessionEntry)> {
        let first = after.map_or(0, |after| after.saturating_add(1));
        let some: Vec<_> = {
            let state = self.lock();
            let page = state.sessions.range(first..).take(limit);
            page.map(|(number, session)| (*number, Arc::clone(session)))
                .collect()
        };
        // Outside the lock: the transfers of a session have a lock of their own.
        let entries = some.iter().map(|(number, one)| (*number, one.entry()));
        entries.collect()
    }

    /// The number of sessions, and up to `limit` of them: first those with transfers, then the others,
    /// each in the order of their logins.
    pub(crate) fn overview(&self, limit: usize) -> SessionOverview {
        let all: Vec<_> = self.lock().sessions.values().cloned().collect();
        // Outside the lock: the transfers of a session have a lock of their own.
        let running: Vec<_> = all.iter().map(|one| one.running.count()).collect();
        let by_activity = |is_busy: bool| {
            let each = all.iter().zip(&running);
            each.filter(move |(_, running)| (**running > 0) == is_busy)
        };
        let listed = by_activity(true).chain(by_activity(false)).take(limit);
        SessionOverview {
            sessions: all.len(),
            list: listed.map(|(session, _)| session.entry()).collect(),
        }
    }

    /// The number of sessions.
    pub(crate) fn count(&self) -> usize {
        self.lock().sessions.len()
    }

    /// The number of sessions of each kind: the dialect, and whether they are encrypted.
    pub(crate) fn kinds(&self) -> [(Dialect, bool, usize); 4] {
        let kinds = self.lock().kinds;
        let each = [
            (Dialect::Framed, false),
            (Dialect::Framed, true),
            (Dialect::Classic, false),
            (Dialect::Classic, true),
        ];
        each.map(|(dialect, secure)| (dialect, secure, kinds[kind(dialect, secure)]))
    }

    /// The number of sessions of each user.
    pub(crate) fn count_by_user(&self) -> HashMap<String, u64> {
        let mut counts = HashMap::new();
        for session in self.lock().sessions.values() {
            *counts.entry(session.user.to_string()).or_default() += 1;
        }
        counts
    }

    /// Ends the sessions that `selects` chooses by session and user. Returns their number.
    pub(crate) fn kick(&self, selects: impl Fn(&str, &str) -> bool) -> usize {
        let selected: Vec<_> = {
            let state = self.lock();
            let is_selected =
                |session: &&Arc<RegisteredSession>| selects(&session.session, &session.user);
            let sessions = state.sessions.values();
            sessions.filter(is_selected).cloned().collect()
        };
        for session in &selected {
            session.kick();
        }
        selected.len()
    }

    fn lock(&self) -> MutexGuard<'_, RegistryState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The entry of a session. Dropping it removes the session from the registry.
#[derive(Debug)]
pub(crate) struct Registration {
    registry: Arc<SessionRegistry>,
    number: u64,
    session: Arc<RegisteredSession>,
}

impl Registration {
    /// Cancelled once the session has to end at once.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.session.stop
    }

    /// Whether an operator has ended the session.
    pub(crate) fn is_kicked(&self) -> bool {
        self.session.kicked.load(Ordering::Relaxed)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.registry.lock();
        state.sessions.remove(&self.number);
        state.kinds[kind(self.session.dialect, self.session.secure)] -= 1;
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;
    use crate::server::transfer::progress::TransferSubject;
    use crate::server::transfer::session_transfers::SessionTransfers;

    fn session(session: &str, user: &str) -> RegisteredSession {
        RegisteredSession {
            session: session.into(),
            user: user.into(),
            peer: "192.0.2.7:4711".into(),
            secure: true,
            dialect: Dialect::Framed,
            since: Timestamp::UNIX_EPOCH,
            running: RunningTransfers::default(),
            stop: CancellationToken::new(),
            kicked: AtomicBool::new(false),
        }
    }

    fn register(sessions: &Arc<SessionRegistry>, session: &str, user: &str) -> Registration {
        sessions.register(self::session(session, user))
    }

    #[test]
    fn sessions_are_listed_by_pages_until_they_end() {
        let sessions = Arc::new(SessionRegistry::default());
        let registrations: Vec<_> = ["a", "b", "c"]
            .map(|name| register(&sessions, name, "alice"))
            .into();
        let page = sessions.entries(None, 2);
        let names = |page: &[(u64, SessionEntry)]| -> Vec<_> {
            page.iter()
                .map(|(_, entry)| entry.session.clone())
                .collect()
        };
        assert_eq!(names(&page), ["a", "b"]);
        let last = page.last().map(|(number, _)| *number);
        assert_eq!(names(&sessions.entries(last, 2)), ["c"]);
        assert!(sessions.kinds().contains(&(Dialect::Framed, true, 3)));
        drop(registrations);
        assert!(sessions.kinds().iter().all(|(.., count)| *count == 0));
        assert_eq!(sessions.count(), 0);
        assert!(sessions.entries(None, 2).is_empty());
    }

    #[test]
    fn sessions_with_transfers_come_first_in_the_overview() {
        let sessions = Arc::new(SessionRegistry::default());
        let transfers = SessionTransfers::new(Arc::new(Semaphore::new(1)));
        let session_ended = CancellationToken::new();
        let _registrations = ["a", "b", "c"].map(|name| {
            let mut session = session(name, "alice");
            if name == "b" {
                session.running = transfers.running().clone();
            }
            sessions.register(session)
        });
        let _get = transfers
            .register(7, &session_ended, TransferSubject::of_nothing())
            .expect("free");
        let overview = sessions.overview(2);
        assert_eq!(overview.sessions, 3);
        let names: Vec<_> = overview.list.iter().map(|one| &*one.session).collect();
        assert_eq!(names, ["b", "a"]);
    }

    #[test]
    fn only_the_selected_sessions_are_kicked() {
        let sessions = Arc::new(SessionRegistry::default());
        let alice = register(&sessions, "a", "alice");
        let bob = register(&sessions, "b", "bob");
        assert_eq!(sessions.kick(|_, user| user == "bob"), 1);
        assert!(bob.is_kicked() && bob.stop().is_cancelled());
        assert!(!alice.is_kicked() && !alice.stop().is_cancelled());
    }
}
