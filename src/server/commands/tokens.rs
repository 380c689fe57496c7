//! `tokens`: the tokens of this user, or of another one.

use std::num::NonZeroU32;

use crate::accounts::Token;
use crate::protocol::{Call, ReplyBudget, TokenEntry, Tokens, TokensReply};
use crate::server::commands::Command;
use crate::server::commands::administration::{NamedOwner, refusal};
use crate::server::error::CommandError;
use crate::server::session::member::Member;

/// The most tokens on a page; their labels may make it shorter.
const MAX_TOKENS_PER_PAGE: u32 = 500;

impl Command for Tokens {
    async fn apply(self, member: &mut Member) -> Result<TokensReply, CommandError> {
        let owner = NamedOwner::resolve(member, Self::CMD, self.user.as_deref())?;
        let after = self.cursor.as_deref().map(parse_cursor).transpose()?;
        let current = member.authority.credential().token;
        let tokens = member.shared.accounts.tokens(owner.as_owner()).await;
        let tokens = tokens.map_err(refusal(Self::CMD))?;
        let entries = tokens
            .into_iter()
            .filter(|token| after.is_none_or(|after| token.id > after))
            .map(|token| entry(token, current));
        let max = self.limit.map_or(MAX_TOKENS_PER_PAGE, NonZeroU32::get);
        Ok(page(entries, max.min(MAX_TOKENS_PER_PAGE) as usize))
    }
}

/// As many tokens as fit in a frame, and at most `max`.
pub(crate) fn page(entries: impl Iterator<Item = TokenEntry>, max: usize) -> TokensReply {
    let mut reply = TokensReply {
        tokens: Vec::new(),
        cursor: None,
    };
    let mut budget = ReplyBudget::after(&reply);
    for entry in entries {
        if reply.tokens.len() == max || !budget.try_add(&entry) {
            reply.cursor = reply.tokens.last().map(|last| last.number.to_string());
            break;
        }
        reply.tokens.push(entry);
    }
    reply
}

fn entry(token: Token, current: Option<i64>) -> TokenEntry {
    TokenEntry {
        current: current == Some(token.id),
        // The database numbers them from 1.
        number: token.id.unsigned_abs(),
        label: token.label,
        created: token.created,
        expires: token.expires,
    }
}

fn parse_cursor(cursor: &str) -> Result<i64, CommandError> {
    let message = "`tokens` has not returned this cursor";
    let number = cursor.parse::<i64>().ok();
    number
        .filter(|number| *number > 0 && number.to_string() == cursor)
        .ok_or_else(|| CommandError::invalid_field("cursor", message))
}
