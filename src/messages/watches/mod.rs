//! Watches: which sessions watch which paths, and how far each has received its changes. This is
//! pure data: nothing received waits or sends.
//!
//! The most recent changes are remembered. A session that cannot receive a change lags, and catches
//! up from them; so does a session that resumes an earlier one. A session that lags by more than is
//! remembered receives one overflow event for each path that it watches.

mod recent_changes;
mod scope;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use crate::messages::watches::recent_changes::RecentChanges;
use crate::messages::watches::scope::path_in_view;
use crate::protocol::{ChangeKind, Changed};
use crate::storage::{FileChange, VisiblePath};

/// The most watches of a session.
pub const MAX_WATCHES: usize = 32;

/// The most changes that are remembered.
const MAX_RECENT_CHANGES: usize = 10_000;

/// The most memory that the remembered changes may use.
const MAX_RECENT_BYTES: usize = 4 * 1024 * 1024;

/// The session has [`MAX_WATCHES`] watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a session has at most {MAX_WATCHES} watches; end one first")]
pub struct TooManyWatches;

/// The watches of all sessions. `S` identifies a session.
#[derive(Debug)]
pub(crate) struct Watches<S> {
    recent: RecentChanges,
    sessions: HashMap<S, SessionWatches>,
    /// The sessions that watch something in a space.
    spaces: HashMap<Arc<str>, BTreeSet<S>>,
}

/// The result of a step of a catch-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CatchUpProgress {
    /// The session is up to date.
    Done,
    /// The event queue is full.
    QueueFull,
    /// There may be more changes.
    More,
}

#[derive(Debug, Default)]
struct SessionWatches {
    watches: BTreeMap<u32, ActiveWatch>,
    last_number: u32,
    /// The `seq` up to which a lagging session has its changes; `None` if it is up to date.
    behind: Option<u64>,
    /// The spaces that the session is indexed under.
    spaces: Vec<Arc<str>>,
}

#[derive(Debug)]
struct ActiveWatch {
    /// The watched path in the session's view.
    path: String,
    scopes: Vec<VisiblePath>,
    /// The watch reports changes after this `seq`.
    since: u64,
    /// The `seq` up to which this watch has reported changes, even if other watches of the session
    /// lag.
    delivered: u64,
    /// Whether the watch owes an overflow event.
    has_overflowed: bool,
}

impl<S: Copy + Ord + Hash> Watches<S> {
    /// No watches. Changes up to `seq` are not remembered.
    pub(crate) fn new(seq: u64) -> Self {
        Self::with_capacity(MAX_RECENT_CHANGES, MAX_RECENT_BYTES, seq)
    }

    fn with_capacity(changes: usize, bytes: usize, seq: u64) -> Self {
        Self {
            recent: RecentChanges::new(changes, bytes, seq),
            sessions: HashMap::new(),
            spaces: HashMap::new(),
        }
    }

    /// Starts a watch on `path`, which covers `scopes`, and returns its number. The watch reports
    /// changes after `now`, the last assigned `seq`, and with `since` also the remembered ones after
    /// that, with which the session then lags.
    ///
    /// # Errors
    /// [`TooManyWatches`].
    pub(crate) fn watch(
        &mut self,
        session: S,
        path: String,
        scopes: Vec<VisiblePath>,
        since: Option<u64>,
        now: u64,
    ) -> Result<u32, TooManyWatches> {
        let entry = self.sessions.entry(session).or_default();
        if entry.watches.len() >= MAX_WATCHES {
            return Err(TooManyWatches);
        }
        let received = entry.behind.unwrap_or(now);
        let from = since.unwrap_or(now).min(now);
        if since.is_some() {
            for watch in entry.watches.values_mut() {
                watch.delivered = watch.delivered.max(received);
            }
        }
        // A `since` in the future is of another server.
        let look_again = since.is_some_and(|since| since > now);
        if look_again || from < now {
            entry.behind = Some(received.min(from));
        }
        entry.last_number = entry.last_number.wrapping_add(1);
        while entry.watches.contains_key(&entry.last_number) {
            entry.last_number = entry.last_number.wrapping_add(1);
        }
        let number = entry.last_number;
        let watch = ActiveWatch {
            path,
            scopes,
            since: from,
            delivered: from,
            has_overflowed: look_again,
        };
        entry.watches.insert(number, watch);
        self.index(session);
        Ok(number)
    }

