//! Authority: what each account that is in use may do now.
//!
//! There is one [`Authority`] for each account and credential that sessions were opened by, shared
//! by all of them and by everything that works for them. One task, the keeper, hears of changes to
//! the accounts, reads what all of them may do at one moment, and changes each in place; no session
//! takes part in that or is waited for. The spaces of who may reach other ones than before are
//! opened on a thread of the keeper's own.
//!
//! Whoever could not be read again within [`PATIENCE`] is suspended: what they ask for is refused as
//! a passing fault until it is known again what they may do. Whose account or token has ended is
//! closed for good, and their sessions end.
//!
//! Identity is a number. A name leads to directories only as long as the account and the folders of
//! these numbers have it: they are read again once the directories are open.

use std::collections::HashMap;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use tokio::sync::{self, Notify, oneshot, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use super::disk::Disks;
use super::{CommandError, Shared};
use crate::accounts::{Account, AccountsError, Credential, Current};
use crate::messages::{Attendance, Party};
use crate::storage::{Mount, Space, StorageError, Store, View};

/// How long reading again may take before those who are not read are suspended.
const PATIENCE: Duration = Duration::from_secs(1);

/// Until it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long the keeper sleeps at most while a token is going to expire: the clock may be set.
const EXPIRY_CHECK: Duration = Duration::from_secs(5);

/// How often an account may change while its spaces are opened.
const MAX_ATTEMPTS: usize = 8;

/// What one account may do by one credential.
#[derive(Debug)]
pub(super) struct Authority {
    /// The account's number.
    pub(super) id: i64,
    /// The user, as messages know them.
    pub(super) party: Party,
    token: Option<i64>,
    view: View,
    state: watch::Sender<State>,
    /// Its sessions, as those that watch.
    attendances: Mutex<Vec<Weak<Attendance>>>,
    /// Cancelled once it is good for nothing any more.
    pub(super) closed: CancellationToken,
}

/// What is known of an authority.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The reading that it comes from. A later one is not overruled by an earlier one.
    reading: u64,
    /// Absent while it is suspended.
    current: Option<Current>,
}

impl Authority {
    fn new(store: &Store, credential: Credential, name: &str) -> Self {
        Self {
            id: credential.account,
            party: Party {
                id: credential.account,
                name: name.into(),
            },
            token: credential.token,
            view: View::suspended(store),
            state: watch::Sender::default(),
            attendances: Mutex::default(),
            closed: CancellationToken::new(),
        }
    }

    /// The account as it is now.
    ///
    /// # Errors
    /// [`CommandError::Suspended`], [`CommandError::AccountClosed`].
    pub(super) fn account(&self) -> Result<Arc<Account>, CommandError> {
        if self.closed.is_cancelled() {
            return Err(CommandError::AccountClosed);
        }
        let state = self.state.borrow();
        let current = state.current.as_ref().ok_or(CommandError::Suspended)?;
        Ok(Arc::clone(&current.account))
    }

    /// The user's name.
    pub(super) fn name(&self) -> &str {
        &self.party.name
    }

