//! `register`: a visitor creates an account, if the settings allow it. Only the classic dialect has it.

use tokio::time::{Instant, sleep};

use crate::accounts::{AccountsError, NewUser, UserName, check_new_password};
use crate::protocol::Secret;
use crate::server::commands::login::{check_private, queued, rules};
use crate::server::error::CommandError;
use crate::server::session::peer::Peer;
use crate::server::state::ServerState;
use crate::storage::SpaceLimits;

/// Creates the account `user`.
///
/// Each attempt counts as a failed login of its address, even if it succeeds. So nobody creates accounts,
/// or finds out which exist, faster than passwords can be guessed.
pub(crate) async fn register(
    user: &str,
    password: &Secret,
    shared: &ServerState,
    peer: &Peer,
) -> Result<(), CommandError> {
    let (is_open, quota, min_password) = {
        let auth = &shared.config().auth;
        (auth.register, auth.register_quota, auth.min_password)
    };
    if !is_open {
        return Err(CommandError::RegisterClosed);
    }
    check_private(shared, peer)?;
    let name: UserName = user
        .parse()
        .map_err(|invalid| invalid_field("user", &invalid))?;
    check_new_password(password, min_password)
        .map_err(|error| invalid_field("password", &error))?;
    let (throttle, target) = (
        &shared.login_throttle,
        shared.login_throttle.user_target(user),
    );
    let (block, rules) = (peer.block(), rules(shared));
    let delay = throttle.check(target, block, rules, Instant::now());
    sleep(delay.map_err(CommandError::TooManyAttempts)?).await;
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
    throttle.record_failure(target, block, rules, Instant::now());
    added.map_err(|error| match error {
        CommandError::Accounts(AccountsError::UserExists(name)) => CommandError::NameTaken(name),
        CommandError::Accounts(
            error @ (AccountsError::EmptyPassword | AccountsError::PasswordTooLong),
        ) => invalid_field("password", &error),
        error => error,
    })
}

fn invalid_field(field: &'static str, error: &dyn std::error::Error) -> CommandError {
    CommandError::invalid_field(field, error)
}
