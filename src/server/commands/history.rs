//! `history`: a page of past messages.

use std::num::NonZeroU32;

use crate::messages::HistoryQuery;
use crate::protocol::{History, HistoryReply, MAX_CONTROL};
use crate::server::commands::Command;
use crate::server::commands::say::receiver;
use crate::server::error::CommandError;
use crate::server::session::member::Member;

/// Messages in a page, unless the request says otherwise.
const DEFAULT_PAGE_MESSAGES: u32 = 100;

/// The most messages in a page.
const MAX_PAGE_MESSAGES: u32 = 1000;

/// The bytes of a frame that a page may take; the rest is for the envelope.
pub(crate) const BUDGET: usize = MAX_CONTROL - 1024;

impl Command for History {
    async fn apply(self, member: &mut Member) -> Result<HistoryReply, CommandError> {
        let limit = self.limit.map_or(DEFAULT_PAGE_MESSAGES, NonZeroU32::get);
        let query = HistoryQuery {
            user: member.user_ref(),
            with: receiver(member, "with", &self.with).await?,
            before: self.before,
            limit: limit.min(MAX_PAGE_MESSAGES) as usize,
            max_json_bytes: BUDGET,
        };
        Ok(member.shared.messages.history(&query).await?)
    }
}
