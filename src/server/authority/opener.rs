//! Opens the homes and folders of accounts whose rights have changed, on threads of its own.
//!
//! Each space is opened once for all accounts that may reach it. A disk that hangs blocks one of at
//! most [`MAX_THREADS`] threads and nothing else; once the space is open after all, the next attempt
//! finds it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::accounts::Account;
use crate::server::authority::live_authority::{Authority, ChangedAuthority};
use crate::server::authority::spaces::{OpenSpaceCache, OpenSpaceFn, SpaceKey};
use crate::server::error::CommandError;
use crate::storage::{Space, StorageError};

/// Threads at once.
const MAX_THREADS: usize = 4;

#[derive(Debug, Default)]
pub(crate) struct SpaceOpener {
    state: Mutex<SpaceOpenerState>,
    /// A space was opened, or failed to open.
    finished: Notify,
}

#[derive(Debug, Default)]
struct SpaceOpenerState {
    queue: VecDeque<(SpaceKey, Option<Arc<Space>>)>,
    running: HashSet<SpaceKey>,
    /// Spaces that were opened, or why they could not be, until no account needs them.
    finished: HashMap<SpaceKey, Result<Arc<Space>, Arc<str>>>,
    threads: usize,
}

/// Accounts whose openings have ended.
#[derive(Debug, Default)]
pub(crate) struct FinishedOpenings {
    /// Accounts with all of their spaces open.
    pub(crate) opened: Vec<(ChangedAuthority, OpenSpaceCache)>,
    /// Accounts with a space that could not be opened, and why.
    pub(crate) failed: Vec<(Arc<Authority>, Arc<str>)>,
}

impl SpaceOpener {
    /// Opens the spaces of `requested` from now on, each with the space as it was open before.
    /// Requests of earlier calls that have not begun are dropped.
    ///
    /// # Errors
    /// [`CommandError::Storage`] if no thread can be started.
    pub(crate) fn request(
        self: &Arc<Self>,
        open: &OpenSpaceFn,
        requested: HashMap<SpaceKey, Option<Arc<Space>>>,
    ) -> Result<(), CommandError> {
        let mut state = self.state.lock();
        let state = &mut *state;
        state
            .finished
            .retain(|key, result| result.is_ok() && requested.contains_key(key));
        state.queue.clear();
        for (key, known) in requested {
            if !state.running.contains(&key) && !state.finished.contains_key(&key) {
                state.queue.push_back((key, known));
            }
        }
        let needed_threads = MAX_THREADS.min(state.running.len() + state.queue.len());
        while state.threads < needed_threads {
            let (opener, open) = (Arc::clone(self), Arc::clone(open));
            let thread = thread::Builder::new().name("haul-authority".into());
            match thread.spawn(move || opener.run_worker(&open)) {
                Ok(_) => state.threads += 1,
                Err(_) if state.threads > state.running.len() => break,
                Err(error) => return Err(cannot_spawn(error)),
            }
        }
        Ok(())
    }

    /// Waits for accounts of `waiting` with all spaces open or one that failed, and removes these
    /// from `waiting`.
    ///
    /// # Cancel safety
    /// Cancel safe: accounts are removed only when the future is ready.
    pub(crate) async fn wait_finished(
        &self,
        waiting: &mut Vec<ChangedAuthority>,
    ) -> FinishedOpenings {
        loop {
            let finished = self.finished.notified();
            let openings = self.take_finished(waiting);
            if !openings.opened.is_empty() || !openings.failed.is_empty() {
                return openings;
            }
            finished.await;
        }
    }

    /// The first space of `account` that is not open yet.
    pub(crate) fn first_unopened(&self, account: &Account) -> Option<SpaceKey> {
        let state = self.state.lock();
        SpaceKey::all_for_account(account).find(|key| !state.finished.contains_key(key))
    }

    fn take_finished(&self, waiting: &mut Vec<ChangedAuthority>) -> FinishedOpenings {
        let state = self.state.lock();
        let mut openings = FinishedOpenings::default();
        for (authority, current) in std::mem::take(waiting) {
            let results: Vec<_> = SpaceKey::all_for_account(&current.account)
                .map(|key| (state.finished.get(&key), key))
                .collect();
            let failure = results
                .iter()
                .find_map(|(result, _)| result.and_then(|result| result.as_ref().err()));
            if let Some(reason) = failure {
                openings.failed.push((authority, Arc::clone(reason)));
                continue;
            }
            let open = results.into_iter().map(|(result, key)| {
                let space = result.and_then(|result| result.as_ref().ok())?;
                Some((key, Arc::clone(space)))
            });
            match open.collect() {
                Some(open) => openings.opened.push(((authority, current), open)),
                None => waiting.push((authority, current)),
            }
        }
        openings
    }

    /// Opens queued spaces until the queue is empty.
    fn run_worker(&self, open: &OpenSpaceFn) {
        loop {
            let mut state = self.state.lock();
            let Some((key, known)) = state.queue.pop_front() else {
                state.threads -= 1;
                return;
            };
            state.running.insert(key.clone());
            drop(state);
            let result = match catch_unwind(AssertUnwindSafe(|| open(&key, known))) {
                Ok(opened) => opened.map_err(|error| format!("{key}: {error}").into()),
                Err(_) => Err(format!("{key}: a bug of the server").into()),
            };
            let mut state = self.state.lock();
            state.running.remove(&key);
            state.finished.insert(key, result);
            drop(state);
            self.finished.notify_one();
        }
    }
}

fn cannot_spawn(source: io::Error) -> CommandError {
    CommandError::Storage(StorageError::Io {
        doing: "start a thread to open",
        path: "the homes and folders".into(),
        source,
    })
}
