//! `cp`: copy on the server; nothing crosses the network.

use crate::protocol::{Cp, IfExists, PathReply};
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::member::Member;

impl Command for Cp {
    async fn apply(self, member: &mut Member) -> Result<PathReply, CommandError> {
        let from = member.resolve(&self.from)?;
        let to = member.resolve(&self.to)?;
        let if_exists = self.if_exists.unwrap_or(IfExists::Fail);
        let peer_left = member.peer_left.clone();
        let path = member
            .with_counted_view(move |view| {
                view.copy(&from, &to, if_exists, &|| peer_left.is_cancelled())
            })
            .await?;
        Ok(PathReply {
            path: path.to_string(),
        })
    }
}