    /// What the user sees, now and later.
    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// Tells of each change.
    pub(super) fn changes(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Resolves once the user has not, or is not known to have, the admin right, and says why.
    pub(super) async fn not_admin(&self, cmd: &'static str) -> CommandError {
        let mut changes = self.changes();
        loop {
            changes.mark_unchanged();
            if let Err(error) = self.check_admin(cmd) {
                return error;
            }
            tokio::select! {
                // The sender is in here.
                _ = changes.changed() => {}
                () = self.closed.cancelled() => {}
            }
        }
    }

    /// Makes sure that the user has the admin right.
    ///
    /// # Errors
    /// [`CommandError::AdminsOnly`], and as [`Self::account`].
    pub(super) fn check_admin(&self, cmd: &'static str) -> Result<(), CommandError> {
        if self.account()?.admin {
            return Ok(());
        }
        Err(CommandError::AdminsOnly(cmd))
    }

    /// From now on the watches of a session are kept to what the user may list.
    pub(super) fn attend(&self, attendance: &Arc<Attendance>) {
        let mut attendances = self.attendances();
        attendances.retain(|one| one.strong_count() > 0);
        attendances.push(Arc::downgrade(attendance));
    }

    /// What lies in other spaces is not told to its sessions any more.
    pub(super) fn restrict(&self, spaces: &[Arc<str>]) {
        for attendance in self.attendances().iter().filter_map(Weak::upgrade) {
            // Without a sequencer nothing is told.
            let _ = attendance.restrict(spaces.to_vec());
        }
    }

    fn attendances(&self) -> MutexGuard<'_, Vec<Weak<Attendance>>> {
        self.attendances
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn credential(&self) -> Credential {
        Credential {
            account: self.id,
            token: self.token,
        }
    }

    /// Whether it is in force and allows what `account` may do.
    fn allows(&self, account: &Account) -> bool {
        let state = self.state.borrow();
        let current = state.current.as_ref();
        current.is_some_and(|current| *current.account == *account)
    }

    fn reading(&self) -> u64 {
        self.state.borrow().reading
    }

    fn expires(&self) -> Option<Timestamp> {
        self.state.borrow().current.as_ref()?.expires
    }

    /// It allows what it allowed before; only when it ends may have changed.
    fn confirm(&self, reading: u64, current: &Current) {
        self.state.send_if_modified(|state| {
            if reading > state.reading {
                state.reading = reading;
                if let Some(known) = &mut state.current {
                    known.expires = current.expires;
                }
            }
            false
        });
    }

    fn apply(&self, reading: u64, current: Current, spaces: &Spaces) {
        self.state.send_if_modified(|state| {
            let is_later = reading > state.reading;
            if is_later {
                self.restrict(&spaces.listed());
                self.view.set(spaces.home.clone(), spaces.mounts.clone());
                state.reading = reading;
                state.current = Some(current);
            }
            is_later
        });
    }

    fn suspend(&self, reading: u64) {
        self.state.send_if_modified(|state| {
            let is_later = reading > state.reading;
            if is_later {
                self.restrict(&[]);
                self.view.suspend();
                state.reading = reading;
                state.current = None;
            }
            is_later
        });
    }

    fn close(&self) {
        self.restrict(&[]);
        self.view.revoke();
        self.closed.cancel();
    }
}

/// The spaces of an account, open.
#[derive(Debug)]
struct Spaces {
    home: Arc<Space>,
    mounts: Vec<Mount>,
}

impl Spaces {
    /// May block on the disk.
    fn open(store: &Store, account: &Account) -> Result<Self, StorageError> {
        let home = store.open_home(account.name.as_str())?;
        let mounts = account.folders.iter().map(|grant| {
            Ok(Mount {
                name: grant.name.to_string(),
                space: store.open_folder(grant.name.as_str())?,
                rights: grant.rights,
            })
        });
        Ok(Self {
            home,
            mounts: mounts.collect::<Result<_, StorageError>>()?,
        })
    }

    /// Those that the user may list, as changes name them.
    fn listed(&self) -> Vec<Arc<str>> {
        let mounts = self.mounts.iter().filter(|mount| mount.rights.list);
        let spaces = mounts.map(|mount| &mount.space).chain([&self.home]);
        spaces.map(|space| Arc::clone(space.key())).collect()
    }

