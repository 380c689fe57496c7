//! Authority: what each account that is in use may do now.
//!
//! There is one [`Authority`] for each account and credential that sessions were opened by, shared
//! by all of them and by everything that works for them. One task, the keeper, hears of changes to
//! the accounts, reads what all of them may do at one moment, and changes each in place; no session
//! takes part in that or is waited for. The spaces of who may reach other ones than before are
//! opened on threads of the keeper's own, and each account changes once its own are open. What is
//! opened too late is kept for the next try.
//!
//! Whoever could not be read again within [`PATIENCE`], or whose spaces could not be opened within as
//! long, is suspended: what they ask for is refused as a passing fault until it is known again what
//! they may do. They keep their spaces meanwhile, and what these count. Whose account or token has
//! ended is closed for good, and their sessions end.
//!
//! Identity is a number. A name leads to directories only as long as the account and the folders of
//! these numbers have it: they are read again once the directories are open.

pub(crate) mod opener;

use std::collections::HashMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use tokio::sync::{self, Notify, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use crate::accounts::{Account, AccountsError, Credential, CredentialStatus};
use crate::clock::timeout_while_running;
use crate::messages::{Subscription, UserRef};
use crate::server::authority::opener::{Opener, Place, Places};
use crate::server::error::CommandError;
use crate::server::state::ServerState;
use crate::storage::{Mount, Space, Store, View};

/// How long reading again may take before those who are not read are suspended, and how long their
/// spaces may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Until it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long the keeper sleeps at most while a token is going to expire: the clock may be set.
const EXPIRY_CHECK: Duration = Duration::from_secs(5);

/// How often an account may change while its spaces are opened.
const MAX_ATTEMPTS: usize = 8;

/// What one account may do by one credential.
#[derive(Debug)]
pub(crate) struct Authority {
    /// The account's number.
    pub(crate) id: i64,
    /// The user, as messages know them.
    pub(crate) party: UserRef,
    token: Option<i64>,
    view: View,
    state: watch::Sender<State>,
    /// Its sessions, as those that watch.
    attendances: Mutex<Vec<Weak<Subscription>>>,
    /// Cancelled once it is good for nothing any more.
    pub(crate) closed: CancellationToken,
}

/// What is known of an authority.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The reading that it comes from. A later one is not overruled by an earlier one.
    reading: u64,
    /// Absent while it is suspended.
    current: Option<CredentialStatus>,
    /// The spaces that it has, or had when it was suspended: as long as they are open their counts hold.
    open: Places,
    /// Why it is suspended.
    cause: Cause,
}

/// Why nobody knows what a user may do.
#[derive(Debug, Clone, Default)]
pub enum Cause {
    /// The accounts cannot be read.
    #[default]
    Unread,
    /// A home or a folder cannot be opened, and why.
    Unopened(Arc<str>),
}

impl fmt::Display for Cause {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unread => to.write_str("the server cannot read the accounts"),
            Self::Unopened(why) => write!(to, "the server cannot open a home or folder ({why})"),
        }
    }
}

