//! `offers`: the files that are offered to this user, or by this user.

use crate::protocol::{MAX_CONTROL, Offers, OffersReply};
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::member::Member;

/// The bytes of a frame that the list may take; the rest is for the envelope.
pub(crate) const BUDGET: usize = MAX_CONTROL - 1024;

impl Command for Offers {
    async fn apply(self, member: &mut Member) -> Result<OffersReply, CommandError> {
        let messages = &member.shared.messages;
        Ok(messages
            .offers(member.authority.id, self.sent, BUDGET)
            .await?)
    }
}
