//! `login`: from a name and a secret to an account.

use crate::accounts::{Account, AccountsError};
use crate::protocol::{BadRequest, Login, LoginReply};
use crate::server::member::Member;
use crate::server::{CommandError, Peer, SERVER, Shared};

/// The account that the login is for.
pub(in crate::server) async fn log_in(
    id: u32,
    login: Login,
    shared: &Shared,
    peer: &Peer,
) -> Result<Account, CommandError> {
    if !peer.is_private() && !shared.config().auth.plaintext_logins {
        return Err(CommandError::PlaintextLogin);
    }
    let accounts = &shared.accounts;
    let account = match login {
        Login {
            user: None,
            password: None,
            token: Some(token),
        } => accounts.log_in_with_token(token.expose()).await?,
        Login {
            user: Some(user),
            password: Some(password),
            token: None,
        } => {
            accounts
                .log_in_with_password(&user, password.expose())
                .await?
        }
        Login {
            user,
            password: None,
            token: None,
        } if peer.certificate().is_some() => {
            let named = peer.certificate().filter(|named| {
                let asked = user.as_deref();
                asked.is_none_or(|asked| asked == named.as_str())
            });
            let account = match named {
                Some(named) => accounts.account(named).await?,
                None => None,
            };
            account.ok_or(AccountsError::LoginFailed)?
        }
        Login { token, user, .. } => {
            let field = match (token, user) {
                (Some(_), _) => "token",
                (None, None) => "user",
                (None, Some(_)) => "password",
            };
            let message = "a login has `user` and `password`, or `token` alone, \
                           or neither where a client certificate says who it is";
            return Err(BadRequest::of_field(id, "login", field, message).into());
        }
    };
    Ok(account)
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
