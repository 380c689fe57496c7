//! `send`: offer a file to another user.

use tokio::time::Instant;

use super::Command;
use super::say::receiver;
use crate::messages::{OfferedFile, To};
use crate::protocol::{BadRequest, SendReply, SendTo};
use crate::server::CommandError;
use crate::server::member::Member;
use crate::storage::StorageError;

impl Command for SendTo {
    async fn apply(self, member: &mut Member) -> Result<SendReply, CommandError> {
        let shared = member.shared.clone();
        let (rate, keep) = {
            let limits = &shared.config().limits;
            (limits.messages_per_user, limits.keep_offers)
        };
        let allowed = shared
            .chatter
            .allow(member.account.id, rate, Instant::now());
        allowed.map_err(CommandError::TooMuchSaid)?;
        let path = member.resolve(&self.path)?;
        let To::User(to) = receiver(member, "send", "to", &self.to).await? else {
            let message = "a file is offered to one user, not to a room";
            // The reply has the request's own id.
            return Err(BadRequest::of_field(0, "send", "to", message).into());
        };
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
        let offering = shared.messages.offer(member.party(), to, file, keep);
        let (offer, stored) = offering.await?;
        stored.done().await?;
        Ok(SendReply { offer })
    }
}
