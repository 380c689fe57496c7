//! `who`: who is connected.

use crate::protocol::{MAX_CONTROL, Who, WhoReply};
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::member::Member;

/// The bytes of a frame that the list may take; the rest is for the envelope.
pub(crate) const BUDGET: usize = MAX_CONTROL - 1024;

impl Command for Who {
    async fn apply(self, member: &mut Member) -> Result<WhoReply, CommandError> {
        Ok(who(member, BUDGET))
    }
}

/// The connected users, as many as `budget` bytes of JSON hold.
pub(crate) fn who(member: &Member, budget: usize) -> WhoReply {
    member.shared.messages.who(budget)
}
