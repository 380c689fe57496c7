//! The commands, one file each, and the one place that leads from a request to its command.

pub(crate) mod accept;
pub(crate) mod administration;
pub(crate) mod cd;
pub(crate) mod chunks;
pub(crate) mod cp;
pub(crate) mod decline;
pub(crate) mod df;
pub(crate) mod discard;
pub(crate) mod drain;
pub(crate) mod folder_add;
pub(crate) mod folder_grant;
pub(crate) mod folder_remove;
pub(crate) mod folder_revoke;
pub(crate) mod folders;
pub(crate) mod get;
pub(crate) mod hash;
pub(crate) mod hello;
pub(crate) mod help;
pub(crate) mod history;
pub(crate) mod join;
pub(crate) mod kick;
pub(crate) mod leave;
pub(crate) mod log_level;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod ls_tree;
pub(crate) mod mkdir;
pub(crate) mod mv;
pub(crate) mod offers;
pub(crate) mod passwd;
pub(crate) mod ping;
pub(crate) mod put;
pub(crate) mod pwd;
pub(crate) mod register;
pub(crate) mod reload;
pub(crate) mod rm;
pub(crate) mod say;
pub(crate) mod send;
pub(crate) mod sessions;
pub(crate) mod setstat;
pub(crate) mod stat;
pub(crate) mod ticket;
pub(crate) mod token_add;
pub(crate) mod token_remove;
pub(crate) mod tokens;
pub(crate) mod uploads;
pub(crate) mod user_add;
pub(crate) mod user_passwd;
pub(crate) mod user_remove;
pub(crate) mod user_set;
pub(crate) mod users;
pub(crate) mod watch;
pub(crate) mod who;
pub(crate) mod whoami;

use std::future::Future;

use bytes::Bytes;

pub(crate) use crate::server::commands::chunks::chunks;
pub(crate) use crate::server::commands::drain::drain;
pub(crate) use crate::server::commands::get::{get, get_small};
pub(crate) use crate::server::commands::login::{log_in, welcome};
pub(crate) use crate::server::commands::logs::logs;
pub(crate) use crate::server::commands::ls_tree::list_tree;
pub(crate) use crate::server::commands::put::put;
pub(crate) use crate::server::commands::say::say;
pub(crate) use crate::server::commands::ticket::ticket;
pub(crate) use crate::server::commands::watch::{follow_access, unwatch, watch};
pub(crate) use crate::server::commands::who::who;

use crate::protocol::{Call, Nothing, Request, encode_ok};
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::server::session::peer::Peer;
use crate::server::state::ServerState;

/// A member's command that one value answers.
pub(crate) trait Command: Call {
    /// Does it, for `member`.
    fn apply(
        self,
        member: &mut Member,
    ) -> impl Future<Output = Result<Self::Reply, CommandError>> + Send;
}

/// Applies a command that is authorized, and makes its reply.
pub(crate) async fn run<C: Command>(
    id: u32,
    command: C,
    member: &mut Member,
) -> Result<Bytes, CommandError> {
    let reply = command.apply(member).await?;
    Ok(encode_ok(id, &reply))
}

/// Answers a command that needs no user. `login` needs the session, so it is not one of them.
pub(crate) fn answer_without_user(
    id: u32,
    request: &Request,
    shared: &ServerState,
    peer: &Peer,
) -> Result<Bytes, CommandError> {
    match request {
        Request::Hello(_) => Ok(encode_ok(id, &hello::answer(shared, peer))),
        Request::Help(help) => Ok(encode_ok(id, &help::answer(help)?)),
        Request::Quit(_) => Ok(encode_ok(id, &Nothing {})),
        other => Err(CommandError::NotLoggedIn(other.cmd())),
    }
}

#[cfg(test)]
pub(crate) mod tests;
