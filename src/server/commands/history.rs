//! `history`: what was said, a page at a time.

use std::num::NonZeroU32;

use crate::protocol::{History, HistoryReply, MAX_CONTROL};
use crate::server::commands::Command;
use crate::server::commands::say::receiver;
use crate::server::error::CommandError;
use crate::server::session::member::Member;

/// Messages in a page, unless the request says otherwise.
const PAGE: u32 = 100;

/// Messages in any page.
const LARGEST_PAGE: u32 = 1000;

/// The bytes of a frame that a page may take; the rest is for the envelope.
pub(crate) const BUDGET: usize = MAX_CONTROL - 1024;

impl Command for History {
    async fn apply(self, member: &mut Member) -> Result<HistoryReply, CommandError> {
        let with = receiver(member, "with", &self.with).await?;
        let limit = self.limit.map_or(PAGE, NonZeroU32::get).min(LARGEST_PAGE) as usize;
        let messages = &member.shared.messages;
        let user = member.user_ref();
        let page = messages.history(&user, &with, self.before, limit, BUDGET);
        Ok(page.await?)
    }
}
