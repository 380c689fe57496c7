//! All authorities of a server, and the keeper that keeps them up to date.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use crate::accounts::{Accounts, AccountsError, Credential};
use crate::clock::timeout_while_running;
use crate::messages::UserRef;
use crate::server::authority::live_authority::{Authority, ChangedAuthority};
use crate::server::authority::opener::{FinishedOpenings, SpaceOpener};
use crate::server::authority::spaces::{
    AccountSpaces, OpenSpaceCache, SpaceKey, open_all, open_space_fn,
};
use crate::server::authority::suspension::SuspensionCause;
use crate::server::authority::table::AuthorityTable;
use crate::server::disk::DiskScheduler;
use crate::server::error::CommandError;
use crate::storage::{Space, Store};

/// How long a reading of the accounts may take, and how long the opening of their spaces, before the
/// accounts are suspended.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause before a failed refresh is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The longest sleep of the keeper while a token is going to expire: the clock may be set meanwhile.
const EXPIRY_CHECK: Duration = Duration::from_secs(5);

/// How many times an account may change while its spaces are opened.
const MAX_ATTEMPTS: usize = 8;

/// All authorities of a server.
#[derive(Debug)]
pub(crate) struct Authorities {
    accounts: Accounts,
    store: Store,
    disks: DiskScheduler,
    table: AuthorityTable,
    /// The number of the latest reading of the accounts that was started.
    readings: AtomicU64,
    /// Wakes the keeper, to look at the expiry of tokens and at failures again.
    wake: Arc<Notify>,
    keeper: OnceLock<AbortOnDropHandle<()>>,
    /// Held during a refresh of all authorities.
    refreshing: Mutex<()>,
    opener: Arc<SpaceOpener>,
    /// Some authorities are suspended, or the latest reading failed.
    failing: AtomicBool,
    /// The latest reading of the accounts failed.
    unreadable: AtomicBool,
}

impl Authorities {
    pub(crate) fn new(accounts: Accounts, store: Store, disks: DiskScheduler) -> Self {
        Self {
            accounts,
            store,
            disks,
            table: AuthorityTable::default(),
            readings: AtomicU64::new(0),
            wake: Arc::default(),
            keeper: OnceLock::new(),
            refreshing: Mutex::default(),
            opener: Arc::default(),
            failing: AtomicBool::new(false),
            unreadable: AtomicBool::new(false),
        }
    }

