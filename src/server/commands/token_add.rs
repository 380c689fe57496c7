//! `token_add`: make a token for this user, or for another one.
//!
//! A session that a token opened makes none for its own user or for an administrator: a stolen token
//! would otherwise give its access after it expires or is revoked. A session that a password or a
//! certificate opened does.

use crate::accounts::{TokenExpiry, TokenLabel};
use crate::protocol::{Call, TokenAdd, TokenAddReply};
use crate::server::commands::Command;
use crate::server::commands::administration::{
    AccountsChange, NamedOwner, check_may_give_access, check_may_give_access_to, refusal,
};
use crate::server::error::CommandError;
use crate::server::session::member::Member;

impl Command for TokenAdd {
    async fn apply(self, member: &mut Member) -> Result<TokenAddReply, CommandError> {
        let owner = NamedOwner::resolve(member, Self::CMD, self.user.as_deref())?;
        match &owner {
            NamedOwner::Own(_) => check_may_give_access(member)?,
            NamedOwner::Other(name) => check_may_give_access_to(member, name).await?,
        }
        let (label, expiry) = (self.label()?, self.expiry()?);
        let accounts = owner.accounts(member)?;
        let issued = accounts.issue_token(owner.as_owner(), &label, expiry).await;
        let issued = issued.map_err(refusal(Self::CMD))?;
        let change = AccountsChange {
            user: Some(owner.name().as_str()),
            token: Some(issued.id),
            ..AccountsChange::default()
        };
        change.log(Self::CMD);
        Ok(TokenAddReply {
            token: issued.token,
            number: issued.id.unsigned_abs(),
            expires: issued.expires,
        })
    }
}

impl TokenAdd {
    fn label(&self) -> Result<TokenLabel, CommandError> {
        let label = self.label.as_deref().unwrap_or_default().parse();
        label.map_err(|error| CommandError::invalid_field("label", error))
    }

    fn expiry(&self) -> Result<TokenExpiry, CommandError> {
        match (self.expires, self.never_expires) {
            (None, false) => Ok(TokenExpiry::default()),
            (None, true) => Ok(TokenExpiry::Never),
            (Some(time), false) => {
                TokenExpiry::at(time).map_err(|error| CommandError::invalid_field("expires", error))
            }
            (Some(_), true) => {
                let message = "a token has `expires` or `never_expires`, not both";
                Err(CommandError::invalid_field("never_expires", message))
            }
        }
    }
}