impl Authority {
    fn new(store: &Store, credential: Credential, name: &str) -> Self {
        Self {
            id: credential.account,
            party: UserRef {
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
    pub(crate) fn account(&self) -> Result<Arc<Account>, CommandError> {
        if self.closed.is_cancelled() {
            return Err(CommandError::AccountClosed);
        }
        let state = self.state.borrow();
        let Some(current) = &state.current else {
            return Err(CommandError::Suspended(state.cause.clone()));
        };
        Ok(Arc::clone(&current.account))
    }

    /// The user's name.
    pub(crate) fn name(&self) -> &str {
        &self.party.name
    }

    /// What the user sees, now and later.
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// Tells of each change.
    pub(crate) fn changes(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Resolves once the user has not, or is not known to have, the admin right, and says why.
    pub(crate) async fn not_admin(&self, cmd: &'static str) -> CommandError {
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
    pub(crate) fn check_admin(&self, cmd: &'static str) -> Result<(), CommandError> {
        if self.account()?.admin {
            return Ok(());
        }
        Err(CommandError::AdminsOnly(cmd))
    }

    /// From now on the watches of a session are kept to what the user may list.
    pub(crate) fn attend(&self, attendance: &Arc<Subscription>) {
        let mut attendances = self.attendances();
        attendances.retain(|one| one.strong_count() > 0);
        attendances.push(Arc::downgrade(attendance));
    }

    /// What lies in other spaces is not told to its sessions any more.
    pub(crate) fn restrict(&self, spaces: &[Arc<str>]) {
        for attendance in self.attendances().iter().filter_map(Weak::upgrade) {
            // Without a sequencer nothing is told.
            let _ = attendance.restrict(spaces.to_vec());
        }
    }

    fn attendances(&self) -> MutexGuard<'_, Vec<Weak<Subscription>>> {
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
    fn confirm(&self, reading: u64, current: &CredentialStatus) {
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

    fn apply(&self, reading: u64, current: CredentialStatus, open: Places, spaces: &Spaces) {
        self.state.send_if_modified(|state| {
            let is_later = reading > state.reading;
            if is_later {
                self.restrict(&spaces.listed());
                self.view.set(spaces.home.clone(), spaces.mounts.clone());
                state.reading = reading;
                state.current = Some(current);
                state.open = open;
            }
            is_later
        });
    }

    /// The spaces that it has, or had last.
    fn open(&self) -> Places {
        self.state.borrow().open.clone()
    }

    fn suspend(&self, reading: u64, cause: Cause) {
        self.state.send_if_modified(|state| {
            let is_later = reading > state.reading;
            if is_later {
                self.restrict(&[]);
                self.view.suspend();
                state.reading = reading;
                state.current = None;
                state.cause = cause;
            }
            is_later
        });
    }

    fn close(&self) {
        self.restrict(&[]);
        self.view.revoke();
        self.closed.cancel();
        self.state.send_if_modified(|state| {
            state.open.clear();
            false
        });
    }
}

/// The spaces of an account, open.
#[derive(Debug)]
struct Spaces {
    home: Arc<Space>,
    mounts: Vec<Mount>,
}

impl Spaces {
    /// Those of `account`, of those that are open; `None` if one is missing.
    fn of(account: &Account, open: &Places) -> Option<Self> {
        let home = Arc::clone(open.get(&Place::home(account))?);
        let mounts = account.folders.iter().map(|grant| {
            Some(Mount {
                name: grant.name.to_string(),
                space: Arc::clone(open.get(&Place::folder(grant))?),
                rights: grant.rights,
            })
        });
        let mounts = mounts.collect::<Option<_>>()?;
        Some(Self { home, mounts })
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

/// An authority that allows something else than it should, and what it should allow.
type Changed = (Arc<Authority>, CredentialStatus);

/// All authorities that are in use.
#[derive(Debug, Default)]
pub(crate) struct Authorities {
    table: Mutex<Table>,
    /// The number of the last reading of the accounts that was begun.
    readings: AtomicU64,
    /// Those who may not be known to the keeper, or how long it may sleep, have changed.
    wake: Arc<Notify>,
    keeper: OnceLock<AbortOnDropHandle<()>>,
    /// Held while all of them are read again.
    refreshing: sync::Mutex<()>,
    opener: Arc<Opener>,
    /// Some are suspended, or could not be read the last time.
    failing: AtomicBool,
    /// None could be read the last time.
    unreadable: AtomicBool,
}

#[derive(Debug, Default)]
struct Table {
    by_credential: HashMap<Credential, Weak<Authority>>,
    /// A user may have several, by different credentials.
    by_name: HashMap<Arc<str>, Vec<Weak<Authority>>>,
}

impl Table {
    fn forget_names(&mut self, is_gone: impl Fn(&Weak<Authority>) -> bool) {
        self.by_name.retain(|_, all| {
            all.retain(|one| !is_gone(one));
            !all.is_empty()
        });
    }
}

impl Authorities {
    /// The authority of a credential, read just now. It is kept up to date as long as anyone has it.
    ///
    /// # Errors
    /// [`AccountsError::LoginFailed`] if the credential is good for nothing any more, or what the
    /// database or the disk says.
    pub(crate) async fn enter(
        &self,
        shared: &Arc<ServerState>,
        credential: Credential,
        name: &str,
    ) -> Result<Arc<Authority>, CommandError> {
        self.keeper.get_or_init(|| {
            // It hears of what changes from now on, whenever it is begun.
            let changes = shared.accounts.changes();
            let server = Arc::downgrade(shared);
            let keeper = tokio::spawn(supervise(server, changes, Arc::clone(&self.wake)));
            AbortOnDropHandle::new(keeper)
        });
        // In the table before it is read: the keeper misses no change of it.
        let authority = self.get_or_insert(&shared.store, credential, name);
        let own = [Arc::clone(&authority)];
        let reading = self.begin_reading();
        let changed = self.compare(shared, &own, reading).await;
        if let Err(error) = &changed {
            // The keeper finds out when that ends.
            self.unreadable.store(true, Ordering::Relaxed);
            self.tell(Some(error));
            self.wake.notify_one();
        }
        self.change(shared, changed?, reading).await?;
        if authority.closed.is_cancelled() {
            return Err(AccountsError::LoginFailed.into());
        }
        if authority.expires().is_some() {
            self.wake.notify_one();
        }
        Ok(authority)
    }

    /// The user of that name who is connected.
    pub(crate) fn connected(&self, name: &str) -> Option<UserRef> {
        let table = self.lock();
        let mut live = table.by_name.get(name)?.iter().filter_map(Weak::upgrade);
        let found = live.find(|one| one.account().is_ok())?;
        Some(found.party.clone())
    }

    /// Whether the accounts could be read the last time.
    pub(crate) fn are_readable(&self) -> bool {
        !self.unreadable.load(Ordering::Relaxed)
    }

    /// Reads again what everybody may do. Resolves once it holds.
    ///
    /// # Errors
    /// What the database or the disk says. Those who could not be read are suspended then.
    pub(crate) async fn refresh(&self, shared: &ServerState) -> Result<(), CommandError> {
        // One after the other: an older reading must not suspend whom a newer one has read.
        let _refreshing = self.refreshing.lock().await;
        let reading = self.begin_reading();
        let live = self.live();
        let is_read = AtomicBool::new(false);
        let mut outcome = self.update(shared, &live, reading, &is_read).await;
        self.unreadable
            .store(!is_read.load(Ordering::Relaxed), Ordering::Relaxed);
        for authority in live {
            if authority.reading() < reading && !authority.closed.is_cancelled() {
                authority.suspend(reading, Cause::Unread);
                outcome = outcome.and(Err(CommandError::Suspended(Cause::Unread)));
            }
        }
        self.tell(outcome.as_ref().err());
        outcome
    }

    /// Changes each of `live` once its own spaces are open, and suspends those whose spaces are not in
    /// time.
    async fn update(
        &self,
        shared: &ServerState,
        live: &[Arc<Authority>],
        reading: u64,
        is_read: &AtomicBool,
    ) -> Result<(), CommandError> {
        let mut waiting = self.compare_in_time(shared, live, reading).await?;
        is_read.store(true, Ordering::Relaxed);
        let open = opener::open_in(&shared.store);
        let mut outcome = Ok(());
        let mut patience = PATIENCE;
        loop {
            self.opener.want(&open, wanted(&waiting))?;
            if waiting.is_empty() {
                return outcome;
            }
            // Only what opening takes counts.
            let begun = Instant::now();
            let opened = timeout_while_running(patience, self.opener.opened(&mut waiting)).await;
            patience = patience.saturating_sub(begun.elapsed());
            let is_late = opened.is_none();
            let opened = opened.unwrap_or_default();
            let suspend = |authority: &Authority, why: Arc<str>| {
                let cause = Cause::Unopened(why);
                authority.suspend(reading, cause.clone());
                Err(CommandError::Suspended(cause))
            };
            for (authority, why) in &opened.failed {
                outcome = outcome.and(suspend(authority, Arc::clone(why)));
            }
            if is_late {
                for (authority, current) in &waiting {
                    let late = self.opener.late(&current.account);
                    let why = format!("the disk does not answer for {late}").into();
                    outcome = outcome.and(suspend(authority, why));
                }
                return outcome;
            }
            let read: Vec<_> = opened
                .done
                .iter()
                .map(|((one, _), _)| one.clone())
                .collect();
            // A name may have come to mean another account, or another folder, before it was opened.
            let again = self.compare_in_time(shared, &read, reading).await?;
            waiting.extend(apply_all(again, &opened.done, reading));
        }
    }

    /// Changes who logs in, on the threads of the server.
    async fn change(
        &self,
        shared: &ServerState,
        mut changed: Vec<Changed>,
        reading: u64,
    ) -> Result<(), CommandError> {
        for _ in 0..MAX_ATTEMPTS {
            let mut opened = Vec::new();
            for (authority, current) in changed {
                let (store, account) = (shared.store.clone(), Arc::clone(&current.account));
                let open = move || opener::open_all(&store, &account);
                let places = shared.disks.run_for_server(open).await?;
                opened.push(((authority, current), places));
            }
            let read: Vec<_> = opened.iter().map(|((one, _), _)| one.clone()).collect();
            if read.is_empty() {
                return Ok(());
            }
            // A name may have come to mean another account, or another folder, before it was opened.
            let again = self.compare(shared, &read, reading).await?;
            changed = apply_all(again, &opened, reading);
        }
        Err(CommandError::Suspended(Cause::Unread))
    }

    /// As [`Self::compare`], if the accounts can be read in time.
    async fn compare_in_time(
        &self,
        shared: &ServerState,
        live: &[Arc<Authority>],
        reading: u64,
    ) -> Result<Vec<Changed>, CommandError> {
        let comparing = self.compare(shared, live, reading);
        let compared = timeout_while_running(PATIENCE, comparing).await;
        compared.unwrap_or(Err(CommandError::Suspended(Cause::Unread)))
    }

    /// Closes those that are good for nothing any more, and returns those that allow something else
    /// than they should.
    async fn compare(
        &self,
        shared: &ServerState,
        live: &[Arc<Authority>],
        reading: u64,
    ) -> Result<Vec<Changed>, CommandError> {
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

    fn begin_reading(&self) -> u64 {
        self.readings.fetch_add(1, Ordering::AcqRel) + 1
    }

    fn get_or_insert(&self, store: &Store, credential: Credential, name: &str) -> Arc<Authority> {
        let mut table = self.lock();
        table.by_credential.retain(|_, one| one.strong_count() > 0);
        table.forget_names(|one| one.strong_count() == 0);
        let known = table.by_credential.get(&credential).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| !known.closed.is_cancelled()) {
            return known;
        }
        let new = Arc::new(Authority::new(store, credential, name));
        let name = Arc::clone(&new.party.name);
        table.by_credential.insert(credential, Arc::downgrade(&new));
        let of_name = table.by_name.entry(name).or_default();
        of_name.push(Arc::downgrade(&new));
        new
    }

    fn close(&self, authority: &Arc<Authority>) {
        authority.close();
        let mut table = self.lock();
        let is_it = |one: &Weak<Authority>| one.as_ptr() == Arc::as_ptr(authority);
        table.by_credential.retain(|_, one| !is_it(one));
        table.forget_names(is_it);
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

/// What has to be open for those who have changed, with what they have open of it.
fn wanted(changed: &[Changed]) -> HashMap<Place, Option<Arc<Space>>> {
    let mut wanted = HashMap::new();
    for (authority, current) in changed {
        let open = authority.open();
        for place in Place::all_of(&current.account) {
            let known = open.get(&place).cloned();
            wanted.entry(place).or_insert(known);
        }
    }
    wanted
}

/// Changes those whose account is still the one that was opened for, and returns the others.
fn apply_all(again: Vec<Changed>, opened: &[(Changed, Places)], reading: u64) -> Vec<Changed> {
    let mut rest = Vec::new();
    for (authority, current) in again {
        let is_same = |((one, before), _): &&(Changed, Places)| {
            Arc::ptr_eq(one, &authority) && before.account == current.account
        };
        let open = opened.iter().find(is_same).map(|(_, open)| open);
        let spaces = open.and_then(|open| Spaces::of(&current.account, open));
        match (open, spaces) {
            (Some(open), Some(spaces)) => {
                spaces.set_limits(reading, &current.account);
                authority.apply(reading, current, open.clone(), &spaces);
            }
            _ => rest.push((authority, current)),
        }
    }
    rest
}

/// Runs the keeper until the server is gone. One that panics is begun anew, and meanwhile nobody may
/// do anything.
async fn supervise(
    server: Weak<ServerState>,
    mut changes: watch::Receiver<u64>,
    wake: Arc<Notify>,
) {
    while AssertUnwindSafe(keep(server.clone(), &mut changes, &wake))
        .catch_unwind()
        .await
        .is_err()
    {
        error!(name: "keeper_panicked", "what users may do was not kept up to date; beginning anew");
        if let Some(shared) = server.upgrade() {
            let authorities = &shared.authorities;
            let reading = authorities.begin_reading();
            for authority in authorities.live() {
                authority.suspend(reading, Cause::Unread);
            }
            authorities.failing.store(true, Ordering::Relaxed);
        }
        sleep(RETRY).await;
    }
}

async fn keep(server: Weak<ServerState>, changes: &mut watch::Receiver<u64>, wake: &Notify) {
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

#[cfg(test)]
pub(crate) mod tests;