    /// Reads the rights of a credential and returns its authority, which is kept up to date as long
    /// as it is referenced.
    ///
    /// # Errors
    /// [`AccountsError::LoginFailed`] if the credential is no longer valid; errors of the database
    /// and the disk.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        credential: Credential,
        name: &str,
    ) -> Result<Arc<Authority>, CommandError> {
        self.keeper.get_or_init(|| {
            // Subscribed before the task starts, so that it misses no change.
            let changes = self.accounts.changes();
            let authorities = Arc::downgrade(self);
            let keeper = supervise_keeper(authorities, changes, Arc::clone(&self.wake));
            AbortOnDropHandle::new(tokio::spawn(keeper))
        });
        // In the table before it is read, so that the keeper misses no change of it.
        let authority = self.table.get_or_insert(&self.store, credential, name);
        let reading = self.start_reading();
        let changed = self.compare(&[Arc::clone(&authority)], reading).await;
        if let Err(error) = &changed {
            // The keeper notices when the failure ends.
            self.unreadable.store(true, Ordering::Relaxed);
            self.log_transition(Some(error));
            self.wake.notify_one();
        }
        self.open_and_apply(changed?, reading).await?;
        if authority.closed.is_cancelled() {
            return Err(AccountsError::LoginFailed.into());
        }
        if authority.expires().is_some() {
            self.wake.notify_one();
        }
        Ok(authority)
    }

    /// The user called `name`, if they are connected.
    pub(crate) fn connected(&self, name: &str) -> Option<UserRef> {
        self.table.connected(name)
    }

    /// Whether the latest reading of the accounts succeeded.
    pub(crate) fn are_readable(&self) -> bool {
        !self.unreadable.load(Ordering::Relaxed)
    }

    /// Reads the rights of all authorities again; resolves once the new rights are in force.
    ///
    /// # Errors
    /// Errors of the database and the disk. Accounts that could not be read are then suspended.
    pub(crate) async fn refresh(&self) -> Result<(), CommandError> {
        // One at a time: an older reading must not suspend an account that a newer one has read.
        let _refreshing = self.refreshing.lock().await;
        let reading = self.start_reading();
        let live = self.table.live();
        let is_read = AtomicBool::new(false);
        let mut outcome = self.update(&live, reading, &is_read).await;
        self.unreadable
            .store(!is_read.load(Ordering::Relaxed), Ordering::Relaxed);
        for authority in live {
            if authority.reading() < reading && !authority.closed.is_cancelled() {
                let cause = SuspensionCause::AccountsUnreadable;
                outcome = outcome.and(suspend(&authority, reading, cause));
            }
        }
        self.log_transition(outcome.as_ref().err());
        outcome
    }

    /// Updates each authority of `live` once its own spaces are open, and suspends those whose spaces
    /// are not open in time. Sets `is_read` once the accounts are read.
    async fn update(
        &self,
        live: &[Arc<Authority>],
        reading: u64,
        is_read: &AtomicBool,
    ) -> Result<(), CommandError> {
        let mut waiting = self.compare_in_time(live, reading).await?;
        is_read.store(true, Ordering::Relaxed);
        let open = open_space_fn(&self.store);
        let mut outcome = Ok(());
        let mut time_left = REFRESH_TIMEOUT;
        loop {
            self.opener.request(&open, spaces_to_open(&waiting))?;
            if waiting.is_empty() {
                return outcome;
            }
            // Only the time that the opening takes counts.
            let started = Instant::now();
            let openings = self.opener.wait_finished(&mut waiting);
            let Some(openings) = timeout_while_running(time_left, openings).await else {
                return outcome.and(self.suspend_unopened(&waiting, reading));
            };
            time_left = time_left.saturating_sub(started.elapsed());
            let FinishedOpenings { opened, failed } = openings;
            for (authority, reason) in failed {
                let cause = SuspensionCause::SpaceUnavailable(reason);
                outcome = outcome.and(suspend(&authority, reading, cause));
            }
            // By now the name may belong to another account or folder.
            let authorities: Vec<_> = opened.iter().map(|((one, _), _)| one.clone()).collect();
            let current = self.compare_in_time(&authorities, reading).await?;
            waiting.extend(apply_unchanged(current, &opened, reading));
        }
    }

    /// Suspends accounts whose spaces did not open in time.
    fn suspend_unopened(
        &self,
        waiting: &[ChangedAuthority],
        reading: u64,
    ) -> Result<(), CommandError> {
        let mut outcome = Ok(());
        for (authority, current) in waiting {
            let space = self.opener.first_unopened(&current.account);
            let space = space.map_or_else(String::new, |space| space.to_string());
            let reason = format!("the disk does not answer for {space}").into();
            let cause = SuspensionCause::SpaceUnavailable(reason);
            outcome = outcome.and(suspend(authority, reading, cause));
        }
        outcome
    }

    /// Puts the rights of accounts that log in into force; opens their spaces as work of the server.
    async fn open_and_apply(
        &self,
        mut changed: Vec<ChangedAuthority>,
        reading: u64,
    ) -> Result<(), CommandError> {
        for _ in 0..MAX_ATTEMPTS {
            let mut opened = Vec::new();
            for (authority, current) in changed {
                let (store, account) = (self.store.clone(), Arc::clone(&current.account));
                let open = move || open_all(&store, &account);
                let spaces = self.disks.run_for_server(open).await?;
                opened.push(((authority, current), spaces));
            }
            let authorities: Vec<_> = opened.iter().map(|((one, _), _)| one.clone()).collect();
            if authorities.is_empty() {
                return Ok(());
            }
            // By now the name may belong to another account or folder.
            let current = self.compare(&authorities, reading).await?;
            changed = apply_unchanged(current, &opened, reading);
        }
        Err(CommandError::Suspended(SuspensionCause::AccountsUnreadable))
    }

    /// As [`Self::compare`], but fails after [`REFRESH_TIMEOUT`].
    async fn compare_in_time(
        &self,
        live: &[Arc<Authority>],
        reading: u64,
    ) -> Result<Vec<ChangedAuthority>, CommandError> {
        let comparing = self.compare(live, reading);
        let compared = timeout_while_running(REFRESH_TIMEOUT, comparing).await;
        let late = || Err(CommandError::Suspended(SuspensionCause::AccountsUnreadable));
        compared.unwrap_or_else(late)
    }

    /// Reads the rights of `live`, closes the authorities that are no longer valid, and returns
    /// those whose rights differ from their account's.
    async fn compare(
        &self,
        live: &[Arc<Authority>],
        reading: u64,
    ) -> Result<Vec<ChangedAuthority>, CommandError> {
        let credentials: Vec<_> = live.iter().map(|one| one.credential()).collect();
        let current = self.accounts.credential_statuses(&credentials).await?;
        let mut changed = Vec::new();
        for (authority, current) in live.iter().zip(current) {
            match current {
                None => self.table.close(authority),
                Some(current) if authority.matches(&current.account) => {
                    authority.confirm(reading, &current);
                }
                Some(current) => changed.push((Arc::clone(authority), current)),
            }
        }
        Ok(changed)
    }

    fn start_reading(&self) -> u64 {
        self.readings.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Closes authorities whose token has expired; returns the time until the next one expires.
    fn close_expired(&self, now: Timestamp) -> Option<Duration> {
        let mut next: Option<Duration> = None;
        for authority in self.table.live() {
            let Some(expires) = authority.expires() else {
                continue;
            };
            match Duration::try_from(expires.duration_since(now)) {
                Ok(left) if !left.is_zero() => {
                    next = Some(next.map_or(left, |next| next.min(left)));
                }
                _ => self.table.close(&authority),
            }
        }
        next
    }

    /// Logs the first failure, and the first success after it.
    fn log_transition(&self, failure: Option<&CommandError>) {
        let was_failing = self.failing.swap(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(error) if !was_failing => warn!(
                name: "access_suspended",
                %error,
                "cannot read the rights of users; their requests are refused until this is possible"
            ),
            None if was_failing => info!(
                name: "access_restored",
                "the rights of users can be read again"
            ),
            _ => {}
        }
    }

    /// Suspends all authorities after a panic of the keeper.
    fn suspend_all(&self) {
        let reading = self.start_reading();
        for authority in self.table.live() {
            authority.suspend(reading, SuspensionCause::AccountsUnreadable);
        }
        self.failing.store(true, Ordering::Relaxed);
    }
}

