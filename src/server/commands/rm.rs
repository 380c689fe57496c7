//! `rm`: remove a file or a directory.

use crate::protocol::{Rm, RmReply};
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::member::Member;

impl Command for Rm {
    async fn apply(self, member: &mut Member) -> Result<RmReply, CommandError> {
        let path = member.resolve(&self.path)?;
        let peer_left = member.peer_left.clone();
        let removed = member
            .with_counted_view(move |view| {
                view.remove(&path, self.recursive, &|| peer_left.is_cancelled())
            })
            .await?;
        Ok(RmReply {
            removed: removed.entries,
            left: removed.left,
        })
    }
}
