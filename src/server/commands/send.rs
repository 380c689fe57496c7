//! `send`: offer a file to another user.

use crate::messages::{OfferedFile, RoomName};
use crate::protocol::{SendReply, SendTo};
use crate::server::commands::Command;
use crate::server::commands::say::{check_rate, user};
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::storage::StorageError;

impl Command for SendTo {
    async fn apply(self, member: &mut Member) -> Result<SendReply, CommandError> {
        let shared = member.shared.clone();
        check_rate(member)?;
        let keep = shared.config().limits.keep_offers;
        let path = member.resolve(&self.path)?;
        if RoomName::is_room(&self.to) {
            let message = "a file is offered to one user, not to a room";
            return Err(CommandError::invalid_field("to", message));
        }
        let to = user(member, &self.to).await?;
        let file = path.clone();
        let info = member
            .with_view(move |view| view.open(&file, None).map(|file| file.info().clone()))
            .await?;
        let version = info
            .version
            .ok_or_else(|| StorageError::IsADirectory { path: path.clone() })?;
        let file = OfferedFile {
            path: path.to_string(),
            version,
            size: info.size,
        };
        let offering = shared.messages.offer(member.user_ref(), to, file, keep);
        let (offer, stored) = offering.await?;
        stored.stored().await?;
        Ok(SendReply { offer })
    }
}
