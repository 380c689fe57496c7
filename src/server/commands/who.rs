//! `who`: who is connected.

use crate::protocol::{MAX_CONTROL, Who, WhoReply};
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::member::Member;

/// What the list may take of a frame; the rest is for what is around it.
pub(crate) const BUDGET: usize = MAX_CONTROL - 1024;

impl Command for Who {
    async fn apply(self, member: &mut Member) -> Result<WhoReply, CommandError> {
        Ok(who(member, BUDGET))
    }
}

/// Who is connected, as many as `budget` bytes of JSON hold.
pub(crate) fn who(member: &Member, budget: usize) -> WhoReply {
    member.shared.messages.who(budget)
}
