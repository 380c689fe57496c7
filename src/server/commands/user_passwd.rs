//! `user_passwd`: set the password of another user. The user's tokens and sessions stay as they are.

use crate::protocol::{Call, Nothing, UserPasswd};
use crate::server::commands::Command;
use crate::server::commands::administration::{
    AccountsChange, accounts_for_admin, check_may_give_access_to, check_password, other_user_name,
    refusal,
};
use crate::server::commands::login::queued;
use crate::server::error::CommandError;
use crate::server::session::member::Member;

impl Command for UserPasswd {
    async fn apply(self, member: &mut Member) -> Result<Nothing, CommandError> {
        let name = other_user_name(member, &self.user)?;
        check_password(member, "password", &self.password)?;
        let accounts = accounts_for_admin(member)?;
        check_may_give_access_to(member, &name).await?;
        let shared = &member.shared;
        let setting = async {
            let set = accounts.set_password(&name, &self.password).await;
            Ok(set.map_err(refusal(Self::CMD)))
        };
        queued(shared, member.address_block, setting).await??;
        let change = AccountsChange {
            user: Some(name.as_str()),
            ..AccountsChange::default()
        };
        change.log(Self::CMD);
        Ok(Nothing {})
    }
}
