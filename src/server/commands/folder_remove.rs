//! `folder_remove`: remove a shared folder. Its files are set aside.

use crate::accounts::AccountsError;
use crate::protocol::{Call, FolderRemove, RemovedReply};
use crate::server::commands::Command;
use crate::server::commands::administration::{
    AccountsChange, accounts_for_admin, folder_name, refusal,
};
use crate::server::error::CommandError;
use crate::server::session::member::Member;

impl Command for FolderRemove {
    async fn apply(self, member: &mut Member) -> Result<RemovedReply, CommandError> {
        let name = folder_name(&self.folder)?;
        let removed = accounts_for_admin(member)?.remove_folder(&name).await;
        if let Ok(_) | Err(AccountsError::FilesLeftBehind { .. }) = removed {
            let change = AccountsChange {
                folder: Some(name.as_str()),
                ..AccountsChange::default()
            };
            change.log(Self::CMD);
        }
        let had_files = removed.map_err(refusal(Self::CMD))?;
        Ok(RemovedReply { had_files })
    }
}
