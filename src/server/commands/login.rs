//! `login`: from a name and a secret to an account.

use tokio::time::{Instant, sleep};

use crate::accounts::{Account, AccountsError, Credential, UserName};
use crate::protocol::{Login, LoginReply, Secret};
use crate::server::accept::address_block::AddressBlock;
use crate::server::error::CommandError;
use crate::server::limits::login_throttle::{LoginTarget, LoginThrottleRules};
use crate::server::session::member::Member;
use crate::server::session::peer::Peer;
use crate::server::state::{SERVER_VERSION, ServerState};

/// The account that the login is for, and what its session lasts no longer than.
pub(crate) async fn log_in(
    login: Login,
    shared: &ServerState,
    peer: &Peer,
) -> Result<(Account, Credential), CommandError> {
    is_private_enough(shared, peer)?;
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

/// Whether a password may come from this peer.
pub(crate) fn is_private_enough(shared: &ServerState, peer: &Peer) -> Result<(), CommandError> {
    if !peer.is_private() && !shared.config().auth.plaintext_logins {
        return Err(CommandError::PlaintextLogin);
    }
    Ok(())
}

/// Checks a password or a token, as far as it is not guessed too fast.
async fn by_secret(
    claim: &SecretClaim,
    shared: &ServerState,
    block: AddressBlock,
) -> Result<(Account, Credential), CommandError> {
    let (accounts, guesses) = (&shared.accounts, &shared.login_throttle);
    match claim {
        SecretClaim::Password { user, password } => {
            let work = accounts.log_in_with_password(user, password.expose());
            let work = queued(shared, block, work);
            let account = not_too_fast(shared, guesses.user_target(user), block, work).await?;
            Ok(with_credential(account, None))
        }
        SecretClaim::Token(token) => {
            let token = token.expose();
            let work = async { Ok(accounts.log_in_with_token(token).await?) };
            let logged_in = not_too_fast(shared, guesses.token_target(token), block, work);
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

/// Does `work`, which finds out whether a secret is that of `target`, as far as `block` does not
/// guess too fast.
pub(crate) async fn not_too_fast<T>(
    shared: &ServerState,
    target: LoginTarget,
    block: AddressBlock,
    work: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    let (rules, guesses) = (rules(shared), &shared.login_throttle);
    let slower = guesses.check(target, block, rules, Instant::now());
    sleep(slower.map_err(CommandError::TooManyAttempts)?).await;
    let outcome = work.await;
    match &outcome {
        Ok(_) => guesses.record_success(target, block, Instant::now()),
        Err(CommandError::Accounts(AccountsError::LoginFailed | AccountsError::WrongPassword)) => {
            guesses.record_failure(target, block, rules, Instant::now());
        }
        Err(_) => {}
    }
    outcome
}

/// How fast secrets may be guessed.
pub(crate) fn rules(shared: &ServerState) -> LoginThrottleRules {
    let auth = &shared.config().auth;
    let attempts = u32::try_from(auth.attempts).unwrap_or(u32::MAX);
    let back_off = auth.back_off;
    LoginThrottleRules { attempts, back_off }
}

/// Does `work`, which hashes a password, if the queue for that has a place.
pub(crate) async fn queued<T>(
    shared: &ServerState,
    block: AddressBlock,
    work: impl Future<Output = Result<T, AccountsError>>,
) -> Result<T, CommandError> {
    let waiting = shared.config().auth.waiting_logins;
    let place = shared.logins.try_acquire(block, waiting);
    let _place = place.ok_or(CommandError::TooManyLogins)?;
    Ok(work.await?)
}

/// The claimed identity.
enum LoginClaim {
    Secret(SecretClaim),
    /// The user of the client's certificate, unless another one is asked for.
    Certificate(Option<UserName>),
}

/// A claim that could be a guess.
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

/// What `ok` holds after a login; `resumed` says whether its `since` counts here, if it has one.
pub(crate) fn welcome(member: &Member, resumed: Option<bool>) -> LoginReply {
    LoginReply {
        user: member.authority.name().to_owned(),
        home: member.cwd.to_string(),
        server: SERVER_VERSION.into(),
        session: member.session.to_string(),
        epoch: Some(member.shared.messages.epoch().to_owned()),
        resumed,
    }
}
