//! `user_set`: change an account.

use crate::accounts::{Limit, UserChange, UserName};
use crate::protocol::{Call, Nothing, UserSet};
use crate::server::commands::Command;
use crate::server::commands::administration::{
    AccountsChange, accounts_for_admin, check_may_give_access, other_user_name, refusal, user_name,
};
use crate::server::error::CommandError;
use crate::server::session::member::Member;

impl Command for UserSet {
    async fn apply(self, member: &mut Member) -> Result<Nothing, CommandError> {
        let name = self.name(member)?;
        let change = self.change()?;
        if self.admin == Some(true) {
            check_may_give_access(member)?;
        }
        let accounts = accounts_for_admin(member)?;
        accounts
            .set_user(&name, change)
            .await
            .map_err(refusal(Self::CMD))?;
        let set = describe(change);
        let logged = AccountsChange {
            user: Some(name.as_str()),
            set: Some(&set),
            ..AccountsChange::default()
        };
        logged.log(Self::CMD);
        Ok(Nothing {})
    }
}

impl UserSet {
    fn name(&self, member: &Member) -> Result<UserName, CommandError> {
        if self.admin == Some(false) || self.disabled == Some(true) {
            other_user_name(member, &self.user)
        } else {
            user_name(&self.user)
        }
    }

    fn change(&self) -> Result<UserChange, CommandError> {
        let change = UserChange {
            admin: self.admin,
            disabled: self.disabled,
            bytes: new_limit("no_limit", self.limit, self.no_limit)?,
            files: new_limit("no_files_limit", self.files_limit, self.no_files_limit)?,
        };
        if change == UserChange::default() {
            let message = "the request names nothing to change";
            return Err(CommandError::invalid_field("user", message));
        }
        Ok(change)
    }
}

fn new_limit(
    field: &'static str,
    limit: Option<u64>,
    is_removed: bool,
) -> Result<Option<Limit>, CommandError> {
    match (limit, is_removed) {
        (None, false) => Ok(None),
        (None, true) => Ok(Some(Limit::Unlimited)),
        (Some(limit), false) => Ok(Some(Limit::AtMost(limit))),
        (Some(_), true) => {
            let message = "a limit is set or removed, not both";
            Err(CommandError::invalid_field(field, message))
        }
    }
}

/// The change, as the audit shows it.
fn describe(change: UserChange) -> String {
    let switches = [("admin", change.admin), ("disabled", change.disabled)];
    let switches = switches
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", value?)));
    let limits = [("limit", change.bytes), ("files_limit", change.files)];
    let limits = limits.into_iter().filter_map(|(name, limit)| match limit? {
        Limit::AtMost(number) => Some(format!("{name}={number}")),
        Limit::Unlimited => Some(format!("{name}=none")),
    });
    switches.chain(limits).collect::<Vec<_>>().join(" ")
}
