//! Watches: who is to hear of which changes. Only data: nothing here waits or sends.
//!
//! The last changes are remembered, so that nothing is lost where a session can not be told at
//! once: it falls behind, and catches up from what is remembered. A session that resumes where an
//! earlier one was cut off begins behind. Whoever falls behind farther than is remembered is told
//! that there were more changes than could be told, once for each path that it watches.

mod ring;
mod scope;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use crate::messages::watches::ring::Ring;
pub use crate::messages::watches::scope::WatchScope;
use crate::protocol::{ChangeKind, Changed};

/// The most watches of a session.
pub const MAX_WATCHES: usize = 32;

/// Changes that are remembered.
const REMEMBERED: usize = 10_000;

/// Bytes that those may take up.
const REMEMBERED_BYTES: usize = 4 * 1024 * 1024;

/// Something that happened to a name in one of the spaces that files are in: a home or a shared
/// folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedChange {
    /// The space.
    pub space: Arc<str>,
    /// The absolute path within it; never its root.
    pub path: String,
    /// What happened there.
    pub kind: ChangeKind,
    /// Where it was before, if it was moved: the space and the path within it.
    pub from: Option<(Arc<str>, String)>,
    /// The user who did it.
    pub by: Arc<str>,
}

/// The session has as many watches as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a session has at most {MAX_WATCHES} watches; end one first")]
pub struct TooManyWatches;

/// All watches of all sessions, which `S` tells from one another.
#[derive(Debug)]
pub(super) struct Watches<S> {
    ring: Ring,
    sessions: HashMap<S, Session>,
    /// Those who watch something in a space.
    spaces: HashMap<Arc<str>, BTreeSet<S>>,
}

/// How far a session was told what it was behind with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CatchUp {
    /// It is not behind any more.
    Done,
    /// There is more to tell, and no room for it.
    NoRoom,
    /// There may be more.
    More,
}

#[derive(Debug, Default)]
struct Session {
    watches: BTreeMap<u32, Watch>,
    last: u32,
    /// It has been told, or need not be, what happened up to this `seq`, and not what came later;
    /// absent if it has been told all.
    behind: Option<u64>,
    /// The spaces that it is entered under.
    spaces: Vec<Arc<str>>,
}

#[derive(Debug)]
struct Watch {
    /// What is watched, as the session sees it.
    path: String,
    scopes: Vec<WatchScope>,
    /// It hears what happened after this.
    since: u64,
    /// It has heard what happened up to this, though others in the session may have not.
    told: u64,
    /// What is seen here has changed in a way that no change tells.
    look_again: bool,
}

impl<S: Copy + Ord + Hash> Watches<S> {
    /// Nobody watches yet. What happened up to `seq` is not remembered.
    pub(super) fn new(seq: u64) -> Self {
        Self::remembering(REMEMBERED, REMEMBERED_BYTES, seq)
    }

    fn remembering(changes: usize, bytes: usize, seq: u64) -> Self {
        Self {
            ring: Ring::new(changes, bytes, seq),
            sessions: HashMap::new(),
            spaces: HashMap::new(),
        }
    }

    /// Begins a watch on `path`, which leads to `scopes`, and returns its number. It hears what
    /// happens after `now`, the last `seq` that was given; with `since` also what happened after
    /// that, which the session is then behind with.
    ///
    /// # Errors
    /// [`TooManyWatches`].
    pub(super) fn watch(
        &mut self,
        session: S,
        path: String,
        scopes: Vec<WatchScope>,
        since: Option<u64>,
        now: u64,
    ) -> Result<u32, TooManyWatches> {
        let entry = self.sessions.entry(session).or_default();
        if entry.watches.len() >= MAX_WATCHES {
            return Err(TooManyWatches);
        }
        let here = entry.behind.unwrap_or(now);
        let from = since.unwrap_or(now).min(now);
        if since.is_some() {
            for watch in entry.watches.values_mut() {
                watch.told = watch.told.max(here);
            }
        }
        // Somebody who has heard of what has not happened yet has heard it of another server.
        let look_again = since.is_some_and(|since| since > now);
        if look_again || from < now {
            entry.behind = Some(here.min(from));
        }
        entry.last = entry.last.wrapping_add(1);
        while entry.watches.contains_key(&entry.last) {
            entry.last = entry.last.wrapping_add(1);
        }
        let number = entry.last;
        let watch = Watch {
            path,
            scopes,
            since: from,
            told: from,
            look_again,
        };
        entry.watches.insert(number, watch);
        self.enter(session);
        Ok(number)
    }

