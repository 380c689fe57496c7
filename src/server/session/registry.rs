//! The sessions that are there, and what each has under way: what an operator looks at.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::protocol::{SessionDialect, SessionEntry};
use crate::server::session::dialect::Dialect;
use crate::server::transfer::running_transfers::RunningTransfers;

/// The sessions of a server whose users are known, in the order in which they logged in.
#[derive(Debug, Default)]
pub(crate) struct SessionRegistry(Mutex<RegistryState>);

#[derive(Debug, Default)]
struct RegistryState {
    present: BTreeMap<u64, Arc<RegisteredSession>>,
    numbers: u64,
    kinds: [usize; 4],
}

/// The number of a kind of sessions: what they speak, and whether it is encrypted.
fn kind(dialect: Dialect, secure: bool) -> usize {
    usize::from(dialect == Dialect::Classic) * 2 + usize::from(secure)
}

/// All sessions at a glance.
#[derive(Debug, Clone)]
pub struct SessionOverview {
    /// How many there are of users who have logged in.
    pub sessions: usize,
    /// Some of the sessions.
    pub list: Vec<SessionEntry>,
}

/// A session that is there.
#[derive(Debug)]
pub(crate) struct RegisteredSession {
    pub(crate) session: Arc<str>,
    pub(crate) user: Box<str>,
    pub(crate) peer: Box<str>,
    pub(crate) secure: bool,
    pub(crate) dialect: Dialect,
    pub(crate) since: Timestamp,
    pub(crate) running: RunningTransfers,
    /// Ends it.
    pub(crate) stop: CancellationToken,
    /// An operator has ended it.
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

    /// Ends it: it is told goodbye, and what it has under way is cut off.
    fn kick(&self) {
        self.kicked.store(true, Ordering::Relaxed);
        self.stop.cancel();
    }
}

impl SessionRegistry {
    /// Enters one; it is there until what is returned is dropped.
    pub(crate) fn register(self: &Arc<Self>, present: RegisteredSession) -> Registration {
        let present = Arc::new(present);
        let mut state = self.lock();
        let number = state.numbers;
        state.numbers += 1;
        state.kinds[kind(present.dialect, present.secure)] += 1;
        state.present.insert(number, Arc::clone(&present));
        Registration {
            sessions: Arc::clone(self),
            number,
            present,
        }
    }

    /// Those that logged in after the one with the number `after`, the first ones first, each with
    /// its number.
    pub(crate) fn entries(&self, after: Option<u64>, most: usize) -> Vec<(u64, SessionEntry)> {
        let first = after.map_or(0, |after| after.saturating_add(1));
        let some: Vec<_> = {
            let state = self.lock();
            let rest = state.present.range(first..).take(most);
            rest.map(|(number, present)| (*number, Arc::clone(present)))
                .collect()
        };
        // Outside the lock: what is under way has a lock of its own.
        let entries = some.iter().map(|(number, one)| (*number, one.entry()));
        entries.collect()
    }

    /// How many there are, and up to `most` of them: first those that move something,
    /// then the others, each in the order in which they logged in.
    pub(crate) fn overview(&self, most: usize) -> SessionOverview {
        let all: Vec<_> = self.lock().present.values().cloned().collect();
        // Outside the lock: what is under way has a lock of its own.
        let running: Vec<_> = all.iter().map(|one| one.running.count()).collect();
        let of = |is_busy: bool| {
            let each = all.iter().zip(&running);
            each.filter(move |(_, running)| (**running > 0) == is_busy)
        };
        let some = of(true).chain(of(false)).take(most);
        SessionOverview {
            sessions: all.len(),
            list: some.map(|(one, _)| one.entry()).collect(),
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.lock().present.len()
    }

    /// How many there are of each kind: what they speak, whether it is encrypted.
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

    /// How many each user has.
    pub(crate) fn count_by_user(&self) -> HashMap<String, u64> {
        let mut counts = HashMap::new();
        for present in self.lock().present.values() {
            *counts.entry(present.user.to_string()).or_default() += 1;
        }
        counts
    }

    /// Ends those that are `wanted`, by session and user; how many that were.
    pub(crate) fn kick(&self, wanted: impl Fn(&str, &str) -> bool) -> usize {
        let some: Vec<_> = {
            let state = self.lock();
            let wanted =
                |present: &&Arc<RegisteredSession>| wanted(&present.session, &present.user);
            state.present.values().filter(wanted).cloned().collect()
        };
        for present in &some {
            present.kick();
        }
        some.len()
    }

    fn lock(&self) -> MutexGuard<'_, RegistryState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's place among those that are there.
#[derive(Debug)]
pub(crate) struct Registration {
    sessions: Arc<SessionRegistry>,
    number: u64,
    present: Arc<RegisteredSession>,
}

impl Registration {
    /// Cancelled once the session has to end at once.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.present.stop
    }

    /// Whether that is because an operator wants it.
    pub(crate) fn is_kicked(&self) -> bool {
        self.present.kicked.load(Ordering::Relaxed)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.sessions.lock();
        state.present.remove(&self.number);
        state.kinds[kind(self.present.dialect, self.present.secure)] -= 1;
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;
    use crate::server::transfer::progress::TransferSubject;
    use crate::server::transfer::session_transfers::SessionTransfers;

    fn present(session: &str, user: &str) -> RegisteredSession {
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

    fn enter(sessions: &Arc<SessionRegistry>, session: &str, user: &str) -> Registration {
        sessions.register(present(session, user))
    }

    #[test]
    fn a_session_is_listed_until_it_is_gone_page_by_page() {
        let sessions = Arc::new(SessionRegistry::default());
        let places: Vec<_> = ["a", "b", "c"]
            .map(|name| enter(&sessions, name, "alice"))
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
        drop(places);
        assert!(sessions.kinds().iter().all(|(.., count)| *count == 0));
        assert_eq!(sessions.count(), 0);
        assert!(sessions.entries(None, 2).is_empty());
    }

    #[test]
    fn at_a_glance_those_that_move_something_come_first() {
        let sessions = Arc::new(SessionRegistry::default());
        let transfers = SessionTransfers::new(Arc::new(Semaphore::new(1)));
        let session_ended = CancellationToken::new();
        let _places = ["a", "b", "c"].map(|name| {
            let mut present = present(name, "alice");
            if name == "b" {
                present.running = transfers.running().clone();
            }
            sessions.register(present)
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
    fn only_those_that_are_meant_are_kicked() {
        let sessions = Arc::new(SessionRegistry::default());
        let alice = enter(&sessions, "a", "alice");
        let bob = enter(&sessions, "b", "bob");
        assert_eq!(sessions.kick(|_, user| user == "bob"), 1);
        assert!(bob.is_kicked() && bob.stop().is_cancelled());
        assert!(!alice.is_kicked() && !alice.stop().is_cancelled());
    }
}
