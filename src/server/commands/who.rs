//! `who`: who is connected.

use super::Command;
use crate::protocol::{MAX_CONTROL, Who, WhoReply};
use crate::server::CommandError;
use crate::server::member::Member;

/// What the list may take of a frame; the rest is for what is around it.
pub(super) const BUDGET: usize = MAX_CONTROL - 1024;

impl Command for Who {
    async fn apply(self, member: &mut Member) -> Result<WhoReply, CommandError> {
        Ok(who(member, BUDGET))
    }
}

/// Who is connected, as many as `budget` bytes of JSON hold.
pub(in crate::server) fn who(member: &Member, budget: usize) -> WhoReply {
    member.shared.messages.who(budget)
}
