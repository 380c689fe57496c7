//! `folder_grant`: give a user rights in a shared folder, in place of earlier ones.

use crate::protocol::{Call, FolderGrant, Nothing};
use crate::server::commands::Command;
use crate::server::commands::administration::{
    AccountsChange, accounts_for_admin, folder_name, refusal, user_name,
};
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::storage::Rights;

impl Command for FolderGrant {
    async fn apply(self, member: &mut Member) -> Result<Nothing, CommandError> {
        let (folder, user) = (folder_name(&self.folder)?, user_name(&self.user)?);
        let rights = Rights::from_names(self.rights.iter().map(String::as_str))
            .map_err(|error| CommandError::invalid_field("rights", error))?;
        let granted = accounts_for_admin(member)?
            .grant(&folder, &user, rights)
            .await;
        granted.map_err(refusal(Self::CMD))?;
        let change = AccountsChange {
            user: Some(user.as_str()),
            folder: Some(folder.as_str()),
            set: Some(&rights.to_string()),
            ..AccountsChange::default()
        };
        change.log(Self::CMD);
        Ok(Nothing {})
    }
}
