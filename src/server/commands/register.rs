//! `register`: an account that somebody makes for themselves, where the settings let people do so.
//! Of the classic dialect only.

use tokio::time::{Instant, sleep};

use crate::accounts::{AccountsError, NewUser, UserName};
use crate::protocol::Secret;
use crate::server::commands::login::{is_private_enough, queued, rules};
use crate::server::error::CommandError;
use crate::server::session::peer::Peer;
use crate::server::state::ServerState;
use crate::storage::SpaceLimits;

/// Makes the account `user`.
///
/// Each try counts as a wrong guess of its address, the ones that succeed, too: so nobody makes
/// accounts, or finds out which there are, any faster than passwords can be guessed.
pub(crate) async fn register(
    user: &str,
    password: &Secret,
    shared: &ServerState,
    peer: &Peer,
) -> Result<(), CommandError> {
    let (is_open, quota) = {
        let auth = &shared.config().auth;
        (auth.register, auth.register_quota)
    };
    if !is_open {
        return Err(CommandError::RegisterClosed);
    }
    is_private_enough(shared, peer)?;
    let name: UserName = user.parse().map_err(|invalid| unfit("user", &invalid))?;
    let (guesses, target) = (
        &shared.login_throttle,
        shared.login_throttle.user_target(user),
    );
    let (block, rules) = (peer.block(), rules(shared));
    let slower = guesses.check(target, block, rules, Instant::now());
    sleep(slower.map_err(CommandError::TooManyAttempts)?).await;
    let limits = SpaceLimits {
        bytes: (quota > 0).then_some(quota),
        files: None,
    };
    let new = NewUser {
        admin: false,
        limits,
    };
    let adding = shared.accounts.add_user(&name, password, new);
    let added = queued(shared, block, adding).await;
    guesses.record_failure(target, block, rules, Instant::now());
    added.map_err(|error| match error {
        CommandError::Accounts(AccountsError::UserExists(name)) => CommandError::NameTaken(name),
        CommandError::Accounts(
            error @ (AccountsError::EmptyPassword | AccountsError::PasswordTooLong),
        ) => unfit("password", &error),
        error => error,
    })
}

fn unfit(field: &'static str, error: &dyn std::error::Error) -> CommandError {
    CommandError::invalid_field(field, error)
}