    /// Ends a watch; `false` if there is none of that number.
    pub(super) fn unwatch(&mut self, session: S, number: u32) -> bool {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return false;
        };
        let ended = entry.watches.remove(&number).is_some();
        if entry.watches.is_empty() {
            self.forget(session);
        } else if ended {
            self.enter(session);
        }
        ended
    }

    /// Ends all watches of a session.
    pub(super) fn forget(&mut self, session: S) {
        if let Some(entry) = self.sessions.remove(&session) {
            self.leave(session, &entry.spaces);
        }
    }

    /// The numbers and paths of a session's watches.
    pub(super) fn watched(&self, session: S) -> Vec<(u32, String)> {
        let watches = self.sessions.get(&session).map(|entry| &entry.watches);
        let watches = watches.into_iter().flatten();
        let watches = watches.map(|(number, watch)| (*number, watch.path.clone()));
        watches.collect()
    }

    /// A watch leads elsewhere now, since what the session may see has changed. If that makes a
    /// difference, the session is behind: it is to be told to look again.
    pub(super) fn rescope(&mut self, session: S, number: u32, scopes: Vec<WatchScope>, now: u64) {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        let Some(watch) = entry.watches.get_mut(&number) else {
            return;
        };
        if watch.scopes == scopes {
            return;
        }
        let here = *entry.behind.get_or_insert(now);
        watch.told = watch.told.max(here);
        watch.since = watch.told;
        watch.look_again = true;
        watch.scopes = scopes;
        self.enter(session);
    }

    /// Takes away from the session's watches what lies in other spaces than these.
    pub(super) fn restrict(&mut self, session: S, spaces: &[Arc<str>], now: u64) {
        let Some(entry) = self.sessions.get(&session) else {
            return;
        };
        let narrowed = entry.watches.iter().filter_map(|(number, watch)| {
            let kept = watch
                .scopes
                .iter()
                .filter(|scope| spaces.contains(&scope.space));
            let kept: Vec<_> = kept.cloned().collect();
            (kept.len() < watch.scopes.len()).then_some((*number, kept))
        });
        for (number, kept) in narrowed.collect::<Vec<_>>() {
            self.rescope(session, number, kept, now);
        }
    }

    /// Remembers a change, with a `seq` greater than any before, and says which sessions are to be
    /// told what: one event each, however many of its watches hear it.
    ///
    /// Those that are behind are not among them.
    pub(super) fn changed(&mut self, seq: u64, change: WatchedChange) -> Vec<(S, Changed)> {
        let from = change.from.as_ref().map(|(space, _)| space);
        let spaces = [Some(&change.space), from];
        let watching = spaces.into_iter().flatten();
        let watching = watching.filter_map(|space| self.spaces.get(space));
        let watching: BTreeSet<_> = watching.flatten().copied().collect();
        let mut told = Vec::new();
        for session in watching {
            if let Some(entry) = self.sessions.get(&session)
                && entry.behind.is_none()
                && let Some(event) = entry.hear(seq, &change)
            {
                told.push((session, event));
            }
        }
        self.ring.push(seq, change);
        told
    }

    /// A session could not be told the change of this `seq`: it is behind from there on.
    pub(super) fn fell_behind(&mut self, session: S, seq: u64) {
        if let Some(entry) = self.sessions.get_mut(&session) {
            let before = seq.saturating_sub(1);
            let behind = entry.behind.get_or_insert(before);
            *behind = before.min(*behind);
        }
    }

    /// Changes up to this `seq` have happened that nobody knows. All that was remembered is
    /// forgotten, and every session that watches is behind.
    pub(super) fn lose(&mut self, seq: u64) {
        self.ring.forget(seq);
        for entry in self.sessions.values_mut() {
            entry.behind.get_or_insert(seq.saturating_sub(1));
        }
    }

    /// Sessions that are behind.
    pub(super) fn behind(&self) -> impl Iterator<Item = S> {
        let behind = |(session, entry): (&S, &Session)| entry.behind.map(|_| *session);
        self.sessions.iter().filter_map(behind)
    }

    /// Whether the session is behind.
    pub(super) fn is_behind(&self, session: S) -> bool {
        let entry = self.sessions.get(&session);
        entry.is_some_and(|entry| entry.behind.is_some())
    }

    /// Tells a session that is behind what it has not heard, until it has heard all, `send` has no
    /// room, or `limit` changes were looked at.
    pub(super) fn catch_up(
        &mut self,
        session: S,
        limit: usize,
        mut send: impl FnMut(Changed) -> bool,
    ) -> CatchUp {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return CatchUp::Done;
        };
        let Some(behind) = entry.behind else {
            return CatchUp::Done;
        };
        if !entry.look_again(behind, self.ring.forgotten(), &mut send) {
            return CatchUp::NoRoom;
        }
        let mut here = behind.max(self.ring.forgotten());
        for (number, (seq, change)) in self.ring.after(here).enumerate() {
            if number == limit {
                entry.behind = Some(here);
                return CatchUp::More;
            }
            if let Some(event) = entry.hear(*seq, change)
                && !send(event)
            {
                entry.behind = Some(here);
                return CatchUp::NoRoom;
            }
            here = *seq;
        }
        entry.behind = None;
        CatchUp::Done
    }

    /// Enters the session under the spaces that it watches, and no others.
    fn enter(&mut self, session: S) {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        let scopes = entry.watches.values().flat_map(|watch| &watch.scopes);
        let spaces: BTreeSet<_> = scopes.map(|scope| scope.space.clone()).collect();
        let new = spaces.into_iter().collect();
        let old = std::mem::replace(&mut entry.spaces, new);
        let new = entry.spaces.clone();
        self.leave(session, &old);
        for space in new {
            self.spaces.entry(space).or_default().insert(session);
        }
    }

    fn leave(&mut self, session: S, spaces: &[Arc<str>]) {
        for space in spaces {
            if let Some(watching) = self.spaces.get_mut(space) {
                watching.remove(&session);
                if watching.is_empty() {
                    self.spaces.remove(space);
                }
            }
        }
    }
}

