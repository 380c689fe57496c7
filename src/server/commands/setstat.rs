//! `setstat`: set the time or the mode of a file or directory.

use crate::protocol::{SetStat, SetStatReply};
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::storage::MetadataUpdate;

impl Command for SetStat {
    async fn apply(self, member: &mut Member) -> Result<SetStatReply, CommandError> {
        let path = member.resolve(&self.path)?;
        let update = MetadataUpdate {
            modified: self.modified,
            mode: self.mode,
        };
        if update == MetadataUpdate::default() {
            let message = "nothing is to be set: give `modified` or `mode`";
            return Err(CommandError::invalid_field("modified", message));
        }
        let target = path.clone();
        let stored = member
            .with_view(move |view| view.set_metadata(&target, update))
            .await?;
        Ok(SetStatReply {
            path: path.to_string(),
            modified: stored.modified,
            mode: stored.mode,
        })
    }
}
