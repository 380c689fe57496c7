//! `sessions`: the sessions of the server, with their running transfers.

use std::num::NonZeroU32;

use crate::protocol::{ReplyBudget, SessionEntry, Sessions, SessionsReply};
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::member::Member;

/// Sessions on a page at most; their transfers may make it shorter.
const MAX_SESSIONS: u32 = 500;

impl Command for Sessions {
    async fn apply(self, member: &mut Member) -> Result<SessionsReply, CommandError> {
        let after = self.cursor.as_deref().map(number).transpose()?;
        let limit = self.limit.map_or(MAX_SESSIONS, NonZeroU32::get);
        let limit = limit.min(MAX_SESSIONS) as usize;
        // One more than fits, to know whether there is one.
        let entries = member.shared.sessions.entries(after, limit + 1);
        Ok(page(entries, limit))
    }
}

/// A page with at most `limit` sessions, as many as fit in a frame.
pub(crate) fn page(
    entries: impl IntoIterator<Item = (u64, SessionEntry)>,
    limit: usize,
) -> SessionsReply {
    let mut reply = SessionsReply {
        sessions: Vec::new(),
        cursor: None,
    };
    let mut budget = ReplyBudget::after(&reply);
    let mut last = None;
    for (number, mut entry) in entries {
        let is_full = reply.sessions.len() == limit;
        if is_full || !budget.try_add(&entry) {
            if let Some(last) = last {
                reply.cursor = Some(u64::to_string(&last));
                break;
            }
            // A session whose transfers have long paths is listed, too; `running` says how many it has.
            let all = std::mem::take(&mut entry.transfers);
            budget.try_add(&entry);
            (entry.transfers, _) = budget.fill(all);
        }
        last = Some(number);
        reply.sessions.push(entry);
    }
    reply
}

fn number(cursor: &str) -> Result<u64, CommandError> {
    let message = "this is no cursor that `sessions` has answered";
    cursor
        .parse()
        .map_err(|_| CommandError::invalid_field("cursor", message))
}