    /// Nothing else sets limits, so what an operator has set last holds.
    fn set_limits(&self, reading: u64, account: &Account) {
        self.home.set_limits(account.limits, reading);
        for (mount, grant) in self.mounts.iter().zip(&account.folders) {
            mount.space.set_limits(grant.limits, reading);
        }
    }
}

/// What was opened, or why not, by the number of the account.
type Opened = HashMap<i64, Result<Spaces, StorageError>>;

/// To be run where blocking is allowed.
fn open_all(store: &Store, accounts: &[Arc<Account>]) -> Opened {
    let mut opened = Opened::new();
    for account in accounts {
        let open = || Spaces::open(store, account);
        opened.entry(account.id).or_insert_with(open);
    }
    opened
}

/// Where spaces are opened.
#[derive(Debug, Clone, Copy)]
enum Threads<'a> {
    /// Among those of the server, for a user who logs in.
    OfServer(&'a Disks),
    /// Apart from everything that users do.
    OfKeeper,
}

/// All authorities that are in use.
#[derive(Debug, Default)]
pub(super) struct Authorities {
    table: Mutex<Table>,
    /// The number of the last reading of the accounts that was begun.
    readings: AtomicU64,
    /// Those who may not be known to the keeper, or how long it may sleep, have changed.
    wake: Arc<Notify>,
    keeper: OnceLock<AbortOnDropHandle<()>>,
    /// Held while all of them are read again.
    refreshing: sync::Mutex<()>,
    /// The keeper's thread is busy.
    opening: Arc<AtomicBool>,
    /// Some are suspended, or could not be read the last time.
    failing: AtomicBool,
    /// None could be read the last time.
    unreadable: AtomicBool,
}

#[derive(Debug, Default)]
struct Table {
    by_credential: HashMap<Credential, Weak<Authority>>,
    by_name: HashMap<Arc<str>, Weak<Authority>>,
}

impl Authorities {
    /// The authority of a credential, read just now. It is kept up to date as long as anyone has it.
    ///
    /// # Errors
    /// [`AccountsError::LoginFailed`] if the credential is good for nothing any more, or what the
    /// database or the disk says.
    pub(super) async fn enter(
        &self,
        shared: &Arc<Shared>,
        credential: Credential,
        name: &str,
    ) -> Result<Arc<Authority>, CommandError> {
        self.keeper.get_or_init(|| {
            let keeper = tokio::spawn(supervise(Arc::downgrade(shared), Arc::clone(&self.wake)));
            AbortOnDropHandle::new(keeper)
        });
        // In the table before it is read: the keeper misses no change of it.
        let authority = self.get_or_insert(shared, credential, name);
        let own = [Arc::clone(&authority)];
        let reading = self.begin_reading();
        let changed = self.compare(shared, &own, reading).await?;
        let threads = Threads::OfServer(&shared.disks);
        self.change(shared, changed, reading, threads).await?;
        if authority.closed.is_cancelled() {
            return Err(AccountsError::LoginFailed.into());
        }
        if authority.expires().is_some() {
            self.wake.notify_one();
        }
        Ok(authority)
    }

    /// The user of that name who is connected.
    pub(super) fn connected(&self, name: &str) -> Option<Party> {
        let found = self.lock().by_name.get(name).and_then(Weak::upgrade)?;
        found.account().is_ok().then(|| found.party.clone())
    }

    /// Whether the accounts could be read the last time.
    pub(super) fn are_readable(&self) -> bool {
        !self.unreadable.load(Ordering::Relaxed)
    }

    /// Reads again what everybody may do. Resolves once it holds.
    ///
    /// # Errors
    /// What the database or the disk says. Those who could not be read are suspended then.
    pub(super) async fn refresh(&self, shared: &Shared) -> Result<(), CommandError> {
        // One after the other: they share a thread.
        let _refreshing = self.refreshing.lock().await;
        let reading = self.begin_reading();
        let live = self.live();
        let is_read = AtomicBool::new(false);
        let updating = async {
            let changed = self.compare(shared, &live, reading).await?;
            is_read.store(true, Ordering::Relaxed);
            let threads = Threads::OfKeeper;
            self.change(shared, changed, reading, threads).await
        };
        let updated = timeout(PATIENCE, updating).await;
        let mut outcome = updated.unwrap_or(Err(CommandError::Suspended));
        self.unreadable
            .store(!is_read.load(Ordering::Relaxed), Ordering::Relaxed);
        for authority in live {
            if authority.reading() < reading && !authority.closed.is_cancelled() {
                authority.suspend(reading);
                outcome = outcome.and(Err(CommandError::Suspended));
            }
        }
        self.tell(outcome.as_ref().err());
        outcome
    }

