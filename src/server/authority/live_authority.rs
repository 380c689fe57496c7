//! The current rights of one account by one credential.

use std::sync::{Arc, Weak};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::accounts::{Account, Credential, CredentialStatus};
use crate::messages::{Subscription, UserRef};
use crate::server::authority::spaces::{AccountSpaces, OpenSpaceCache};
use crate::server::authority::suspension::SuspensionCause;
use crate::server::error::CommandError;
use crate::storage::{Store, View};

/// The rights of one account by one credential.
#[derive(Debug)]
pub(crate) struct Authority {
    /// The account's number.
    pub(crate) id: i64,
    /// The user, as messages name them.
    pub(crate) user: UserRef,
    token: Option<i64>,
    view: View,
    state: watch::Sender<AuthorityState>,
    /// The event subscriptions of its sessions.
    subscriptions: Mutex<Vec<Weak<Subscription>>>,
    /// Cancelled once the account or token has ended.
    pub(crate) closed: CancellationToken,
}

/// An authority whose rights differ from those of its account, and the rights of its account.
pub(crate) type ChangedAuthority = (Arc<Authority>, CredentialStatus);

/// The rights of an authority, as of one reading of the accounts.
#[derive(Debug, Default)]
pub(crate) struct AuthorityState {
    /// The reading of the accounts that this state is from. Only a later reading replaces it.
    reading: u64,
    /// `None` while the authority is suspended.
    current: Option<CredentialStatus>,
    /// Its spaces; kept open during a suspension, so that their counts remain valid.
    open: OpenSpaceCache,
    /// Why it is suspended.
    cause: SuspensionCause,
}

impl Authority {
    /// Creates a suspended authority; [`Self::apply`] puts it in force.
    pub(crate) fn new(store: &Store, credential: Credential, name: &str) -> Self {
        Self {
            id: credential.account,
            user: UserRef {
                id: credential.account,
                name: name.into(),
            },
            token: credential.token,
            view: View::suspended(store),
            state: watch::Sender::default(),
            subscriptions: Mutex::default(),
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
        &self.user.name
    }

    /// The user's view of the files. It follows later changes of the rights.
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// A receiver that is notified of each change.
    pub(crate) fn changes(&self) -> watch::Receiver<AuthorityState> {
        self.state.subscribe()
    }

    /// Resolves once the user does not have the admin right, or is not known to have it, and returns
    /// the reason.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn admin_right_lost(&self, cmd: &'static str) -> CommandError {
        let mut changes = self.changes();
        loop {
            changes.mark_unchanged();
            if let Err(error) = self.check_admin(cmd) {
                return error;
            }
            tokio::select! {
                // `self` owns the sender, so this cannot fail.
                _ = changes.changed() => {}
                () = self.closed.cancelled() => {}
            }
        }
    }

    /// Checks that the user has the admin right.
    ///
    /// # Errors
    /// [`CommandError::AdminsOnly`], and as [`Self::account`].
    pub(crate) fn check_admin(&self, cmd: &'static str) -> Result<(), CommandError> {
        if self.account()?.admin {
            return Ok(());
        }
        Err(CommandError::AdminsOnly(cmd))
    }

    /// Restricts the watches of `subscription` to the spaces that the user may list, from now on.
    pub(crate) fn add_subscription(&self, subscription: &Arc<Subscription>) {
        let mut subscriptions = self.subscriptions.lock();
        subscriptions.retain(|one| one.strong_count() > 0);
        subscriptions.push(Arc::downgrade(subscription));
    }

    /// Stops change events of all other spaces to the sessions of this authority.
    pub(crate) fn restrict(&self, spaces: &[Arc<str>]) {
        for subscription in self.subscriptions.lock().iter().filter_map(Weak::upgrade) {
            // It fails only if the sequencer has ended, and then no event is delivered.
            let _ = subscription.restrict_watches(spaces.to_vec());
        }
    }

    /// The credential that it was made for.
    pub(crate) fn credential(&self) -> Credential {
        Credential {
            account: self.id,
            token: self.token,
        }
    }

    /// Whether it is in force and grants exactly the rights of `account`.
    pub(crate) fn matches(&self, account: &Account) -> bool {
        let state = self.state.borrow();
        let current = state.current.as_ref();
        current.is_some_and(|current| *current.account == *account)
    }

    /// The number of the reading that it is from.
    pub(crate) fn reading(&self) -> u64 {
        self.state.borrow().reading
    }

    /// When its token expires, if it has one that does.
    pub(crate) fn expires(&self) -> Option<Timestamp> {
        self.state.borrow().current.as_ref()?.expires
    }

    /// Records that `reading` found the same rights; only the expiry may differ.
    pub(crate) fn confirm(&self, reading: u64, current: &CredentialStatus) {
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

    /// Puts the rights `current` in force, unless a later reading is.
    pub(crate) fn apply(
        &self,
        reading: u64,
        current: CredentialStatus,
        open: OpenSpaceCache,
        spaces: &AccountSpaces,
    ) {
        self.state.send_if_modified(|state| {
            let is_later = reading > state.reading;
            if is_later {
                self.restrict(&spaces.listable());
                self.view.set(spaces.home.clone(), spaces.mounts.clone());
                state.reading = reading;
                state.current = Some(current);
                state.open = open;
            }
            is_later
        });
    }

    /// Its open spaces; during a suspension, those from before.
    pub(crate) fn open_spaces(&self) -> OpenSpaceCache {
        self.state.borrow().open.clone()
    }

    /// Suspends it, unless a later reading is in force.
    pub(crate) fn suspend(&self, reading: u64, cause: SuspensionCause) {
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

    /// Ends it for good.
    pub(crate) fn close(&self) {
        self.restrict(&[]);
        self.view.revoke();
        self.closed.cancel();
        self.state.send_if_modified(|state| {
            state.open.clear();
            false
        });
    }
}