impl Session {
    /// What the session is to be told of a change, if one of its watches hears it that has not
    /// heard it yet.
    fn hear(&self, seq: u64, change: &WatchedChange) -> Option<Changed> {
        let (mut to, mut from) = (None, None);
        for watch in self.watches.values().filter(|watch| seq > watch.since) {
            let new_place = watch.sees(&change.space, &change.path);
            let old_place = change.from.as_ref();
            let old_place = old_place.and_then(|(space, path)| watch.sees(space, path));
            if new_place.is_none() && old_place.is_none() {
                continue;
            }
            if seq <= watch.told {
                return None;
            }
            to = to.or(new_place);
            from = from.or(old_place);
        }
        let (path, kind, from) = match (to, from) {
            (Some(to), from) => (to, change.kind, from),
            // To who watches only where it was, it is gone.
            (None, Some(from)) => (from, ChangeKind::Removed, None),
            (None, None) => return None,
        };
        Some(Changed {
            seq,
            path,
            kind,
            from,
            by: Some(change.by.to_string()),
        })
    }

    /// Tells each watch that has missed what is not remembered any more, until `send` has no room.
    fn look_again(
        &mut self,
        behind: u64,
        forgotten: u64,
        mut send: impl FnMut(Changed) -> bool,
    ) -> bool {
        for watch in self.watches.values_mut() {
            if !watch.look_again && watch.told.max(behind) >= forgotten {
                continue;
            }
            let event = Changed {
                seq: behind.max(forgotten),
                path: watch.path.clone(),
                kind: ChangeKind::Overflow,
                from: None,
                by: None,
            };
            if !send(event) {
                return false;
            }
            watch.look_again = false;
            watch.told = watch.told.max(forgotten);
        }
        true
    }
}

impl Watch {
    fn sees(&self, space: &str, path: &str) -> Option<String> {
        let mut scopes = self.scopes.iter().filter(|scope| *scope.space == *space);
        scopes.find_map(|scope| scope.sees(path))
    }
}