    /// Changes what is not so any more, once the spaces are open.
    async fn change(
        &self,
        shared: &Shared,
        mut changed: Vec<(Arc<Authority>, Current)>,
        reading: u64,
        threads: Threads<'_>,
    ) -> Result<(), CommandError> {
        let mut failed = Ok(());
        for _ in 0..MAX_ATTEMPTS {
            if changed.is_empty() {
                return failed;
            }
            let accounts = changed.iter().map(|(_, current)| current.account.clone());
            let opened = self
                .open(&shared.store, accounts.collect(), threads)
                .await?;
            let mut spaces = HashMap::new();
            for (id, outcome) in opened {
                match outcome {
                    Ok(open) => {
                        spaces.insert(id, open);
                    }
                    Err(error) => failed = Err(error.into()),
                }
            }
            changed.retain(|(authority, _)| spaces.contains_key(&authority.id));
            // A name may have come to mean another account, or another folder, before it was opened.
            let read: Vec<_> = changed.iter().map(|(one, _)| Arc::clone(one)).collect();
            let again = self.compare(shared, &read, reading).await?;
            let mut rest = Vec::new();
            for (authority, current) in again {
                let before = changed.iter().find(|(one, _)| Arc::ptr_eq(one, &authority));
                let is_same = before.is_some_and(|(_, before)| before.account == current.account);
                match spaces.get(&authority.id) {
                    Some(spaces) if is_same => {
                        spaces.set_limits(reading, &current.account);
                        authority.apply(reading, current, spaces);
                    }
                    _ => rest.push((authority, current)),
                }
            }
            changed = rest;
        }
        Err(CommandError::Suspended)
    }

    /// Closes those that are good for nothing any more, and returns those that allow something else
    /// than they should.
    async fn compare(
        &self,
        shared: &Shared,
        live: &[Arc<Authority>],
        reading: u64,
    ) -> Result<Vec<(Arc<Authority>, Current)>, CommandError> {
        let credentials: Vec<_> = live.iter().map(|one| one.credential()).collect();
        let current = shared.accounts.current(&credentials).await?;
        let mut changed = Vec::new();
        for (authority, current) in live.iter().zip(current) {
            match current {
                None => self.close(authority),
                Some(current) if authority.allows(&current.account) => {
                    authority.confirm(reading, &current);
                }
                Some(current) => changed.push((Arc::clone(authority), current)),
            }
        }
        Ok(changed)
    }

    async fn open(
        &self,
        store: &Store,
        accounts: Vec<Arc<Account>>,
        threads: Threads<'_>,
    ) -> Result<Opened, CommandError> {
        match threads {
            Threads::OfServer(disks) => {
                let store = store.clone();
                disks
                    .run_for_server(move || Ok(open_all(&store, &accounts)))
                    .await
            }
            Threads::OfKeeper => self.open_apart(store, accounts).await,
        }
    }

    /// Opens spaces on a thread that nothing else waits for, one at a time.
    async fn open_apart(
        &self,
        store: &Store,
        accounts: Vec<Arc<Account>>,
    ) -> Result<Opened, CommandError> {
        let is_busy = self.opening.swap(true, Ordering::AcqRel);
        if is_busy {
            // The disk has not answered since the last time.
            return Err(CommandError::Suspended);
        }
        let busy = Busy(Arc::clone(&self.opening));
        let (sender, opened) = oneshot::channel();
        let store = store.clone();
        let work = move || {
            let opened = open_all(&store, &accounts);
            drop(busy);
            // Nobody waits for it any more if that took too long.
            let _ = sender.send(opened);
        };
        let thread = thread::Builder::new().name("haul-authority".into());
        thread.spawn(work).map_err(cannot_spawn)?;
        opened.await.map_err(|_| CommandError::Panicked)
    }

    fn begin_reading(&self) -> u64 {
        self.readings.fetch_add(1, Ordering::AcqRel) + 1
    }