    /// Ends a watch. Returns `false` if the session has no watch with that number.
    pub(crate) fn unwatch(&mut self, session: S, number: u32) -> bool {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return false;
        };
        let ended = entry.watches.remove(&number).is_some();
        if entry.watches.is_empty() {
            self.remove_session(session);
        } else if ended {
            self.index(session);
        }
        ended
    }

    /// Ends all watches of a session.
    pub(crate) fn remove_session(&mut self, session: S) {
        if let Some(entry) = self.sessions.remove(&session) {
            self.unindex(session, &entry.spaces);
        }
    }

    /// The numbers and paths of a session's watches.
    pub(crate) fn list(&self, session: S) -> Vec<(u32, String)> {
        let watches = self.sessions.get(&session).map(|entry| &entry.watches);
        let watches = watches.into_iter().flatten();
        let watches = watches.map(|(number, watch)| (*number, watch.path.clone()));
        watches.collect()
    }

    /// Changes what a watch covers, after the session's rights have changed. If the scopes differ,
    /// the session receives an overflow event for the watch.
    pub(crate) fn set_scopes(
        &mut self,
        session: S,
        number: u32,
        scopes: Vec<VisiblePath>,
        now: u64,
    ) {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        let Some(watch) = entry.watches.get_mut(&number) else {
            return;
        };
        if watch.scopes == scopes {
            return;
        }
        let received = *entry.behind.get_or_insert(now);
        watch.delivered = watch.delivered.max(received);
        watch.since = watch.delivered;
        watch.has_overflowed = true;
        watch.scopes = scopes;
        self.index(session);
    }

    /// Removes from the session's watches everything that is not in one of `spaces`.
    pub(crate) fn restrict(&mut self, session: S, spaces: &[Arc<str>], now: u64) {
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
            self.set_scopes(session, number, kept, now);
        }
    }

    /// Remembers a change, whose `seq` is greater than any before. Returns one event for each session
    /// that is up to date and watches the path.
    pub(crate) fn record(&mut self, seq: u64, change: FileChange) -> Vec<(S, Changed)> {
        let from = change.from.as_ref().map(|(space, _)| space);
        let spaces = [Some(&change.space), from];
        let watching = spaces.into_iter().flatten();
        let watching = watching.filter_map(|space| self.spaces.get(space));
        let watching: BTreeSet<_> = watching.flatten().copied().collect();
        let mut events = Vec::new();
        for session in watching {
            if let Some(entry) = self.sessions.get(&session)
                && entry.behind.is_none()
                && let Some(event) = entry.event_for(seq, &change)
            {
                events.push((session, event));
            }
        }
        self.recent.push(seq, change);
        events
    }

    /// Marks a session as lagging from the change with this `seq` on.
    pub(crate) fn mark_behind(&mut self, session: S, seq: u64) {
        if let Some(entry) = self.sessions.get_mut(&session) {
            let before = seq.saturating_sub(1);
            let behind = entry.behind.get_or_insert(before);
            *behind = before.min(*behind);
        }
    }

    /// Records that changes up to this `seq` were lost. Forgets all remembered changes, and marks
    /// every session as lagging.
    pub(crate) fn mark_lost(&mut self, seq: u64) {
        self.recent.clear_up_to(seq);
        for entry in self.sessions.values_mut() {
            entry.behind.get_or_insert(seq.saturating_sub(1));
        }
    }

    /// The sessions that lag.
    pub(crate) fn sessions_behind(&self) -> impl Iterator<Item = S> {
        let behind = |(session, entry): (&S, &SessionWatches)| entry.behind.map(|_| *session);
        self.sessions.iter().filter_map(behind)
    }

    /// Whether the session lags.
    pub(crate) fn is_behind(&self, session: S) -> bool {
        let entry = self.sessions.get(&session);
        entry.is_some_and(|entry| entry.behind.is_some())
    }

    /// Passes a lagging session's changes to `send`, until all are sent, `send` returns `false`
    /// because the queue is full, or `limit` changes were examined.
    pub(crate) fn catch_up(
        &mut self,
        session: S,
        limit: usize,
        mut send: impl FnMut(Changed) -> bool,
    ) -> CatchUpProgress {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return CatchUpProgress::Done;
        };
        let Some(behind) = entry.behind else {
            return CatchUpProgress::Done;
        };
        if !entry.send_overflows(behind, self.recent.forgotten_up_to(), &mut send) {
            return CatchUpProgress::QueueFull;
        }
        let mut received = behind.max(self.recent.forgotten_up_to());
        for (number, (seq, change)) in self.recent.after(received).enumerate() {
            if number == limit {
                entry.behind = Some(received);
                return CatchUpProgress::More;
            }
            if let Some(event) = entry.event_for(*seq, change)
                && !send(event)
            {
                entry.behind = Some(received);
                return CatchUpProgress::QueueFull;
            }
            received = *seq;
        }
        entry.behind = None;
        CatchUpProgress::Done
    }

    /// Indexes the session under the spaces that it watches, and no others.
    fn index(&mut self, session: S) {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        let scopes = entry.watches.values().flat_map(|watch| &watch.scopes);
        let spaces: BTreeSet<_> = scopes.map(|scope| scope.space.clone()).collect();
        let new = spaces.into_iter().collect();
        let old = std::mem::replace(&mut entry.spaces, new);
        let new = entry.spaces.clone();
        self.unindex(session, &old);
        for space in new {
            self.spaces.entry(space).or_default().insert(session);
        }
    }

    fn unindex(&mut self, session: S, spaces: &[Arc<str>]) {
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

impl SessionWatches {
    /// The event for a change, if one of the session's watches covers it and has not reported it.
    fn event_for(&self, seq: u64, change: &FileChange) -> Option<Changed> {
        let (mut to, mut from) = (None, None);
        for watch in self.watches.values().filter(|watch| seq > watch.since) {
            let new_path = watch.path_in_view(&change.space, change.path.as_str());
            let old_path = change.from.as_ref();
            let old_path =
                old_path.and_then(|(space, path)| watch.path_in_view(space, path.as_str()));
            if new_path.is_none() && old_path.is_none() {
                continue;
            }
            if seq <= watch.delivered {
                return None;
            }
            to = to.or(new_path);
            from = from.or(old_path);
        }
        let (path, kind, from) = match (to, from) {
            (Some(to), from) => (to, change.kind, from),
            // The session only watches the old path, where the file is gone.
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

    /// Sends an overflow event for each watch that has missed changes that are no longer remembered.
    /// Returns `false` if the queue is full.
    fn send_overflows(
        &mut self,
        behind: u64,
        forgotten: u64,
        mut send: impl FnMut(Changed) -> bool,
    ) -> bool {
        for watch in self.watches.values_mut() {
            if !watch.has_overflowed && watch.delivered.max(behind) >= forgotten {
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
            watch.has_overflowed = false;
            watch.delivered = watch.delivered.max(forgotten);
        }
        true
    }
}

impl ActiveWatch {
    fn path_in_view(&self, space: &str, path: &str) -> Option<String> {
        let mut scopes = self.scopes.iter().filter(|scope| *scope.space == *space);
        scopes.find_map(|scope| path_in_view(scope, path))
    }
}
