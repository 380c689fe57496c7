//! `user_remove`: remove an account. Its files are set aside.

use crate::accounts::AccountsError;
use crate::protocol::{Call, RemovedReply, UserRemove};
use crate::server::commands::Command;
use crate::server::commands::administration::{
    AccountsChange, accounts_for_admin, other_user_name, refusal,
};
use crate::server::error::CommandError;
use crate::server::session::member::Member;

impl Command for UserRemove {
    async fn apply(self, member: &mut Member) -> Result<RemovedReply, CommandError> {
        let name = other_user_name(member, &self.user)?;
        let removed = accounts_for_admin(member)?.remove_user(&name).await;
        if let Ok(_) | Err(AccountsError::FilesLeftBehind { .. }) = removed {
            let change = AccountsChange {
                user: Some(name.as_str()),
                ..AccountsChange::default()
            };
            change.log(Self::CMD);
        }
        let had_files = removed.map_err(refusal(Self::CMD))?;
        Ok(RemovedReply { had_files })
    }
}
