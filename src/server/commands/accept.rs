//! `accept`: copy an offered file on the server.

use std::sync::Arc;

use tracing::warn;

use crate::protocol::{Accept, IfExists, PathReply};
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::storage::{StorageError, VirtualPath};

impl Command for Accept {
    async fn apply(self, member: &mut Member) -> Result<PathReply, CommandError> {
        let requested_path = match &self.path {
            Some(path) => Some(member.resolve(path)?),
            None => None,
        };
        let messages = member.shared.messages.clone();
        let claim = messages
            .claim_to_accept(member.authority.id, &self.offer)
            .await?;
        let source = member.authority_of(&claim.from).await?;
        let from = VirtualPath::parse(&claim.file.path).map_err(StorageError::from)?;
        let (to, if_exists) = if let Some(path) = requested_path {
            (path, IfExists::Fail)
        } else {
            let name = from.name().unwrap_or_default();
            let path = member.cwd.join_name(name).map_err(StorageError::from)?;
            (path, IfExists::Rename)
        };
        let peer_left = member.peer_left.clone();
        let claim = Arc::new(claim);
        // The work holds the claim, because it runs to its end although its session may end before.
        let claimed = Arc::clone(&claim);
        let path = member
            .with_counted_view(move |view| {
                let version = &claimed.file.version;
                let stop = || peer_left.is_cancelled();
                view.receive(source.view(), &from, version, &to, if_exists, &stop)
            })
            .await?;
        if let Some(claim) = Arc::into_inner(claim)
            && let Err(error) = claim.close().await
        {
            warn!(name: "offer_stays_open", %error, "an offer that was accepted stays open");
        }
        Ok(PathReply {
            path: path.to_string(),
        })
    }
}
