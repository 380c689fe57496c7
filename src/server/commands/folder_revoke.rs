//! `folder_revoke`: take all rights in a shared folder from a user.

use crate::protocol::{Call, FolderRevoke, Nothing};
use crate::server::commands::Command;
use crate::server::commands::administration::{
    AccountsChange, accounts_for_admin, folder_name, refusal, user_name,
};
use crate::server::error::CommandError;
use crate::server::session::member::Member;

impl Command for FolderRevoke {
    async fn apply(self, member: &mut Member) -> Result<Nothing, CommandError> {
        let (folder, user) = (folder_name(&self.folder)?, user_name(&self.user)?);
        let revoked = accounts_for_admin(member)?.revoke(&folder, &user).await;
        revoked.map_err(refusal(Self::CMD))?;
        let change = AccountsChange {
            user: Some(user.as_str()),
            folder: Some(folder.as_str()),
            ..AccountsChange::default()
        };
        change.log(Self::CMD);
        Ok(Nothing {})
    }
}
