//! `user_add`: make an account.

use crate::accounts::NewUser;
use crate::protocol::{Call, Nothing, UserAdd};
use crate::server::commands::Command;
use crate::server::commands::administration::{
    AccountsChange, accounts_for_admin, check_may_give_access, check_password, describe_limits,
    refusal, user_name,
};
use crate::server::commands::login::queued;
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::storage::SpaceLimits;

impl Command for UserAdd {
    async fn apply(self, member: &mut Member) -> Result<Nothing, CommandError> {
        let name = user_name(&self.user)?;
        check_password(member, "password", &self.password)?;
        if self.admin {
            check_may_give_access(member)?;
        }
        let accounts = accounts_for_admin(member)?;
        let new = NewUser {
            admin: self.admin,
            limits: SpaceLimits {
                bytes: self.limit,
                files: self.files_limit,
            },
        };
        let shared = &member.shared;
        let adding = async {
            let added = accounts.add_user(&name, &self.password, new).await;
            Ok(added.map_err(refusal(Self::CMD)))
        };
        queued(shared, member.address_block, adding).await??;
        let admin = if new.admin { "admin " } else { "" };
        let set = format!("{admin}{}", describe_limits(new.limits));
        let set = Some(set.trim_end()).filter(|set| !set.is_empty());
        let change = AccountsChange {
            user: Some(name.as_str()),
            set,
            ..AccountsChange::default()
        };
        change.log(Self::CMD);
        Ok(Nothing {})
    }
}
