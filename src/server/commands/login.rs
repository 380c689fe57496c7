//! `login`: from a name and a secret to an account.

use tokio::time::{Instant, sleep};

use crate::accounts::{Account, AccountsError};
use crate::protocol::{BadRequest, Login, LoginReply, Secret};
use crate::server::limits::Rules;
use crate::server::member::Member;
use crate::server::{CommandError, Peer, SERVER, Shared};

/// The account that the login is for.
pub(in crate::server) async fn log_in(
    id: u32,
    login: Login,
    shared: &Shared,
    peer: Peer,
) -> Result<Account, CommandError> {
    if !peer.is_private() && !shared.config().auth.plaintext_logins {
        return Err(CommandError::PlaintextLogin);
    }
    let claim = Claim::of(id, login)?;
    let block = peer.block();
    let (rules, waiting) = {
        let auth = &shared.config().auth;
        let attempts = u32::try_from(auth.attempts).unwrap_or(u32::MAX);
        let back_off = auth.back_off;
        (Rules { attempts, back_off }, auth.waiting_logins)
    };
    let guesses = &shared.guesses;
    let target = match &claim {
        Claim::Password { user, .. } => guesses.of_user(user),
        Claim::Token(token) => guesses.of_token(token.expose()),
    };
    let slower = guesses.check(target, block, rules, Instant::now());
    sleep(slower.map_err(CommandError::TooManyAttempts)?).await;
    let outcome = match &claim {
        Claim::Password { user, password } => {
            let place = shared.logins.enter(block, waiting);
            let _place = place.ok_or(CommandError::TooManyLogins)?;
            let accounts = &shared.accounts;
            accounts.log_in_with_password(user, password.expose()).await
        }
        Claim::Token(token) => shared.accounts.log_in_with_token(token.expose()).await,
    };
    match &outcome {
        Ok(_) => guesses.succeeded(target, block, Instant::now()),
        Err(AccountsError::LoginFailed) => guesses.failed(target, block, rules, Instant::now()),
        Err(_) => {}
    }
    Ok(outcome?)
}

/// Who somebody claims to be.
enum Claim {
    Password { user: String, password: Secret },
    Token(Secret),
}

impl Claim {
    fn of(id: u32, login: Login) -> Result<Self, BadRequest> {
        let field = match login {
            Login {
                user: None,
                password: None,
                token: Some(token),
            } => return Ok(Self::Token(token)),
            Login {
                user: Some(user),
                password: Some(password),
                token: None,
            } => return Ok(Self::Password { user, password }),
            Login { token: Some(_), .. } => "token",
            Login { user: None, .. } => "user",
            Login { .. } => "password",
        };
        let message = "a login has `user` and `password`, or `token` alone";
        Err(BadRequest::of_field(id, "login", field, message))
    }
}

/// What `ok` holds after a login.
pub(in crate::server) fn welcome(member: &Member) -> LoginReply {
    LoginReply {
        user: member.account.name.to_string(),
        home: member.cwd.to_string(),
        server: SERVER.into(),
        session: member.session.to_string(),
    }
}
