//! `token_remove`: revoke a token of this user, or of another one. Its sessions end.

use crate::protocol::{Call, Nothing, TokenRemove};
use crate::server::commands::Command;
use crate::server::commands::administration::{AccountsChange, NamedOwner, refusal};
use crate::server::error::CommandError;
use crate::server::session::member::Member;

impl Command for TokenRemove {
    async fn apply(self, member: &mut Member) -> Result<Nothing, CommandError> {
        let owner = NamedOwner::resolve(member, Self::CMD, self.user.as_deref())?;
        // No token has a number that does not fit.
        let id = i64::try_from(self.number).unwrap_or(i64::MAX);
        let accounts = owner.accounts(member)?;
        let removed = accounts.remove_token(owner.as_owner(), id).await;
        removed.map_err(refusal(Self::CMD))?;
        let change = AccountsChange {
            user: Some(owner.name().as_str()),
            token: Some(id),
            ..AccountsChange::default()
        };
        change.log(Self::CMD);
        Ok(Nothing {})
    }
}
