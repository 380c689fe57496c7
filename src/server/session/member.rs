//! A logged-in user within a session. Only a login makes one, so a command that takes a `Member`
//! needs a login.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::accounts::{AccountsError, Credential};
use crate::messages::{MessagesError, UserRef};
use crate::protocol::CommandInfo;
use crate::server::accept::address_block::AddressBlock;
use crate::server::authority::Authority;
use crate::server::disk::UserDisk;
use crate::server::error::CommandError;
use crate::server::limits::request_lines::LineBudget;
use crate::server::session::close_reason::CloseReason;
use crate::server::state::ServerState;
use crate::server::transfer::bandwidth::Bandwidth;
use crate::storage::{StorageError, View, VirtualPath};

/// The user of a session, with their view of the files and their current directory.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) shared: Arc<ServerState>,
    /// The current rights of the user.
    pub(crate) authority: Arc<Authority>,
    pub(crate) cwd: VirtualPath,
    /// The session's identifier.
    pub(crate) session: Arc<str>,
    /// The address that the session comes from.
    pub(crate) address_block: AddressBlock,
    /// Cancelled once the peer may no longer wait for an answer: it has stopped sending, or the session
    /// has ended.
    pub(crate) peer_left: CancellationToken,
    /// Runs work on the disk within the user's share.
    pub(crate) disk: UserDisk,
    /// The budget for log lines about the user's requests.
    pub(crate) lines: Arc<LineBudget>,
    /// The user's share of the network.
    bandwidth: Bandwidth,
    /// One file of a session is read only to be hashed at a time.
    pub(crate) hash_permit: Arc<Semaphore>,
    /// The wrong passwords of this session in `passwd`.
    pub(crate) wrong_passwords: u32,
}

/// After this many wrong passwords in `passwd` the session ends.
const MAX_WRONG_PASSWORDS: u32 = 3;

impl Member {
    /// Makes the member of a session whose login succeeded, at the root of their view.
    pub(crate) async fn admit(
        shared: Arc<ServerState>,
        credential: Credential,
        name: &str,
        session: Arc<str>,
        address_block: AddressBlock,
        peer_left: CancellationToken,
    ) -> Result<Self, CommandError> {
        let disk = shared.disks.for_user(credential.account);
        let authorities = &shared.authorities;
        let account = authorities.acquire(credential, name).await?;
        let bandwidth = shared.bandwidths.for_user(credential.account);
        let lines = shared.request_lines.for_user(credential.account, name);
        Ok(Self {
            disk,
            lines,
            bandwidth,
            hash_permit: Arc::new(Semaphore::new(1)),
            shared,
            authority: account,
            cwd: VirtualPath::root(),
            session,
            address_block,
            peer_left,
            wrong_passwords: 0,
        })
    }

    /// Checks that the user may run `command` now, as its row in the table of commands says.
    ///
    /// # Errors
    /// [`CommandError::AdminsOnly`], and as [`Self::check_in_force`].
    pub(crate) fn authorize(&self, command: &CommandInfo) -> Result<(), CommandError> {
        if command.is_admin_only {
            self.authority.check_admin(command.name)
        } else if command.works_while_suspended {
            Ok(())
        } else {
            self.check_in_force()
        }
    }

    /// Checks that the rights of the user are in force: the account is open and the server knows them.
    ///
    /// # Errors
    /// [`CommandError::Suspended`], [`CommandError::AccountClosed`].
    pub(crate) fn check_in_force(&self) -> Result<(), CommandError> {
        self.authority.account().map(drop)
    }

    /// Ends a session that guesses passwords.
    pub(crate) fn end_if_guessing(&self) -> Result<(), CloseReason> {
        if self.wrong_passwords < MAX_WRONG_PASSWORDS {
            return Ok(());
        }
        Err(CloseReason::Guessing)
    }

    /// Whether a bandwidth limit holds for the user.
    pub(crate) fn has_bandwidth_limit(&self) -> bool {
        self.rate().is_some()
    }

    /// Waits until the bandwidth limit lets `bytes` of a file come from the user.
    pub(crate) async fn throttle_upload(&self, bytes: usize) {
        self.bandwidth.up(bytes, self.rate()).await;
    }

    /// Waits until the bandwidth limit lets `bytes` of a file go to the user.
    pub(crate) async fn throttle_download(&self, bytes: usize) {
        self.bandwidth.down(bytes, self.rate()).await;
    }

    /// The user's current view.
    pub(crate) fn view(&self) -> View {
        self.authority.view().clone()
    }

    /// The user, as messages know them.
    pub(crate) fn user_ref(&self) -> UserRef {
        self.authority.user.clone()
    }

    fn rate(&self) -> Option<u64> {
        self.shared.config().limits.bandwidth_per_user
    }

    /// Resolves a path as the user wrote it against the current directory.
    pub(crate) fn resolve(&self, text: &str) -> Result<VirtualPath, CommandError> {
        let path = self.cwd.resolve(text).map_err(StorageError::from)?;
        Ok(path)
    }

    /// The view of the user `from`, kept up to date while it is used.
    ///
    /// # Errors
    /// [`MessagesError::NoSuchOffer`] if the account is gone or disabled.
    pub(crate) async fn authority_of(
        &self,
        from: &UserRef,
    ) -> Result<Arc<Authority>, CommandError> {
        let credential = Credential {
            account: from.id,
            token: None,
        };
        let authorities = &self.shared.authorities;
        let entered = authorities.acquire(credential, &from.name);
        entered.await.map_err(|error| match error {
            CommandError::Accounts(AccountsError::LoginFailed) => MessagesError::NoSuchOffer.into(),
            error => error,
        })
    }

    /// Runs `work` on the user's files, on a disk thread.
    pub(crate) async fn with_view<T, F>(&self, work: F) -> Result<T, CommandError>
    where
        T: Send + 'static,
        F: FnOnce(&View) -> Result<T, StorageError> + Send + 'static,
    {
        let view = self.view();
        self.disk.run(move || work(&view)).await
    }

    /// As [`Self::with_view`], for work that may need the count of a space: while the space is counted,
    /// it waits without a thread, and runs again afterwards.
    pub(crate) async fn with_counted_view<T, F>(&self, work: F) -> Result<T, CommandError>
    where
        T: Send + 'static,
        F: FnOnce(&View) -> Result<T, StorageError> + Clone + Send + 'static,
    {
        loop {
            match self.with_view(work.clone()).await {
                Err(CommandError::Storage(StorageError::Counting { path, end })) => {
                    end.wait(&path).await?;
                }
                done => return done,
            }
        }
    }
}
