//! `login`: finds the account for a name and a secret.

use tokio::time::{Instant, sleep};

use crate::accounts::{Account, AccountsError, Credential, UserName};
use crate::protocol::{Login, LoginReply, Secret};
use crate::server::accept::address_block::AddressBlock;
use crate::server::commands::hello::features;
use crate::server::error::CommandError;
use crate::server::limits::login_throttle::{LoginTarget, LoginThrottleRules};
use crate::server::session::member::Member;
use crate::server::session::peer::Peer;
use crate::server::state::{SERVER_VERSION, ServerState};

/// The account of the login, and the credential whose end also ends the session.
pub(crate) async fn log_in(
    login: Login,
    shared: &ServerState,
    peer: &Peer,
) -> Result<(Account, Credential), CommandError> {
    check_private(shared, peer)?;
    match LoginClaim::of(login, peer)? {
        LoginClaim::Secret(claim) => by_secret(&claim, shared, peer.block()).await,
        LoginClaim::Certificate(named) => {
            let account = match named {
                Some(named) => shared.accounts.account(&named).await?,
                None => None,
            };
            Ok(with_credential(
                account.ok_or(AccountsError::LoginFailed)?,
                None,
            ))
        }
    }
}

/// Checks that a password may come over the connection of this peer.
pub(crate) fn check_private(shared: &ServerState, peer: &Peer) -> Result<(), CommandError> {
    if !peer.is_private() && !shared.config().auth.plaintext_logins {
        return Err(CommandError::PlaintextLogin);
    }
    Ok(())
}

/// Checks a password or a token, if the login throttle allows it now.
async fn by_secret(
    claim: &SecretClaim,
    shared: &ServerState,
    block: AddressBlock,
) -> Result<(Account, Credential), CommandError> {
    let (accounts, throttle) = (&shared.accounts, &shared.login_throttle);
    match claim {
        SecretClaim::Password { user, password } => {
            let work = accounts.log_in_with_password(user, password.expose());
            let work = queued(shared, block, work);
            let account = throttled(shared, throttle.user_target(user), block, work).await?;
            Ok(with_credential(account, None))
        }
        SecretClaim::Token(token) => {
            let token = token.expose();
            let work = async { Ok(accounts.log_in_with_token(token).await?) };
            let logged_in = throttled(shared, throttle.token_target(token), block, work);
            let (account, token) = logged_in.await?;
            Ok(with_credential(account, Some(token)))
        }
    }
}

fn with_credential(account: Account, token: Option<i64>) -> (Account, Credential) {
    let credential = Credential {
        account: account.id,
        token,
    };
    (account, credential)
}

/// Runs `work`, which compares a secret of `target`, if the login throttle allows it for `block`.
pub(crate) async fn throttled<T>(
    shared: &ServerState,
    target: LoginTarget,
    block: AddressBlock,
    work: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    let (rules, throttle) = (rules(shared), &shared.login_throttle);
    let delay = throttle.check(target, block, rules, Instant::now());
    sleep(delay.map_err(CommandError::TooManyAttempts)?).await;
    let outcome = work.await;
    match &outcome {
        Ok(_) => throttle.record_success(target, block, Instant::now()),
        Err(CommandError::Accounts(AccountsError::LoginFailed | AccountsError::WrongPassword)) => {
            throttle.record_failure(target, block, rules, Instant::now());
        }
        Err(_) => {}
    }
    outcome
}

/// The settings of the login throttle.
pub(crate) fn rules(shared: &ServerState) -> LoginThrottleRules {
    let auth = &shared.config().auth;
    let attempts = u32::try_from(auth.attempts).unwrap_or(u32::MAX);
    let back_off = auth.back_off;
    LoginThrottleRules { attempts, back_off }
}

/// Runs `work`, which hashes a password, if the queue of such logins is not full.
pub(crate) async fn queued<T>(
    shared: &ServerState,
    block: AddressBlock,
    work: impl Future<Output = Result<T, AccountsError>>,
) -> Result<T, CommandError> {
    let waiting = shared.config().auth.waiting_logins;
    let permit = shared.logins.try_acquire(block, waiting);
    let _permit = permit.ok_or(CommandError::TooManyLogins)?;
    Ok(work.await?)
}

/// The identity that a login claims.
enum LoginClaim {
    Secret(SecretClaim),
    /// The user of the client's certificate; `None` if the login names another user.
    Certificate(Option<UserName>),
}

/// A claim with a secret that may be guessed.
enum SecretClaim {
    Password { user: String, password: Secret },
    Token(Secret),
}

impl LoginClaim {
    fn of(login: Login, peer: &Peer) -> Result<Self, CommandError> {
        let field = match login {
            Login {
                user: None,
                password: None,
                token: Some(token),
                since: _,
                epoch: _,
                inbox: _,
            } => return Ok(Self::Secret(SecretClaim::Token(token))),
            Login {
                user: Some(user),
                password: Some(password),
                token: None,
                since: _,
                epoch: _,
                inbox: _,
            } => return Ok(Self::Secret(SecretClaim::Password { user, password })),
            Login {
                user: asked,
                password: None,
                token: None,
                since: _,
                epoch: _,
                inbox: _,
            } if peer.certificate().is_some() => {
                let named = peer.certificate().filter(|named| {
                    let asked = asked.as_deref();
                    asked.is_none_or(|asked| asked == named.as_str())
                });
                return Ok(Self::Certificate(named.cloned()));
            }
            Login { token: Some(_), .. } => "token",
            Login { user: None, .. } => "user",
            Login { .. } => "password",
        };
        let message = "a login has `user` and `password`, or `token` alone, \
                       or neither where a client certificate says who it is";
        Err(CommandError::invalid_field(field, message))
    }
}

/// The reply to a login. `resumed` says whether this server has given out its `since`, if it has one.
pub(crate) fn welcome(member: &Member, resumed: Option<bool>) -> LoginReply {
    LoginReply {
        user: member.authority.name().to_owned(),
        home: member.cwd.to_string(),
        server: SERVER_VERSION.into(),
        session: member.session.to_string(),
        epoch: Some(member.shared.messages.epoch().to_owned()),
        resumed,
        features: features(&member.shared),
    }
}
