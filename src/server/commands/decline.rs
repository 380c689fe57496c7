//! `decline`: do not take a file that was offered, or no longer offer it.

use crate::protocol::{Decline, Nothing};
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::member::Member;

impl Command for Decline {
    async fn apply(self, member: &mut Member) -> Result<Nothing, CommandError> {
        let messages = &member.shared.messages;
        let claim = messages.claim_to_decline(member.authority.id, &self.offer);
        claim.await?.close().await?;
        Ok(Nothing {})
    }
}