    fn get_or_insert(&self, shared: &Shared, credential: Credential, name: &str) -> Arc<Authority> {
        let mut table = self.lock();
        table.by_credential.retain(|_, one| one.strong_count() > 0);
        table.by_name.retain(|_, one| one.strong_count() > 0);
        let known = table.by_credential.get(&credential).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| !known.closed.is_cancelled()) {
            return known;
        }
        let new = Arc::new(Authority::new(&shared.store, credential, name));
        let name = Arc::clone(&new.party.name);
        table.by_credential.insert(credential, Arc::downgrade(&new));
        table.by_name.insert(name, Arc::downgrade(&new));
        new
    }

    fn close(&self, authority: &Arc<Authority>) {
        authority.close();
        let mut table = self.lock();
        let is_it = |one: &mut Weak<Authority>| one.as_ptr() == Arc::as_ptr(authority);
        table.by_credential.retain(|_, one| !is_it(one));
        table.by_name.retain(|_, one| !is_it(one));
    }

    fn live(&self) -> Vec<Arc<Authority>> {
        let table = self.lock();
        table
            .by_credential
            .values()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// Closes those whose token has expired, and says how long the others last at least.
    fn expire(&self, now: Timestamp) -> Option<Duration> {
        let mut next: Option<Duration> = None;
        for authority in self.live() {
            let Some(expires) = authority.expires() else {
                continue;
            };
            match Duration::try_from(expires.duration_since(now)) {
                Ok(left) if !left.is_zero() => {
                    next = Some(next.map_or(left, |next| next.min(left)));
                }
                _ => self.close(&authority),
            }
        }
        next
    }

    /// Says in the log when that changes.
    fn tell(&self, failure: Option<&CommandError>) {
        let before = self.failing.swap(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(error) if !before => warn!(
                name: "access_suspended",
                %error,
                "cannot tell what users may do; what they ask for is refused until that is known"
            ),
            None if before => info!(
                name: "access_restored",
                "it is known again what users may do"
            ),
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keeper's thread works until this is dropped.
struct Busy(Arc<AtomicBool>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn cannot_spawn(source: io::Error) -> CommandError {
    CommandError::Storage(StorageError::Io {
        doing: "start a thread to open",
        path: "the homes and folders".into(),
        source,
    })
}

/// Runs the keeper until the server is gone. One that panics is begun anew, and meanwhile nobody may
/// do anything.
async fn supervise(server: Weak<Shared>, wake: Arc<Notify>) {
    while AssertUnwindSafe(keep(server.clone(), Arc::clone(&wake)))
        .catch_unwind()
        .await
        .is_err()
    {
        error!(name: "keeper_panicked", "what users may do was not kept up to date; beginning anew");
        if let Some(shared) = server.upgrade() {
            let authorities = &shared.authorities;
            let reading = authorities.begin_reading();
            for authority in authorities.live() {
                authority.suspend(reading);
            }
            authorities.failing.store(true, Ordering::Relaxed);
        }
        sleep(RETRY).await;
    }
}

async fn keep(server: Weak<Shared>, wake: Arc<Notify>) {
    let Some(mut changes) = server.upgrade().map(|shared| shared.accounts.changes()) else {
        return;
    };
    loop {
        let Some(shared) = server.upgrade() else {
            return;
        };
        let authorities = &shared.authorities;
        let expiry = authorities.expire(Timestamp::now());
        let is_failing = authorities.failing.load(Ordering::Relaxed);
        drop(shared);
        let expires = expiry.map(|expiry| expiry.min(EXPIRY_CHECK));
        tokio::select! {
            noticed = changes.changed() => if noticed.is_err() {
                return;
            },
            () = sleep(RETRY), if is_failing => {}
            () = sleep(expires.unwrap_or_default()), if expires.is_some() => continue,
            () = wake.notified() => continue,
        }
        if let Some(shared) = server.upgrade() {
            // It has been told to the log, and is tried again.
            let _ = shared.authorities.refresh(&shared).await;
        }
    }
}
