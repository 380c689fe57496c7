//! `offers`: the files that are offered to this user.

use super::Command;
use crate::protocol::{MAX_CONTROL, Offers, OffersReply};
use crate::server::CommandError;
use crate::server::member::Member;

/// What the list may take of a frame; the rest is for what is around it.
pub(super) const BUDGET: usize = MAX_CONTROL - 1024;

impl Command for Offers {
    async fn apply(self, member: &mut Member) -> Result<OffersReply, CommandError> {
        let messages = &member.shared.messages;
        Ok(messages.offers(member.account.id, BUDGET).await?)
    }
}
