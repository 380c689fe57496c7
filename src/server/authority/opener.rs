//! Opens the homes and folders of accounts that have changed, apart from everything that users do.
//!
//! Each is opened once, for whoever may reach it. One that hangs holds up a thread, of which there are
//! [`MAX_THREADS`], and nothing else; once it is open after all, the next try has it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::Notify;

use crate::accounts::{Account, Grant};
use crate::server::authority::{Authority, Changed};
use crate::server::error::CommandError;
use crate::storage::{Space, StorageError, Store};

/// Threads at once.
const MAX_THREADS: usize = 4;

/// A home or a folder. Numbers and names never change, so the directory of that name is its own as
/// long as the account or folder is there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Home(i64, Arc<str>),
    Folder(i64, Arc<str>),
}

/// Spaces that are open.
pub(crate) type Places = HashMap<Place, Arc<Space>>;

impl Place {
    pub(crate) fn home(account: &Account) -> Self {
        Self::Home(account.id, account.name.as_str().into())
    }

    pub(crate) fn folder(grant: &Grant) -> Self {
        Self::Folder(grant.folder, grant.name.as_str().into())
    }

    /// All that `account` may reach.
    pub(crate) fn all_of(account: &Account) -> impl Iterator<Item = Self> {
        let folders = account.folders.iter().map(Self::folder);
        folders.chain([Self::home(account)])
    }

    /// May block on the disk. What is `known` is opened anew only if it is another directory now.
    fn open(&self, store: &Store, known: Option<Arc<Space>>) -> Result<Arc<Space>, StorageError> {
        if let Some(known) = known.filter(|known| store.is_in_place(known)) {
            return Ok(known);
        }
        match self {
            Self::Home(_, name) => store.open_home(name),
            Self::Folder(_, name) => store.open_folder(name),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Home(_, name) => write!(to, "the home of {name}"),
            Self::Folder(_, name) => write!(to, "the folder {name}"),
        }
    }
}

/// How a place is opened, of which it may be known what is open. May block.
pub(crate) type Open =
    Arc<dyn Fn(&Place, Option<Arc<Space>>) -> Result<Arc<Space>, StorageError> + Send + Sync>;

/// Opens what lies in `store`.
pub(crate) fn open_in(store: &Store) -> Open {
    let store = store.clone();
    Arc::new(move |place, known| place.open(&store, known))
}

/// Opens all that `account` may reach. May block on the disk.
pub(crate) fn open_all(store: &Store, account: &Account) -> Result<Places, StorageError> {
    let open = |place: Place| Ok((place.clone(), place.open(store, None)?));
    Place::all_of(account).map(open).collect()
}

#[derive(Debug, Default)]
pub(crate) struct Opener {
    state: Mutex<State>,
    /// Something was opened, or failed.
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<(Place, Option<Arc<Space>>)>,
    running: HashSet<Place>,
    /// What was opened, or why not, until nobody wants it any more.
    ended: HashMap<Place, Result<Arc<Space>, Arc<str>>>,
    threads: usize,
}

/// What has come of some.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    pub(crate) done: Vec<(Changed, Places)>,
    pub(crate) failed: Vec<(Arc<Authority>, Arc<str>)>,
}

impl Opener {
    /// From now on opens this and nothing else, but for what it is at.
    ///
    /// # Errors
    /// If there is no thread for it.
    pub(crate) fn want(
        self: &Arc<Self>,
        open: &Open,
        wanted: HashMap<Place, Option<Arc<Space>>>,
    ) -> Result<(), CommandError> {
        let mut state = self.lock();
        let state = &mut *state;
        let is_good =
            |place: &Place, ended: &mut Result<_, _>| ended.is_ok() && wanted.contains_key(place);
        state.ended.retain(is_good);
        state.queue.clear();
        for (place, known) in wanted {
            if !state.running.contains(&place) && !state.ended.contains_key(&place) {
                state.queue.push_back((place, known));
            }
        }
        let most = MAX_THREADS.min(state.running.len() + state.queue.len());
        while state.threads < most {
            let (opener, open) = (Arc::clone(self), Arc::clone(open));
            let thread = thread::Builder::new().name("haul-authority".into());
            match thread.spawn(move || opener.work(&open)) {
                Ok(_) => state.threads += 1,
                Err(_) if state.threads > state.running.len() => break,
                Err(error) => return Err(cannot_spawn(error)),
            }
        }
        Ok(())
    }

    /// Takes those out of `waiting` of whom all is open or something has failed, once there are any.
    pub(crate) async fn opened(&self, waiting: &mut Vec<Changed>) -> Opened {
        loop {
            let news = self.news.notified();
            let opened = self.take(waiting);
            if !opened.done.is_empty() || !opened.failed.is_empty() {
                return opened;
            }
            news.await;
        }
    }

    /// What of `account` is not open yet.
    pub(crate) fn late(&self, account: &Account) -> String {
        let state = self.lock();
        let mut late = Place::all_of(account).filter(|place| !state.ended.contains_key(place));
        late.next()
            .map_or_else(String::new, |late| late.to_string())
    }

    fn take(&self, waiting: &mut Vec<Changed>) -> Opened {
        let state = self.lock();
        let mut opened = Opened::default();
        for (authority, current) in std::mem::take(waiting) {
            let ended: Vec<_> = Place::all_of(&current.account)
                .map(|place| (state.ended.get(&place), place))
                .collect();
            let failed = ended
                .iter()
                .find_map(|(ended, _)| ended.and_then(|one| one.as_ref().err()));
            if let Some(why) = failed {
                opened.failed.push((authority, Arc::clone(why)));
                continue;
            }
            let open = ended.into_iter().map(|(ended, place)| {
                let space = ended.and_then(|one| one.as_ref().ok())?;
                Some((place, Arc::clone(space)))
            });
            match open.collect() {
                Some(open) => opened.done.push(((authority, current), open)),
                None => waiting.push((authority, current)),
            }
        }
        opened
    }

    /// Until there is nothing to be opened.
    fn work(&self, open: &Open) {
        loop {
            let mut state = self.lock();
            let Some((place, known)) = state.queue.pop_front() else {
                state.threads -= 1;
                return;
            };
            state.running.insert(place.clone());
            drop(state);
            let ended = catch_unwind(AssertUnwindSafe(|| open(&place, known)));
            let ended = match ended {
                Ok(opened) => opened.map_err(|error| format!("{place}: {error}").into()),
                Err(_) => Err(format!("{place}: a bug of the server").into()),
            };
            let mut state = self.lock();
            state.running.remove(&place);
            state.ended.insert(place, ended);
            drop(state);
            self.news.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cannot_spawn(source: io::Error) -> CommandError {
    CommandError::Storage(StorageError::Io {
        doing: "start a thread to open",
        path: "the homes and folders".into(),
        source,
    })
}