fn suspend(
    authority: &Authority,
    reading: u64,
    cause: SuspensionCause,
) -> Result<(), CommandError> {
    authority.suspend(reading, cause.clone());
    Err(CommandError::Suspended(cause))
}

/// The spaces that the changed accounts need, with those of them that are open already.
pub(crate) fn spaces_to_open(
    changed: &[ChangedAuthority],
) -> HashMap<SpaceKey, Option<Arc<Space>>> {
    let mut needed = HashMap::new();
    for (authority, current) in changed {
        let open = authority.open_spaces();
        for key in SpaceKey::all_for_account(&current.account) {
            let known = open.get(&key).cloned();
            needed.entry(key).or_insert(known);
        }
    }
    needed
}

/// Applies the rights of accounts that did not change while their spaces were opened, and returns
/// the others.
fn apply_unchanged(
    current: Vec<ChangedAuthority>,
    opened: &[(ChangedAuthority, OpenSpaceCache)],
    reading: u64,
) -> Vec<ChangedAuthority> {
    let mut changed_again = Vec::new();
    for (authority, current) in current {
        let is_same = |((one, before), _): &&(ChangedAuthority, OpenSpaceCache)| {
            Arc::ptr_eq(one, &authority) && before.account == current.account
        };
        let open = opened.iter().find(is_same).map(|(_, open)| open);
        let spaces = open.and_then(|open| AccountSpaces::from_open(&current.account, open));
        match (open, spaces) {
            (Some(open), Some(spaces)) => {
                spaces.set_limits(reading, &current.account);
                authority.apply(reading, current, open.clone(), &spaces);
            }
            _ => changed_again.push((authority, current)),
        }
    }
    changed_again
}

/// Runs the keeper until the server is dropped. After a panic it suspends all authorities and starts
/// the keeper again.
async fn supervise_keeper(
    authorities: Weak<Authorities>,
    mut changes: watch::Receiver<u64>,
    wake: Arc<Notify>,
) {
    while AssertUnwindSafe(run_keeper(&authorities, &mut changes, &wake))
        .catch_unwind()
        .await
        .is_err()
    {
        error!(
            name: "keeper_panicked",
            "the task that keeps the rights of users up to date panicked; restarting it"
        );
        if let Some(authorities) = authorities.upgrade() {
            authorities.suspend_all();
        }
        sleep(RETRY_INTERVAL).await;
    }
}

async fn run_keeper(server: &Weak<Authorities>, changes: &mut watch::Receiver<u64>, wake: &Notify) {
    loop {
        let Some(authorities) = server.upgrade() else {
            return;
        };
        let expiry = authorities.close_expired(Timestamp::now());
        let is_failing = authorities.failing.load(Ordering::Relaxed);
        drop(authorities);
        let next_check = expiry.map(|expiry| expiry.min(EXPIRY_CHECK));
        tokio::select! {
            outcome = changes.changed() => if outcome.is_err() {
                return;
            },
            () = sleep(RETRY_INTERVAL), if is_failing => {}
            () = sleep(next_check.unwrap_or_default()), if next_check.is_some() => continue,
            () = wake.notified() => continue,
        }
        if let Some(authorities) = server.upgrade() {
            // A failure is logged by `refresh`, and tried again.
            let _ = authorities.refresh().await;
        }
    }
}
