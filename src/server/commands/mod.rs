//! The commands, one file each, and the one place that leads from a request to its command.

mod accept;
mod cd;
mod cp;
mod decline;
mod df;
mod discard;
mod drain;
mod get;
mod hash;
mod hello;
mod help;
mod history;
mod join;
mod kick;
mod leave;
mod log_level;
mod login;
mod logs;
mod ls;
mod mkdir;
mod mv;
mod offers;
mod passwd;
mod ping;
mod put;
mod pwd;
mod register;
mod reload;
mod rm;
mod say;
mod send;
mod sessions;
mod stat;
mod ticket;
mod uploads;
mod users;
mod watch;
mod who;
mod whoami;

use std::future::Future;

use bytes::Bytes;

pub(super) use drain::drain;
pub(super) use get::{SmallFile, get, get_small};
pub(super) use login::{log_in, welcome};
pub(super) use logs::logs;
pub(super) use put::{put, put_reply, small_upload};
pub(super) use register::register;
pub(super) use say::say;
pub(super) use ticket::ticket;
pub(super) use watch::{follow_access, unwatch, watch};
pub(super) use who::who;

use super::member::Member;
use super::{CommandError, Peer, Shared};
use crate::protocol::{Call, Nothing, Ping, Request, encode_ok};

/// A member's command that one value answers.
pub(super) trait Command: Call {
    /// Does it, for `member`.
    fn apply(
        self,
        member: &mut Member,
    ) -> impl Future<Output = Result<Self::Reply, CommandError>> + Send;
}

/// Applies a command and makes its reply.
pub(super) async fn run<C: Command>(
    id: u32,
    command: C,
    member: &mut Member,
) -> Result<Bytes, CommandError> {
    // A ping asks for nothing.
    if C::CMD != Ping::CMD {
        member.check()?;
    }
    let reply = command.apply(member).await?;
    Ok(encode_ok(id, &reply))
}

/// Answers what needs no login.
pub(super) fn visit(
    id: u32,
    request: &Request,
    shared: &Shared,
    peer: &Peer,
) -> Result<Bytes, CommandError> {
    match request {
        Request::Hello(_) => Ok(encode_ok(id, &hello::answer(shared, peer))),
        Request::Help(help) => Ok(encode_ok(id, &help::answer(id, help)?)),
        Request::Quit(_) => Ok(encode_ok(id, &Nothing {})),
        other => Err(CommandError::NotLoggedIn(other.cmd())),
    }
}

#[cfg(test)]
mod tests;
