//! `folder_add`: make a shared folder, which nobody sees yet.

use crate::protocol::{Call, FolderAdd, Nothing};
use crate::server::commands::Command;
use crate::server::commands::administration::{
    AccountsChange, accounts_for_admin, describe_limits, folder_name, refusal,
};
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::storage::SpaceLimits;

impl Command for FolderAdd {
    async fn apply(self, member: &mut Member) -> Result<Nothing, CommandError> {
        let name = folder_name(&self.folder)?;
        let limits = SpaceLimits {
            bytes: self.limit,
            files: self.files_limit,
        };
        let accounts = accounts_for_admin(member)?;
        accounts
            .add_folder(&name, limits)
            .await
            .map_err(refusal(Self::CMD))?;
        let set = describe_limits(limits);
        let change = AccountsChange {
            folder: Some(name.as_str()),
            set: Some(&*set).filter(|set| !set.is_empty()),
            ..AccountsChange::default()
        };
        change.log(Self::CMD);
        Ok(Nothing {})
    }
}
